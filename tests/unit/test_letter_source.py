"""What a worker fetches of dead letters, and when it is said that they were handled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from streamworker.errors import ClientError
from streamworker.interfaces import Fault, FaultKind, OffsetMark, Start
from streamworker.record import Headers, Origin, TopicPartition
from streamworker.replay.dead_record import DeadRecord, LetterId, Pointer
from streamworker.replay.letter_source import Account, LetterSource
from streamworker.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from streamworker.interfaces import Fetched
    from streamworker.replay.letter_source import Delivered

FIRST, SECOND = TopicPartition("dlq", 0), TopicPartition("dlq", 1)


def letter(place: LetterId, *, pointer: Pointer | None = None) -> DeadRecord:
    return DeadRecord(
        topic="dlq",
        id=place,
        written_ms=1,
        key=b"k",
        value=b"v",
        headers=Headers(),
        family="none",
        own_headers=Headers(),
        origin=Origin("in", *place),
        pointer=pointer,
    )


class Shelf:
    """Letters, of which some cannot be read."""

    def __init__(self) -> None:
        self.trouble: ClientError | None = None
        self.pointers: dict[LetterId, Pointer] = {}

    def read(self, ids: Sequence[LetterId]) -> Iterator[DeadRecord]:
        if self.trouble is not None:
            raise self.trouble
        return (letter(one, pointer=self.pointers.get(one)) for one in ids)


class Owner:
    """The worker's part: it owns what it is given, and nothing is paused."""

    def __init__(self) -> None:
        self.revoked_partitions: list[TopicPartition] = []

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Start]:
        return {one: Start(0, paused=False) for one in partitions}

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.revoked_partitions += partitions

    def lost(self, partitions: Sequence[TopicPartition]) -> None: ...


class Bench:
    """A source over a shelf, with what it was told to note."""

    def __init__(self, ids: Sequence[LetterId], done: Callable[[TopicPartition, int], bool] = lambda *_: True) -> None:
        self.shelf, self.account, self.owner = Shelf(), Account(), Owner()
        self.noted: list[list[LetterId]] = []
        self.refuses: list[ClientError] = []
        self.given_up: list[str] = []
        time = VirtualTime()
        self.source = LetterSource(
            "dlq",
            ids,
            topic="in",
            letters=self.shelf,
            refused=lambda _letter: None,
            done=done,
            note=self._note,
            give_up=self.given_up.append,
            account=self.account,
            wait=lambda seconds: time.wait(seconds, lambda: False),
            clock=time,
        )
        self.source.subscribe(["dlq"], self.owner)
        assert self.fetch() == []

    def _note(self, handled: Sequence[Delivered]) -> Mapping[LetterId, str]:
        if self.refuses:
            raise self.refuses.pop()
        self.noted.append([one.id for one in handled])
        return {}

    def fetched(self, max_records: int = 1000) -> Fetched:
        return self.source.fetch(max_records, 0.1)

    def fetch(self, max_records: int = 1000) -> list[tuple[int, int]]:
        runs = self.fetched(max_records).runs
        return [(one.partition(), one.offset()) for _, run in runs for one in run]

    def commit(self, *partitions: TopicPartition) -> None:
        self.source.commit({one: OffsetMark(0) for one in partitions})


def places(*offsets: int, partition: int = 0) -> list[LetterId]:
    return [LetterId(partition, one) for one in offsets]


def test_partitions_take_turns_and_the_end_of_each_is_told_once() -> None:
    bench = Bench([*places(2, 5, 9), *places(1, partition=1)])

    fetches = [bench.fetched(2) for _ in range(4)]

    assert [[one.offset() for _, run in fetched.runs for one in run] for fetched in fetches] == [[2, 5], [1], [9], []]
    faults: list[Fault] = [fault for fetched in fetches for fault in fetched.faults]
    assert [(one.kind, one.partition) for one in faults] == [
        (FaultKind.END_OF_PARTITION, SECOND),
        (FaultKind.END_OF_PARTITION, FIRST),
    ]


def test_nothing_is_read_of_what_is_paused_or_without_room() -> None:
    bench = Bench(places(2, 5))

    bench.source.pause([FIRST])
    while_paused = bench.fetch()
    bench.source.resume([FIRST])
    without_room = bench.fetch(0)

    assert (while_paused, without_room, bench.fetch()) == ([], [], [(0, 2), (0, 5)])


def test_what_is_sought_comes_again_and_is_not_said_to_be_handled_before() -> None:
    bench = Bench(places(2, 5, 9))
    bench.fetch()

    bench.source.seek(FIRST, 5)
    bench.commit(FIRST)
    again = bench.fetched()

    assert bench.noted == [places(2)]
    assert [one.offset() for _, run in again.runs for one in run] == [5, 9]
    assert [one.kind for one in again.faults] == [FaultKind.END_OF_PARTITION]


def test_only_what_was_read_can_be_sought() -> None:
    with pytest.raises(ClientError, match="not assigned"):
        Bench(places(2)).source.seek(SECOND, 0)


def test_a_commit_says_what_is_done_by_then_and_each_letter_once() -> None:
    done = {2}
    bench = Bench(places(2, 5), done=lambda _key, offset: offset in done)
    bench.fetch()

    bench.commit(FIRST)
    done.add(5)
    bench.commit(FIRST)
    bench.commit(FIRST)

    assert bench.noted == [places(2), places(5)]
    assert bench.account.handled == 2


def test_what_failed_is_not_said_to_be_handled() -> None:
    bench = Bench(places(2, 5))
    bench.fetch()
    bench.account.failures[LetterId(0, 2)] = "exhausted"

    bench.commit(FIRST)

    assert bench.noted == [places(5)]
    assert bench.account.ended == 2


def test_many_letters_are_said_in_parts_and_what_was_refused_is_said_again() -> None:
    bench = Bench(places(*range(1200)))
    while bench.fetch():
        pass
    bench.refuses.append(ClientError("no coordinator", code="_WAIT_COORD"))

    with pytest.raises(ClientError):
        bench.commit(FIRST)
    unsaid = len(bench.account.unsaid)
    bench.commit(FIRST)

    assert (unsaid, bench.account.unsaid) == (500, set())
    assert [len(one) for one in bench.noted] == [500, 500, 200]
    assert bench.account.handled == 1200


def test_when_letters_cannot_be_read_the_run_is_given_up_and_what_was_handled_is_still_said() -> None:
    bench = Bench(places(*range(300)))
    bench.fetch()
    bench.shelf.trouble = ClientError("no brokers", code="_ALL_BROKERS_DOWN")

    assert (bench.fetch(), bench.fetch()) == ([], [])
    bench.commit(FIRST)

    assert bench.given_up == ["no brokers"]
    assert bench.account.handled == 200


def test_a_letter_whose_value_is_lost_is_left_alone() -> None:
    bench = Bench(places(2, 5))
    bench.shelf.pointers[LetterId(0, 2)] = Pointer("a" * 64, 5_000_000, Origin("in", 0, 2))

    assert bench.fetch() == [(0, 5)]
    assert "too large" in bench.account.failures[LetterId(0, 2)]


def test_what_is_still_owned_is_given_back_once() -> None:
    bench = Bench(places(2))

    bench.source.close()
    bench.source.close()

    assert bench.owner.revoked_partitions == [FIRST]
