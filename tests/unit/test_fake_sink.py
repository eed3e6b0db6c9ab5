"""The sink of the test kit keeps the promises of a `Writer`, and fails when it is told to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from streamworker.errors import ForeignRewind, Misuse, OwnershipLost, RowFailed
from streamworker.interfaces import Row, Written
from streamworker.record import Origin, TopicPartition
from streamworker.testing import FakeSink
from streamworker.work import Place

if TYPE_CHECKING:
    from streamworker.interfaces import Sink, SinkContext, Writer


def opened(sink: Sink) -> Writer:
    """Typed as the protocols, which the fake is checked against here."""
    return sink.writer(cast("SinkContext", None))


def place(owner: str = "one", group: str = "g") -> Place:
    return Place(group=group, partition=TopicPartition("t", 0), lanes=1, lane=0, owner=owner, done_below=0)


def row(offset: int, *values: object, origin: int | None = None, key: bytes | None = b"k") -> Row:
    return Row(offset=offset, origin=Origin("t", 0, offset if origin is None else origin), key=key, values=values)


def test_what_is_written_is_kept_in_order() -> None:
    sink = FakeSink()

    assert opened(sink).write(place(), [row(1, "a", "b"), row(2), row(3, "c")]) == Written()

    assert sink.values == ["a", "b", "c"]
    assert [(effect.row.offset, effect.place) for effect in sink.effects] == [(n, place()) for n in (1, 2, 3)]


def test_a_record_that_comes_again_has_no_second_effect() -> None:
    sink = FakeSink()
    writer = opened(sink)
    writer.write(place(), [row(1, "a")])

    assert writer.write(place(), [row(1, "a"), row(2, "b")]) == Written(repeated=(0,))
    assert writer.write(place(), [row(7, "a", origin=1)]) == Written(repeated=(0,))
    assert writer.write(place(group="another"), [row(1, "c")]) == Written()

    assert sink.values == ["a", "b", "c"]


def test_the_rows_before_a_refused_one_are_written() -> None:
    sink = FakeSink()
    writer = opened(sink)
    writer.write(place(), [row(1, "a")])
    error = ValueError("no number")
    sink.refuse(3, error)
    rows = [row(1, "a"), row(2, "b"), row(3, "c"), row(4, "d")]

    with pytest.raises(RowFailed) as raised:
        writer.write(place(), rows)

    assert (raised.value.index, raised.value.cause, raised.value.written) == (2, error, Written(repeated=(0,)))
    assert sink.values == ["a", "b"]
    assert writer.write(place(), rows[2:]) == Written()
    assert sink.values == ["a", "b", "c", "d"]


def test_an_effect_whose_answer_is_lost_is_known_when_it_comes_again() -> None:
    sink = FakeSink("db")
    writer = opened(sink)
    sink.lose_answers()

    with pytest.raises(ConnectionError, match="db: the answer was lost"):
        writer.write(place(), [row(1, "a")])

    assert sink.values == ["a"]
    assert writer.write(place(), [row(1, "a")]) == Written(repeated=(0,))


def test_nothing_is_written_while_it_is_away() -> None:
    sink = FakeSink("db")
    writer = opened(sink)

    sink.go_away()
    with pytest.raises(ConnectionError, match="db is away"):
        writer.write(place(), [row(1, "a")])
    sink.go_away(TimeoutError("slow"))
    with pytest.raises(TimeoutError, match="slow"):
        writer.write(place(), [row(1, "a")])
    sink.come_back()

    assert sink.values == []
    assert writer.write(place(), [row(1, "a")]) == Written()


def test_an_owner_that_another_has_followed_writes_nothing() -> None:
    sink = FakeSink()
    former, present = opened(sink), opened(sink)
    former.write(place("one"), [row(1, "a")])
    present.write(place("two"), [row(2, "b")])

    with pytest.raises(OwnershipLost, match=r"t\[0\] belongs to two, not to one any more"):
        former.write(place("one"), [row(3, "c")])

    assert sink.values == ["a", "b"]
    assert former.write(place("one", group="another"), [row(3, "c")]) == Written()


@pytest.mark.parametrize(
    ("by_key", "key", "written"),
    [(True, b"k", Written(superseded=(0,))), (True, b"other", Written()), (False, b"k", Written())],
)
def test_by_key_a_record_gives_way_to_a_later_one_of_its_key(by_key: bool, key: bytes, written: Written) -> None:
    sink = FakeSink(by_key=by_key)
    writer = opened(sink)
    writer.write(place(), [row(5, "new")])

    assert writer.write(place(), [row(4, "old", key=key)]) == written
    assert writer.write(place(), [row(6, "newer", key=key)]) == Written()


@pytest.mark.parametrize("offsets", [(2, 1), (1, 1)])
def test_rows_that_are_not_in_order_are_refused(offsets: tuple[int, int]) -> None:
    with pytest.raises(Misuse, match="in offset order"):
        opened(FakeSink()).write(place(), [row(offset) for offset in offsets])


def test_a_writer_that_is_closed_writes_no_more() -> None:
    sink = FakeSink()
    writer = opened(sink)

    writer.close()
    writer.close()

    assert [one.closed for one in sink.writers] == [True]
    with pytest.raises(Misuse, match="closed"):
        writer.write(place(), [row(1, "a")])


def test_with_marks_a_write_leaves_open_what_it_was_told_of() -> None:
    sink = FakeSink(marks=True)
    writer = opened(sink)
    writer.write(replace(place(), open_below=(1,)), [row(0, "a"), row(2, "c")])

    assert writer.write(place(), [row(0, "a"), row(1, "b"), row(2, "c")]) == Written(repeated=(0, 2))
    assert sink.values == ["a", "c", "b"]


def test_with_marks_rows_before_a_refused_one_are_kept() -> None:
    sink = FakeSink(marks=True)
    sink.refuse(1, ValueError("no"))
    writer = opened(sink)

    with pytest.raises(RowFailed):
        writer.write(place(), [row(0, "a"), row(1, "b")])

    assert writer.write(place(), [row(0, "a"), row(1, "b")]) == Written(repeated=(0,))
    assert sink.values == ["a", "b"]


def test_with_marks_an_owner_that_was_followed_is_refused_once_and_then_takes_over() -> None:
    sink = FakeSink(marks=True)
    writer = opened(sink)
    writer.write(place("one"), [row(0, "a")])
    writer.write(place("two"), [row(1, "b")])

    with pytest.raises(OwnershipLost):
        writer.write(place("one"), [row(1, "b")])

    assert writer.write(place("one"), [row(1, "b")]) == Written(repeated=(0,))
    assert sink.values == ["a", "b"]


@pytest.mark.parametrize(("on_rewind", "values"), [("skip", ["a"]), ("apply", ["a", "a"])])
def test_with_marks_a_rewind_is_left_out_or_applied(on_rewind: str, values: list[str]) -> None:
    sink = FakeSink(marks=True, on_rewind=on_rewind)
    writer = opened(sink)
    writer.write(place("one"), [row(0, "a")])

    writer.write(replace(place("two"), foreign=True), [row(0, "a")])

    assert sink.values == values


def test_with_marks_a_rewind_is_refused_unless_it_was_foreseen() -> None:
    writer = opened(FakeSink(marks=True))
    writer.write(place("one"), [row(0, "a")])

    with pytest.raises(ForeignRewind, match="t\\[0\\]@0"):
        writer.write(replace(place("two"), foreign=True), [row(0, "a")])
