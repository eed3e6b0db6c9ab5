"""What a pool thread makes of a slice."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from streamworker import (
    Adaptive,
    Batch,
    BatchFailed,
    BatchHandler,
    Breaker,
    DeadLetter,
    DecodeError,
    DependencyUnavailable,
    Handler,
    PoisonError,
    Record,
    Records,
    RetryBudget,
    Rule,
)
from streamworker.clock import SystemClock
from streamworker.declaration import declaration
from streamworker.processing.executor import SliceRunner, guarded_call
from streamworker.record import TopicPartition
from streamworker.serde import Bytes, Text
from streamworker.testing.memory_broker import MemoryMessage
from streamworker.testing.virtual_time import VirtualTime
from streamworker.work import Failure, Ownership, Slice, SliceOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker.clock import Clock
    from streamworker.handler import Call, Middleware
    from streamworker.interfaces import AnySerde

AT = TopicPartition("t", 0)
MAX_BYTES = 20
DLQ = DeadLetter("dlq")


class One(Handler[object]):
    topics = ("t",)

    def handle(self, record: Record[object]) -> None:
        """Replaced by a call of the test's own."""


class Many(BatchHandler[object]):
    topics = ("t",)
    batch = Batch()

    def handle(self, records: Records[object]) -> None:
        """Replaced by a call of the test's own."""


class Numbers:
    """Decodes a number; raises what the bytes say."""

    def decode(self, data: bytes, topic: str) -> int:
        match data:
            case b"away":
                raise DependencyUnavailable("the registry")
            case b"deep":
                raise RecursionError
            case b"huge":
                raise MemoryError
            case b"refused":
                raise DecodeError(f"not a number of {topic}")
        return int(data)

    def encode(self, value: int, topic: str) -> bytes:
        return b"%d" % value


class ManyNumbers(Numbers):
    """The same, and all at once; notes how many at a time."""

    def __init__(self) -> None:
        self.at_once: list[int] = []

    def decode_all(self, data: Sequence[bytes], topic: str) -> Sequence[int]:
        self.at_once.append(len(data))
        return [int(one) for one in data]


def slice_of(*values: bytes | None, key: bytes | None = b"k", attempt: int = 1) -> Slice:
    messages = [MemoryMessage(AT, 100 + number, key=key, value=value) for number, value in enumerate(values)]
    return Slice(0, Ownership(AT, 1), messages, attempt)


def run(
    slice_: Slice,
    call: Callable[[Record[object]], None] | Callable[[Records[object]], None] | Call,
    *,
    batch: bool = False,
    value: AnySerde | None = None,
    key: AnySerde | None = None,
    dead_letter: DeadLetter | None = DLQ,
    rules: tuple[Rule, ...] = (),
    clock: Clock | None = None,
) -> SliceOutcome[Slice]:
    declared = replace(declaration(Many if batch else One), value=value, key=key, dead_letter=dead_letter, rules=rules)
    runner = SliceRunner(declared, clock=clock or SystemClock(), max_record_bytes=MAX_BYTES)
    return runner.run(call, slice_)  # type: ignore[arg-type]  # the engine knows its kind of handler


def failure_of(outcome: SliceOutcome[Slice]) -> Failure:
    assert outcome.failure is not None
    return outcome.failure


def rejected(slice_: Slice) -> list[tuple[int, str]]:
    assert all(isinstance(error, DecodeError) for _, error in slice_.rejected)
    return [(index, str(error)) for index, error in slice_.rejected]


def test_records_are_handled_in_order() -> None:
    slice_, seen = slice_of(b"a", b"b", b"c", attempt=4), list[tuple[int, object, object, int]]()

    outcome = run(slice_, lambda record: seen.append((record.offset, record.value, record.key, record.attempt)))

    assert seen == [(100, b"a", b"k", 4), (101, b"b", b"k", 4), (102, b"c", b"k", 4)]
    assert (outcome.failure, slice_.done, slice_.rejected) == (None, 3, [])


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(3), RecursionError()])
def test_the_first_failure_ends_a_slice(error: BaseException) -> None:
    slice_ = slice_of(b"a", b"b", b"c")

    def call(record: Record[object]) -> None:
        if record.offset == 101:
            raise error

    outcome = run(slice_, call)

    assert (failure_of(outcome).index, failure_of(outcome).error) == (1, error)
    assert slice_.done == 1


def test_no_record_is_started_once_the_ownership_closes() -> None:
    slice_ = slice_of(b"a", b"b", b"c")

    def call(record: Record[object]) -> None:
        slice_.ownership.closing = record.offset == 101

    outcome = run(slice_, call)

    assert outcome.failure is None
    assert slice_.done == 2


def test_a_batch_is_not_started_once_the_ownership_closes() -> None:
    slice_, calls = slice_of(b"a"), list[Records[object]]()
    slice_.ownership.closing = True

    outcome = run(slice_, calls.append, batch=True)

    assert (outcome.failure, slice_.done, calls) == (None, 0, [])


@pytest.mark.parametrize("batch", [False, True])
def test_nothing_is_started_once_the_lease_has_run_out(batch: bool) -> None:
    slice_, calls = slice_of(b"a"), list[object]()
    slice_.ownership.lease.until_s = 1000.0

    outcome = run(slice_, calls.append, batch=batch, clock=VirtualTime())

    assert (outcome.failure, outcome.seconds, slice_.done, calls) == (None, 0.0, 0, [])
    assert slice_.started_s is None


@pytest.mark.parametrize(("watched", "started"), [(True, 2), (False, 3)])
def test_the_lease_is_looked_at_before_each_record_of_a_watched_slice(watched: bool, started: int) -> None:
    """A process that was stopped during a call starts none when it goes on, but for what is left of a quick slice."""
    time, slice_, seen = VirtualTime(), slice_of(b"a", b"b", b"c"), list[int]()
    slice_.ownership.lease.until_s, slice_.watched = 1005.0, watched

    def call(record: Record[object]) -> None:
        seen.append(record.offset)
        time.wait(9 if record.offset == 101 else 1, lambda: False)

    outcome = run(slice_, call, clock=time)

    assert outcome.failure is None
    assert (slice_.done, len(seen)) == (started, started)


def test_a_slice_in_progress_is_watched_as_soon_as_the_loop_says_so() -> None:
    time, slice_ = VirtualTime(), slice_of(b"a", b"b", b"c")
    slice_.ownership.lease.until_s, slice_.watched = 1005.0, False

    def call(record: Record[object]) -> None:
        time.wait(4, lambda: False)
        slice_.watched = record.offset == 101

    run(slice_, call, clock=time)

    assert slice_.done == 2


def test_the_time_of_the_call_in_progress_can_be_read_while_it_runs() -> None:
    time, slice_ = VirtualTime(), slice_of(b"a")
    seen: list[float | None] = []

    def call(record: Record[object]) -> None:
        seen.append(slice_.started_s)
        time.wait(7, lambda: False)

    outcome = run(slice_, call, clock=time)

    assert seen == [1000.0]
    assert slice_.started_s is None
    assert outcome.seconds == 7


def test_an_undecodable_record_is_rejected_and_those_around_it_are_handled() -> None:
    slice_, seen = slice_of(b"1", b"x", b"3"), list[object]()

    outcome = run(slice_, lambda record: seen.append(record.value), value=Numbers())

    assert seen == [1, 3]
    assert outcome.failure is None
    assert slice_.done == 3
    assert rejected(slice_) == [(1, "ValueError: invalid literal for int() with base 10: b'x'")]


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"refused", "not a number of t"), (b"deep", "RecursionError: "), (b"huge", "MemoryError: ")],
)
@pytest.mark.parametrize("batch", [False, True])
def test_whatever_a_serde_raises_for_bytes_is_a_rejection(data: bytes, message: str, *, batch: bool) -> None:
    slice_ = slice_of(data)

    run(slice_, lambda _: None, batch=batch, value=Numbers())

    assert rejected(slice_) == [(0, message)]
    assert slice_.done == 1


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize(
    ("dead_letter", "rules"),
    [(None, ()), (DLQ, (Rule.retry(OSError), Rule.stop(DecodeError)))],
)
def test_an_undecodable_record_that_cannot_leave_is_a_failure_and_nothing_overtakes_it(
    dead_letter: DeadLetter | None, rules: tuple[Rule, ...], *, batch: bool
) -> None:
    slice_, seen = slice_of(b"1", b"x", b"3"), list[Record[object]]()

    outcome = run(
        slice_,
        lambda given: seen.extend(given if isinstance(given, Records) else [given]),
        batch=batch,
        value=Numbers(),
        dead_letter=dead_letter,
        rules=rules,
    )

    assert [record.value for record in seen] == [1]
    assert (failure_of(outcome).index, type(failure_of(outcome).error)) == (1, DecodeError)
    assert (slice_.done, slice_.rejected) == (1, [])


@pytest.mark.parametrize("batch", [False, True])
def test_a_rejection_says_whether_it_was_the_key(*, batch: bool) -> None:
    slice_ = slice_of(b"1", key=b"refused")

    run(slice_, lambda _: None, batch=batch, value=Numbers(), key=Numbers())

    [(_, error)] = slice_.rejected
    assert isinstance(error, DecodeError)
    assert error.part == "key"


@pytest.mark.parametrize("batch", [False, True])
def test_a_dependency_that_is_away_is_no_rejection(*, batch: bool) -> None:
    slice_ = slice_of(b"1", b"away", b"3")

    outcome = run(slice_, lambda _: None, batch=batch, value=Numbers())

    assert isinstance(failure_of(outcome).error, DependencyUnavailable)
    assert slice_.rejected == []
    assert slice_.done == (0 if batch else 1)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("serde", [None, Bytes(), Text()])
def test_an_oversize_value_is_rejected_before_it_is_decoded(serde: AnySerde | None, *, batch: bool) -> None:
    slice_ = slice_of(b"\xff" * (MAX_BYTES + 1), b"x" * MAX_BYTES)
    seen: list[object] = []

    run(slice_, lambda given: seen.extend(given if isinstance(given, Records) else [given]), batch=batch, value=serde)

    assert rejected(slice_) == [(0, "value of 21 bytes, expected at most 20 (kafka.max_record_bytes)")]
    assert len(seen) == 1
    assert slice_.done == 2


@pytest.mark.parametrize("batch", [False, True])
def test_null_reaches_the_handler_as_none_without_a_serde_being_asked(*, batch: bool) -> None:
    class Refuses(Numbers):
        def decode(self, data: bytes, topic: str) -> int:
            raise AssertionError("asked")

    slice_, seen = slice_of(None, key=None), list[Record[object]]()

    run(
        slice_,
        lambda given: seen.extend(given if isinstance(given, Records) else [given]),
        batch=batch,
        value=Refuses(),
        key=Refuses(),
    )

    assert [(record.value, record.key) for record in seen] == [(None, None)]
    assert slice_.rejected == []


def test_an_empty_value_is_not_null() -> None:
    slice_, seen = slice_of(b""), list[object]()

    run(slice_, lambda record: seen.append(record.value), value=Text())

    assert seen == [""]


@pytest.mark.parametrize("batch", [False, True])
def test_a_serde_that_would_hand_the_bytes_through_is_not_called(*, batch: bool) -> None:
    class Untouched(Bytes):
        def decode(self, data: bytes, topic: str) -> bytes:
            raise AssertionError("called")

    slice_ = slice_of(b"a")

    outcome = run(slice_, lambda _: None, batch=batch, value=Untouched())

    assert (outcome.failure, slice_.rejected) == (None, [])


def test_a_batch_is_handled_in_one_call() -> None:
    slice_, calls = slice_of(b"1", b"2", attempt=3), list[Records[object]]()

    outcome = run(slice_, calls.append, batch=True, value=Numbers(), key=Text())

    [records] = calls
    assert list(records.values()) == [1, 2]
    assert [(record.key, record.attempt) for record in records] == [("k", 3), ("k", 3)]
    assert (outcome.failure, slice_.done) == (None, 2)


def test_a_batch_of_which_nothing_can_be_decoded_is_not_handled() -> None:
    slice_, calls = slice_of(b"x", b"y"), list[Records[object]]()

    outcome = run(slice_, calls.append, batch=True, value=Numbers())

    assert (calls, outcome.failure, slice_.done) == ([], None, 2)
    assert [index for index, _ in slice_.rejected] == [0, 1]


def test_a_batch_that_fails_without_a_name_fails_as_a_whole() -> None:
    slice_, error = slice_of(b"1", b"x", b"3"), ValueError("somebody is at fault")

    def call(records: Records[object]) -> None:
        raise error

    outcome = run(slice_, call, batch=True, value=Numbers())

    assert (failure_of(outcome).index, failure_of(outcome).error) == (None, error)
    assert slice_.done == 0


@pytest.mark.parametrize(("named", "index"), [(0, 1), (1, 3), (2, 4)])
def test_the_record_that_a_batch_names_is_found_across_the_rejected_ones(named: int, index: int) -> None:
    slice_, cause = slice_of(b"x", b"1", b"y", b"3", b"4", b"z"), KeyError("missing")

    def call(records: Records[object]) -> None:
        raise BatchFailed(named, cause)

    outcome = run(slice_, call, batch=True, value=Numbers())

    assert (failure_of(outcome).index, failure_of(outcome).error) == (index, cause)
    assert slice_.done == index
    assert [at for at, _ in slice_.rejected] == [0, 2, 5]


@pytest.mark.parametrize("named", [-1, 2, 99])
def test_an_index_outside_of_the_batch_is_a_failure_of_the_whole_that_says_so(named: int) -> None:
    slice_, cause = slice_of(b"1", b"2"), KeyError("missing")

    def call(records: Records[object]) -> None:
        raise BatchFailed(named, cause)

    outcome = run(slice_, call, batch=True)

    error = failure_of(outcome).error
    assert failure_of(outcome).index is None
    assert str(error) == f"BatchFailed: expected an index within the batch of 2, got {named}"
    assert error.__cause__ is cause
    assert slice_.done == 0


def test_an_index_that_is_no_number_is_a_failure_of_the_whole_as_well() -> None:
    slice_ = slice_of(b"1", b"2")

    def call(records: Records[object]) -> None:
        raise BatchFailed("1", ValueError())  # type: ignore[arg-type]

    outcome = run(slice_, call, batch=True)

    assert failure_of(outcome).index is None
    assert slice_.done == 0


def test_middleware_wraps_the_handler_and_the_first_is_outermost() -> None:
    steps: list[str] = []

    def noting(name: str) -> Middleware:
        def wrap(call: Call) -> Call:
            def wrapped(record: object) -> object:
                steps.append(f"{name} in")
                result = call(record)
                steps.append(f"{name} out")
                return result

            return wrapped

        return wrap

    class Noting(One):
        middleware = (noting("first"), noting("second"))

        def handle(self, record: Record[object]) -> None:
            steps.append("handle")

    declared = declaration(Noting)

    guarded_call(declared, declared.make())(Record(MemoryMessage(AT, 0), 1))

    assert steps == ["first in", "second in", "handle", "second out", "first out"]


def test_middleware_may_turn_a_failure_into_a_success() -> None:
    def forgiving(call: Call) -> Call:
        def wrapped(record: object) -> object:
            try:
                return call(record)
            except ValueError:
                return None

        return wrapped

    class Forgiven(One):
        middleware = (forgiving,)

        def handle(self, record: Record[object]) -> None:
            raise ValueError

    declared, slice_ = declaration(Forgiven), slice_of(b"a")

    outcome = run(slice_, guarded_call(declared, declared.make()))

    assert (outcome.failure, slice_.done) == (None, 1)


def test_a_batch_whose_serde_has_to_wait_asks_once() -> None:
    """Asking a registry that is away takes its whole timeout."""
    asked: list[bytes] = []

    class Asks(Numbers):
        def decode(self, data: bytes, topic: str) -> int:
            asked.append(data)
            return super().decode(data, topic)

    declared = replace(declaration(Many), value=Asks())
    runner = SliceRunner(declared, clock=SystemClock(), max_record_bytes=MAX_BYTES)
    messages = [MemoryMessage(AT, offset, value=value) for offset, value in enumerate([b"1", b"away", b"3"])]
    outcome = runner.run(lambda _records: None, Slice(0, Ownership(AT, 1), messages, 1))

    assert asked == [b"1", b"away"]
    assert outcome.failure is not None
    assert isinstance(outcome.failure.error, DependencyUnavailable)


@pytest.mark.parametrize("batch", [True, False])
def test_values_are_decoded_at_once_where_the_serde_can(*, batch: bool) -> None:
    serde, seen = ManyNumbers(), list[object]()

    def call(records: Records[object] | Record[object]) -> None:
        seen.extend(records.values() if isinstance(records, Records) else [records.value])

    outcome = run(slice_of(b"1", b"2", b"3"), call, batch=batch, value=serde)

    assert (seen, outcome.failure, serde.at_once) == ([1, 2, 3], None, [3])


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize(
    ("values", "expected", "refused"),
    [([b"1", b"x", b"3"], [1, 3], [1]), ([b"1", None, b"3"], [1, None, 3], []), ([b"", b"2"], [2], [0])],
)
def test_what_cannot_be_decoded_at_once_is_decoded_one_by_one(
    values: list[bytes | None], expected: list[object], refused: list[int], *, batch: bool
) -> None:
    slice_, seen = slice_of(*values), list[object]()

    def call(records: Records[object] | Record[object]) -> None:
        seen.extend(records.values() if isinstance(records, Records) else [records.value])

    outcome = run(slice_, call, batch=batch, value=ManyNumbers())

    assert (seen, outcome.failure) == (expected, None)
    assert [index for index, _ in slice_.rejected] == refused


@pytest.mark.parametrize(("size_bytes", "at_once"), [(1, [3]), (512 * 1024, [])])
def test_values_are_not_there_all_at_once_if_they_are_large(size_bytes: int, at_once: list[int]) -> None:
    """They themselves: that their partition had a large one before says nothing."""
    serde, slice_ = ManyNumbers(), slice_of(*[b"1".rjust(size_bytes)] * 3)
    runner = SliceRunner(replace(declaration(One), value=serde), clock=SystemClock(), max_record_bytes=1024 * 1024)
    slice_.largest_bytes = 512 * 1024

    runner.run(lambda _record: None, slice_)

    assert (slice_.done, serde.at_once) == (3, at_once)


def refuse_the_second(record: Record[object]) -> None:
    if record.offset == 101:
        raise PoisonError("no")


def test_the_slice_goes_on_past_poison() -> None:
    slice_ = slice_of(b"a", b"b", b"c")

    outcome = run(slice_, refuse_the_second)

    assert (outcome.failure, slice_.done) == (None, 3)
    assert [(index, str(error)) for index, error in slice_.rejected] == [(1, "no")]


@pytest.mark.parametrize(
    "judged",
    [
        {"rules": (Rule.retry(PoisonError),)},
        {"dead_letter": None},
        {"dead_letter": DeadLetter("dlq", on_exhausted="dlq_key")},
        {"breaker": Breaker("db")},
        {"dependencies": (Breaker("db"),)},
        {"adaptive": Adaptive()},
        {"retry_budget": RetryBudget()},
    ],
    ids=lambda judged: next(iter(judged)),
)
def test_poison_ends_the_slice_where_something_has_to_see_it_first(judged: dict[str, object]) -> None:
    slice_, declared = slice_of(b"a", b"b", b"c"), replace(declaration(One), dead_letter=DLQ)
    runner = SliceRunner(replace(declared, **judged), clock=SystemClock(), max_record_bytes=MAX_BYTES)  # type: ignore[arg-type]

    outcome = runner.run(refuse_the_second, slice_)  # type: ignore[arg-type]  # the engine knows its kind of handler

    assert (failure_of(outcome).index, slice_.done, slice_.rejected) == (1, 1, [])
