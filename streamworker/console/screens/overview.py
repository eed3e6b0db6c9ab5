"""All dead-letter topics at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.console.routing import route
from streamworker.replay.desk import OperationState, Role

if TYPE_CHECKING:
    from starlette.responses import Response

    from streamworker.console.routing import Visit

_LIVE = (OperationState.RUNNING, OperationState.PAUSED)


@route("/", role=Role.VIEWER)
async def overview(visit: Visit) -> Response:
    """Topics, their most frequent mistakes, and what is under way."""
    topics = await visit.ask(visit.desk.topics)
    operations = [one for one in await visit.ask(visit.desk.operations) if one.state in _LIVE]
    return visit.page("overview.html", topics=topics, operations=operations)


SCREENS = (overview,)
