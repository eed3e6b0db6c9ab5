"""Who asks for a key when several threads want it at once: one leads, the others wait for what it finds.

The wait is the caller's, on a future and with a time limit of its own; nothing blocks here. A caller that leads some
keys and waits for others ends its own first. Then no two can wait for each other, however their keys overlap.
Any thread; one lock, for a moment, never held while a future is ended.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """The keys that are being asked for, and what will be found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # protects the dict from two threads that lead or end at once
        # None as long as nobody waits: making a future costs more than most of what else a read does.
        self._flights: dict[K, Future[V] | None] = {}

    def __len__(self) -> int:
        """How many keys are being asked for."""
        return len(self._flights)

    def lead(self, keys: Iterable[K]) -> tuple[list[K], dict[K, Future[V]]]:
        """The keys that the caller must ask for, each once, and what others are asking for already.

        Each of the former must come to `resolve` or to `fail`, once, whatever happens: so in a `finally`.
        """
        led: list[K] = []
        awaited: dict[K, Future[V]] = {}
        with self._lock:
            for key in dict.fromkeys(keys):  # twice in one call, the second would be waited for by the first
                if key not in self._flights:
                    self._flights[key] = None
                    led.append(key)
                    continue
                future = self._flights[key]
                if future is None:
                    future = self._flights[key] = Future()
                awaited[key] = future
        return led, awaited

    def resolve(self, key: K, value: V) -> None:
        """Give `value` to all who wait for `key`, and let the next caller lead again."""
        future = self._taken(key)
        if future is not None:
            future.set_result(value)

    def fail(self, keys: Iterable[K], error: BaseException) -> None:
        """Raise `error` in all who wait for one of `keys`.

        What ends a thread or the process is the leader's alone: the others get a RuntimeError with it as the cause.
        """
        if isinstance(error, Exception):
            theirs = error
        else:
            theirs = RuntimeError("the load that was waited for was broken off")
            theirs.__cause__ = error
        for key in keys:
            future = self._taken(key)
            if future is not None:
                future.set_exception(theirs)

    def _taken(self, key: K) -> Future[V] | None:
        with self._lock:
            return self._flights.pop(key, None)
