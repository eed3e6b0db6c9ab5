"""Runs: those that there are, and one of them while it goes on."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

from streamworker.console.formats import path_of
from streamworker.console.readers import Busy
from streamworker.console.routing import Stop, route
from streamworker.console.screens.plans import rates_of
from streamworker.errors import ClientError, ConfigurationError
from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import Action, OperationState, Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.responses import Response

    from streamworker.console.routing import Visit
    from streamworker.replay.desk import Operation

LIVE = (OperationState.RUNNING, OperationState.PAUSED)


@route("/operations", role=Role.VIEWER)
async def operations(visit: Visit) -> Response:
    """The newest first."""
    return visit.page("operations.html", operations=await visit.ask(visit.desk.operations))


@route("/operations/{op}", role=Role.VIEWER)
async def operation(visit: Visit) -> Response:
    """How far it is; where there are scripts, the numbers move by themselves."""
    found = await visit.ask(visit.desk.operation, _id(visit))
    asked = visit.request.query_params.get("letter")
    letter = LetterId.parse(asked) if asked else None
    return visit.page("operation.html", operation=found, live=found.state in LIVE, least=_least(found), letter=letter)


@route("/operations/{op}/events", role=Role.VIEWER)
async def events(visit: Visit) -> Response:
    """The same parts of that page again whenever they have changed, as server-sent events."""
    first = await visit.ask(visit.desk.operation, _id(visit))
    if visit.console.watching >= visit.settings.most_watching:
        raise Stop(HTTPStatus.SERVICE_UNAVAILABLE, "Too many people watch.", "Load the page again to see news.")
    return StreamingResponse(_watch(visit, first), media_type="text/event-stream")


@route("/operations/{op}/pause", role=Role.OPERATOR, methods=("POST",), audits="desk")
async def pause(visit: Visit) -> Response:
    """Stop after the chunk in hand."""
    await visit.act(visit.desk.pause, visit.actor, _id(visit))
    return visit.go(path_of("operations", _id(visit)))


@route("/operations/{op}/resume", role=Role.OPERATOR, methods=("POST",), audits="desk")
async def resume(visit: Visit) -> Response:
    """Go on."""
    found = await visit.ask(visit.desk.operation, _id(visit))
    await visit.need(_least(found), f"resuming a {found.action}")
    await visit.act(visit.desk.resume, visit.actor, found.id, rates_of(visit))
    return visit.go(path_of("operations", found.id))


@route("/operations/{op}/abort", role=Role.OPERATOR, methods=("POST",), audits="desk")
async def abort(visit: Visit) -> Response:
    """End after the chunk in hand."""
    await visit.act(visit.desk.abort, visit.actor, _id(visit))
    return visit.go(path_of("operations", _id(visit)))


async def _watch(visit: Visit, found: Operation) -> AsyncIterator[bytes]:
    """Until it has ended, its watcher has gone or is signed out, or for as long as one connection may last."""
    console, settings = visit.console, visit.settings
    until_s = console.clock.monotonic_s() + settings.watch_s
    cookie = visit.request.cookies.get(console.session_cookie)
    sent: dict[str, bytes] = {}
    console.watching += 1
    try:
        while console.clock.monotonic_s() < until_s and console.sessions.find(cookie, used=False) is not None:
            for name in ("progress", "controls"):
                part = bytes(visit.page(f"operation_{name}.html", operation=found, least=_least(found)).body)
                if sent.get(name) != part:
                    sent[name] = part
                    yield _event(name, part)
            if found.state not in LIVE:
                yield _event("end", b"")
                return
            await asyncio.sleep(settings.tick_s)
            found = await visit.ask(visit.desk.operation, found.id)
    except (ClientError, ConfigurationError, Busy, TimeoutError):
        return  # the browser connects again
    finally:
        console.watching -= 1


def _event(name: str, data: bytes) -> bytes:
    lines = b"".join(b"data: " + line + b"\n" for line in data.splitlines() or [b""])
    return b"event: " + name.encode() + b"\n" + lines + b"\n"


def _least(found: Operation) -> Role:
    return Role.EDITOR if found.action is Action.REPAIR else Role.OPERATOR


def _id(visit: Visit) -> str:
    return str(visit.request.path_params["op"])


SCREENS = (operations, operation, events, pause, resume, abort)
