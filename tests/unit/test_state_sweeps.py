"""What was said of letters that are deleted since is taken back, by the producer that marks letters."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest
from fleet.shipped import SOMEBODY, chunk_of

from streamworker.errors import ClientError
from streamworker.record import Letter, TopicPartition
from streamworker.replay.audit import TOPIC as AUDIT
from streamworker.replay.audit import Kept, Note, read, verify
from streamworker.replay.dead_record import LetterId
from streamworker.replay.states import State, state_topic
from streamworker.testing.memory_shipments import MemoryShipmentCluster, Step, memory_shipping
from streamworker.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    from streamworker.replay.shipping import PartitionShipping

LETTERS = TopicPartition("dlq", 1)
STATES = TopicPartition(state_topic("dlq"), 1)
NOTE = Note(at_ms=1_700_000_000_000, actor=SOMEBODY, what="purge", topic="dlq", detail={})


class World:
    """A partition with discarded letters, of which retention has taken some."""

    def __init__(self, letters: int) -> None:
        self.cluster = MemoryShipmentCluster({"dlq": 2, STATES.topic: 2, AUDIT: 1})
        self._names = map("w{}".format, count())
        for _ in range(letters):
            self.cluster.write(Letter("dlq", 1, None, b"v", (), 0))
        self.letters = [LetterId(1, offset) for offset in range(letters)]
        self.operator().ship(chunk_of(self.letters, "nowhere", state=State.DISCARDED))

    def operator(self) -> PartitionShipping:
        return memory_shipping(
            self.cluster, LETTERS, writer=f"{next(self._names)}", clock=VirtualTime(), audit_key=b"key"
        )

    def deleted_before(self, offset: int) -> None:
        self.cluster.first_letters[LETTERS] = offset

    def said(self) -> set[bytes | None]:
        """Keys of which something is said after compaction."""
        last = {one.key: one.value for one in self.cluster.read(STATES)}
        return {key for key, value in last.items() if value is not None}

    def audit(self) -> list[Kept]:
        return [
            Kept(0, at, one.value, one.headers) for at, one in enumerate(self.cluster.read(TopicPartition(AUDIT, 0)))
        ]


def test_what_was_said_of_deleted_letters_is_taken_back_and_audited() -> None:
    world = World(4)
    world.deleted_before(3)

    swept = world.operator().sweep(NOTE)

    assert swept == 3
    assert world.said() == {b"1:3"}
    entry = read(world.audit()[-1].value)
    assert entry is not None
    assert (entry.what, entry.detail) == ("purge", {"deleted": "1:0-2", "count": 3})


def test_where_nothing_is_deleted_nothing_is_written() -> None:
    world = World(4)
    before = len(world.audit())

    assert world.operator().sweep(NOTE) == 0
    assert len(world.audit()) == before


def test_many_are_taken_back_in_several_transactions() -> None:
    world = World(1201)
    world.deleted_before(1200)

    assert world.operator().sweep(NOTE) == 1200
    assert world.said() == {b"1:1200"}
    assert len(world.audit()) == 4  # that of the discard, and three


def test_one_that_has_swept_before_sees_what_is_deleted_since() -> None:
    world = World(4)
    operator = world.operator()
    world.deleted_before(1)
    operator.sweep(NOTE)
    world.deleted_before(4)

    assert operator.sweep(NOTE) == 3


@pytest.mark.parametrize("step", [one for one in Step if one is not Step.SENDING])
def test_what_fails_is_done_by_another_producer_and_the_audit_stays_whole(step: Step) -> None:
    world = World(4)
    world.deleted_before(4)
    failures = iter([ClientError("lost", code="_TIMED_OUT")])

    def at(reached: Step) -> None:
        error = next(failures, None) if reached is step else None
        if error is not None:
            raise error

    world.cluster.at = at
    world.operator().sweep(NOTE)

    assert world.said() == set()
    assert verify(world.audit(), b"key").faults == 0


def test_without_transactions_it_is_done_as_well() -> None:
    world = World(4)
    world.deleted_before(2)
    world.cluster.forbids = "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"

    assert world.operator().sweep(NOTE) == 2
    assert world.said() == {b"1:2", b"1:3"}
