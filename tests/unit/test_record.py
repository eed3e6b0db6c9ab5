"""What a handler sees of a record and of a batch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.record import Record, Records, TopicPartition, read_headers
from streamworker.testing.memory_broker import MemoryMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.record import Header

AT = TopicPartition("orders", 3)


class TimedMessage(MemoryMessage):
    """A message with any timestamp."""

    def __init__(self, kind: int, timestamp_ms: int) -> None:
        super().__init__(AT, 0)
        self._timestamp = (kind, timestamp_ms)

    def timestamp(self) -> tuple[int, int]:
        return self._timestamp


class TrapMessage(MemoryMessage):
    """Headers that the client cannot read: an error at the first touch, a crash of the process at the second."""

    def __init__(self) -> None:
        super().__init__(AT, 0)
        self.touches = 0
        self._replaced: list[Header] | None = None

    def headers(self) -> list[Header] | None:
        if self._replaced is not None:
            return self._replaced
        self.touches += 1
        assert self.touches == 1, "the process would have crashed here"
        raise SystemError("returned a result with an exception set")

    def set_headers(self, headers: list[Header]) -> None:
        self._replaced = headers


class CountingMessage(MemoryMessage):
    """Counts how often its headers are read."""

    reads = 0

    def headers(self) -> list[Header] | None:
        self.reads += 1
        return super().headers()


def record(headers: Sequence[Header] = (), attempt: int = 1) -> Record[dict[str, int]]:
    message = MemoryMessage(AT, 1207, key=b"k", value=b'{"a":1}', headers=headers)
    return Record(message, attempt, {"a": 1}, "k")


def batch(size: int, *, values: list[str] | None = None, keys: list[object] | None = None) -> Records[object]:
    messages = [MemoryMessage(AT, 10 + number, key=b"k%d" % number, value=b"v%d" % number) for number in range(size)]
    return Records(messages, values, keys, 2)


def test_a_record_says_where_it_was_and_what_it_is() -> None:
    one = record(attempt=3)

    assert (one.topic, one.partition, one.offset) == ("orders", 3, 1207)
    assert (one.value, one.key, one.raw_value, one.raw_key) == ({"a": 1}, "k", b'{"a":1}', b"k")
    assert one.attempt == 3
    assert repr(one) == "<Record orders[3]@1207 attempt 3>"


@pytest.mark.parametrize("name", ["value", "key", "offset", "headers", "attempt", "timestamp", "anything"])
def test_a_record_is_read_only(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(record(), name, 1)


def test_headers_keep_their_order_and_their_duplicates() -> None:
    given_headers: list[Header] = [("a", b"1"), ("b", None), ("a", b"2"), ("", b"")]

    headers = record(given_headers).headers

    assert list(headers) == given_headers
    assert headers.readable
    assert (headers.last("a"), headers.last("b"), headers.last("c")) == (b"2", None, None)


def test_headers_are_read_from_the_client_once_and_only_if_asked_for() -> None:
    message = CountingMessage(AT, 0, headers=[("a", b"1")])
    one = Record(message, 1)
    assert message.reads == 0

    first, second = one.headers, one.headers

    assert first is second
    assert message.reads == 1


def test_a_record_without_headers_has_none() -> None:
    assert list(record().headers) == []
    assert record().headers.readable


def test_unreadable_headers_are_empty_and_the_client_is_never_asked_again() -> None:
    message = TrapMessage()

    of_two_records = [Record(message, attempt).headers for attempt in (1, 2)]

    for headers in [*of_two_records, read_headers(message)]:
        assert list(headers) == []
        assert not headers.readable
    assert message.touches == 1


def test_another_error_than_the_clients_own_is_not_hidden() -> None:
    class Broken(MemoryMessage):
        def headers(self) -> list[Header] | None:
            raise RuntimeError("not the trap")

    with pytest.raises(RuntimeError):
        read_headers(Broken(AT, 0))


@pytest.mark.parametrize(
    ("kind", "timestamp_ms", "in_ms", "as_time"),
    [
        (1, 0, 0, datetime(1970, 1, 1, tzinfo=UTC)),
        (2, 1_700_000_000_123, 1_700_000_000_123, datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)),
        (0, 5, None, None),
        (1, -1, None, None),
        (0, -1, None, None),
        (1, 253_402_300_799_999, 253_402_300_799_999, datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)),
        (1, 253_402_300_800_000, 253_402_300_800_000, None),
        (1, 2**63 - 1, 2**63 - 1, None),
    ],
)
def test_a_timestamp_that_is_missing_or_beyond_the_calendar_is_none(
    kind: int, timestamp_ms: int, in_ms: int | None, as_time: datetime | None
) -> None:
    one = Record(TimedMessage(kind, timestamp_ms), 1)

    assert one.timestamp_ms == in_ms
    assert one.timestamp == as_time


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2))
def test_no_timestamp_is_an_error(timestamp_ms: int, kind: int) -> None:
    one = Record(TimedMessage(kind, timestamp_ms), 1)

    assert one.timestamp is None or one.timestamp.tzinfo is UTC


@pytest.mark.parametrize(("values", "keys"), [(None, None), (["a", "b"], None), (None, [1, 2]), (["a", "b"], [1, 2])])
def test_a_batch_is_gone_through_as_it_is_indexed(values: list[str] | None, keys: list[object] | None) -> None:
    records = batch(2, values=values, keys=keys)

    gone_through = [(one.offset, one.value, one.key, one.attempt) for one in records]

    assert gone_through == [(one.offset, one.value, one.key, one.attempt) for one in (records[0], records[1])]


def test_a_batch_without_serdes_is_bytes() -> None:
    records = batch(2)

    assert list(records.values()) == records.raw() == [b"v0", b"v1"]
    assert [(one.value, one.key, one.offset, one.attempt) for one in records] == [
        (b"v0", b"k0", 10, 2),
        (b"v1", b"k1", 11, 2),
    ]


def test_a_batch_with_serdes_is_values_and_still_has_the_bytes() -> None:
    records = batch(2, values=["a", "b"], keys=[1, 2])

    assert list(records.values()) == ["a", "b"]
    assert records.raw() == [b"v0", b"v1"]
    assert [(one.value, one.key, one.raw_key) for one in records] == [("a", 1, b"k0"), ("b", 2, b"k1")]


@given(
    st.integers(0, 6),
    st.sampled_from([None, ["a", "b", "c", "d", "e", "f"]]),
    st.slices(6),
)
def test_a_slice_of_a_batch_is_a_batch_of_the_same_records(size: int, values: list[str] | None, part: slice) -> None:
    records = batch(size, values=None if values is None else values[:size])

    sliced = records[part]

    assert isinstance(sliced, Records)
    assert [one.offset for one in sliced] == [one.offset for one in records][part]
    assert list(sliced.values()) == list(records.values())[part]
    assert all(one.attempt == 2 for one in sliced)


def test_a_batch_is_a_sequence() -> None:
    records = batch(3)

    assert len(records) == 3
    assert records[-1].offset == 12
    assert [one.offset for one in reversed(records)] == [12, 11, 10]
    assert repr(records) == "<Records 3 attempt 2>"
    with pytest.raises(IndexError):
        records[3]


def test_a_batch_cannot_be_changed() -> None:
    records = batch(2)

    with pytest.raises(TypeError):
        records[0] = records[1]  # type: ignore[index]
    with pytest.raises(AttributeError):
        records.anything = 1  # type: ignore[attr-defined]
