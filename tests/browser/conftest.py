"""The console as people see it: served on a port of its own, looked at in Chromium.

Whatever a test does, no page may ask another host for anything, run code of a record, break a rule that the console has
set for its own pages, or fail in a script.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from memory_desk import shop
from missing import obtained
from served_console import Served, Visitor, serving
from servers.chromium import chromium

from streamworker.replay.desk import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for a file: while there is one, its event loop keeps other tests from having theirs."""
    with ExitStack() as stack:
        yield obtained(lambda: stack.enter_context(chromium()))


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(shop()) as console:
        yield console


@pytest.fixture
def visitor(browser: Browser, served: Served) -> Iterator[Callable[..., Visitor]]:
    """Opens a context for somebody of a role; at the end nothing may have gone wrong in any."""
    opened: list[Visitor] = []

    def visit(role: Role = Role.ADMIN, **options: object) -> Visitor:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(10_000)
        made = Visitor(context, context.new_page(), served.origin)
        if options.get("java_script_enabled", True):
            made.watch()
        opened.append(made)
        made.sign_in(role.name.lower())
        return made

    yield visit
    for one in opened:
        one.context.close()
    assert [what for one in opened for what in one.wrong if not what.startswith(one.expected or ("\0",))] == []
