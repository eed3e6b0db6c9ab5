"""`streamworker dlq purge`: deletes dead letters that are settled. Dry unless --yes is given; admins only."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click

from streamworker.cli.actors import this_actor
from streamworker.cli.console_output import progress_bar, say, show_json, show_table
from streamworker.cli.desks import audit_key
from streamworker.cli.options import TEXT, connect, examples, json_option, settings_options, timeout_option
from streamworker.clock import SystemClock
from streamworker.errors import ClientError, ConfigurationError, nearest
from streamworker.exit_code import ExitCode
from streamworker.librdkafka import producer_settings, topic_log_settings
from streamworker.replay import families
from streamworker.replay.audit import Note
from streamworker.replay.fronts import Fronts
from streamworker.replay.mirror import mirror, mirror_group, open_of
from streamworker.replay.shipments import AuditWriter, Shipments
from streamworker.replay.states import state_topic
from streamworker.replay.topic_log import TopicLog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker.cli.options import Sources
    from streamworker.cluster import Cluster
    from streamworker.config import Config
    from streamworker.record import TopicPartition
    from streamworker.replay.fronts import Front

    Answers = Mapping[TopicPartition, int | str]  # where a partition begins since, or the error's name


class _Waits:
    """Waits between tries, for as long as it takes: a signal ends the command."""

    def __init__(self) -> None:
        self._never = threading.Event()
        self.wait: Callable[[float], bool] = self._never.wait


@dataclass(frozen=True, slots=True)
class _Purge:
    """What has to be known to delete letters of one topic."""

    config: Config
    cluster: Cluster
    topic: str
    timeout_s: float
    audit_key: bytes | None

    def fronts(self, log: TopicLog) -> Sequence[Front]:
        """Of all partitions, with a progress bar."""
        finder = self._finder(log)
        found: list[Front] = []
        partitions = self.cluster.partitions(self.topic, self.timeout_s)
        bounds = [log.bounds(partition, self.timeout_s) for partition in partitions]
        with progress_bar(f"reading {self.topic}", sum(end - start for start, end in bounds)) as advance:
            behind = 0
            for partition, (start, end) in zip(partitions, bounds, strict=True):
                found.append(finder.of(partition.partition, partial(_advance, advance, behind)))
                behind += end - start
                advance(behind)
        return found

    def delete(self, log: TopicLog, fronts: Sequence[Front]) -> tuple[Sequence[Front], Answers]:
        """Delete what is below the fronts, as they are by now; tells them, and what became of each partition."""
        finder = self._finder(log)
        now = [finder.now(front) for front in fronts]
        before = {front.partition: front.open for front in now if front.open > front.start}
        if before:
            self._note(before, sum(front.settled for front in now))
        return now, self.cluster.delete_records(before, self.timeout_s)

    def mirror(self, fronts: Sequence[Front]) -> str | None:
        """Set the group that mirrors what is pending; why it could not be set, if so."""
        try:
            refused = mirror(self.cluster, self.topic, open_of(fronts), self.timeout_s)
        except ClientError as error:
            return str(error)
        return ", ".join(sorted(set(refused.values()))) or None

    def sweep(self, fronts: Sequence[Front]) -> int:
        """Take back what was said of letters that are deleted, and tell of how many."""
        if not self._has_states:
            return 0
        shipments = Shipments(self.config, clock=SystemClock(), wait=_Waits().wait, audit_key=self.audit_key)
        with closing(shipments):
            return sum(shipments.of(front.partition).sweep(self._entry({})) for front in fronts)

    def check(self) -> None:
        """Raises ConfigurationError if there is no such topic."""
        if not self.cluster.partitions(self.topic, self.timeout_s):
            there = self.cluster.topics(self.timeout_s)
            told = f"; {nearest(self.topic, there)}" if there else ""
            raise ConfigurationError(f"there is no topic {self.topic!r}{told}")

    @property
    def _has_states(self) -> bool:
        """Whether there is a topic that says what has become of the letters."""
        return bool(self.cluster.partitions(state_topic(self.topic), self.timeout_s))

    def _finder(self, log: TopicLog) -> Fronts:
        return Fronts(
            log,
            self.topic,
            families.read,
            topic_id=self.cluster.topic_ids([self.topic], self.timeout_s).get(self.topic),
            has_states=self._has_states,
            timeout_s=self.timeout_s,
        )

    def _note(self, before: Mapping[TopicPartition, int], letters: int) -> None:
        """Before anything is deleted: what cannot be audited is not done."""
        settings = producer_settings(self.config.kafka, self.config.dead_letters)
        writer = AuditWriter(settings, key=self.audit_key, clock=SystemClock(), timeout_s=self.timeout_s)
        with closing(writer):
            offsets = {str(partition.partition): offset for partition, offset in before.items()}
            writer.write(self._entry({"before": offsets, "letters": letters}))

    def _entry(self, detail: Mapping[str, object]) -> Note:
        return Note(at_ms=SystemClock.wall_ms(), actor=this_actor(), what="purge", topic=self.topic, detail=detail)


@click.command(
    epilog=examples("streamworker dlq purge orders.dlq --handled", "streamworker dlq purge orders.dlq --handled --yes")
)
@click.argument("topic", type=TEXT)
@click.option("--handled", is_flag=True, required=True, help="Those that were replayed, repaired or discarded.")
@click.option("--yes", is_flag=True, help="Do it; without, it is only shown.")
@json_option
@timeout_option
@settings_options
@click.pass_context
def purge(
    ctx: click.Context, sources: Sources, *, topic: str, handled: bool, yes: bool, as_json: bool, timeout_s: float
) -> None:
    """Delete the dead letters of TOPIC that are handled, in each partition up to the first that is not.

    They cannot be had back. A letter that is pending, snoozed, assigned or uncertain stays, and so do all behind it.
    The group sw-dlq-TOPIC is set to the first of them, so that its lag is what is pending and behind. Ends with 3 if a
    partition was refused.
    """
    del handled  # it is there to be said
    config = sources.load_aloud().config
    purging = _Purge(config, connect(config.kafka), topic, timeout_s, audit_key(config))
    purging.check()
    answers: Answers = {}
    with closing(TopicLog(topic_log_settings(config.kafka), SystemClock())) as log:
        fronts = purging.fronts(log)
        if yes:
            fronts, answers = purging.delete(log, fronts)
    if yes:
        swept, not_mirrored = purging.sweep(fronts), purging.mirror(fronts)
        if not_mirrored is not None:
            say(f"Warning: the offsets of group {mirror_group(topic)} were not set: {not_mirrored}", to_stderr=True)
    else:
        swept = 0
    if as_json:
        show_json(_plain(topic, fronts, answers, done=yes, swept=swept))
    else:
        _tell(topic, fronts, answers, done=yes, swept=swept)
    refused = any(isinstance(answer, str) for answer in answers.values())
    ctx.exit(ExitCode.PARTIAL if refused else ExitCode.OK)


def _advance(advance: Callable[[int], None], behind: int, count: int) -> None:
    advance(behind + count)


def _tell(topic: str, fronts: Sequence[Front], answers: Answers, *, done: bool, swept: int) -> None:
    show_table(
        ("partition", "begins at", "first open", "ends at", "handled before it", ""),
        [
            (front.partition.partition, front.start, front.open, front.end, front.settled, _word(front, answers))
            for front in fronts
        ],
    )
    count = sum(front.settled for front in fronts)
    if not done:
        say(f"{count} letters of {topic} would be deleted")
        if count:
            say("nothing was changed; add --yes to do it", to_stderr=True)
        return
    say(f"{_deleted(fronts, answers)} letters of {topic} were deleted, and {swept} states of letters that are gone")


def _word(front: Front, answers: Answers) -> str | None:
    answer = answers.get(front.partition)
    if isinstance(answer, str):
        return f"refused: {answer}"
    return None if answer is None else "deleted"


def _deleted(fronts: Sequence[Front], answers: Answers) -> int:
    return sum(front.settled for front in fronts if isinstance(answers.get(front.partition), int))


def _plain(topic: str, fronts: Sequence[Front], answers: Answers, *, done: bool, swept: int) -> dict[str, object]:
    return {
        "topic": topic,
        "dry_run": not done,
        "handled": sum(front.settled for front in fronts),
        "deleted": _deleted(fronts, answers),
        "states_taken_back": swept,
        "partitions": [
            {
                "partition": front.partition.partition,
                "begins_at": front.start,
                "first_open": front.open,
                "ends_at": front.end,
                "handled": front.settled,
                "error": answer if isinstance(answer := answers.get(front.partition), str) else None,
            }
            for front in fronts
        ],
    }
