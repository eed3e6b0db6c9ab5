"""Calls that run for longer than their handler's `timeout_s`: they have failed, and what they still bring is dropped.

No thread can be ended from outside. So the call's record, or its batch, is settled as failed, its slice is written off,
and the pool gets another thread; the old one ends when its call does, and its outcome counts for nothing. What is
settled is a *copy* of the slice, as the loop saw it: the thread may move the slice itself on at any moment. A handler
has at most as many calls written off at a time as it has threads; then its partitions wait until some return.

Loop thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.errors import HandlerTimeout
from streamworker.source.flow import PauseReason
from streamworker.work import Failure, SliceOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker.partitions import Partitions
    from streamworker.scheduling.lane import LaneSlice
    from streamworker.stages import HandlerStages, Stages

# How often it is looked, as a share of the shortest timeout, and at most: a call may run over by as much.
_LOOK_SHARE, _LOOK_EVERY_S = 0.05, 0.25


class Overdue:
    """Looks for overdue calls in what runs, and takes out what it settles.

    If no handler has a timeout it has nothing to look for (`idle`).
    """

    def __init__(
        self,
        stages: Stages,
        partitions: Partitions,
        *,
        replace: Callable[[LaneSlice], None],
        settle: Callable[[SliceOutcome[LaneSlice]], None],
    ) -> None:
        self._stages = stages
        self._partitions = partitions
        self._monotonic_s = stages.clock.monotonic_s
        self._listener = stages.listener
        self._running = stages.running
        self._replace = replace
        self._settle = settle
        timeouts_s = [one.declared.timeout_s for one in stages.handlers if one.declared.timeout_s is not None]
        self._look_every_s = min([_LOOK_EVERY_S, *(_LOOK_SHARE * timeout_s for timeout_s in timeouts_s)])
        self._next_look_s = stages.clock.monotonic_s()
        self.idle = not timeouts_s
        self.written_off: dict[LaneSlice, float] = {}  # calls in progress, and when each began

    def look(self) -> None:
        """Settle what is overdue, if it is time."""
        now_s = self._monotonic_s()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + self._look_every_s
        for slice_ in list(self._running):
            self._look_at(slice_, now_s)
        self._hold_the_full()

    def came_back(self, slice_: LaneSlice) -> bool:
        """Whether `slice_`, which has come back, was written off; then nothing more is to be done about it."""
        began_s = self.written_off.pop(slice_, None)
        if began_s is None:
            return False
        seconds = self._monotonic_s() - began_s
        self._listener.came_back_late(self._stages.of(slice_).name, slice_.ownership.partition, seconds)
        self._hold_the_full()
        return True

    def _look_at(self, slice_: LaneSlice, now_s: float) -> None:
        timeout_s, called = self._stages.of(slice_).declared.timeout_s, slice_.called
        if timeout_s is None or called is None or now_s - called[1] <= timeout_s or self._full(self._stages.of(slice_)):
            return
        slice_.given_up = True
        # Read after the flag was written: if the call is still the same, the thread starts none after it.
        if slice_.called is not called or slice_.done > called[0]:
            return
        self._write_off(slice_, called[0], now_s - called[1])

    def _write_off(self, slice_: LaneSlice, index: int, seconds: float) -> None:
        is_batch = self._stages.of(slice_).declared.batch is not None
        offset = slice_.messages[index].offset()
        # Where a sink is to be written to, what was called before may still be on its way there.
        seen = slice_.seen_at(min(index, slice_.done), batch=is_batch)
        gate = self._stages.of(slice_).gate
        if gate is not None:
            gate.goes_on_as(slice_, seen)
        self._running.discard(slice_)
        self.written_off[slice_] = self._monotonic_s() - seconds
        self._replace(slice_)
        self._listener.written_off(self._stages.of(slice_).name, slice_.ownership.partition, offset, seconds)
        error = HandlerTimeout(f"the call has run for {seconds:.1f} s, expected at most {self._timeout_of(slice_):g} s")
        self._settle(SliceOutcome(seen, seconds, Failure(None if is_batch else index, error)))

    def _hold_the_full(self) -> None:
        """Hand nothing more to handlers that have no thread left to be replaced."""
        for partition in self._partitions:
            self._partitions.hold_if(partition, PauseReason.WRITTEN_OFF, needed=self._full(partition.handler))

    def _full(self, handler: HandlerStages) -> bool:
        written_off = sum(slice_.handler_number == handler.number for slice_ in self.written_off)
        return written_off >= handler.declared.concurrency

    def _timeout_of(self, slice_: LaneSlice) -> float | None:
        return self._stages.of(slice_).declared.timeout_s
