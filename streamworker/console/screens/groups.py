"""The consumer groups that dead letters name: are they there, how far, and what holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.console.routing import route
from streamworker.replay.desk import Role

if TYPE_CHECKING:
    from starlette.responses import Response

    from streamworker.console.routing import Visit


@route("/groups", role=Role.VIEWER)
async def groups(visit: Visit) -> Response:
    """All of them."""
    return visit.page("groups.html", groups=await visit.ask(visit.desk.groups))


SCREENS = (groups,)
