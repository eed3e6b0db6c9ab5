"""Looks at consumer groups again and again, remembers what it saw, and tells how far each group is.

Only brokers are asked, so groups of any program can be looked at. Decided here: which partitions are a group's, which
of them nobody has, and which records are looked at for their time. One thread, which blocks for its questions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from streamworker.errors import ClientError
from streamworker.lag.group_lag import GroupLag, PartitionLag, data_loss_s
from streamworker.lag.history import History, Seen
from streamworker.lag.peeks import Nothing
from streamworker.lag.states import Judgement, Rules, judge
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.cluster import GroupState, TopicShape
    from streamworker.interfaces import OffsetMark

    Bounds = Mapping[TopicPartition, tuple[int, int]]

# At each look. A record costs a broker one read of its log, where the offsets of all partitions are one request.
_PEEKS_AT_ONCE = 200
_PEEKS_TIMEOUT_S = 3.0
# For so long a topic's retention is believed.
_RETENTION_S = 600.0


class Brokers(Protocol):
    """What is asked of a `Cluster`."""

    def topics(self, timeout_s: float) -> Mapping[str, TopicShape]:
        """As of `Cluster`."""

    def topic_config(self, name: str, timeout_s: float) -> Mapping[str, str] | None:
        """As of `Cluster`."""

    def group_state(self, group: str, timeout_s: float) -> GroupState | None:
        """As of `Cluster`."""

    def group_offsets(
        self, group: str, partitions: Sequence[TopicPartition] | None, timeout_s: float
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        """As of `Cluster`."""

    def bounds(
        self, partitions: Sequence[TopicPartition], timeout_s: float
    ) -> Mapping[TopicPartition, tuple[int, int]]:
        """As of `Cluster`."""


class Times(Protocol):
    """What is asked of `Peeks`."""

    def written_ms(
        self, offsets: Mapping[TopicPartition, int], timeout_s: float
    ) -> Mapping[TopicPartition, int | Nothing]:
        """As of `Peeks`."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What brokers said of a group."""

    state: GroupState | None = None
    marks: Mapping[TopicPartition, OffsetMark | None] = field(default_factory=dict)
    error: str | None = None

    @property
    def tells_owners(self) -> bool:
        return self.state is not None and self.state.tells_owners

    @property
    def owners(self) -> Mapping[TopicPartition, str]:
        return {} if self.state is None else self.state.owners

    def has_member(self, partition: TopicPartition) -> bool:
        """Whether a member may be at work on it: its owner, or amid a rebalance anybody."""
        if self.state is None or self.tells_owners:
            return partition in self.owners
        return self.state.live

    def partitions(self, shapes: Mapping[str, TopicShape]) -> Iterator[TopicPartition]:
        """All of each topic that it has an offset or a partition of; offsets outlive their topics."""
        for topic in sorted({one.topic for one in (*self.marks, *self.owners)} & shapes.keys()):
            yield from (TopicPartition(topic, number) for number in range(shapes[topic].partitions))

    def unowned(self, partitions: Iterable[TopicPartition]) -> Mapping[str, int]:
        """How many of each topic nobody has.

        A topic of which the members of a group at work have nothing is one that they do not read.
        """
        if self.state is None or not self.tells_owners:
            return {}
        counts: dict[str, int] = {}
        read = {one.topic for one in self.owners}
        for one in partitions:
            missing = one not in self.owners and (one.topic in read or not self.state.live)
            counts[one.topic] = counts.get(one.topic, 0) + missing
        return counts


class GroupWatch:
    """Of what `brokers` say. `times` None: records are not looked at, and their age is estimated.

    `looks` are remembered of each partition. `chosen` says which topics are looked at.
    """

    def __init__(
        self,
        brokers: Brokers,
        times: Times | None,
        clock: Clock,
        rules: Rules,
        *,
        looks: int,
        timeout_s: float,
        chosen: Callable[[str], bool] = lambda _topic: True,
    ) -> None:
        self._brokers = brokers
        self._times = times
        self._clock = clock
        self._rules = rules
        self._looks = looks
        self._timeout_s = timeout_s
        self._chosen = chosen
        self._histories: dict[tuple[str, TopicPartition], History] = {}
        self._written_ms: dict[tuple[TopicPartition, int], int | Nothing] = {}  # by offset, of those that count now
        self._retentions_s: dict[str, tuple[float, float | None]] = {}  # with when they were asked for

    def look(self, groups: Collection[str]) -> Sequence[GroupLag]:
        """How far `groups` are now. Raises ClientError if the cluster says nothing at all."""
        shapes = {name: shape for name, shape in self._brokers.topics(self._timeout_s).items() if self._chosen(name)}
        asked = {group: self._ask(group) for group in groups}
        partitions = {group: list(one.partitions(shapes)) for group, one in asked.items()}
        bounds = self._brokers.bounds(sorted({one for those in partitions.values() for one in those}), self._timeout_s)
        self._peek(asked, bounds)
        now_s = self._clock.monotonic_s()
        found = [self._group_lag(group, asked[group], partitions[group], bounds, now_s) for group in groups]
        self._forget({(group, one) for group, those in partitions.items() for one in those}, asked)
        return found

    def _forget(self, kept: Collection[tuple[str, TopicPartition]], asked: Mapping[str, _Asked]) -> None:
        """Of groups that gave no answer nothing is forgotten."""
        silent = {group for group, one in asked.items() if one.error is not None}
        self._histories = {key: one for key, one in self._histories.items() if key in kept or key[0] in silent}

    def _ask(self, group: str) -> _Asked:
        try:
            state = self._brokers.group_state(group, self._timeout_s)
            return _Asked(state, self._brokers.group_offsets(group, None, self._timeout_s))
        except ClientError as error:
            return _Asked(error=str(error))

    def _peek(self, asked: Mapping[str, _Asked], bounds: Bounds) -> None:
        """Learn when the first record that counts for each lag was written, of as many as may be looked at."""
        offsets = {
            (one, at): self._histories.get((name, one))
            for name, group in asked.items()
            for one, at in _first_open(group.marks, bounds)
        }
        self._written_ms = {key: told for key, told in self._written_ms.items() if key in offsets and _stays(told)}
        wanted = [key for key in offsets if key not in self._written_ms]
        if self._times is None:
            return
        wanted.sort(key=lambda key: self._urgency(offsets[key], key[1]))
        until_s = self._clock.monotonic_s() + min(self._timeout_s, _PEEKS_TIMEOUT_S)
        for part in _once_each(wanted[:_PEEKS_AT_ONCE]):
            left_s = until_s - self._clock.monotonic_s()
            if left_s > 0:
                told = self._times.written_ms(part, left_s)
                self._written_ms.update({(partition, part[partition]): when for partition, when in told.items()})

    def _urgency(self, history: History | None, offset: int) -> float:
        """What cannot be estimated comes first, then the oldest."""
        age_s = None if history is None else self._estimated_s(history, offset)
        return -math.inf if age_s is None else -age_s

    def _estimated_s(self, history: History, offset: int) -> float | None:
        written_s = history.written_s(offset)
        return None if written_s is None else max(self._clock.monotonic_s() - written_s, 0.0)

    def _group_lag(
        self, group: str, asked: _Asked, partitions: Sequence[TopicPartition], bounds: Bounds, now_s: float
    ) -> GroupLag:
        if asked.error is not None:
            return GroupLag(group, "UNKNOWN", None, error=asked.error)
        state = asked.state
        return GroupLag(
            group=group,
            status="UNKNOWN" if state is None else state.state,
            members=None if state is None else state.members,
            partitions=[self._partition(group, asked, one, bounds[one], now_s) for one in partitions if one in bounds],
            unowned=asked.unowned(partitions),
        )

    def _partition(
        self, group: str, asked: _Asked, partition: TopicPartition, bounds: tuple[int, int], now_s: float
    ) -> PartitionLag:
        start, end = bounds
        mark = asked.marks.get(partition)
        told = None if mark is None else self._written_ms.get((partition, max(mark.offset, start)))
        lag = None if mark is None else max(end - mark.offset, 0)
        if told is Nothing.TO_READ:
            lag = 0  # what is left are marks of transactions, and what was aborted
        history = self._histories.setdefault((group, partition), History(self._looks))
        history.note(Seen(mark, start, end, lag, owned=asked.has_member(partition)), now_s)
        age_s = None if mark is None else self._age_s(history, max(mark.offset, start), lag, told)
        judgement = Judgement(None, "nothing is committed, so where it reads is not known")
        loss_s = None
        if mark is not None and lag is not None:
            judgement = judge(history.window, lag, now_s, self._rules)
            loss_s = data_loss_s(
                committed=mark.offset,
                start=start,
                lag=lag,
                starts_per_s=history.starts_per_s(now_s),
                age_s=age_s,
                retention_s=self._retention_s(partition.topic) if lag > 0 else None,
            )
        return PartitionLag(
            partition=partition,
            committed=None if mark is None else mark.offset,
            start=start,
            end=end,
            lag=lag,
            lag_s=age_s,
            data_loss_s=loss_s,
            owner=asked.owners.get(partition),
            state=judgement.state,
            reason=judgement.reason,
        )

    def _age_s(self, history: History, offset: int, lag: int | None, told: int | Nothing | None) -> float | None:
        """Of the record at `offset`: by its own time if it was looked at, else by when the log passed it."""
        if lag == 0:
            return 0.0
        if isinstance(told, int):
            return max(self._clock.wall_ms() - told, 0) / 1000
        return self._estimated_s(history, offset)

    def _retention_s(self, topic: str) -> float | None:
        """How old records of a topic get; None if they are kept, or if the cluster does not tell."""
        now_s = self._clock.monotonic_s()
        asked_s, retention_s = self._retentions_s.get(topic, (-math.inf, None))
        if now_s - asked_s > _RETENTION_S:
            try:
                settings = self._brokers.topic_config(topic, self._timeout_s) or {}
            except ClientError:
                settings = {}
            retention_s = _by_age_s(settings)
            self._retentions_s[topic] = now_s, retention_s
        return retention_s


def _first_open(
    marks: Mapping[TopicPartition, OffsetMark | None], bounds: Bounds
) -> Iterator[tuple[TopicPartition, int]]:
    """Where there is something to read: the first offset that the log has and the group has not done."""
    for partition, mark in marks.items():
        start, end = bounds.get(partition, (0, 0))
        if mark is not None and mark.offset < end:
            yield partition, max(mark.offset, start)


def _once_each(keys: Iterable[tuple[TopicPartition, int]]) -> Iterator[Mapping[TopicPartition, int]]:
    """In parts that have each partition once: a consumer is at one offset of it."""
    left = list(keys)
    while left:
        part: dict[TopicPartition, int] = {}
        later = [key for key in left if part.setdefault(*key) != key[1]]
        yield part
        left = later


def _stays(told: int | Nothing) -> bool:
    """Whether it is so for ever: behind an offset without a record one may have been written since."""
    return told is not Nothing.TO_READ


def _by_age_s(settings: Mapping[str, str]) -> float | None:
    kept_ms = int(settings.get("retention.ms", "-1"))
    return None if kept_ms < 0 or "delete" not in settings.get("cleanup.policy", "delete") else kept_ms / 1000
