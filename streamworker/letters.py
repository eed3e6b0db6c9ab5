"""What is given up goes to the dead letters, or to a retry topic, and is done once that is acknowledged.

A partition waits while its letters are more than its budget allows, or than the producer has acknowledged; it stops
while they are refused. With `dlq_key` a letter parks its key, and later records of the key follow it. Loop thread only.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING

from streamworker.dlq.envelope import ComesBack, envelope
from streamworker.errors import HeadOfLine, KeyParked
from streamworker.partition import Unsent
from streamworker.reason import Reason
from streamworker.record import Ending, TopicPartition
from streamworker.resilience.verdict import Verdict, VerdictKind
from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.dlq.envelope import Envelope
    from streamworker.dlq.routes import Route
    from streamworker.endings import Endings
    from streamworker.parking import Parking
    from streamworker.partition import Partition
    from streamworker.partitions import Partitions
    from streamworker.record import Message
    from streamworker.stages import Stages


class Letters:
    """Writes letters; `max_bytes` is the largest record that the producer takes."""

    def __init__(
        self,
        stages: Stages,
        partitions: Partitions,
        parking: Parking,
        endings: Endings,
        *,
        max_bytes: int,
    ) -> None:
        self._stages = stages
        self._partitions = partitions
        self._parking = parking
        self._endings = endings
        self._config = stages.config
        self._clock = stages.clock
        self._listener = stages.listener
        self._max_bytes = max_bytes

    def give_up(
        self, partition: Partition, message: Message, verdict: Verdict, error: BaseException, attempt: int
    ) -> None:
        """Send a record to the next retry topic, or to the dead letters if it is not for one or does not fit."""
        route = self.next_route(partition)
        if route is None and verdict.reason is Reason.DEFERRED:
            route = partition.route
        if verdict.kind is VerdictKind.DEFER and route is not None:
            due_ms = self._clock.wall_ms() + round(route.delay_s * 1000)
            comes_back = ComesBack(route.level, due_ms)
            letter = self._letter(partition, message, route.name, verdict.reason, error, attempt, comes_back)
            if letter.fits:
                self._send(partition, message, letter, error, attempt, Ending.DEFERRED)
                return
        self.dead_letter(partition, message, verdict, error, attempt)

    def dead_letter(
        self, partition: Partition, message: Message, verdict: Verdict, error: BaseException, attempt: int
    ) -> None:
        """Send a record to the dead letters, or a note of it if it is skipped."""
        ending = Ending.SKIPPED if verdict.kind is VerdictKind.SKIP else Ending.DEAD_LETTERED
        letter = self._dead_letter_of(partition, message, verdict.reason, error, attempt)
        self._send(partition, message, letter, error, attempt, ending)

    def follow(self, partition: Partition, messages: Sequence[Message]) -> Sequence[Message]:
        """Let those of a parked key follow its dead letter."""
        others: list[Message] = []
        for message in messages:
            key = message.key()
            first = None if key is None else partition.parked.get(key)
            if first is None or message.offset() < first:
                others.append(message)
            else:
                spent = partition.tracker.attempts.get(message.offset(), 0)
                letter = self._dead_letter_of(partition, message, Reason.PARKED_BEHIND, KeyParked(first), spent)
                self._hand_over(partition, message, letter, Ending.DEAD_LETTERED)
        return others

    def divert(self, partition: Partition, message: Message, age_s: float, attempts: int) -> None:
        """Give a record up that holds its partition back for too long, and that no thread has."""
        error = HeadOfLine(f"not done {age_s:.0f} s after it became the lowest open record of {partition.key}")
        self.give_up(partition, message, Verdict(VerdictKind.DEFER, Reason.HEAD_OF_LINE), error, attempts)

    def write(self, partition: Partition) -> None:
        """Hand over what the budget allows, and hold the partition as long as something stays behind."""
        unsent, writer = partition.unsent, self._stages.writer
        while unsent and self._has_room(partition, unsent[0]) and partition.budget.take(self._clock.monotonic_s()):
            next_ = unsent.popleft()
            if next_.parks is not None:
                partition.parking.add(next_.parks)
            writer.write(next_.letter, next_.acknowledged)
        has_room = not unsent or self._has_room(partition, unsent[0])
        self._partitions.hold_if(partition, PauseReason.DEAD_LETTER_BUDGET, needed=bool(unsent) and has_room)
        self._partitions.hold_if(partition, PauseReason.PARKED_KEYS_FULL, needed=not has_room)
        limit = self._config.dead_letters.max_unacknowledged
        pending = writer.waiting(partition.key) > 0 or writer.outstanding(partition.key) >= limit
        # What is parked now is known to the lanes once its note has come back.
        self._partitions.hold_if(partition, PauseReason.DEAD_LETTERS_PENDING, needed=pending or bool(partition.parking))

    def refused(self, key: TopicPartition, offset: int, topic: str, error: str) -> None:
        """Stop the partition of a dead letter that was not taken; the writer keeps trying."""
        self._listener.dead_letter_refused(key, offset, topic, error)
        partition = self._partitions.get(key)
        if partition is not None:
            self._partitions.stop(partition, Reason.DEAD_LETTER_REFUSED, f"{topic}: {error}", mends_itself=True)

    def next_route(self, partition: Partition) -> Route | None:
        """The retry topic for what is given up in `partition`; None behind the last."""
        here = partition.route
        return self._stages.routes.after(partition.ownership.topic, 0 if here is None else here.level)

    def _dead_letter_of(
        self, partition: Partition, message: Message, reason: Reason, error: BaseException, attempt: int
    ) -> Envelope:
        dead_letter = partition.handler.declared.dead_letter
        assert dead_letter is not None
        return self._letter(partition, message, dead_letter.topic, reason, error, attempt)

    def _letter(
        self,
        partition: Partition,
        message: Message,
        topic: str,
        reason: Reason,
        error: BaseException,
        attempt: int,
        comes_back: ComesBack | None = None,
    ) -> Envelope:
        return envelope(
            message,
            topic=topic,
            group=self._config.kafka.group,
            handler=partition.handler.name,
            reason=reason,
            error=error,
            attempts=attempt,
            attempt_log=partition.failures.get(message.offset(), ()),
            now_ms=self._clock.wall_ms(),
            max_bytes=self._max_bytes,
            comes_back=comes_back,
            parked_behind=error.first if isinstance(error, KeyParked) else None,
        )

    def _send(
        self,
        partition: Partition,
        message: Message,
        letter: Envelope,
        error: BaseException,
        attempt: int,
        ending: Ending,
    ) -> None:
        self._endings.failed(partition, message, error, attempt, ending)
        self._hand_over(partition, message, letter, ending)

    def _hand_over(self, partition: Partition, message: Message, letter: Envelope, ending: Ending) -> None:
        partition.leaving.add(message.offset())
        parks = self._parks(partition, message, ending)
        acknowledged = partial(self._acknowledged, partition, message, letter, ending, parks=parks is not None)
        if letter.reason is Reason.DEFERRED:  # an outage is no reason to stop, and what is put aside comes back
            self._stages.writer.write(letter, acknowledged)
        else:
            partition.unsent.append(Unsent(letter, acknowledged, parks))
        self.write(partition)

    def _parks(self, partition: Partition, message: Message, ending: Ending) -> bytes | None:
        """The key that is to be parked behind a record; None if none is, or it is already."""
        dead_letter, key = partition.handler.declared.dead_letter, message.key()
        if dead_letter is None or dead_letter.keys_topic is None or ending is not Ending.DEAD_LETTERED:
            return None
        return None if key is None or partition.parked.get(key, inf) <= message.offset() else key

    def _has_room(self, partition: Partition, unsent: Unsent) -> bool:
        """Whether one more key may be parked, if that is what a letter does."""
        most = self._config.dead_letters.max_parked_keys
        needs_none = unsent.parks is None or unsent.parks in partition.parked
        return needs_none or len(partition.parked) + len(partition.parking) < most

    def _acknowledged(
        self, partition: Partition, message: Message, letter: Envelope, ending: Ending, *, parks: bool
    ) -> None:
        if partition.ownership.ended:
            return
        if ending is Ending.DEFERRED:
            # A bounded run has not seen its end then: the copy has the same number, where there is one.
            there = self._partitions.get(TopicPartition(letter.topic, partition.key.partition))
            if there is not None:
                there.at_end = False
            self._listener.deferred(partition.key, letter.topic, letter.reason)
        else:
            self._listener.dead_lettered(partition.key, letter.topic, letter.reason)
        if parks:
            self._parking.park(partition, message, lambda: self._complete(partition, message, ending))
        else:
            self._complete(partition, message, ending)

    def _complete(self, partition: Partition, message: Message, ending: Ending) -> None:
        partition.leaving.discard(message.offset())
        self._endings.complete(partition, [[message]], ending, 0.0)
