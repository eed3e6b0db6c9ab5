"""The partitions owned now: where an ownership begins and ends in all stages at once.

Also the one place that holds a partition back, stops it and lets it go on, so that dispatch, the
client's pause and what is reported never disagree. Loop thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.dlq.budget import DeadLetterBudget
from streamworker.observability.status import StopStatus
from streamworker.offsets.policy import BEGINNING
from streamworker.offsets.progress import Suspect
from streamworker.offsets.tracker import OffsetTracker
from streamworker.partition import Partition
from streamworker.reason import Reason
from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from streamworker.offsets.progress import Progress
    from streamworker.record import TopicPartition
    from streamworker.stages import HandlerStages, Stages


# Reasons for which what is fetched is still handed over.
FETCH_ONLY = frozenset(
    {
        PauseReason.BACKPRESSURE,
        PauseReason.BREAKER,
        PauseReason.MEMORY,
        PauseReason.DRAINING,
        PauseReason.RETRY_NOT_DUE,
    }
)


class Partitions:
    """All that is owned, by partition."""

    def __init__(self, stages: Stages, *, identity: str) -> None:
        self._stages = stages
        self._config = stages.config
        self._clock = stages.clock
        self._listener = stages.listener
        self.identity = identity  # of this process, in what it commits
        self._owned: dict[TopicPartition, Partition] = {}
        self.troubled: dict[TopicPartition, Partition] = {}  # those with a reason not to dispatch

    def __iter__(self) -> Iterator[Partition]:
        return iter(list(self._owned.values()))

    def __getitem__(self, key: TopicPartition) -> Partition:
        return self._owned[key]

    def __len__(self) -> int:
        return len(self._owned)

    def get(self, key: TopicPartition) -> Partition | None:
        """The present ownership of `key`, None without."""
        return self._owned.get(key)

    def limit(self, key: TopicPartition) -> int:
        """The offset from which records of `key` must wait until more is committed.

        Nothing begins before the coordinator knows that the partition is in work: a record that kills the process would
        leave no trace.
        """
        partition = self._owned[key]
        tracker = partition.tracker
        if not tracker.announced:
            return tracker.committable
        limit = tracker.limit(self._config.commit.max_uncommitted)
        return limit if partition.suspects is None else min(limit, partition.suspects.limit(tracker))

    def awaits_commit(self, partition: Partition) -> bool:
        """Whether nothing more is begun until the coordinator takes a commit."""
        tracker, suspects = partition.tracker, partition.suspects
        if tracker.located and not tracker.announced:
            return True
        named = suspects is None or suspects.group is None or suspects.limit(tracker) > tracker.committable
        return not named or tracker.done_uncommitted >= self._config.commit.max_uncommitted

    def attempts(self, key: TopicPartition) -> Mapping[int, int]:
        """Calls that were spent on records of `key` that are not done, by their offset."""
        return self._owned[key].tracker.attempts

    def own(
        self,
        key: TopicPartition,
        *,
        handler: HandlerStages,
        start_offset: int | None,
        progress: Progress | None = None,
        topic_id: str = "",
    ) -> Partition:
        """Begin an ownership where an earlier one has left; nothing is committed while the start is unknown (None)."""
        stages = self._stages
        if key in self._owned:
            self.end([key])
        ownership, route = stages.assignment.assign(key), stages.routes.of(key.topic)
        if route is not None:
            ownership.topic = route.topic
        now_s = self._clock.monotonic_s()
        partition = self._owned[key] = Partition(
            ownership=ownership,
            handler=handler,
            tracker=self._tracker(BEGINNING if start_offset is None else start_offset, progress, topic_id),
            lanes=handler.scheduler.own(ownership),
            budget=DeadLetterBudget(self._config.dead_letters, now_s),
            route=route,
            start_offset=BEGINNING if start_offset is None else start_offset,
            positioned=start_offset is not None,
        )
        if partition.positioned:
            stages.committer.own(key, partition.tracker)
        stages.backpressure.own(key, beside=route is not None)
        return partition

    def position(self, partition: Partition, start_offset: int, progress: Progress | None, topic_id: str) -> None:
        """Give a partition its start that was assigned without one."""
        partition.tracker = self._tracker(start_offset, progress, topic_id)
        partition.start_offset = start_offset
        partition.positioned = True
        self._stages.committer.own(partition.key, partition.tracker)

    def end(self, keys: Iterable[TopicPartition]) -> None:
        """End ownerships; what was in hand for them counts for nothing from here on."""
        keys = [key for key in keys if key in self._owned]
        stages = self._stages
        for key in keys:
            self._report_end_of_pauses(key)
        stages.assignment.end(keys)
        stages.committer.disown(keys)
        stages.ledger.disown(keys)
        for key in keys:
            self._owned.pop(key).handler.scheduler.disown(key)
            stages.backpressure.disown(key)
            stages.writer.drop(key)
            if stages.outputs is not None:
                stages.outputs.drop(key)
            self.troubled.pop(key, None)

    def _report_end_of_pauses(self, key: TopicPartition) -> None:
        now_s = self._clock.monotonic_s()
        for reason, since_s in self._stages.ledger.reasons(key).items():
            self._listener.resumed(key, reason.value, now_s - since_s)

    def hold(self, partition: Partition, reason: PauseReason) -> None:
        """Put up a reason not to fetch and, unless it is one of `FETCH_ONLY`, not to dispatch."""
        if not self._stages.ledger.put(partition.key, reason, self._clock.monotonic_s()):
            return
        if reason not in FETCH_ONLY:
            partition.handler.scheduler.block(partition.key)
            self.troubled[partition.key] = partition
        self._listener.paused(partition.key, reason.value)

    def release(self, partition: Partition, reason: PauseReason) -> None:
        """Take a reason away."""
        since_s = self._stages.ledger.take(partition.key, reason)
        if since_s is None:
            return
        if not self._stages.ledger.reasons(partition.key).keys() - FETCH_ONLY:
            partition.handler.scheduler.unblock(partition.key)
            self.troubled.pop(partition.key, None)
        self._listener.resumed(partition.key, reason.value, self._clock.monotonic_s() - since_s)

    def hold_if(self, partition: Partition, reason: PauseReason, *, needed: bool) -> None:
        """Put a reason up as long as it is needed."""
        if needed:
            self.hold(partition, reason)
        else:
            self.release(partition, reason)

    def end_by(self, keys: Iterable[TopicPartition], at_s: float) -> None:
        """Let calls in progress know when the ownership of these will end."""
        for key in keys:
            if key in self._owned:
                self._owned[key].ownership.ends_s = at_s

    def give_back(self, keys: Iterable[TopicPartition]) -> None:
        """Let the last commit of these say that they were given back in order."""
        for key in keys:
            partition = self._owned.get(key)
            if partition is not None:
                partition.tracker.running = False
                partition.tracker.suspect = _left_in_suspicion(partition)

    def stop(
        self, partition: Partition, reason: Reason, detail: str, *, mends_itself: bool, retry: bool = False
    ) -> None:
        """Let `partition` stand still; with `retry` it is let go on after a back-off, to see.

        What waits for a person takes the place of what mends by itself, never the other way round.
        """
        if partition.stop is not None and (mends_itself or not partition.stop.mends_itself):
            return
        if reason is Reason.FOREIGN_REWIND:
            # The next owner finds an offset of our own there, and must not take what comes again for a repeat.
            partition.tracker.rewound_upto = partition.tracker.next_offset
            self._stages.committer.progressed(partition.key)
        now_s = self._clock.monotonic_s()
        partition.retry_at_s = partition.next_retry_s(now_s) if retry else None
        partition.stop = StopStatus(reason, detail, mends_itself, now_s)
        self.hold(partition, PauseReason.STOPPED)
        self._listener.stopped(partition.key, reason, detail, mends_itself)

    def mend(self, partition: Partition) -> None:
        """Let a stopped partition go on."""
        if partition.stop is not None:
            reason, partition.stop = partition.stop.reason, None
            self.release(partition, PauseReason.STOPPED)
            self._listener.mended(partition.key, reason)

    def _tracker(self, start_offset: int, progress: Progress | None, topic_id: str) -> OffsetTracker:
        # The topic that the offset was committed for stays, so that a stop because of it outlives the process.
        before = progress.topic_id if progress is not None else ""
        tracker = OffsetTracker(start_offset, owner=self.identity, topic_id=before or topic_id)
        if progress is not None:
            tracker.remember(progress)
        return tracker


def _left_in_suspicion(partition: Partition) -> Suspect | None:
    """What the next owner has to be careful with: of a process that ends by a call, its records have seen one more."""
    suspects, deadly = partition.suspects, partition.deadly
    if deadly is None:
        return None if suspects is None else suspects.unfinished(partition.tracker)
    named = suspects.group if suspects is not None else None
    before = named.deaths if named is not None and named.first <= deadly[0] <= named.last else 0
    return Suspect(*deadly, deaths=before + 1)
