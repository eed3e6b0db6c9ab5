"""How far consumer groups are and what holds them, put together of what brokers and workers say.

Decided here: whom is believed for what, and what is said to be missing. Offsets, ends and owners are the brokers' word;
why a partition stands still, and the state of breakers, only its worker knows. What a worker says is looked at as what
it may be: the answer of whoever listens there. Pure but for who asks; any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec

from streamworker.errors import ClientError
from streamworker.offsets.codec import decode
from streamworker.record import TopicPartition
from streamworker.replay.desk import GroupPartition, GroupSummary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from streamworker.cluster import GroupState, TopicShape
    from streamworker.interfaces import OffsetMark
    from streamworker.replay.worker_pages import Answer

NOT_CONFIGURED = "why partitions stand still, and the state of breakers, is not known: console.workers is not set"
_NAMED = 3  # workers that did not answer
_BADNESS = ("closed", "half_open", "open")


class _Pause(msgspec.Struct, frozen=True):
    reason: str
    detail: str = ""


class _PartitionSaid(msgspec.Struct, frozen=True):
    topic: str
    partition: int
    pauses: list[_Pause] = []
    stopped: _Pause | None = None


class _StatusSaid(msgspec.Struct, frozen=True):
    """What is read of a worker's `/status`."""

    group: str
    partitions: list[_PartitionSaid] = []
    breakers: dict[str, str] = {}


class _ChildSaid(msgspec.Struct, frozen=True):
    status: _StatusSaid | None = None


class _SupervisorSaid(msgspec.Struct, frozen=True):
    """What is read of a supervisor's: what its workers say."""

    workers: list[_ChildSaid]


@dataclass(frozen=True, slots=True)
class WorkersSaid:
    """What workers say of their groups; `silent` are those that said nothing, and why."""

    statuses: Sequence[_StatusSaid] = ()
    silent: Mapping[str, str] = field(default_factory=dict)
    configured: bool = False

    @classmethod
    def of(cls, answers: Iterable[Answer]) -> WorkersSaid:
        """From what was answered."""
        statuses: list[_StatusSaid] = []
        silent: dict[str, str] = {}
        for one in answers:
            try:
                statuses += _statuses(one.content) if one.error is None else ()
            except msgspec.ValidationError as error:
                silent[one.place] = f"its answer is not that of a worker: {error}"
            if one.error is not None:
                silent[one.place] = one.error
        return cls(statuses, silent, configured=True)

    def of_group(self, group: str) -> WorkersSaid:
        """Only those of one group."""
        return WorkersSaid([one for one in self.statuses if one.group == group], self.silent, self.configured)

    @property
    def breakers(self) -> Mapping[str, str]:
        """The worst state of each."""
        worst: dict[str, str] = {}
        for one in self.statuses:
            for name, state in one.breakers.items():
                worst[name] = max(worst.get(name, state), state, key=_badness)
        return dict(sorted(worst.items()))

    @property
    def pauses(self) -> Mapping[TopicPartition, Sequence[str]]:
        """Why each partition that a worker has stands still; nothing for one that moves."""
        return {
            TopicPartition(one.topic, one.partition): list(_reasons(one))
            for status in self.statuses
            for one in status.partitions
        }


def _statuses(content: object) -> Iterator[_StatusSaid]:
    if isinstance(content, dict) and "workers" in content:
        found = msgspec.convert(content, _SupervisorSaid)
        yield from (one.status for one in found.workers if one.status is not None)
    else:
        yield msgspec.convert(content, _StatusSaid)


def _reasons(partition: _PartitionSaid) -> Iterator[str]:
    if partition.stopped is not None:
        yield _told(f"stopped, {partition.stopped.reason}", partition.stopped.detail)
    for pause in partition.pauses:
        yield _told(pause.reason, pause.detail)


def _told(reason: str, detail: str) -> str:
    return f"{reason}: {detail}" if detail else reason


def _badness(state: str) -> int:
    return _BADNESS.index(state) if state in _BADNESS else len(_BADNESS)


@dataclass(frozen=True, slots=True)
class BrokersSaid:
    """What brokers say of a group. `state` None: they do not tell; `error`: why nothing is known of its offsets.

    `starts` has the partitions without an offset.
    """

    state: GroupState | None
    marks: Mapping[TopicPartition, OffsetMark | None] = field(default_factory=dict)
    starts: Mapping[TopicPartition, int] = field(default_factory=dict)
    ends: Mapping[TopicPartition, int] = field(default_factory=dict)
    error: str | None = None


def summary(group: str, brokers: BrokersSaid, workers: WorkersSaid) -> GroupSummary:
    """The group for people."""
    ours, state = workers.of_group(group), brokers.state
    pauses = ours.pauses
    owners = {} if state is None else state.owners
    return GroupSummary(
        group=group,
        state="UNKNOWN" if state is None else state.state,
        members=0 if state is None else state.members,
        partitions=[
            GroupPartition(
                topic=partition.topic,
                partition=partition.partition,
                committed=None if (mark := brokers.marks.get(partition)) is None else mark.offset,
                end=end,
                lag=_lag(mark, brokers.starts.get(partition, 0), end),
                owner=owners.get(partition),
                paused=pauses.get(partition, ()),
            )
            for partition, end in sorted(brokers.ends.items())
        ],
        breakers=ours.breakers,
        missing="; ".join(_missing(brokers, ours, set(owners) - pauses.keys())) or None,
    )


def _lag(mark: OffsetMark | None, start: int, end: int) -> int:
    """Offsets that are not done: what is done beyond the committed offset is written beside it."""
    if mark is None:
        return max(end - start, 0)
    metadata = decode(mark.metadata, mark.offset) if mark.metadata else None
    progress = None if metadata is None else metadata.progress
    done = 0 if progress is None else sum(last + 1 - first for first, last in progress.done)
    return max(end - mark.offset - done, 0)


def _missing(brokers: BrokersSaid, workers: WorkersSaid, unknown: set[TopicPartition]) -> Iterator[str]:
    if brokers.state is None:
        yield "the cluster does not tell whether it has members"
    if brokers.error is not None:
        yield f"its offsets are not known: {brokers.error}"
    if not workers.configured:
        yield NOT_CONFIGURED
        return
    if workers.silent:
        named = ", ".join(f"{place} ({why})" for place, why in list(workers.silent.items())[:_NAMED])
        more = f" and {len(workers.silent) - _NAMED} more" if len(workers.silent) > _NAMED else ""
        yield f"no answer of {named}{more}"
    if unknown:
        count = "one partition" if len(unknown) == 1 else f"{len(unknown)} partitions"
        yield f"what holds {count} is not known: no worker that answered has them"


class GroupQuestions(Protocol):
    """What is asked of a `Cluster`."""

    def group_state(self, group: str, timeout_s: float) -> GroupState | None:
        """As of `Cluster`."""

    def group_offsets(
        self, group: str, partitions: Sequence[TopicPartition] | None, timeout_s: float
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        """As of `Cluster`."""

    def topics(self, timeout_s: float) -> Mapping[str, TopicShape]:
        """As of `Cluster`."""

    def end_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> Mapping[TopicPartition, int]:
        """As of `Cluster`."""

    def log_start_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> Mapping[TopicPartition, int]:
        """As of `Cluster`."""


class WorkerQuestions(Protocol):
    """What is asked of `WorkerPages`."""

    @property
    def configured(self) -> bool:
        """As of `WorkerPages`."""

    def ask(self, timeout_s: float) -> Sequence[Answer]:
        """As of `WorkerPages`."""


def summaries(
    groups: Iterable[str], cluster: GroupQuestions, workers: WorkerQuestions, timeout_s: float
) -> Sequence[GroupSummary]:
    """Of these groups; workers are asked once for all. Raises ClientError if the cluster says nothing at all."""
    said = WorkersSaid.of(workers.ask(timeout_s)) if workers.configured else WorkersSaid()
    shapes = cluster.topics(timeout_s)
    return [summary(group, asked(group, cluster, shapes, timeout_s), said) for group in groups]


def asked(group: str, cluster: GroupQuestions, shapes: Mapping[str, TopicShape], timeout_s: float) -> BrokersSaid:
    """What the brokers say of a group; `shapes` are all topics that there are, because offsets outlive their topics."""
    state = cluster.group_state(group, timeout_s)
    try:
        marks = cluster.group_offsets(group, None, timeout_s)
        owned = () if state is None else state.owners
        there = [
            one for one in {*marks, *owned} if one.topic in shapes and one.partition < shapes[one.topic].partitions
        ]
        without = [one for one in there if marks.get(one) is None]
        return BrokersSaid(
            state=state,
            marks=marks,
            starts=cluster.log_start_offsets(without, timeout_s),
            ends=cluster.end_offsets(there, timeout_s),
        )
    except ClientError as error:
        return BrokersSaid(state, error=str(error))
