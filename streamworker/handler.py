"""What a user subclasses.

`Handler` and `BatchHandler` are declarations with one method; what they declare is read by `declaration.py`.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, Unpack, overload

from streamworker.clock import SystemClock
from streamworker.errors import ConfigurationError, Misuse, nearest
from streamworker.interfaces import Unset
from streamworker.options import (
    Adaptive,
    Batch,
    Breaker,
    DeadLetter,
    Delivery,
    Execution,
    Idempotency,
    Ordering,
    Rate,
    Read,
    Retry,
    RetryBudget,
    Rule,
)
from streamworker.work import InHand

if TYPE_CHECKING:
    from streamworker.clock import Clock
    from streamworker.interfaces import (
        AnySerde,
        AsyncReader,
        Cache,
        CacheProvider,
        CacheSettings,
        Claimer,
        ClientOption,
        Dependency,
        Operation,
        Reader,
        Sink,
    )
    from streamworker.record import Record, Records

T = TypeVar("T")
S = TypeVar("S")
K = TypeVar("K")
KH = TypeVar("KH", bound="Hashable")
V = TypeVar("V")

Call = Callable[[object], object]
Middleware = Callable[[Call], Call]

_LEAST_TIMEOUT_S = 0.001
_NO_DEPENDENCIES: Mapping[str, Dependency] = MappingProxyType({})
_NO_READS: Mapping[str, Operation] = MappingProxyType({})
_NO_SINKS: Mapping[str, str] = MappingProxyType({})
_NO_CLUSTER: Mapping[str, ClientOption] = MappingProxyType({})


class Context:
    """What a handler instance may use, given to `open()`.

    One per handler class and process; safe to use from every pool thread.
    """

    def __init__(
        self,
        *,
        app: Mapping[str, object],
        group: str,
        handler: str,
        dependencies: Mapping[str, Dependency] = _NO_DEPENDENCIES,
        reads: Mapping[str, Operation] = _NO_READS,
        sinks: Mapping[str, str] = _NO_SINKS,
        claimer: Claimer | None = None,
        producer: Mapping[str, ClientOption] = _NO_CLUSTER,
        caches: CacheProvider | None = None,
        in_hand: InHand | None = None,
        timeout_s: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.app = app  # the [app] table of the configuration
        self.group = group
        self.handler = handler
        self._dependencies = dependencies
        self._reads = reads
        self.sinks = sinks  # the [sinks] table of the configuration; ask `connection`
        self.producer_settings = producer  # secrets included; ask `producer`
        self.credential_takers: list[Callable[[str, str], None]] = []  # for the engine, which may have new ones
        # For the engine, which says there what each thread is at.
        self.in_hand = InHand("in_hand", default=None) if in_hand is None else in_hand
        self._caches = caches
        self._timeout_s = inf if timeout_s is None else timeout_s
        self._clock = clock or SystemClock()
        self.claimer = claimer  # for the engine, which claims with it what is to be handled
        self.has_caches = False  # whether an instance has asked for a cache
        self._shared: dict[str, object] = {}
        self._lock = threading.Lock()  # protects _shared from two instances opening at once

    def shared(self, name: str, factory: Callable[[], S]) -> S:
        """The object called `name`, made by `factory` at the first request and shared by all instances.

        `factory` runs under a lock; what it makes must be safe for several threads.
        """
        with self._lock:
            if name not in self._shared:
                self._shared[name] = factory()
            return self._shared[name]  # type: ignore[return-value]  # the name says the type

    def connection(self, name: str) -> str:
        """The URL that the configuration's table `sinks` has under `name`, secrets included.

        Raises ConfigurationError if it has none.
        """
        if name not in self.sinks:
            known = nearest(name, self.sinks) if self.sinks else "the table is empty"
            raise ConfigurationError(f"sinks: no URL for {name!r}, which {self.handler} writes to; {known}")
        return self.sinks[name]

    def producer(self) -> Mapping[str, ClientOption]:
        """Options of librdkafka for a producer to the worker's own cluster, secrets included.

        For sinks. Raises ConfigurationError where there is no cluster.
        """
        if not self.producer_settings:
            raise ConfigurationError(f"{self.handler}.sink: there is no Kafka here to produce to")
        return self.producer_settings

    def follow_credentials(self, take: Callable[[str, str], None]) -> None:
        """Let `take` have name and password of SASL of the worker's own cluster when they change. For sinks."""
        self.credential_takers.append(take)

    @overload
    def cache(
        self, name: str, *, loader: Callable[[KH], V | None], **settings: Unpack[CacheSettings]
    ) -> Cache[KH, V]: ...

    @overload
    def cache(
        self, name: str, *, load_many: Callable[[Sequence[KH]], Mapping[KH, V]], **settings: Unpack[CacheSettings]
    ) -> Cache[KH, V]: ...

    def cache(
        self,
        name: str,
        *,
        loader: Callable[[KH], V | None] | None = None,
        load_many: Callable[[Sequence[KH]], Mapping[KH, V]] | None = None,
        **settings: Unpack[CacheSettings],
    ) -> Cache[KH, V]:
        """The cache called `name`, in this process and, if `cache.redis` says where it is, in Redis; call it in `open`.

        `loader` gives the value of a key, or None; `load_many` those of many. Both are called on any thread. Values are
        handed out as they are: treat them as frozen. Raises ConfigurationError for a name that was asked for with other
        options, for one that does not say of which type the values are, and in a child process.
        """
        if self._caches is None:
            raise ConfigurationError(
                f"{self.handler}: caches are in the worker's process, and the handler's calls are in others; leave"
                f' execution at "thread"'
            )
        if self.in_hand.get() is not None:
            raise Misuse(f"cache {name!r}: ask for it in open(), not in handle()")
        self.has_caches = True
        return self._caches.for_handler(self.in_hand, name, loader=loader, load_many=load_many, settings=settings)

    def dependency(self, name: str) -> Dependency:
        """What the handler's class declares under `name` in `dependencies`, to make calls with.

        Raises ConfigurationError for a name that it does not declare.
        """
        self._refuse_undeclared("dependencies: no Breaker", name, self._dependencies)
        return self._dependencies[name]

    def deadline_s(self) -> float:
        """Until when, in monotonic time, the call in progress on this thread should be through; inf without an end.

        The earliest of: the handler's `timeout_s`, the end of the drain or of the rebalance that is under way, and
        when others may own the partition because this worker's membership of the group was proven too long ago. It may
        move, since each proof of membership moves the last on. Outside of a call there is none.
        """
        slice_ = self.in_hand.get()
        if slice_ is None:
            return inf
        called_s = inf if slice_.called is None else slice_.called[1]
        return min(called_s + self._timeout_s, slice_.ownership.ends_s, slice_.ownership.lease.lost_s)

    @overload
    def remaining_s(self, most_s: float) -> float: ...

    @overload
    def remaining_s(self, most_s: None = None) -> float | None: ...

    def remaining_s(self, most_s: float | None = None) -> float | None:
        """Seconds until `deadline_s`, at most `most_s`: what to give a driver as its timeout.

        Never below a millisecond, because to many drivers 0 means no timeout; None if neither sets an end.
        """
        left_s = self.deadline_s() - self._clock.monotonic_s()
        if most_s is not None:
            left_s = min(left_s, most_s)
        return None if left_s == inf else max(left_s, _LEAST_TIMEOUT_S)

    @overload
    def read(  # type: ignore[overload-overlap]  # any function returns an object, a coroutine too
        self,
        name: str,
        lookup: Callable[[K], Coroutine[object, object, V]],
        *,
        default: V | Callable[[K], V] | Unset = ...,
    ) -> AsyncReader[K, V]: ...

    @overload
    def read(
        self, name: str, lookup: Callable[[K], V], *, default: V | Callable[[K], V] | Unset = ...
    ) -> Reader[K, V]: ...

    def read(self, name: str, lookup: Callable[[K], object], *, default: object = Unset.UNSET) -> object:
        """A read of what the class declares under `name` in `reads`: `lookup`, or what stands in for its answer.

        With an `async def` lookup the reader is awaited.

        `default` is the value of the fallback `default`, or makes it of the key. Answers that are kept for `cached`
        are shared by all instances and handed out as they are: treat them as frozen. Raises ConfigurationError for a
        name that is not declared, and without a default where one is needed.
        """
        self._refuse_undeclared("reads: no Read", name, self._reads)
        read = self._reads[name]
        if inspect.iscoroutinefunction(lookup):
            return read.async_reader(lookup, default)
        return read.reader(lookup, default)

    def _refuse_undeclared(self, what: str, name: str, declared: Mapping[str, object]) -> None:
        if name not in declared:
            known = nearest(name, declared) if declared else "it declares none"
            raise ConfigurationError(f"{self.handler}.{what} {name!r}; {known}")


class Declared:
    """Options common to both kinds of handler; all may be set on the class."""

    topics: ClassVar[Sequence[str]] = ()  # names, or patterns that start with ^
    value: ClassVar[AnySerde | None] = None  # None hands over the bytes
    key: ClassVar[AnySerde | None] = None
    ordering: ClassVar[Ordering | str] = Ordering.PARTITION
    concurrency: ClassVar[int] = 8  # threads or processes, each with an instance; of an async handler, tasks at once
    execution: ClassVar[Execution | str] = Execution.THREAD  # "process" for calls that compute, "inline" for tiny ones
    adaptive: ClassVar[Adaptive | None] = None  # None: as many calls at once as there are threads
    lanes: ClassVar[int | None] = None  # KEY: order domains per partition; None is as many as threads
    timeout_s: ClassVar[float | None] = None  # for a call of handle; a longer one has failed, though it goes on
    retry: ClassVar[Retry] = Retry()
    retry_budget: ClassVar[RetryBudget | None] = None  # None: retries are bounded by their attempts only
    rate: ClassVar[Rate | None] = None  # None: as fast as it can
    max_age_s: ClassVar[float | None] = None  # since its timestamp; an older record ends without a call
    breaker: ClassVar[Breaker | None] = None  # of what the handler cannot do without
    dependencies: ClassVar[Sequence[Breaker]] = ()  # around single calls: see Context.dependency
    reads: ClassVar[Sequence[Read]] = ()  # that may do without one of these: see Context.read
    rules: ClassVar[Sequence[Rule]] = ()  # first match decides; then the built-in ones
    dead_letter: ClassVar[DeadLetter | None] = None  # None: what cannot be handled stops its partition
    middleware: ClassVar[Sequence[Middleware]] = ()  # wrap the call of handle, the first outermost
    idempotency: ClassVar[Idempotency | None] = None  # None: what is delivered again is handled again
    delivery: ClassVar[Delivery | str] = Delivery.AT_LEAST_ONCE  # "transactional": exactly once, from Kafka to Kafka
    sink: ClassVar[Sink | None] = None  # where what handle returns is written; then the record is done
    preview: ClassVar[Callable[..., object] | str | None] = None  # method or "handle"; shown before a replay

    def open(self, context: Context) -> Awaitable[None] | None:
        """Called once per instance on its thread, before the first record; may be async if `handle` is."""

    def close(self) -> Awaitable[None] | None:
        """Called once per instance on its thread, after the last record; may be async if `handle` is."""


class Handler(Declared, Generic[T]):
    """Handles one record at a time. Returning is success, raising is failure.

    With a `sink` what `handle` returns is written to it: one row, a list of rows, or None.

    Every pool thread has an instance of its own, and lanes are not bound to threads: state kept on
    `self` is per thread, not per key. With `async def handle` there is one instance, on a thread with an event loop,
    and `concurrency` says how many calls are in progress at once; a call that is cancelled has failed.
    """

    def handle(self, record: Record[T]) -> object:
        """Handle `record`; called on a pool thread, or on the event loop if it is `async def`."""
        raise NotImplementedError


class BatchHandler(Declared, Generic[T]):
    """Handles a batch at a time: records of one partition, in offset order.

    Returning is success for all of them. Raise `BatchFailed(index, cause)` when one is at fault:
    those before it are done. Any other exception fails the batch as a whole. `async def handle` as for `Handler`.
    With a `sink`, return a list with an entry for each record: its row, its rows, or None. After `BatchFailed` it is
    called again for those before the one at fault.
    """

    batch: ClassVar[Batch] = Batch()

    def handle(self, records: Records[T]) -> object:
        """Handle `records`; called on a pool thread, or on the event loop if it is `async def`."""
        raise NotImplementedError


class SinkHandler(BatchHandler[T]):
    """Writes each value to its `sink` as it is; a record without a value has no effect. Nothing is left to be written.

    Override `handle` for anything else.
    """

    def handle(self, records: Records[T]) -> object:
        """The values, one for each record."""
        return list(records.values())


AnyHandler = Handler[object] | BatchHandler[object]
