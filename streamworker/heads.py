"""The lowest open record of each partition, which holds its commits back: how old it is, and what follows.

Once a second each partition is looked at; records cost nothing. A head that is too old is reported once, and
dead-lettered if that is asked for. It grows old only by time in which its partition could have gone on: while that is
stopped or paused, or what its handler needs is away, the record is not to blame. Backpressure is no such reason,
because the head itself brings it about. Loop thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.config import OldHead
from streamworker.observability.status import HeadStatus
from streamworker.options import OnExhausted
from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker.declaration import Declaration
    from streamworker.partition import Partition
    from streamworker.partitions import Partitions
    from streamworker.record import Message
    from streamworker.stages import Stages
    from streamworker.work import Ownership

_LOOK_EVERY_S = 1.0
# What keeps a partition from being fetched and its head from nothing.
_NO_EXCUSES = frozenset({PauseReason.BACKPRESSURE, PauseReason.RETRY_NOT_DUE})


@dataclass(slots=True)
class _Head:
    offset: int
    since_s: float
    blamed_from_s: float
    reported: bool = False


class Heads:
    """Looks at the heads; `divert` dead-letters a record that no handler has."""

    def __init__(
        self,
        stages: Stages,
        partitions: Partitions,
        *,
        divert: Callable[[Partition, Message, float, int], None],
    ) -> None:
        config = stages.config.lifecycle
        self._stages = stages
        self._partitions = partitions
        self._max_age_s = config.max_head_age_s
        self._diverts = config.old_head is OldHead.DIVERT
        self._monotonic_s = stages.clock.monotonic_s
        self._listener = stages.listener
        self._running = stages.running
        self._divert = divert
        self._heads: dict[Ownership, _Head] = {}
        self._next_look_s = stages.clock.monotonic_s()

    def of(self, partition: Partition) -> HeadStatus | None:
        """The head of a partition, as it is now; None if nothing of it is open, or was at the last look."""
        head = self._heads.get(partition.ownership)
        if head is None or partition.tracker.committable != head.offset:
            return None
        return self._status(partition, head, self._monotonic_s())

    def look(self) -> None:
        """Look at all heads, if it is time."""
        now_s = self._monotonic_s()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + _LOOK_EVERY_S
        before, self._heads = self._heads, {}
        for partition in self._partitions:
            offset = partition.tracker.committable
            if offset == partition.tracker.next_offset:
                continue
            head = before.get(partition.ownership)
            if head is None or head.offset != offset:
                head = _Head(offset, now_s, now_s)
            self._heads[partition.ownership] = head
            if self._stands_still(partition):
                head.blamed_from_s = now_s
            elif self._max_age_s is not None and now_s - head.blamed_from_s > self._max_age_s:
                self._act(partition, head, now_s)

    def _act(self, partition: Partition, head: _Head, now_s: float) -> None:
        status = self._status(partition, head, now_s)
        if not head.reported:
            head.reported = True
            self._listener.head_too_old(
                partition.key, status.offset, status.age_s, status.attempts, status.records_behind
            )
        if self._diverts and _may_divert(partition.handler.declared):
            message = partition.handler.scheduler.withdraw(partition.key, head.offset)
            if message is not None:
                self._divert(partition, message, status.age_s, status.attempts)

    def _stands_still(self, partition: Partition) -> bool:
        reasons = self._stages.ledger.reasons(partition.key).keys() - _NO_EXCUSES
        return bool(reasons) or partition.ownership.closing

    def _status(self, partition: Partition, head: _Head, now_s: float) -> HeadStatus:
        return HeadStatus(
            offset=head.offset,
            age_s=now_s - head.since_s,
            attempts=self._calls_spent(partition, head.offset),
            records_behind=partition.tracker.done_beyond,
        )

    def _calls_spent(self, partition: Partition, offset: int) -> int:
        spent = partition.handler.scheduler.calls_spent(partition.key, offset)
        if spent is not None:
            return spent
        in_hand = [
            slice_.attempt - 1
            for slice_ in self._running
            if slice_.ownership is partition.ownership
            and slice_.messages[0].offset() <= offset <= slice_.messages[-1].offset()
        ]
        return max(in_hand, default=0)


def _may_divert(declared: Declaration) -> bool:
    """Whether the handler gives records up at all: with `block` a person decides."""
    letter = declared.dead_letter
    return letter is not None and OnExhausted(letter.on_exhausted) is not OnExhausted.BLOCK
