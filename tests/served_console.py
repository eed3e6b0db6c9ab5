"""The console on a port of its own, and who looks at it in Chromium."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamworker.console.access import Access
from streamworker.console.accounts import Account, token_digest
from streamworker.console.app import make_app
from streamworker.console.oidc import Oidc
from streamworker.console.providers import Provider
from streamworker.console.server import ConsoleServer
from streamworker.console.settings import ConsoleSettings, own_origins
from streamworker.replay.desk import Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fake_provider import FakeProvider
    from memory_desk import MemoryDesk
    from playwright.sync_api import BrowserContext, Page

# Tells of what a page does that it must not do: code of a record calls `ran`, and whatever the policy forbids is told.
_WATCH = """
window.ran = (what) => window.tell("ran", String(what));
document.addEventListener("securitypolicyviolation", (event) =>
  window.tell("forbidden", `${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


@dataclass
class Visitor:
    """A browser's context with a session, and all that went wrong in it."""

    context: BrowserContext
    page: Page
    origin: str
    wrong: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()  # what may go wrong in this test, by its beginning

    def watch(self) -> None:
        def tell(_: object, what: str, detail: str) -> None:
            self.wrong.append(f"{what}: {detail}")

        self.context.expose_binding("tell", tell)
        self.context.add_init_script(_WATCH)
        self.context.on("request", lambda request: self._asked(request.url))
        self.context.on("dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.context.on("weberror", lambda error: self.wrong.append(f"script: {error.error}"))
        self.context.on(
            "console", lambda message: message.type == "error" and self.wrong.append(f"log: {message.text}")
        )

    def _asked(self, url: str) -> None:
        if not url.startswith((f"{self.origin}/", "data:", "about:")):
            self.wrong.append(f"fetched: {url}")

    def go(self, path: str) -> Page:
        self.page.goto(f"{self.origin}{path}")
        return self.page

    def sign_in(self, token: str) -> None:
        self.go(f"/login?token={token}")
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(f"{self.origin}/")


@dataclass
class Served:
    """A console that listens."""

    desk: MemoryDesk
    origin: str


@contextmanager
def serving(desk: MemoryDesk, provider: FakeProvider | None = None) -> Iterator[Served]:
    """A console over `desk` on a port of its own."""
    accounts = [Account(role.name.lower(), role, token_digest(role.name.lower())) for role in Role]
    server = ConsoleServer("127.0.0.1", 0)
    origins = own_origins("127.0.0.1", server.port, tls=False)
    settings = ConsoleSettings(origins=origins, environment="staging", colour="orange", tick_s=0.02)
    oidc = None
    if provider is not None:
        redirect_url = f"{origins[0]}/login/oidc/return"
        secret = "s3cr3t"
        oidc = Oidc(
            Provider(issuer=provider.issuer, client_id="console", client_secret=secret, redirect_url=redirect_url),
            desk.clock,
        )
    app = make_app(desk, Access(accounts), settings, clock=desk.clock, oidc=oidc)
    thread = threading.Thread(target=server.run, args=[app], name="console", daemon=True)
    thread.start()
    try:
        yield Served(desk, origins[0])
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()
