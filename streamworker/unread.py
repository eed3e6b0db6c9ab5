"""Fetches with care what the process may have died of before anything of it was delivered.

A batch that grows beyond the memory of its container while the client unpacks it kills one process after the other, and
no record is there to be suspected (`quarantine.py`). What is seen is a partition whose owners die without having read
anything of it, though there is something.

Rules. A partition that is taken over from an owner that died is fetched once a commit says how many deaths can be laid
on it. From the second on, partitions go one after the other, each until something of it was read: so of several only
the one that kills is counted further. At the third it is stopped, and fetched again after a wait that doubles with each
further death: an owner that could neither read nor commit, and lost the partition, looks like one that has died, so the
count is no proof. Loop thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.offsets.suspects import FATAL_DEATHS
from streamworker.reason import Reason
from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from streamworker.offsets.progress import Progress
    from streamworker.offsets.tracker import OffsetTracker
    from streamworker.partition import Partition
    from streamworker.partitions import Partitions
    from streamworker.stages import Stages
    from streamworker.work import Ownership

# Deaths at which a partition is fetched alone.
_ALONE_AT = 2
# The wait at the third death, short because the count may be wrong, and the longest: by then a person has seen it.
_FIRST_WAIT_S, _LAST_WAIT_S = 1.0, 3600.0
# What has not killed the process for so long is not waited for any more: its leader or the coordinator may be away.
_LONGEST_S = 2.0


@dataclass(slots=True)
class _Trial:
    """A partition that is not read yet. Its turn comes at `not_before_s` or later, and came at `turn_s`."""

    partition: Partition
    not_before_s: float
    turn_s: float | None = None
    fetched: bool = False

    @property
    def tracker(self) -> OffsetTracker:
        """With the deaths that can be laid on it, and whether its turn has come."""
        return self.partition.tracker


class Unread:
    """The partitions that are fetched with care; `any` spares the loop a call where none is."""

    def __init__(self, stages: Stages, partitions: Partitions) -> None:
        self._partitions = partitions
        self._committer = stages.committer
        self._source = stages.source
        self._clock = stages.clock
        self._trials: dict[Ownership, _Trial] = {}

    @property
    def any(self) -> bool:
        """Whether a partition is not read yet."""
        return bool(self._trials)

    def concerns(self, left: Progress | None) -> bool:
        """Whether owners up to the one that has `left` this may have died of what they fetched."""
        return left is not None and self._deaths(left) > 0

    def begin(self, partition: Partition, left: Progress | None, end: int | None) -> None:
        """Take over where an earlier owner has `left`, of a log that ended at `end` if that is known."""
        if left is None or partition.stop is not None or (end is not None and end <= left.offset):
            return
        deaths, wait_s = self._deaths(left), 0.0
        if not deaths:
            return
        if deaths >= FATAL_DEATHS:
            wait_s = min(_LAST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(deaths - FATAL_DEATHS, 16))
            detail = (
                f"{deaths} processes died before anything from offset {left.offset} on was delivered;"
                f" fetched again in {wait_s:g} s"
            )
            self._partitions.stop(partition, Reason.KILLS_BEFORE_DELIVERY, detail, mends_itself=True)
        partition.tracker.unread, partition.tracker.unfetched = deaths, True
        self._trials[partition.ownership] = _Trial(partition, self._clock.monotonic_s() + wait_s)
        self._partitions.hold(partition, PauseReason.SUSPECTED)

    def step(self) -> None:
        """Name what goes next, fetch what is named, and forget what was read."""
        now_s = self._clock.monotonic_s()
        for ownership, trial in list(self._trials.items()):
            if ownership.ended:
                del self._trials[ownership]
            elif trial.fetched and self._was_read(trial.partition):
                trial.tracker.unread = 0
                self._committer.hurry(ownership.partition)
                del self._trials[ownership]
            elif not trial.fetched and _is_named(trial.tracker):
                trial.fetched = True
                self._partitions.release(trial.partition, PauseReason.SUSPECTED)
                if trial.partition.stop is not None and trial.partition.stop.reason is Reason.KILLS_BEFORE_DELIVERY:
                    self._partitions.mend(trial.partition)
        busy = any(one.turn_s is not None and now_s - one.turn_s < _LONGEST_S for one in self._trials.values())
        for trial in self._trials.values():
            may_go = trial.tracker.unread < _ALONE_AT or not busy
            if trial.tracker.unfetched and now_s >= trial.not_before_s and may_go:
                trial.turn_s, trial.tracker.unfetched, busy = now_s, False, True
                self._committer.hurry(trial.partition.key)

    def _deaths(self, left: Progress) -> int:
        return left.unread + (left.running and left.owner != self._partitions.identity)

    def _was_read(self, partition: Partition) -> bool:
        """Whether something was delivered, or the client is past what is never delivered."""
        position = self._source().positions().get(partition.key, 0)
        return max(position, partition.tracker.next_offset) > partition.start_offset


def _is_named(tracker: OffsetTracker) -> bool:
    """Whether the coordinator knows that it is about to be fetched, and after how many deaths."""
    known = tracker.known
    return not tracker.unfetched and tracker.announced and known is not None and known.unread == tracker.unread
