"""Which records the process may have died of, and how they are told apart from their neighbours.

A record that ends the process (a crash in native code, out of memory, `os._exit`) leaves no failed attempt behind, only
a partition that was never given back. Then what its owner can have had in work is *suspected*: the next records from
the committed offset that are not done, as far as the log reached when the partition was taken over.

Rules. Suspects go in groups, one at a time, and each group is named in an acknowledged commit before it begins, with
the deaths that its records have seen. A group that was named when the process died again goes record by record, and
of all partitions of the process one such record at a time: else one death would condemn a record of each. A record
that was named alone at the third death or a later one is the killer: it is not begun any more. A false alarm (a machine
that went away, an expired session) costs a commit per group over a bounded range. Pure; the loop thread owns it.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from streamworker.offsets.progress import Suspect

if TYPE_CHECKING:
    from streamworker.offsets.progress import Progress
    from streamworker.offsets.tracker import OffsetTracker

GROUP_RECORDS = 64  # a commit takes milliseconds: so many records hide its cost
FATAL_DEATHS = 3  # one in ordinary work, one of the group, one alone
_ALONE_AT = 2


class Suspects:
    """The suspects of one ownership, beginning with what the earlier owner has `left`.

    `end` is the end of the log when the partition was taken over, None if it is not known; at most `records` are
    suspected.
    """

    def __init__(self, left: Progress, *, end: int | None, records: int) -> None:
        named = left.suspect
        self.deaths = (named.deaths if named else 0) + left.running
        self.killer: int | None = None
        self.group: Suspect | None = None
        self._end = inf if end is None else end
        self._records = records
        self._alone = range(0)
        if named is not None and self.deaths >= _ALONE_AT:
            self._alone = range(named.first, named.last + 1)
        if named is not None and self.deaths >= FATAL_DEATHS and named.first == named.last:
            self.killer = named.first

    @property
    def alone(self) -> bool:
        """Whether the present group is a record that goes alone."""
        return self.group is not None and self.group.first in self._alone

    def in_work(self, tracker: OffsetTracker) -> bool:
        """Whether the present group has not ended."""
        return self.group is not None and tracker.committable <= self.group.last

    def next_group(self, tracker: OffsetTracker, *, alone_allowed: bool) -> Suspect | None:
        """The group that is to be named now; None while the present one is in work, none is there, or it must wait."""
        if self.in_work(tracker):
            return None
        open_offsets = [one for one in tracker.first_open(min(GROUP_RECORDS, self._records)) if one < self._end]
        if not open_offsets:
            return None
        first = open_offsets[0]
        if first in self._alone and not alone_allowed:
            self.group = None
            return None
        if first in self._alone:
            self.group = Suspect(first, first, self.deaths)
        else:
            last = max(one for one in open_offsets if one < self._alone.start or first >= self._alone.stop)
            self.group = Suspect(first, last, 1)
        self._records -= sum(one <= self.group.last for one in open_offsets)
        return self.group

    def limit(self, tracker: OffsetTracker) -> int:
        """The offset from which records must wait: for their group's turn, or until it is known to be named."""
        named = tracker.known.suspect if tracker.known is not None else None
        return self.group.last + 1 if self.group is not None and named == self.group else tracker.committable

    def over(self, tracker: OffsetTracker) -> bool:
        """Whether all that was suspected has ended well."""
        if self.in_work(tracker):
            return False
        return self._records <= 0 or (tracker.next_offset >= self._end and tracker.committable >= self._end)

    def unfinished(self, tracker: OffsetTracker) -> Suspect:
        """What the next owner has to go on with, if nothing dies before."""
        if self.killer is not None and tracker.committable <= self.killer:
            return Suspect(self.killer, self.killer, self.deaths)
        first = tracker.committable
        # Never of one record: that would say that it was named alone.
        if first < self._alone.stop:
            return Suspect(first, max(self._alone.stop - 1, first + 1), self.deaths)
        return Suspect(first, first + 1, 1)
