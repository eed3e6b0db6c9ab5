"""Signing in, by a printed link, a token, a password or at an OpenID provider, and out again."""

from __future__ import annotations

import logging
from http import HTTPStatus
from math import ceil
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from streamworker.console.accounts import OIDC
from streamworker.console.providers import FLOW_S, NotBelieved, ProviderFailed
from streamworker.console.readers import Busy
from streamworker.console.routing import Stop, refusal, route
from streamworker.errors import ClientError, ConfigurationError
from streamworker.replay.desk import Actor

if TYPE_CHECKING:
    from starlette.responses import Response

    from streamworker.console.access import Identity
    from streamworker.console.oidc import Oidc
    from streamworker.console.routing import Visit

_log = logging.getLogger(__name__)


@route("/login", role=None)
async def login(visit: Visit) -> Response:
    """The form. A token in the address is only put into it: looking at a page signs nobody in."""
    return _form(visit, token=visit.request.query_params.get("token", ""))


@route("/login", role=None, methods=("POST",), audits="here")
async def sign_in(visit: Visit) -> Response:
    """Begin a session."""
    console, source = visit.console, visit.source
    if wait_s := console.lockout.wait_s(source):
        raise _locked(wait_s)
    identity = await _identify(visit)
    if identity is None:
        wait_s = console.lockout.failed(source)
        await visit.deny("signing in: no such token, name or password")
        if wait_s:
            raise _locked(wait_s)
        return _form(visit, status=HTTPStatus.UNAUTHORIZED, error="That is no token, name or password known here.")
    return await _begin(visit, identity, visit.form.get("next", "/"))


@route("/login/oidc", role=None)
async def to_provider(visit: Visit) -> Response:
    """Send somebody to the provider. Nothing is begun here but their way."""
    oidc = _oidc(visit)
    try:
        endpoints = await visit.act(oidc.endpoints)
    except ProviderFailed as error:
        raise _unavailable(error) from error
    url, cookie = oidc.begin(endpoints, own_path(visit.request.query_params.get("next", "/")))
    response = visit.go(url)
    console, secure = visit.console, visit.settings.secure
    response.set_cookie(console.oidc_cookie, cookie, int(FLOW_S), secure=secure, httponly=True, samesite="strict")
    return response


@route("/login/oidc/return", role=None)
async def from_provider(visit: Visit) -> Response:
    """Where the provider sends them. Looking at a page signs nobody in, so it is a form, which scripts send at once."""
    _oidc(visit)
    said = visit.request.query_params
    if "error" in said:
        text = said.get("error_description") or said["error"]
        raise Stop(HTTPStatus.UNAUTHORIZED, f"The provider says: {text[:300]}", "Sign in again.")
    return visit.page("returned.html", code=said.get("code", ""), state=said.get("state", ""))


@route("/login/oidc/return", role=None, methods=("POST",), audits="here")
async def sign_in_by_provider(visit: Visit) -> Response:
    """Begin a session for whom the provider names."""
    oidc, console, source = _oidc(visit), visit.console, visit.source
    if wait_s := console.lockout.wait_s(source):
        raise _locked(wait_s)
    flow = oidc.take(visit.form.get("state", ""), visit.request.cookies.get(console.oidc_cookie))
    if flow is None:
        raise Stop(HTTPStatus.UNAUTHORIZED, "This was not begun in this browser, or too long ago.", "Sign in again.")
    try:
        name, groups = await visit.act(oidc.named, flow, visit.form.get("code", ""))
    except ProviderFailed as error:
        raise _unavailable(error) from error
    except NotBelieved as error:
        console.lockout.failed(source)
        await visit.deny(f"signing in at the provider: {error}")
        raise Stop(HTTPStatus.UNAUTHORIZED, "What the provider says is not believed.", "The audit says why.") from error
    identity = console.access.vouched(OIDC, name, groups)
    if identity is None:
        raise Stop(HTTPStatus.UNAUTHORIZED, "The provider gives a name that cannot be one.")
    return await _begin(visit, identity, flow.wanted)


@route("/logout", role=None, methods=("POST",), audits="here")
async def sign_out(visit: Visit) -> Response:
    """End the session."""
    if visit.session is not None:
        visit.console.sessions.end(visit.request.cookies.get(visit.console.session_cookie))
        await _note(visit, visit.actor, "logout", via=visit.session.identity.via)
    response = visit.go("/login")
    response.delete_cookie(visit.console.session_cookie, secure=visit.settings.secure, httponly=True)
    return response


def own_path(url: str) -> str:
    """`url` if it is a path of this console, else the first page."""
    parts = urlsplit(url) if url.isprintable() and "\\" not in url else None
    own = parts is not None and not parts.scheme and not parts.netloc and url.startswith("/") and url[1:2] != "/"
    return url if own else "/"


async def _begin(visit: Visit, identity: Identity, wanted: str) -> Response:
    console = visit.console
    console.lockout.succeeded(visit.source)
    cookie, session = console.sessions.begin(identity)
    await _note(visit, Actor(identity.name, identity.role, "console", verified=True), "login", via=identity.via)
    response = visit.go(own_path(wanted))
    console.set_cookies(response, cookie, session.csrf)
    return response


def _oidc(visit: Visit) -> Oidc:
    if visit.console.oidc is None:
        raise Stop(HTTPStatus.NOT_FOUND, "There is no such page.", "Begin at the overview.")
    return visit.console.oidc


def _unavailable(error: ProviderFailed) -> Stop:
    _log.warning("the OpenID provider failed", extra={"error": str(error)})
    return Stop(HTTPStatus.SERVICE_UNAVAILABLE, "The provider does not answer.", "Try again; the log says more.")


async def _identify(visit: Visit) -> Identity | None:
    access, form = visit.console.access, visit.form
    if token := form.get("token", "").strip():
        return access.by_token(token)
    if name := form.get("name", "").strip():
        return await visit.act(access.by_password, name, form.get("password", ""))
    return None


async def _note(visit: Visit, actor: Actor, what: str, *, via: str) -> None:
    """Into the audit, if it can be written: nobody is kept out because a cluster is away that they come to look at."""
    try:
        await visit.ask(visit.desk.noted, actor, what, {"via": via, "from": visit.source})
    except (ClientError, ConfigurationError, Busy, TimeoutError) as error:
        _log.warning("it is not in the audit who signed in or out", extra={"actor": actor.name, "error": str(error)})


def _locked(wait_s: float) -> Stop:
    minutes = ceil(wait_s / 60)
    return Stop(
        HTTPStatus.TOO_MANY_REQUESTS,
        "Signing in failed too often from your address.",
        f"Try again in {minutes} minute{'s' if minutes > 1 else ''}.",
    )


def _form(visit: Visit, *, token: str = "", status: int = HTTPStatus.OK, error: str = "") -> Response:
    wanted = visit.form.get("next") or visit.request.query_params.get("next", "/")
    access = visit.console.access
    oidc = visit.console.oidc
    if not (access.takes_tokens or access.takes_passwords or oidc):
        why = "The printed link was used, and nobody else can sign in."
        return refusal(visit, HTTPStatus.FORBIDDEN, why, "Start the console again, or give it accounts.")
    return visit.page(
        "login.html",
        status,
        token=token,
        next=own_path(wanted),
        error=error,
        takes_tokens=access.takes_tokens,
        takes_passwords=access.takes_passwords,
        provider=None if oidc is None else oidc.host,
    )


SCREENS = (login, sign_in, to_provider, from_provider, sign_in_by_provider, sign_out)
