"""How old the lowest record that is not done is, by the timestamps of the log.

Decided here: what stands for a timestamp that was not looked at. A look at each record would cost the loop as much as
all the rest that it does for one, so of each delivery the first record's is noted and stands for all of it: the age
comes out too high by as much as those of one delivery lie apart, and never too low. Pure; the loop thread owns it.
"""

from __future__ import annotations

# With more deliveries in hand each note stands for two, then for four.
_MAX_NOTES = 128
# What the client has fetched is delivered sooner, unless the partition is paused.
_QUIET_S = 5.0


class Ages:
    """Of one ownership. Times are milliseconds of the wall clock."""

    __slots__ = ("_caught_up_ms", "_notes", "_quiet")

    def __init__(self) -> None:
        self._notes: list[tuple[int, int | None]] = []  # first offset of a delivery and its time, ascending
        self._caught_up_ms: int | None = None  # what is next to be delivered was written after this
        self._quiet: tuple[int, int] | None = None  # the next offset, and since when nothing was delivered from there

    def delivered(self, first: int, at_ms: int | None) -> None:
        """Records from offset `first` on were delivered, the first of them written at `at_ms`; None if it is not said.

        What was delivered before from there on was given back.
        """
        notes = self._notes
        while notes and notes[-1][0] >= first:
            notes.pop()
        notes.append((first, at_ms))
        if len(notes) > _MAX_NOTES:
            del notes[1::2]

    def caught_up(self, at_ms: int) -> None:
        """All that was in the log at `at_ms` is done."""
        self._caught_up_ms = at_ms

    def quiet(self, next_offset: int, now_ms: int, *, paused: bool) -> bool:
        """Whether nothing was delivered for a while, so that all is through which the client had fetched.

        To be asked again and again while nothing is open; a pause begins the while anew.
        """
        if paused or self._quiet is None or self._quiet[0] != next_offset:
            self._quiet = next_offset, now_ms
        return now_ms - self._quiet[1] >= _QUIET_S * 1000

    def open_s(self, lowest_open: int, now_ms: int) -> float | None:
        """Age of the delivered record at `lowest_open`, below which all is done; None if that is not known."""
        notes = self._notes
        while len(notes) > 1 and notes[1][0] <= lowest_open:
            del notes[0]
        return _age_s(notes[0][1] if notes else None, now_ms)

    def next_s(self, now_ms: int) -> float | None:
        """Age of the next record to be delivered, where all that was delivered is done; None if that is not known.

        Nobody has seen it. It is not older than the last that was delivered, nor than the last moment at which there
        was none: the later of both is taken.
        """
        known_ms = [at_ms for at_ms in (self._notes[-1][1] if self._notes else None, self._caught_up_ms) if at_ms]
        return _age_s(max(known_ms, default=None), now_ms)


def _age_s(at_ms: int | None, now_ms: int) -> float | None:
    """Not below 0: the clocks of producers are their own."""
    return None if at_ms is None else max(0.0, (now_ms - at_ms) / 1000)
