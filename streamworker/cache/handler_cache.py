"""A cache as a handler has it: what a record puts in or drops takes place once the record has its effect.

Until then only the record itself, and those after it in its slice, see what it put. If its call fails, or its row is
refused, nothing of it ever happened. Outside of a call there is nothing to wait for. The thread, or the event loop, of
the instance that has asked for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, cast

from streamworker.errors import Misuse
from streamworker.tally import GONE

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from streamworker.cache.two_level import TwoLevelCache, WriteGuard
    from streamworker.tally import Tally
    from streamworker.work import InHand

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class HandlerCache(Generic[K, V]):
    """A `Cache` over one that all handlers of the process share; what is `Behind` it are the writes of the engine."""

    def __init__(self, cache: TwoLevelCache[K, V], in_hand: InHand) -> None:
        self._cache = cache
        self._in_hand = in_hand

    def get(self, key: K) -> V | None:
        """As of `Cache`."""
        tally = self._tally()
        intended = None if tally is None else tally.intended(self, key)
        if intended is not None and intended.value is not GONE:
            return cast("V", intended.value)
        return self._cache.get(key)

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """As of `Cache`."""
        found, others = self._intended(keys)
        return {**self._cache.get_many(others), **found}

    async def aget(self, key: K) -> V | None:
        """As of `Cache`."""
        return (await self.aget_many((key,))).get(key)

    async def aget_many(self, keys: Iterable[K]) -> dict[K, V]:
        """As of `Cache`."""
        found, others = self._intended(keys)
        return {**await self._cache.aget_many(others), **found}

    def put(self, key: K, value: V) -> None:
        """As of `Cache`."""
        tally = self._tally()
        if tally is None:
            self._cache.written({key: (value, None)}, self._cache.guard_for((key,)))
        else:
            tally.intend(self, key, value)

    def invalidate(self, *keys: K) -> None:
        """As of `Cache`."""
        tally = self._tally()
        if tally is None:
            self._cache.invalidate(keys)
            return
        for key in keys:
            tally.intend(self, key, GONE)

    def guards(self, keys: Sequence[object]) -> object:
        """As of `Behind`."""
        return self._cache.guard_for(cast("Sequence[K]", keys))

    def written(self, changes: Mapping[object, tuple[object, int | None]], guards: object) -> None:
        """As of `Behind`."""
        entries = cast("Mapping[K, tuple[V, int | None]]", changes)
        version_of = self._cache.options.version
        if version_of is not None:  # the sink's own is the better one: it counts what was written
            entries = {
                key: (value, version_of(value) if version is None else version)
                for key, (value, version) in entries.items()
            }
        self._cache.written(entries, cast("WriteGuard", guards))

    def gone(self, keys: Sequence[object]) -> None:
        """As of `Behind`."""
        self._cache.invalidate(cast("Sequence[K]", keys))

    def _tally(self) -> Tally | None:
        slice_ = self._in_hand.get()
        if slice_ is None:
            return None
        if slice_.tally is None:
            raise Misuse(f"cache {self._cache.options.name!r}: ask for it in open(), not in handle()")
        return slice_.tally

    def _intended(self, keys: Iterable[K]) -> tuple[dict[K, V], list[K]]:
        """What records of this slice have put in, and the keys that are left to ask for."""
        tally, found, others = self._tally(), dict[K, V](), list[K]()
        for key in keys:
            intended = None if tally is None or not tally.intents else tally.intended(self, key)
            if intended is None or intended.value is GONE:
                others.append(key)
            else:
                found[key] = cast("V", intended.value)
        return found, others
