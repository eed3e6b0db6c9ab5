"""Whether newer records of the same key came after those that failed: sent again late, they may undo what those did.

Decided here: what is newer, and how much is read to find it. Only the partition that a record came from is read, from
behind it on, because keys stay in their partition as long as a topic keeps its width. It is a look with a budget, and
says of how many letters nothing is known. One thread at a time; blocks for as long as the budget allows.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from streamworker.dlq.lineage import origin_said
from streamworker.errors import ClientError
from streamworker.record import TopicPartition, read_headers
from streamworker.replay.filters import LONGEST_VALUE
from streamworker.replay.states import Target

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.record import Message, Origin
    from streamworker.replay.dead_record import LetterId

    Ranges = Mapping[TopicPartition, tuple[int, int]]

NO_KEY = "it has no key"
NO_ORIGIN = "it does not say where it is from"
DELETED = "records behind it are deleted already"
NOT_READ = "it was not read to the end"
_NAMED = 3  # letters in a warning


class Log(Protocol):
    """What is asked of a `TopicLog`."""

    def bounds(self, partition: TopicPartition, timeout_s: float) -> tuple[int, int]:
        """As of `TopicLog`."""

    def read(self, ranges: Ranges, timeout_s: float) -> Generator[Sequence[Message]]:
        """As of `TopicLog`."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A letter, where its record was first, and its key; of a long one the beginning will do."""

    id: LetterId
    origin: Origin | None
    key: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much is read at most. What partitions leave over goes to those that are read after them."""

    records: int = 200_000  # a second or two of reading
    bytes: int = 256 * 1024 * 1024
    seconds: float = 10.0

    def shared(self, among: int) -> Budget:
        """An even part of it."""
        return Budget(records=self.records // among, bytes=self.bytes // among, seconds=self.seconds / among)

    def without(self, spent: Budget) -> Budget:
        """What is left."""
        return Budget(
            records=max(self.records - spent.records, 0),
            bytes=max(self.bytes - spent.bytes, 0),
            seconds=max(self.seconds - spent.seconds, 0.0),
        )

    def covers(self, spent: Budget) -> bool:
        """Whether so much may be read."""
        return spent.records < self.records and spent.bytes < self.bytes and spent.seconds < self.seconds


NOTHING = Budget(records=0, bytes=0, seconds=0.0)


@dataclass(frozen=True, slots=True)
class Superseded:
    """What was found: for letters that have one the first newer record; of how many nothing is known, by why."""

    newer: Mapping[LetterId, Target]
    unknown: Mapping[str, int]
    spent: Budget

    @property
    def complete(self) -> bool:
        """Whether it is known of all."""
        return not self.unknown

    def warnings(self) -> Iterator[str]:
        """For a plan."""
        if self.newer:
            named = ", ".join(f"{letter} by {_place(at)}" for letter, at in sorted(self.newer.items())[:_NAMED])
            yield (
                f"{_counted(len(self.newer))} superseded by a newer record of the same key, for instance {named}; sent"
                " again, they may undo what that one did"
            )
        for why, count in sorted(self.unknown.items()):
            yield f"whether {_counted(count)} superseded by a newer record of the same key is not known: {why}"


@dataclass(slots=True)
class _Waiting:
    """Letters of one partition for which no newer record was found yet, by key."""

    letters: dict[bytes, list[tuple[int, LetterId]]] = field(default_factory=dict)
    count: int = 0

    def add(self, key: bytes, offset: int, letter: LetterId) -> None:
        self.letters.setdefault(_cut(key), []).append((offset, letter))
        self.count += 1

    @property
    def first(self) -> int:
        """The lowest offset of a record that failed."""
        return min(offset for letters in self.letters.values() for offset, _ in letters)

    def met(self, key: bytes, offset: int) -> Sequence[LetterId]:
        """Those that a record of this key and offset is newer than; they wait no more."""
        waiting = self.letters.get(key, ())
        older = [letter for before, letter in waiting if before < offset]
        if older:
            left = [one for one in waiting if one[0] >= offset]
            self.count -= len(older)
            if left:
                self.letters[key] = left
            else:
                del self.letters[key]
        return older


class _Look:
    """A look at one origin partition after the other."""

    def __init__(self, log: Log, clock: Clock, timeout_s: float) -> None:
        self._log = log
        self._monotonic_s = clock.monotonic_s
        self._timeout_s = timeout_s
        self.newer: dict[LetterId, Target] = {}

    def at(self, partition: TopicPartition, waiting: _Waiting, budget: Budget) -> tuple[Budget, Mapping[str, int]]:
        """Read a partition for those that wait; what was spent, and of how many it is not known."""
        began_s, spent = self._monotonic_s(), NOTHING
        try:
            start, end = self._log.bounds(partition, self._timeout_s)
            first = waiting.first + 1
            with closing(self._log.read({partition: (max(first, start), end)}, self._timeout_s)) as batches:
                for batch in batches:
                    self._take(batch, partition, waiting)
                    spent = Budget(
                        records=spent.records + len(batch),
                        bytes=spent.bytes + sum(len(one) for one in batch),
                        seconds=self._monotonic_s() - began_s,
                    )
                    if not waiting.count:
                        break
                    if not budget.covers(spent):
                        return spent, {NOT_READ: waiting.count}
        except ClientError as error:
            spent = replace(spent, seconds=self._monotonic_s() - began_s)
            return spent, {f"{partition.topic} cannot be read ({error.code})": waiting.count}
        lost = sum(offset + 1 < start for letters in waiting.letters.values() for offset, _ in letters)
        return spent, {DELETED: lost} if lost else {}

    def _take(self, batch: Sequence[Message], partition: TopicPartition, waiting: _Waiting) -> None:
        for message in batch:
            key = message.key()
            if key is None or (key := _cut(key)) not in waiting.letters:
                continue
            target = Target(partition.topic, partition.partition, message.offset())
            self.newer.update(dict.fromkeys(waiting.met(key, _age(message, partition)), target))


def superseded(
    log: Log, letters: Iterable[Asked], *, clock: Clock, timeout_s: float, budget: Budget | None = None
) -> Superseded:
    """Look for newer records of the keys of `letters`. What cannot be read is said, and nothing is raised."""
    left = Budget() if budget is None else budget
    total, unknown, waiting = left, Counter[str](), dict[TopicPartition, _Waiting]()
    for one in letters:
        if one.key is None or one.origin is None:
            unknown[NO_KEY if one.key is None else NO_ORIGIN] += 1
        else:
            partition = TopicPartition(one.origin.topic, one.origin.partition)
            waiting.setdefault(partition, _Waiting()).add(one.key, one.origin.offset, one.id)
    look = _Look(log, clock, timeout_s)
    for number, (partition, of) in enumerate(sorted(waiting.items(), key=lambda pair: pair[0])):
        spent, not_known = look.at(partition, of, left.shared(len(waiting) - number))
        left = left.without(spent)
        unknown.update(not_known)
    return Superseded(look.newer, unknown, total.without(left))


def _age(message: Message, partition: TopicPartition) -> int:
    """The offset that says how new a record is: that of the record that it is a copy of, if it is one of this topic."""
    headers = read_headers(message)
    origin = origin_said(headers) if headers else None
    copied = origin is not None and (origin.topic, origin.partition) == partition
    return origin.offset if origin is not None and copied else message.offset()


def _cut(key: bytes) -> bytes:
    """As much of a key as views keep."""
    return key[: LONGEST_VALUE + 1]


def _place(target: Target) -> str:
    return f"{target.topic}[{target.partition}]@{target.offset}"


def _counted(count: int) -> str:
    return "one letter is" if count == 1 else f"{count} letters are"
