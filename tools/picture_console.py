#!/usr/bin/env python3
"""Pictures of the console's screens in light and dark, for the documentation: `python tools/picture_console.py`.

What they show is the shop of `tests/memory_desk.py` at a time that stands still, so they change only when the console
does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from memory_desk import MemoryDesk, shop  # noqa: E402 - it is found by the line above
from served_console import Visitor, serving  # noqa: E402 - likewise
from servers.chromium import chromium  # noqa: E402 - likewise

from streamworker.replay.dead_record import LetterId  # noqa: E402 - they stand with the others
from streamworker.replay.desk import Action, Actor, OperationState, Rates, Request, Role  # noqa: E402 - likewise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from served_console import Served

PICTURES = ROOT / "docs" / "img"
SCHEMES = ("light", "dark")
_WIDE = {"width": 1280, "height": 860}
_PHONE = {"width": 390, "height": 844}


def busy_shop() -> MemoryDesk:
    """One where somebody has worked already."""
    desk, ada = shop(), Actor("ada", Role.OPERATOR, "console", verified=True)
    discarded = [LetterId(2, 3), LetterId(2, 4), LetterId(2, 5)]
    for action, ids in ((Action.REPLAY, [LetterId(1, n) for n in range(4, 11)]), (Action.DISCARD, discarded)):
        reason = "fixed elsewhere" if action is Action.DISCARD else None
        request = Request(topic="orders.dlq", action=action, ids=ids, reason_code=reason, note="ticket 4711")
        desk.operation(desk.run(ada, desk.plan(ada, request).id, Rates()).id)
    desk.clock.now_ms += 95_000
    return desk


def tour(visitor: Visitor, served: Served) -> Iterator[str]:
    """Goes from screen to screen, and says at which one it is."""
    page, desk = visitor.page, served.desk
    visitor.go("/login")
    yield "login"
    visitor.sign_in("editor")
    yield "overview"
    visitor.go("/topics/orders.dlq")
    yield "topic"
    visitor.go("/topics/orders.dlq?view=letters&q=state:pending")
    for key in ("j", "j", "x", "j", "x"):
        page.keyboard.press(key)
    yield "letters"
    visitor.go("/topics/orders.dlq/0/4")
    yield "letter"
    visitor.go("/topics/orders.dlq/0/4/repair")
    field = page.get_by_label("Value, as json")
    field.fill(field.input_value().replace("XXX", "EUR"))
    yield "repair"
    page.get_by_role("button", name="Preview").click()
    yield "plan"
    page.get_by_role("button", name="Repair and send").click()
    visitor.go("/topics/orders.dlq/0/4")
    page.locator("#outcome").get_by_text("has been handled").wait_for()
    yield "handled"
    visitor.go("/topics/orders.dlq/prepare?action=discard&id=1:0")
    yield "prepare"
    desk.step = 0
    visitor.go("/topics/orders.dlq/prepare?action=replay&q=state:pending")
    page.get_by_role("button", name="Make a plan").click()
    page.get_by_role("button", name="Replay 31").click()
    desk.work(desk.operations()[0].id, 17)
    page.get_by_text("17 of 31").first.wait_for()
    yield "operation"
    visitor.go("/operations")
    yield "operations"
    visitor.go("/groups")
    yield "groups"
    visitor.go("/audit")
    yield "audit"
    assert desk.operations()[0].state is OperationState.RUNNING


def main() -> None:
    """Make them all."""
    PICTURES.mkdir(exist_ok=True)
    with chromium() as browser:
        for name, scheme, size in (*((scheme, scheme, _WIDE) for scheme in SCHEMES), ("phone", "light", _PHONE)):
            with serving(busy_shop()) as served:
                context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
                visitor = Visitor(context, context.new_page(), served.origin)
                for screen in tour(visitor, served):
                    visitor.page.screenshot(path=PICTURES / f"console-{screen}-{name}.png")
                context.close()


if __name__ == "__main__":
    main()
