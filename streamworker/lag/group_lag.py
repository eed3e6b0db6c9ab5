"""How far a group is: by partition, by topic and in all. Values, and the sums over them. Pure; any thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamworker.lag.states import State, worst

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.record import TopicPartition


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """Of one partition.

    `lag` is in records: offsets from the committed one to the end, so gaps count; None without a committed offset.
    `lag_s` is the age of the record at the committed offset; None where it is not known. `data_loss_s` is how long it
    takes until that record is deleted unread; None: never, as far as is known. `owner` None: no member has it.
    """

    partition: TopicPartition
    committed: int | None
    start: int
    end: int
    lag: int | None
    lag_s: float | None
    data_loss_s: float | None
    owner: str | None
    state: State | None
    reason: str


@dataclass(frozen=True, slots=True)
class TopicLag:
    """The partitions of one topic together: the sum of their records, the worst of everything else."""

    lag: int | None  # None: of no partition is it known
    lag_s: float | None
    data_loss_s: float | None
    unowned: int | None  # None: not known


@dataclass(frozen=True, slots=True)
class GroupLag:
    """Of one group. `status` is Kafka's name of its state, `members` None: not told. `error`: why all else is missing.

    `unowned` has the partitions of each topic that no member has; without an entry, that is not known of a topic.
    """

    group: str
    status: str
    members: int | None
    partitions: Sequence[PartitionLag] = ()
    unowned: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None

    @property
    def state(self) -> State | None:
        """The worst of its partitions; None without any."""
        return worst(one.state for one in self.partitions) if self.partitions else None

    @property
    def topics(self) -> Mapping[str, TopicLag]:
        """By topic."""
        by_topic: dict[str, list[PartitionLag]] = {}
        for one in self.partitions:
            by_topic.setdefault(one.partition.topic, []).append(one)
        return {topic: _together(those, self.unowned.get(topic)) for topic, those in sorted(by_topic.items())}


def _together(those: Sequence[PartitionLag], unowned: int | None) -> TopicLag:
    lags = [one.lag for one in those if one.lag is not None]
    return TopicLag(
        lag=sum(lags) if lags else None,
        lag_s=max((one.lag_s for one in those if one.lag_s is not None), default=None),
        data_loss_s=min((one.data_loss_s for one in those if one.data_loss_s is not None), default=None),
        unowned=unowned,
    )


def data_loss_s(
    *, committed: int, start: int, lag: int, starts_per_s: float, age_s: float | None, retention_s: float | None
) -> float | None:
    """How long until the record at the committed offset is deleted unread; None: never, as far as is known.

    By its age, where `retention_s` says how old records get, and by how fast the start of the log comes nearer,
    which is what is left to judge by where a log is bounded by its size. The sooner of both.
    """
    if committed < start:
        return 0.0
    if lag <= 0:
        return None
    found = []
    if age_s is not None and retention_s is not None:
        found.append(max(retention_s - age_s, 0.0))
    if starts_per_s > 0:
        found.append((committed - start) / starts_per_s)
    return min(found, default=None)
