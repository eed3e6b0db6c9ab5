"""Lets the records that an earlier owner may have died of go a few at a time, each group named in a commit first.

Loop thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.errors import WorkerKilled
from streamworker.offsets.suspects import Suspects

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker.offsets.progress import Progress
    from streamworker.partition import Partition
    from streamworker.partitions import Partitions
    from streamworker.record import Message
    from streamworker.stages import Stages


class Quarantine:
    """The partitions that were taken over from an owner that did not give them back.

    `condemn` ends a record that is not to be handed over; `wake` lets the scheduler look at a partition again. At most
    `records` of a partition are suspected: as many as may have been in work beyond a committed offset.
    """

    def __init__(
        self,
        stages: Stages,
        partitions: Partitions,
        *,
        condemn: Callable[[Partition, Message, WorkerKilled], None],
    ) -> None:
        self._partitions = partitions
        self._committer = stages.committer
        self._listener = stages.listener
        self._records = stages.config.commit.max_uncommitted
        self._condemn = condemn
        self.any = False  # whether a partition is in quarantine: a look at it costs the loop less than a call

    def concerns(self, left: Progress | None) -> bool:
        """Whether an earlier owner that has `left` this may have died of a record.

        A process that lost a partition and has it back has not died.
        """
        if left is None:
            return False
        return left.suspect is not None or (left.running and left.owner != self._partitions.identity)

    def begin(self, partition: Partition, left: Progress | None, end: int | None) -> None:
        """Suspect what the earlier owner can have had in work, of a log that ended at `end` if that is known."""
        if left is None or not self.concerns(left):
            return
        partition.suspects = Suspects(left, end=end, records=self._records)
        self.any = True
        self._listener.suspected(partition.key, partition.suspects.deaths)

    def admitted(self, partition: Partition, messages: Sequence[Message]) -> Sequence[Message]:
        """Of records that were delivered, those that may be handed over; ends the one that killed its workers."""
        suspects = partition.suspects
        if suspects is None or suspects.killer is None:
            return messages
        for message in messages:
            if message.offset() == suspects.killer:
                self._condemn(partition, message, WorkerKilled(suspects.deaths))
        return [message for message in messages if message.offset() != suspects.killer]

    def step(self) -> None:
        """Name the next groups, and let partitions go on in which everything suspected has ended."""
        in_quarantine = [one for one in self._partitions if one.suspects is not None]
        self.any = bool(in_quarantine)
        for partition in in_quarantine:
            self._advance(partition, alone_allowed=not any(map(_has_one_alone, in_quarantine)))

    def _advance(self, partition: Partition, *, alone_allowed: bool) -> None:
        suspects, tracker = partition.suspects, partition.tracker
        assert suspects is not None
        if suspects.over(tracker):
            partition.suspects = tracker.suspect = None
            self._committer.progressed(partition.key)
            partition.handler.scheduler.wake(partition.key)
            self._listener.acquitted(partition.key)
            return
        group = suspects.next_group(tracker, alone_allowed=alone_allowed)
        if group is not None:
            tracker.suspect = group
            self._committer.hurry(partition.key)
            # It may be known to be named: an earlier owner left off with the same.
            partition.handler.scheduler.wake(partition.key)
        elif suspects.group is None and suspects.deaths > 1:
            tracker.suspect = suspects.unfinished(tracker)


def _has_one_alone(partition: Partition) -> bool:
    """Whether a record goes alone and is with a handler, or soon will be: one that waits or stands still is not."""
    suspects = partition.suspects
    if suspects is None or partition.lanes.blocked or partition.lanes.held_records:
        return False
    return suspects.alone and suspects.in_work(partition.tracker)
