"""Time as an argument.

Logic reads `monotonic_s` only; `wall_ms` is for what people and other systems read (dead-letter timestamps,
reports). Standard library only; any thread.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where the engine gets its time. Never blocks, never raises, callable from any thread."""

    def monotonic_s(self) -> float:
        """Seconds that only go forward; the zero is arbitrary."""

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch; may jump, so nothing is decided by it."""


class SystemClock:
    """The clock of the machine."""

    monotonic_s = staticmethod(time.monotonic)

    @staticmethod
    def wall_ms() -> int:
        """Milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000
