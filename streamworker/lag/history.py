"""What is remembered of one partition of a group between looks, and what follows from it.

Brokers tell what is committed, not when. So a look counts as a commit if what it finds differs from what the look
before found. It also counts if nothing is left to commit, or if a member of the group has the partition: else a group
that is idle, or one that only commits progress, would seem to have stopped. Pure; bounded; one thread.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.lag.states import Commit, Window

if TYPE_CHECKING:
    from streamworker.interfaces import OffsetMark

_ENDS = 60  # times at which the end of the log is remembered; as many as kafka-lag-exporter's lookup table has
_STARTS = 16  # moves of its start; retention moves it a segment at a time


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look found of a partition. `owned` None: it is not known whether a member has it.

    `lag` counts from the committed offset, as Kafka's own tools do; None without one.
    """

    mark: OffsetMark | None
    start: int
    end: int
    lag: int | None
    owned: bool | None


class History:
    """Of one partition, as far as `looks` looks reach back."""

    def __init__(self, looks: int) -> None:
        self._wanted = looks
        self._looks = 0
        self._mark: OffsetMark | None = None
        self._commits: deque[Commit] = deque(maxlen=looks)
        self._ends: deque[int] = deque(maxlen=looks)
        self._written: deque[tuple[int, float]] = deque(maxlen=_ENDS)  # ends of the log, and when they were seen
        self._starts: deque[tuple[int, float]] = deque(maxlen=_STARTS)  # where it began, since when

    @property
    def window(self) -> Window:
        """What states are judged by."""
        return Window(list(self._commits), list(self._ends), min(self._looks / self._wanted, 1.0))

    def note(self, seen: Seen, now_s: float) -> None:
        """Remember a look at `now_s`, monotonic."""
        if self._ends and seen.end < self._ends[-1]:  # the topic was made anew, or cut: offsets mean others now
            self._forget()
        self._looks += 1
        self._ends.append(seen.end)
        if seen.mark is not None and (seen.mark != self._mark or seen.lag == 0 or seen.owned):
            self._commits.append(Commit(seen.mark.offset, now_s, seen.lag))
        self._mark = seen.mark
        self._note_end(seen.end, now_s)
        if not self._starts or self._starts[-1][0] != seen.start:
            self._starts.append((seen.start, now_s))

    def _forget(self) -> None:
        self._looks = 0
        self._mark = None
        for remembered in (self._commits, self._ends, self._written, self._starts):
            remembered.clear()

    def _note_end(self, end: int, now_s: float) -> None:
        """Of a log that stands still the first and the last time are enough."""
        flat = len(self._written) > 1 and self._written[-1][0] == self._written[-2][0] == end
        if flat:
            self._written.pop()
        self._written.append((end, now_s))

    def written_s(self, offset: int) -> float | None:
        """When the record at `offset` was written, by when the end of the log was seen to pass it; None: not seen."""
        before: tuple[int, float] | None = None
        for end, at_s in self._written:
            if end > offset:
                if before is None:
                    return None
                share = (offset - before[0]) / (end - before[0])
                return before[1] + share * (at_s - before[1])
            before = end, at_s
        return None

    def starts_per_s(self, now_s: float) -> float:
        """How fast the start of the log moves, in offsets per second; 0 until it was seen to move twice.

        Of the first move it is not known how long it took.
        """
        moves = list(self._starts)[1:]
        if len(moves) < 2:
            return 0.0
        (first, since_s), (last, _) = moves[0], moves[-1]
        return max(last - first, 0) / max(now_s - since_s, 1e-9)
