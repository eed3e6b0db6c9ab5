"""The files that pages ask for: style, scripts, icon."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.responses import Response

from streamworker.console.routing import Stop, route

if TYPE_CHECKING:
    from streamworker.console.routing import Visit

_YEAR_S = 31_536_000


@route("/static/{version}/{name}", role=None)
async def asset(visit: Visit) -> Response:
    """One of them. Its address changes with it, so browsers keep it."""
    found = visit.console.pages.assets.get(visit.request.path_params["name"])
    if found is None:
        raise Stop(HTTPStatus.NOT_FOUND, "There is no such file.")
    content, kind = found
    return Response(content, media_type=kind, headers={"cache-control": f"public, max-age={_YEAR_S}, immutable"})


SCREENS = (asset,)
