"""In which order a view is filled from its topics, over a log in memory."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from dead_letters import NOW_MS, TOPIC, disposition, letter

from streamworker.clock import SystemClock
from streamworker.errors import ClientError
from streamworker.record import TopicPartition
from streamworker.replay.dead_record import LetterId
from streamworker.replay.filters import Filter, parse
from streamworker.replay.states import State, encode, key_of, state_topic
from streamworker.replay.view import View
from streamworker.replay.view_builder import ViewBuilder
from streamworker.testing.memory_broker import MemoryMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from streamworker.record import Message
    from streamworker.replay.dead_record import DeadRecord
    from streamworker.replay.states import Disposition

ALL = Filter()
STATES = state_topic(TOPIC)


class MemoryLog:
    """Topics with two partitions, whose offsets begin where `lowest` says."""

    def __init__(self) -> None:
        self.records: dict[TopicPartition, list[tuple[bytes | None, bytes | None]]] = {}
        self.lowest: dict[TopicPartition, int] = {}
        self.reads: list[Mapping[TopicPartition, tuple[int, int]]] = []
        self.fails_after: int | None = None
        self.batch = 7
        self.before_batch: Callable[[], object] = lambda: None
        self.recreate()

    def recreate(self) -> None:
        self.records = {TopicPartition(topic, number): [] for topic in (TOPIC, STATES) for number in range(2)}

    def fill(self, partition: int, count: int) -> None:
        self.records[TopicPartition(TOPIC, partition)] += [(b"k", b"v")] * count

    def say(self, partition: int, key: bytes | None, value: bytes | None) -> None:
        self.records[TopicPartition(STATES, partition)].append((key, value))

    def bounds(self, partition: TopicPartition, timeout_s: float) -> tuple[int, int]:
        return self.lowest.get(partition, 0), len(self.records[partition])

    def read(self, ranges: Mapping[TopicPartition, tuple[int, int]], timeout_s: float) -> Iterator[Sequence[Message]]:
        self.reads.append(ranges)
        found = [(one, offset) for one, (low, end) in ranges.items() for offset in range(low, end)]
        for first in range(0, len(found), self.batch):
            if self.fails_after is not None and first >= self.fails_after:
                raise ClientError("no answer", code="_TIMED_OUT")
            self.before_batch()
            yield [self._message(*place) for place in found[first : first + self.batch]]

    def _message(self, partition: TopicPartition, offset: int) -> Message:
        key, value = self.records[partition][offset]
        return MemoryMessage(partition, offset, key=key, value=value)


def read(topic: str, message: Message) -> DeadRecord:
    assert message.topic() == topic
    return letter(message.partition(), message.offset(), written_ms=message.offset(), value=message.value())


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    with closing(View(TOPIC, SystemClock(), folder=tmp_path)) as view:
        yield view


@pytest.fixture
def builder(view: View, log: MemoryLog) -> ViewBuilder:
    return ViewBuilder(view, log, read, partitions=2, state_partitions=2, timeout_s=1.0)


def said(log: MemoryLog, place: LetterId, one: Disposition | None) -> None:
    log.say(place.partition, key_of(place), None if one is None else encode(one))


def finish(builder: ViewBuilder) -> None:
    while builder.step():
        pass


def test_the_newest_letters_of_each_partition_are_there_after_one_step(
    log: MemoryLog, view: View, builder: ViewBuilder
) -> None:
    log.fill(0, 5000)
    log.fill(1, 3000)

    more = builder.step()

    assert more
    assert not builder.complete
    assert view.built == 2000 / 8000
    assert [view.count(parse(text, NOW_MS)) for text in ("", "offset:4000..4999", "offset:2000..2999")] == [
        2000,
        1000,
        1000,
    ]


def test_how_much_is_there_is_told_while_it_is_read(log: MemoryLog, view: View, builder: ViewBuilder) -> None:
    """What was said is part of it: there may be as much as there are letters."""
    log.batch = 500
    log.fill(0, 3000)
    for offset in range(1000):
        said(log, LetterId(0, offset), disposition(State.REPLAYED))
    told: list[float] = []
    log.before_batch = lambda: told.append(view.built)

    finish(builder)

    assert [*told, view.built] == [number / 8 for number in range(9)]


def test_all_is_read_once_and_parts_grow(log: MemoryLog, view: View, builder: ViewBuilder) -> None:
    log.fill(0, 9000)
    log.fill(1, 10)

    finish(builder)

    sizes = [sum(end - low for low, end in ranges.values()) for ranges in log.reads]
    assert sizes == [1010, 2000, 4000, 2000]
    assert (view.count(ALL), view.built, builder.complete) == (9010, 1.0, True)


def test_what_was_said_is_known_before_the_first_letter(log: MemoryLog, view: View, builder: ViewBuilder) -> None:
    log.fill(0, 3)
    said(log, LetterId(0, 1), disposition(State.REPLAYED))

    finish(builder)

    assert [{one.topic for one, (low, end) in ranges.items() if low < end} for ranges in log.reads] == [
        {STATES},
        {TOPIC},
    ]
    assert list(view.ids(parse("state:replayed", NOW_MS))) == [LetterId(0, 1)]


def test_what_comes_later_is_followed(log: MemoryLog, view: View, builder: ViewBuilder) -> None:
    """Also while older letters are still read."""
    log.fill(0, 4000)
    builder.step()

    log.fill(0, 5)
    log.fill(1, 1)
    said(log, LetterId(0, 4004), disposition(State.DISCARDED))
    said(log, LetterId(0, 7), disposition(State.REPLAYED))
    builder.step()
    while_it_builds = list(view.ids(parse("offset:4000.. ", NOW_MS))), view.count(parse("partition:1", NOW_MS))
    finish(builder)
    said(log, LetterId(0, 7), None)
    builder.step()

    assert while_it_builds == ([LetterId(0, offset) for offset in range(4000, 4005)], 1)
    assert list(view.ids(parse("-state:pending", NOW_MS))) == [LetterId(0, 4004)]
    assert builder.reached == {
        TopicPartition(TOPIC, 0): 4005,
        TopicPartition(TOPIC, 1): 1,
        TopicPartition(STATES, 0): 3,
        TopicPartition(STATES, 1): 0,
    }


def test_a_step_without_anything_new_reads_nothing(log: MemoryLog, builder: ViewBuilder) -> None:
    log.fill(0, 3)
    finish(builder)
    log.reads.clear()

    assert not builder.step()
    assert log.reads == []


def test_deleted_letters_are_neither_read_nor_kept(log: MemoryLog, view: View, builder: ViewBuilder) -> None:
    log.fill(0, 5000)
    log.lowest[TopicPartition(TOPIC, 0)] = 1000
    builder.step()
    log.lowest[TopicPartition(TOPIC, 0)] = 4500
    finish(builder)

    assert list(view.ids(ALL)) == [LetterId(0, offset) for offset in range(4500, 5000)]
    assert view.built == 1.0


@pytest.mark.parametrize("fails_after", [0, 7, 700])
def test_a_cluster_that_goes_silent_costs_nothing_but_time(
    log: MemoryLog, view: View, builder: ViewBuilder, fails_after: int
) -> None:
    log.fill(0, 3000)
    for offset in range(1000):
        said(log, LetterId(0, offset), disposition(State.REPLAYED))

    for silent in (True, False, True, False, True, False):
        log.fails_after = fails_after if silent else None
        try:
            builder.step()
        except ClientError:
            assert silent
    finish(builder)

    assert view.count(parse("state:replayed", NOW_MS)) == 1000
    assert view.count(ALL) == 3000


def test_a_topic_that_was_made_anew_is_read_anew(log: MemoryLog, view: View, builder: ViewBuilder) -> None:
    log.fill(0, 10)
    finish(builder)

    log.recreate()
    log.fill(0, 4)
    finish(builder)

    assert list(view.ids(ALL)) == [LetterId(0, offset) for offset in range(4)]


def test_states_and_partitions_may_come_later(log: MemoryLog, view: View) -> None:
    builder = ViewBuilder(view, log, read, partitions=1, state_partitions=0, timeout_s=1.0)
    log.fill(0, 2)
    log.fill(1, 2)
    said(log, LetterId(1, 1), disposition(State.REPLAYED))
    finish(builder)
    before = view.count(ALL)

    builder.partitions, builder.state_partitions = 2, 2
    finish(builder)

    assert (before, view.count(ALL), view.count(parse("state:replayed", NOW_MS))) == (2, 4, 1)


@pytest.mark.parametrize(
    ("partition", "key", "value"),
    [
        (0, b"nonsense", encode(disposition(State.REPLAYED))),
        (0, None, encode(disposition(State.REPLAYED))),
        (0, b"\xff", None),
        (0, b"0:1", b"{}"),
        (0, b"0:1", b'{"v": 2, "state": "replayed", "op_id": "x", "actor": "x", "at_ms": 1}'),
        (1, b"0:1", encode(disposition(State.REPLAYED))),
    ],
)
def test_entries_that_cannot_be_read_are_counted(
    log: MemoryLog, view: View, builder: ViewBuilder, partition: int, key: bytes | None, value: bytes | None
) -> None:
    log.fill(0, 3)
    log.say(partition, key, value)

    finish(builder)

    assert view.ignored == 1
    assert view.count(parse("state:pending", NOW_MS)) == 3


def test_an_empty_topic_is_complete(view: View, builder: ViewBuilder) -> None:
    assert not builder.step()
    assert (view.built, builder.complete) == (1.0, True)


def test_where_the_topic_has_grown_and_its_states_have_not_what_is_said_of_the_others_counts(
    log: MemoryLog, view: View
) -> None:
    del log.records[TopicPartition(STATES, 1)]
    log.fill(0, 1)
    log.fill(1, 1)
    said(log, LetterId(0, 0), disposition(State.DISCARDED))
    builder = ViewBuilder(view, log, read, partitions=2, state_partitions=1, timeout_s=1.0)

    finish(builder)

    assert (view.count(parse("state:pending", NOW_MS)), view.count(ALL)) == (1, 2)
