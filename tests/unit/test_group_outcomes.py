"""What became of replays, as a cluster in memory shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from memory_log import MemoryLog

from streamworker.interfaces import OffsetMark
from streamworker.record import TopicPartition
from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import Outcome
from streamworker.replay.group_outcomes import Addressee, GroupOutcomes
from streamworker.replay.states import Target

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from streamworker.cluster import Cluster
    from streamworker.replay.topic_log import TopicLog

LETTERS = "orders.dlq"
LETTER = LetterId(0, 0)
COPY = Target("orders.replay.shop", 0, 7)
NOW_MS = 1_000_000


class World:
    """A cluster whose group has passed the copy."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.log.append(LETTERS, value=b"first", timestamp_ms=NOW_MS - 500)
        self.outcomes = GroupOutcomes(
            cast("Cluster", self),
            cast("TopicLog", self.log),
            LETTERS,
            lambda _letter, _target: Addressee("shop", "orders"),
            since_ms=NOW_MS,
            timeout_s=1.0,
        )

    def topics(self, timeout_s: float) -> Collection[str]:
        return {LETTERS, COPY.topic}

    def partitions(self, topic: str, timeout_s: float) -> Sequence[TopicPartition]:
        return [TopicPartition(topic, 0)]

    def group_offsets(self, group: str, partitions: None, timeout_s: float) -> Mapping[TopicPartition, OffsetMark]:
        return {TopicPartition(COPY.topic, 0): OffsetMark(8)}

    def offsets_at(
        self, partitions: Sequence[TopicPartition], at_ms: int, timeout_s: float
    ) -> Mapping[TopicPartition, int]:
        """As a broker does: the first that is not before."""
        return {one: self.log.bounds(one, timeout_s)[1] for one in partitions}

    def comes_back(self) -> None:
        """At a worker whose clock is behind."""
        self.log.append(LETTERS, headers=[("sw-parent", b"orders.dlq/0/0")], timestamp_ms=NOW_MS - 60_000)


@pytest.fixture
def world() -> World:
    return World()


def test_what_the_group_has_passed_and_did_not_come_back_is_handled(world: World) -> None:
    world.outcomes.begin()

    assert world.outcomes.look({LETTER: COPY}) == {LETTER: Outcome.HANDLED}


def test_what_came_back_is_found_although_the_clock_of_who_wrote_it_is_behind(world: World) -> None:
    world.outcomes.begin()

    world.comes_back()

    assert world.outcomes.look({LETTER: COPY}) == {LETTER: Outcome.RETURNED}


def test_what_came_back_of_an_earlier_replay_does_not_count(world: World) -> None:
    world.comes_back()

    world.outcomes.begin()

    assert world.outcomes.look({LETTER: COPY}) == {LETTER: Outcome.HANDLED}
