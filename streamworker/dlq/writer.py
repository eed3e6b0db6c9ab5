"""Dead letters on their way: sent, acknowledged, refused and sent again.

Decides when a letter is sent again and in which form. Does not decide what a dead letter is (`resilience/verdict.py`),
nor what a refusal does to the partition: the worker stops it and hears here when it goes on. Loop thread only.

A letter waits, is sent, and is acknowledged; only then may its offset be done. Per source partition letters are sent
in the order of `write`. A refused letter goes back to its place; then its partition sends one letter at a time,
after a growing back-off, until one is acknowledged. A topic that takes nothing costs one request a back-off
like this, and what follows cannot overtake further than what was under way.

No letter is dropped except by `drop`. Nothing blocks, except that the outbox may have to ask how many partitions a
topic has, at most for `METADATA_TIMEOUT_S`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from streamworker.errors import ClientError
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamworker.clock import Clock
    from streamworker.config import DeadLetterConfig
    from streamworker.interfaces import Outbox
    from streamworker.record import Letter

Refused = Callable[[TopicPartition, int, str, str], None]

METADATA_TIMEOUT_S = 0.5
_FULL_RETRY_S = 0.05  # the producer's queue is full: reports empty it, and they are served with every poll
_IDLE_POLL_S = 0.1  # without letters the producer is polled for its logs and errors alone
# Answers that a smaller letter may not get. INVALID_RECORD is what brokers say of a single record in a batch.
_TOO_LARGE = frozenset({"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_MSG_SIZE", "INVALID_RECORD"})
_NO_SUCH_TOPIC = "UNKNOWN_TOPIC_OR_PART"


class Written(Protocol):
    """What is to be written of the record at `offset` of `source`: its dead letter, or the note that parks its key."""

    @property
    def topic(self) -> str:
        """Where it goes."""

    @property
    def source(self) -> TopicPartition:
        """The partition that the record was delivered from."""

    @property
    def offset(self) -> int:
        """The record's offset there."""

    def letters(self, partition_count: int) -> Iterator[Letter]:
        """Its forms for a topic of so many partitions, each smaller than the one before; at least one."""


@dataclass(slots=True)
class _Entry:
    """One dead letter. `letters` are the forms not tried yet, None before the first."""

    number: int
    written: Written
    on_done: Callable[[], None]
    letter: Letter | None = None
    letters: Iterator[Letter] | None = None
    refusals_seen: int = 0  # of the lane, when this was sent

    def shrink(self) -> bool:
        """Take the next smaller form; false if there is none."""
        self.letter = None if self.letters is None else next(self.letters, None)
        return self.letter is not None

    def start_over(self) -> None:
        """Begin with the whole copy again."""
        self.letter = self.letters = None


@dataclass(slots=True)
class _Lane:
    """The letters of one source partition in one ownership. `waiting` is a heap by number."""

    waiting: list[tuple[int, _Entry]] = field(default_factory=list)
    unacknowledged: int = 0
    refusals: int = 0  # in a row
    due_s: float = 0.0  # nothing is sent earlier

    def may_send(self) -> bool:
        return bool(self.waiting) and (self.refusals == 0 or self.unacknowledged == 0)


class DeadLetterWriter:
    """Writes dead letters through `outbox` and keeps at it.

    `on_refused(partition, offset, topic, error)` is called for every refusal of a letter, with the source's
    coordinates; inside `write` and `poll`. The callbacks may call anything here but `poll`.
    """

    def __init__(self, outbox: Outbox, config: DeadLetterConfig, clock: Clock, on_refused: Refused) -> None:
        self._outbox = outbox
        self._config = config
        self._clock = clock
        self._on_refused = on_refused
        self._lanes: dict[TopicPartition, _Lane] = {}
        self._count = 0
        self._idle_poll_s = 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing waits and all is acknowledged."""
        return not self._lanes

    @property
    def under_way(self) -> bool:
        """Whether the producer has letters that are not acknowledged."""
        return any(lane.unacknowledged for lane in self._lanes.values())

    def write(self, written: Written, on_done: Callable[[], None]) -> None:
        """Send as soon as possible. `on_done` is called inside a later `poll`, once it is acknowledged.

        After `drop` of its partition `on_done` is not called.
        """
        lane = self._lanes.setdefault(written.source, _Lane())
        self._count += 1
        self._wait(lane, _Entry(self._count, written, on_done))
        self._send_due(lane)

    def poll(self) -> None:
        """Serve acknowledgements and refusals, and send what is due."""
        now_s = self._clock.monotonic_s()
        if not self._lanes and now_s < self._idle_poll_s:
            return
        self._idle_poll_s = now_s + _IDLE_POLL_S
        self._outbox.poll()
        for partition, lane in list(self._lanes.items()):
            self._send_due(lane)
            if not lane.waiting and not lane.unacknowledged:
                del self._lanes[partition]

    def outstanding(self, partition: TopicPartition) -> int:
        """Letters of `partition` that are not acknowledged; dispatch holds at `max_unacknowledged`."""
        lane = self._lanes.get(partition)
        return len(lane.waiting) + lane.unacknowledged if lane else 0

    def waiting(self, partition: TopicPartition) -> int:
        """Of these, the ones that the producer does not have: later records of their keys must not go on yet."""
        lane = self._lanes.get(partition)
        return len(lane.waiting) if lane else 0

    def refused(self, partition: TopicPartition) -> bool:
        """Whether `partition` had a letter refused and none acknowledged since."""
        lane = self._lanes.get(partition)
        return bool(lane and lane.refusals)

    def drop(self, partition: TopicPartition) -> None:
        """Forget the letters of `partition`, whose ownership ended; late acknowledgements are ignored.

        What the producer has already is not called back: the next owner may write it a second time.
        """
        self._lanes.pop(partition, None)

    def next_due_s(self) -> float | None:
        """Monotonic time at which `poll` has something to send; None if that depends on acknowledgements alone."""
        return min((lane.due_s for lane in self._lanes.values() if lane.may_send()), default=None)

    def _wait(self, lane: _Lane, entry: _Entry) -> None:
        heapq.heappush(lane.waiting, (entry.number, entry))

    def _send_due(self, lane: _Lane) -> None:
        while lane.may_send() and self._clock.monotonic_s() >= lane.due_s:
            entry = heapq.heappop(lane.waiting)[1]
            try:
                self._send(lane, entry)
            except BufferError:
                self._wait(lane, entry)
                lane.due_s = self._clock.monotonic_s() + _FULL_RETRY_S
            except ClientError as error:
                self._not_taken(lane, entry, error.code)

    def _send(self, lane: _Lane, entry: _Entry) -> None:
        entry.refusals_seen = lane.refusals
        if entry.letter is None:
            entry.letters = entry.written.letters(self._partition_count(entry.written.topic))
            entry.letter = next(entry.letters)
        self._outbox.send(entry.letter, partial(self._answered, lane, entry))
        lane.unacknowledged += 1

    def _partition_count(self, topic: str) -> int:
        count = self._outbox.partitions(topic, METADATA_TIMEOUT_S)
        if count is None:
            raise ClientError(f"there is no dead-letter topic {topic!r}", code=_NO_SUCH_TOPIC)
        return count

    def _answered(self, lane: _Lane, entry: _Entry, error: str | None) -> None:
        if self._lanes.get(entry.written.source) is not lane:
            return
        lane.unacknowledged -= 1
        if error is not None:
            self._not_taken(lane, entry, error)
            return
        if entry.refusals_seen == lane.refusals:
            lane.refusals = 0
        entry.on_done()

    def _not_taken(self, lane: _Lane, entry: _Entry, error: str) -> None:
        self._wait(lane, entry)
        if error in _TOO_LARGE and entry.shrink():
            return
        entry.start_over()
        if entry.refusals_seen == lane.refusals:  # else it fell with the letters of an earlier refusal
            lane.due_s = self._clock.monotonic_s() + self._backoff_s(lane.refusals)
            lane.refusals += 1
        source = entry.written.source
        self._on_refused(source, entry.written.offset, entry.written.topic, error)

    def _backoff_s(self, refusals: int) -> float:
        doublings = min(refusals, 32)  # beyond any retry_max_s, and 2.0 ** n stays finite
        return float(min(self._config.retry_max_s, self._config.retry_min_s * 2.0**doublings))
