"""What does not move although it could. Pure.

A partition is *still* while there is something to do in it, nothing keeps it from being done on
purpose (no pause, not stopped, no record that waits for its retry, no call running in it), and
neither what is fetched nor what is done of it moves. Idle time does not count: a partition that had
nothing to do for an hour is still only from the record that came since.

- `CLIENT`: still for `stall_timeout_s`, with nothing fetched: the client does not deliver.
- `LOOP`: still for `stall_timeout_s` with records fetched while no call runs at all, or the loop
  itself has not polled for so long.
- `HANDLER`: a call that has been running for `stall_timeout_s`; slow, but its own business.
- `HANDLER_TIMEOUT`: a call past the handler's time limit, where there is one.
- `EVENT_LOOP`: the event loop of an async handler that has not come round for a second: a call blocks it, and all
  others of the handler wait.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from streamworker.observability.status import LifeState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streamworker.observability.status import PartitionStatus, RunningSlice, WorkerStatus

# Far more than what decoding a batch takes; asyncio's own debug mode warns after a tenth of it.
_BLOCKED_S = 1.0


class StallKind(enum.Enum):
    """What stands still."""

    CLIENT = "client"
    HANDLER = "handler"
    HANDLER_TIMEOUT = "handler_timeout"
    LOOP = "loop"
    EVENT_LOOP = "event_loop"

    @property
    def degrades(self) -> bool:
        """Whether it only slows the worker down."""
        return self in (StallKind.HANDLER, StallKind.EVENT_LOOP)


@dataclass(frozen=True, slots=True)
class Stall:
    """One finding. `kind` and `subject` stay the same while it lasts, so that it is reported once."""

    kind: StallKind
    subject: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.subject}: no progress for {self.seconds:.0f} s"


@dataclass(frozen=True, slots=True)
class _Still:
    epoch: int
    position: int | None
    next_offset: int | None
    since_s: float


class Stillness:
    """Remembers since when partitions are still. Owned by the loop thread."""

    def __init__(self) -> None:
        self._still: dict[tuple[str, int], _Still] = {}

    def mark(
        self, partitions: Sequence[PartitionStatus], running: Sequence[RunningSlice], now_s: float
    ) -> tuple[PartitionStatus, ...]:
        """`partitions` with `still_since_s` filled in; those not named are forgotten."""
        in_hand = {(one.topic, one.partition) for one in running}
        waiting = {
            (one.topic, one.partition): self._look(one, now_s)
            for one in partitions
            if (one.topic, one.partition) not in in_hand and _could_move(one)
        }
        self._still = waiting
        return tuple(
            replace(one, still_since_s=waiting[one.topic, one.partition].since_s)
            if (one.topic, one.partition) in waiting
            else one
            for one in partitions
        )

    def _look(self, partition: PartitionStatus, now_s: float) -> _Still:
        seen = _Still(partition.epoch, partition.position, partition.next_offset, now_s)
        before = self._still.get((partition.topic, partition.partition))
        return before if before is not None and replace(before, since_s=now_s) == seen else seen


def _could_move(partition: PartitionStatus) -> bool:
    if partition.pauses or partition.stopped is not None or partition.held_records:
        return False
    if partition.awaits_commit or partition.throttled:
        return False
    return partition.buffered_records > 0 or _unfetched(partition) > 0


def _unfetched(partition: PartitionStatus) -> int:
    """Records in the log beyond `position`; 0 also while the end of the log is not known.

    Lag alone would be wrong: what lies between `next_offset` and `position` may be transaction markers
    that are never delivered.
    """
    if partition.lag_records is None or partition.next_offset is None:
        return 0
    position = partition.next_offset if partition.position is None else partition.position
    return partition.next_offset + partition.lag_records - position


def stalls(
    status: WorkerStatus, now_s: float, *, stall_timeout_s: float, handler_timeout_s: float | None
) -> tuple[Stall, ...]:
    """All that stands still in `status` at `now_s`; a worker that is not RUNNING only has calls."""
    found = [*_calls(status, stall_timeout_s, handler_timeout_s), *_event_loops(status)]
    if status.state is LifeState.RUNNING:
        found += _loop(status, now_s, stall_timeout_s)
        found += _partitions(status, now_s, stall_timeout_s)
    return tuple(found)


def _calls(status: WorkerStatus, stall_timeout_s: float, handler_timeout_s: float | None) -> Iterator[Stall]:
    for running in status.running:
        if handler_timeout_s is not None and running.seconds > handler_timeout_s:
            yield Stall(StallKind.HANDLER_TIMEOUT, str(running), running.seconds)
        elif running.seconds > stall_timeout_s:
            yield Stall(StallKind.HANDLER, str(running), running.seconds)


def _event_loops(status: WorkerStatus) -> Iterator[Stall]:
    for handler, seconds in status.event_loops.items():
        if seconds > _BLOCKED_S:
            yield Stall(StallKind.EVENT_LOOP, f"the event loop of {handler}", seconds)


def _loop(status: WorkerStatus, now_s: float, stall_timeout_s: float) -> Iterator[Stall]:
    seconds = now_s - (status.started_s if status.last_poll_s is None else status.last_poll_s)
    if seconds > stall_timeout_s:
        yield Stall(StallKind.LOOP, "the loop", seconds)


def _partitions(status: WorkerStatus, now_s: float, stall_timeout_s: float) -> Iterator[Stall]:
    for partition in status.partitions:
        if partition.still_since_s is None or now_s - partition.still_since_s <= stall_timeout_s:
            continue
        seconds = now_s - partition.still_since_s
        if not partition.buffered_records:
            yield Stall(StallKind.CLIENT, str(partition), seconds)
        elif not status.running:
            yield Stall(StallKind.LOOP, str(partition), seconds)
