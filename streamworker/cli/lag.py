"""`streamworker lag`: how far consumer groups are, once, on a screen that is drawn again, or for a monitoring.

Decided here: how many looks there are, what the exit code says, and what the table shows.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import click

from streamworker.cli.console_output import say, show_json, show_table
from streamworker.cli.lag_serve import SERVED, serve
from streamworker.cli.looking import Looking, LookPlan, all_groups, named_groups
from streamworker.cli.options import TEXT, Amount, connect, examples, json_option, settings_options, timeout_option
from streamworker.cli.signals import StopRequest
from streamworker.exit_code import ExitCode
from streamworker.lag.figures import UNKNOWN, plain
from streamworker.lag.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker.cli.looking import Groups
    from streamworker.cli.options import Sources
    from streamworker.lag.group_lag import GroupLag, PartitionLag
    from streamworker.lag.group_watch import GroupWatch

_ONCE = LookPlan(looks=1, interval_s=5.0, minimum_looks=2)  # too little for any state but OK
_THRICE = LookPlan(looks=3, interval_s=5.0, minimum_looks=2)
_WATCHED = LookPlan(looks=10, interval_s=5.0, minimum_looks=2)
_EXAMPLES = examples(
    "streamworker lag orders",
    "streamworker lag orders billing --watch",
    "streamworker lag --all --json --once",
    "streamworker lag orders --serve --port 8080 --dead-letters orders.dlq",
)
_HELP = f"""How far GROUPS are with each partition, the worst first; kafka.group by itself. Only brokers are asked.

It looks three times, because a state is a change: OK (keeps up, or catches up), WARN (the lag does not shrink), STALL
(somebody has the partition, and commits nothing new), STOP (nobody commits), REWIND (it went back). One look can only
tell who is caught up. Groups that commit less often than the looks take need a longer --interval-s.

The lag counts offsets from the committed one to the end; "behind s" is the age of the record there, "lost in s" the
time until it is deleted.

--serve runs until it is stopped, and serves /metrics, /status and /health.

{_EXAMPLES}

\b
Exit codes:
    0  Every partition is OK; with --serve: it was stopped.
    1  The cluster did not answer, or refused.
    2  Wrong usage or configuration.
    3  Something is WARN, or not known.
    4  Something is STALL, STOP or REWIND."""


@click.command(help=_HELP, short_help="How far consumer groups are.")
@click.argument("groups", type=TEXT, nargs=-1, metavar="[GROUP]…")
@click.option("--all", "every_group", is_flag=True, help="Every group that can be seen.")
@click.option("--topic", "topics", type=TEXT, multiple=True, help="Only this topic; may be repeated.")
@click.option("--watch", is_flag=True, help="Go on, and draw it again, until Ctrl-C.")
@click.option("--once", is_flag=True, help="Look once.")
@click.option(
    "--interval-s",
    type=Amount(min=0.1, max=3600),
    help="Between two looks; 5 by itself, and 10 with --serve.",
)
@click.option("--allowed-lag", type=click.IntRange(min=0), default=0, show_default=True, help="Records that are OK.")
@click.option("--no-peek", is_flag=True, help="Read no records: ages are estimated, and need some looks.")
@json_option
@click.option("--serve", "serves", is_flag=True, help="Serve what is seen.")
@click.option("--port", type=click.IntRange(0, 65535), help="With --serve; http.port by itself.")
@click.option(
    "--dead-letters", type=TEXT, multiple=True, metavar="TOPIC", help="With --serve: tell of its dead letters, too."
)
@timeout_option
@settings_options
@click.pass_context
def lag(
    ctx: click.Context,
    sources: Sources,
    groups: Sequence[str],
    every_group: bool,
    topics: Sequence[str],
    watch: bool,
    once: bool,
    interval_s: float | None,
    allowed_lag: int,
    no_peek: bool,
    as_json: bool,
    serves: bool,
    port: int | None,
    dead_letters: Sequence[str],
    timeout_s: float,
) -> None:
    """Show, or serve."""
    _refuse_both({"--watch": watch, "--once": once, "--serve": serves})
    if not serves and (port is not None or dead_letters):
        raise click.UsageError("--port and --dead-letters are for --serve")
    config = sources.load_aloud().config
    plan = SERVED if serves else _WATCHED if watch else _ONCE if once else _THRICE
    if interval_s is not None:
        plan = replace(plan, interval_s=interval_s)
    looking = Looking(config, plan, timeout_s, allowed_lag, peeks=not no_peek, topics=topics)
    configured = [config.kafka.group] if config.kafka.group else []
    asked = all_groups(connect(config.kafka), timeout_s) if every_group else named_groups(groups or configured)
    if serves:
        serve(looking, asked, sources, port=port, dead_letters=dead_letters)
        return
    with looking.watch() as group_watch:
        ctx.exit(_look(group_watch, asked, plan, _show_json if as_json else _show, watch=watch))


def _refuse_both(given: dict[str, bool]) -> None:
    named = [name for name, is_given in given.items() if is_given]
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)}: expected one of them")


def _look(
    group_watch: GroupWatch,
    groups: Groups,
    plan: LookPlan,
    show: Callable[[Sequence[GroupLag]], None],
    *,
    watch: bool,
) -> ExitCode:
    """Look as often as is planned and show what comes of it, or go on and show each look, until a signal comes."""
    with StopRequest() as stop:
        for looks in count(1):
            found = group_watch.look(groups())
            if watch and sys.stdout.isatty():
                click.clear()
            is_last = looks == plan.looks and not watch
            if watch or is_last:
                show(found)
            if is_last or stop.came(plan.interval_s):
                break
    return _exit_code(found)


def _exit_code(groups: Sequence[GroupLag]) -> ExitCode:
    states = {group.state for group in groups}
    if any(state is not None and state.is_error for state in states):
        return ExitCode.STALL
    return ExitCode.OK if states <= {State.OK} else ExitCode.PARTIAL


def _show_json(groups: Sequence[GroupLag]) -> None:
    show_json([plain(one) for one in groups])


def _show(groups: Sequence[GroupLag]) -> None:
    for group in groups:
        say(_told(group), style=_STYLES[group.state])
    parts = [(group, one) for group in groups for one in group.partitions]
    parts.sort(key=lambda part: (-_badness(part[1].state), -(part[1].lag or 0), part[0].group, part[1].partition))
    columns = ("group", "topic", "partition", "state", "lag", "behind s", "lost in s", "committed", "end", "owner", "")
    show_table(columns, [_row(group, one) for group, one in parts])


_STYLES = {
    State.OK: "green",
    None: None,
    State.WARN: "yellow",
    State.STALL: "red",
    State.STOP: "red",
    State.REWIND: "red",
}


def _badness(state: State | None) -> int:
    return list(_STYLES).index(state)


def _told(group: GroupLag) -> str:
    if group.error is not None:
        return f"{group.group}: {UNKNOWN}: {group.error}"
    if not group.partitions:
        return f"{group.group}: {UNKNOWN}: it has no members, and no offsets of topics that are looked at"
    members = "members not told" if group.members is None else f"members: {group.members}"
    lags = [one.lag for one in group.partitions if one.lag is not None]
    unowned = sum(group.unowned.values())
    more = f", partitions without an owner: {unowned}" if unowned else ""
    return f"{group.group}: {_word(group.state)}, {group.status.lower()}, {members}, lag: {sum(lags)}{more}"


def _row(group: GroupLag, one: PartitionLag) -> tuple[object, ...]:
    return (
        group.group,
        *one.partition,
        _word(one.state),
        one.lag,
        None if one.lag_s is None else round(one.lag_s),
        None if one.data_loss_s is None else round(one.data_loss_s),
        one.committed,
        one.end,
        one.owner,
        one.reason,
    )


def _word(state: State | None) -> str:
    return UNKNOWN if state is None else state.value.upper()
