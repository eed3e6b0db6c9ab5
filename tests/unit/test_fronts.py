"""How far dead letters are settled: what may be deleted, and what must never be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest
from dead_letters import TOPIC, disposition
from hypothesis import given
from hypothesis import strategies as st
from memory_log import MemoryLog

from streamworker.interfaces import CommitAnswer, OffsetMark
from streamworker.record import TopicPartition
from streamworker.replay import families
from streamworker.replay.dead_record import LetterId
from streamworker.replay.fronts import SETTLED, Fronts
from streamworker.replay.mirror import mirror, open_of
from streamworker.replay.states import State, digest, encode, key_of, state_topic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.replay.fronts import Front

LETTERS = TopicPartition(TOPIC, 0)


class World:
    """A dead-letter topic of one partition, whose letters have their offset as value."""

    def __init__(self, letters: int = 0, *, topic_id: str | None = None, has_states: bool = True) -> None:
        self.log = MemoryLog()
        self.fronts = Fronts(self.log, TOPIC, families.read, topic_id=topic_id, has_states=has_states, timeout_s=5.0)
        for offset in range(letters):
            self.log.append(TOPIC, value=b"%d" % offset)

    def say(self, state: State | None, offset: int, value: bytes | None = b"", **more: str) -> None:
        said = disposition(state or State.PENDING, b"%d" % offset if value == b"" else value)
        key = key_of(LetterId(0, offset))
        self.log.append(
            state_topic(TOPIC), key=key, value=None if state is None else encode(msgspec.structs.replace(said, **more))
        )

    def front(self) -> Front:
        return self.fronts.of(0)


@pytest.mark.parametrize("state", list(State))
def test_letters_are_settled_if_they_were_sent_discarded_or_are_duplicates(state: State) -> None:
    world = World(3)
    world.say(state, 0)

    front = world.front()

    settled = state in {State.REPLAYED, State.REPAIRED, State.DISCARDED, State.DUPLICATE}
    assert (front.open, front.settled, front.done) == (int(settled), int(settled), False)


def test_the_front_is_the_first_open_letter_whatever_is_settled_behind_it() -> None:
    world = World(5)
    for offset in (0, 1, 3, 4):
        world.say(State.DISCARDED, offset)

    assert (world.front().open, world.front().settled) == (2, 2)


def test_where_all_are_settled_the_front_is_the_end() -> None:
    world = World(2)
    world.say(State.REPLAYED, 0)
    world.say(State.REPAIRED, 1)

    front = world.front()

    assert (front.open, front.end, front.done) == (2, 2, True)


def test_an_empty_partition_is_done() -> None:
    assert World().front().done


def test_without_a_state_topic_all_is_open() -> None:
    world = World(2, has_states=False)

    assert world.fronts.now(world.front()).open == 0


@pytest.mark.parametrize(
    ("value", "more"),
    [
        (b"another payload", {}),
        (None, {}),
        (b"", {"topic_id": "an older topic of this name"}),
    ],
)
def test_what_was_said_of_another_letter_settles_nothing(value: bytes | None, more: Mapping[str, str]) -> None:
    world = World(1, topic_id="this topic")
    world.say(State.DISCARDED, 0, value, **more)

    assert world.front().open == 0


def test_what_cannot_be_read_settles_nothing() -> None:
    world = World(1)
    world.say(State.DISCARDED, 0)
    world.log.append(state_topic(TOPIC), key=b"0:0", value=b'{"v":99}')

    assert world.front().open == 0


def test_a_letter_that_points_to_its_value_is_settled_by_the_hash_of_that_value() -> None:
    world = World()
    large = b"x" * 1000
    pointer = {"sha256": digest(large), "size": 1000, "topic": "orders", "partition": 0, "offset": 3}
    world.log.append(TOPIC, headers=[("sw-version", b"1"), ("sw-pointer", json.dumps(pointer).encode())])
    world.say(State.REPLAYED, 0, large)

    assert world.front().done


def test_what_is_made_pending_again_meanwhile_is_not_below_the_front() -> None:
    world = World(4)
    for offset in range(4):
        world.say(State.DISCARDED, offset)
    front = world.front()
    world.say(State.PENDING, 2)

    now = world.fronts.now(front)

    assert (front.open, now.open, now.settled) == (4, 2, 2)


def test_a_mark_that_is_taken_back_meanwhile_opens_its_letter_and_others_change_nothing() -> None:
    world = World(4)
    for offset in range(3):
        world.say(State.DISCARDED, offset)
    front = world.front()
    world.say(State.DISCARDED, 3)
    world.log.append(state_topic(TOPIC), key=b"7:0", value=None)  # of another partition

    assert world.fronts.now(front).open == 3
    world.say(None, 0)
    assert (world.fronts.now(front).open, world.fronts.now(front).settled) == (0, 0)


@given(
    said=st.lists(st.tuples(st.integers(0, 6), st.sampled_from([*State, None])), max_size=20), since=st.integers(0, 20)
)
def test_nothing_below_a_front_is_open(said: Sequence[tuple[int, State | None]], since: int) -> None:
    world = World(7)
    for offset, state in said[:since]:
        world.say(state, offset)
    front = world.front()
    for offset, state in said[since:]:
        world.say(state, offset)

    now = world.fronts.now(front)

    last: dict[int, State | None] = dict(said)
    assert all(last.get(offset) in SETTLED for offset in range(now.open))
    assert now.settled == now.open


class Group:
    def __init__(self, error: str | None = None) -> None:
        self.marks: dict[tuple[str, TopicPartition], int] = {}
        self._error = error

    def set_group_offsets(
        self, group: str, marks: Mapping[TopicPartition, OffsetMark], timeout_s: float
    ) -> Sequence[CommitAnswer]:
        del timeout_s
        self.marks.update({(group, partition): mark.offset for partition, mark in marks.items()})
        return [CommitAnswer(partition, mark, self._error) for partition, mark in marks.items()]


@pytest.mark.parametrize("error", [None, "GROUP_AUTHORIZATION_FAILED"])
def test_the_mirror_shows_the_front_as_the_offset_of_a_group(error: str | None) -> None:
    world, group = World(3), Group(error)
    world.say(State.DISCARDED, 0)

    refused = mirror(group, TOPIC, open_of([world.front()]), 5.0)

    assert group.marks == {("sw-dlq-orders.dlq", LETTERS): 1}
    assert refused == ({} if error is None else {LETTERS: error})
