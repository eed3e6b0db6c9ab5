"""How much of what may be called at once is in progress, on the mean of a while. Pure; the loop thread owns each.

The loop looks once a step, when slices were handed over, so a record costs nothing.
"""

from __future__ import annotations

from collections import deque

# Scrapes are 15 to 60 s apart, and there may be several scrapers: so it is a time of its own and not "since the last".
_WINDOW_S = 30.0
_MARK_EACH_S = 1.0


class Occupancy:
    """Of one handler; `now_s` is monotonic."""

    __slots__ = ("_busy_s", "_looked_s", "_marks", "_out", "_possible", "_possible_s")

    def __init__(self, now_s: float) -> None:
        self._looked_s = now_s
        self._busy_s = self._possible_s = 0.0  # seconds of calls since the beginning: made, and possible
        self._out = 0
        self._possible = 1
        self._marks: deque[tuple[float, float, float]] = deque([(now_s, 0.0, 0.0)])

    def look(self, now_s: float, out: int, possible: int) -> None:
        """Until now it was as at the last look; from now on `out` slices are out of so many as may be `possible`."""
        passed_s = now_s - self._looked_s
        self._looked_s = now_s
        self._busy_s += self._out * passed_s
        self._possible_s += self._possible * passed_s
        if now_s - self._marks[-1][0] >= _MARK_EACH_S:
            self._mark(now_s)
        self._out, self._possible = out, possible

    def ratio(self) -> float:
        """The share that was out, from 0 to 1."""
        _, busy_s, possible_s = self._marks[0]
        possible_s = self._possible_s - possible_s
        # A handler that adapts may have fewer calls than are still out.
        return min(1.0, (self._busy_s - busy_s) / possible_s) if possible_s > 0 else 0.0

    def _mark(self, now_s: float) -> None:
        marks = self._marks
        marks.append((now_s, self._busy_s, self._possible_s))
        while marks[1][0] <= now_s - _WINDOW_S:
            marks.popleft()
