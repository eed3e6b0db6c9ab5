"""A circuit breaker: whether calls that need a dependency are made now.

    CLOSED ── failures in a row, or a share of the window ──► OPEN ── its time is over ──► HALF_OPEN
      ▲                                                        ▲                              │
      │                                                        └── a failed or slow trial ────┤
      └──────────────────────────── `successes` trials in a row ──────────────────────────────┘

Every change begins a new *epoch*; a permit reports only into the epoch that gave it, so the late results of calls
that began before the dependency went away neither open nor close anything. One trial is out at a time. The clock
is monotonic. Thread-safe: one lock, taken last and never held across a call.

Own code, because none of the libraries seen opens on a share of failures, limits its trials and is thread-safe.
"""

from __future__ import annotations

import enum
import random
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.resilience.bulkhead import Seats
from streamworker.resilience.verdict import is_of_a_dependency

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker.clock import Clock
    from streamworker.options import Breaker

_BUCKETS = 10
# A trial that has not come back by then says that the dependency hangs.
_TRIAL_S = 30.0
_KEPT_CHANGES = 100


class BreakerState(enum.Enum):
    """Whether calls are made."""

    CLOSED = "closed"  # all
    OPEN = "open"  # none
    HALF_OPEN = "half_open"  # one at a time, to see


@dataclass(frozen=True, slots=True)
class BreakerChange:
    """`breaker` went from one state to another, and why."""

    breaker: str
    before: BreakerState
    after: BreakerState
    reason: str


class Permit:
    """Leave to make calls; whoever got it must call `end` once."""

    __slots__ = ("_breaker", "_epoch", "trial")

    def __init__(self, breaker: CircuitBreaker, epoch: int, *, trial: bool) -> None:
        self._breaker = breaker
        self._epoch = epoch
        self.trial = trial  # given while half open: at most a few records may be tried with it

    def end(self, succeeded: int = 0, failed: int = 0, seconds: float = 0.0) -> None:
        """Report calls that took `seconds` together, successes before failures; none of both says nothing."""
        self._breaker.ended(self._epoch, succeeded, failed, seconds)


class CircuitBreaker:
    """The state of one dependency in this process. Every method may be called from any thread."""

    def __init__(self, rules: Breaker, *, clock: Clock, draw: Callable[[], float] = random.random) -> None:
        self.rules = rules
        self._monotonic_s = clock.monotonic_s
        self._draw = draw
        self.seats = None if rules.bulkhead is None else Seats(rules.bulkhead)
        self._lock = threading.Lock()
        self._state = BreakerState.CLOSED
        self._epoch = 0
        self._window = _Window(rules.window_s)
        self._in_a_row = 0
        self._openings = 0  # since it was closed last
        self._until_s = 0.0  # open: until then; half open with a trial out: until then at the latest
        self._trial_out = False
        self._good_trials = 0
        self.trials_succeeded = self.closings = 0  # ever; to be read only
        self._changes: deque[BreakerChange] = deque(maxlen=_KEPT_CHANGES)

    @property
    def state(self) -> BreakerState:
        """The state now; time alone may have changed it."""
        with self._lock:
            self._turn()
            return self._state

    @property
    def wakes_at_s(self) -> float | None:
        """Monotonic time at which the state changes by itself; None while only calls change it."""
        with self._lock:
            self._turn()
            waits = self._state is BreakerState.OPEN or self._trial_out
            return self._until_s if waits else None

    @property
    def admits(self) -> bool:
        """Whether a call would be let through now."""
        with self._lock:
            self._turn()
            return self._state is BreakerState.CLOSED or (self._state is BreakerState.HALF_OPEN and not self._trial_out)

    @property
    def opens_for_s(self) -> float:
        """For how long no call is made, as far as time decides; 0 if it does not."""
        wakes_at_s = self.wakes_at_s
        return 0.0 if wakes_at_s is None else max(wakes_at_s - self._monotonic_s(), 0.0)

    def acquire(self) -> Permit | None:
        """Leave to make calls now; None without."""
        with self._lock:
            self._turn()
            if self._state is BreakerState.CLOSED:
                return Permit(self, self._epoch, trial=False)
            if self._state is BreakerState.OPEN or self._trial_out:
                return None
            self._trial_out = True
            self._until_s = self._monotonic_s() + _TRIAL_S
            return Permit(self, self._epoch, trial=True)

    def counts(self, error: BaseException) -> bool:
        """Whether `error` is the dependency's and not the record's; a predicate that raises says no."""
        return is_of_a_dependency(error, self.rules.counts)

    def trip(self, reason: str) -> None:
        """Open it if it is closed."""
        with self._lock:
            if self._state is BreakerState.CLOSED:
                self._open(reason)

    def ended(self, epoch: int, succeeded: int, failed: int, seconds: float) -> None:
        """Take what a permit of `epoch` reports."""
        with self._lock:
            if epoch != self._epoch:
                return
            slow = self._slow(succeeded + failed, seconds)
            if self._state is BreakerState.HALF_OPEN:
                self._trial_ended(succeeded, failed, slow=slow)
            else:
                self._count(succeeded, failed, slow=slow)

    def changes(self) -> Sequence[BreakerChange]:
        """What has changed since the last call, for one reader."""
        if self.state is BreakerState.CLOSED and not self._changes:
            return ()
        found: list[BreakerChange] = []
        while self._changes:
            found.append(self._changes.popleft())
        return found

    def _slow(self, calls: int, seconds: float) -> bool:
        limit_s = self.rules.slow_call_s
        return limit_s is not None and calls > 0 and seconds / calls >= limit_s

    def _trial_ended(self, succeeded: int, failed: int, *, slow: bool) -> None:
        self._trial_out = False
        if failed or slow:
            self._open("a trial failed" if failed else "a trial was slow")
        elif succeeded:
            self._good_trials += 1
            self.trials_succeeded += 1
            if self._good_trials >= self.rules.successes:
                self._openings = 0
                self._change(BreakerState.CLOSED, f"{self._good_trials} trials succeeded")

    def _count(self, succeeded: int, failed: int, *, slow: bool) -> None:
        rules, calls = self.rules, succeeded + failed
        if not calls:
            return
        self._in_a_row = failed + (0 if succeeded else self._in_a_row)
        total, all_failed, all_slow = self._window.add(self._monotonic_s(), calls, failed, calls if slow else 0)
        if rules.in_a_row is not None and self._in_a_row >= rules.in_a_row:
            self._open(f"{self._in_a_row} calls failed in a row")
        elif total < rules.min_calls:
            return
        elif rules.failure_rate is not None and all_failed >= rules.failure_rate * total:
            self._open(f"{all_failed} of {total} calls failed")
        elif all_slow and all_slow >= rules.slow_rate * total:
            self._open(f"{all_slow} of {total} calls were slow")

    def _turn(self) -> None:
        """Do what time alone does."""
        if self._state is BreakerState.OPEN and self._monotonic_s() >= self._until_s:
            self._change(BreakerState.HALF_OPEN, "its time was over")
        elif self._trial_out and self._monotonic_s() >= self._until_s:
            self._open("a trial did not come back")

    def _open(self, reason: str) -> None:
        rules = self.rules
        wait_s = min(rules.max_open_s, rules.open_s * 2.0 ** min(self._openings, 64))
        self._openings += 1
        self._until_s = self._monotonic_s() + wait_s * (1 + rules.jitter * (2 * self._draw() - 1))
        self._change(BreakerState.OPEN, reason)

    def _change(self, after: BreakerState, reason: str) -> None:
        self._changes.append(BreakerChange(self.rules.name, self._state, after, reason))
        self._state = after
        self._epoch += 1
        self.closings += after is BreakerState.CLOSED
        self._trial_out = False
        self._good_trials = self._in_a_row = 0
        self._window.clear()


class _Window:
    """Calls of the last so many seconds, in buckets of a tenth of them."""

    def __init__(self, seconds: float) -> None:
        self._bucket_s = seconds / _BUCKETS
        self._buckets: deque[list[int]] = deque()  # number, calls, failed, slow
        self._totals = [0, 0, 0]

    def add(self, now_s: float, *counts: int) -> Sequence[int]:
        """Add calls, failed and slow ones, and return the sums."""
        number = int(now_s // self._bucket_s)
        if not self._buckets or self._buckets[-1][0] != number:
            self._buckets.append([number, 0, 0, 0])
            while self._buckets[0][0] <= number - _BUCKETS:
                self._sum(self._buckets.popleft()[1:], -1)
        bucket = self._buckets[-1]
        for index, count in enumerate(counts, 1):
            bucket[index] += count
        self._sum(counts, 1)
        return self._totals

    def clear(self) -> None:
        """Forget all calls."""
        self._buckets.clear()
        self._totals = [0, 0, 0]

    def _sum(self, counts: Sequence[int], sign: int) -> None:
        self._totals = [total + sign * count for total, count in zip(self._totals, counts, strict=True)]
