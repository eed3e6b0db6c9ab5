"""Letters with their values and states, as an export reads them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from dead_letters import NOW_MS, TOPIC, disposition, letter

from streamworker.clock import SystemClock
from streamworker.replay.dead_record import LetterId
from streamworker.replay.filters import parse
from streamworker.replay.letter_stream import letters
from streamworker.replay.states import State
from streamworker.replay.view import Said, View

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from streamworker.replay.dead_record import DeadRecord


class Reader:
    """Has these letters, and notes how many are asked for at once."""

    def __init__(self, *there: DeadRecord) -> None:
        self.asked: list[int] = []
        self._there = {one.id: one for one in there}

    def read(self, ids: Sequence[LetterId]) -> Iterator[DeadRecord]:
        assert len({one.partition for one in ids}) == 1
        self.asked.append(len(ids))
        yield from (self._there[one] for one in ids if one in self._there)


def found(folder: Path, text: str, *there: DeadRecord, gone: Sequence[LetterId] = ()) -> list[tuple[str, State]]:
    with closing(View(TOPIC, SystemClock(), folder=folder)) as view:
        view.add(there)
        view.say([Said(LetterId(1, 0), 0, disposition(State.DISCARDED, b"one"))])
        reader = Reader(*(one for one in there if one.id not in gone))
        return [(str(one.id), row.state) for one, row in letters(view, reader, parse(text, NOW_MS))]


def test_they_come_in_the_order_of_their_places_with_their_states(tmp_path: Path) -> None:
    there = [letter(1, 1), letter(0, 5), letter(1, 0, value=b"one"), letter(0, 2)]

    assert found(tmp_path, "", *there) == [
        ("0:2", State.PENDING),
        ("0:5", State.PENDING),
        ("1:0", State.DISCARDED),
        ("1:1", State.PENDING),
    ]


def test_only_what_the_filter_chooses_is_read_and_payloads_are_searched(tmp_path: Path) -> None:
    there = [letter(0, 0, value=b"needle", reason="poison"), letter(0, 1, value=b"hay", reason="poison"), letter(0, 2)]

    assert found(tmp_path, "reason:poison payload~needle", *there) == [("0:0", State.PENDING)]


def test_what_retention_takes_meanwhile_is_left_out(tmp_path: Path) -> None:
    there = [letter(0, 0), letter(0, 1)]

    assert found(tmp_path, "", *there, gone=[LetterId(0, 0)]) == [("0:1", State.PENDING)]


def test_many_are_read_in_parts_of_one_partition(tmp_path: Path) -> None:
    there = [letter(partition, offset) for partition in (0, 1) for offset in range(1200)]
    with closing(View(TOPIC, SystemClock(), folder=tmp_path)) as view:
        view.add(there)
        reader = Reader(*there)

        read = list(letters(view, reader, parse("", NOW_MS)))

    assert len(read) == 2400
    assert reader.asked == [500, 500, 200] * 2
