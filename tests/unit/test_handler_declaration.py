"""What a handler class declares, and what is said of a wrong one before anything starts."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, ClassVar

import pytest

from streamworker import (
    Adaptive,
    Batch,
    BatchHandler,
    Breaker,
    ConfigurationError,
    DeadLetter,
    Handler,
    OnExhausted,
    Ordering,
    Read,
    Record,
    Records,
    Retry,
    RetryTopic,
    Rule,
)
from streamworker.declaration import declaration, declarations
from streamworker.serde import Json, Text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Orders(Handler[bytes]):
    """The least that works."""

    topics = ("orders",)

    def handle(self, record: Record[bytes]) -> None:
        """Handle it."""


class OrderBatches(BatchHandler[bytes]):
    """The least that works, in batches."""

    topics = ("orders",)

    def handle(self, records: Records[bytes]) -> None:
        """Handle them."""


def declared_with(**options: object) -> type[Handler[bytes]]:
    return type("Odd", (Orders,), options)


def refusal_of(handler: object) -> str:
    with pytest.raises(ConfigurationError) as refusal:
        declaration(handler)  # type: ignore[arg-type]
    return str(refusal.value)


class NoHandle(Handler[bytes]):
    topics = ("orders",)


class MistypedHandle(Handler[bytes]):
    topics = ("orders",)

    def handel(self, record: Record[bytes]) -> None:
        """Never called."""


class BatchWithoutHandle(BatchHandler[bytes]):
    topics = ("orders",)


class HandleOfTwo(Orders):
    def handle(self, record: Record[bytes], more: int) -> None:  # type: ignore[override]
        """One argument too many."""


class HandleOfNone(Orders):
    def handle(self) -> None:  # type: ignore[override]
        """One argument too few."""


class OnlyInsert(Handler[bytes]):
    topics = ("orders",)

    def insert(self, record: Record[bytes]) -> None:
        """Nothing like it."""


class Derived(MistypedHandle):
    """Its base has the mistake."""


class OpenOfNone(Orders):
    def open(self) -> None:  # type: ignore[override]
        """No context."""


class CloseOfOne(Orders):
    def close(self, context: object = None, *, now: bool) -> None:  # type: ignore[override]
        """One argument that nobody gives."""


class MadeOfSomething(Orders):
    def __init__(self, db: object) -> None:
        """Nobody gives it one."""


class BatchOfOne(BatchHandler[bytes]):
    topics = ("orders",)

    def handle(self, record: Record[bytes]) -> None:  # type: ignore[override]
        """As if it were one."""


class OneOfBatch(Handler[bytes]):
    topics = ("orders",)

    def handle(self, records: Records[bytes]) -> None:  # type: ignore[override]
        """As if they were many."""


def handle_one(self: object, record: object) -> None:
    """Annotated by an object, as it is without the future import."""


handle_one.__annotations__["record"] = Record[bytes]


class NoTopics(Handler[bytes]):
    def handle(self, record: Record[bytes]) -> None:
        """Handle it."""


class Decoder:
    """Half a serde."""

    def decode(self, data: bytes, topic: str) -> int:
        return 1

    def __repr__(self) -> str:
        return "Decoder()"


LATER = Retry(topics=(RetryTopic(delay_s=60),))


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (print, "<built-in function print>: expected a subclass of Handler or BatchHandler"),
        (int, "<class 'int'>: expected a subclass of Handler or BatchHandler"),
        (NoHandle, "NoHandle has no handle(self, record)"),
        (MistypedHandle, "MistypedHandle has no handle(self, record); 'handel' looks like it is meant to be 'handle'"),
        (OnlyInsert, "OnlyInsert has no handle(self, record)"),
        (Derived, "Derived has no handle(self, record); 'handel' looks like it is meant to be 'handle'"),
        (BatchWithoutHandle, "BatchWithoutHandle has no handle(self, records)"),
        (HandleOfTwo, "HandleOfTwo.handle: found handle(self, record, more), write handle(self, record)"),
        (HandleOfNone, "HandleOfNone.handle: found handle(self), write handle(self, record)"),
        (
            type("Odd", (OrderBatches,), {"handle": lambda: None}),
            "Odd.handle: found handle(), write handle(self, records)",
        ),
        (declared_with(handle=5), "Odd.handle: 5 cannot be called"),
        (OpenOfNone, "OpenOfNone.open: found open(self), write open(self, context)"),
        (CloseOfOne, "CloseOfOne.close: found close(self, context=None, *, now), write close(self)"),
        (
            MadeOfSomething,
            (
                "MadeOfSomething: found __init__(self, db), write __init__(self): the worker makes each instance"
                " without arguments; get what it needs in open(self, context)"
            ),
        ),
        (
            BatchOfOne,
            (
                "BatchOfOne.handle: found record: Record, and a BatchHandler is given Records; write"
                " handle(self, records: Records[...]), or subclass Handler"
            ),
        ),
        (
            OneOfBatch,
            (
                "OneOfBatch.handle: found records: Records, and a Handler is given one Record; write"
                " handle(self, record: Record[...]), or subclass BatchHandler"
            ),
        ),
        (
            type("Odd", (OrderBatches,), {"handle": handle_one}),
            (
                "Odd.handle: found record: Record, and a BatchHandler is given Records; write"
                " handle(self, records: Records[...]), or subclass Handler"
            ),
        ),
        (NoTopics, 'NoTopics.topics is missing; for instance topics = ("orders",)'),
        (declared_with(topics="orders"), 'Odd.topics: expected a tuple, got a string; write ("orders",)'),
        (declared_with(topics=5), 'Odd.topics: expected a tuple, got 5; write ("orders",)'),
        (declared_with(topics=(5,)), "Odd.topics: expected names, got 5"),
        (declared_with(topics=("or ders",)), "Odd.topics: 'or ders' is not a topic's name; a pattern starts with ^"),
        (declared_with(topics=("",)), "Odd.topics: '' is not a topic's name; a pattern starts with ^"),
        (
            declared_with(topics=("^orders(",)),
            "Odd.topics: '^orders(' is not a pattern: missing ), unterminated subpattern at position 7",
        ),
        (declared_with(topic=("orders",)), "Odd.topic is not an option of a handler; did you mean 'topics'?"),
        (declared_with(concurency=4), "Odd.concurency is not an option of a handler; did you mean 'concurrency'?"),
        (
            declared_with(dead_letters=DeadLetter("dlq")),
            "Odd.dead_letters is not an option of a handler; did you mean 'dead_letter'?",
        ),
        (declared_with(batch=Batch()), "Odd.batch: only a BatchHandler has batches; subclass that instead"),
        (declared_with(ordering="keys"), "Odd.ordering: got 'keys'; did you mean 'key'?"),
        (declared_with(ordering="KEY"), "Odd.ordering: got 'KEY'; did you mean 'key'?"),
        (declared_with(ordering="zzz"), "Odd.ordering: got 'zzz'; known: key, partition, unordered"),
        (declared_with(concurrency=0), "Odd.concurrency: expected a whole number from 1, got 0"),
        (declared_with(concurrency=True), "Odd.concurrency: expected a whole number from 1, got True"),
        (declared_with(concurrency="8"), "Odd.concurrency: expected a whole number from 1, got '8'"),
        (declared_with(lanes=-1), "Odd.lanes: expected a whole number from 1, got -1"),
        (declared_with(max_age_s=0), "Odd.max_age_s: expected seconds from 0.001, or None, got 0"),
        (declared_with(max_age_s="60"), "Odd.max_age_s: expected seconds from 0.001, or None, got '60'"),
        (declared_with(max_age_s=float("inf")), "Odd.max_age_s: expected seconds from 0.001, or None, got inf"),
        (declared_with(max_age_s=True), "Odd.max_age_s: expected seconds from 0.001, or None, got True"),
        (
            declared_with(retry=LATER),
            "Odd.retry: what fails after the last retry topic goes to the dead letters; declare dead_letter as well",
        ),
        (
            declared_with(retry=LATER, dead_letter=DeadLetter("dlq", "block")),
            'Odd.retry: on_exhausted="block" keeps the order that retry topics give up; choose one',
        ),
        (
            declared_with(retry=LATER, dead_letter=DeadLetter("dlq", "dlq_key")),
            'Odd.retry: on_exhausted="dlq_key" keeps the order that retry topics give up; choose one',
        ),
        (
            declared_with(ordering="unordered", dead_letter=DeadLetter("dlq", "dlq_key")),
            (
                'Odd.dead_letter: on_exhausted="dlq_key" keeps the order of each key, and UNORDERED has none;'
                ' choose "dlq", or another ordering'
            ),
        ),
        (
            declared_with(dead_letter=DeadLetter("d" * 245, "dlq_key")),
            (
                f"Odd.dead_letter: '{'d' * 245}.keys', which is to name the parked keys, is longer than a"
                " topic's name may be (249)"
            ),
        ),
        (
            declared_with(retry=LATER, dead_letter=DeadLetter("dlq"), topics=("^ord.*",)),
            ("Odd.retry: retry topics are made of the names in topics, and '^ord.*' is a pattern; name the topics"),
        ),
        (
            declared_with(dependencies=(Breaker("geo"),), reads=(Read("place", ("defer",), dependency="geo"),)),
            (
                "Odd.reads: Read 'place' defers to retry topics, and there are none;"
                " retry = Retry(topics=(RetryTopic(delay_s=60),))"
            ),
        ),
        (declared_with(retry=3), "Odd.retry: expected Retry(...), got 3"),
        (declared_with(dead_letter="dlq"), "Odd.dead_letter: expected DeadLetter(...), got 'dlq'"),
        (declared_with(value=Text), "Odd.value: got the class Text; expected an instance"),
        (
            declared_with(value=Decoder()),
            (
                "Odd.value: Decoder() has no encode(); expected Json(...), Avro(...), Text(), Bytes() or an object with"
                " decode and encode"
            ),
        ),
        (
            declared_with(key="text"),
            (
                "Odd.key: 'text' has no decode(); expected Json(...), Avro(...), Text(), Bytes() or an object with"
                " decode and encode"
            ),
        ),
        (declared_with(value=str), "Odd.value: got the class str; write value = Text()"),
        (declared_with(key=bytes), "Odd.key: got the class bytes; write key = Bytes()"),
        (declared_with(value=dict), "Odd.value: got the class dict; write value = Json(dict)"),
        (
            declared_with(rules=Rule.retry(ValueError)),
            (
                "Odd.rules: expected a tuple, got Rule(matches=<class 'ValueError'>, action=<Action.RETRY: 'retry'>);"
                " write rules = (Rule.retry(...),)"
            ),
        ),
        (declared_with(rules=None), "Odd.rules: expected a tuple, got None; write rules = (Rule.retry(...),)"),
        (
            declared_with(middleware=print),
            "Odd.middleware: expected a tuple, got <built-in function print>; write middleware = (...,)",
        ),
        (declared_with(middleware="abc"), "Odd.middleware: expected a tuple, got 'abc'; write middleware = (...,)"),
        (
            declared_with(rules=(ValueError,)),
            "Odd.rules: expected Rule.retry(...) and the like, got <class 'ValueError'>",
        ),
        (
            declared_with(rules=(Rule.skip(ValueError),)),
            "Odd.rules: a skip is recorded in the dead-letter topic; declare dead_letter as well",
        ),
        (declared_with(middleware=(1,)), "Odd.middleware: 1 cannot be called"),
        (type("Odd", (OrderBatches,), {"batch": 500}), "Odd.batch: expected Batch(...), got 500"),
    ],
)
def test_a_wrong_class_is_refused_with_what_was_found_and_what_would_do(handler: object, message: str) -> None:
    assert refusal_of(handler) == message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Retry(attempts=0), "Retry.attempts: expected at least 1, got 0"),
        (lambda: Retry(base_s=3.0), "Retry.cap_s: expected at least 3, got 2.0"),
        (lambda: Batch(max_records=0), "Batch.max_records: expected at least 1, got 0"),
        (lambda: Batch(max_wait_s=float("nan")), "Batch.max_wait_s: expected at least 0, got nan"),
        (
            lambda: Rule.dead_letter("ValueError"),  # type: ignore[arg-type]
            (
                "Rule.dead_letter: expected an exception class, a tuple of them or a predicate, got 'ValueError';"
                " write it without quotes"
            ),
        ),
        (
            lambda: Rule.retry((OSError, "ValueError")),  # type: ignore[arg-type]
            "Rule.retry: expected an exception class in the tuple, got 'ValueError'; write it without quotes",
        ),
        (
            lambda: Rule.skip([OSError, KeyError]),  # type: ignore[arg-type]
            (
                "Rule.skip: expected an exception class, a tuple of them or a predicate,"
                " got [<class 'OSError'>, <class 'KeyError'>]; write a tuple"
            ),
        ),
        (
            lambda: Rule.stop(OSError | KeyError),  # type: ignore[arg-type]
            (
                "Rule.stop: expected an exception class, a tuple of them or a predicate, got OSError | KeyError;"
                " write a tuple"
            ),
        ),
        (
            lambda: Rule.stop(int),  # type: ignore[arg-type]
            (
                "Rule.stop: expected an exception class, a tuple of them or a predicate, got <class 'int'>, which is no"
                " exception"
            ),
        ),
        (
            lambda: Rule.retry(OSError()),  # type: ignore[arg-type]
            (
                "Rule.retry: expected an exception class, a tuple of them or a predicate, got OSError(); write its"
                " class, OSError"
            ),
        ),
        (
            lambda: Breaker("db", counts="ConnectionError"),  # type: ignore[arg-type]
            (
                "Breaker.counts: expected an exception class, a tuple of them or a predicate, got 'ConnectionError';"
                " write it without quotes"
            ),
        ),
        (
            lambda: Adaptive(counts=503),  # type: ignore[arg-type]
            "Adaptive.counts: expected an exception class, a tuple of them or a predicate, got 503",
        ),
        (lambda: DeadLetter(""), "DeadLetter.topic: expected a topic's name, got an empty string"),
        (lambda: DeadLetter("d", on_exhausted="blok"), "DeadLetter.on_exhausted: got 'blok'; did you mean 'block'?"),
    ],
)
def test_a_wrong_option_is_refused_where_it_is_made(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        make()

    assert str(refusal.value) == message


@pytest.mark.parametrize("matches", [OSError, (OSError, KeyError), (), lambda error: True, asyncio.CancelledError])
def test_what_can_match_an_error_is_taken(matches: type[BaseException]) -> None:
    assert Rule.retry(matches).matches == matches
    assert Breaker("db", counts=matches).counts == matches


def test_what_is_called_without_arguments_may_have_defaults() -> None:
    class Made(Orders):
        def __init__(self, table: str = "orders", *more: object, **options: object) -> None:
            """All have defaults."""

        def open(self, *arguments: object) -> None:
            """Whatever it is."""

        @staticmethod
        def close() -> None:
            """Of nobody's."""

        @classmethod
        def handle(cls, record: object, more: int = 1) -> None:  # type: ignore[override]
            """Of the class."""

    assert declaration(Made).name == "Made"


def test_what_wraps_a_method_may_give_it_more() -> None:
    def with_database(method: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(method)
        def given(self: object, argument: object) -> None:
            method(self, argument, "db")

        return given

    class Wrapped(Orders):
        open = with_database(lambda self, context, db: None)  # type: ignore[assignment]
        handle = with_database(lambda self, record, db: None)  # type: ignore[assignment]

    assert declaration(Wrapped).name == "Wrapped"


def test_an_annotation_that_is_not_ours_is_not_judged() -> None:
    class Record:
        """The user's own, of many rows."""

    class Rows(BatchHandler[bytes]):
        topics = ("orders",)

        def handle(self, records: Sequence[Record]) -> None:  # type: ignore[override]
            """Handle them."""

    class Own(Rows):
        def handle(self, records) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
            """Not annotated."""

    assert [declaration(one).name for one in (Rows, Own)] == ["Rows", "Own"]


def test_what_is_not_said_has_defaults() -> None:
    declared = declaration(Orders)

    assert declared.name == "Orders"
    assert isinstance(declared.make(), Orders)
    assert declared.topics == ("orders",)
    assert (declared.value, declared.key, declared.batch, declared.dead_letter) == (None, None, None, None)
    assert (declared.ordering, declared.concurrency, declared.lanes) == (Ordering.PARTITION, 8, 8)
    assert declared.retry == Retry()
    assert (declared.rules, declared.middleware) == ((), ())


def test_what_is_said_is_taken() -> None:
    class Told(BatchHandler[object]):
        topics = ("orders", "^payments-.*")
        value = Json[object](object)
        key = Text()
        ordering = "key"
        concurrency = 3
        lanes = 16
        batch = Batch(max_records=7)
        retry = Retry(attempts=2)
        rules = (Rule.skip(KeyError), Rule.retry(OSError))
        dead_letter = DeadLetter("dlq", on_exhausted="block")
        middleware = (lambda call: call,)

        def handle(self, records: Records[object]) -> None:
            """Handle them."""

    declared = declaration(Told)

    assert (declared.ordering, declared.concurrency, declared.lanes) == (Ordering.KEY, 3, 16)
    assert (declared.value, declared.key, declared.batch) == (Told.value, Told.key, Batch(max_records=7))
    assert (declared.retry, declared.rules) == (Retry(attempts=2), tuple(Told.rules))
    assert declared.dead_letter == DeadLetter("dlq", OnExhausted.BLOCK)
    assert len(declared.middleware) == 1


def test_a_class_may_have_attributes_and_methods_of_its_own() -> None:
    class Roomy(Orders):
        table = "orders"
        cache = None
        name = "orders"
        columns: ClassVar = {"id", "qty"}
        _topicz = 1

        def insert(self) -> None:
            """Its own business."""

        @property
        def row(self) -> str:
            return self.table

        @staticmethod
        def handler() -> None:
            """Near a known name, but a method."""

    assert declaration(Roomy).name == "Roomy"


def test_options_are_inherited() -> None:
    class Base(Orders):
        concurrency = 2

    class Mixin:
        retry = Retry(attempts=9)

    class Derived(Mixin, Base):
        """Says nothing itself."""

    declared = declaration(Derived)

    assert (declared.concurrency, declared.retry.attempts, declared.topics) == (2, 9, ("orders",))


@pytest.mark.parametrize(
    ("topics", "topic", "subscribed"),
    [
        (("orders",), "orders", True),
        (("orders",), "orders2", False),
        (("orders.eu",), "ordersxeu", False),
        (("^orders-.*",), "orders-eu", True),
        (("^orders-",), "orders-eu", False),
        (("^orders-[a-z]+$",), "orders-eu", True),
        (("^orders-[a-z]+$",), "my-orders-eu", False),
        (("a", "^b.*"), "b1", True),
    ],
)
def test_a_topic_belongs_to_a_handler_by_its_whole_name(
    topics: tuple[str, ...], topic: str, *, subscribed: bool
) -> None:
    assert declaration(declared_with(topics=topics)).subscribes_to(topic) == subscribed


def test_a_group_handles_a_topic_once() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        declarations([declared_with(topics=("orders",)), declared_with(topics=("payments", "orders"))])

    assert str(refusal.value) == (
        "topic 'orders' is named by Odd and by Odd: a group handles a record once, so run them as two groups"
    )


def test_a_dependency_has_one_breaker_in_a_process() -> None:
    quick, slow = Breaker("db", open_s=1.0), Breaker("db", open_s=2.0)
    alike = [declared_with(topics=(topic,), breaker=quick) for topic in ("orders", "payments")]
    different = [alike[0], declared_with(topics=("payments",), breaker=slow)]

    assert [one.breaker for one in declarations(alike)] == [quick, quick]
    with pytest.raises(ConfigurationError, match="Breaker 'db' is declared twice with different options"):
        declarations(different)


def test_handlers_of_different_topics_may_share_a_process() -> None:
    classes = [declared_with(topics=("orders",)), declared_with(topics=("payments",))]

    assert [one.topics for one in declarations(classes)] == [("orders",), ("payments",)]


def test_a_process_without_handlers_does_not_start() -> None:
    with pytest.raises(ConfigurationError, match="no handler given; expected at least one module:Class"):
        declarations([])


def test_a_breaker_around_single_calls_is_shared_with_that_of_a_handler() -> None:
    quick, slow = Breaker("db", open_s=1.0), Breaker("db", open_s=2.0)
    whole = declared_with(topics=("orders",), breaker=quick)

    alike = declarations([whole, declared_with(topics=("payments",), dependencies=(quick, Breaker("geo")))])

    assert [one.name for one in alike[1].breakers] == ["db", "geo"]
    with pytest.raises(ConfigurationError, match="Breaker 'db' is declared twice with different options"):
        declarations([whole, declared_with(topics=("payments",), dependencies=(slow,))])


@pytest.mark.parametrize("wrong", [Breaker("geo"), ("geo",), "geo", None])
def test_dependencies_are_a_tuple_of_breakers(wrong: object) -> None:
    assert refusal_of(declared_with(dependencies=wrong)).startswith(
        'Odd.dependencies: expected a tuple, (Breaker("geo-api"),), got '
    )
