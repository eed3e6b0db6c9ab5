"""The marks of dead letters: any of them may come at any time, and each has its effect once."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.errors import RowFailed
from streamworker.interfaces import Row
from streamworker.record import Origin, TopicPartition
from streamworker.replay.letter_marks import LANES, LetterSink
from streamworker.sinks.marks import lane_of
from streamworker.testing import FakeSink
from streamworker.work import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.interfaces import SinkContext, Writer

LETTERS = TopicPartition("dlq", 0)


def writer_to(sink: FakeSink, topic_id: str | None = "id") -> Writer:
    return LetterSink(sink, topic_id).writer(cast("SinkContext", None))


def rows_at(offsets: Sequence[int]) -> list[Row]:
    return [Row(one, Origin("in", 0, one), key_of(one), [one]) for one in offsets]


def key_of(offset: int) -> bytes | None:
    return None if offset % 5 == 0 else str(offset % 7).encode()


def place_of(owner: str, lane: int = 0) -> Place:
    return Place(group="g", partition=LETTERS, lanes=LANES, lane=lane, owner=owner, done_below=5000)


@given(
    st.lists(st.tuples(st.sets(st.integers(0, 2100), max_size=12), st.booleans(), st.booleans()), max_size=8),
)
def test_each_letter_has_its_effect_once_whatever_is_chosen_and_however_it_is_cut(
    runs: Sequence[tuple[set[int], bool, bool]],
) -> None:
    sink = FakeSink(marks=True)
    chosen: set[int] = set()

    for number, (offsets, in_one_lane, twice) in enumerate(runs):
        rows = rows_at(sorted(offsets))
        lanes = [rows] if in_one_lane else [[one for one in rows if _lane(one) == lane] for lane in range(LANES)]
        writer = writer_to(sink)
        for lane, of_lane in enumerate(lanes):
            for _ in range(2 if twice else 1):
                writer.write(place_of(f"process-{number}", lane), of_lane)
        chosen |= offsets

    assert sorted(cast("Sequence[int]", sink.values)) == sorted(chosen)


def _lane(row: Row) -> int:
    return lane_of(row.key, row.offset, LANES)


def test_what_was_written_before_is_told_as_repeated() -> None:
    sink = FakeSink(marks=True)
    writer = writer_to(sink)

    writer.write(place_of("a"), rows_at([1, 3, 2000]))
    written = writer.write(place_of("a"), rows_at([1, 2, 3, 4, 2000]))

    assert list(written.repeated) == [0, 2, 4]


def test_a_row_that_fails_is_named_by_its_place_among_all() -> None:
    sink = FakeSink(marks=True)
    sink.refuse(3, ValueError("too long"))

    with pytest.raises(RowFailed) as failed:
        writer_to(sink).write(place_of("a"), rows_at([1, 2, 3, 4]))

    assert failed.value.index == 2
    assert sink.values == [1, 2]


def test_what_stands_before_a_write_that_fails_as_a_whole_is_told_to_be_there() -> None:
    sink = FakeSink(marks=True)
    sink.lose_answers(1)
    writer = writer_to(sink)

    with pytest.raises(ConnectionError):
        writer.write(place_of("a"), rows_at([1]))
    sink.lose_answers(0)
    written = writer.write(place_of("a"), rows_at([1, 2]))

    assert list(written.repeated) == [0]
    assert sink.values == [1, 2]


def test_a_group_that_reads_the_dead_letter_topic_itself_has_other_marks() -> None:
    sink = FakeSink(marks=True)

    writer_to(sink).write(place_of("a"), rows_at([1]))
    sink.write(place_of("b"), rows_at([1]))

    assert sink.values == [1, 1]
