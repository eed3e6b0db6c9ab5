"""What holds for every answer: which Host is ours, and headers that keep a browser from running or telling anything.

Decides both. Event loop.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

from streamworker.console.settings import is_loopback, within

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from streamworker.console.settings import ConsoleSettings

_CONTENT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self';"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
_HEADERS = {
    "content-security-policy": _CONTENT,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    # Not `no-referrer`: with that, browsers send the origin `null` with our own forms.
    "referrer-policy": "same-origin",
}
_BY_TLS = "max-age=31536000"


class Guards:
    """Around an application: refuses hosts that are not its own, and who should come by a proxy; adds headers."""

    def __init__(self, app: ASGIApp, settings: ConsoleSettings) -> None:
        self._app = app
        self._hosts = settings.hosts
        self._only_from = settings.only_from
        self._headers = {**_HEADERS, **({"strict-transport-security": _BY_TLS} if settings.secure else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refused = self._refusal(scope)
        if refused is not None:
            await refused(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        hosts = Headers(scope=scope).getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return PlainTextResponse(
                "This is not the name of this console. If it should be, start it with --public-url.\n",
                HTTPStatus.MISDIRECTED_REQUEST,
            )
        client = scope.get("client")
        peer = client[0] if client else ""
        if self._only_from and not (within(peer, self._only_from) or is_loopback(peer)):
            return PlainTextResponse("Come by the proxy: from here others could read along.\n", HTTPStatus.FORBIDDEN)
        return None
