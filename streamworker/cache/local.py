"""Values in the memory of this process: which stay, how long, and whether a late one may still come in.

What stays is decided by S3-FIFO: new entries pass a small queue, those that were read there go on to the main one, and
a list of ghosts remembers what left the small queue unread. A read moves nothing, so it needs no lock. Events come in
bursts, where a filter on frequency alone keeps less than LRU does; hence no TinyLFU.

Whether a value may come in is decided by *guards*. Whoever reads or writes the truth slowly takes one first. It breaks
when the key is invalidated or the cache is flushed meanwhile, and a put under a broken guard is refused: it may be
older than what the invalidation told of. Any thread; one lock, never held across the user's code.
"""

from __future__ import annotations

import enum
import sys
import threading
from collections import OrderedDict, deque
from concurrent.futures import wait
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from streamworker.cache.single_flight import SingleFlight
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
    from concurrent.futures import Future

    from streamworker.clock import Clock

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")

# The paper's small queue has a tenth and wants two reads. Bursts of one key are longer than that: measured on traces of
# them, a quarter and one read keep more, and lose nothing elsewhere that would show.
_SMALL_SHARE = 0.25
_MOST_HITS = 3  # the paper's: so many rounds through the main queue at most without another read
# Ghosts for each entry. The paper has three quarters, which costs 15 bytes more for each entry and keeps hardly more.
_GHOST_SHARE = 0.5
_GHOST_BITS = 2**30 - 1  # the largest int of one digit; two keys with one ghost do no harm
_FEW_SLOTS = 16  # of deleted entries: not worth a look
_WAIT_S = 10.0
_READS_NEED_LOCK = not getattr(sys, "_is_gil_enabled", lambda: True)()


class RemovalCause(enum.Enum):
    """Why an entry is there no more."""

    SIZE = "size"
    EXPIRED = "expired"
    EXPLICIT = "explicit"  # invalidated
    REPLACED = "replaced"
    FLUSHED = "flushed"
    SCOPE = "scope"  # its scope was dropped


class Guard(NamedTuple):
    """What a put must find unchanged since it was taken."""

    epoch: int  # of flushes
    generation: int  # of the invalidations of the key's stripe


class Entry(Generic[V]):
    """What is known of a key; to be read only.

    It is alive: a put may replace what it says while it is read, in the order value, version, expiry. Read expiry
    first and value last: then the value is never older than the version, nor than what the expiry was said of.
    """

    __slots__ = ("expires_s", "hits", "key", "negative", "queue", "refresh_s", "scope", "value", "version", "weight")

    def __init__(self, key: Hashable, value: V, *, negative: bool, scope: Hashable) -> None:
        self.key = key
        self.value = value
        self.version = 0
        self.expires_s = -inf  # monotonic; it is not given out from then on
        self.refresh_s = -inf  # monotonic; a refresh is due from then on; never after expires_s
        self.negative = negative  # it says that there is nothing
        self.scope = scope
        self.weight = 0
        self.hits = 0  # the cache's own, as the next
        self.queue: _Queue[V] | None = None  # None also once it is removed


class _Queue(Generic[V]):
    """Entries in the order of their arrival; the removed ones keep their slots until they are many."""

    __slots__ = ("count", "slots", "weight")

    def __init__(self) -> None:
        self.slots: deque[Entry[V]] = deque()
        self.count = 0  # without the removed
        self.weight = 0

    def append(self, entry: Entry[V]) -> None:
        entry.queue = self
        self.slots.append(entry)
        self.count += 1
        self.weight += entry.weight

    def oldest(self) -> Entry[V]:
        """Take the oldest out; there is one."""
        while (entry := self.slots.popleft()).queue is not self:
            pass
        self._leave(entry)
        return entry

    def remove(self, entry: Entry[V]) -> None:
        """Take `entry` out, wherever it is."""
        self._leave(entry)
        # Otherwise putting and deleting in turns would fill the memory.
        if len(self.slots) > self.count * 1.5 + _FEW_SLOTS:
            self.slots = deque(one for one in self.slots if one.queue is self)

    def _leave(self, entry: Entry[V]) -> None:
        entry.queue = None
        self.count -= 1
        self.weight -= entry.weight


@dataclass(frozen=True, slots=True)
class LocalCacheStats:
    """Counts since the cache was made, and what is in it."""

    hits: int
    misses: int
    puts: int  # that came in
    rejected_by_guard: int
    rejected_by_version: int
    removals: Mapping[RemovalCause, int]
    entries: int
    weight: int


class LocalCache(Generic[K, V]):
    """At most `max_entries` values, and not more than `max_weight` by what `weigher` says.

    A value is given out for `ttl_s` at most. From `refresh_after_s` on `refresh` is called with the key, on the thread
    that reads, once in so many seconds; it must neither block nor raise. Values are shared by all who read them, so
    they must not change. Of deleted entries up to half as many as there are live ones are in memory for a while.
    """

    def __init__(
        self,
        *,
        max_entries: int = 100_000,  # more, and each full garbage collection takes tens of milliseconds for them
        max_weight: int | None = None,
        weigher: Callable[[K, V], int] | None = None,
        ttl_s: float | None = None,
        refresh_after_s: float | None = None,
        refresh: Callable[[K], None] | None = None,
        clock: Clock,
        stripes: int = 1024,  # keys that share one are refused together: a read more, nothing wrong
        wait_s: float = _WAIT_S,  # for what another thread loads; after that a thread loads by itself
    ) -> None:
        _refuse_impossible(max_entries, max_weight, stripes, weighs=weigher is not None)
        if refresh_after_s is not None and refresh is None:
            raise ConfigurationError("refresh_after_s needs refresh=…: whom to ask for a newer value")
        self._monotonic_s = clock.monotonic_s
        self._max_entries, self._max_weight = max_entries, inf if max_weight is None else max_weight
        self._small_entries, self._small_weight = (
            max(int(max_entries * _SMALL_SHARE), 1),
            self._max_weight * _SMALL_SHARE,
        )
        self._weigher = weigher
        self._ttl_s = inf if ttl_s is None else ttl_s
        self._refresh_after_s = inf if refresh_after_s is None else refresh_after_s
        self._refresh = refresh
        self._wait_s = wait_s
        self._lock = threading.Lock()  # protects all below from two threads that change it at once
        self._entries: dict[Hashable, Entry[V]] = {}
        self._small: _Queue[V] = _Queue()
        self._main: _Queue[V] = _Queue()
        # By hash. Not a dict: finding its oldest key takes longer with each one that was deleted before it.
        self._ghosts: OrderedDict[int, None] = OrderedDict()
        self._epoch = 0
        self._generations = [0] * stripes
        self._flights: SingleFlight[tuple[Guard, K], tuple[V, ...]] = SingleFlight()  # a value, or none
        self._hits = self._misses = self._puts = self._rejected_by_guard = self._rejected_by_version = 0
        self._removals = dict.fromkeys(RemovalCause, 0)

    def __len__(self) -> int:
        """How many entries there are, with those that have expired and were not taken out yet."""
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value of `key`; None if there is none, or none that may be given out. Counts a hit or a miss."""
        if not _READS_NEED_LOCK:  # what follows is `entry`, because a call costs as much as all of it
            entry = self._entries.get(key)
            if entry is not None and self._monotonic_s() < entry.refresh_s:
                if entry.hits < _MOST_HITS:
                    entry.hits += 1
                self._hits += 1
                return entry.value
        entry = self.entry(key)
        if entry is None:
            self._misses += 1
            return None
        self._hits += 1
        return entry.value

    def entry(self, key: K) -> Entry[V] | None:
        """All that is known of `key`; None past its expiry. It is a read, but counted as neither hit nor miss."""
        if not _READS_NEED_LOCK:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if self._monotonic_s() < entry.refresh_s:
                if entry.hits < _MOST_HITS:
                    entry.hits += 1
                return entry
        with self._lock:
            entry, due = self._read(key)
        if due and self._refresh is not None:
            self._refresh(key)
        return entry

    def guard(self, key: K) -> Guard:
        """What a later put of `key` is checked by. To be taken before the read or write that it is the result of."""
        return Guard(self._epoch, self._generations[hash(key) % len(self._generations)])

    def put(
        self,
        key: K,
        value: V,
        *,
        ttl_s: float | None = None,
        version: int = 0,
        guard: Guard | None = None,
        scope: Hashable = None,
        negative: bool = False,
    ) -> bool:
        """Keep `value`, for `ttl_s` if given; False if it was not, because it is or may be out of date, or too heavy.

        It is out of date if an entry with a higher version is there, and may be if the guard is broken.
        """
        weight = 1 if self._weigher is None else max(self._weigher(key, value), 0)
        now_s = self._monotonic_s()
        with self._lock:
            if guard is not None and guard != self.guard(key):
                self._rejected_by_guard += 1
                return False
            entry = self._entries.get(key)
            if entry is not None and entry.expires_s > now_s and entry.version > version:
                self._rejected_by_version += 1
                return False
            if entry is not None and (
                weight > self._max_weight or entry.negative is not negative or entry.scope != scope
            ):
                # Not in place: whoever reads just now would mix the two.
                self._remove(entry, RemovalCause.REPLACED if entry.expires_s > now_s else RemovalCause.EXPIRED)
                entry = None
            if weight > self._max_weight:
                return False
            self._puts += 1
            expires_s = now_s + (self._ttl_s if ttl_s is None else ttl_s)
            if entry is None:
                self._insert(key, value, version, expires_s, weight, scope, now_s, negative=negative)
            else:
                self._replace(entry, value, version, expires_s, weight, now_s)
            return True

    def invalidate(self, key: K, version: int | None = None) -> bool:
        """Break the guards of `key`, and drop its entry, if `version` is given only an older one; whether it did."""
        with self._lock:
            self._generations[hash(key) % len(self._generations)] += 1
            entry = self._entries.get(key)
            if entry is None or (version is not None and entry.version >= version):
                return False
            self._remove(entry, RemovalCause.EXPLICIT)
            return True

    def drop(self, scope: Hashable) -> int:
        """Drop all entries of `scope`, and break all guards: what is being loaded may belong to it. How many it were.

        Looks at every entry.
        """
        with self._lock:
            self._epoch += 1
            dropped = [entry for entry in self._entries.values() if entry.scope == scope]
            for entry in dropped:
                self._remove(entry, RemovalCause.SCOPE)
            return len(dropped)

    def flush(self) -> None:
        """Drop everything, and break all guards."""
        with self._lock:
            self._epoch += 1
            self._removals[RemovalCause.FLUSHED] += len(self._entries)
            self._entries.clear()
            self._small, self._main = _Queue(), _Queue()
            self._ghosts.clear()

    def get_or_load(self, key: K, loader: Callable[[K], V]) -> V:
        """The value of `key`, loaded if need be; of threads that want it at once, one calls `loader`.

        What `loader` raises is raised in all of them, and not remembered. It must not ask for the same key.
        """
        entry = self.entry(key)
        if entry is not None:
            self._hits += 1
            return entry.value
        found = self.get_many((key,), lambda _: {key: loader(key)})
        return found[key] if key in found else loader(key)  # without: another's loader had left it out

    def get_many(self, keys: Iterable[K], loader: Callable[[Sequence[K]], Mapping[K, V]]) -> dict[K, V]:
        """The values of `keys`, those that are missing by one call of `loader`; as `get_or_load` otherwise.

        A key that has a negative entry, or that `loader` leaves out, is left out.
        """
        found: dict[K, V] = {}
        wanted = dict.fromkeys(keys)
        # By its guard, too: a value that was asked for before an invalidation is no answer to who comes after it.
        flights: dict[tuple[Guard, K], None] = {}
        for key in wanted:
            entry = self.entry(key)
            if entry is None:
                flights[self.guard(key), key] = None
            elif not entry.negative:
                found[key] = entry.value
        self._hits += len(wanted) - len(flights)
        self._misses += len(flights)
        if flights:
            led, awaited = self._flights.lead(flights)
            self._lead(led, loader, found)
            self._await(awaited, loader, found)
        return found

    def stats(self) -> LocalCacheStats:
        """The counts up to now. Reads count without a lock: a few of many may be lost."""
        with self._lock:
            return LocalCacheStats(
                hits=self._hits,
                misses=self._misses,
                puts=self._puts,
                rejected_by_guard=self._rejected_by_guard,
                rejected_by_version=self._rejected_by_version,
                removals=dict(self._removals),
                entries=len(self._entries),
                weight=self._small.weight + self._main.weight,
            )

    def _read(self, key: K) -> tuple[Entry[V] | None, bool]:
        """The entry of `key` if it may be given out, and whether this reader must ask for a newer value."""
        entry = self._entries.get(key)
        if entry is None:
            return None, False
        now_s = self._monotonic_s()
        if entry.expires_s <= now_s:
            return None, False  # it stays: the value that comes next takes its place in the queue
        entry.hits = min(entry.hits + 1, _MOST_HITS)
        due = entry.refresh_s <= now_s
        if due:
            entry.refresh_s = min(now_s + self._refresh_after_s, entry.expires_s)
        return entry, due

    def _lead(
        self,
        led: Sequence[tuple[Guard, K]],
        loader: Callable[[Sequence[K]], Mapping[K, V]],
        found: dict[K, V],
    ) -> None:
        """Load what this thread leads, and tell those who wait."""
        left = dict.fromkeys(led)
        try:
            # Whoever led before may have ended between the look into the cache and the election.
            missing = [flight for flight in led if not self._came_meanwhile(flight[1], found)]
            if missing:
                self._load(missing, loader, found)
            for flight in led:
                self._flights.resolve(flight, (found[flight[1]],) if flight[1] in found else ())
                del left[flight]
        except BaseException as error:
            self._flights.fail(left, error)
            raise

    def _came_meanwhile(self, key: K, found: dict[K, V]) -> bool:
        entry = self.entry(key)
        if entry is not None and not entry.negative:
            found[key] = entry.value
        return entry is not None

    def _load(
        self,
        missing: Sequence[tuple[Guard, K]],
        loader: Callable[[Sequence[K]], Mapping[K, V]],
        found: dict[K, V],
    ) -> None:
        loaded = loader([key for _, key in missing])
        for guard, key in missing:
            if key in loaded:
                found[key] = loaded[key]
                self.put(key, loaded[key], guard=guard)

    def _await(
        self,
        awaited: Mapping[tuple[Guard, K], Future[tuple[V, ...]]],
        loader: Callable[[Sequence[K]], Mapping[K, V]],
        found: dict[K, V],
    ) -> None:
        """Take what others load; what does not come in time is loaded here as well."""
        if not awaited:
            return
        done = wait(awaited.values(), timeout=self._wait_s).done
        for flight, future in awaited.items():
            if future in done:
                for value in future.result():
                    found[flight[1]] = value
        late = [flight for flight, future in awaited.items() if future not in done]
        if late:
            self._load(late, loader, found)

    def _insert(
        self,
        key: K,
        value: V,
        version: int,
        expires_s: float,
        weight: int,
        scope: Hashable,
        now_s: float,
        *,
        negative: bool,
    ) -> None:
        self._make_room(1, weight, now_s)
        entry = Entry(key, value, negative=negative, scope=scope)
        entry.version, entry.weight = version, weight
        self._expire_at(entry, expires_s, now_s)
        returns = self._ghosts.pop(hash(key) & _GHOST_BITS, self) is None
        (self._main if returns else self._small).append(entry)
        self._entries[key] = entry

    def _replace(self, entry: Entry[V], value: V, version: int, expires_s: float, weight: int, now_s: float) -> None:
        self._removals[RemovalCause.REPLACED if entry.expires_s > now_s else RemovalCause.EXPIRED] += 1
        entry.value = value  # first: a reader that sees the new expiry must not see the old value
        entry.version = version
        self._expire_at(entry, expires_s, now_s)
        if weight != entry.weight and entry.queue is not None:
            entry.queue.weight += weight - entry.weight
            entry.weight = weight
            self._make_room(0, 0, now_s)

    def _expire_at(self, entry: Entry[V], expires_s: float, now_s: float) -> None:
        entry.expires_s = expires_s
        refresh_s = now_s + self._refresh_after_s
        entry.refresh_s = refresh_s if refresh_s < expires_s else expires_s  # noqa: FURB136 - one object for both

    def _make_room(self, entries: int, weight: int, now_s: float) -> None:
        small, main = self._small, self._main
        while (
            small.count + main.count + entries > self._max_entries
            or small.weight + main.weight + weight > self._max_weight
        ):
            if small.count >= self._small_entries or small.weight >= self._small_weight or not main.count:
                self._evict_from_small(now_s)
            else:
                self._evict_from_main(now_s)

    def _evict_from_small(self, now_s: float) -> None:
        entry = self._small.oldest()
        if entry.hits and entry.expires_s > now_s:
            entry.hits = 0
            self._main.append(entry)
            return
        self._evict(entry, now_s)
        self._ghosts[hash(entry.key) & _GHOST_BITS] = None
        while len(self._ghosts) > (len(self._entries) + 1) * _GHOST_SHARE:
            self._ghosts.popitem(last=False)

    def _evict_from_main(self, now_s: float) -> None:
        entry = self._main.oldest()
        if entry.hits and entry.expires_s > now_s:
            entry.hits -= 1
            self._main.append(entry)
        else:
            self._evict(entry, now_s)

    def _evict(self, entry: Entry[V], now_s: float) -> None:
        del self._entries[entry.key]
        self._removals[RemovalCause.SIZE if entry.expires_s > now_s else RemovalCause.EXPIRED] += 1

    def _remove(self, entry: Entry[V], cause: RemovalCause) -> None:
        if entry.queue is not None:
            entry.queue.remove(entry)
        del self._entries[entry.key]
        self._removals[cause] += 1


def _refuse_impossible(max_entries: int, max_weight: int | None, stripes: int, *, weighs: bool) -> None:
    for name, number in (("max_entries", max_entries), ("max_weight", max_weight), ("stripes", stripes)):
        if number is not None and number < 1:
            raise ConfigurationError(f"{name}: expected at least 1, got {number}")
    if max_weight is not None and not weighs:
        raise ConfigurationError("max_weight needs weigher=…: how heavy a value is")
