"""`streamworker offsets`: what a group has committed, and moving it by hand.

Moving is dry unless --yes is given, and refused for a group with members: they would go on from where they
are and commit over it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from streamworker.cli.console_output import say, show_json, show_table
from streamworker.cli.options import TEXT, connect, examples, json_option, settings_options, timeout_option
from streamworker.errors import ConfigurationError
from streamworker.exit_code import ExitCode
from streamworker.interfaces import OffsetMark
from streamworker.offsets.codec import decode
from streamworker.offsets.policy import moment_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streamworker.cli.options import Sources
    from streamworker.cluster import Cluster
    from streamworker.offsets.progress import Progress
    from streamworker.record import TopicPartition


@dataclass(frozen=True, slots=True)
class Position:
    """What a group has of one partition, and what the partition has. `committed` is None without an offset."""

    partition: TopicPartition
    committed: OffsetMark | None
    start: int
    end: int

    @property
    def lag(self) -> int:
        """Offsets from the committed one, or the start without one, to the end."""
        return self.end - (self.start if self.committed is None else self.committed.offset)

    @property
    def written_by(self) -> str | None:
        """Whether streamworker wrote the offset."""
        if self.committed is None:
            return None
        return "another program" if decode(self.committed.metadata) is None else "streamworker"

    @property
    def progress(self) -> Progress | None:
        """What streamworker knows of the partition beside the offset."""
        found = None if self.committed is None else decode(self.committed.metadata, self.committed.offset)
        return None if found is None else found.progress


@dataclass(frozen=True, slots=True)
class Target:
    """Where `reset` moves to; exactly one is given."""

    earliest: bool
    latest: bool
    at_ms: int | None  # since 1970
    shift: int | None

    def __post_init__(self) -> None:
        given = [self.earliest, self.latest, self.at_ms is not None, self.shift is not None]
        if sum(given) != 1:
            raise click.UsageError("give one of --to-earliest, --to-latest, --to-datetime, --shift-by")


@click.group()
def offsets() -> None:
    """Show and move the offsets of a consumer group."""


topic_option = click.option("--topic", "topics", type=TEXT, multiple=True, help="Only this topic; may be repeated.")
partition_option = click.option(
    "--partition", "numbers", type=click.IntRange(min=0), multiple=True, help="Only this partition; may be repeated."
)
yes_option = click.option("--yes", is_flag=True, help="Do it; without, it is only shown.")


@offsets.command(
    epilog=examples("streamworker offsets show orders", "streamworker offsets show orders --topic orders --json")
)
@click.argument("group", type=TEXT)
@topic_option
@partition_option
@json_option
@timeout_option
@settings_options
def show(
    sources: Sources, group: str, topics: Sequence[str], numbers: Sequence[int], as_json: bool, timeout_s: float
) -> None:
    """What GROUP has committed, where the log begins and ends, and the lag.

    Also what lies beside the offset: whether the partition is in work or was given back, how many records beyond the
    offset are done, on how many of the others calls were spent, and which are suspected of killing the process. --json
    has them one by one.
    """
    cluster = connect(sources.load_aloud().config.kafka)
    positions = _positions(cluster, group, topics, numbers, timeout_s)
    if as_json:
        show_json([_plain(one) for one in positions])
        return
    columns = ("topic", "partition", "committed", "start", "end", "lag", "written by", "state", "done", "tried", "")
    show_table(columns, [_row(one) for one in positions])


@offsets.command(
    "set", epilog=examples("streamworker offsets set orders --topic orders --partition 3 --offset 1207 --yes")
)
@click.argument("group", type=TEXT)
@click.option("--topic", type=TEXT, required=True)
@click.option("--partition", "number", type=click.IntRange(min=0), required=True)
@click.option("--offset", type=click.IntRange(min=0), required=True, help="Of the next record to handle.")
@yes_option
@timeout_option
@settings_options
@click.pass_context
def set_(
    ctx: click.Context,
    sources: Sources,
    group: str,
    topic: str,
    number: int,
    offset: int,
    yes: bool,
    timeout_s: float,
) -> None:
    """Set one offset of GROUP."""
    cluster = connect(sources.load_aloud().config.kafka)
    positions = _positions(cluster, group, [topic], [number], timeout_s)
    for one in positions:
        if not one.start <= offset <= one.end:
            raise ConfigurationError(f"{one.partition}: expected an offset from {one.start} to {one.end}, got {offset}")
    ctx.exit(_move(cluster, group, dict.fromkeys(positions, offset), yes=yes, timeout_s=timeout_s))


@offsets.command(
    epilog=examples(
        "streamworker offsets reset orders --topic orders --to-earliest",
        "streamworker offsets reset orders --to-datetime 2031-05-01T06:00:00Z --yes",
        "streamworker offsets reset orders --topic orders --partition 3 --shift-by 1 --yes",
    )
)
@click.argument("group", type=TEXT)
@click.option("--to-earliest", is_flag=True, help="To the first record there is.")
@click.option("--to-latest", is_flag=True, help="To the end: nothing that is there is handled.")
@click.option(
    "--to-datetime", type=str, metavar="ISO-8601", help="To the first record of that time; UTC without a time zone."
)
@click.option("--shift-by", type=int, help="By so many offsets, forward or (negative) back, within the log.")
@topic_option
@partition_option
@yes_option
@timeout_option
@settings_options
@click.pass_context
def reset(
    ctx: click.Context,
    sources: Sources,
    group: str,
    to_earliest: bool,
    to_latest: bool,
    to_datetime: str | None,
    shift_by: int | None,
    topics: Sequence[str],
    numbers: Sequence[int],
    yes: bool,
    timeout_s: float,
) -> None:
    """Move the offsets of GROUP, by default of all partitions it has offsets for."""
    target = Target(to_earliest, to_latest, _moment_ms(to_datetime), shift_by)
    cluster = connect(sources.load_aloud().config.kafka)
    positions = _positions(cluster, group, topics, numbers, timeout_s)
    ctx.exit(_move(cluster, group, _targets(cluster, positions, target, timeout_s), yes=yes, timeout_s=timeout_s))


def _moment_ms(text: str | None) -> int | None:
    try:
        return None if text is None else moment_ms(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--to-datetime") from None


def _positions(
    cluster: Cluster, group: str, topics: Sequence[str], numbers: Sequence[int], timeout_s: float
) -> list[Position]:
    asked = [one for topic in topics for one in _partitions(cluster, topic, timeout_s)] if topics else None
    marks = cluster.group_offsets(group, asked, timeout_s)
    wanted = sorted(one for one in marks if not numbers or one.partition in numbers)
    if not wanted:
        what = f"partitions {', '.join(map(str, numbers))} of it" if numbers else "offsets of it; name a --topic"
        raise ConfigurationError(f"group {group!r}: there are no {what}")
    starts = cluster.log_start_offsets(wanted, timeout_s)
    ends = cluster.end_offsets(wanted, timeout_s)
    return [Position(one, marks[one], starts[one], ends[one]) for one in wanted]


def _partitions(cluster: Cluster, topic: str, timeout_s: float) -> Iterable[TopicPartition]:
    partitions = cluster.partitions(topic, timeout_s)
    if not partitions:
        raise ConfigurationError(f"there is no topic {topic!r}")
    return partitions


def _targets(
    cluster: Cluster, positions: Sequence[Position], target: Target, timeout_s: float
) -> Mapping[Position, int]:
    if target.at_ms is not None:
        found = cluster.offsets_at([one.partition for one in positions], target.at_ms, timeout_s)
        return {one: found[one.partition] for one in positions}
    if target.shift is not None:
        return {one: _shifted(one, target.shift) for one in positions}
    return {one: one.start if target.earliest else one.end for one in positions}


def _shifted(position: Position, by: int) -> int:
    if position.committed is None:
        raise ConfigurationError(f"{position.partition} has no offset to shift; use --to-earliest or --to-latest")
    return min(max(position.committed.offset + by, position.start), position.end)


def _move(cluster: Cluster, group: str, targets: Mapping[Position, int], *, yes: bool, timeout_s: float) -> ExitCode:
    _refuse_live(cluster, group, timeout_s)
    outcomes: Mapping[TopicPartition, str] = {}
    if yes:
        marks = {one.partition: OffsetMark(offset) for one, offset in targets.items()}
        answers = cluster.set_group_offsets(group, marks, timeout_s)
        outcomes = {one.partition: one.error or "set" for one in answers}
    show_table(
        ("topic", "partition", "before", "after", "start", "end", ""),
        [
            (
                *one.partition,
                one.committed and one.committed.offset,
                offset,
                one.start,
                one.end,
                outcomes.get(one.partition),
            )
            for one, offset in targets.items()
        ],
    )
    if not yes:
        say("Nothing was changed; add --yes to do it.")
    return ExitCode.OK if set(outcomes.values()) <= {"set"} else ExitCode.PARTIAL


def _refuse_live(cluster: Cluster, group: str, timeout_s: float) -> None:
    state = cluster.group_state(group, timeout_s)
    if state is not None and state.live:
        raise ConfigurationError(
            f"group {group!r} has {state.members} members ({state.state}); stop them first, they would commit over it"
        )


def _row(position: Position) -> tuple[object, ...]:
    """A line of the table; the lists of what lies beside the offset as counts."""
    progress = position.progress
    beside: tuple[object, ...] = (None,) * 4
    if progress is not None:
        done = sum(last - first + 1 for first, last in progress.done)
        beside = (_state(progress), done, len(progress.attempts), _suspected(progress))
    return (
        *position.partition,
        position.committed and position.committed.offset,
        position.start,
        position.end,
        position.lag,
        position.written_by,
        *beside,
    )


def _suspected(progress: Progress) -> str | None:
    suspect = progress.suspect
    return None if suspect is None else f"{suspect.first} to {suspect.last} suspected, deaths: {suspect.deaths}"


def _state(progress: Progress) -> str:
    return "in work" if progress.running else "given back"


def _plain(position: Position) -> dict[str, object]:
    progress = position.progress
    return {
        "topic": position.partition.topic,
        "partition": position.partition.partition,
        "committed": None if position.committed is None else position.committed.offset,
        "start": position.start,
        "end": position.end,
        "lag": position.lag,
        "written_by": position.written_by,
        "progress": None if progress is None else _plain_progress(progress),
    }


def _plain_progress(progress: Progress) -> dict[str, object]:
    suspect = progress.suspect
    return {
        "state": _state(progress),
        "owner": progress.owner,
        "done": [{"first": first, "last": last} for first, last in progress.done],
        "attempts": [{"offset": offset, "attempts": spent} for offset, spent in sorted(progress.attempts.items())],
        "suspected": suspect and {"first": suspect.first, "last": suspect.last, "deaths": suspect.deaths},
    }
