"""Who did what, and what was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.console.routing import route
from streamworker.replay.desk import Role

if TYPE_CHECKING:
    from starlette.responses import Response

    from streamworker.console.routing import Visit

_ENTRIES = 100


@route("/audit", role=Role.READER)
async def audit(visit: Visit) -> Response:
    """The newest first. For readers: filters and notes may name what is in payloads."""
    asked = visit.request.query_params
    text, after = asked.get("text", "").strip(), asked.get("after") or None
    entries, following = await visit.ask(visit.desk.audit, limit=_ENTRIES, after=after, text=text)
    return visit.page("audit.html", entries=entries, following=following, text=text, after=after)


SCREENS = (audit,)
