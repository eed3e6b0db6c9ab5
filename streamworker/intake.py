"""What is let in of what the client delivers, and what of it is given back. Loop thread only.

Records of a partition come in the order of their offsets, or the partition stands still. What was fetched and is not
let in is sought again, or nothing of the partition is let in any more: nothing is passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.errors import ClientError
from streamworker.reason import Reason
from streamworker.record import Returned, timestamp_ms_of
from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from streamworker.addressing import Addressing
    from streamworker.delays import Delays
    from streamworker.interfaces import Fault
    from streamworker.partition import Partition
    from streamworker.partitions import Partitions
    from streamworker.quarantine import Quarantine
    from streamworker.record import Message, TopicPartition
    from streamworker.stages import Stages

# One fetch takes at most so many records: with fewer the step costs more per record, with more the records leave the
# processor's cache before they are done with.
_MAX_FETCH = 1000
# A batch that cannot be read so often in a row is not a glitch of the network.
_UNREADABLE_TRIES = 3


class Intake:
    """Lets records in, `max_records` in all if that is not None."""

    def __init__(
        self,
        stages: Stages,
        partitions: Partitions,
        *,
        delays: Delays,
        addressing: Addressing,
        quarantine: Quarantine,
        max_records: int | None,
    ) -> None:
        self._stages = stages
        self._partitions = partitions
        self._delays = delays
        self._addressing = addressing
        self._quarantine = quarantine
        self._max_records = max_records
        self._admitted = 0

    @property
    def full(self) -> bool:
        """Whether all records of a bounded run were let in."""
        return self._max_records is not None and self._admitted >= self._max_records

    def room(self) -> int:
        """How many records the next fetch may take."""
        return min(self._stages.backpressure.room(), self._left())

    def _left(self) -> int:
        return _MAX_FETCH if self._max_records is None else min(self._max_records - self._admitted, _MAX_FETCH)

    def admit(self, key: TopicPartition, messages: Sequence[Message]) -> None:
        """Let in what a fetch brought of a partition."""
        stages, partition = self._stages, self._partitions.get(key)
        if partition is None or not partition.positioned or not partition.admits:
            return
        if key in stages.assignment.began:
            self._fetch_anew(partition)
            return
        first = messages[0].offset()
        if first < partition.tracker.next_offset:
            detail = f"delivered {first}, expected {partition.tracker.next_offset} or later: was the topic made anew?"
            partition.admits = False
            self._partitions.stop(partition, Reason.OFFSET_WENT_BACK, detail, mends_itself=False)
            return
        if partition.route is not None and not partition.route.is_replay:
            messages = self._delays.due(partition, messages)
        left = self._left()
        partition.admits = len(messages) <= left
        messages = messages[:left]
        if not messages:
            return
        now_s = stages.clock.monotonic_s()
        partition.ages.delivered(messages[0].offset(), _since_ms(messages[0]))
        messages = self._deliver(partition, messages)
        if not messages:
            return
        sizes = list(map(len, messages))
        size_bytes = sum(sizes)
        self._admitted += len(messages)
        stages.backpressure.admitted(key, len(messages), size_bytes)
        if self._addressing.concerns(partition):
            messages = self._addressing.admitted(partition, messages)
        messages = self._quarantine.admitted(partition, messages)
        if messages:
            partition.handler.scheduler.offer(key, messages, max(sizes), now_s)
        stages.listener.fetched(key, len(sizes), size_bytes)

    def unreadable(self, partition: Partition, fault: Fault) -> None:
        """Stop a partition with a batch that cannot be read again and again."""
        told = -1 if fault.offset is None else fault.offset
        offset = told if told >= 0 else partition.tracker.next_offset
        before, times = partition.unreadable_at
        times = times + 1 if offset == before else 1
        partition.unreadable_at = (offset, times)
        if times >= _UNREADABLE_TRIES:
            detail = f"offset {offset}: {fault.detail}"
            self._partitions.stop(partition, Reason.UNREADABLE_BATCH, detail, mends_itself=False)

    def shed(self, partition: Partition, records: int) -> None:
        """Give the places of a paused partition's latest records to others; they are fetched again later."""
        writer = self._stages.writer
        if partition.unsent or partition.parking or writer.outstanding(partition.key) or not partition.admits:
            return
        in_hand = [slice_.highest for slice_ in self._stages.running if slice_.ownership is partition.ownership]
        first = max([partition.tracker.highest_done, *in_hand]) + 1
        scheduler = partition.handler.scheduler
        dropped = scheduler.shed(partition.key, records, first)
        if not dropped:
            return
        try:
            self._stages.source().seek(partition.key, dropped[0].offset())
        except ClientError:
            scheduler.offer(partition.key, dropped, max(map(len, dropped)), self._stages.clock.monotonic_s())
            return
        partition.tracker.take_back(dropped[0].offset())
        self._admitted -= len(dropped)
        partition.at_end = False
        self._stages.backpressure.settled(partition.key, len(dropped), sum(map(len, dropped)))

    def _deliver(self, partition: Partition, messages: Sequence[Message]) -> Sequence[Message]:
        """Let the tracker know what was delivered; returns what is not done, as an earlier ownership knew."""
        tracker = partition.tracker
        located, remembers = tracker.located, tracker.remembers
        for first, count in _consecutive(messages):
            tracker.deliver(first, count)
        if not located:
            self._stages.committer.hurry(partition.key)
        if not remembers:
            return messages
        left = [message for message in messages if not tracker.is_done(message.offset())]
        if len(left) < len(messages):
            self._stages.committer.progressed(partition.key)
            self._stages.listener.remembered(partition.key, len(messages) - len(left))
        return left

    def _fetch_anew(self, partition: Partition) -> None:
        """Drop what a fetch brought that crossed the assignment: it may belong to an ownership before it."""
        try:
            self._stages.source().seek(partition.key, partition.start_offset)
        except ClientError:
            # Going on would leave a gap: its start is found out again instead.
            partition.positioned = False
            self._partitions.hold(partition, PauseReason.OFFSETS_UNKNOWN)


def _since_ms(message: Message) -> int | None:
    """Since when a record that was delivered waits; one of a retry topic does from when it is due."""
    return message.due_ms if isinstance(message, Returned) else timestamp_ms_of(message)


def _consecutive(messages: Sequence[Message]) -> Iterable[tuple[int, int]]:
    """Runs of consecutive offsets as (first, count)."""
    first, last = messages[0].offset(), messages[-1].offset()
    if last - first + 1 == len(messages):
        return [(first, len(messages))]
    runs: list[tuple[int, int]] = []
    start = previous = first
    for message in messages[1:]:
        offset = message.offset()
        if offset != previous + 1:
            runs.append((start, previous + 1 - start))
            start = offset
        previous = offset
    return [*runs, (start, previous + 1 - start)]
