"""Whose turn it is: partitions take turns, and in each of them its lanes; a lane that waits for its time has a timer.

So each lane that may have something to do is looked at within one round, and a partition with many such lanes does not
hold up one with few. Pure; loop thread only.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamworker.scheduling.lane import Lane, PartitionLanes


class Turns:
    """The lanes that may have something to do now, in their order, and those that will at a time that is known."""

    def __init__(self) -> None:
        self._partitions: deque[PartitionLanes] = deque()  # those that have a lane in turn
        self._timers: list[tuple[float, int, Lane]] = []  # a heap; the number keeps lanes from being compared
        self._number = 0

    def __bool__(self) -> bool:
        return bool(self._partitions)

    def __iter__(self) -> Iterator[Lane]:
        return (lane for of in self._partitions for lane in of.turns)

    def enqueue(self, lane: Lane) -> None:
        """`lane` takes its turn, after those that wait for theirs."""
        if not lane.queued:
            lane.queued = True
            of = lane.of
            if not of.turns:
                self._partitions.append(of)
            of.turns.append(lane)

    def next(self) -> Lane | None:
        """The lane whose turn it is, which has none any more; None when no lane has one."""
        if not self._partitions:
            return None
        of = self._partitions.popleft()
        lane = of.turns.popleft()
        lane.queued = False
        if of.turns:
            self._partitions.append(of)
        return lane

    def wake_at(self, lane: Lane, due_s: float) -> None:
        """`lane` takes its turn at `due_s`, monotonic time."""
        if lane.timer_s != due_s:
            lane.timer_s = due_s
            self._number += 1
            heapq.heappush(self._timers, (due_s, self._number, lane))

    def wake_due(self, now_s: float) -> None:
        """Lanes whose time has come take their turns."""
        while self._timers and self._timers[0][0] <= now_s:
            lane = heapq.heappop(self._timers)[2]
            lane.timer_s = None
            self.enqueue(lane)

    def next_due_s(self) -> float | None:
        """Monotonic time at which the next lane is woken; None without."""
        return self._timers[0][0] if self._timers else None

    def drop(self, lanes: PartitionLanes) -> None:
        """Forget the lanes of a partition."""
        self._partitions = deque(of for of in self._partitions if of is not lanes)
        self._timers = [timer for timer in self._timers if timer[2].of is not lanes]
        heapq.heapify(self._timers)
