"""What a worker in virtual time did: calls of handlers, and all that was reported."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamworker.events import Listener

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.interfaces import Fault
    from streamworker.record import Ending, Message, TopicPartition
    from streamworker.testing.memory_broker import Tenure


@dataclass(frozen=True, slots=True)
class Effect:
    """One record that a handler was called with; `ok` says that the call was a success for it.

    `blamed` is the class of the error where the record was at fault, or may have been: a batch that failed at one
    record says nothing of those behind it. The records of a batch have the same `call`. `turn` is the number of
    the slice in `VirtualWorld.turns`.
    """

    member: str
    partition: TopicPartition
    offset: int
    key: bytes | None
    attempt: int
    at_s: float
    ok: bool
    blamed: str
    call: int
    turn: int


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """A slice in the hands of one of a worker's threads; `until_s` comes only if the process is still there."""

    member: str
    tenure: Tenure
    messages: Sequence[Message]
    from_s: float
    until_s: float


@dataclass(slots=True)
class Story(Listener):
    """What one worker reported, in order."""

    endings: list[tuple[str, TopicPartition, Ending, int]] = field(default_factory=list)
    failures: list[tuple[TopicPartition, int, BaseException, int, Ending]] = field(default_factory=list)
    stops: list[tuple[TopicPartition, str, str]] = field(default_factory=list)
    mends: list[tuple[TopicPartition, str]] = field(default_factory=list)
    pauses: list[tuple[TopicPartition, str]] = field(default_factory=list)
    rebalances: list[tuple[str, tuple[TopicPartition, ...]]] = field(default_factory=list)
    expiries: list[tuple[TopicPartition, int, int, float]] = field(default_factory=list)
    deferrals: list[tuple[TopicPartition, str, str]] = field(default_factory=list)
    old_heads: list[tuple[TopicPartition, int, float, int, int]] = field(default_factory=list)
    leases: list[tuple[str, float]] = field(default_factory=list)
    waits: list[tuple[str, float]] = field(default_factory=list)
    breaker_changes: list[tuple[str, str, str, str]] = field(default_factory=list)
    degraded_reads: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused_letters: list[tuple[TopicPartition, int, str, str]] = field(default_factory=list)
    commit_answers: list[tuple[int, str | None]] = field(default_factory=list)
    unanswered_commits: int = 0
    late_records: int = 0
    full_bulkheads: Counter[str] = field(default_factory=Counter)
    throttled_s: float = 0.0
    postponed_retries: int = 0
    write_offs: list[tuple[TopicPartition, int]] = field(default_factory=list)
    late_calls: int = 0
    remembered_records: int = 0
    cut_commits: int = 0
    keys: list[tuple[str, TopicPartition, int]] = field(default_factory=list)
    suspicions: list[tuple[TopicPartition, int]] = field(default_factory=list)
    acquittals: list[TopicPartition] = field(default_factory=list)
    foreign: list[tuple[TopicPartition, int]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    exit: tuple[int, tuple[str, ...]] | None = None

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.rebalances.append(("assigned", tuple(partitions)))

    def revoked(self, partitions: Sequence[TopicPartition], seconds: float) -> None:
        self.rebalances.append(("revoked", tuple(partitions)))

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.rebalances.append(("lost", tuple(partitions)))

    def ended(self, handler: str, partition: TopicPartition, ending: Ending, records: int, seconds: float) -> None:
        self.endings.append((handler, partition, ending, records))

    def failed(
        self,
        handler: str,
        partition: TopicPartition,
        offset: int,
        error: BaseException,
        attempt: int,
        ending: Ending,
    ) -> None:
        self.failures.append((partition, offset, error, attempt, ending))

    def stopped(self, partition: TopicPartition, reason: str, detail: str, mends_itself: bool) -> None:
        self.stops.append((partition, reason, detail))

    def mended(self, partition: TopicPartition, reason: str) -> None:
        self.mends.append((partition, reason))

    def paused(self, partition: TopicPartition, reason: str) -> None:
        self.pauses.append((partition, reason))

    def expired(self, partition: TopicPartition, offset: int, records: int, age_s: float) -> None:
        self.expiries.append((partition, offset, records, age_s))

    def deferred(self, partition: TopicPartition, topic: str, reason: str) -> None:
        self.deferrals.append((partition, topic, reason))

    def head_too_old(
        self, partition: TopicPartition, offset: int, age_s: float, attempts: int, records_behind: int
    ) -> None:
        self.old_heads.append((partition, offset, age_s, attempts, records_behind))

    def waiting_for_group(self, seconds: float) -> None:
        self.waits.append(("group", seconds))

    def no_broker_reached(self, servers: str, seconds: float) -> None:
        self.waits.append((servers, seconds))

    def lease_expired(self, silent_s: float) -> None:
        self.leases.append(("expired", silent_s))

    def lease_renewed(self, seconds: float) -> None:
        self.leases.append(("renewed", seconds))

    def breaker_changed(self, breaker: str, before: str, after: str, reason: str) -> None:
        self.breaker_changes.append((breaker, before, after, reason))

    def bulkhead_full(self, dependency: str, calls: int) -> None:
        self.full_bulkheads[dependency] += calls

    def degraded(self, operation: str, fallback: str, reads: int) -> None:
        self.degraded_reads[operation, fallback] += reads

    def dead_letter_refused(self, partition: TopicPartition, offset: int, topic: str, error: str) -> None:
        self.refused_letters.append((partition, offset, topic, error))

    def key_parked(self, partition: TopicPartition, offset: int) -> None:
        self.keys.append(("parked", partition, offset))

    def key_released(self, partition: TopicPartition, offset: int) -> None:
        self.keys.append(("released", partition, offset))

    def commit_answered(self, partitions: int, error: str | None, seconds: float) -> None:
        self.commit_answers.append((partitions, error))

    def commit_unanswered(self, partitions: int) -> None:
        self.unanswered_commits += partitions

    def late_outcome(self, handler: str, partition: TopicPartition, records: int) -> None:
        self.late_records += records

    def throttled(self, handler: str, seconds: float) -> None:
        self.throttled_s += seconds

    def retries_postponed(self, handler: str, retries: int) -> None:
        self.postponed_retries += retries

    def written_off(self, handler: str, partition: TopicPartition, offset: int, seconds: float) -> None:
        self.write_offs.append((partition, offset))

    def came_back_late(self, handler: str, partition: TopicPartition, seconds: float) -> None:
        self.late_calls += 1

    def remembered(self, partition: TopicPartition, records: int) -> None:
        self.remembered_records += records

    def suspected(self, partition: TopicPartition, deaths: int) -> None:
        self.suspicions.append((partition, deaths))

    def acquitted(self, partition: TopicPartition) -> None:
        self.acquittals.append(partition)

    def progress_cut(self, partition: TopicPartition, needed_bytes: int) -> None:
        self.cut_commits += 1

    def foreign_offset(self, partition: TopicPartition, offset: int) -> None:
        self.foreign.append((partition, offset))

    def fault(self, fault: Fault) -> None:
        self.faults.append(fault)

    def closed(self, exit_code: int, abandoned: Sequence[str]) -> None:
        self.exit = (exit_code, tuple(abandoned))

    def count(self, ending: Ending) -> int:
        """Records that ended so."""
        return sum(records for _, _, how, records in self.endings if how is ending)
