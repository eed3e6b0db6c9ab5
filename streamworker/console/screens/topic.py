"""One dead-letter topic: its letters by mistake or one by one, and the form for what is to be done with some."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from streamworker.console.routing import Stop, route
from streamworker.errors import ConfigurationError
from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import Action, Page, Role
from streamworker.replay.filters import Field, Filter
from streamworker.replay.states import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.responses import Response

    from streamworker.console.routing import Visit
    from streamworker.replay.desk import FingerprintGroup, TopicSummary

PENDING = "state:pending"
# What a viewer does not see must not be found by asking for it either.
_FOR_READERS = {Field.KEY, Field.HEADER, Field.TEXT, Field.PAYLOAD}
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_TABS = (State.PENDING, State.REPLAYED, State.REPAIRED, State.DISCARDED, State.DUPLICATE, State.UNCERTAIN)
_STATE_TERM = re.compile(r"(?:^|(?<=\s))-?state:\S+\s*")


@route("/topics/{topic}", role=Role.VIEWER)
async def topic(visit: Visit) -> Response:
    """Letters that match a filter. The address has all that was chosen, so it can be sent to others."""
    name = topic_name(visit)
    asked = visit.request.query_params
    text = asked.get("q", PENDING).strip()
    by_error = asked.get("view", "errors") != "letters"
    summary = await _summary(visit, name)
    groups: Sequence[FingerprintGroup] = ()
    page = Page((), None, None, summary.built)
    error = ""
    try:
        chosen = await filter_of(visit, text)
        if by_error:
            groups = await visit.ask(visit.desk.groups_of_errors, name, chosen)
        else:
            after = asked.get("after") or None
            page = await visit.ask(visit.desk.page, name, chosen, limit=visit.settings.page_size, after=after)
    except ConfigurationError as wrong:
        error = str(wrong)
    rest = _STATE_TERM.sub("", text).strip()
    tabs = [(state, f"state:{state} {rest}".strip(), summary.states.get(state, 0)) for state in _TABS]
    return visit.page(
        "topic.html",
        HTTPStatus.UNPROCESSABLE_ENTITY if error else HTTPStatus.OK,
        topic=name,
        summary=summary,
        q=text,
        rest=rest,
        tabs=[tab for tab in tabs if tab[2] or tab[0] is State.PENDING or f"state:{tab[0]}" in text],
        by_error=by_error,
        groups=groups,
        page=page,
        error=error,
        repairs=visit.desk.repairs(),
        after=asked.get("after", ""),
    )


@route("/topics/{topic}/prepare", role=Role.OPERATOR)
async def prepare(visit: Visit) -> Response:
    """What else has to be said before there can be a plan."""
    name, asked = topic_name(visit), visit.request.query_params
    try:
        action = Action(asked.get("action", ""))
    except ValueError:
        raise Stop(HTTPStatus.NOT_FOUND, "There is no such action.") from None
    await visit.need(Role.EDITOR if action is Action.REPAIR else Role.OPERATOR, f"{action} letters")
    ids = [str(LetterId.parse(text)) for text in asked.getlist("id")]
    text = "" if ids else asked.get("q", PENDING).strip()
    targets: Sequence[str] = ()
    if ids:
        targets = (await visit.ask(visit.desk.detail, name, LetterId.parse(ids[0]))).targets
    else:
        chosen = await filter_of(visit, text)
        first = (await visit.ask(visit.desk.page, name, chosen, limit=1)).letters
        if first:
            targets = (await visit.ask(visit.desk.detail, name, first[0].letter.id)).targets
    return visit.page(
        "prepare.html",
        topic=name,
        action=action,
        ids=ids,
        q=text,
        targets=targets,
        repairs=visit.desk.repairs(),
    )


def topic_name(visit: Visit) -> str:
    """The topic in the address."""
    name = str(visit.request.path_params["topic"])
    if _TOPIC.fullmatch(name) is None:
        raise Stop(HTTPStatus.NOT_FOUND, "There is no such topic.")
    return name


async def filter_of(visit: Visit, text: str) -> Filter:
    """What `text` means, if whoever asks may choose letters by that."""
    chosen = visit.desk.filter_of(text)
    for field in sorted({term.field for term in chosen.terms} & _FOR_READERS):
        await visit.need(Role.READER, f"choosing letters by their {field}")
    return chosen


async def _summary(visit: Visit, name: str) -> TopicSummary:
    for one in await visit.ask(visit.desk.topics):
        if one.topic == name:
            return one
    raise Stop(HTTPStatus.NOT_FOUND, f"There is no dead-letter topic {name}.", "The overview has those that there are.")


SCREENS = (topic, prepare)
