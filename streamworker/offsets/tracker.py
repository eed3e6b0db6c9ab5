"""Which delivered records of one ownership epoch are done, and the offset that may be committed.

Rules. The committable offset is the lowest delivered offset that is not done, or the next expected
one when all are. Only delivered offsets count: gaps (compaction, transaction markers, aborted
records) never hold it back. It never goes backwards.

The window is one byte per delivered record, not per offset, and a list of runs maps one to the
other: a gap costs an entry, whatever its length. What an earlier ownership had done beyond its offset is
*remembered*: it counts as done as soon as it is delivered. Pure; the loop thread owns it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from streamworker.offsets.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamworker.offsets.progress import Suspect

_OPEN, _DONE = 1, 0
# Below this many done records at the front the window is not cut, so that cutting stays rare.
_CUT_AT = 4096


class OffsetTracker:
    """Starts at `start`, the first offset expected; a negative one stands for the log's beginning.

    `owner` names the process, `topic_id` tells the topic from another of its name.
    """

    def __init__(self, start: int, *, owner: str = "", topic_id: str = "") -> None:
        self._owner = owner
        self._topic_id = topic_id
        self._start = start
        self._next_offset = max(start, 0)
        self._committed = self._next_offset
        self._committed_index = 0  # delivered records below the committed offset
        self._window = bytearray()  # from delivered record number _cut on
        self._cut = 0
        self._run_offsets: list[int] = []  # first offset of each run of consecutive offsets …
        self._run_indexes: list[int] = []  # … and the number of that record
        self._remembered: list[tuple[int, int]] = []  # (first, last) that are done and not delivered, ascending
        self.attempts: dict[int, int] = {}  # calls that were spent, by the offset of a record that is not done
        self.running = True  # until the partition is given back in order
        self.rewound_upto = -1  # up to this offset it is to be known that a sink has refused what comes again
        self.unread = 0  # owners that died before anything was delivered, up to this one
        self.unfetched = False  # nothing is asked for yet: if the process dies, it is not of that
        self.untold = False  # whether a cache may have something out of date that was written here
        self.suspect: Suspect | None = None  # what is to be known as having been in work if the process dies
        self.known: Progress | None = None  # what the coordinator has, as far as it was heard
        self.crowded = False  # hardly more would fit beside the committed offset

    @property
    def next_offset(self) -> int:
        """The next offset expected from the source; what is below was delivered."""
        return self._next_offset

    @property
    def located(self) -> bool:
        """Whether its offsets are real: from the log's beginning on, they are known with the first record."""
        return self._start >= 0 or bool(self._run_offsets)

    @property
    def committed(self) -> int:
        """The highest offset that the coordinator acknowledged in this epoch; the start before that."""
        return self._committed

    @property
    def committable(self) -> int:
        """The offset that may be committed now."""
        first_open = self._window.find(_OPEN)
        return self._next_offset if first_open < 0 else self._offset_of(self._cut + first_open)

    @property
    def highest_done(self) -> int:
        """The highest offset that is known to be done; below all delivered ones if none is."""
        last_done = self._window.rfind(_DONE)
        return self._offset_of(self._cut + last_done) if last_done >= 0 else self.committable - 1

    @property
    def open_records(self) -> int:
        """Delivered and not done."""
        return self._window.count(_OPEN)

    @property
    def done_beyond(self) -> int:
        """Records done that lie beyond one that is not, so that they cannot be committed."""
        first_open = self._window.find(_OPEN)
        return 0 if first_open < 0 else self._window.count(_DONE, first_open)

    @property
    def done_uncommitted(self) -> int:
        """Records done and below the committable offset, hence what a commit now would save."""
        first_open = self._window.find(_OPEN)
        done = self._cut + (len(self._window) if first_open < 0 else first_open)
        return done - self._committed_index

    def remember(self, progress: Progress) -> None:
        """What an earlier ownership had done beyond the start, and the attempts that it spent."""
        self.known = progress
        self.rewound_upto = progress.offset if progress.rewound else -1
        self._remembered = [(first, last) for first, last in progress.done if first >= self._next_offset]
        self.attempts = {offset: spent for offset, spent in progress.attempts.items() if offset >= self._next_offset}

    @property
    def remembers(self) -> bool:
        """Whether records are done that were not delivered yet."""
        return bool(self._remembered)

    @property
    def announced(self) -> bool:
        """Whether the coordinator knows that the partition is in work here."""
        return self.known is not None and self.known.running and self.known.owner == self._owner

    def progress(self) -> Progress:
        """What is done now: the committable offset and all beyond it, of one moment."""
        offset, window = self.committable, self._window
        done: list[tuple[int, int]] = []
        at = window.find(_OPEN)
        while at >= 0 and (first := window.find(_DONE, at)) >= 0:
            at = window.find(_OPEN, first)
            last = (len(window) if at < 0 else at) - 1
            done.append((self._offset_of(self._cut + first), self._offset_of(self._cut + last)))
        remembered = self._remembered
        if done and remembered and done[-1][1] + 1 == remembered[0][0]:
            done[-1] = (done[-1][0], remembered[0][1])
            remembered = remembered[1:]
        beyond = (*done, *remembered)
        attempts = dict(self.attempts)
        suspect, owner, topic_id = self.suspect, self._owner, self._topic_id
        # Whoever finds it in work counts one more.
        unread = self.unread - (self.unfetched and self.running)
        untold, rewound = self.untold, offset <= self.rewound_upto
        return Progress(offset, beyond, attempts, self.running, suspect, owner, topic_id, unread, untold, rewound)

    def first_open(self, count: int) -> list[int]:
        """The lowest offsets that were delivered and are not done, at most `count`."""
        found: list[int] = []
        at = self._window.find(_OPEN)
        while at >= 0 and len(found) < count:
            found.append(self._offset_of(self._cut + at))
            at = self._window.find(_OPEN, at + 1)
        return found

    def deliver(self, first: int, count: int) -> None:
        """`count` records with consecutive offsets from `first`, which is at or past `next_offset`."""
        assert first >= self._next_offset, f"delivered {first}, expected {self._next_offset} or later"
        index = self._cut + len(self._window)
        if not self._run_offsets or first - self._run_offsets[-1] != index - self._run_indexes[-1]:
            self._run_offsets.append(first)
            self._run_indexes.append(index)
        self._window += b"\x01" * count
        self._next_offset = first + count
        if self._remembered:
            self._complete_remembered(first)

    def _complete_remembered(self, first: int) -> None:
        """Mark as done what was remembered of the records that were delivered from offset `first` on."""
        end = self._next_offset
        delivered = [one for one in self._remembered if one[0] < end]
        self._remembered = [(max(low, end), high) for low, high in self._remembered if high >= end]
        for low, high in delivered:
            if high >= first:
                self.complete_run(max(low, first), min(high, end - 1))

    def take_back(self, first: int) -> None:
        """The records from offset `first` on, none of which is done, count as not delivered."""
        index = self._index_of(first)
        del self._window[index - self._cut :]
        runs = bisect_right(self._run_indexes, index - 1) if index > self._run_indexes[0] else 0
        del self._run_offsets[runs:]
        del self._run_indexes[runs:]
        self._next_offset = first

    def limit(self, max_uncommitted: int) -> int:
        """The offset from which records must wait, so that a crash repeats at most `max_uncommitted`.

        Counted from the committed offset in delivered records, whatever of them is done: then the lowest
        open record is never the one that waits. While it is `crowded`, nothing goes beyond what is done.
        """
        index = self._committed_index + max_uncommitted
        bound = self._next_offset if index >= self._cut + len(self._window) else self._offset_of(index)
        if not self.crowded:
            return bound
        remembered = self._remembered[-1][1] if self._remembered else -1
        return min(bound, max(self.highest_done, self.committable, remembered) + 1)

    def complete_run(self, first: int, last: int) -> None:
        """All delivered records from offset `first` to `last` are done."""
        assert last < self._next_offset, f"{last} was not delivered"
        start = self._index_of(first) - self._cut
        end = self._index_of(last) - self._cut + 1
        self._window[max(start, 0) : max(end, 0)] = bytes(max(end, 0) - max(start, 0))
        self._cut_front()

    def complete(self, offsets: Iterable[int]) -> None:
        """These delivered records are done; one that is done already stays so."""
        window, cut = self._window, self._cut
        if len(self._run_offsets) == 1:
            shift = self._run_indexes[0] - self._run_offsets[0] - cut
            for offset in offsets:
                if offset + shift >= 0:
                    window[offset + shift] = _DONE
        else:
            for offset in offsets:
                index = self._index_of(offset) - cut
                if index >= 0:
                    window[index] = _DONE
        self._cut_front()

    def acknowledge(self, progress: Progress) -> None:
        """The coordinator has committed this; a lower offset than known is ignored."""
        if progress.offset < self._committed:
            return
        self.known = progress
        if progress.offset > self._committed:
            self._committed = progress.offset
            self._committed_index = self._records_below(progress.offset)

    def is_done(self, offset: int) -> bool:
        """Whether a delivered record is done."""
        index = self._index_of(offset) - self._cut
        return index < 0 or self._window[index] == _DONE

    def _index_of(self, offset: int) -> int:
        run = max(bisect_right(self._run_offsets, offset) - 1, 0)
        index = self._run_indexes[run] + offset - self._run_offsets[run]
        # Otherwise it stands for another record, which would be committed without having been handled.
        assert run + 1 == len(self._run_indexes) or index < self._run_indexes[run + 1], f"{offset} was not delivered"
        return index

    def _offset_of(self, index: int) -> int:
        run = bisect_right(self._run_indexes, index) - 1
        return self._run_offsets[run] + index - self._run_indexes[run]

    def _records_below(self, offset: int) -> int:
        delivered = self._cut + len(self._window)
        if offset >= self._next_offset or not self._run_offsets:
            return delivered
        run = bisect_right(self._run_offsets, offset) - 1
        if run < 0:
            return self._run_indexes[0]
        end = self._run_indexes[run + 1] if run + 1 < len(self._run_indexes) else delivered
        return min(self._run_indexes[run] + offset - self._run_offsets[run], end)

    def _cut_front(self) -> None:
        window = self._window
        if len(window) < _CUT_AT or window[0] == _OPEN:
            return
        first_open = window.find(_OPEN)
        done = len(window) if first_open < 0 else first_open
        if done < _CUT_AT:
            return
        del window[:done]
        self._cut += done
        kept = max(bisect_right(self._run_indexes, min(self._cut, self._committed_index)) - 1, 0)
        del self._run_offsets[:kept]
        del self._run_indexes[:kept]
