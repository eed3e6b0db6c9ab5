"""What is paused, and why. Pure.

Each partition has a set of reasons; it is paused from the first to the last of them, and a reason
is only taken away by who put it up. The client's own flag outlives a rebalance, so a partition
that was assigned counts as unknown until it was told. The loop thread owns the ledger.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streamworker.record import TopicPartition


class PauseReason(enum.Enum):
    """Why a partition is not fetched."""

    BACKPRESSURE = "backpressure"  # it has its share of the buffers
    STOPPED = "stopped"  # something is wrong that the partition waits for
    OFFSETS_UNKNOWN = "offsets_unknown"  # the group's offset could not be read yet
    DEAD_LETTERS_PENDING = "dead_letters_pending"  # dead letters that are not with the broker yet
    DEAD_LETTER_BUDGET = "dead_letter_budget"  # too many dead letters in a short time
    PARKED_KEYS_UNREAD = "parked_keys_unread"  # which keys are parked was not read yet
    PARKED_KEYS_FULL = "parked_keys_full"  # as many keys are parked as may be
    SUSPECTED = "suspected"  # the process may have died of fetching it
    RETRY_NOT_DUE = "retry_not_due"  # the next record of a retry topic is not due
    BREAKER = "breaker"  # something that its handler needs is away
    MEMORY = "memory"  # the process has more memory than it may
    LEASE = "lease"  # it is not proven that the worker is still a member of its group
    WRITTEN_OFF = "calls_written_off"  # too many of its handler's calls run on past their timeout
    DRAINING = "draining"  # the worker or the ownership ends


@dataclass(frozen=True, slots=True)
class FlowChange:
    """What to tell the client."""

    pause: Sequence[TopicPartition]
    resume: Sequence[TopicPartition]


class PauseLedger:
    """Reasons per partition, and what the client was told last."""

    def __init__(self) -> None:
        self._reasons: dict[TopicPartition, dict[PauseReason, float]] = {}
        self._told: dict[TopicPartition, bool] = {}
        self._changed: set[TopicPartition] = set()

    def own(self, partition: TopicPartition) -> bool:
        """`partition` was assigned; returns whether it is paused, which counts as told to the client."""
        paused = self._told[partition] = self.paused(partition)
        return paused

    def disown(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget these."""
        for partition in partitions:
            self._reasons.pop(partition, None)
            self._told.pop(partition, None)

    def put(self, partition: TopicPartition, reason: PauseReason, now_s: float) -> bool:
        """Put up a reason; false if it was there."""
        reasons = self._reasons.setdefault(partition, {})
        if reason in reasons:
            return False
        reasons[reason] = now_s
        self._changed.add(partition)
        return True

    def take(self, partition: TopicPartition, reason: PauseReason) -> float | None:
        """Take a reason away; returns since when it stood, None if it did not."""
        since_s = self._reasons.get(partition, {}).pop(reason, None)
        if since_s is not None:
            self._changed.add(partition)
        return since_s

    def paused(self, partition: TopicPartition) -> bool:
        """Whether any reason stands."""
        return bool(self._reasons.get(partition))

    def reasons(self, partition: TopicPartition) -> Mapping[PauseReason, float]:
        """The reasons that stand, with the monotonic time since when."""
        return self._reasons.get(partition, {})

    def changes(self) -> FlowChange:
        """What the client must be told since the last call; counted as told."""
        if not self._changed:
            return _NOTHING
        wanted = {one: self.paused(one) for one in self._changed if one in self._told}
        self._changed.clear()
        different = {one: paused for one, paused in wanted.items() if paused != self._told[one]}
        self._told.update(different)
        return FlowChange(
            pause=[one for one, paused in different.items() if paused],
            resume=[one for one, paused in different.items() if not paused],
        )


_NOTHING = FlowChange((), ())
