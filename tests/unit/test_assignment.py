"""Who owns which partition, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sizes import SOAK

from streamworker.record import TopicPartition
from streamworker.source.assignment import Assignment

if TYPE_CHECKING:
    from streamworker.work import Ownership

PARTITIONS = [TopicPartition("t", number) for number in range(3)]
SOME_PARTITIONS = st.sets(st.sampled_from(PARTITIONS))


class AssignmentMachine(RuleBasedStateMachine):
    """Partitions are assigned, closed and ended between fetches."""

    @initialize()
    def begin(self) -> None:
        self.assignment = Assignment()
        self.owned: dict[TopicPartition, Ownership] = {}
        self.past: list[Ownership] = []
        self.since_fetch: set[TopicPartition] = set()

    @rule()
    def begin_fetch(self) -> None:
        self.assignment.begin_fetch()
        self.since_fetch.clear()

    @rule(partition=st.sampled_from(PARTITIONS))
    def assign(self, partition: TopicPartition) -> None:
        ownership = self.assignment.assign(partition)

        assert not ownership.closing
        assert not ownership.ended
        assert ownership.lease is self.assignment.lease
        assert ownership.epoch > max((one.epoch for one in [*self.past, *self.owned.values()]), default=0)
        if partition in self.owned:
            self.past.append(self.owned[partition])
        self.owned[partition] = ownership
        self.since_fetch.add(partition)

    @rule(partitions=SOME_PARTITIONS)
    def close(self, partitions: set[TopicPartition]) -> None:
        closed = self.assignment.close(partitions)

        assert {one.partition for one in closed} == partitions & self.owned.keys()
        assert all(one.closing and not one.ended for one in closed)
        for one in closed:
            one.closes_at = 7

    @rule(partitions=SOME_PARTITIONS)
    def end(self, partitions: set[TopicPartition]) -> None:
        ended = self.assignment.end(partitions)

        assert {one.partition for one in ended} == partitions & self.owned.keys()
        self.past += [self.owned.pop(one.partition) for one in ended]
        self.since_fetch -= partitions

    @invariant()
    def it_knows_what_is_owned(self) -> None:
        assert set(self.assignment) == self.owned.keys()
        assert len(self.assignment) == len(self.owned)

    @invariant()
    def what_has_ended_stays_ended(self) -> None:
        assert all(one.closing and one.ended for one in self.past)
        assert all(one.closes_at == 0 for one in self.past), "a record may still be started"
        assert not any(one.ended for one in self.owned.values())

    @invariant()
    def it_remembers_what_a_fetch_crossed(self) -> None:
        assert set(self.assignment.began) == self.since_fetch


TestAssignment = AssignmentMachine.TestCase
TestAssignment.settings = settings(max_examples=60 * SOAK, stateful_step_count=30)
