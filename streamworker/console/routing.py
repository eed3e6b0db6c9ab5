"""What stands before each page: who asks, whether they may, and whether it was their own browser that meant it.

`route` is the only way to a page, and says the least role for it. Rules. Nobody without a session gets further than
the page for signing in. What is not a GET needs a token of the session in the form and in a cookie, an origin of our
own, and is audited: by the desk, or here. A refusal is audited. Event loop; calls of the desk run on other threads.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import ImmutableMultiDict
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from streamworker.console.readers import Busy
from streamworker.console.settings import within
from streamworker.errors import ClientError, ConfigurationError
from streamworker.replay.desk import Actor, Refused, Role

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from streamworker.clock import Clock
    from streamworker.console.access import Access
    from streamworker.console.oidc import Oidc
    from streamworker.console.pages import Pages
    from streamworker.console.readers import Readers
    from streamworker.console.sessions import Lockout, Session, Sessions
    from streamworker.console.settings import ConsoleSettings
    from streamworker.replay.desk import Desk

P = ParamSpec("P")
T = TypeVar("T")

BODY_BYTES = 64 * 1024
_BODY_TIMEOUT_S = 30.0
_FIELDS = 400
_FORM = "application/x-www-form-urlencoded"
_SAFE = ("GET", "HEAD")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Console:
    """What all requests share. `watching` counts those that wait for news."""

    desk: Desk
    access: Access
    settings: ConsoleSettings
    clock: Clock
    sessions: Sessions
    lockout: Lockout
    readers: Readers
    pages: Pages
    oidc: Oidc | None = None
    watching: int = 0

    @property
    def session_cookie(self) -> str:
        """Its name. `__Host-` keeps other hosts of a domain from setting it; browsers take that by TLS only."""
        return f"{'__Host-' if self.settings.secure else ''}sw_session_{self.settings.port}"

    @property
    def csrf_cookie(self) -> str:
        """Its name."""
        return f"{'__Host-' if self.settings.secure else ''}sw_csrf_{self.settings.port}"

    @property
    def oidc_cookie(self) -> str:
        """Its name."""
        return f"{'__Host-' if self.settings.secure else ''}sw_oidc_{self.settings.port}"

    def set_cookies(self, response: Response, session: str | None, csrf: str) -> None:
        """Give both to the browser; a `session` of None leaves it without one."""
        secure = self.settings.secure
        if session is not None:
            age = int(self.settings.session_s)
            response.set_cookie(self.session_cookie, session, max_age=age, secure=secure, httponly=True, samesite="lax")
        response.set_cookie(self.csrf_cookie, csrf, secure=secure, httponly=True, samesite="strict")


class Stop(Exception):
    """The request ends here, with a page that says why and what to do."""

    def __init__(self, status: HTTPStatus, why: str, advice: str = "") -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.advice = advice


@dataclass(slots=True)
class Visit:
    """One request of somebody. `session` is None only where `route` allows anybody."""

    request: Request
    console: Console
    session: Session | None
    csrf: str
    form: ImmutableMultiDict[str, str] = field(default_factory=ImmutableMultiDict)

    @property
    def desk(self) -> Desk:
        """All that is known, and all that can be done."""
        return self.console.desk

    @property
    def settings(self) -> ConsoleSettings:
        """Of the console."""
        return self.console.settings

    @property
    def actor(self) -> Actor:
        """Who asks, for the audit."""
        if self.session is None:
            return Actor("(nobody)", Role.VIEWER, "console", verified=False)
        return Actor(self.session.identity.name, self.session.identity.role, "console", verified=True)

    @property
    def source(self) -> str:
        """The address that the request comes from, as far as it is believed."""
        peer = self.request.client.host if self.request.client else ""
        if within(peer, self.settings.proxies):
            return self.request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip() or peer
        return peer

    def may(self, role: Role) -> bool:
        """Whether this page shows what asks for `role`."""
        return self.session is not None and self.session.identity.role >= role

    def can(self, role: Role) -> bool:
        """Whether something that changes things is to be offered."""
        return self.may(role) and not self.settings.read_only

    async def ask(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a call of the desk that only reads returns or raises."""
        return await self.console.readers.ask(partial(call, *args, **kwargs), self.settings.query_timeout_s)

    async def act(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for one that makes a plan or changes something."""
        return await self.console.readers.ask(partial(call, *args, **kwargs), self.settings.action_timeout_s)

    async def need(self, role: Role, what: str) -> None:
        """Go on only if `role` is there; else the refusal is audited."""
        if not self.may(role):
            await self.deny(f"{what} needs the role {role.name.lower()}")
            raise Stop(
                HTTPStatus.FORBIDDEN,
                f"This needs the role {role.name.lower()}; you are {_article(self.actor.role)}.",
                "Ask whoever runs this console for it. That you tried is in the audit.",
            )

    async def deny(self, why: str) -> None:
        """Note a refusal in the audit. It stands, whether or not the audit can be written."""
        detail = {"method": self.request.method, "path": self.request.url.path, "why": why, "from": self.source}
        try:
            await self.act(self.desk.denied, self.actor, why, detail)
        except (ClientError, ConfigurationError, Busy, TimeoutError) as error:
            _log.warning("a refusal is not in the audit", extra={**detail, "error": str(error)})

    def page(self, template: str, status: int = 200, **values: object) -> Response:
        """The page, with what every page shows."""
        html = self.console.pages.render(
            template,
            visit=self,
            actor=self.actor,
            signed_in=self.session is not None,
            settings=self.settings,
            csrf=self.csrf,
            path=self.request.url.path,
            theme=_theme(self.request),
            now_ms=self.console.clock.wall_ms(),
            **values,
        )
        return HTMLResponse(html, status)

    @staticmethod
    def go(url: str) -> Response:
        """Look at `url` next, by GET."""
        return RedirectResponse(url, HTTPStatus.SEE_OTHER)


@dataclass(frozen=True, slots=True)
class Guarded:
    """A page with what it asks for. A `role` of None lets anybody in, signed in or not."""

    path: str
    methods: tuple[str, ...]
    role: Role | None
    audits: str | None  # who writes what it does into the audit; None for a GET, which does nothing
    large: bool
    screen: Callable[[Visit], Awaitable[Response]]

    @property
    def changes(self) -> bool:
        """Whether it may change anything."""
        return any(method not in _SAFE for method in self.methods)

    def serve(self, console: Console) -> Route:
        """For a router."""

        async def endpoint(request: Request) -> Response:
            return await _answer(self, console, request)

        return Route(self.path, endpoint, methods=list(self.methods), name=self.screen.__name__)


def route(
    path: str,
    *,
    role: Role | None,
    methods: tuple[str, ...] = ("GET",),
    audits: str | None = None,
    large: bool = False,
) -> Callable[[Callable[[Visit], Awaitable[Response]]], Guarded]:
    """Make a page of a function, for those who have `role`.

    One that is not a GET says who `audits` it: `desk`, or `here`. A `large` one takes a form with a whole record.
    """
    if (audits is None) == any(method not in _SAFE for method in methods):
        raise ConfigurationError(f"{methods} {path}: what changes something is audited, and nothing else")

    def guard(screen: Callable[[Visit], Awaitable[Response]]) -> Guarded:
        return Guarded(path, methods, role, audits, large, screen)

    return guard


async def _answer(page: Guarded, console: Console, request: Request) -> Response:
    visit, cookie = _visit(console, request)
    try:
        response = await _guarded(page, visit)
    except Stop as stop:
        response = refusal(visit, stop.status, stop.why, stop.advice)
    except Refused as error:
        response = refusal(visit, HTTPStatus.CONFLICT, str(error), "Make the plan anew, and look at what has changed.")
    except ConfigurationError as error:
        status = HTTPStatus.UNPROCESSABLE_ENTITY if page.changes else HTTPStatus.NOT_FOUND
        response = refusal(visit, status, str(error), "Nothing was changed.")
    except ClientError as error:
        response = refusal(visit, HTTPStatus.SERVICE_UNAVAILABLE, f"Kafka: {error}", _CLUSTER)
    except Busy:
        response = refusal(visit, HTTPStatus.SERVICE_UNAVAILABLE, "Too many people ask at once.", "Try again.")
    except TimeoutError:
        advice = _GOES_ON if page.changes else _NARROWER
        response = refusal(visit, HTTPStatus.GATEWAY_TIMEOUT, "The answer did not come in time.", advice)
    except Exception:  # noqa: BLE001 - the border to the browser, which gets a code and no stack
        _log.exception("page failed", extra={"path": request.url.path})
        response = refusal(visit, HTTPStatus.INTERNAL_SERVER_ERROR, "This page failed.", "The reason is in the log.")
    if cookie is not None or request.cookies.get(console.csrf_cookie) != visit.csrf:
        console.set_cookies(response, cookie, visit.csrf)
    return response


_CLUSTER = "Look whether the brokers can be reached from here, and try again."
_GOES_ON = "It may go on all the same: look at Operations before you do it again."
_NARROWER = "Choose fewer letters, for instance age:<1d, and try again."


def refusal(visit: Visit, status: HTTPStatus, why: str, advice: str = "") -> Response:
    """A page that says why there is no other."""
    return visit.page("stopped.html", status, code=int(status), title=status.phrase, why=why, advice=advice)


async def _guarded(page: Guarded, visit: Visit) -> Response:
    if page.role is not None and visit.session is None:
        return _to_sign_in(visit)
    if page.changes:
        visit.form = await _form(visit, _most_bytes(page, visit.settings))
        await _refuse_cross_site(visit)
        if visit.settings.read_only and page.role is not None and page.role > Role.VIEWER:
            await visit.deny("this console is read-only")
            raise Stop(HTTPStatus.FORBIDDEN, "This console is read-only.", "Use one that was started without it.")
    if page.role is not None:
        await visit.need(page.role, visit.request.url.path)
    return await page.screen(visit)


def _visit(console: Console, request: Request) -> tuple[Visit, str | None]:
    """Who asks; and what their cookie is to say, if a proxy has signed them in just now."""
    cookie = request.cookies.get(console.session_cookie)
    session = console.sessions.find(cookie, used="hx-poll" not in request.headers)
    proxied = console.access.by_proxy(request.client.host if request.client else None, request.headers)
    fresh = None
    if proxied is not None and (session is None or session.identity != proxied):
        fresh, session = console.sessions.begin(proxied)
    elif proxied is None and session is not None and session.identity.via == "proxy":
        session = None  # the proxy has signed them out
    if session is not None:
        return Visit(request, console, session, session.csrf), fresh
    return Visit(request, console, None, request.cookies.get(console.csrf_cookie) or secrets.token_urlsafe(32)), None


def _to_sign_in(visit: Visit) -> Response:
    request = visit.request
    if request.method not in _SAFE:
        return refusal(visit, HTTPStatus.UNAUTHORIZED, "You are not signed in.", "Your session may have ended.")
    wanted = quote(request.url.path) + (f"?{request.url.query}" if request.url.query else "")
    url = f"/login?{urlencode({'next': wanted})}" if wanted != "/" else "/login"
    if "hx-request" in request.headers:
        return Response(status_code=HTTPStatus.UNAUTHORIZED, headers={"HX-Redirect": "/login"})
    return visit.go(url)


def _most_bytes(page: Guarded, settings: ConsoleSettings) -> int:
    """Of a form. What is encoded in it may take three bytes for one."""
    return BODY_BYTES + (3 * settings.max_record_bytes if page.large else 0)


async def _form(visit: Visit, most: int) -> ImmutableMultiDict[str, str]:
    request = visit.request
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise Stop(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Expected a form ({_FORM}).")
    body = bytearray()
    async with asyncio.timeout(_BODY_TIMEOUT_S):
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise Stop(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The form has more than {most} bytes.")
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS)
    except ValueError as error:
        raise Stop(HTTPStatus.BAD_REQUEST, "The form cannot be read.") from error
    return ImmutableMultiDict(fields)


async def _refuse_cross_site(visit: Visit) -> None:
    """Only a page of ours may have sent this, in the session in which it was shown."""
    headers = visit.request.headers
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    own = site in {None, "same-origin"} if origin is None else origin in visit.settings.origins
    if not own or (origin is None and site is None):
        why = f"the request comes from {origin or site or 'no page'}"
    elif not _has_token(visit):
        why = "the form has no token of this session"
    else:
        return
    if visit.session is not None:
        await visit.deny(why)
    raise Stop(
        HTTPStatus.FORBIDDEN,
        f"Nothing was done: {why}.",
        "Open the page again and repeat it there. If this goes on, look at the console's --public-url.",
    )


def _has_token(visit: Visit) -> bool:
    given = visit.form.get("csrf", "").encode()
    cookie = visit.request.cookies.get(visit.console.csrf_cookie, "").encode()
    return hmac.compare_digest(given, visit.csrf.encode()) and hmac.compare_digest(cookie, visit.csrf.encode())


def _theme(request: Request) -> str:
    theme = request.cookies.get("sw_theme", "")
    return theme if theme in {"light", "dark"} else ""


def _article(role: Role) -> str:
    name = role.name.lower()
    return f"{'an' if name[0] in 'aeo' else 'a'} {name}"


async def no_page(console: Console, request: Request, status: HTTPStatus) -> Response:
    """The answer where there is no page, or none for this method."""
    visit, _ = _visit(console, request)
    if visit.session is None:
        return _to_sign_in(visit)
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return refusal(visit, status, f"{request.method} is not for {request.url.path}.")
    return refusal(visit, status, "There is no such page.", "Begin at the overview.")
