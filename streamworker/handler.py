"""What a user subclasses, and what is read from the class.

`Handler` and `BatchHandler` are declarations with one method; `declaration()` checks a class and
freezes what it says, so that a mistake is found before the first poll.
"""

from __future__ import annotations

import difflib
import inspect
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, overload

from streamworker.clock import SystemClock
from streamworker.config import (
    MAX_TOPIC_CHARS,
    Action,
    Adaptive,
    Batch,
    Breaker,
    DeadLetter,
    Execution,
    Fallback,
    OnExhausted,
    Ordering,
    Rate,
    Read,
    Retry,
    RetryBudget,
    Rule,
    member,
)
from streamworker.errors import ConfigurationError, nearest
from streamworker.interfaces import Unset
from streamworker.work import InHand

if TYPE_CHECKING:
    from streamworker.clock import Clock
    from streamworker.interfaces import AnySerde, AsyncReader, Dependency, Operation, Reader
    from streamworker.record import Record, Records

T = TypeVar("T")
S = TypeVar("S")
K = TypeVar("K")
V = TypeVar("V")

Call = Callable[[object], object]
Middleware = Callable[[Call], Call]

_LEAST_TIMEOUT_S = 0.001
_NO_DEPENDENCIES: Mapping[str, Dependency] = MappingProxyType({})
_NO_READS: Mapping[str, Operation] = MappingProxyType({})


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
        timeout_s: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.app = app  # the [app] table of the configuration
        self.group = group
        self.handler = handler
        self._dependencies = dependencies
        self._reads = reads
        self.in_hand = InHand("in_hand", default=None)  # for the engine, which says there what each thread is at
        self._timeout_s = inf if timeout_s is None else timeout_s
        self._clock = clock or SystemClock()
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


class _Declared:
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

    def open(self, context: Context) -> Awaitable[None] | None:
        """Called once per instance on its thread, before the first record; may be async if `handle` is."""

    def close(self) -> Awaitable[None] | None:
        """Called once per instance on its thread, after the last record; may be async if `handle` is."""


class Handler(_Declared, Generic[T]):
    """Handles one record at a time. Returning is success, raising is failure.

    Every pool thread has an instance of its own, and lanes are not bound to threads: state kept on
    `self` is per thread, not per key. With `async def handle` there is one instance, on a thread with an event loop,
    and `concurrency` says how many calls are in progress at once; a call that is cancelled has failed.
    """

    def handle(self, record: Record[T]) -> Awaitable[None] | None:
        """Handle `record`; called on a pool thread, or on the event loop if it is `async def`."""
        raise NotImplementedError


class BatchHandler(_Declared, Generic[T]):
    """Handles a batch at a time: records of one partition, in offset order.

    Returning is success for all of them. Raise `BatchFailed(index, cause)` when one is at fault:
    those before it are done. Any other exception fails the batch as a whole. `async def handle` as for `Handler`.
    """

    batch: ClassVar[Batch] = Batch()

    def handle(self, records: Records[T]) -> Awaitable[None] | None:
        """Handle `records`; called on a pool thread, or on the event loop if it is `async def`."""
        raise NotImplementedError


AnyHandler = Handler[object] | BatchHandler[object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What a handler class says, checked. `batch` is None for a single-record handler."""

    name: str
    make: Callable[[], AnyHandler]
    is_async: bool
    topics: tuple[str, ...]
    value: AnySerde | None
    key: AnySerde | None
    ordering: Ordering
    concurrency: int
    execution: Execution
    adaptive: Adaptive | None
    lanes: int
    batch: Batch | None
    timeout_s: float | None
    retry: Retry
    retry_budget: RetryBudget | None
    rate: Rate | None
    max_age_s: float | None
    breaker: Breaker | None
    dependencies: tuple[Breaker, ...]
    reads: tuple[Read, ...]
    rules: tuple[Rule, ...]
    dead_letter: DeadLetter | None
    middleware: tuple[Middleware, ...]

    @property
    def breakers(self) -> tuple[Breaker, ...]:
        """Its own and those around single calls."""
        return self.dependencies if self.breaker is None else (self.breaker, *self.dependencies)

    def subscribes_to(self, topic: str) -> bool:
        """Whether records of `topic` are this handler's; a pattern must match the whole name."""
        return any(
            re.fullmatch(pattern[1:].removesuffix("$"), topic) if pattern.startswith("^") else pattern == topic
            for pattern in self.topics
        )


# Likeness from which an attribute is taken for a misspelled option; below it is the user's own
# (topic/topics 0.91, orderng/ordering 0.93; ages_ns/lanes 0.67).
_MISSPELLED = 0.8
# The loop looks for what is overdue between its steps, each of which may take so long.
_LEAST_HANDLER_TIMEOUT_S = 0.1
# Inline, between two steps of the loop: what a fetch makes. More would put off what else the loop has to do.
_INLINE_SLICES = 2
# Timestamps have milliseconds.
_LEAST_AGE_S = 0.001

_OPTIONS = frozenset(name for kind in (_Declared, BatchHandler) for name in vars(kind) if not name.startswith("_")) | {
    "handle"
}


def declaration(handler: type[Handler[T]] | type[BatchHandler[T]]) -> Declaration:
    """Check `handler` and freeze what it declares; raises ConfigurationError with the way out."""
    if not (isinstance(handler, type) and issubclass(handler, Handler | BatchHandler)):
        raise ConfigurationError(f"{handler!r}: expected a subclass of Handler or BatchHandler")
    execution = _execution(handler)
    concurrency = _positive(handler, "concurrency", handler.concurrency)
    return Declaration(
        name=handler.__name__,
        make=handler,  # type: ignore[arg-type]  # Handler[T] is used as Handler[object] from here on
        is_async=_is_async(handler),
        topics=_topics(handler),
        value=_serde(handler, "value"),
        key=_serde(handler, "key"),
        ordering=member(f"{handler.__name__}.ordering", Ordering, handler.ordering),
        concurrency=_INLINE_SLICES if execution is Execution.INLINE else concurrency,
        execution=execution,
        adaptive=_adaptive(handler),
        lanes=_positive(handler, "lanes", concurrency if handler.lanes is None else handler.lanes),
        batch=_typed(handler, "batch", Batch) if issubclass(handler, BatchHandler) else None,
        timeout_s=_seconds(handler, "timeout_s", least=_LEAST_HANDLER_TIMEOUT_S),
        retry=_retry(handler),
        retry_budget=None if handler.retry_budget is None else _typed(handler, "retry_budget", RetryBudget),
        rate=_rate(handler),
        max_age_s=_seconds(handler, "max_age_s", least=_LEAST_AGE_S),
        breaker=_breaker(handler),
        dependencies=_dependencies(handler),
        reads=_reads(handler),
        rules=_rules(handler),
        dead_letter=_dead_letter(handler),
        middleware=_middleware(handler),
    )


def keys_topics(declared: Sequence[Declaration]) -> Sequence[str]:
    """The topics in which it is noted which keys are parked, each once."""
    named = [one.dead_letter.keys_topic for one in declared if one.dead_letter is not None]
    return sorted({topic for topic in named if topic is not None})


def declarations(handlers: Sequence[type[Handler[T]] | type[BatchHandler[T]]]) -> tuple[Declaration, ...]:
    """Check all handlers of one process, and that no topic has two of them."""
    if not handlers:
        raise ConfigurationError("no handler given; expected at least one module:Class")
    declared = tuple(declaration(handler) for handler in handlers)
    owners: dict[str, str] = {}
    for one in declared:
        for topic in one.topics:
            if topic in owners:
                raise ConfigurationError(
                    f"topic {topic!r} is named by {owners[topic]} and by {one.name}: a group handles a record once,"
                    f" so run them as two groups"
                )
            owners[topic] = one.name
    _refuse_two_breakers([breaker for one in declared for breaker in one.breakers])
    _refuse_two_reads([read for one in declared for read in one.reads])
    return declared


def _refuse_two_breakers(breakers: Sequence[Breaker]) -> None:
    by_name = {one.name: one for one in breakers}
    for one in breakers:
        if one != by_name[one.name]:
            raise ConfigurationError(
                f"Breaker {one.name!r} is declared twice with different options; handlers that need the same dependency"
                f" share its breaker, so declare it once and name it in both"
            )


def _refuse_two_reads(reads: Sequence[Read]) -> None:
    by_name = {one.name: one for one in reads}
    for one in reads:
        if one != by_name[one.name]:
            raise ConfigurationError(
                f"Read {one.name!r} is declared twice with different options; the configuration switches it by its name"
                f" in all handlers, so declare it once and name it in both, or give it two names"
            )


def _topics(handler: type[_Declared]) -> tuple[str, ...]:
    _refuse_unknown_options(handler)
    _refuse_bad_handle(handler)
    topics = handler.topics
    if isinstance(topics, str):
        raise ConfigurationError(f'{handler.__name__}.topics: expected a tuple, got a string; write ("{topics}",)')
    if not topics:
        raise ConfigurationError(f'{handler.__name__}.topics is missing; for instance topics = ("orders",)')
    for topic in topics:
        if topic.startswith("^"):
            try:
                re.compile(topic)
            except re.error as error:
                raise ConfigurationError(f"{handler.__name__}.topics: {topic!r} is not a pattern: {error}") from error
        elif len(topic) > MAX_TOPIC_CHARS or not re.fullmatch(r"[A-Za-z0-9._-]+", topic):
            raise ConfigurationError(
                f"{handler.__name__}.topics: {topic!r} is not a topic's name; a pattern starts with ^"
            )
    return tuple(topics)


def _refuse_unknown_options(handler: type[_Declared]) -> None:
    for owner in handler.__mro__[: handler.__mro__.index(_Declared)]:
        if owner in (Handler, BatchHandler, Generic):
            continue
        for name in vars(owner):
            if name.startswith("_") or name in _OPTIONS or callable(getattr(owner, name)):
                continue
            meant = difflib.get_close_matches(name, _OPTIONS, n=1, cutoff=_MISSPELLED)
            if meant:
                raise ConfigurationError(
                    f"{handler.__name__}.{name} is not an option of a handler; did you mean {meant[0]!r}?"
                )
    if not issubclass(handler, BatchHandler) and "batch" in vars(handler):
        raise ConfigurationError(f"{handler.__name__}.batch: only a BatchHandler has batches; subclass that instead")


def _refuse_bad_handle(handler: type[_Declared]) -> None:
    handle = getattr(handler, "handle")  # noqa: B009 - both kinds have it, their common base does not
    if handle in (Handler.handle, BatchHandler.handle):
        argument = "records" if issubclass(handler, BatchHandler) else "record"
        known = [name for name in vars(handler) if callable(getattr(handler, name)) and not name.startswith("_")]
        hint = f"; {nearest('handle', known)}" if known else ""
        raise ConfigurationError(f"{handler.__name__} has no handle(self, {argument}){hint}")
    if inspect.isgeneratorfunction(handle) or inspect.isasyncgenfunction(handle):
        raise ConfigurationError(
            f"{handler.__name__}.handle has a yield, so calling it would do nothing; let it return"
        )
    try:
        inspect.signature(handle).bind(None, None)
    except TypeError as error:
        raise ConfigurationError(f"{handler.__name__}.handle: expected one argument besides self: {error}") from error


def _is_async(handler: type[_Declared]) -> bool:
    handle = getattr(handler, "handle")  # noqa: B009 - both kinds have it, their common base does not
    if inspect.iscoroutinefunction(handle):
        return True
    for name in ("open", "close"):
        if inspect.iscoroutinefunction(getattr(handler, name)):
            raise ConfigurationError(
                f"{handler.__name__}.{name} is async and handle is not, so nobody would wait for it; make both async"
            )
    return False


def _serde(handler: type[_Declared], name: str) -> AnySerde | None:
    serde: AnySerde | None = getattr(handler, name)
    if serde is None:
        return None
    if isinstance(serde, type):
        raise ConfigurationError(f"{handler.__name__}.{name}: got the class {serde.__name__}; expected an instance")
    for method in ("decode", "encode"):
        if not callable(getattr(serde, method, None)):
            raise ConfigurationError(
                f"{handler.__name__}.{name}: {serde!r} has no {method}(); expected Json(...), Avro(...), Text(),"
                f" Bytes() or an object with decode and encode"
            )
    return serde


def _positive(handler: type[_Declared], name: str, number: object) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ConfigurationError(f"{handler.__name__}.{name}: expected a whole number from 1, got {number!r}")
    return number


def _execution(handler: type[_Declared]) -> Execution:
    execution = member(f"{handler.__name__}.execution", Execution, handler.execution)
    if execution is Execution.PROCESS:
        if _is_async(handler):
            raise ConfigurationError(
                f"{handler.__name__}.execution: a handler that computes gains nothing by being async; make handle a"
                f' plain def, or leave execution at "thread"'
            )
        for option in ("dependencies", "reads"):
            if getattr(handler, option):
                raise ConfigurationError(
                    f"{handler.__name__}.{option}: what they know is in the worker's process, and the handler's calls"
                    f' are in others; declare the handler\'s own breaker instead, or leave execution at "thread"'
                )
    if execution is Execution.INLINE:
        _refuse_what_waits(handler)
    return execution


def _refuse_what_waits(handler: type[_Declared]) -> None:
    """A call on the loop thread must not wait, and nothing can look at it meanwhile."""
    name = handler.__name__
    if _is_async(handler):
        raise ConfigurationError(f'{name}.execution: an async handler waits; leave execution at "thread"')
    for option in ("breaker", "dependencies", "reads", "timeout_s", "adaptive"):
        if getattr(handler, option):
            raise ConfigurationError(
                f'{name}.{option}: a handler that calls something may wait for it, which execution = "inline" is not'
                f' for; leave {option}, or leave execution at "thread"'
            )


def _adaptive(handler: type[_Declared]) -> Adaptive | None:
    if handler.adaptive is None:
        return None
    adaptive = _typed(handler, "adaptive", Adaptive)
    if adaptive.least > handler.concurrency:
        raise ConfigurationError(
            f"{handler.__name__}.adaptive: expected least to be at most concurrency ({handler.concurrency}),"
            f" got {adaptive.least}"
        )
    return adaptive


def _rate(handler: type[_Declared]) -> Rate | None:
    if handler.rate is None:
        return None
    rate = _typed(handler, "rate", Rate)
    if rate.per_key and member(f"{handler.__name__}.ordering", Ordering, handler.ordering) is not Ordering.KEY:
        raise ConfigurationError(
            f"{handler.__name__}.rate: per_key needs ordering = Ordering.KEY, because a record that waits for its"
            f" key's turn would hold back all others"
        )
    return rate


def _retry(handler: type[_Declared]) -> Retry:
    retry, letter = _typed(handler, "retry", Retry), handler.dead_letter
    if not retry.topics:
        return retry
    if letter is None:
        raise ConfigurationError(
            f"{handler.__name__}.retry: what fails after the last retry topic goes to the dead letters; declare"
            f" dead_letter as well"
        )
    if isinstance(letter, DeadLetter) and letter.on_exhausted is not OnExhausted.DLQ:
        raise ConfigurationError(
            f'{handler.__name__}.retry: on_exhausted="{OnExhausted(letter.on_exhausted).value}" keeps the order that'
            f" retry topics give up; choose one"
        )
    for topic in handler.topics:
        if topic.startswith("^"):
            raise ConfigurationError(
                f"{handler.__name__}.retry: retry topics are made of the names in topics, and {topic!r} is a pattern;"
                f" name the topics"
            )
    return retry


def _dead_letter(handler: type[_Declared]) -> DeadLetter | None:
    if handler.dead_letter is None:
        return None
    letter = _typed(handler, "dead_letter", DeadLetter)
    if letter.keys_topic is None:
        return letter
    if member(f"{handler.__name__}.ordering", Ordering, handler.ordering) is Ordering.UNORDERED:
        raise ConfigurationError(
            f'{handler.__name__}.dead_letter: on_exhausted="dlq_key" keeps the order of each key, and UNORDERED has'
            f' none; choose "dlq", or another ordering'
        )
    if len(letter.keys_topic) > MAX_TOPIC_CHARS:
        raise ConfigurationError(
            f"{handler.__name__}.dead_letter: {letter.keys_topic!r}, which is to name the parked keys, is longer than"
            f" a topic's name may be ({MAX_TOPIC_CHARS})"
        )
    return letter


def _seconds(handler: type[_Declared], name: str, *, least: float) -> float | None:
    seconds: object = getattr(handler, name)
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not least <= seconds < inf:
        raise ConfigurationError(
            f"{handler.__name__}.{name}: expected seconds from {least:g}, or None, got {seconds!r}"
        )
    return seconds


def _typed(handler: type[_Declared], name: str, kind: type[S]) -> S:
    option = getattr(handler, name)
    if not isinstance(option, kind):
        raise ConfigurationError(f"{handler.__name__}.{name}: expected {kind.__name__}(...), got {option!r}")
    return option


def _breaker(handler: type[_Declared]) -> Breaker | None:
    if handler.breaker is None:
        return None
    breaker = _typed(handler, "breaker", Breaker)
    if breaker.bulkhead is not None:
        raise ConfigurationError(
            f"{handler.__name__}.breaker: a bulkhead bounds single calls, of a Breaker in dependencies; all calls of a"
            f" handler are bounded by its concurrency"
        )
    return breaker


def _dependencies(handler: type[_Declared]) -> tuple[Breaker, ...]:
    declared = handler.dependencies
    if not isinstance(declared, Sequence) or not all(isinstance(one, Breaker) for one in declared):
        raise ConfigurationError(
            f'{handler.__name__}.dependencies: expected a tuple, (Breaker("geo-api"),), got {declared!r}'
        )
    return tuple(declared)


def _reads(handler: type[_Declared]) -> tuple[Read, ...]:
    declared = handler.reads
    if not isinstance(declared, Sequence) or not all(isinstance(one, Read) for one in declared):
        raise ConfigurationError(f"{handler.__name__}.reads: expected a tuple, (Read(...),), got {declared!r}")
    known = [one.name for one in handler.dependencies]
    for one in declared:
        if Fallback.DEFER in one.fallbacks and not handler.retry.topics:
            raise ConfigurationError(
                f"{handler.__name__}.reads: Read {one.name!r} defers to retry topics, and there are none;"
                f" retry = Retry(topics=(RetryTopic(delay_s=60),))"
            )
        if one.dependency not in known:
            found = nearest(one.dependency, known) if known else "it declares none"
            raise ConfigurationError(
                f"{handler.__name__}.reads: Read {one.name!r} needs a Breaker {one.dependency!r} in dependencies;"
                f" {found}"
            )
        if handler.breaker is not None and handler.breaker.name == one.dependency:
            raise ConfigurationError(
                f"{handler.__name__}.reads: Read {one.name!r} cannot do without {one.dependency!r}: the handler's own"
                f" breaker holds all of it back while that is away"
            )
    return tuple(declared)


def _rules(handler: type[_Declared]) -> tuple[Rule, ...]:
    for rule in handler.rules:
        if not isinstance(rule, Rule):
            raise ConfigurationError(f"{handler.__name__}.rules: expected Rule.retry(...) and the like, got {rule!r}")
        if rule.action is Action.SKIP and handler.dead_letter is None:
            raise ConfigurationError(
                f"{handler.__name__}.rules: a skip is recorded in the dead-letter topic; declare dead_letter as well"
            )
    return tuple(handler.rules)


def _middleware(handler: type[_Declared]) -> tuple[Middleware, ...]:
    for wrap in handler.middleware:
        if not callable(wrap):
            raise ConfigurationError(f"{handler.__name__}.middleware: {wrap!r} cannot be called")
    return tuple(handler.middleware)
