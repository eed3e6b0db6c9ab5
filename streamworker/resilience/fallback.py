"""Reads that may do without what they ask: what stands in for an answer, and what was said of it at run time.

A read degrades when its call is refused, or fails by an error that the breaker counts; any other error is the
handler's business. The breaker learns of the failure all the same, so an outage is found by reads that degrade, and so
is its end. What stood in for an answer never becomes one that is given later.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from streamworker.bounds import member
from streamworker.errors import ConfigurationError, Defer, nearest
from streamworker.interfaces import Reading, ReadStatus, Unset
from streamworker.options import Fallback
from streamworker.resilience.guard import blame

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.declaration import Declaration
    from streamworker.interfaces import Dependency, Operation
    from streamworker.options import Read

K = TypeVar("K")
V = TypeVar("V")


class Degradable:
    """The `Operation` of one handler: its good answers, and what is in force. Any thread; one lock, for a moment."""

    def __init__(self, rules: Read, dependency: Dependency, clock: Clock) -> None:
        self.rules = rules
        self.in_force = cast("tuple[Fallback, ...]", rules.fallbacks)  # replaced as a whole, by the loop thread
        self._dependency = dependency
        self._monotonic_s = clock.monotonic_s
        self._keeps = Fallback.CACHED in rules.fallbacks
        self._lock = threading.Lock()  # protects the two below from the threads of the pool
        self._answers: dict[object, tuple[float, object]] = {}  # when it was given, and what; the oldest first
        self._counted: Counter[Fallback] = Counter()

    def reader(self, lookup: Callable[[K], V], default: V | Callable[[K], V] | Unset) -> DegradingReader[K, V]:
        """A reader that asks `lookup`."""
        self._refuse_without(default)
        return DegradingReader(self, self._dependency, lookup, default)

    def async_reader(
        self, lookup: Callable[[K], Awaitable[V]], default: V | Callable[[K], V] | Unset
    ) -> AsyncDegradingReader[K, V]:
        """A reader that awaits `lookup`."""
        self._refuse_without(default)
        return AsyncDegradingReader(self, self._dependency, lookup, default)

    def _refuse_without(self, default: object) -> None:
        if default is Unset.UNSET and Fallback.DEFAULT in self.rules.fallbacks:
            name = self.rules.name
            raise ConfigurationError(f"Read({name!r}) falls back to a default: context.read({name!r}, …, default=…)")

    def answered(self, key: object, value: object) -> None:
        """Keep a good answer in place of the one before."""
        if not self._keeps:
            return
        with self._lock:
            self._answers.pop(key, None)
            self._answers[key] = (self._monotonic_s(), value)
            if len(self._answers) > self.rules.max_entries:
                del self._answers[next(iter(self._answers))]

    def cached(self, key: object) -> tuple[float, object] | None:
        """When the last good answer was given, and what it was, if that is young enough."""
        with self._lock:
            found = self._answers.get(key)
        too_old_s = self._monotonic_s() - self.rules.max_stale_s
        return None if found is None or found[0] < too_old_s else found

    def count(self, fallback: Fallback) -> None:
        """Something stood in for an answer."""
        with self._lock:
            self._counted[fallback] += 1

    def counted(self) -> Iterable[tuple[Fallback, int]]:
        """How often what stood in since the last call, for one reader."""
        if not self._counted:
            return ()
        with self._lock:
            counted, self._counted = self._counted, Counter()
        return counted.items()


L = TypeVar("L")


class _Degrading(Generic[K, V, L]):
    """What a lookup of kind `L` is asked for, and what stands in for its answer."""

    def __init__(
        self,
        operation: Degradable,
        dependency: Dependency,
        lookup: L,
        default: V | Callable[[K], V] | Unset,
    ) -> None:
        self._operation = operation
        self._dependency = dependency
        self._lookup = lookup
        self._default = default

    def _answered(self, key: K, value: V) -> Reading[V]:
        self._operation.answered(key, value)
        return Reading(value, self._operation.rules.name)

    def _instead(self, key: K, error: Exception) -> Reading[V]:
        """What stands in where the lookup raised `error`; raises it if nothing does, or it is not the dependency's."""
        blamed = blame(error, amid=False)
        if blamed is None or blamed.dependency != self._dependency.name:
            raise error
        for fallback in self._operation.in_force:
            if fallback is Fallback.FAIL_FAST:
                break
            if fallback is Fallback.DEFER:
                self._operation.count(fallback)
                # Not from what the lookup raised: a rule for that would decide, or the record wait for the dependency.
                raise Defer(f"{self._operation.rules.name}: {self._dependency.name} is away") from None
            found = self._stand_in(fallback, key)
            if found is not None:
                self._operation.count(fallback)
                return found
        raise error

    def _stand_in(self, fallback: Fallback, key: K) -> Reading[V] | None:
        name = self._operation.rules.name
        if fallback is Fallback.SKIP:
            return Reading(None, name, fallback)
        if fallback is Fallback.DEFAULT:
            default = self._default
            return Reading(cast("V", default(key) if callable(default) else default), name, fallback)
        found = self._operation.cached(key)
        return None if found is None else Reading(cast("V", found[1]), name, fallback)


class DegradingReader(_Degrading[K, V, "Callable[[K], V]"]):
    """The `Reader` of one handler instance."""

    def __call__(self, key: K, /) -> Reading[V]:
        """Ask, or find what stands in."""
        try:
            value = self._dependency.call(self._lookup, key)
        except Exception as error:  # noqa: BLE001 - of the lookup; what its breaker does not count is raised again
            return self._instead(key, error)
        return self._answered(key, value)


class AsyncDegradingReader(_Degrading[K, V, "Callable[[K], Awaitable[V]]"]):
    """The `AsyncReader` of an async handler."""

    async def __call__(self, key: K, /) -> Reading[V]:
        """Ask, or find what stands in."""
        try:
            with self._dependency:
                value = await self._lookup(key)
        except Exception as error:  # noqa: BLE001 - of the lookup; what its breaker does not count is raised again
            return self._instead(key, error)
        return self._answered(key, value)


class Degradation:
    """All reads of a process that may degrade, and what is in force of them. Loop thread only."""

    def __init__(self, declarations: Sequence[Declaration], chosen: Mapping[str, str]) -> None:
        self._reads = {read.name: read for one in declarations for read in one.reads}
        self._in_force = self._checked(chosen)
        self._operations: list[Degradable] = []
        self._totals: Counter[tuple[str, str]] = Counter()

    def operations(
        self, declaration: Declaration, dependencies: Mapping[str, Dependency], clock: Clock
    ) -> Mapping[str, Operation]:
        """Those of one handler, by name; they are switched from here on."""
        made = [Degradable(read, dependencies[read.dependency], clock) for read in declaration.reads]
        self._operations += made
        self._apply()
        return {one.rules.name: one for one in made}

    def switch(self, chosen: Mapping[str, str]) -> None:
        """Put in force what the configuration says; raises ConfigurationError and changes nothing if it is wrong."""
        self._in_force = self._checked(chosen)
        self._apply()

    def counted(self) -> Sequence[tuple[str, str, int]]:
        """Operation, fallback and how often it stood in since the last call."""
        if not self._operations:
            return ()
        found = [
            (one.rules.name, fallback.value, reads) for one in self._operations for fallback, reads in one.counted()
        ]
        for operation, fallback, reads in found:
            self._totals[operation, fallback] += reads
        return found

    def status(self) -> tuple[ReadStatus, ...]:
        """What is in force and what stood in so far, by operation."""
        return tuple(
            ReadStatus(
                operation=name,
                in_force=tuple(one.value for one in self._in_force[name]),
                degraded={
                    fallback: reads for (operation, fallback), reads in self._totals.items() if operation == name
                },
            )
            for name in self._reads
        )

    def _apply(self) -> None:
        for one in self._operations:
            one.in_force = self._in_force[one.rules.name]

    def _checked(self, chosen: Mapping[str, str]) -> Mapping[str, tuple[Fallback, ...]]:
        for name in chosen:
            if name not in self._reads:
                known = nearest(name, self._reads) if self._reads else "no handler declares any"
                raise ConfigurationError(f"degradation.{name}: no handler has such a read; {known}")
        return {name: _in_force(read, chosen.get(name)) for name, read in self._reads.items()}


def _in_force(read: Read, chosen: str | None) -> tuple[Fallback, ...]:
    declared = cast("tuple[Fallback, ...]", read.fallbacks)
    if chosen is None:
        return declared
    fallback = member(f"degradation.{read.name}", Fallback, chosen)
    if fallback not in (*declared, Fallback.FAIL_FAST):
        names = ", ".join(one.value for one in dict.fromkeys((*declared, Fallback.FAIL_FAST)))
        raise ConfigurationError(f"degradation.{read.name}: the handler allows {names}; got {chosen!r}")
    return (fallback,)
