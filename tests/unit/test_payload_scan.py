"""Looking for what values hold, of letters that lie anywhere in their topic."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from dead_letters import NOW_MS, TOPIC, letter

from streamworker.record import Origin, TopicPartition
from streamworker.replay.dead_record import DeadRecord, LetterId, Pointer
from streamworker.replay.filters import parse
from streamworker.replay.letter_reader import LetterReader
from streamworker.replay.payload_scan import PayloadScan
from streamworker.replay.view import View
from streamworker.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from streamworker.record import Message


class Kept:
    """A record of a topic, as far as this is about it."""

    def __init__(self, offset: int, value: bytes | None) -> None:
        self._offset = offset
        self._value = value

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes | None:
        return self._value


class Topics:
    """A log whose records are given; remembers which ranges were read."""

    def __init__(self, records: Mapping[TopicPartition, Mapping[int, bytes | None]], clock: VirtualTime) -> None:
        self.records = records
        self.clock = clock
        self.ranges: list[tuple[int, int]] = []

    def bounds(self, partition: TopicPartition, _timeout_s: float) -> tuple[int, int]:
        offsets = self.records.get(partition, {})
        return min(offsets, default=0), max(offsets, default=-1) + 1

    def read(self, ranges: Mapping[TopicPartition, tuple[int, int]], _timeout_s: float) -> Generator[Sequence[Message]]:
        self.clock.wait(1.0, lambda: False)
        for partition, (low, end) in ranges.items():
            self.ranges.append((low, end))
            yield [
                Kept(offset, value)  # type: ignore[misc]  # all that is asked of a message here
                for offset, value in self.records[partition].items()
                if low <= offset < end
            ]


def letters_of(topics: Topics) -> LetterReader:
    def read(_topic: str, message: Message) -> DeadRecord:
        return letter(0, message.offset(), value=message.value())

    return LetterReader(topics, TOPIC, read, 1.0)  # type: ignore[arg-type]  # a log in memory


class Scanned:
    """A topic with values, its view, and a scan over both."""

    def __init__(self, values: Mapping[int, bytes]) -> None:
        clock = VirtualTime()
        self.topics = Topics({TopicPartition(TOPIC, 0): values}, clock)
        self.view = View(TOPIC, clock)
        self.view.add([letter(0, offset, value=value, written_ms=NOW_MS + offset) for offset, value in values.items()])
        self.scan = PayloadScan(self.view, letters_of(self.topics), clock)


def test_pages_of_letters_whose_values_match_come_newest_first_and_none_is_left_out() -> None:
    values = {offset: b"odd" if offset % 2 else b"even" for offset in range(50)}
    scanned = Scanned(values)
    found: list[int] = []
    after: str | None = None

    while True:
        page = scanned.scan.page(parse("payload:odd", NOW_MS), limit=10, after=after)
        found += [row.letter.id.offset for row in page.letters]
        after = page.next
        if after is None:
            break

    assert found == list(range(49, 0, -2))


def test_a_page_ends_when_its_time_is_up_and_the_next_one_goes_on() -> None:
    scanned = Scanned(dict.fromkeys(range(5000), b"x"))

    page = scanned.scan.page(parse("payload:y", NOW_MS), limit=10)

    assert (list(page.letters), page.next is None) == ([], False)
    rest = scanned.scan.page(parse("payload:y", NOW_MS), limit=10, after=page.next)
    assert rest.next is None


def test_letters_that_lie_far_apart_are_read_without_all_that_is_between() -> None:
    topics = Topics({TopicPartition(TOPIC, 0): dict.fromkeys(range(5000), b"v")}, VirtualTime())
    wanted = [LetterId(0, offset) for offset in (1, 5, 4000, 4999)]

    found = [one.id for one in letters_of(topics).read(wanted)]

    assert found == wanted
    assert topics.ranges == [(1, 6), (4000, 4001), (4999, 5000)]


def test_what_retention_has_taken_is_left_out() -> None:
    topics = Topics({TopicPartition(TOPIC, 0): dict.fromkeys(range(10, 20), b"v")}, VirtualTime())

    assert [one.id.offset for one in letters_of(topics).read([LetterId(0, 3), LetterId(0, 12)])] == [12]


@pytest.mark.parametrize(("kept", "expected"), [(b"whole", b"whole"), (b"another", None), (None, None)])
def test_a_value_that_was_too_large_for_its_letter_comes_from_where_it_was_first(
    kept: bytes | None, expected: bytes | None
) -> None:
    pointer = Pointer(sha256(b"whole").hexdigest(), 5, Origin("orders", 0, 7))
    records = {TopicPartition(TOPIC, 0): {0: None}, TopicPartition("orders", 0): {7: kept} if kept else {}}

    def read(_topic: str, message: Message) -> DeadRecord:
        return letter(0, message.offset(), value=None, pointer=pointer)

    reader = LetterReader(Topics(records, VirtualTime()), TOPIC, read, 1.0)  # type: ignore[arg-type]  # as above
    [found] = reader.read([LetterId(0, 0)])

    assert (found.value, found.pointer is None) == (expected, expected is not None)
