"""Where records become done, and the only place: handled, deferred, dead-lettered, skipped or expired.

All stages that keep something of a record let go of it here. Loop thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.record import Ending, calls_before, is_replayed, timestamp_ms_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.dlq.envelope import Attempt
    from streamworker.partition import Partition
    from streamworker.record import Message
    from streamworker.stages import Stages


class Endings:
    """Marks what has ended as done, and says how it ended."""

    def __init__(self, stages: Stages) -> None:
        self._backpressure = stages.backpressure
        self._committer = stages.committer
        self._listener = stages.listener
        self._wall_ms = stages.clock.wall_ms
        self._observed: set[str] = set()  # topics whose latency was told of since `begin`

    def begin(self) -> None:
        """Outcomes are about to be settled."""
        self._observed.clear()

    def complete(
        self, partition: Partition, parts: Sequence[Sequence[Message]], ending: Ending, seconds: float
    ) -> None:
        """The records in `parts`, each in offset order, are done; the handler took `seconds` for them."""
        tracker = partition.tracker
        for messages in filter(None, parts):
            first, last = messages[0].offset(), messages[-1].offset()
            if last - first + 1 == len(messages):
                tracker.complete_run(first, last)
            else:
                tracker.complete([message.offset() for message in messages])
            _forget(partition.failures, messages)
            _forget(tracker.attempts, messages)
        records = sum(map(len, parts))
        size_bytes = self._backpressure.size_of(partition.key, parts, partition.lanes.largest_bytes)
        self._backpressure.settled(partition.key, records, size_bytes)
        self._committer.progressed(partition.key)
        self._listener.ended(partition.handler.name, partition.key, ending, records, seconds)
        topic = partition.ownership.topic
        if topic not in self._observed and (
            ending is Ending.HANDLED or ending is Ending.DEAD_LETTERED or ending is Ending.SKIPPED
        ):
            self._observed.add(topic)
            self._say_latency(topic, parts)

    def _say_latency(self, topic: str, parts: Sequence[Sequence[Message]]) -> None:
        """Of one record, the lowest: a look at each, or at each small slice, would cost as much as all the rest."""
        lowest = next(filter(None, parts))[0]
        at_ms = timestamp_ms_of(lowest)
        if at_ms is not None and not is_replayed(lowest):
            self._listener.latency(topic, max(0.0, (self._wall_ms() - at_ms) / 1000))

    def failed(
        self, partition: Partition, message: Message, error: BaseException, attempt: int, ending: Ending
    ) -> None:
        """A call failed, after which the record ends so, or is tried again."""
        name = partition.handler.name
        self._listener.failed(name, partition.key, message.offset(), error, attempt + calls_before(message), ending)


def _forget(calls: dict[int, list[Attempt]] | dict[int, int], messages: Sequence[Message]) -> None:
    """Drop what is known, by offset, of the failed calls of `messages`, which are in offset order.

    Where few records have failed it goes through those: nearly all others never did.
    """
    if not calls:
        return
    if len(calls) < len(messages):
        first, last = messages[0].offset(), messages[-1].offset()
        if not any(first <= offset <= last for offset in calls):
            return
    for message in messages:
        calls.pop(message.offset(), None)
