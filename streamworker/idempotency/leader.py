"""One worker of many does what only one may do.

    STANDING ── the lock is free ──► LEADING ── a third of its lease is left, it was refused, or `stop` ──► STANDING

The leader goes by its own monotonic clock: when Redis has not confirmed it for two thirds of the lease it steps
down, and what it has started has the last third to end, before somebody else can be elected. One thread.
"""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING

from streamworker.errors import LockUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker.idempotency.lock import Fence, Hold, Lock

_JOIN_S = 5.0
# Shares of the lease: what is left of it when a leader steps down, and how often others ask.
_GRACE = 1 / 3
_ASK_EVERY = 1 / 3
_log = logging.getLogger(__name__)


class Leader:
    """Runs a job in at most one of all processes that have a `Leader` with this lock.

    `on_elected` starts the job and returns; `on_deposed` ends it, and must return only when it has ended, within a
    third of the lease. Both are called by one thread, in turns. The job gives `hold.fence` to all that it writes to,
    and stops by itself when `hold.lost`. An error of `on_elected` is logged and gives the lock back.

    A call of the lock's client must take less than a sixth of the lease, or a late answer costs the job its grace.
    """

    def __init__(
        self,
        lock: Lock,
        on_elected: Callable[[Hold], None],
        on_deposed: Callable[[], None],
        *,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._lock = lock
        self._on_elected = on_elected
        self._on_deposed = on_deposed
        self._draw = draw
        self._hold: Hold | None = None
        self._stops = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"streamworker-leader-{lock.name}", daemon=True)

    @property
    def leading(self) -> bool:
        """Whether the job may run here now. Any thread."""
        hold = self._hold
        return hold is not None and not hold.lost

    def start(self) -> None:
        """Take part in the election."""
        self._thread.start()

    def stop(self, timeout_s: float = _JOIN_S) -> bool:
        """Step down, if need be, and take part no more; false if that was not through after `timeout_s`. Idempotent."""
        self._stops = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def step(self) -> float:
        """Stand for election, or see whether the lease is good; seconds until the next step. Its thread only."""
        hold = self._hold
        if hold is None:
            return self._stand()
        spare_s = hold.left_s - _GRACE * self._lock.lease_s
        if spare_s > 0:
            return spare_s
        self.step_down()
        return self._pause_s()

    def step_down(self) -> None:
        """End the job, then give the lock back; nothing if it does not lead. Its thread only."""
        hold = self._hold
        if hold is None:
            return
        _log.info("no longer the leader of %s", self._lock.name)
        try:
            self._on_deposed()
        except Exception:  # noqa: BLE001 - the user's; the lock must be given back for others
            _log.exception("the job of the leader of %s did not end well", self._lock.name)
        self._hold = None
        hold.release()

    def _stand(self) -> float:
        try:
            hold = self._lock.acquire(0, on_lost=self._lost)
        except LockUnavailable as error:
            _log.warning("nobody can be elected the leader of %s: %s", self._lock.name, error)
            return self._pause_s()
        if hold is None:
            return self._pause_s()
        _log.info("elected the leader of %s, number %d", self._lock.name, hold.fence.number)
        self._hold = hold
        try:
            self._on_elected(hold)
        except Exception:  # noqa: BLE001 - the user's: another process may have more luck with it
            _log.exception("the job of the leader of %s did not start", self._lock.name)
            self._hold = None
            hold.release()
            return self._lock.lease_s
        return 0.0

    def _pause_s(self) -> float:
        return _ASK_EVERY * self._lock.lease_s * (0.5 + 0.5 * self._draw())

    def _lost(self, _fence: Fence) -> None:
        self._wake.set()

    def _run(self) -> None:
        while not self._stops:
            wait_s = self.step()
            self._wake.wait(wait_s)
            self._wake.clear()
        self.step_down()
