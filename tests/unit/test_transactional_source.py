"""Commits that are transactions: which of them are made, in which order, and who is told how they ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest

from streamworker.errors import ClientError
from streamworker.interfaces import Fetched, OffsetMark
from streamworker.record import Letter, TopicPartition
from streamworker.transactions.pending import PendingOutputs
from streamworker.transactions.source import TransactionalSource
from streamworker.transactions.transactor import Ended

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamworker.interfaces import Source
    from streamworker.transactions.transactor import Transaction

A, B = TopicPartition("in", 0), TopicPartition("in", 1)


class Members:
    """A source with nothing to fetch; `generation` is what it shows of its membership."""

    generation = 1

    def fetch(self, _max_records: int, _timeout_s: float) -> Fetched:
        return Fetched([], [], [])

    def group_metadata(self) -> object:
        return self.generation


@dataclass
class Slow:
    """A transactor whose transactions end when the test says so; waiting for it lets the time go by."""

    now_s: float = 0.0
    made: list[Transaction] = field(default_factory=list)
    endings: list[Ended] = field(default_factory=list)

    def submit(self, transaction: Transaction) -> None:
        self.made.append(transaction)

    def end(self, error: str | None = None) -> None:
        self.endings.append(Ended(self.made[-1], error))

    def ended(self) -> Ended | None:
        return self.endings.pop(0) if self.endings else None

    def wait(self, timeout_s: float) -> None:
        self.now_s += timeout_s

    def close(self, timeout_s: float) -> None: ...

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return 0


@dataclass
class World:
    transactor: Slow = field(default_factory=Slow)
    pending: PendingOutputs = field(default_factory=PendingOutputs)
    members: Members = field(default_factory=Members)

    def __post_init__(self) -> None:
        self.source = TransactionalSource(
            cast("Source", self.members),
            self.transactor,
            self.pending,
            clock=self.transactor,
            patience_s=2.0,
            refused=lambda *_: None,
        )

    def done(self, partition: TopicPartition, offset: int) -> None:
        self.pending.add(partition, offset, [Letter("out", None, b"k", b"%d" % offset, (), 0)])

    def answers(self) -> dict[OffsetMark, str | None]:
        return {one.mark: one.error for one in self.source.fetch(1, 0.0).commits}


def marks(offset: int, *partitions: TopicPartition, request: int = 1) -> Mapping[TopicPartition, OffsetMark]:
    return {one: OffsetMark(offset, f"sw2 q={request} @{offset} r") for one in partitions}


def values(transaction: Transaction) -> list[bytes | None]:
    return [one.value for one in transaction.outputs]


def test_what_is_committed_while_a_transaction_is_in_hand_makes_the_next_one() -> None:
    world = World()
    world.done(A, 0)
    world.source.commit(marks(1, A))
    world.done(A, 1)
    world.source.commit(marks(2, A, request=2))

    world.transactor.end()
    answers = world.answers()

    assert [values(one) for one in world.transactor.made] == [[b"0"], [b"1"]]
    assert list(answers.values()) == [None]


def test_what_waits_when_its_ownership_ends_is_never_committed() -> None:
    """The next owner may be further on; and its outputs are gone, which the offset would have said are there."""
    world = World()
    world.done(A, 0)
    world.source.commit(marks(1, A))
    world.done(A, 1)
    world.done(B, 0)
    with pytest.raises(ClientError, match="takes too long"):  # the partition is being revoked
        world.source.commit_now(marks(2, A, B, request=2))
    world.pending.drop(A)

    world.members.generation = 2
    world.transactor.end()
    world.answers()

    assert world.transactor.made[-1].marks == marks(2, B, request=2)
    assert values(world.transactor.made[-1]) == [b"0"]


def test_who_waits_for_a_commit_of_an_ownership_that_ended_is_told() -> None:
    world = World()
    world.source.commit(marks(1, A))
    world.source.commit(marks(7, B, request=2))
    world.pending.drop(B)

    world.transactor.end()
    answers = world.answers()

    assert answers[marks(7, B, request=2)[B]] is not None
    assert len(world.transactor.made) == 1


def test_who_waits_for_a_commit_that_another_one_takes_the_place_of_is_told() -> None:
    world = World()
    world.source.commit(marks(1, A))
    world.source.commit(marks(2, A, request=2))
    world.source.commit(marks(3, A, request=3))

    world.transactor.end()
    answers = world.answers()

    assert answers[marks(2, A, request=2)[A]] is not None
    assert world.transactor.made[-1].marks == marks(3, A, request=3)


def test_outputs_of_a_transaction_that_came_to_nothing_go_first_in_the_next() -> None:
    world = World()
    world.done(A, 0)
    world.source.commit(marks(1, A))
    world.done(A, 1)

    world.transactor.end("ILLEGAL_GENERATION")
    world.answers()
    world.source.commit(marks(2, A, request=2))

    assert values(world.transactor.made[-1]) == [b"0", b"1"]
