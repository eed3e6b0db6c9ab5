"""A Kafka of one process for tests: topics, one consumer group's rules, commits, dead letters.

What matters to a worker behaves as on a broker: offsets with gaps, cooperative rebalances whose callbacks
come inside a fetch or the close, a member that was expelled, commits that answer late or with an
error, a broker that takes any offset from a living member, and a pause flag that outlives a
rebalance. Everything happens in `VirtualTime`; nothing here starts a thread.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Protocol
from zlib import crc32

from streamworker.interfaces import OffsetMark
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker.record import Header, Letter
    from streamworker.testing.virtual_time import VirtualTime


_LARGEST_METADATA_BYTES = 4095  # beside an offset; Kafka's default takes 4096 with the NUL that the client sends


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


class GroupMember(Protocol):
    """What the broker knows of a member of the group."""

    name: str
    topics: tuple[str, ...]
    expelled: bool  # without being asked; the member finds out, and may join anew


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
        self.transaction_error: Callable[[], str | None] = lambda: None  # that ends one and leaves nothing of it
        self.offsets_error: Callable[[], str | None] = lambda: None
        self.ends_error: Callable[[], str | None] = lambda: None
        self.commit_raises: Callable[[], str | None] = lambda: None  # after the marks were taken one by one
        self.on_read: Callable[[GroupMember, TopicPartition], None] = lambda _source, _key: None  # before delivery
        self.longest_wait_s = inf  # of a fetch: others wait for their turn meanwhile
        self.coordinator_up = True
        self.leaderless: set[TopicPartition] = set()  # nothing can be fetched from these
        self._logs = {TopicPartition(topic, one): _Log() for topic, count in topics.items() for one in range(count)}
        self._committed: dict[TopicPartition, OffsetMark] = {}
        self._members: list[GroupMember] = []
        self._holders: dict[TopicPartition, GroupMember] = {}
        self._latest_tenures: dict[tuple[str, TopicPartition], Tenure] = {}
        self._targets: dict[GroupMember, set[TopicPartition]] | None = None  # until the group or a topic changes

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

    def expel(self, member: GroupMember) -> None:
        """Take a member's partitions away without asking, as after its session timed out."""
        member.expelled = True
        self._take_from(member, TenureEnd.LOST)

    def crash(self, member: GroupMember) -> None:
        """A member is gone without a word, and its session with it."""
        self.expel(member)
        self._members.remove(member)
        self._targets = None

    def partitions(self, topic: str) -> list[TopicPartition]:
        """Partitions of `topic`."""
        return [key for key in self._logs if key.topic == topic]

    def join(self, member: GroupMember) -> None:
        """Add a member to the group."""
        if member not in self._members:
            self._members.append(member)
            self._targets = None

    def leave(self, member: GroupMember) -> None:
        """A member leaves in order."""
        if member in self._members:
            self._members.remove(member)
            self._targets = None
        self._take_from(member, TenureEnd.LEFT)

    def target(self, member: GroupMember) -> set[TopicPartition]:
        """What the assignor gives to `member`: an even split that moves little."""
        if self._targets is None:
            self._targets = self._split()
        return self._targets.get(member, set())

    def _split(self) -> dict[GroupMember, set[TopicPartition]]:
        wanted: dict[GroupMember, set[TopicPartition]] = {one: set() for one in self._members}
        for topic in sorted({topic for one in self._members for topic in one.topics}):
            takers = [one for one in self._members if topic in one.topics]
            for number, key in enumerate(sorted(self.partitions(topic))):
                wanted[takers[number % len(takers)]].add(key)
        return wanted

    def held_by_others(self, member: GroupMember) -> set[TopicPartition]:
        """Partitions that another member has not given back yet."""
        return {key for key, holder in self._holders.items() if holder is not member}

    def hold(self, key: TopicPartition, member: GroupMember) -> None:
        """Give a partition to a member."""
        self._holders[key] = member
        tenure = Tenure(member.name, key, self.time.monotonic_s())
        self.tenures.append(tenure)
        self._latest_tenures[member.name, key] = tenure

    def ask_back(self, keys: Sequence[TopicPartition], member: GroupMember) -> None:
        """Note that a member begins to give partitions back."""
        for key in keys:
            self.latest_tenure(member.name, key).asked_s = self.time.monotonic_s()

    def give_back(self, key: TopicPartition, member: GroupMember, ending: TenureEnd) -> None:
        """Take a partition from the member that has it; nothing changes if it was taken away meanwhile."""
        if self._holders.get(key) is not member:
            return
        del self._holders[key]
        tenure = self.latest_tenure(member.name, key)
        tenure.ended_s, tenure.ending = self.time.monotonic_s(), ending

    def latest_tenure(self, member: str, key: TopicPartition) -> Tenure:
        """The assignment of `key` to `member` that began last; KeyError if there was none."""
        return self._latest_tenures[member, key]

    def _take_from(self, member: GroupMember, ending: TenureEnd) -> None:
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
        self, member: GroupMember, key: TopicPartition, mark: OffsetMark, *, again: bool = False
    ) -> str | None:
        """Take a commit; returns librdkafka's name of the error. Ownership is not looked at, as on a broker."""
        if member.expelled or member not in self._members:
            return "UNKNOWN_MEMBER_ID"
        error = self._refuses(key, mark)
        if error is None:
            self._committed[key] = mark
            self.commits.append(CommitEntry(self.time.monotonic_s(), member.name, key, mark, again))
        return error

    def _refuses(self, key: TopicPartition, mark: OffsetMark) -> str | None:
        if len(mark.metadata.encode()) > _LARGEST_METADATA_BYTES:
            return "OFFSET_METADATA_TOO_LARGE"
        return self.commit_error(key) if key in self._logs else "UNKNOWN_TOPIC_OR_PART"

    def take_transaction(
        self, member: GroupMember, letters: Sequence[Letter], marks: Mapping[TopicPartition, OffsetMark]
    ) -> tuple[str | None, int | None]:
        """Take all of it or nothing; returns the error, and the index of a letter that is refused."""
        if member.expelled or member not in self._members:
            return "UNKNOWN_MEMBER_ID", None
        for index, letter in enumerate(letters):
            error = self.produce_error(letter.topic) if self.partitions(letter.topic) else "UNKNOWN_TOPIC_OR_PART"
            if error is not None:
                return error, index
        error = self.transaction_error() or next(filter(None, (self._refuses(*one) for one in marks.items())), None)
        if error is not None:
            return error, None
        for letter in letters:
            self.append(letter)
        for key, mark in marks.items():
            self.take_commit(member, key, mark)
        return None, None

    def group_offset(self, key: TopicPartition) -> OffsetMark | None:
        """The group's offset with its metadata."""
        return self._committed.get(key)

    def append(self, letter: Letter) -> None:
        """Take a letter from an outbox."""
        partition = letter.partition
        if partition is None:
            partition = crc32(letter.key or b"") % len(self.partitions(letter.topic))
        self.produce(
            letter.topic,
            partition,
            letter.value,
            key=letter.key,
            headers=list(letter.headers),
            timestamp_ms=letter.timestamp_ms,
        )
