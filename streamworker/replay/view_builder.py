"""Fills a view from the topics: first what was said, then the letters, the newest first, then what is new in both.

Decided here: in which order a topic is read, and that it is read anew when it was made anew. Kafka is read forwards
only, so the order is that of parts: small ones at first, for a list that can be looked at after a moment. One thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from streamworker.record import TopicPartition
from streamworker.replay.states import decode, letter_of, state_topic
from streamworker.replay.view import Said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from streamworker.record import Message
    from streamworker.replay.dead_record import DeadRecord
    from streamworker.replay.states import Disposition
    from streamworker.replay.view import View

Range = tuple[int, int]

_FIRST_PART = 1_000  # records of a partition
_LARGEST_PART = 64_000  # a part costs some moments to begin, and what the client has fetched beyond it


class Log(Protocol):
    """What is asked of a `TopicLog`."""

    def bounds(self, partition: TopicPartition, timeout_s: float) -> tuple[int, int]:
        """As `TopicLog.bounds`."""

    def read(self, ranges: Mapping[TopicPartition, tuple[int, int]], timeout_s: float) -> Iterator[Sequence[Message]]:
        """As `TopicLog.read`."""


@dataclass(slots=True)
class _Progress:
    """How far one incarnation of the topic was read."""

    begun: bool = False
    reached: dict[TopicPartition, int] = field(default_factory=dict)  # of letters and states
    lowest: dict[TopicPartition, int] = field(default_factory=dict)  # what is below is deleted
    left: dict[TopicPartition, Range] = field(default_factory=dict)  # what was there at the beginning and is not read
    total: int = 0  # how much that was, with what was said
    taken: int = 0  # of the total
    part: int = _FIRST_PART


class ViewBuilder:
    """Reads a dead-letter topic with `partitions`, and as many of its states, into `view`.

    `read` makes a letter of a record of the topic. `state_partitions` is how many the state topic has: none while there
    is no such topic, and fewer where the other has grown. It and `partitions` may be set later. `timeout_s` is how long
    the cluster may say nothing.
    """

    def __init__(
        self,
        view: View,
        log: Log,
        read: Callable[[str, Message], DeadRecord],
        *,
        partitions: int,
        state_partitions: int,
        timeout_s: float,
    ) -> None:
        self.partitions = partitions
        self.state_partitions = state_partitions
        self._view = view
        self._log = log
        self._read = read
        self._timeout_s = timeout_s
        self._progress = _Progress()

    @property
    def complete(self) -> bool:
        """Whether all letters were read that were there at the beginning."""
        return self._progress.begun and not self._progress.left

    @property
    def reached(self) -> Mapping[TopicPartition, int]:
        """Up to which offset letters and states were read, but for older letters until it is `complete`."""
        return dict(self._progress.reached)

    def step(self) -> bool:
        """Read what is new, and one more part of what was there; whether another step has something to read at once.

        Raises ClientError and ViewError; the next step then goes on where it was.
        """
        letters = self._bounds(self._view.topic, self.partitions)
        states = self._bounds(state_topic(self._view.topic), min(self.partitions, self.state_partitions))
        if any(end < self._progress.reached.get(one, 0) for one, (_, end) in (*letters.items(), *states.items())):
            self._view.clear()  # the topic was made anew, or cut at its end
            self._progress = _Progress()
        if not self._progress.begun:
            self._begin(letters, states)
        self._follow(states)
        self._follow(letters)
        self._drop(letters)
        self._read_part()
        self._tell(self._progress.total - _span(self._progress.left))
        return not self.complete

    def _bounds(self, topic: str, partitions: int) -> Mapping[TopicPartition, Range]:
        asked = [TopicPartition(topic, number) for number in range(partitions)]
        return {partition: self._log.bounds(partition, self._timeout_s) for partition in asked}

    def _begin(self, letters: Mapping[TopicPartition, Range], states: Mapping[TopicPartition, Range]) -> None:
        progress = self._progress
        progress.left = {one: (low, end) for one, (low, end) in letters.items() if low < end}
        progress.reached.update({partition: end for partition, (_, end) in letters.items()})
        progress.total = _span(letters) + _span(states)
        progress.begun = True

    def _follow(self, bounds: Mapping[TopicPartition, Range]) -> None:
        """Read up to the present end."""
        reached = self._progress.reached
        self._take({one: (max(low, reached.get(one, 0)), end) for one, (low, end) in bounds.items()})
        reached.update({partition: end for partition, (_, end) in bounds.items()})

    def _drop(self, letters: Mapping[TopicPartition, Range]) -> None:
        """Forget what the topic has deleted."""
        lowest = self._progress.lowest
        for partition, (low, _) in letters.items():
            if low > lowest.get(partition, 0):
                self._view.forget(partition.partition, low)
                lowest[partition] = low

    def _read_part(self) -> None:
        """The newest part of what is left of each partition."""
        progress = self._progress
        left = {one: (max(low, progress.lowest.get(one, 0)), end) for one, (low, end) in progress.left.items()}
        parts = {one: (max(low, end - progress.part), end) for one, (low, end) in left.items()}
        self._take(parts)
        progress.left = {one: (low, parts[one][0]) for one, (low, _) in left.items() if low < parts[one][0]}
        progress.part = min(progress.part * 2, _LARGEST_PART)

    def _tell(self, taken: int) -> None:
        """How much is here: exactly after each part, and within it as if no offset were without a record."""
        progress = self._progress
        progress.taken = taken
        self._view.built = 1.0 if self.complete else min(taken / progress.total, 1.0)

    def _take(self, ranges: Mapping[TopicPartition, Range]) -> None:
        if not any(low < end for low, end in ranges.values()):
            return
        topic = self._view.topic
        for batch in self._log.read(ranges, self._timeout_s):
            letters = [self._read(topic, message) for message in batch if message.topic() == topic]
            if letters:
                self._view.add(letters)
            if len(letters) < len(batch):
                self._say([message for message in batch if message.topic() != topic])
            self._tell(self._progress.taken + len(batch))

    def _say(self, messages: Sequence[Message]) -> None:
        entries = [entry for message in messages if (entry := _entry(message)) is not None]
        self._view.say(entries, unreadable=len(messages) - len(entries))


def _span(ranges: Mapping[TopicPartition, Range]) -> int:
    return sum(end - low for low, end in ranges.values())


def _entry(message: Message) -> Said | None:
    """None for what says nothing that can be read, or is in another partition than its letter."""
    letter, value = letter_of(message.key()), message.value()
    disposition: Disposition | None = None if value is None else decode(value)
    if letter is None or letter.partition != message.partition() or (value is not None and disposition is None):
        return None
    return Said(letter, message.offset(), disposition)
