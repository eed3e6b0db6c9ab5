"""The second level as the cache sees it: it answers in time or it is away, and it is never the reason for an error.

Decided here: whether it is asked at all (a breaker), for how long (a budget of the call's), and what becomes of writes
that it did not get. Their keys are *dirty*: what it has of them may be out of date. As long as there are any, nothing
is read from it, and the first thing that it hears when it is back is to forget them. There are only so many; with more
the whole cache gets a new epoch. Any thread.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from streamworker.cache.store import Budget, Leases, StoreFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from streamworker.cache.store import Gate, Store
    from streamworker.clock import Clock

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

# For what nobody waits for. Less would give up a server that is only slow.
_IN_THE_BACKGROUND_S = 1.0


class SecondLevel:
    """A `Store` behind a breaker. No method raises."""

    def __init__(self, store: Store, gate: Gate, *, max_dirty: int, clock: Clock) -> None:
        self._store = store
        self._gate = gate
        self._max_dirty = max_dirty
        self._monotonic_s = clock.monotonic_s
        self._lock = threading.Lock()  # protects the three below and the counts
        self._dirty: dict[str, int] = {}  # each with the number of the write
        self._writes = 0  # that it did not get
        self._distrusted = 0  # the number from which on all of it may be out of date; 0: it may be believed
        self.doubted = False  # whether it is the server that it was is not known: nothing is read from it
        self._mending = threading.Lock()  # keeps two threads from telling it the same dirty keys
        self.failed: Counter[str] = Counter()  # calls by operation; to be read only
        self.not_asked = 0  # calls while the breaker was open or the time was over; to be read only

    @property
    def dirty_keys(self) -> int:
        """How many keys it may have out of date; one more than may be stands for all."""
        return self._max_dirty + 1 if self._distrusted else len(self._dirty)

    def read(self, keys: Collection[str], budget: Budget) -> Mapping[str, bytes] | None:
        """What is there; None if not all could be asked."""
        if self.doubted:
            return None
        found: dict[str, bytes] = {}
        for part in self._store.parts(keys):
            answer = self._ask("read", budget, self._store.read, part)
            if answer is None:
                return None
            found.update(answer[0])
        return found

    def lease(
        self, keys: Collection[str], anyway: Collection[str], token: str, lease_s: float, budget: Budget
    ) -> Leases | None:
        """Ask for leave to fill; None if not all could be asked. Leases that were granted then end by themselves."""
        if self.doubted:
            return None
        found: dict[str, bytes] = {}
        granted: list[str] = []
        refused: list[str] = []
        for part in self._store.parts(keys):
            answer = self._ask("lease", budget, self._store.lease, part, anyway, token, lease_s)
            if answer is None:
                return None
            (leases,) = answer
            found.update(leases.found)
            granted += leases.granted
            refused += leases.refused
        return Leases(found, granted, refused)

    def fill(self, values: Mapping[str, bytes], ttl_s: float, token: str, budget: Budget) -> set[str]:
        """Set what is leased; returns what was set."""
        accepted: set[str] = set()
        for part in self._store.parts(values):
            some = {key: values[key] for key in part}
            answer = self._ask("fill", budget, self._store.fill, some, ttl_s, token)
            if answer is not None:
                accepted.update(answer[0])
        return accepted

    def release(self, keys: Collection[str], token: str, budget: Budget) -> None:
        """End leases; one that cannot be ended does so by itself."""
        for part in self._store.parts(keys):
            self._ask("release", budget, self._store.release, part, token)

    def claim(self, keys: Collection[str], token: str, lease_s: float, budget: Budget) -> None:
        """Take the leases before a write to the truth; what cannot be claimed is deleted by the write."""
        for part in self._store.parts(keys):
            self._ask("claim", budget, self._store.claim, part, token, lease_s)

    def write(
        self,
        values: Mapping[str, bytes],
        ttl_s: float,
        versions: Mapping[str, int],
        budget: Budget,
        token: str | None = None,
    ) -> set[str]:
        """Tell it of writes to the truth; with `token` those that were claimed. Returns what it has now of them."""
        accepted: set[str] = set()
        for part in self._store.parts(values):
            some = {key: values[key] for key in part}
            told = {key: versions[key] for key in part}
            if token is None:
                answer = self._ask("write", budget, self._store.write, some, ttl_s, told)
            else:
                answer = self._ask("write", budget, self._store.write_claimed, some, ttl_s, token, told)
            if answer is None:
                self._mark(part)
            else:
                accepted.update(answer[0])
        return accepted

    def invalidate(self, keys: Collection[str], budget: Budget) -> None:
        """Tell it that what it has of `keys` is out of date."""
        for part in self._store.parts(keys):
            if self._ask("invalidate", budget, self._store.invalidate, part) is None:
                self._mark(part)

    def forget(self, budget: Budget) -> None:
        """Let it have nothing of what it has."""
        self.distrust()
        self._believed(budget)

    def renew(self) -> None:
        """The server may have lost its last writes: a new epoch, unless another process has made one."""
        if self._once("bump", Budget(_IN_THE_BACKGROUND_S), self._bump_unless_new) is None:
            self.distrust()

    def mend(self) -> None:
        """Tell it of the dirty keys now, if there are any. From a thread that nobody waits for."""
        self._believed(Budget(_IN_THE_BACKGROUND_S))

    def _ask(self, operation: str, budget: Budget, call: Callable[[*Ts, float], R], *arguments: *Ts) -> tuple[R] | None:
        """What `call` returns; None if it was not made, or failed."""
        if self._believed(budget):
            return self._once(operation, budget, call, *arguments)
        with self._lock:
            self.not_asked += 1
        return None

    def _once(
        self, operation: str, budget: Budget, call: Callable[[*Ts, float], R], *arguments: *Ts
    ) -> tuple[R] | None:
        leave = self._gate.acquire() if budget.left_s > 0 else None
        if leave is None:
            with self._lock:
                self.not_asked += 1
            return None
        began_s = self._monotonic_s()
        failed = 1
        try:
            answer = call(*arguments, budget.left_s)
            failed = 0
        except StoreFailed:
            with self._lock:
                self.failed[operation] += 1
            return None
        finally:
            seconds = self._monotonic_s() - began_s
            budget.left_s -= seconds
            leave.end(succeeded=1 - failed, failed=failed, seconds=seconds)
        return (answer,)

    def _mark(self, keys: Collection[str]) -> None:
        with self._lock:
            self._writes += 1
            self._dirty.update(dict.fromkeys(keys, self._writes))
            overflown = len(self._dirty) > self._max_dirty
        if overflown:
            self.distrust()

    def distrust(self) -> None:
        """All that it has may be out of date: nothing is read from it before it has forgotten that. Never blocks."""
        with self._lock:
            self._writes += 1
            self._distrusted = self._writes
            self._dirty.clear()

    def _believed(self, budget: Budget) -> bool:
        """Whether all that it has may be believed. If not, and it is there, it is told what to forget."""
        if not self._dirty and not self._distrusted:
            return True
        if not self._mending.acquire(blocking=False):
            return False
        try:
            return (not self._distrusted or self._renewed(budget)) and self._mended(budget)
        finally:
            self._mending.release()

    def _renewed(self, budget: Budget) -> bool:
        distrusted = self._distrusted
        if self._once("bump", budget, self._bump) is None:
            return False
        with self._lock:
            if self._distrusted != distrusted:
                return False  # once more meanwhile
            self._distrusted = 0
        return True

    def _mended(self, budget: Budget) -> bool:
        with self._lock:
            left = dict(self._dirty)
        for part in self._store.parts(left):
            if self._once("invalidate", budget, self._store.invalidate, part) is None:
                return False
            with self._lock:
                for key in part:
                    if self._dirty.get(key) == left[key]:  # else it has become dirty once more meanwhile
                        del self._dirty[key]
        return not self._dirty and not self._distrusted

    def _bump(self, timeout_s: float) -> None:
        self._store.bump(timeout_s, unless_new=False)

    def _bump_unless_new(self, timeout_s: float) -> None:
        self._store.bump(timeout_s, unless_new=True)
