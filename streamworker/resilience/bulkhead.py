"""How many guarded calls of one dependency are in progress at once, over all handlers of the process. Any thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamworker.options import Bulkhead


class Seats:
    """A call takes a seat while it lasts, which is the purpose; the lock beside the seats is held for a moment only."""

    def __init__(self, rules: Bulkhead) -> None:
        self._seats = threading.BoundedSemaphore(rules.max_concurrent)
        self._max_wait_s = rules.max_wait_s
        self._refusals = 0
        self._reported = 0
        self._lock = threading.Lock()  # protects _refusals from two threads that are refused at once

    def take(self, *, waits: bool = True) -> bool:
        """Take a seat, waiting for one as long as the rules allow, if the caller `waits` at all; false without."""
        taken = self._seats.acquire(blocking=False)
        if not taken and waits and self._max_wait_s:
            taken = self._seats.acquire(timeout=self._max_wait_s)
        if not taken:
            with self._lock:
                self._refusals += 1
        return taken

    def leave(self) -> None:
        """Give a seat back."""
        self._seats.release()

    def refused(self) -> int:
        """How many calls were refused since the last question, for one reader."""
        refusals = self._refusals
        new, self._reported = refusals - self._reported, refusals
        return new
