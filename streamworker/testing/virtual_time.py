"""Time that moves only when everybody waits.

A whole worker runs on it in one thread: what would block moves the clock to the next thing that
happens. Hours of retries pass in milliseconds, and the same seed gives the same run.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class VirtualTime:
    """A `Clock` with an agenda. Starts at monotonic 1000 s, 2026-01-01T00:00:00Z."""

    def __init__(self) -> None:
        self.wall_ahead_s = 0.0  # a wall clock that somebody has set
        self._now_s = 1000.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._entries = 0

    def monotonic_s(self) -> float:
        """Seconds that only go forward."""
        return self._now_s

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return 1_767_225_600_000 + int((self._now_s - 1000.0 + self.wall_ahead_s) * 1000)

    def call_at(self, at_s: float, happen: Callable[[], None]) -> None:
        """Let something happen at `at_s`, or now if that has passed."""
        self._entries += 1
        heapq.heappush(self._agenda, (max(at_s, self._now_s), self._entries, happen))

    def call_in(self, seconds: float, happen: Callable[[], None]) -> None:
        """Let something happen after `seconds`."""
        self.call_at(self._now_s + seconds, happen)

    def wait(self, timeout_s: float, until: Callable[[], bool]) -> bool:
        """Let time pass until `until()` holds; false after `timeout_s`."""
        deadline_s = self._now_s + timeout_s
        self._run_due()
        while not until():
            if not self._agenda or self._agenda[0][0] > deadline_s:
                self._now_s = deadline_s
                return False
            self._now_s = self._agenda[0][0]
            self._run_due()
        return True

    def _run_due(self) -> None:
        while self._agenda and self._agenda[0][0] <= self._now_s:
            heapq.heappop(self._agenda)[2]()
