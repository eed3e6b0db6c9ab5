"""From what was asked for to a plan, from there to a run.

Decided here: which role each needs beyond that of the page. The desk refuses as well.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING

from streamworker.console.formats import path_of, query
from streamworker.console.routing import Stop, route
from streamworker.console.screens.topic import filter_of, topic_name
from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import SENDING, Action, Rates, Request, Role

if TYPE_CHECKING:
    from starlette.responses import Response

    from streamworker.console.routing import Visit
    from streamworker.replay.desk import Plan

MANY = 1000  # letters at once are for admins
_PREVIEWED_REPAIRS = 20
_PREVIEWED_REPLAYS = 3
_HOUR_MS = 3_600_000
_SNOOZES_H = {"1": 1, "4": 4, "24": 24, "72": 72, "168": 168}


@route("/topics/{topic}/plans", role=Role.OPERATOR, methods=("POST",), audits="desk")
async def plan(visit: Visit) -> Response:
    """Make a plan; nothing else is changed."""
    request = await _request(visit)
    await visit.need(_least(request), f"{request.action} as asked for")
    made = await visit.act(visit.desk.plan, visit.actor, request)
    return visit.go(path_of("plans", made.id))


@route("/plans/{plan}", role=Role.OPERATOR)
async def show_plan(visit: Visit) -> Response:
    """What it comes to, and the button that begins it."""
    made = visit.desk.planned(visit.request.path_params["plan"])
    await visit.need(_least(made.request), "looking at this plan")
    diffs = []
    if made.request.action in SENDING:
        count = _PREVIEWED_REPAIRS if made.request.action is Action.REPAIR else _PREVIEWED_REPLAYS
        diffs = list(await visit.act(visit.desk.preview, made, count))
    return visit.page(
        "plan.html",
        plan=made,
        diffs=diffs,
        wrong=[diff for diff in diffs if diff.error],
        many=len(made.ids) > MANY,
        may_run=visit.can(_least_to_run(made)),
        rates=Rates(),
    )


@route("/plans/{plan}/run", role=Role.OPERATOR, methods=("POST",), audits="desk")
async def run(visit: Visit) -> Response:
    """Begin. It goes on by itself, whoever looks."""
    made = visit.desk.planned(visit.request.path_params["plan"])
    await visit.need(_least_to_run(made), f"running a plan of {len(made.ids)} letters")
    typed = "".join(visit.form.get("count", "").split())
    if len(made.ids) > MANY and typed != str(len(made.ids)):
        raise Stop(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"The plan has {len(made.ids)} letters, and you typed {typed or 'nothing'}.",
            "Go back, and type how many they are.",
        )
    begun = await visit.act(visit.desk.run, visit.actor, made.id, rates_of(visit))
    only = str(made.ids[0]) if len(made.ids) == 1 else None
    return visit.go(path_of("operations", begun.id) + query(letter=only))


def rates_of(visit: Visit) -> Rates:
    """How fast, as the form says; where it says nothing, as by itself."""
    usual = Rates()
    per_second = _number(visit, "records_per_s", usual.records_per_s or 0.0)
    canary = _number(visit, "canary", usual.canary)
    return Rates(records_per_s=per_second or None, canary=int(canary))


async def _request(visit: Visit) -> Request:
    form, name = visit.form, topic_name(visit)
    try:
        action = Action(form.get("action", ""))
    except ValueError:
        raise Stop(HTTPStatus.UNPROCESSABLE_ENTITY, "There is no such action.") from None
    ids = tuple(LetterId.parse(text) for text in form.getlist("id"))
    if not ids and "q" not in form:
        raise Stop(HTTPStatus.UNPROCESSABLE_ENTITY, "No letters are chosen.", "Go back and choose some.")
    note = form.get("note", "").strip() or None
    reason = form.get("reason_code", "").strip() or None
    if action is Action.DISCARD and (reason is None or note is None):
        raise Stop(HTTPStatus.UNPROCESSABLE_ENTITY, "To discard letters takes a reason and a note.", "Go back.")
    hours = _SNOOZES_H.get(form.get("hours", ""), 24)
    return Request(
        topic=name,
        action=action,
        ids=ids,
        filter=None if ids else await filter_of(visit, form.get("q", "")),
        target=form.get("target") or None,
        reason_code=reason,
        note=note,
        function=form.get("function") or None,
        until_ms=visit.console.clock.wall_ms() + hours * _HOUR_MS if action is Action.SNOOZE else None,
        assignee=form.get("assignee", "").strip() or None,
        again="again" in form,
        force="force" in form,
    )


def _least(request: Request) -> Role:
    if request.force:
        return Role.ADMIN
    return Role.EDITOR if request.action is Action.REPAIR else Role.OPERATOR


def _least_to_run(made: Plan) -> Role:
    return Role.ADMIN if len(made.ids) > MANY else _least(made.request)


def _number(visit: Visit, name: str, usual: float) -> float:
    text = visit.form.get(name, "").strip()
    try:
        found = float(text) if text else usual
    except ValueError:
        found = math.nan
    if not 0 <= found <= 1_000_000:
        raise Stop(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name}: expected a number from 0 on, got {text}.", "Go back.")
    return found


SCREENS = (plan, show_plan, run)
