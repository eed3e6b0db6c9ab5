"""A Kafka of one process for tests: topics, one consumer group's rules, commits, dead letters.

What matters to a worker behaves as on a broker: offsets with gaps, cooperative rebalances whose callbacks
come inside a fetch or the close, a member that was expelled, commits that answer late or with an
error, a broker that takes any offset from a living member, and a pause flag that outlives a
rebalance. Everything happens in `VirtualTime`; nothing here starts a thread.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import TYPE_CHECKING
from zlib import crc32

from streamworker.errors import ClientError
from streamworker.interfaces import CommitAnswer, Fault, FaultKind, Fetched, Membership, OffsetMark
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from streamworker.interfaces import Letter, Rebalance
    from streamworker.record import Header, Message
    from streamworker.testing.virtual_time import VirtualTime


_WAY_THERE_S = 0.001  # of a commit
_LARGEST_METADATA_BYTES = 4095  # beside an offset; Kafka's default takes 4096 with the NUL that the client sends
_PATIENCE_S = 1.0  # of a synchronous commit whose answer is lost
_QUEUE_BYTES = 16 * 1024 * 1024  # what the client holds ready at most, hence what one fetch can bring of a partition


class MemoryMessage:
    """A record in a memory broker; a `Message` like the client's."""

    __slots__ = ("_at", "_headers", "_key", "_offset", "_timestamp_ms", "_value", "appended_s")

    def __init__(
        self,
        at: TopicPartition,
        offset: int,
        *,
        key: bytes | None = None,
        value: bytes | None = None,
        headers: Sequence[Header] = (),
        timestamp_ms: int = 0,
        appended_s: float = 0.0,
    ) -> None:
        self.appended_s = appended_s  # monotonic time at which the broker took it
        self._at = at
        self._offset = offset
        self._key = key
        self._value = value
        self._headers = list(headers)
        self._timestamp_ms = timestamp_ms

    def topic(self) -> str:
        """Topic."""
        return self._at.topic

    def partition(self) -> int:
        """Partition."""
        return self._at.partition

    def offset(self) -> int:
        """Offset."""
        return self._offset

    def key(self) -> bytes | None:
        """Key."""
        return self._key

    def value(self) -> bytes | None:
        """Value."""
        return self._value

    def timestamp(self) -> tuple[int, int]:
        """Kind (1: the producer's) and milliseconds since the Unix epoch."""
        return 1, self._timestamp_ms

    def headers(self) -> list[Header] | None:
        """Headers, None without."""
        return self._headers or None

    def set_headers(self, headers: list[Header]) -> None:
        """Replace the headers."""
        self._headers = headers

    def __len__(self) -> int:
        return len(self._value or b"")


@dataclass(frozen=True, slots=True)
class CommitEntry:
    """A commit that the broker took, as an outside watcher sees it; `again` if the client has sent it twice."""

    at_s: float
    member: str
    partition: TopicPartition
    mark: OffsetMark
    again: bool = False


class TenureEnd(enum.Enum):
    """How a member came to have a partition no more."""

    REVOKED = "revoked"  # given back in a rebalance
    LEFT = "left"  # given back as the member left the group
    LOST = "lost"  # taken away without asking


@dataclass(slots=True, eq=False)
class Tenure:
    """One assignment of a partition to a member, as the group's coordinator sees it."""

    member: str
    partition: TopicPartition
    began_s: float
    asked_s: float | None = None  # when the member was asked to give it back
    ended_s: float | None = None  # None while it lasts
    ending: TenureEnd | None = None


@dataclass(slots=True)
class _Log:
    messages: list[MemoryMessage] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)  # of `messages`
    low: int = 0
    end: int = 0


class MemoryBroker:
    """Topics and one group."""

    def __init__(self, time: VirtualTime, topics: Mapping[str, int]) -> None:
        self.time = time
        self.commits: list[CommitEntry] = []
        self._deleted_topics: Counter[str] = Counter()
        self.moves: list[CommitEntry] = []  # of the group's offsets by `set_committed`
        self.tenures: list[Tenure] = []
        self.commit_latency_s = 0.002
        self.produce_latency_s = 0.002
        self.notes_latency_s = 0.002  # of the way back
        self.commit_error: Callable[[TopicPartition], str | None] = lambda _key: None
        self.commit_unsent: Callable[[], str | None] = lambda: None  # the client does not even send it
        self.commit_unanswered: Callable[[], bool] = lambda: False  # the commit is taken and its answer lost
        self.commit_resent_after_s: Callable[[], float | None] = lambda: None  # by the client that hears no answer
        self.seek_error: Callable[[], str | None] = lambda: None
        self.produce_error: Callable[[str], str | None] = lambda _topic: None
        self.produce_unsent: Callable[[], Exception | None] = lambda: None  # what the producer raises at once
        self.produce_unanswered: Callable[[str], str | None] = lambda _topic: None  # the letter is taken all the same
        self.offsets_error: Callable[[], str | None] = lambda: None
        self.ends_error: Callable[[], str | None] = lambda: None
        self.commit_raises: Callable[[], str | None] = lambda: None  # after the marks were taken one by one
        self.on_read: Callable[[MemorySource, TopicPartition], None] = lambda _source, _key: None  # before delivery
        self.longest_wait_s = inf  # of a fetch: others wait for their turn meanwhile
        self.coordinator_up = True
        self.leaderless: set[TopicPartition] = set()  # nothing can be fetched from these
        self._logs = {TopicPartition(topic, one): _Log() for topic, count in topics.items() for one in range(count)}
        self._committed: dict[TopicPartition, OffsetMark] = {}
        self._members: list[MemorySource] = []
        self._holders: dict[TopicPartition, MemorySource] = {}
        self._latest_tenures: dict[tuple[str, TopicPartition], Tenure] = {}
        self._targets: dict[MemorySource, set[TopicPartition]] | None = None  # until the group or a topic changes

    def produce(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[Header] = (),
        gap: int = 0,
        timestamp_ms: int | None = None,
    ) -> int:
        """Append a record, after `gap` offsets that hold none; returns its offset. Its default time is now."""
        at = TopicPartition(topic, partition)
        log = self._logs[at]
        offset = log.end + gap
        log.messages.append(
            MemoryMessage(
                at,
                offset,
                key=key,
                value=value,
                headers=headers,
                timestamp_ms=self.time.wall_ms() if timestamp_ms is None else timestamp_ms,
                appended_s=self.time.monotonic_s(),
            )
        )
        log.offsets.append(offset)
        log.end = offset + 1
        return offset

    def records(self, topic: str) -> list[MemoryMessage]:
        """All records of a topic, partition by partition."""
        return [message for key, log in self._logs.items() if key.topic == topic for message in log.messages]

    def end(self, key: TopicPartition) -> int:
        """Offset after the last record."""
        return self._logs[key].end

    def committed(self, key: TopicPartition) -> int | None:
        """The group's offset."""
        mark = self._committed.get(key)
        return None if mark is None else mark.offset

    def set_committed(self, key: TopicPartition, offset: int, metadata: str = "") -> None:
        """Move the group's offset, as an operator's tool does."""
        mark = self._committed[key] = OffsetMark(offset, metadata)
        self.moves.append(CommitEntry(self.time.monotonic_s(), "operator", key, mark))

    def delete_records(self, key: TopicPartition, before: int) -> None:
        """Delete the records below `before`."""
        log = self._logs[key]
        log.low = before
        first = bisect_left(log.offsets, before)
        del log.messages[:first], log.offsets[:first]

    def add_partitions(self, topic: str, count: int) -> None:
        """Let `topic` have `count` partitions."""
        for one in range(count):
            self._logs.setdefault(TopicPartition(topic, one), _Log())
        self._targets = None

    def delete_topic(self, topic: str) -> None:
        """Delete `topic` with its records and the group's offsets in it."""
        for key in self.partitions(topic):
            del self._logs[key]
            self._committed.pop(key, None)
        self._deleted_topics[topic] += 1
        self._targets = None

    def topic_id(self, topic: str) -> str:
        """What tells `topic` from those that had its name before they were deleted."""
        return f"{crc32(topic.encode()):08x}-{self._deleted_topics[topic]}"

    def expel(self, member: MemorySource) -> None:
        """Take a member's partitions away without asking, as after its session timed out."""
        member.expelled = True
        self._take_from(member, TenureEnd.LOST)

    def crash(self, member: MemorySource) -> None:
        """A member is gone without a word, and its session with it."""
        self.expel(member)
        self._members.remove(member)
        self._targets = None

    def partitions(self, topic: str) -> list[TopicPartition]:
        """Partitions of `topic`."""
        return [key for key in self._logs if key.topic == topic]

    def join(self, member: MemorySource) -> None:
        """Add a member to the group."""
        if member not in self._members:
            self._members.append(member)
            self._targets = None

    def leave(self, member: MemorySource) -> None:
        """A member leaves in order."""
        if member in self._members:
            self._members.remove(member)
            self._targets = None
        self._take_from(member, TenureEnd.LEFT)

    def target(self, member: MemorySource) -> set[TopicPartition]:
        """What the assignor gives to `member`: an even split that moves little."""
        if self._targets is None:
            self._targets = self._split()
        return self._targets.get(member, set())

    def _split(self) -> dict[MemorySource, set[TopicPartition]]:
        wanted: dict[MemorySource, set[TopicPartition]] = {one: set() for one in self._members}
        for topic in sorted({topic for one in self._members for topic in one.topics}):
            takers = [one for one in self._members if topic in one.topics]
            for number, key in enumerate(sorted(self.partitions(topic))):
                wanted[takers[number % len(takers)]].add(key)
        return wanted

    def held_by_others(self, member: MemorySource) -> set[TopicPartition]:
        """Partitions that another member has not given back yet."""
        return {key for key, holder in self._holders.items() if holder is not member}

    def hold(self, key: TopicPartition, member: MemorySource) -> None:
        """Give a partition to a member."""
        self._holders[key] = member
        tenure = Tenure(member.name, key, self.time.monotonic_s())
        self.tenures.append(tenure)
        self._latest_tenures[member.name, key] = tenure

    def ask_back(self, keys: Sequence[TopicPartition], member: MemorySource) -> None:
        """Note that a member begins to give partitions back."""
        for key in keys:
            self.latest_tenure(member.name, key).asked_s = self.time.monotonic_s()

    def give_back(self, key: TopicPartition, member: MemorySource, ending: TenureEnd) -> None:
        """Take a partition from the member that has it; nothing changes if it was taken away meanwhile."""
        if self._holders.get(key) is not member:
            return
        del self._holders[key]
        tenure = self.latest_tenure(member.name, key)
        tenure.ended_s, tenure.ending = self.time.monotonic_s(), ending

    def latest_tenure(self, member: str, key: TopicPartition) -> Tenure:
        """The assignment of `key` to `member` that began last; KeyError if there was none."""
        return self._latest_tenures[member, key]

    def _take_from(self, member: MemorySource, ending: TenureEnd) -> None:
        for key in [key for key, holder in self._holders.items() if holder is member]:
            self.give_back(key, member, ending)

    def read(self, key: TopicPartition, offset: int, count: int) -> list[MemoryMessage] | None:
        """Records from `offset` on; None when it is outside of the log. A deleted topic has none."""
        log = self._logs.get(key)
        if log is None or offset == log.end:
            return []
        if not log.low <= offset < log.end:
            return None
        first = bisect_left(log.offsets, offset)
        return log.messages[first : first + count]

    def low(self, key: TopicPartition) -> int:
        """Offset of the oldest record kept."""
        return self._logs[key].low

    def take_commit(
        self, member: MemorySource, key: TopicPartition, mark: OffsetMark, *, again: bool = False
    ) -> str | None:
        """Take a commit; returns librdkafka's name of the error. Ownership is not looked at, as on a broker."""
        if member.expelled or member not in self._members:
            return "UNKNOWN_MEMBER_ID"
        error = self.commit_error(key) if key in self._logs else "UNKNOWN_TOPIC_OR_PART"
        if error is None and len(mark.metadata.encode()) > _LARGEST_METADATA_BYTES:
            error = "OFFSET_METADATA_TOO_LARGE"
        if error is None:
            self._committed[key] = mark
            self.commits.append(CommitEntry(self.time.monotonic_s(), member.name, key, mark, again))
        return error

    def group_offset(self, key: TopicPartition) -> OffsetMark | None:
        """The group's offset with its metadata."""
        return self._committed.get(key)

    def append(self, letter: Letter) -> None:
        """Take a letter from an outbox."""
        self.produce(
            letter.topic,
            letter.partition or 0,
            letter.value,
            key=letter.key,
            headers=list(letter.headers),
            timestamp_ms=letter.timestamp_ms,
        )


class MemorySource:
    """A `Source`: a member of the broker's group."""

    def __init__(self, broker: MemoryBroker, name: str, *, end_of_partition: bool = False) -> None:
        self.name = name
        self.topics: tuple[str, ...] = ()
        self.expelled = False
        self.pauses = 0  # calls that paused something
        self._broker = broker
        self._end_of_partition = end_of_partition
        self._rebalance: Rebalance | None = None
        self._positions: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()  # the flags outlive an assignment
        self._answers: list[CommitAnswer] = []
        self._faults: list[Fault] = []
        self._silent: set[TopicPartition] = set()  # out of range, said once
        self._ended: set[TopicPartition] = set()
        self._closed = False
        self._heard_s = broker.time.monotonic_s()  # the coordinator, for the last time
        self._generation = 0  # counts how often it joined anew; commits from before are refused

    def subscribe(self, topics: Sequence[str], rebalance: Rebalance) -> None:
        """Join the group."""
        self.topics = tuple(topics)
        self._rebalance = rebalance
        self._broker.join(self)

    def fetch(self, max_records: int, timeout_s: float) -> Fetched:
        """Wait for records, callbacks or answers.

        As with the client's two calls, the first record is taken before the callbacks are served: it may
        belong to an ownership that they end.
        """
        self._broker.time.wait(min(timeout_s, self._broker.longest_wait_s), self._anything)
        runs = self._take(1)
        self._rebalance_now()
        if max_records > 1:
            runs += self._take(max_records - 1)
        answers, faults = list(self._answers), list(self._faults)
        self._answers.clear()
        self._faults.clear()
        return Fetched(runs, faults, answers)

    def committed(
        self, partitions: Sequence[TopicPartition], timeout_s: float
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        """The group's offsets."""
        error = self._broker.offsets_error()
        if error is not None:
            self._broker.time.wait(timeout_s, lambda: False)
            raise ClientError("offsets cannot be had", code=error, retriable=True)
        return {key: self._broker.group_offset(key) for key in partitions}

    def commit(self, marks: Mapping[TopicPartition, OffsetMark]) -> None:
        """Send a commit that is answered later, if the coordinator is there."""
        error = self._broker.commit_unsent()
        if error is not None:
            raise ClientError("the commit cannot be sent", code=error, retriable=True)
        if self._broker.coordinator_up:
            self._broker.time.call_in(self._way_there_s(), partial(self._arrive, dict(marks), self._generation))

    def commit_now(self, marks: Mapping[TopicPartition, OffsetMark]) -> Sequence[CommitAnswer]:
        """Commit and wait: what was sent before arrives before."""
        broker, generation = self._broker, self._generation
        if not broker.coordinator_up:
            raise ClientError("no coordinator", code="_WAIT_COORD", retriable=True)
        broker.time.wait(self._way_there_s(), lambda: False)
        answers = self._commit(marks, generation)
        if broker.commit_unanswered():
            broker.time.wait(_PATIENCE_S, lambda: False)
            raise ClientError("the answer was lost", code="_TIMED_OUT", retriable=True)
        error = broker.commit_raises()
        if error is not None:
            raise ClientError("the commit failed for some", code=error)
        return answers

    def report(self, fault: Fault) -> None:
        """Let the next fetch bring an error event."""
        self._faults.append(fault)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop fetching these."""
        self.pauses += bool(partitions)
        self.paused.update(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Go on with these."""
        self.paused.difference_update(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Deliver from `offset` next."""
        if partition not in self._positions:
            raise ClientError(f"{partition} is not assigned", code="_STATE")
        error = self._broker.seek_error()
        if error is not None:
            raise ClientError(f"{partition} cannot be sought in", code=error, retriable=True)
        self._positions[partition] = self._resolve(partition, offset)
        self._silent.discard(partition)
        self._ended.discard(partition)

    def membership(self) -> Membership | None:
        """Joined, and the coordinator heard just now if it is up."""
        now_s = self._broker.time.monotonic_s()
        if self._broker.coordinator_up:
            self._heard_s = now_s
        proven_s = self._heard_s if self._broker.coordinator_up and not self.expelled else None
        return Membership(not self.expelled, "up/steady", now_s - self._heard_s, now_s, proven_s)

    def positions(self) -> Mapping[TopicPartition, int]:
        """The next offset of each."""
        return dict(self._positions)

    def close(self) -> None:
        """Leave the group."""
        if self._closed or self._rebalance is None:
            return
        self._closed = True
        if not self.expelled:
            self._revoke(list(self._positions))
        self._broker.leave(self)

    def _anything(self) -> bool:
        return bool(self._answers or self._faults or self._rebalance_due() or any(map(self._readable, self._positions)))

    def _fetches(self, key: TopicPartition) -> bool:
        return key not in self.paused and key not in self._silent and key not in self._broker.leaderless

    def _readable(self, key: TopicPartition) -> bool:
        if not self._fetches(key):
            return False
        records = self._broker.read(key, self._positions[key], 1)
        return records is None or bool(records) or (self._end_of_partition and key not in self._ended)

    def _take(self, max_records: int) -> list[tuple[TopicPartition, Sequence[Message]]]:
        runs: list[tuple[TopicPartition, Sequence[Message]]] = []
        for key in list(self._positions):
            if max_records <= 0 or not self._fetches(key):
                continue
            records = self._broker.read(key, self._positions[key], max_records)
            if records is None:
                self._report(key, FaultKind.OUT_OF_RANGE, f"offset {self._positions[key]} is out of range")
                self._silent.add(key)
            elif records:
                self._broker.on_read(self, key)
                records = _within_queue(records)
                self._positions[key] = records[-1].offset() + 1
                max_records -= len(records)
                runs.append((key, records))
            elif self._end_of_partition and key not in self._ended:
                self._ended.add(key)
                self._report(key, FaultKind.END_OF_PARTITION, "end of partition")
        # The next fetch begins with another partition.
        if self._positions:
            first = next(iter(self._positions))
            self._positions[first] = self._positions.pop(first)
        return runs

    def _report(self, key: TopicPartition, kind: FaultKind, detail: str) -> None:
        self._faults.append(Fault(kind, key, self._positions[key], detail))

    def _rebalance_due(self) -> bool:
        if self.expelled:
            return True
        target, owned = self._broker.target(self), self._positions.keys()
        if owned == target:
            return False
        return bool(owned - target or (target - owned) - self._broker.held_by_others(self))

    def _rebalance_now(self) -> None:
        if self._rebalance is None or not self._rebalance_due():
            return
        if self.expelled:
            lost = list(self._positions)
            self._positions.clear()
            self.expelled = False
            self._generation += 1
            self._rebalance.lost(lost)
        target = self._broker.target(self)
        self._revoke(sorted(key for key in self._positions if key not in target))
        if self.expelled:
            return
        self._assign(sorted(target - set(self._positions) - self._broker.held_by_others(self)))

    def _revoke(self, keys: Sequence[TopicPartition]) -> None:
        if keys and self._rebalance is not None:
            self._broker.ask_back(keys, self)
            self._rebalance.revoked(keys)
            ending = TenureEnd.LEFT if self._closed else TenureEnd.REVOKED
            for key in keys:
                del self._positions[key]
                self._broker.give_back(key, self, ending)

    def _assign(self, keys: Sequence[TopicPartition]) -> None:
        if not keys or self._rebalance is None:
            return
        for key in keys:
            self._broker.hold(key, self)
        starts = self._rebalance.assigned(keys)
        for key in keys:
            self._positions[key] = self._resolve(key, starts[key].offset)
            self._silent.discard(key)
            (self.pause if starts[key].paused else self.resume)([key])

    def _resolve(self, key: TopicPartition, offset: int) -> int:
        return self._broker.low(key) if offset < 0 else offset

    def _way_there_s(self) -> float:
        return min(self._broker.commit_latency_s, _WAY_THERE_S)

    def _arrive(self, marks: Mapping[TopicPartition, OffsetMark], generation: int) -> None:
        """The broker takes requests in the order in which they were sent; only its answer may be late."""
        answers = self._commit(marks, generation)
        resent_after_s = self._broker.commit_resent_after_s()
        if resent_after_s is not None:
            tenures = {key: self._broker.latest_tenure(self.name, key) for key in marks}
            self._broker.time.call_in(resent_after_s, partial(self._arrive_again, marks, tenures))
        elif not self._broker.commit_unanswered():
            self._broker.time.call_in(self._broker.commit_latency_s, partial(self._answers.extend, answers))

    def _arrive_again(
        self, marks: Mapping[TopicPartition, OffsetMark], tenures: Mapping[TopicPartition, Tenure]
    ) -> None:
        """What the client sends a second time may come after a newer commit, but not after a rebalance."""
        for key, mark in marks.items():
            same = self._broker.latest_tenure(self.name, key) is tenures[key] and tenures[key].ended_s is None
            error = self._broker.take_commit(self, key, mark, again=True) if same else "ILLEGAL_GENERATION"
            self._answers.append(CommitAnswer(key, mark, error))

    def _commit(self, marks: Mapping[TopicPartition, OffsetMark], generation: int) -> list[CommitAnswer]:
        if generation != self._generation:
            return [CommitAnswer(key, mark, "UNKNOWN_MEMBER_ID") for key, mark in marks.items()]
        return [CommitAnswer(key, mark, self._broker.take_commit(self, key, mark)) for key, mark in marks.items()]


def _within_queue(records: list[MemoryMessage]) -> list[MemoryMessage]:
    size_bytes = 0
    for index, record in enumerate(records):
        size_bytes += len(record)
        if size_bytes > _QUEUE_BYTES and index:
            return records[:index]
    return records


class MemoryOutbox:
    """An `Outbox` into the broker's topics."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._reports: list[tuple[Callable[[str | None], None], str | None]] = []
        self._under_way = 0

    def send(self, letter: Letter, done: Callable[[str | None], None]) -> None:
        """Hand over; acknowledged after the broker's latency."""
        refusal = self._broker.produce_unsent()
        if refusal is not None:
            raise refusal
        self._under_way += 1
        self._broker.time.call_in(self._broker.produce_latency_s, partial(self._arrive, letter, done))

    def poll(self) -> None:
        """Serve delivery reports."""
        reports, self._reports = self._reports, []
        for done, error in reports:
            done(error)

    def partitions(self, topic: str, timeout_s: float) -> int | None:  # noqa: ARG002 - known at once
        """Number of partitions of `topic`."""
        return len(self._broker.partitions(topic)) or None

    def flush(self, timeout_s: float) -> int:
        """Wait for what was handed over."""
        self._broker.time.wait(timeout_s, lambda: self._under_way == 0)
        self.poll()
        return self._under_way

    def _arrive(self, letter: Letter, done: Callable[[str | None], None]) -> None:
        self._under_way -= 1
        error = self._broker.produce_error(letter.topic)
        if error is None:
            self._broker.append(letter)
            error = self._broker.produce_unanswered(letter.topic)
        self._reports.append((done, error))


class MemoryKeyLog:
    """A `KeyLog` of the broker's `topics`."""

    def __init__(self, broker: MemoryBroker, topics: Sequence[str]) -> None:
        self._broker = broker
        self._reached = {TopicPartition(topic, 0): 0 for topic in topics}
        self._connected_s = broker.time.monotonic_s() + broker.notes_latency_s

    def poll(self) -> Sequence[tuple[bytes | None, bytes | None]]:
        """What came since."""
        notes: list[tuple[bytes | None, bytes | None]] = []
        now_s = self._broker.time.monotonic_s()
        readable = self._reached.keys() - self._broker.leaderless if now_s >= self._connected_s else ()
        for key in sorted(readable):
            found = self._broker.read(key, self._reached[key], 1 << 60) or ()
            there = [one for one in found if one.appended_s <= now_s - self._broker.notes_latency_s]
            notes += [(one.key(), one.value()) for one in there]
            if there:
                self._reached[key] = there[-1].offset() + 1
        return notes

    def reached(self, topic: str) -> int:
        """Up to where all was told."""
        return self._reached[TopicPartition(topic, 0)]

    def close(self) -> None:
        """Nothing to give back."""


class MemoryLog:
    """A `Log` over the broker's topics."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def end_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> Mapping[TopicPartition, int]:  # noqa: ARG002 - known at once
        """Offset after the last record of each."""
        error = self._broker.ends_error()
        if error is not None:
            raise ClientError("the cluster does not answer", code=error)
        return {key: self._broker.end(key) for key in partitions}

    def offsets_at(
        self,
        partitions: Sequence[TopicPartition],
        timestamp_ms: int,
        timeout_s: float,  # noqa: ARG002 - known at once
    ) -> Mapping[TopicPartition, int]:
        """First offset at or after the time."""
        return {key: self._first_at(key, timestamp_ms) for key in partitions}

    def partitions(self, topic: str, timeout_s: float) -> Sequence[TopicPartition]:  # noqa: ARG002 - known at once
        """All partitions of `topic`."""
        return self._broker.partitions(topic)

    def topic_ids(self, topics: Sequence[str], timeout_s: float) -> Mapping[str, str]:  # noqa: ARG002 - known at once
        """What tells topics from others of their names."""
        return {topic: self._broker.topic_id(topic) for topic in topics}

    def _first_at(self, key: TopicPartition, timestamp_ms: int) -> int:
        later = [
            one.offset()
            for one in self._broker.read(key, self._broker.low(key), 1 << 60) or ()
            if one.timestamp()[1] >= timestamp_ms
        ]
        return later[0] if later else self._broker.end(key)


def by_partition(messages: Iterable[MemoryMessage]) -> Mapping[TopicPartition, list[MemoryMessage]]:
    """Records grouped by where they are."""
    groups: defaultdict[TopicPartition, list[MemoryMessage]] = defaultdict(list)
    for message in messages:
        groups[TopicPartition(message.topic(), message.partition())].append(message)
    return groups
