"""The caches of a process, by name: what they share, and that two uses of a name mean the same cache.

They share the client, the breaker, the link that hears other processes, and a few threads. Any thread, but `close`.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import threading
import types
from types import SimpleNamespace
from typing import TYPE_CHECKING, Generic, TypeVar, Union, cast, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from streamworker.bounds import member
from streamworker.cache.envelope import MAX_BYTES
from streamworker.cache.handler_cache import HandlerCache
from streamworker.cache.invalidation import InvalidationLink
from streamworker.cache.redis import Namespace, RedisStore
from streamworker.cache.two_level import CacheOptions, OnWrite, Scope, TwoLevelCache, text_of
from streamworker.daemon_threads import DaemonThreads
from streamworker.errors import ConfigurationError
from streamworker.options import Breaker
from streamworker.redis_client import redis_client

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from streamworker.cache.store import Gate
    from streamworker.cache.two_level import CacheStats
    from streamworker.clock import Clock
    from streamworker.config import CacheConfig
    from streamworker.interfaces import Cache, CacheSettings
    from streamworker.redis_client import Client
    from streamworker.work import InHand

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")

# Of the breaker before Redis, for whoever makes it. It is tried again soon: asking costs one call 50 ms at most.
BREAKER = Breaker(
    "cache",
    in_a_row=5,
    failure_rate=0.5,
    min_calls=20,
    window_s=10.0,
    open_s=2.0,
    max_open_s=2.0,
    successes=1,
)
_OPTION = "cache.redis"
_THREADS = 8  # for refreshes, and for async handlers whose keys are not in this process
# More than there are threads that ask at once; who finds none free goes on without Redis.
_CONNECTIONS = 64
_LINK_TIMEOUT_S = 0.25


class Caches:
    """Makes each cache when it is first asked for, and ends them all. `gate` is needed where `config.redis` is set."""

    def __init__(
        self,
        config: CacheConfig,
        *,
        app: str,  # in front of all keys in Redis; the consumer group
        clock: Clock,
        gate: Gate | None = None,
        partition: Callable[[], Hashable] = lambda: None,  # that the thread handles a record of
    ) -> None:
        self._config = config
        self._app = app
        self._clock = clock
        self._gate = gate
        self._partition = partition
        self._lock = threading.Lock()  # protects the two below from two threads that ask for a cache at once
        self._caches: dict[str, TwoLevelCache[Hashable, object]] = {}
        self._shared: dict[str, str] = {}  # the app of each
        self._executor = DaemonThreads(_THREADS, name="streamworker-cache-load")
        self._closing = threading.Event()  # ends waits for other processes
        self._cluster = False
        self._client: Client | None = None
        self._link: InvalidationLink | None = None
        if config.redis is not None:
            assert gate is not None
            self._cluster = urlsplit(config.redis).scheme.endswith("+cluster")
            try:
                self._connect()
            except ConfigurationError:
                raise
            except Exception:  # noqa: BLE001, S110 - a cluster that is away: it may come later
                pass
            self._link = InvalidationLink(self._connect_link, clock=clock, cluster=self._cluster)

    def cache(
        self,
        name: str,
        *,
        type_: type[V],
        loader: Callable[[K], V | None] | None = None,
        load_many: Callable[[Sequence[K]], Mapping[K, V]] | None = None,
        shared: str | None = None,
        key: Callable[[K], str] = text_of,
        version: Callable[[V], int] | None = None,
        ttl_s: float = 300.0,
        l1_ttl_s: float = 30.0,
        negative_ttl_s: float = 5.0,
        on_write: OnWrite | str = OnWrite.REPLACE,
        scope: Scope | str = Scope.SHARED,
        lease_s: float = 3.0,
        schema: int | None = None,
        max_entries: int | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> TwoLevelCache[K, V]:
        """The cache called `name`; the same one whenever it is asked for, with the loader of who came first.

        Either `loader`, for one key, or `load_many`. Both are called on any thread. `shared` is a name that other
        groups give, too, to have the same values in Redis. Raises ConfigurationError for a name that was asked for
        with other options.
        """
        if (loader is None) == (load_many is None):
            raise ConfigurationError(f"cache {name!r}: expected either loader=… or load_many=…")
        options = CacheOptions(
            name=name,
            load_many=load_many or _OneByOne(cast("Callable[[K], V | None]", loader)),
            type_=type_,
            key=key,
            version=version,
            ttl_s=ttl_s,
            l1_ttl_s=l1_ttl_s,
            negative_ttl_s=negative_ttl_s,
            on_write=member(f"cache {name!r}: on_write", OnWrite, on_write),
            scope=member(f"cache {name!r}: scope", Scope, scope),
            lease_s=lease_s,
            schema=schema,
            max_entries=self._config.max_entries if max_entries is None else max_entries,
            max_bytes=max_bytes,
        )
        app = self._app if shared is None else shared
        with self._lock:
            known = cast("TwoLevelCache[K, V] | None", self._caches.get(name))
            if known is None:
                return self._made(options, app)
            other = _difference(known.options, options) or (None if self._shared[name] == app else "shared")
        if other is not None:
            raise ConfigurationError(
                f"cache {name!r}: it was asked for before with another {other}; give it the same, or another name"
            )
        return known

    def for_handler(
        self,
        in_hand: InHand,
        name: str,
        *,
        loader: Callable[[K], V | None] | None,
        load_many: Callable[[Sequence[K]], Mapping[K, V]] | None,
        settings: CacheSettings,
    ) -> Cache[K, V]:
        """As of `CacheProvider`."""
        given = dict(settings)
        if "type_" not in given:
            given["type_"] = _annotated(name, loader, load_many)
        cache = self.cache(name, loader=loader, load_many=load_many, **given)  # type: ignore[arg-type]  # as of the settings
        return HandlerCache(cache, in_hand)

    @property
    def dirty(self) -> bool:
        """Whether Redis may have something out of date that this process has written."""
        return any(cache.dirty_keys for cache in self._all())

    def distrust(self) -> None:
        """Somebody else may have written and could not tell Redis: make all unreachable that it has."""
        for cache in self._all():
            cache.distrust()

    def drop(self, partition: Hashable) -> None:
        """A partition has another owner now."""
        for cache in self._all():
            cache.drop(partition)

    def stats(self) -> Sequence[CacheStats]:
        """Of each cache."""
        return [cache.stats() for cache in self._all()]

    def close(self) -> None:
        """End the threads; what a loader is at is not waited for. Idempotent."""
        self._closing.set()
        if self._link is not None:
            self._link.close()
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def _made(self, options: CacheOptions[K, V], app: str) -> TwoLevelCache[K, V]:
        config = self._config
        namespace = Namespace(app, options.name, cluster=self._cluster)

        def store(origin: str, new_epoch: Callable[[], None]) -> RedisStore:
            return RedisStore(namespace, self._connect, origin=origin, new_epoch=new_epoch)

        cache = TwoLevelCache(
            options,
            clock=self._clock,
            executor=self._executor,
            pause=self._closing.wait,
            store=None if config.redis is None else store,
            gate=self._gate,
            timeout_s=config.timeout_s,
            lease_wait_s=config.lease_wait_s,
            degraded_ttl_s=config.degraded_ttl_s,
            max_dirty=config.max_dirty,
            partition=self._partition,
        )
        self._caches[options.name] = cast("TwoLevelCache[Hashable, object]", cache)
        self._shared[options.name] = app
        if self._link is not None:
            self._link.add(namespace.channel, cache)
        return cache

    def _all(self) -> Sequence[TwoLevelCache[Hashable, object]]:
        with self._lock:
            return list(self._caches.values())

    def _connect(self) -> Client:
        """The client; of a cluster it may have to be made anew, and two threads may both make one."""
        if self._client is None:
            config = self._config
            assert config.redis is not None
            self._client = redis_client(
                config.redis, timeout_s=config.timeout_s, connections=_CONNECTIONS, option=_OPTION
            )
        return self._client

    def _connect_link(self) -> Client:
        """A client of the link's own: its calls have another time, and it waits in one of them for good."""
        assert self._config.redis is not None
        return redis_client(self._config.redis, timeout_s=_LINK_TIMEOUT_S, connections=4, option=_OPTION)


def _annotated(name: str, loader: object, load_many: object) -> object:
    """The type of the values, by what the loader says that it returns."""
    function = load_many if loader is None else loader
    # Of it all only what it returns: of what it takes, types may be known to type checkers alone.
    told = SimpleNamespace(__annotations__={"return": getattr(function, "__annotations__", {}).get("return")})
    try:
        returned = get_type_hints(told, getattr(function, "__globals__", {}), vars(collections.abc))["return"]
    except NameError:
        returned = None
    if loader is None:
        found = get_args(returned)[1:]
    else:
        kinds = get_args(returned) if get_origin(returned) in (types.UnionType, Union) else (returned,)
        found = tuple(one for one in kinds if one not in (None, types.NoneType))
    if len(found) != 1 or isinstance(found[0], TypeVar):
        raise ConfigurationError(
            f"cache {name!r}: of which type are its values? Say type_=Customer, or let the loader's annotation say it"
        )
    return found[0]


@dataclasses.dataclass(frozen=True, slots=True)
class _OneByOne(Generic[K, V]):
    """Loads many by a loader for one."""

    loader: Callable[[K], V | None]

    def __call__(self, keys: Sequence[K]) -> Mapping[K, V]:
        loaded = ((key, self.loader(key)) for key in keys)
        return {key: value for key, value in loaded if value is not None}


def _difference(known: CacheOptions[K, V], asked: CacheOptions[K, V]) -> str | None:
    """The option in which the two differ. Functions of each instance of a handler are the same if their code is."""
    for one in dataclasses.fields(known):
        before, now = (getattr(options, one.name) for options in (known, asked))
        if before != now and _code(before) != _code(now):
            return one.name
    return None


def _code(option: object) -> object:
    function = option.loader if isinstance(option, _OneByOne) else option
    return getattr(function, "__code__", function)
