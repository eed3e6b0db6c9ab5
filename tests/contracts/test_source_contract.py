"""What every `Source` promises: the client's on the mock cluster, and the one in memory that simulations run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest
from confluent_kafka import Producer
from fleet.in_process import config

from streamworker.clock import SystemClock
from streamworker.errors import ClientError
from streamworker.interfaces import CommitAnswer, OffsetMark, Start
from streamworker.librdkafka import consumer_settings
from streamworker.record import TopicPartition
from streamworker.source.kafka import KafkaSource
from streamworker.testing.memory_broker import MemoryBroker
from streamworker.testing.memory_source import MemorySource
from streamworker.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from streamworker.interfaces import Fetched, Source
    from streamworker.testing.mock_kafka import MockKafka

TOPIC = "in"
FIRST, SECOND = BOTH = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
TURN_S, TURNS = 0.1, 200  # of a fetch; in memory the time is virtual
QUIET_TURNS = 5


class Cluster(Protocol):
    """A topic of two partitions, and one group."""

    def produce(self, partition: TopicPartition, records: int) -> None:
        """Append so many."""

    def source(self, name: str) -> Source:
        """A member of the group, not yet joined."""


class InMemory:
    def __init__(self) -> None:
        self._broker = MemoryBroker(VirtualTime(), {TOPIC: 2})

    def produce(self, partition: TopicPartition, records: int) -> None:
        for _ in range(records):
            self._broker.produce(*partition, b"x")

    def source(self, name: str) -> Source:
        return MemorySource(self._broker, name)


class OnMockKafka:
    def __init__(self, kafka: MockKafka) -> None:
        self._kafka = kafka
        kafka.create_topic(TOPIC, 2)

    def produce(self, partition: TopicPartition, records: int) -> None:
        producer = Producer({"bootstrap.servers": self._kafka.bootstrap_servers, "linger.ms": 50})
        for _ in range(records):  # in one batch: the mock answers a fetch with one of each partition
            producer.produce(partition.topic, b"x", partition=partition.partition)
        assert producer.flush(TURN_S * TURNS) == 0

    def source(self, name: str) -> Source:
        settings = config(self._kafka.bootstrap_servers).kafka
        return KafkaSource(consumer_settings(settings, end_of_partition=False), SystemClock())


class Member:
    """A source with all that it has given, and the `Rebalance` that it calls."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.starts: dict[TopicPartition, Start] = {}  # at 0 unless it stands here
        self.told: list[tuple[str, set[TopicPartition]]] = []
        self.owned: set[TopicPartition] = set()
        self.offsets: dict[TopicPartition, list[int]] = {one: [] for one in BOTH}  # as delivered
        self.answers: list[CommitAnswer] = []
        self.on_revoked: Callable[[], None] = lambda: None

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Start]:
        self._tell("assigned", partitions)
        self.owned.update(partitions)
        return {one: self.starts.get(one, Start(0, paused=False)) for one in partitions}

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self._tell("revoked", partitions)
        self.on_revoked()
        self.owned.difference_update(partitions)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._tell("lost", partitions)
        self.owned.difference_update(partitions)

    def _tell(self, what: str, partitions: Sequence[TopicPartition]) -> None:
        if partitions:  # the client may also say that there is nothing
            self.told.append((what, set(partitions)))

    def fetch(self, max_records: int = 100) -> Fetched:
        fetched = self.source.fetch(max_records, TURN_S)
        for key, run in fetched.runs:
            assert {TopicPartition(str(one.topic()), int(one.partition() or 0)) for one in run} == {key}
            self.offsets[key] += [int(one.offset() or 0) for one in run]
        self.answers += fetched.commits
        return fetched

    def fetch_until(self, condition: Callable[[], bool], max_records: int = 100) -> None:
        for _ in range(TURNS):
            if condition():
                return
            self.fetch(max_records)
        raise AssertionError(f"told {self.told}, delivered {self.offsets}, answered {self.answers}")

    def fetch_all(self, first: int, second: int, max_records: int = 100) -> None:
        """Until so many of each partition came."""
        self.fetch_until(lambda: [len(self.offsets[one]) for one in BOTH] == [first, second], max_records)


class Group:
    """Members that are closed in the end."""

    def __init__(self, cluster: Cluster) -> None:
        self.produce = cluster.produce
        self._cluster = cluster
        self._members: list[Member] = []

    def join(self, **starts: Start) -> Member:
        """A member that has subscribed; `starts` by `first` and `second`."""
        member = Member(self._cluster.source(f"member-{len(self._members)}"))
        member.starts = {{"first": FIRST, "second": SECOND}[name]: start for name, start in starts.items()}
        self._members.append(member)
        member.source.subscribe([TOPIC], member)
        return member

    def close(self) -> None:
        for one in self._members:
            one.source.close()


@pytest.fixture(params=["memory", "mock"])
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    in_memory = request.param == "memory"
    group = Group(InMemory() if in_memory else OnMockKafka(request.getfixturevalue("mock_kafka")))
    yield group
    group.close()


def test_records_come_in_the_order_of_their_partition_by_runs_of_one(group: Group) -> None:
    for key in (FIRST, SECOND, FIRST):
        group.produce(key, 4)
    member = group.join()

    member.fetch_all(8, 4)

    assert member.offsets == {FIRST: [*range(8)], SECOND: [*range(4)]}


def test_nothing_is_lost_or_repeated_where_max_records_cuts_a_fetch(group: Group) -> None:
    for key in BOTH:
        group.produce(key, 7)
    member = group.join()
    sizes: list[int] = []

    while sum(sizes) < 14 and len(sizes) < TURNS:
        sizes.append(sum(len(run) for _, run in member.fetch(max_records=3).runs))

    assert max(sizes) == 3
    assert member.offsets == {FIRST: [*range(7)], SECOND: [*range(7)]}


def test_a_partition_begins_where_and_how_the_callback_says(group: Group) -> None:
    for key in BOTH:
        group.produce(key, 5)
    member = group.join(first=Start(3, paused=False), second=Start(2, paused=True))

    member.fetch_all(2, 0)
    for _ in range(QUIET_TURNS):
        member.fetch()
    paused = list(member.offsets[SECOND])
    member.source.resume([SECOND])
    member.fetch_all(2, 3)

    assert paused == []
    assert member.offsets == {FIRST: [3, 4], SECOND: [2, 3, 4]}


def test_what_is_paused_brings_nothing_and_goes_on_after_its_last_record(group: Group) -> None:
    group.produce(FIRST, 6)
    member = group.join()
    member.fetch_until(lambda: bool(member.offsets[FIRST]), max_records=1)

    member.source.pause([FIRST])
    before = list(member.offsets[FIRST])
    group.produce(SECOND, 1)
    member.fetch_until(lambda: bool(member.offsets[SECOND]))
    while_paused = list(member.offsets[FIRST])
    member.source.resume([FIRST])
    member.fetch_all(6, 1)

    assert while_paused == before
    assert member.offsets[FIRST] == [*range(6)]


def test_a_seek_goes_back(group: Group) -> None:
    group.produce(FIRST, 4)
    member = group.join()
    member.fetch_all(4, 0)

    member.source.seek(FIRST, 1)
    member.fetch_all(7, 0)

    assert member.offsets[FIRST] == [0, 1, 2, 3, 1, 2, 3]


def test_a_seek_in_what_is_not_assigned_is_refused(group: Group) -> None:
    member = group.join()
    member.fetch_until(lambda: member.owned == set(BOTH))

    with pytest.raises(ClientError):
        member.source.seek(TopicPartition(TOPIC, 7), 0)


def test_the_answer_to_a_commit_comes_with_a_later_fetch_and_names_what_was_sent(group: Group) -> None:
    group.produce(FIRST, 3)
    member = group.join()
    member.fetch_all(3, 0)
    mark = OffsetMark(2, "sw2 q=1")

    member.source.commit({FIRST: mark})
    at_once = list(member.answers)
    member.fetch_until(lambda: bool(member.answers))
    member.fetch()

    assert at_once == []
    assert member.answers == [CommitAnswer(FIRST, mark, None)]
    assert member.source.committed([FIRST], 5.0) == {FIRST: mark}


def test_what_is_committed_at_once_is_the_groups_and_elsewhere_there_is_none(group: Group) -> None:
    group.produce(FIRST, 3)
    member = group.join()
    member.fetch_all(3, 0)

    answers = member.source.commit_now({FIRST: OffsetMark(3, "text")})

    assert list(answers) == [CommitAnswer(FIRST, OffsetMark(3, "text"), None)]
    assert member.source.committed(BOTH, 5.0) == {FIRST: OffsetMark(3, "text"), SECOND: None}


def test_partitions_are_assigned_inside_a_fetch_and_revoked_inside_the_close_once(group: Group) -> None:
    member = group.join()
    before = list(member.told)

    member.fetch_until(lambda: member.owned == set(BOTH))
    member.source.close()
    member.source.close()

    assert before == []
    assert member.told == [("assigned", set(BOTH)), ("revoked", set(BOTH))]


def test_what_is_committed_while_partitions_are_revoked_is_where_the_next_member_finds_it(group: Group) -> None:
    group.produce(FIRST, 5)
    leaving = group.join()
    leaving.fetch_all(5, 0)
    leaving.on_revoked = lambda: leaving.answers.extend(leaving.source.commit_now({FIRST: OffsetMark(5)}))

    leaving.source.close()
    coming = group.join()
    coming.fetch_until(lambda: coming.owned == set(BOTH))

    assert [one.error for one in leaving.answers] == [None]
    assert coming.source.committed([FIRST], 5.0) == {FIRST: OffsetMark(5)}


def test_a_partition_is_assigned_to_another_member_after_it_was_revoked_from_the_first(group: Group) -> None:
    first = group.join()
    first.fetch_until(lambda: first.owned == set(BOTH))
    second = group.join()

    for _ in range(TURNS):
        if len(first.owned) == len(second.owned) == 1:
            break
        first.fetch()
        second.fetch()
        assert first.owned.isdisjoint(second.owned)

    assert first.owned | second.owned == set(BOTH)
    assert first.told == [("assigned", set(BOTH)), ("revoked", second.owned)]
    assert second.told == [("assigned", second.owned)]
