"""The second level of caches without Redis: it answers at once, loses what it is told to, and runs in virtual time.

One `MemoryCacheServer` stands for one Redis; the caches of several processes may share it. One thread.
"""

from __future__ import annotations

import enum
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import msgspec

from streamworker.cache.caches import BREAKER
from streamworker.cache.store import Leases, Message, StoreFailed
from streamworker.cache.two_level import CacheOptions, TwoLevelCache
from streamworker.resilience.breaker import CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

    from streamworker.testing.virtual_time import VirtualTime

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")
P = ParamSpec("P")
R = TypeVar("R")

_PART = 500
_VERSION_BYTES = 8


class CacheFault(enum.Enum):
    """What goes wrong with one call."""

    REFUSED = "refused"  # an error, at once; nothing was done
    UNANSWERED = "unanswered"  # it was done, and the answer is lost
    HANGS = "hangs"  # nothing was done, and the caller waits for as long as it may


class MemoryCacheServer:
    """What several processes see of one Redis. `fault` is asked before each call, by the name of the operation."""

    def __init__(self, time: VirtualTime, fault: Callable[[str], CacheFault | None] = lambda _: None) -> None:
        self.time = time
        self.fault = fault
        self.calls: list[str] = []  # operations that reached it, the last one last
        self.values: dict[str, bytes] = {}
        self.epoch = 1
        self.full = False  # takes no new values
        self._ends_s: dict[str, float] = {}
        self._leases: dict[str, tuple[str, float]] = {}
        self._listeners: list[Callable[[bytes], None]] = []

    def cache(
        self, options: CacheOptions[K, V], executor: Executor | None = None, *, flight_s: float = 10.0
    ) -> TwoLevelCache[K, V]:
        """A cache of one process, with a breaker of its own, that hears what the others say at once.

        `flight_s` is how long it waits, in real time, for what another thread loads.
        """
        cache = TwoLevelCache(
            options,
            clock=self.time,
            executor=Later() if executor is None else executor,
            pause=lambda seconds: self.time.wait(seconds, lambda: False),
            store=lambda origin, new_epoch: MemoryStore(self, origin, new_epoch),
            gate=CircuitBreaker(BREAKER, clock=self.time, draw=lambda: 0.5),
            flight_s=flight_s,
            draw=lambda: 0.5,
        )
        self._listeners.append(cache.heard)
        cache.linked()
        return cache

    def evict(self, key: str) -> None:
        """Lose a value, as a server that is full does."""
        self.values.pop(key, None)

    def forget(self) -> None:
        """Lose everything, as `FLUSHALL` does."""
        self.values.clear()
        self._leases.clear()
        self.epoch += 1

    def value(self, key: str) -> bytes | None:
        """What is there and has not expired."""
        if key in self.values and self._ends_s[key] <= self.time.monotonic_s():
            del self.values[key]
        return self.values.get(key)

    def put(self, key: str, value: bytes, ttl_s: float) -> bool:
        """Put it there, unless the server is full."""
        if self.full:
            self.values.pop(key, None)
            return False
        self.values[key] = value
        self._ends_s[key] = self.time.monotonic_s() + ttl_s
        return True

    def lease(self, key: str, token: str, lease_s: float) -> bool | None:
        """Whether it is `token`'s now; None if the server is full."""
        if self.holder(key) is not None:
            return False
        if self.full:
            return None
        self.claim(key, token, lease_s)
        return True

    def claim(self, key: str, token: str, lease_s: float) -> None:
        """Give it to `token`, whoever has it."""
        self._leases[key] = (token, self.time.monotonic_s() + lease_s)

    def holder(self, key: str) -> str | None:
        """Whose lease it is."""
        token, end_s = self._leases.get(key, ("", 0.0))
        return token if end_s > self.time.monotonic_s() else None

    def end_lease(self, key: str) -> None:
        """It is nobody's."""
        self._leases.pop(key, None)

    def bump(self) -> None:
        """All that was there is under an epoch that nobody asks for any more."""
        self.forget()

    def publish(self, message: Message) -> None:
        """Tell all caches."""
        for listener in self._listeners:
            listener(msgspec.msgpack.encode(message))


class MemoryStore:
    """A `Store` on a `MemoryCacheServer`."""

    def __init__(self, server: MemoryCacheServer, origin: str, new_epoch: Callable[[], None]) -> None:
        self._server = server
        self._origin = origin
        self._new_epoch = new_epoch
        self._epoch = 0

    def parts(self, keys: Collection[str]) -> Sequence[Sequence[str]]:
        """As of `Store`."""
        wanted = list(keys)
        return [wanted[start : start + _PART] for start in range(0, len(wanted), _PART)]

    def read(self, keys: Sequence[str], timeout_s: float) -> Mapping[str, bytes]:
        """As of `Store`."""

        def answer() -> Mapping[str, bytes]:
            found = {key: self._server.value(key) for key in keys}
            return {key: value for key, value in found.items() if value is not None}

        return self._called("read", timeout_s, answer)

    def lease(
        self, keys: Sequence[str], anyway: Collection[str], token: str, lease_s: float, timeout_s: float
    ) -> Leases:
        """As of `Store`."""

        def answer() -> Leases:
            there = {key: self._server.value(key) for key in keys if key not in anyway}
            found = {key: value for key, value in there.items() if value is not None}
            asked = {key: self._server.lease(key, token, lease_s) for key in keys if key not in found}
            granted = [key for key, given in asked.items() if given]
            return Leases(found, granted, [key for key, given in asked.items() if given is False])

        return self._called("lease", timeout_s, answer)

    def fill(self, values: Mapping[str, bytes], ttl_s: float, token: str, timeout_s: float) -> Collection[str]:
        """As of `Store`."""

        def answer() -> Collection[str]:
            mine = [key for key in values if self._server.holder(key) == token]
            for key in mine:
                self._server.end_lease(key)
            return [key for key in mine if self._server.put(key, values[key], ttl_s)]

        return self._called("fill", timeout_s, answer)

    def release(self, keys: Sequence[str], token: str, timeout_s: float) -> None:
        """As of `Store`."""

        def answer() -> None:
            for key in keys:
                if self._server.holder(key) == token:
                    self._server.end_lease(key)

        self._called("release", timeout_s, answer)

    def write(
        self, values: Mapping[str, bytes], ttl_s: float, versions: Mapping[str, int], timeout_s: float
    ) -> Collection[str]:
        """As of `Store`."""

        def answer() -> Collection[str]:
            accepted = [key for key, value in values.items() if self._replaced(key, value, ttl_s)]
            self._tell(versions)
            return accepted

        return self._called("write", timeout_s, answer)

    def claim(self, keys: Sequence[str], token: str, lease_s: float, timeout_s: float) -> None:
        """As of `Store`."""

        def answer() -> None:
            for key in keys:
                self._server.claim(key, token, lease_s)

        self._called("claim", timeout_s, answer)

    def write_claimed(
        self, values: Mapping[str, bytes], ttl_s: float, token: str, versions: Mapping[str, int], timeout_s: float
    ) -> Collection[str]:
        """As of `Store`."""

        def answer() -> Collection[str]:
            accepted = []
            for key, value in values.items():
                mine = self._server.holder(key) == token
                self._server.end_lease(key)
                self._server.values.pop(key, None)
                if mine and self._server.put(key, value, ttl_s):
                    accepted.append(key)
            self._tell(versions)
            return accepted

        return self._called("write", timeout_s, answer)

    def invalidate(self, keys: Sequence[str], timeout_s: float) -> None:
        """As of `Store`."""

        def answer() -> None:
            for key in keys:
                self._server.end_lease(key)
                self._server.values.pop(key, None)
            self._tell(dict.fromkeys(keys, 0))

        self._called("invalidate", timeout_s, answer)

    def bump(self, timeout_s: float, *, unless_new: bool) -> None:
        """As of `Store`."""

        def answer() -> None:
            if not (unless_new and self._server.epoch != self._epoch):
                self._server.bump()
                self._server.publish(Message(self._origin, None))

        self._called("bump", timeout_s, answer)
        self._look_at_the_epoch()

    def _replaced(self, key: str, value: bytes, ttl_s: float) -> bool:
        self._server.end_lease(key)
        present = self._server.value(key)
        if present is None:
            return False
        version = int.from_bytes(present[:_VERSION_BYTES])
        if version and version >= int.from_bytes(value[:_VERSION_BYTES]):
            return False
        self._server.values.pop(key)
        return bool(version) and self._server.put(key, value, ttl_s)

    def _called(self, operation: str, timeout_s: float, answer: Callable[[], R]) -> R:
        server = self._server
        server.calls.append(operation)
        fault = server.fault(operation)
        if fault is CacheFault.HANGS:
            server.time.wait(timeout_s, lambda: False)
        if fault in (CacheFault.REFUSED, CacheFault.HANGS):
            raise StoreFailed(operation)
        if operation != "bump":
            self._look_at_the_epoch()
        found = answer()
        if fault is CacheFault.UNANSWERED:
            raise StoreFailed(operation)
        return found

    def _look_at_the_epoch(self) -> None:
        known, self._epoch = self._epoch, self._server.epoch
        if known not in (0, self._epoch):
            self._new_epoch()

    def _tell(self, versions: Mapping[str, int]) -> None:
        self._server.publish(Message(self._origin, list(versions.items())))


class Later(Executor):
    """An executor that keeps what it gets until `run`, which is on the caller's thread."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], object]] = []

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Keep the call."""
        future: Future[R] = Future()
        self._waiting.append(lambda: future.set_result(fn(*args, **kwargs)))
        return future

    def run(self) -> int:
        """Make all calls that are kept; how many they were."""
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()
        return len(waiting)
