"""`streamworker dlq ops | resume | abort`: the operations that commands and the console make."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streamworker.cli.actors import this_actor
from streamworker.cli.console_output import moment, say, show_json, show_table
from streamworker.cli.desks import desk_options, open_desk
from streamworker.cli.dlq_runs import follow, plain_operation, tell
from streamworker.cli.options import TEXT, examples, json_option
from streamworker.cli.selections import rate_options
from streamworker.replay.desk import OperationState, Rates

if TYPE_CHECKING:
    from streamworker.cli.desks import DeskOptions


@click.command(epilog=examples("streamworker dlq ops", "streamworker dlq ops --json"))
@json_option
@desk_options
def ops(options: DeskOptions, *, as_json: bool) -> None:
    """List operations on dead letters, the newest first."""
    with open_desk(options, None) as desk:
        found = desk.operations()
    if as_json:
        show_json([plain_operation(one) for one in found])
        return
    show_table(
        ("operation", "topic", "action", "by", "began", "state", "of", "done", "skipped", "failed", "returned", ""),
        [
            (
                one.id,
                one.topic,
                one.action,
                one.actor,
                moment(one.started_ms),
                one.state,
                one.matched,
                one.done,
                one.skipped,
                one.failed,
                one.returned,
                one.message,
            )
            for one in found
        ],
    )


@click.command(epilog=examples("streamworker dlq resume 8c1fa2b04d11"))
@click.argument("operation", type=TEXT)
@rate_options
@json_option
@desk_options
@click.pass_context
def resume(
    ctx: click.Context, options: DeskOptions, *, operation: str, rate: float, byte_rate: float | None, as_json: bool
) -> None:
    """Go on with an operation that was paused, or whose process is gone: with what is still pending of its plan."""
    with open_desk(options, None) as desk:
        begun = desk.resume(this_actor(), operation, Rates(records_per_s=rate, bytes_per_s=byte_rate, canary=0))
        ended = follow(desk, begun)
    ctx.exit(tell(ended, as_json=as_json))


@click.command(epilog=examples("streamworker dlq abort 8c1fa2b04d11"))
@click.argument("operation", type=TEXT)
@json_option
@desk_options
def abort(options: DeskOptions, *, operation: str, as_json: bool) -> None:
    """End an operation for good, wherever it runs, after the chunk in hand; what was sent stays sent."""
    with open_desk(options, None) as desk:
        asked = desk.abort(this_actor(), operation)
    if as_json:
        show_json(plain_operation(asked))
    elif asked.state is OperationState.ABORTED:
        say(f"{operation} is ended for good")
    else:
        say(f"{operation}: its runner ends it after the chunk in hand")
