"""How far the dead letters of each partition are settled: up to the first that somebody still has to look at.

Decided here: which states are settled, and that the topics themselves are asked and not a view, because what is below a
front may be deleted. What was said of another letter is not believed, so a letter is rather taken for open. One thread
at a time.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from streamworker.record import TopicPartition
from streamworker.replay.dead_record import LetterId
from streamworker.replay.standings import Standings, Unreadable
from streamworker.replay.states import Disposition, Standing, State, decode, digest, letter_of, state_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from streamworker.record import Message
    from streamworker.replay.dead_record import DeadRecord

    Ranges = Mapping[TopicPartition, tuple[int, int]]

SETTLED = frozenset({State.REPLAYED, State.REPAIRED, State.DISCARDED, State.DUPLICATE})


class Log(Protocol):
    """What is asked of a `TopicLog`."""

    def bounds(self, partition: TopicPartition, timeout_s: float) -> tuple[int, int]:
        """As of `TopicLog`."""

    def read(self, ranges: Ranges, timeout_s: float) -> Generator[Sequence[Message]]:
        """As of `TopicLog`."""


@dataclass(frozen=True, slots=True)
class Front:
    """Of one partition: `open` is the first letter that is not settled, or the end; below it there are `settled`."""

    partition: TopicPartition
    start: int
    open: int
    end: int
    settled: int
    said_to: int  # up to where the state topic was read for it

    @property
    def done(self) -> bool:
        """Whether all letters are settled."""
        return self.open >= self.end


class Fronts:
    """Finds the fronts of dead-letter topic `topic`, read through `log`.

    `topic_id` is the cluster's, None where it does not tell; `has_states` is false while there is no state topic.
    `read_letter` makes a letter of a record. Raises ClientError.
    """

    def __init__(
        self,
        log: Log,
        topic: str,
        read_letter: Callable[[str, Message], DeadRecord],
        *,
        topic_id: str | None,
        has_states: bool,
        timeout_s: float,
    ) -> None:
        self._log = log
        self._topic = topic
        self._read_letter = read_letter
        self._topic_id = topic_id
        self._has_states = has_states
        self._timeout_s = timeout_s

    def of(self, number: int, told: Callable[[int], None] = lambda _count: None) -> Front:
        """That of one partition; `told` hears how many offsets of it are behind, now and then."""
        partition = TopicPartition(self._topic, number)
        start, end = self._log.bounds(partition, self._timeout_s)
        said, said_to = self._said(number, end)
        front = Front(partition, start, end, end, 0, said_to)
        with closing(self._log.read({partition: (start, end)}, self._timeout_s)) as batches:
            for batch in batches:
                for message in batch:
                    if not self._is_settled(said, message):
                        return replace(front, open=message.offset())
                    front = replace(front, settled=front.settled + 1)
                told(batch[-1].offset() + 1 - start)
        return front

    def now(self, front: Front) -> Front:
        """The same with what was said since: a letter may have been made pending again."""
        if not self._has_states:
            return front
        partition = TopicPartition(state_topic(self._topic), front.partition.partition)
        _, end = self._log.bounds(partition, self._timeout_s)
        opened = front.open
        for batch in self._log.read({partition: (front.said_to, end)}, self._timeout_s):
            for message in batch:
                letter, value = letter_of(message.key()), message.value()
                said = None if value is None else decode(value)
                ours = letter is not None and letter.partition == front.partition.partition
                if letter is not None and ours and (said is None or said.state not in SETTLED):
                    opened = min(opened, letter.offset)
        settled = front.settled - max(front.open - max(opened, front.start), 0)
        return replace(front, open=max(opened, front.start), settled=max(settled, 0), said_to=end)

    def _said(self, number: int, end: int) -> tuple[Standings, int]:
        standings = Standings(number)
        if not self._has_states:
            return standings, 0
        partition = TopicPartition(state_topic(self._topic), number)
        bounds = self._log.bounds(partition, self._timeout_s)
        for batch in self._log.read({partition: bounds}, self._timeout_s):
            for message in batch:
                standings.take(message.key(), message.value(), end)
        return standings, bounds[1]

    def _is_settled(self, said: Standings, message: Message) -> bool:
        try:
            last = said.of(LetterId(message.partition(), message.offset()))
        except Unreadable:
            return False
        if last is None or last.state not in SETTLED:
            return False
        value = message.value()
        if last.is_of(self._standing(digest(value))):
            return True
        pointer = None if value is not None else self._read_letter(self._topic, message).pointer
        return pointer is not None and last.is_of(self._standing(pointer.sha256))

    def _standing(self, payload_sha256: str | None) -> Standing:
        letter = Disposition(
            state=State.PENDING, op_id="", actor="", at_ms=0, topic_id=self._topic_id, payload_sha256=payload_sha256
        )
        return Standing.of(letter)
