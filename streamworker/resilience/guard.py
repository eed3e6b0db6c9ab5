"""A breaker around single calls of a handler, and whom a failed call is blamed on.

A handler that needs something for some of its records only asks its context for it and makes the calls inside the
guard. Each call needs leave and is counted. What comes out of one and is the dependency's is marked, so that whoever
settles the record knows what it waits for, also where the handler raises something else because of it.
"""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from streamworker.errors import BulkheadFull, CircuitOpen, Misuse
from streamworker.resilience.verdict import causes, links

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from streamworker.clock import Clock
    from streamworker.declaration import Declaration
    from streamworker.interfaces import Dependency
    from streamworker.resilience.breaker import CircuitBreaker, Permit

P = ParamSpec("P")
T = TypeVar("T")

_MARK = "_streamworker_blame"


@dataclass(frozen=True, slots=True)
class Blame:
    """The dependency that a record could not be handled for: its call failed, or was not made (`refused`).

    `trial`: it was the one call that is made to see whether the dependency is back. `full`: it was refused because
    there were enough calls, and says nothing of the dependency.
    """

    dependency: str
    refused: bool = False
    trial: bool = False
    full: bool = False


def blame(error: BaseException, *, amid: bool = True) -> Blame | None:
    """Whom `error` is blamed on: it, or what it was raised from (or `amid`), came out of a guard; None without."""
    for link in links(error) if amid else causes(error):
        if isinstance(link, CircuitOpen):
            return Blame(link.name, refused=True)
        if isinstance(link, BulkheadFull):
            return Blame(link.name, refused=True, full=True)
        mark = getattr(link, _MARK, None)
        if isinstance(mark, Blame):
            return mark
    return None


@dataclass(slots=True)
class _Block:
    """The outermost block of a guard that a thread or a task is in: the leave that it has."""

    permit: Permit
    began_s: float
    failed: bool = False  # a call inside, though it may have been made up for
    ended: bool = False  # a task that was begun inside may outlive it


class Guard:
    """A `Dependency` whose calls go through a breaker. Any thread; one that must not block does not wait for a seat."""

    def __init__(self, breaker: CircuitBreaker, clock: Clock, *, waits: bool = True) -> None:
        self.name = breaker.rules.name
        self._waits = waits
        self._breaker = breaker
        self._seats = breaker.seats
        self._monotonic_s = clock.monotonic_s
        # Of a thread or a task; what a task begins inside a block is inside it, too, and does not end it.
        self._block: ContextVar[_Block] = ContextVar("block")
        self._depth: ContextVar[int] = ContextVar("depth", default=0)

    def __enter__(self) -> None:
        depth = self._depth.get()
        if depth and self._block.get().ended:
            depth = 0
        if not depth:
            permit = self._breaker.acquire()
            if permit is None:
                raise CircuitOpen(self.name, self._breaker.opens_for_s)
            if self._seats is not None and not self._seats.take(waits=self._waits):
                permit.end()
                raise BulkheadFull(self.name)
            self._block.set(_Block(permit, self._monotonic_s()))
        self._depth.set(depth + 1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        block, depth = self._block.get(), self._depth.get() - 1
        if error is not None and self._is_to_blame(error):
            block.failed = True
            error.__dict__[_MARK] = Blame(self.name, trial=block.permit.trial)
        self._depth.set(depth)
        if not depth:
            block.ended = True
            if self._seats is not None:
                self._seats.leave()
            block.permit.end(
                succeeded=int(error is None and not block.failed),
                failed=int(block.failed),
                seconds=self._monotonic_s() - block.began_s,
            )

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` inside the guard; Misuse if it has to be awaited, which would happen outside."""
        with self:
            return _made(function(*args, **kwargs))

    def _is_to_blame(self, error: BaseException) -> bool:
        """Whether the breaker counts `error`, and no other guard inside this one has."""
        for link in causes(error):
            mark = getattr(link, _MARK, None)
            if isinstance(link, CircuitOpen | BulkheadFull):
                return False
            if isinstance(mark, Blame) and mark.dependency != self.name:
                return False
        return self._breaker.counts(error)


class Granted:
    """The `Dependency` of a handler whose own breaker it is: each of its calls has leave already, and is counted."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        """Nothing is left to ask."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Whoever handed the record over tells the breaker."""

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function`; Misuse if it has to be awaited, as of a `Guard`."""
        return _made(function(*args, **kwargs))


def _made(result: T) -> T:
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise Misuse("call() does not await: put `with dependency:` around the await, or make the lookup async def")
    return result


def guards_of(
    declaration: Declaration, breakers: Mapping[str, CircuitBreaker], clock: Clock
) -> Mapping[str, Dependency]:
    """What the handler's context hands out, by name."""
    guards: dict[str, Dependency] = {
        one.name: Guard(breakers[one.name], clock, waits=not declaration.is_async) for one in declaration.dependencies
    }
    if declaration.breaker is not None:
        guards[declaration.breaker.name] = Granted(declaration.breaker.name)
    return guards
