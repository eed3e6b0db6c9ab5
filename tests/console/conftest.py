"""The console over a desk in memory, asked by a client of its own for each role."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from console_browser import ORIGIN, Browser
from memory_desk import MemoryDesk, shop
from starlette.testclient import TestClient

from streamworker.console.access import Access
from streamworker.console.accounts import Account, token_digest
from streamworker.console.app import make_app
from streamworker.console.settings import ConsoleSettings
from streamworker.replay.desk import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ACCOUNTS = [Account(role.name.lower(), role, token_digest(role.name.lower())) for role in Role]


@pytest.fixture
def desk() -> MemoryDesk:
    return shop()


@pytest.fixture
def settings() -> ConsoleSettings:
    return ConsoleSettings(origins=[ORIGIN], environment="staging", colour="orange")


@pytest.fixture
def stranger(desk: MemoryDesk, settings: ConsoleSettings) -> Iterator[Callable[..., Browser]]:
    """Makes somebody who has no session yet, at one console for all that are made."""
    app = make_app(desk, Access(ACCOUNTS), settings, clock=desk.clock)
    with TestClient(app, base_url=ORIGIN):  # it runs for as long as this

        def make() -> Browser:
            return Browser(TestClient(app, base_url=ORIGIN, raise_server_exceptions=False))

        yield make


@pytest.fixture
def somebody(stranger: Callable[[], Browser]) -> Callable[[Role], Browser]:
    """Makes somebody of a role."""

    def make(role: Role) -> Browser:
        browser = stranger()
        assert browser.sign_in(role.name.lower()).status_code == 303
        return browser

    return make
