"""A cache of two levels in front of a slow truth: the memory of this process, then Redis, then the loader.

Redis is no source of truth here. Whatever it does, a call gives what the loader would have given, at most as old as the
time to live says, and it costs at most its time of waiting. Three things keep old values out:

    guard    taken before anything is read; the first level refuses what was read before an invalidation
    lease    leave to fill the second level, which a write takes away
    epoch    part of every key; a new one makes all of the second level unreachable

In a process one thread asks for a key and the others wait for it (a *flight*). That comes before the lease: else those
who have leases would wait behind those who wait for them. A flight is known by its guard, too, so nobody who comes
after an invalidation is given what was asked for before. Any thread; no lock is held while anything is waited for.
"""

from __future__ import annotations

import asyncio
import enum
import math
import random
import threading
import uuid
from collections import Counter
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from streamworker.bounds import at_least
from streamworker.cache.envelope import MAX_BYTES, MAX_VERSION, Envelope, Envelopes
from streamworker.cache.local import LocalCache
from streamworker.cache.second_level import SecondLevel
from streamworker.cache.single_flight import SingleFlight
from streamworker.cache.store import Budget, Message
from streamworker.errors import ConfigurationError
from streamworker.observability.catalogue import SECONDS_BUCKETS
from streamworker.observability.series import Distribution

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
    from concurrent.futures import Executor, Future

    from streamworker.cache.local import Guard, LocalCacheStats
    from streamworker.cache.store import Gate, Store
    from streamworker.clock import Clock

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")
C = TypeVar("C")

_POLL_S = (0.005, 0.02)  # between two looks for what another process loads; at random, so that they spread
_SOFT = 0.8  # share of its time in the first level after which a value is refreshed
_JITTER = 0.1  # of the time to live, up or down, so that what came together does not go together
_MOST_COSTS = 37  # -log of the least that 1 minus a draw can be: no need to draw before
_MOST_REFRESHES = 1000  # at once; what is beyond is asked for when it has expired


class OnWrite(enum.Enum):
    """What a write to the truth does to the second level."""

    REPLACE = "replace"  # put the new value where an older one is; where none is, none is put
    INVALIDATE = "invalidate"  # delete what is there
    SET = "set"  # put the new value in any case; costs a round trip before the write to the truth, for a claim


class Scope(enum.Enum):
    """Who writes a key."""

    SHARED = "shared"  # any process
    PARTITION = "partition"  # only the owner of the partition that its records come from


def text_of(key: object) -> str:
    """A key as text: text itself, a whole number, or bytes. Raises ConfigurationError for any other type.

    Text that is not UTF-8 is a ValueError.
    """
    if isinstance(key, str):
        if not key.isascii():
            key.encode()
        return key
    if isinstance(key, bytes):
        # NUL is what no ASCII key of somebody's begins with; where one does, it is written as the others.
        return key.decode("ascii") if key.isascii() and not key.startswith(b"\0") else f"\0{key.hex()}"
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    raise ConfigurationError(
        f"cache: expected a key of type str, int or bytes, got {type(key).__name__}; give key=… a function to text"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions(Generic[K, V]):
    """What is declared of one cache."""

    name: str
    # One call for all keys that are missing; what it leaves out does not exist. From any thread, from several at once.
    load_many: Callable[[Sequence[K]], Mapping[K, V]]
    type_: type[V]  # of the values, which msgspec writes and reads; they are shared, so they must not be changed
    key: Callable[[K], str] = text_of
    version: Callable[[V], int] | None = None  # of a loaded value; None: a write deletes it, where it could replace it
    ttl_s: float = 300.0  # in Redis, from the loading on, and so over both levels; give or take a tenth
    l1_ttl_s: float = 30.0  # in this process
    negative_ttl_s: float = 5.0  # of keys that do not exist
    on_write: OnWrite = OnWrite.REPLACE
    scope: Scope = Scope.SHARED
    lease_s: float = 3.0  # twice what a slow load takes; a load that takes longer is not kept
    schema: int | None = None  # another number than before makes all that is in Redis a miss; None: made of type_
    max_entries: int = 100_000  # in this process
    max_bytes: int = MAX_BYTES  # of a value in Redis; a larger one stays in this process

    def __post_init__(self) -> None:
        for name in ("ttl_s", "l1_ttl_s", "negative_ttl_s", "lease_s"):
            at_least(f"cache {self.name}: {name}", getattr(self, name), 0.001)


@dataclass(frozen=True, slots=True)
class WriteGuard:
    """What is taken before a write to the truth, and given to `TwoLevelCache.written` after it."""

    guards: Mapping[str, Guard]
    token: str | None = None  # of the claim


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """Counts of one cache since the process began, and what is in its first level."""

    name: str
    local: LocalCacheStats
    requests: Mapping[tuple[str, str], int]  # keys by level (l1, l2, loader) and result
    leases: Mapping[str, int]  # granted, refused, lost, or full
    invalidations: Mapping[str, int]  # sent or received
    flushes: Mapping[str, int]  # of the first level, by reason
    failed: Mapping[str, int]  # calls of Redis by operation
    not_asked: int  # calls of Redis that were not made
    dirty_keys: int
    linked: bool
    loads: Distribution = field(repr=False)  # seconds


class TwoLevelCache(Generic[K, V]):
    """The cache called `options.name`. Without a `store` it has its first level only.

    No method raises for what happens to Redis; what the loader raises comes through, and is not remembered.
    """

    def __init__(
        self,
        options: CacheOptions[K, V],
        *,
        clock: Clock,
        executor: Executor,  # for refreshes and for `aget`
        pause: Callable[[float], object],  # seconds, while another process loads
        store: Callable[[str, Callable[[], None]], Store] | None = None,  # of its origin, and what a new epoch calls
        gate: Gate | None = None,  # with a store
        timeout_s: float = 0.05,  # for all that one call asks of the store
        lease_wait_s: float = 0.1,
        flight_s: float = 10.0,  # for what another thread loads; after that a thread loads by itself
        degraded_ttl_s: float = 1.0,  # in the first level, while invalidations may be missed
        max_dirty: int = 100_000,
        partition: Callable[[], Hashable] = lambda: None,  # that the thread handles a record of
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.options = options
        self._clock = clock
        self._executor = executor
        self._pause = pause
        self._timeout_s = timeout_s
        self._lease_wait_s = lease_wait_s
        self._flight_s = flight_s
        self._degraded_ttl_s = degraded_ttl_s
        self._partition = partition if options.scope is Scope.PARTITION else lambda: None
        self._draw = draw
        self._text = options.key
        self._envelopes = Envelopes(options.type_, schema=options.schema, max_bytes=options.max_bytes)
        self._due: set[str] = set()  # in the first level, and to be refreshed
        self._refreshing: set[str] = set()
        self._local: LocalCache[str, V | None] = LocalCache(
            max_entries=options.max_entries,
            ttl_s=options.l1_ttl_s,
            refresh_after_s=options.l1_ttl_s * _SOFT,
            refresh=self._due.add,
            clock=clock,
        )
        self._flights: SingleFlight[tuple[Guard, str], tuple[V, ...]] = SingleFlight()
        self._token = uuid.uuid4().hex
        self._lock = threading.Lock()  # protects the counts below
        self._tokens = 0
        self._requests: Counter[tuple[str, str]] = Counter()
        self._leases: Counter[str] = Counter()
        self._invalidations: Counter[str] = Counter()
        self._flushes: Counter[str] = Counter()
        self._loads = Distribution(SECONDS_BUCKETS)
        self._linked = store is None or options.scope is Scope.PARTITION
        self._second: SecondLevel | None = None
        if store is not None:
            assert gate is not None
            self._second = SecondLevel(store(self._token, self._epoch_changed), gate, max_dirty=max_dirty, clock=clock)

    # What handlers call.

    def get(self, key: K) -> V | None:
        """The value of `key`; None if there is no such thing."""
        text = self._text(key)
        value = self._local.get(text)
        if value is not None:
            if self._due:
                self._refresh_what_is_due({text: key})
            return value
        if self._local.entry(text) is not None:
            return None  # known not to exist
        return self._read({text: key}, self._partition()).get(text)

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """The values of those `keys` that exist; one round trip for all that Redis has, one load for the others."""
        found, missing = self._near(keys)
        if missing:
            read = self._read(missing, self._partition())
            found.update((key, read[text]) for text, key in missing.items() if text in read)
        return found

    async def aget(self, key: K) -> V | None:
        """As `get`; what is not in this process is waited for on a thread, and the loader is called there."""
        return (await self.aget_many((key,))).get(key)

    async def aget_many(self, keys: Iterable[K]) -> dict[K, V]:
        """As `get_many`, likewise."""
        found, missing = self._near(keys)
        if missing:
            loop = asyncio.get_running_loop()
            read = await loop.run_in_executor(self._executor, self._read, missing, self._partition())
            found.update((key, read[text]) for text, key in missing.items() if text in read)
        return found

    def guard_for(self, keys: Iterable[K]) -> WriteGuard:
        """To be taken before a write of `keys` to the truth: without it `written` keeps nothing in this process."""
        texts = [self._text(key) for key in keys]
        token = None
        if self._second is not None and self.options.on_write is OnWrite.SET:
            token = self._new_token()
            self._second.claim(texts, token, self.options.lease_s, Budget(self._timeout_s))
        return WriteGuard({text: self._local.guard(text) for text in texts}, token)

    def written(self, entries: Mapping[K, tuple[V, int | None]], guard: WriteGuard | None = None) -> None:
        """These values are durable in the truth, each with the version that the truth gave it, or None.

        To be called after the write and before its records count as done, also when a record comes once more that was
        written before: then with None. A version grows with each write of a key.
        """
        values: dict[str, bytes] = {}
        known: dict[str, tuple[V, int]] = {}
        unknown: list[str] = []
        ttl_s = self._jittered(self.options.ttl_s)
        for key, (value, version) in entries.items():
            text = self._text(key)
            data = None if version is None else self._data_of_a_write(value, version, ttl_s, guard)
            if version is None or data is None:
                unknown.append(text)
            else:
                values[text] = data
                known[text] = (value, version)
        accepted: Collection[str] = ()
        if self._second is not None:
            budget = Budget(self._timeout_s)
            versions = {text: version for text, (_, version) in known.items()}
            token = None if guard is None else guard.token
            accepted = self._second.write(values, ttl_s, versions, budget, token)
            self._second.invalidate(unknown, budget)
        for text in unknown:
            self._local.invalidate(text)
        for text, (value, version) in known.items():
            self._write_near(text, value, version, None if text not in accepted or guard is None else guard)
        self._count(self._invalidations, "sent", len(entries))

    def invalidate(self, keys: Iterable[K]) -> None:
        """What any level has of `keys` is out of date."""
        texts = [self._text(key) for key in keys]
        if self._second is not None:
            self._second.invalidate(texts, Budget(self._timeout_s))
        for text in texts:
            self._local.invalidate(text)
        self._count(self._invalidations, "sent", len(texts))

    def flush(self) -> None:
        """What any level has is out of date."""
        if self._second is not None:
            self._second.forget(Budget(self._timeout_s))
        self._flush("asked")

    def stats(self) -> CacheStats:
        """The counts up to now."""
        second = self._second
        with self._lock:
            requests = dict(self._requests)
            leases, invalidations, flushes = dict(self._leases), dict(self._invalidations), dict(self._flushes)
        local = self._local.stats()
        requests["l1", "hit"], requests["l1", "miss"] = local.hits, local.misses
        return CacheStats(
            name=self.options.name,
            local=local,
            requests=requests,
            leases=leases,
            invalidations=invalidations,
            flushes=flushes,
            failed={} if second is None else dict(second.failed),
            not_asked=0 if second is None else second.not_asked,
            dirty_keys=self.dirty_keys,
            linked=self._linked,
            loads=self._loads,
        )

    # What the engine calls.

    @property
    def dirty_keys(self) -> int:
        """How many keys Redis may have out of date, because it was away when they were written."""
        return 0 if self._second is None else self._second.dirty_keys

    def distrust(self) -> None:
        """Nobody knows what Redis has: somebody wrote to the truth and could not tell it. Never blocks."""
        if self._second is not None:
            self._second.distrust()
        self._flush("distrusted")

    def drop(self, partition: Hashable) -> None:
        """The partition has another owner now, who writes its keys."""
        if self.options.scope is Scope.PARTITION:
            self._local.drop(partition)

    def mend(self) -> None:
        """Tell Redis what it missed while it was away. From a thread that nobody waits for."""
        if self._second is not None:
            self._second.mend()

    def server_changed(self) -> None:
        """Redis was started anew, or another server has taken over: its last writes may be lost. As `mend`."""
        if self._second is not None:
            self._second.renew()
        self._flush("server")

    def linked(self) -> None:
        """From now on each invalidation is heard; what came before may have been missed."""
        self._flush("linked")
        self._linked = True

    def verified(self) -> None:
        """Redis is the one that it was, or has been renewed."""
        if self._second is not None:
            self._second.doubted = False

    def unlinked(self) -> None:
        """From now on invalidations may be missed, and Redis may become another one."""
        if self._second is not None:
            self._second.doubted = True
        if self._linked and self.options.scope is Scope.SHARED:
            # First: what is put in from now on does not stay for long.
            self._linked = False
            self._flush("unlinked")

    def heard(self, payload: bytes) -> None:
        """Another process has said something on the channel of the cache."""
        try:
            message = msgspec.msgpack.decode(payload, type=Message)
        except msgspec.MsgspecError:
            self._flush("unreadable")  # whatever it says, that is safe
            return
        if message.origin == self._token:
            return
        if message.changed is None:
            self._flush("epoch")
            return
        for text, version in message.changed:
            self._local.invalidate(text, version or None)
        self._count(self._invalidations, "received", len(message.changed))

    def _near(self, keys: Iterable[K]) -> tuple[dict[K, V], dict[str, K]]:
        """What this process has, and by text what it knows nothing of."""
        found: dict[K, V] = {}
        missing: dict[str, K] = {}
        near: dict[str, K] = {}
        for key in keys:
            text = self._text(key)
            value = self._local.get(text)
            if value is not None:
                found[key] = value
                near[text] = key
            elif self._local.entry(text) is None:
                missing[text] = key
        if self._due:
            self._refresh_what_is_due(near)
        return found, missing

    def _read(self, wanted: Mapping[str, K], tag: Hashable) -> dict[str, V]:
        """What exists of `wanted`, from wherever it is."""
        found: dict[str, V] = {}
        # The guards come before anything is read.
        flights = {(self._local.guard(text), text): None for text in wanted}
        led, awaited = self._flights.lead(flights)
        self._lead(led, wanted, tag, found)
        # After: so no two threads can wait for each other.
        self._await(awaited, wanted, found)
        return found

    def _lead(
        self, led: Sequence[tuple[Guard, str]], wanted: Mapping[str, K], tag: Hashable, found: dict[str, V]
    ) -> None:
        left = dict.fromkeys(led)
        try:
            # Whoever led before may have ended between the look into the first level and the election.
            missing = {text: guard for guard, text in led if not self._came_meanwhile(text, found)}
            if missing:
                self._fetch(missing, wanted, tag, found)
            for flight in led:
                self._flights.resolve(flight, (found[flight[1]],) if flight[1] in found else ())
                del left[flight]
        except BaseException as error:
            self._flights.fail(left, error)
            raise

    def _came_meanwhile(self, text: str, found: dict[str, V]) -> bool:
        entry = self._local.entry(text)
        if entry is None:
            return False
        if entry.value is not None:
            found[text] = entry.value
        return True

    def _await(
        self,
        awaited: Mapping[tuple[Guard, str], Future[tuple[V, ...]]],
        wanted: Mapping[str, K],
        found: dict[str, V],
    ) -> None:
        if not awaited:
            return
        done = wait(awaited.values(), timeout=self._flight_s).done
        for (_, text), future in awaited.items():
            if future in done:
                found.update((text, value) for value in future.result())
        late = [text for (_, text), future in awaited.items() if future not in done]
        if late:
            found.update(self._load(late, wanted)[0])

    def _fetch(self, guards: Mapping[str, Guard], wanted: Mapping[str, K], tag: Hashable, found: dict[str, V]) -> None:
        """Read what Redis has of the keys in `guards`, and load the rest."""
        second = self._second
        if second is None:
            loaded, _ = self._load(guards, wanted)
            found.update(loaded)
            for text, guard in guards.items():
                self._keep(text, loaded.get(text), self._version(loaded.get(text)), guard, tag)
            return
        budget = Budget(self._timeout_s)
        left = dict(guards)
        values = second.read(guards, budget)
        if values is None:
            self._count(self._requests, ("l2", "error"), len(left))
            self._fetch_without(left, wanted, tag, found)
            return
        unreadable = self._take(values, left, wanted, tag, found)
        self._count(self._requests, ("l2", "miss"), len(left) - len(unreadable))
        if not left:
            return
        token = self._new_token()
        leases = second.lease(left, unreadable, token, self.options.lease_s, budget)
        if leases is None:
            self._fetch_without(left, wanted, tag, found)
            return
        # What cannot be read now either is loaded and kept nowhere: somebody else is at it.
        self._take(leases.found, left, wanted, tag, found)
        granted = {text: left.pop(text) for text in leases.granted}
        refused = {text: left.pop(text) for text in leases.refused}
        for result, some in (("granted", granted), ("refused", refused), ("full", left)):
            self._count(self._leases, result, len(some))
        if granted:
            self._fill(granted, wanted, tag, found, token, budget)
        if left:
            self._fetch_without(left, wanted, tag, found)
        if refused:
            self._wait_for(refused, wanted, tag, found)

    def _take(
        self,
        values: Mapping[str, bytes],
        left: dict[str, Guard],
        wanted: Mapping[str, K],
        tag: Hashable,
        found: dict[str, V],
    ) -> Collection[str]:
        """Move what can be used of `values` from `left` to `found`; returns what cannot be read."""
        unreadable: list[str] = []
        now_ms = self._clock.wall_ms()
        negatives = 0
        for text, data in values.items():
            envelope = self._envelopes.decode(data)
            ttl_s = 0.0 if envelope is None else (envelope.expires_ms - now_ms) / 1000
            if envelope is None or ttl_s <= 0:
                unreadable.append(text)
                continue
            value, version = envelope.value, envelope.version
            self._keep(text, value, version, left.pop(text), tag, at_most_s=ttl_s)
            if value is None:
                negatives += 1
                continue
            found[text] = value
            # The dearer it is and the nearer its end, the likelier: so one of many asks for it before it is missed.
            cost_s = envelope.cost_ms / 1000
            if ttl_s <= cost_s * _MOST_COSTS and ttl_s <= -cost_s * math.log(1 - self._draw()):
                self._refresh_soon(text, wanted[text], tag)
        self._count(self._requests, ("l2", "hit"), len(values) - len(unreadable) - negatives)
        self._count(self._requests, ("l2", "negative"), negatives)
        self._count(self._requests, ("l2", "unreadable"), len(unreadable))
        return unreadable

    def _fill(
        self,
        granted: Mapping[str, Guard],
        wanted: Mapping[str, K],
        tag: Hashable,
        found: dict[str, V],
        token: str,
        budget: Budget,
    ) -> None:
        """Load what this process has leases for, and fill both levels."""
        second = self._second
        assert second is not None
        try:
            loaded, cost_ms = self._load(granted, wanted)
        except BaseException:
            second.release(granted, token, budget)
            raise
        found.update(loaded)
        there: dict[str, bytes] = {}
        not_there: dict[str, bytes] = {}
        too_large: list[str] = []
        ttl_s = self._jittered(self.options.ttl_s)
        negative_ttl_s = min(self._jittered(self.options.negative_ttl_s), ttl_s)
        for text in granted:
            value = loaded.get(text)
            version = self._version(value)
            data = self._data(value, version, negative_ttl_s if value is None else ttl_s, cost_ms)
            if data is None:
                too_large.append(text)
            else:
                (not_there if value is None else there)[text] = data
        accepted = second.fill(there, ttl_s, token, budget) | second.fill(not_there, negative_ttl_s, token, budget)
        self._count(self._leases, "lost", len(granted) - len(accepted) - len(too_large))
        if too_large:
            second.release(too_large, token, budget)
        for text, guard in granted.items():
            value = loaded.get(text)
            if text in accepted:
                self._keep(text, value, self._version(value), guard, tag)
            elif text in too_large:
                self._keep(text, value, self._version(value), guard, tag, at_most_s=self._degraded_ttl_s)

    def _fetch_without(
        self, guards: Mapping[str, Guard], wanted: Mapping[str, K], tag: Hashable, found: dict[str, V]
    ) -> None:
        """Load without the second level; the first keeps it for a moment, since nobody tells us of changes for sure."""
        loaded, _ = self._load(guards, wanted)
        found.update(loaded)
        for text, guard in guards.items():
            value = loaded.get(text)
            self._keep(text, value, self._version(value), guard, tag, at_most_s=self._degraded_ttl_s)

    def _wait_for(self, refused: dict[str, Guard], wanted: Mapping[str, K], tag: Hashable, found: dict[str, V]) -> None:
        """Another process loads these: ask again and again, and at last load them and keep them nowhere."""
        second = self._second
        assert second is not None
        end_s = self._clock.monotonic_s() + self._lease_wait_s
        token = self._new_token()
        while refused:
            low_s, high_s = _POLL_S
            self._pause(low_s + (high_s - low_s) * self._draw())
            left_s = end_s - self._clock.monotonic_s()
            if left_s <= 0:
                break
            budget = Budget(min(left_s, self._timeout_s))
            leases = second.lease(refused, (), token, self.options.lease_s, budget)
            if leases is None:
                break
            unreadable = self._take(leases.found, refused, wanted, tag, found)
            # Whoever had it gave it up, or a write took it away.
            granted = {text: refused.pop(text) for text in leases.granted}
            self._count(self._leases, "granted", len(granted))
            if granted:
                self._fill(granted, wanted, tag, found, token, Budget(self._timeout_s))
            if unreadable:
                break  # nobody will make it readable
        if refused:
            found.update(self._load(refused, wanted)[0])

    def _load(self, texts: Collection[str], wanted: Mapping[str, K]) -> tuple[dict[str, V], int]:
        """What the loader gives for these, and the milliseconds that it took."""
        began_s = self._clock.monotonic_s()
        try:
            loaded = self.options.load_many([wanted[text] for text in texts])
        except BaseException:
            self._count(self._requests, ("loader", "error"), len(texts))
            raise
        seconds = self._clock.monotonic_s() - began_s
        found: dict[str, V] = {}
        for text in texts:
            value = loaded.get(wanted[text])
            if value is not None:
                found[text] = value
        with self._lock:
            self._loads.observe(seconds)
        self._count(self._requests, ("loader", "hit"), len(found))
        self._count(self._requests, ("loader", "negative"), len(texts) - len(found))
        return found, int(seconds * 1000)

    def _keep(
        self,
        text: str,
        value: V | None,
        version: int,
        guard: Guard,
        tag: Hashable,
        *,
        at_most_s: float = math.inf,
    ) -> bool:
        """Put it into the first level."""
        options = self.options
        ttl_s = min(options.l1_ttl_s if value is not None else options.negative_ttl_s, at_most_s)
        if not self._linked:
            ttl_s = min(ttl_s, self._degraded_ttl_s)
        if ttl_s <= 0:
            return False
        return self._local.put(
            text, value, ttl_s=ttl_s, version=version, guard=guard, scope=tag, negative=value is None
        )

    def _write_near(self, text: str, value: V, version: int, guard: WriteGuard | None) -> None:
        """Put an own write into the first level, unless anything was heard of the key since the guard was taken."""
        # This breaks the guards of all who have read the value before, our own among them.
        self._local.invalidate(text, version)
        taken = None if guard is None else guard.guards.get(text)
        if taken is not None:
            self._keep(text, value, version, taken._replace(generation=taken.generation + 1), self._partition())

    def _data_of_a_write(self, value: V, version: int, ttl_s: float, guard: WriteGuard | None) -> bytes | None:
        on_write = self.options.on_write
        if self._second is None or on_write is OnWrite.INVALIDATE:
            return None
        if on_write is OnWrite.SET and (guard is None or guard.token is None):
            return None
        return self._data(value, version, ttl_s, 0) if 0 < version <= MAX_VERSION else None

    def _data(self, value: V | None, version: int, ttl_s: float, cost_ms: int) -> bytes | None:
        expires_ms = self._clock.wall_ms() + int(ttl_s * 1000)
        return self._envelopes.encode(Envelope(value, version, value is None, expires_ms, cost_ms))

    def _version(self, value: V | None) -> int:
        if value is None or self.options.version is None:
            return 0
        version = self.options.version(value)
        return version if 0 < version <= MAX_VERSION else 0

    def _refresh_what_is_due(self, near: Mapping[str, K]) -> None:
        for text, key in near.items():
            if text in self._due:
                self._due.discard(text)
                self._refresh_soon(text, key, self._partition())

    def _refresh_soon(self, text: str, key: K, tag: Hashable) -> None:
        if text in self._refreshing or len(self._refreshing) >= _MOST_REFRESHES:
            return
        self._refreshing.add(text)
        try:
            self._executor.submit(self._refresh, text, key, tag)
        except RuntimeError:  # it is closed
            self._refreshing.discard(text)

    def _refresh(self, text: str, key: K, tag: Hashable) -> None:
        """Load a value anew while the old one is given out; under a lease, so at most one process does."""
        found: dict[str, V] = {}
        guards = {text: self._local.guard(text)}
        try:
            if self._second is None:
                self._fetch(guards, {text: key}, tag, found)
                return
            budget = Budget(self._timeout_s)
            token = self._new_token()
            leases = self._second.lease([text], [text], token, self.options.lease_s, budget)
            if leases is not None and leases.granted:
                self._fill(guards, {text: key}, tag, found, token, budget)
        except Exception:  # noqa: BLE001, S110 - the loader's, and counted; who needs the value will meet it
            pass
        finally:
            self._refreshing.discard(text)

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 + _JITTER * (2 * self._draw() - 1))

    def _new_token(self) -> str:
        with self._lock:
            self._tokens += 1
            return f"{self._token}{self._tokens}"

    def _epoch_changed(self) -> None:
        self._flush("epoch")

    def _flush(self, reason: str) -> None:
        self._local.flush()
        self._count(self._flushes, reason, 1)

    def _count(self, counts: Counter[C], what: C, by: int) -> None:
        if by:
            with self._lock:
                counts[what] += by
