"""Dead letters as what a worker fetches, and its commits as what is said of them.

Decided here: which letters are delivered, as what, and when one counts as handled. A worker over this `Source` is no
member of a group: it has what was chosen, from the beginning to the end. Its offsets are kept nowhere. What a commit
writes are the states of the letters that are done by then, after their effects and never before. The loop thread.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from streamworker.dlq.lineage import lineage_of
from streamworker.errors import ClientError
from streamworker.interfaces import CommitAnswer, Fault, FaultKind, Fetched, Membership, OffsetMark
from streamworker.offsets import codec
from streamworker.offsets.tracker import OffsetTracker
from streamworker.record import Origin, Returned, TopicPartition
from streamworker.replay.dead_record import LetterId
from streamworker.replay.states import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.interfaces import Rebalance
    from streamworker.record import Header, Message
    from streamworker.replay.dead_record import DeadRecord

_AT_ONCE = 200  # letters of one fetch
_NOTED_AT_ONCE = 500  # in one transaction
_GONE = "it is not there any more"
_PAYLOAD_GONE = "its value was too large for the letter, and its origin does not have it any more"


class Letters(Protocol):
    """Reads letters of one dead-letter topic with their values. The loop thread."""

    def read(self, ids: Sequence[LetterId]) -> Iterator[DeadRecord]:
        """Those of one partition that are still there, each with its whole value where that can be had.

        Raises ClientError.
        """


@dataclass(frozen=True, slots=True)
class Delivered:
    """What is needed of a letter to say that it was handled."""

    id: LetterId
    payload_sha256: str | None
    replay_count: int
    at_ms: int  # when it was read


@dataclass(slots=True)
class Account:
    """What became of letters so far. The loop thread writes, and who shows it is on the same."""

    handled: int = 0  # and said to be
    failures: dict[LetterId, str] = field(default_factory=dict)  # they stay pending
    repeats: dict[LetterId, str] = field(default_factory=dict)  # handled, and meanwhile somebody did something else
    unsaid: set[LetterId] = field(default_factory=set)  # handled, and it is not known that their states are written
    elsewhere: dict[LetterId, str] = field(default_factory=dict)  # first in another topic than the one at hand
    trouble: ClientError | None = None  # why no more was read

    @property
    def ended(self) -> int:
        """Letters of which it is known."""
        return self.handled + len(self.failures) + len(self.repeats)


class LetterSource:
    """A `Source` of the letters `ids` of `dead_letters`, which come in order of partition and offset.

    Delivered are those that were first in `topic`, or do not say where; for others `refused` may say why they are not
    delivered at all. `done` tells whether a delivered record is done, and `note` writes that letters were handled:
    it raises ClientError, and is then called again with the same. When letters cannot be read `give_up` is called.
    """

    def __init__(
        self,
        dead_letters: str,
        ids: Iterable[LetterId],
        *,
        topic: str,
        letters: Letters,
        refused: Callable[[DeadRecord], str | None],
        done: Callable[[TopicPartition, int], bool],
        note: Callable[[Sequence[Delivered]], Mapping[LetterId, str]],
        give_up: Callable[[str], None],
        account: Account,
        wait: Callable[[float], object],
        clock: Clock,
    ) -> None:
        self._topic = topic
        self._letters = letters
        self._refused = refused
        self._done = done
        self._note = note
        self._give_up = give_up
        self._account = account
        self._wait = wait
        self._clock = clock
        self._offsets: dict[TopicPartition, array[int]] = {}
        for one in ids:
            self._offsets.setdefault(TopicPartition(dead_letters, one.partition), array("q")).append(one.offset)
        self._next = dict.fromkeys(self._offsets, 0)  # index of the next one to be read
        self._in_hand: dict[TopicPartition, dict[int, Delivered]] = {key: {} for key in self._offsets}
        self._paused: set[TopicPartition] = set()
        self._ended: set[TopicPartition] = set()  # said to be at its end
        self._answers: list[CommitAnswer] = []
        self._rebalance: Rebalance | None = None
        self._assigned = self._closed = False

    def subscribe(self, topics: Sequence[str], rebalance: Rebalance) -> None:  # noqa: ARG002 - there is only one
        """Own what was chosen from the next fetch on."""
        self._rebalance = rebalance

    def fetch(self, max_records: int, timeout_s: float) -> Fetched:
        """As of `Source`; blocks for as long as reading takes."""
        if not self._assigned and self._rebalance is not None:
            self._assigned = True
            starts = self._rebalance.assigned(list(self._offsets))
            self._paused.update(key for key, start in starts.items() if start.paused)
            return Fetched()
        answers, self._answers = self._answers, []
        runs = self._take(max_records) if max_records else []
        faults = self._ends()
        if not runs and not faults and not answers:
            self._wait(timeout_s)
        return Fetched(runs, faults, answers)

    def committed(
        self,
        partitions: Sequence[TopicPartition],
        timeout_s: float,  # noqa: ARG002 - known at once
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        """The first letter of each, as given back in order by an owner before."""
        return {key: _start_at(self._offsets[key][0]) if key in self._offsets else None for key in partitions}

    def commit(self, marks: Mapping[TopicPartition, OffsetMark]) -> None:
        """Say of all letters that are done by now that they were handled; blocks until that is durable."""
        self._answers += self.commit_now(marks)

    def commit_now(self, marks: Mapping[TopicPartition, OffsetMark]) -> Sequence[CommitAnswer]:
        """As `commit`."""
        for key in marks:
            self._say_handled(key)
        return [CommitAnswer(key, mark, None) for key, mark in marks.items()]

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """As of `Source`."""
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """As of `Source`."""
        self._paused.difference_update(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """As of `Source`."""
        if partition not in self._offsets:
            raise ClientError(f"{partition} is not assigned", code="_STATE")
        self._next[partition] = bisect_left(self._offsets[partition], offset)
        self._ended.discard(partition)
        in_hand = self._in_hand[partition]
        for one in [one for one in in_hand if one >= offset]:
            del in_hand[one]

    def membership(self) -> Membership:
        """Nobody else can come by what was chosen: proven at any time."""
        now_s = self._clock.monotonic_s()
        return Membership(self._assigned, "letters", 0.0, now_s, now_s)

    def statistics(self) -> None:
        """There is no client."""

    def group_metadata(self) -> object:
        """There is no group, and no transaction that would need to know it."""
        return None

    def positions(self) -> Mapping[TopicPartition, int]:
        """Not told."""
        return {}

    def close(self) -> None:
        """As of `Source`."""
        if not self._closed and self._rebalance is not None:
            self._closed = True
            self._rebalance.revoked(list(self._offsets))

    def _take(self, max_records: int) -> list[tuple[TopicPartition, Sequence[Message]]]:
        """Letters of the next partition that has some; the one after it is asked first next time."""
        if self._account.trouble is not None:
            return []
        for key in list(self._next):
            if key in self._paused or self._next[key] == len(self._offsets[key]):
                continue
            self._next[key] = self._next.pop(key)
            try:
                messages = self._read(key, min(max_records, _AT_ONCE))
            except ClientError as error:
                self._account.trouble = error
                self._give_up(str(error))
                return []
            if messages:
                return [(key, messages)]
        return []

    def _read(self, key: TopicPartition, count: int) -> Sequence[Message]:
        at = self._next[key]
        wanted = [LetterId(key.partition, offset) for offset in self._offsets[key][at : at + count]]
        found = {letter.id: letter for letter in self._letters.read(wanted)}
        self._next[key] = at + len(wanted)
        messages: list[Message] = []
        for one in wanted:
            letter = found.get(one)
            why_not = _GONE if letter is None else self._why_not(letter)
            if why_not is not None:
                self._account.failures[one] = why_not
            elif letter is not None and letter.origin is not None and letter.origin.topic != self._topic:
                self._account.elsewhere[one] = letter.origin.topic
            elif letter is not None:
                now_ms = self._clock.wall_ms()
                self._in_hand[key][one.offset] = Delivered(one, digest(letter.value), letter.replay_count, now_ms)
                messages.append(as_it_was(letter))
        return messages

    def _why_not(self, letter: DeadRecord) -> str | None:
        return _PAYLOAD_GONE if letter.pointer is not None else self._refused(letter)

    def _ends(self) -> list[Fault]:
        """That there is nothing more in a partition, once."""
        over = [key for key, at in self._next.items() if at == len(self._offsets[key]) and key not in self._ended]
        self._ended.update(over)
        return [Fault(FaultKind.END_OF_PARTITION, key, self._offsets[key][-1] + 1, "all was read") for key in over]

    def _say_handled(self, key: TopicPartition) -> None:
        in_hand = self._in_hand[key]
        done = [one for offset, one in in_hand.items() if self._done(key, offset)]
        failed = [one for one in done if one.id in self._account.failures]
        for one in failed:
            del in_hand[one.id.offset]
        handled = iter([one for one in done if one.id not in self._account.failures])
        while chunk := list(islice(handled, _NOTED_AT_ONCE)):
            self._account.unsaid.update(one.id for one in chunk)
            not_said = self._note(chunk)
            for one in chunk:
                self._account.unsaid.discard(one.id)
                del in_hand[one.id.offset]
            self._account.repeats.update(not_said)
            self._account.handled += len(chunk) - len(not_said)


class _Letter:
    """A `Message` of a letter: key, value and headers are those of the record before it failed."""

    __slots__ = ("_headers", "_letter")

    def __init__(self, letter: DeadRecord) -> None:
        self._letter = letter
        self._headers = list(letter.own_headers)

    def topic(self) -> str:
        return self._letter.topic

    def partition(self) -> int:
        return self._letter.id.partition

    def offset(self) -> int:
        return self._letter.id.offset

    def key(self) -> bytes | None:
        return self._letter.key

    def value(self) -> bytes | None:
        return self._letter.value

    def timestamp(self) -> tuple[int, int]:
        written_ms = self._letter.written_ms
        return (0, -1) if written_ms is None else (1, written_ms)

    def headers(self) -> list[Header] | None:
        return self._headers

    def set_headers(self, headers: list[Header]) -> None:
        self._headers = headers

    def __len__(self) -> int:
        return len(self._letter.value or b"")


def as_it_was(letter: DeadRecord) -> Returned:
    """The record that a letter is of: delivered from where the letter is, and otherwise as it was first."""
    return Returned(
        _Letter(letter),
        origin=letter.origin or Origin(letter.topic, *letter.id),
        timestamp_ms=letter.origin_timestamp_ms,
        calls=0,
        due_ms=0,
        replayed=True,
        repaired=lineage_of(letter.headers).repaired is not None,
    )


def _start_at(offset: int) -> OffsetMark:
    tracker = OffsetTracker(offset)
    tracker.running = False
    return OffsetMark(offset, codec.encode(0, tracker.progress()).text)
