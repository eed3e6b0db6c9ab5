"""One dead letter: all that is known of it, what became of it, and its repair."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.responses import Response

from streamworker.console.formats import as_json, as_typed, path_of
from streamworker.console.routing import Stop, route
from streamworker.console.screens.topic import topic_name
from streamworker.errors import ConfigurationError
from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import Action, Outcome, Request, Role

if TYPE_CHECKING:
    from streamworker.console.routing import Visit
    from streamworker.replay.desk import Detail

_PATH = "/topics/{topic}/{partition:int}/{offset:int}"
_SETTLED = (Outcome.HANDLED, Outcome.RETURNED)
_MASKED = "Repair it by a function of the application, or with streamworker dlq repair --unmasked."
_STOP_POLLING = 286  # htmx asks no more after it


@route(_PATH, role=Role.VIEWER)
async def letter(visit: Visit) -> Response:
    """All that is known of it."""
    name, one = topic_name(visit), _id(visit)
    return visit.page("letter.html", topic=name, id=one, detail=await visit.ask(visit.desk.detail, name, one))


@route(f"{_PATH}/outcome", role=Role.VIEWER)
async def outcome(visit: Visit) -> Response:
    """What became of what was sent of it; asked for again and again until it is known.

    A page that shows it as pending (`unsent`) shows all of it anew once something was sent: whoever comes from an
    operation is often here before the view has read what that did.
    """
    name, one = topic_name(visit), _id(visit)
    found = await visit.ask(visit.desk.outcome, name, one)
    if "unsent" in visit.request.query_params:
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={} if found is None else {"HX-Refresh": "true"})
    status = _STOP_POLLING if found is None or found in _SETTLED else HTTPStatus.OK
    return visit.page("outcome.html", status, topic=name, id=one, outcome=found)


@route(f"{_PATH}/value", role=Role.READER)
async def value(visit: Visit) -> Response:
    """Its value as a file: the bytes of the log, or what is shown of them if some of that is masked."""
    name, one = topic_name(visit), _id(visit)
    detail = await visit.ask(visit.desk.detail, name, one)
    content = detail.value.text.encode("utf-8", "replace") if detail.value.masked else detail.listed.letter.value
    if content is None:
        raise Stop(HTTPStatus.NOT_FOUND, "It has no value.")
    file = f"{name}-{one.partition}-{one.offset}.{'json' if detail.value.kind == 'json' else 'bin'}"
    return Response(
        content,
        media_type="application/octet-stream",
        headers={"content-disposition": f'attachment; filename="{file}"'},
    )


@route(f"{_PATH}/repair", role=Role.EDITOR)
async def repair(visit: Visit) -> Response:
    """Its value in a form, or what somebody made of it before, in a plan."""
    name, one = topic_name(visit), _id(visit)
    detail = await visit.ask(visit.desk.detail, name, one)
    made = visit.request.query_params.get("plan")
    before = visit.desk.planned(made).request if made else None
    edited = before.edited if before is not None and before.topic == name and before.ids == (one,) else None
    return _editor(visit, name, detail, await _text_of(visit, name, detail) if edited is None else edited)


@route(f"{_PATH}/repair", role=Role.EDITOR, methods=("POST",), audits="desk", large=True)
async def plan_repair(visit: Visit) -> Response:
    """Make a plan of what was typed; what cannot be meant comes back with the reason."""
    name, one = topic_name(visit), _id(visit)
    detail = await visit.ask(visit.desk.detail, name, one)
    original = await _text_of(visit, name, detail)
    edited = as_typed(visit.form.get("edited", ""), original)
    error = as_json(edited) if detail.value.kind in {"json", "avro"} else None
    if error is not None:
        return _editor(visit, name, detail, edited, f"This is not JSON: {error}")
    if edited == original:
        return _editor(visit, name, detail, edited, "Nothing was changed. To send it as it is, replay it.")
    request = Request(
        topic=name,
        action=Action.REPAIR,
        ids=(one,),
        edited=edited,
        target=visit.form.get("target") or None,
        note=visit.form.get("note", "").strip() or None,
    )
    try:
        plan = await visit.act(visit.desk.plan, visit.actor, request)
    except ConfigurationError as wrong:
        return _editor(visit, name, detail, edited, str(wrong))
    return visit.go(path_of("plans", plan.id))


async def _text_of(visit: Visit, name: str, detail: Detail) -> str:
    """All of the value, for an editor. Of one that is masked, what is hidden would be shown, or sent as it is shown."""
    if detail.value.masked:
        raise Stop(HTTPStatus.CONFLICT, "Some of its value is masked, so it is not edited here.", _MASKED)
    if not detail.repairable:
        raise Stop(HTTPStatus.CONFLICT, "Its value cannot be edited as text.", "A function of the application may.")
    return await visit.ask(visit.desk.text_of, name, detail.listed.letter.id)


def _editor(visit: Visit, name: str, detail: Detail, edited: str, error: str = "") -> Response:
    status = HTTPStatus.UNPROCESSABLE_ENTITY if error else HTTPStatus.OK
    one = detail.listed.letter.id
    return visit.page("repair.html", status, topic=name, id=one, detail=detail, edited=edited, error=error)


def _id(visit: Visit) -> LetterId:
    parts = visit.request.path_params
    try:
        return LetterId.parse(f"{parts['partition']}:{parts['offset']}")
    except ConfigurationError:
        raise Stop(HTTPStatus.NOT_FOUND, "There is no such letter.") from None


SCREENS = (letter, outcome, value, repair, plan_repair)
