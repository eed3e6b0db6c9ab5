"""What is read from a handler's class: checked and frozen, so that a mistake is found before the first poll."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar

from streamworker.bounds import member
from streamworker.errors import ConfigurationError, nearest
from streamworker.handler import BatchHandler, Declared, Handler, SinkHandler
from streamworker.options import (
    MAX_TOPIC_CHARS,
    Action,
    Adaptive,
    Batch,
    Breaker,
    DeadLetter,
    Delivery,
    Execution,
    Fallback,
    Idempotency,
    KeptIn,
    OnExhausted,
    Ordering,
    Preview,
    Rate,
    Read,
    Retry,
    RetryBudget,
    Rule,
)
from streamworker.signatures import refuse_bad_methods

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker.handler import AnyHandler, Middleware
    from streamworker.interfaces import AnySerde, Sink

T = TypeVar("T")
S = TypeVar("S")


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
    idempotency: Idempotency | None
    delivery: Delivery
    sink: Sink | None
    preview: Preview | None

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

_OPTIONS = frozenset(name for kind in (Declared, BatchHandler) for name in vars(kind) if not name.startswith("_")) | {
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
        idempotency=_idempotency(handler),
        delivery=_delivery(handler),
        sink=_sink(handler),
        preview=_preview(handler),
    )


def keys_topics(declared: Sequence[Declaration]) -> Sequence[str]:
    """The topics in which it is noted which keys are parked, each once."""
    named = [one.dead_letter.keys_topic for one in declared if one.dead_letter is not None]
    return sorted({topic for topic in named if topic is not None})


def is_transactional(declared: Sequence[Declaration]) -> bool:
    """Whether the handlers of one process deliver by transactions: all do, or none."""
    return declared[0].delivery is Delivery.TRANSACTIONAL


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
    _refuse_two_deliveries(declared)
    _refuse_two_breakers([breaker for one in declared for breaker in one.breakers])
    _refuse_two_reads([read for one in declared for read in one.reads])
    return declared


def _refuse_two_deliveries(declared: Sequence[Declaration]) -> None:
    for one in declared:
        if one.delivery is not declared[0].delivery:
            raise ConfigurationError(
                f"{one.name}.delivery: {one.delivery.value}, and that of {declared[0].name} is"
                f" {declared[0].delivery.value}; a worker commits in one way, so run them as two groups"
            )


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


def _topics(handler: type[Declared]) -> tuple[str, ...]:
    _refuse_unknown_options(handler)
    refuse_bad_methods(handler)
    topics: object = handler.topics
    if isinstance(topics, str):
        raise ConfigurationError(f'{handler.__name__}.topics: expected a tuple, got a string; write ("{topics}",)')
    if not topics:
        raise ConfigurationError(f'{handler.__name__}.topics is missing; for instance topics = ("orders",)')
    if not isinstance(topics, Collection):
        raise ConfigurationError(f'{handler.__name__}.topics: expected a tuple, got {topics!r}; write ("orders",)')
    for topic in topics:
        if not isinstance(topic, str):
            raise ConfigurationError(f"{handler.__name__}.topics: expected names, got {topic!r}")
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


def _refuse_unknown_options(handler: type[Declared]) -> None:
    for owner in handler.__mro__[: handler.__mro__.index(Declared)]:
        if owner in (Handler, BatchHandler, SinkHandler, Generic):
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


def _is_async(handler: type[Declared]) -> bool:
    handle = getattr(handler, "handle")  # noqa: B009 - both kinds have it, their common base does not
    if inspect.iscoroutinefunction(handle):
        return True
    for name in ("open", "close"):
        if inspect.iscoroutinefunction(getattr(handler, name)):
            raise ConfigurationError(
                f"{handler.__name__}.{name} is async and handle is not, so nobody would wait for it; make both async"
            )
    return False


def _serde(handler: type[Declared], name: str) -> AnySerde | None:
    serde: AnySerde | None = getattr(handler, name)
    if serde is None:
        return None
    if isinstance(serde, type):
        raise ConfigurationError(f"{handler.__name__}.{name}: got the class {serde.__name__}; {_serde_of(serde, name)}")
    for method in ("decode", "encode"):
        if not callable(getattr(serde, method, None)):
            raise ConfigurationError(
                f"{handler.__name__}.{name}: {serde!r} has no {method}(); expected Json(...), Avro(...), Text(),"
                f" Bytes() or an object with decode and encode"
            )
    return serde


def _serde_of(kind: type, name: str) -> str:
    """What to write instead of the class `kind`, which may be what the serde is to give."""
    if kind in (str, bytes):
        return f"write {name} = {'Text()' if kind is str else 'Bytes()'}"
    return "expected an instance" if hasattr(kind, "decode") else f"write {name} = Json({kind.__name__})"


def _positive(handler: type[Declared], name: str, number: object) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ConfigurationError(f"{handler.__name__}.{name}: expected a whole number from 1, got {number!r}")
    return number


def _execution(handler: type[Declared]) -> Execution:
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


def _refuse_what_waits(handler: type[Declared]) -> None:
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


def _adaptive(handler: type[Declared]) -> Adaptive | None:
    if handler.adaptive is None:
        return None
    adaptive = _typed(handler, "adaptive", Adaptive)
    if adaptive.least > handler.concurrency:
        raise ConfigurationError(
            f"{handler.__name__}.adaptive: expected least to be at most concurrency ({handler.concurrency}),"
            f" got {adaptive.least}"
        )
    return adaptive


def _rate(handler: type[Declared]) -> Rate | None:
    if handler.rate is None:
        return None
    rate = _typed(handler, "rate", Rate)
    if rate.per_key and member(f"{handler.__name__}.ordering", Ordering, handler.ordering) is not Ordering.KEY:
        raise ConfigurationError(
            f"{handler.__name__}.rate: per_key needs ordering = Ordering.KEY, because a record that waits for its"
            f" key's turn would hold back all others"
        )
    return rate


def _retry(handler: type[Declared]) -> Retry:
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


def _dead_letter(handler: type[Declared]) -> DeadLetter | None:
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


def _seconds(handler: type[Declared], name: str, *, least: float) -> float | None:
    seconds: object = getattr(handler, name)
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not least <= seconds < inf:
        raise ConfigurationError(
            f"{handler.__name__}.{name}: expected seconds from {least:g}, or None, got {seconds!r}"
        )
    return seconds


def _typed(handler: type[Declared], name: str, kind: type[S]) -> S:
    option = getattr(handler, name)
    if not isinstance(option, kind):
        raise ConfigurationError(f"{handler.__name__}.{name}: expected {kind.__name__}(...), got {option!r}")
    return option


def _breaker(handler: type[Declared]) -> Breaker | None:
    if handler.breaker is None:
        return None
    breaker = _typed(handler, "breaker", Breaker)
    if breaker.bulkhead is not None:
        raise ConfigurationError(
            f"{handler.__name__}.breaker: a bulkhead bounds single calls, of a Breaker in dependencies; all calls of a"
            f" handler are bounded by its concurrency"
        )
    return breaker


def _dependencies(handler: type[Declared]) -> tuple[Breaker, ...]:
    declared = handler.dependencies
    if not isinstance(declared, Sequence) or not all(isinstance(one, Breaker) for one in declared):
        raise ConfigurationError(
            f'{handler.__name__}.dependencies: expected a tuple, (Breaker("geo-api"),), got {declared!r}'
        )
    return tuple(declared)


def _reads(handler: type[Declared]) -> tuple[Read, ...]:
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


def _sink(handler: type[Declared]) -> Sink | None:
    sink: Sink | None = handler.sink
    if sink is None:
        if issubclass(handler, SinkHandler) and handler.handle is SinkHandler.handle:
            raise ConfigurationError(f"{handler.__name__}.sink is missing: it says where the values are written")
        return None
    if isinstance(sink, type) or not callable(getattr(sink, "writer", None)):
        raise ConfigurationError(
            f"{handler.__name__}.sink: expected PostgresSink(...), SqliteSink(...) or the like, got {sink!r}"
        )
    if member(f"{handler.__name__}.execution", Execution, handler.execution) is Execution.INLINE:
        raise ConfigurationError(
            f'{handler.__name__}.sink: a write waits, which execution = "inline" is not for; leave execution at'
            f' "thread"'
        )
    if not sink.keeps_marks:
        return sink
    way_out = 'choose guard="row", which goes by where each record came from'
    if member(f"{handler.__name__}.ordering", Ordering, handler.ordering) is Ordering.UNORDERED:
        raise ConfigurationError(
            f"{handler.__name__}.sink: a mark says how far a lane has come, and UNORDERED has no lanes; {way_out}"
        )
    if handler.retry.topics:
        raise ConfigurationError(
            f"{handler.__name__}.sink: a mark knows nothing of copies in retry topics; {way_out}, or leave the topics"
        )
    return sink


def _preview(handler: type[Declared]) -> Preview | None:
    preview: object = handler.preview
    if preview is None:
        return None
    if callable(preview):  # and takes a record, or it was refused
        return Preview.METHOD
    if preview == Preview.HANDLE.value:
        return Preview.HANDLE
    raise ConfigurationError(
        f'{handler.__name__}.preview: expected a method, def preview(self, record), or "handle", got {preview!r}'
    )


def _delivery(handler: type[Declared]) -> Delivery:
    name = handler.__name__
    delivery = member(f"{name}.delivery", Delivery, handler.delivery)
    if delivery is not Delivery.TRANSACTIONAL:
        return delivery
    if not callable(getattr(handler.sink, "encoder", None)) or getattr(handler.sink, "connection", None) is not None:
        raise ConfigurationError(
            f"{name}.delivery: a transaction has records of the cluster that is read from and nothing else; declare"
            f" sink = KafkaSink(...) without a connection, or leave delivery"
        )
    if handler.dead_letter is not None and handler.dead_letter.keys_topic is not None:
        raise ConfigurationError(
            f'{name}.dead_letter: with on_exhausted="dlq_key" it is read back which keys are parked before their'
            f' records are done, which a transaction cannot wait for; choose "dlq" or "block"'
        )
    return delivery


def _idempotency(handler: type[Declared]) -> Idempotency | None:
    if handler.idempotency is None:
        return None
    idempotency = _typed(handler, "idempotency", Idempotency)
    if idempotency.kept_in is KeptIn.SINK:
        if handler.sink is None:
            raise ConfigurationError(f"{handler.__name__}.idempotency: Idempotency.sink() needs a sink; it has none")
        if not handler.sink.knows_repeats:
            raise ConfigurationError(
                f"{handler.__name__}.idempotency: {handler.sink.name!r} does not know what was written before;"
                " choose Idempotency.redis(), or a database"
            )
    elif member(f"{handler.__name__}.execution", Execution, handler.execution) is Execution.INLINE:
        raise ConfigurationError(
            f'{handler.__name__}.idempotency: asking Redis waits, which execution = "inline" is not for; leave'
            ' execution at "thread"'
        )
    return idempotency


def _rules(handler: type[Declared]) -> tuple[Rule, ...]:
    _refuse_no_tuple(handler, "rules", "Rule.retry(...)")
    for rule in handler.rules:
        if not isinstance(rule, Rule):
            raise ConfigurationError(f"{handler.__name__}.rules: expected Rule.retry(...) and the like, got {rule!r}")
        if rule.action is Action.SKIP and handler.dead_letter is None:
            raise ConfigurationError(
                f"{handler.__name__}.rules: a skip is recorded in the dead-letter topic; declare dead_letter as well"
            )
    return tuple(handler.rules)


def _middleware(handler: type[Declared]) -> tuple[Middleware, ...]:
    _refuse_no_tuple(handler, "middleware", "...")
    for wrap in handler.middleware:
        if not callable(wrap):
            raise ConfigurationError(f"{handler.__name__}.middleware: {wrap!r} cannot be called")
    return tuple(handler.middleware)


def _refuse_no_tuple(handler: type[Declared], name: str, one: str) -> None:
    found = getattr(handler, name)
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise ConfigurationError(f"{handler.__name__}.{name}: expected a tuple, got {found!r}; write {name} = ({one},)")
