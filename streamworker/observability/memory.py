"""How much memory the process has, and when that is too much.

What is in hand is bounded by count and bytes; what the client makes of a compressed batch, and what a handler keeps, is
not. So the whole is looked at from outside. Decided here: when fetching stops, when it goes on, when the process should
end. The loop thread owns the watch. Standard library only.
"""

from __future__ import annotations

import enum
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_STATM = "/proc/self/statm"
# Fetching goes on below this share of the limit: at the limit itself it would stop again with the next fetch.
_CALM_SHARE = 0.9


class MemoryState(enum.Enum):
    """What follows from the memory of the process."""

    CALM = "calm"
    HIGH = "high"  # nothing more is fetched
    TOO_LONG = "too_long"  # it did not help: only a new process does


def resident_bytes() -> int | None:
    """Resident memory of this process now; None where the system does not tell.

    Only Linux tells by a file. What `resource` has everywhere is the most there ever was, and that never falls.
    """
    try:
        with open(_STATM, "rb") as statm:  # noqa: PTH123 - twice a second, and a Path costs more than the reading
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


class MemoryWatch:
    """Compares the resident memory with `limit_bytes`; above it for `patience_s` in a row is too long."""

    def __init__(self, *, limit_bytes: int, patience_s: float, read: Callable[[], int | None] = resident_bytes) -> None:
        self.limit_bytes = limit_bytes
        self.resident_bytes = 0  # at the last look
        self.high_since_s: float | None = None  # None while it is calm
        self._patience_s = patience_s
        self._read = read

    def look(self, now_s: float) -> MemoryState:
        """Look once; a reading that fails (no file descriptor is left) changes nothing."""
        found = self._read()
        if found is not None:
            self.resident_bytes = found
            if found > self.limit_bytes and self.high_since_s is None:
                self.high_since_s = now_s
            elif found <= self.limit_bytes * _CALM_SHARE:
                self.high_since_s = None
        if self.high_since_s is None:
            return MemoryState.CALM
        return MemoryState.HIGH if now_s - self.high_since_s <= self._patience_s else MemoryState.TOO_LONG

    def __str__(self) -> str:
        return f"memory: {self.resident_bytes} bytes of {self.limit_bytes}"
