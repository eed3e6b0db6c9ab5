"""What crosses between a worker and its child processes, without one: slices, errors, the numbers of a slate."""

from __future__ import annotations

import os
import threading

import pytest
from fleet.computing import Refused

from streamworker import DecodeError, Origin, RetryableError, TopicPartition
from streamworker.errors import CallKilled
from streamworker.processing.handover import (
    Setup,
    answer_of,
    bytes_of_error,
    bytes_of_outcome,
    bytes_of_slice,
    error_of,
    slice_of,
)
from streamworker.processing.slate import Slate, new_file
from streamworker.record import Record, Returned, read_headers
from streamworker.testing.memory_broker import MemoryMessage
from streamworker.work import Failure, Ownership, Slice, SliceOutcome

AT = TopicPartition("t.retry.g.1", 3)


class Unreadable(MemoryMessage):
    """A message whose headers the client cannot read."""

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        raise SystemError


def crossed(slice_: Slice) -> Slice:
    return slice_of(bytes_of_slice(slice_))


def crossed_error(error: BaseException) -> BaseException:
    found = error_of(bytes_of_error(error))
    assert found is not None
    return found


def test_a_slice_comes_out_as_it_went_in() -> None:
    ownership = Ownership(AT, 9)
    ownership.topic = "t"
    headers = [("a", b"1"), ("a", None)]
    messages = [
        MemoryMessage(AT, 5, key=b"k", value=b"v", headers=headers, timestamp_ms=1234),
        MemoryMessage(AT, 8, key=None, value=None),
    ]
    slice_ = Slice(4, ownership, messages, 2)
    slice_.largest_bytes = 100

    there = crossed(slice_)

    first, second = (Record(message, there.attempt) for message in there.messages)
    assert (first.topic, first.partition, first.offset, first.timestamp_ms) == ("t.retry.g.1", 3, 5, 1234)
    assert (first.raw_key, first.raw_value, list(first.headers), first.attempt) == (b"k", b"v", headers, 2)
    assert (second.raw_key, second.raw_value, list(second.headers)) == (None, None, [])
    assert list(map(len, there.messages)) == [1, 0]
    assert (there.ownership.partition, there.ownership.epoch, there.ownership.topic) == (AT, 9, "t")
    assert (there.largest_bytes, there.done) == (100, 0)


def test_a_record_that_came_back_knows_where_it_was_first() -> None:
    origin = Origin("t", 1, 77)
    returned = Returned(MemoryMessage(AT, 5, value=b"v"), origin=origin, timestamp_ms=1234, calls=4, due_ms=99)

    record = Record(crossed(Slice(0, Ownership(AT, 1), [returned], 2)).messages[0], 2)

    assert (record.origin, record.attempt, record.timestamp_ms, record.offset) == (origin, 6, 1234, 5)


def test_headers_that_the_client_could_not_read_stay_unreadable() -> None:
    (message,) = crossed(Slice(0, Ownership(AT, 1), [Unreadable(AT, 5, value=b"v")], 1)).messages

    for _ in range(2):
        assert not read_headers(message).readable


def test_an_outcome_says_what_was_rejected_and_what_failed() -> None:
    slice_ = Slice(0, Ownership(AT, 1), [MemoryMessage(AT, 5)], 1)
    slice_.done = 4
    slice_.rejected.append((2, DecodeError("bad", part="key")))

    answer = answer_of(bytes_of_outcome(SliceOutcome(slice_, 0.5, Failure(4, RetryableError("no", retry_after_s=3)))))

    assert (answer.done, answer.seconds) == (4, 0.5)
    ((index, rejected),) = answer.rejected
    assert (index, type(rejected), vars(rejected)["part"]) == (2, DecodeError, "key")
    assert answer.failure is not None
    assert (answer.failure.index, vars(answer.failure.error)["retry_after_s"]) == (4, 3)


def test_an_error_keeps_its_class_its_attributes_and_its_causes_and_says_where_it_was() -> None:
    def fails_here() -> None:
        raise Refused("this", code=7) from KeyError("inner")

    with pytest.raises(Refused) as raised:
        fails_here()
    error = crossed_error(raised.value)

    assert isinstance(error, Refused)
    assert (str(error), error.code) == ("this was refused", 7)
    assert isinstance(error.__cause__, KeyError)
    assert error.__cause__.__cause__ is None
    assert "fails_here" in error.__notes__[0]


def test_what_of_an_error_cannot_be_pickled_is_left_out() -> None:
    error = ValueError("bad", threading.Lock())
    error.lock, error.code = threading.Lock(), 7  # type: ignore[attr-defined]

    found = crossed_error(error)

    assert (type(found), found.args[0], vars(found)["code"]) == (ValueError, "bad", 7)
    assert "lock" not in vars(found)


def test_an_error_of_a_class_that_cannot_be_imported_is_what_that_is_based_on() -> None:
    class LocalError(ConnectionResetError):
        """Known in this process only."""

    class LocalExit(BaseException):
        """Not even an Exception."""

    found, other = crossed_error(LocalError("gone")), crossed_error(LocalExit("end"))

    assert (type(found), str(found)) == (ConnectionResetError, "LocalError: gone")
    assert (type(other), str(other)) == (BaseException, "LocalExit: end")


def test_a_call_that_was_killed_says_so_wherever_it_goes() -> None:
    found = crossed_error(CallKilled("died", exit_code=-9))

    assert isinstance(found, CallKilled)
    assert found.exit_code == -9


def test_a_setup_with_what_cannot_be_pickled_raises() -> None:
    setup = Setup(
        module="m",
        qualified_name="q",
        app={"l": threading.Lock()},
        sinks={},
        claims=None,
        producer={},
        group="g",
        max_record_bytes=1,
        log=None,
    )
    with pytest.raises(TypeError, match="pickle"):
        setup.to_bytes()


def test_each_side_of_a_slate_reads_what_the_other_wrote() -> None:
    file = new_file()
    worker, child = Slate(file), Slate(file)
    os.close(file)
    here, there = (Slice(0, Ownership(AT, 1), [MemoryMessage(AT, 5)], 1) for _ in range(2))

    here.ownership.closing, here.ownership.closes_at, here.ownership.ends_s = True, 2**60 + 1, 4.5
    here.ownership.lease.until_s, here.ownership.lease.lost_s, here.given_up = 6.5, 7.5, True
    worker.tell(here)
    child.heed(there)
    child.begin(3, 8.5)

    assert (there.ownership.closing, there.ownership.closes_at, there.ownership.ends_s) == (True, 2**60 + 1, 4.5)
    assert (there.ownership.lease.until_s, there.ownership.lease.lost_s, there.given_up) == (6.5, 7.5, True)
    assert worker.called == (3, 8.5)

    here.ownership.closing, here.ownership.lease.until_s = False, float("inf")
    worker.tell(here)
    child.heed(there)

    assert (there.ownership.closing, there.ownership.lease.until_s) == (False, float("inf"))
