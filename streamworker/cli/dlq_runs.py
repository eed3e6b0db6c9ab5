"""From a request to how it ended: shows the plan, and with --yes runs it and waits, with a progress bar.

The first SIGTERM or SIGINT ends a run after the chunk in hand; `dlq resume` goes on with it.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from streamworker.cli.actors import this_actor
from streamworker.cli.console_output import progress_bar, say, show_json
from streamworker.cli.signals import stop_on_signals
from streamworker.errors import ConfigurationError
from streamworker.exit_code import ExitCode
from streamworker.replay.desk import SENDING, OperationState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.cli.selections import Selection
    from streamworker.replay.desk import Desk, Diff, Operation, Plan, Rates, Request

_PREVIEWED = 3  # letters of a plan that are shown
_LOOK_S = 0.2


def act(desk: Desk, selection: Selection, request: Request, rates: Rates) -> ExitCode:
    """Show what `request` comes to; with --yes do it, and tell how it ended."""
    plan = desk.plan(this_actor(), request)
    if selection.plan_id is not None and not plan.sha256.startswith(selection.plan_id):
        raise ConfigurationError(f"the plan is {plan.id} now, not {selection.plan_id}: look at it again without --yes")
    if not selection.yes:
        show_plan(desk, plan, as_json=selection.as_json)
        return ExitCode.OK
    if not plan.ids and not plan.duplicates:
        show_plan(desk, plan, as_json=selection.as_json)
        return ExitCode.PARTIAL if plan.refusals else ExitCode.OK
    begun = desk.run(this_actor(), plan.id, rates)
    return tell(follow(desk, begun), as_json=selection.as_json)


class _Signals:
    """Whether one has come that asks for the end."""

    def __init__(self) -> None:
        self.came = threading.Event()
        stop_on_signals(lambda _name: self.came.set())


def follow(desk: Desk, begun: Operation) -> Operation:
    """Wait for its end, with a progress bar; a signal pauses it."""
    signals = _Signals()
    operation, paused = begun, False
    with progress_bar(f"{begun.action} {begun.topic}", begun.matched) as advance:
        while operation.state is OperationState.RUNNING:
            if signals.came.wait(_LOOK_S) and not paused:
                paused = True
                with suppress(ConfigurationError):  # it has just ended by itself
                    desk.pause(this_actor(), begun.id)
            operation = desk.operation(begun.id)
            advance(operation.done + operation.skipped + operation.failed)
    return operation


def tell(operation: Operation, *, as_json: bool) -> ExitCode:
    """How it ended; `PARTIAL` if something of it is left to be done."""
    if as_json:
        show_json(plain_operation(operation))
    else:
        counts = f"{operation.done} of {operation.matched} done"
        more = [
            f"{count} {what}"
            for count, what in (
                (operation.skipped, "left alone, somebody else was first"),
                (operation.failed, "failed"),
                (operation.returned, "came back"),
            )
            if count
        ]
        say(f"operation {operation.id} {operation.state}: {', '.join((counts, *more))}")
        if operation.message is not None:
            say(operation.message, style="yellow")
        if operation.state in (OperationState.PAUSED, OperationState.FAILED):
            say(f"go on with: streamworker dlq resume {operation.id}")
    whole = operation.state is OperationState.DONE and not operation.failed
    return ExitCode.OK if whole else ExitCode.PARTIAL


def show_plan(desk: Desk, plan: Plan, *, as_json: bool) -> None:
    """What it would do, and how to do it."""
    diffs = desk.preview(plan, _PREVIEWED) if plan.request.action in SENDING else ()
    if as_json:
        show_json(_plain_plan(plan, diffs))
        return
    say(f"plan {plan.id}: {plan.request.action} {len(plan.ids)} letters of {plan.request.topic}, {plan.bytes} bytes")
    for title, counts in (("by reason", plan.by_reason), ("by handler", plan.by_handler), ("to", plan.by_target)):
        if counts:
            say(f"  {title}: {_counted(counts)}")
    if plan.duplicates:
        say(f"  {len(plan.duplicates)} are duplicates of others, and will be marked so")
    if plan.refusals:
        say(f"  left alone: {_counted(plan.refusals)}", style="yellow")
    for one in diffs:
        _say_diff(one)
    for warning in plan.warnings:
        say(f"Warning: {warning}", style="yellow")
    if plan.ids or plan.duplicates:
        say(f"nothing was changed; add --yes to do it, and --plan {plan.id} to do exactly this", to_stderr=True)


def _say_diff(diff: Diff) -> None:
    say(f"  {diff.id}: {diff.error or ''}", style="red" if diff.error else None)
    for line in diff.lines:
        say(f"    {line}", style={"+": "green", "-": "red"}.get(line[:1]))
    for step in diff.steps:
        say(f"    {step.name}: {step.text}", style="red" if step.passed is False else None)


def _plain_plan(plan: Plan, diffs: Sequence[Diff]) -> dict[str, object]:
    return {
        "plan": plan.id,
        "sha256": plan.sha256,
        "action": plan.request.action,
        "topic": plan.request.topic,
        "letters": len(plan.ids),
        "duplicates": len(plan.duplicates),
        "refusals": plan.refusals,
        "refused": {str(letter): why for letter, why in plan.refused.items()},
        "bytes": plan.bytes,
        "by_reason": plan.by_reason,
        "by_handler": plan.by_handler,
        "by_target": plan.by_target,
        "warnings": list(plan.warnings),
        "previews": [_plain_diff(one) for one in diffs],
    }


def _plain_diff(diff: Diff) -> dict[str, object]:
    steps = [{"name": one.name, "passed": one.passed, "text": one.text} for one in diff.steps]
    return {"letter": str(diff.id), "diff": list(diff.lines), "error": diff.error, "steps": steps}


def _counted(counts: Mapping[str, int]) -> str:
    """The most first."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda one: -one[1]))


def plain_operation(operation: Operation) -> dict[str, object]:
    """For JSON."""
    return {
        "operation": operation.id,
        "plan_sha256": operation.plan_sha256,
        "topic": operation.topic,
        "action": operation.action,
        "actor": operation.actor,
        "filter": operation.filter_text,
        "state": operation.state,
        "matched": operation.matched,
        "done": operation.done,
        "skipped": operation.skipped,
        "failed": operation.failed,
        "returned": operation.returned,
        "started_ms": operation.started_ms,
        "ended_ms": operation.ended_ms,
        "message": operation.message,
    }
