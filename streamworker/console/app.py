"""The console put together: `make_app` gives a Starlette application over a `Desk`.

Decides nothing; `SCREENS` is all there is to see. READ `routing.py` for what stands before each page.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from streamworker.clock import SystemClock
from streamworker.console.guards import Guards
from streamworker.console.pages import Pages
from streamworker.console.readers import Readers
from streamworker.console.routing import Console, no_page
from streamworker.console.screens import assets, audit, groups, letter, operations, overview, plans, signing_in, topic
from streamworker.console.sessions import Lockout, Sessions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

    from streamworker.clock import Clock
    from streamworker.console.access import Access
    from streamworker.console.oidc import Oidc
    from streamworker.console.settings import ConsoleSettings
    from streamworker.replay.desk import Desk

SCREENS = (
    *assets.SCREENS,
    *signing_in.SCREENS,
    *overview.SCREENS,
    *topic.SCREENS,
    *letter.SCREENS,
    *plans.SCREENS,
    *operations.SCREENS,
    *audit.SCREENS,
    *groups.SCREENS,
)


def make_app(
    desk: Desk, access: Access, settings: ConsoleSettings, *, clock: Clock | None = None, oidc: Oidc | None = None
) -> Starlette:
    """The application. Who closes `desk` is who made it, after the application has ended."""
    clock = clock or SystemClock()
    console = Console(
        desk=desk,
        access=access,
        settings=settings,
        clock=clock,
        sessions=Sessions(clock, session_s=settings.session_s, idle_s=settings.idle_s),
        lockout=Lockout(clock),
        readers=Readers(settings.most_at_once, settings.most_waiting),
        pages=Pages(),
        oidc=oidc,
    )

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        yield
        console.readers.close()

    async def nothing(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # it is registered for these
        return await no_page(console, request, HTTPStatus(error.status_code))

    return Starlette(
        routes=[screen.serve(console) for screen in SCREENS],
        middleware=[Middleware(Guards, settings)],
        exception_handlers={HTTPException: nothing},
        lifespan=life,
    )
