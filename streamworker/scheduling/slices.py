"""How many records are handed over at a time. Pure; the loop thread owns each sizer."""

from __future__ import annotations


class SliceSizer:
    """How many records a slice of a single-record handler gets: about `slice_s` of its measured work.

    A fast handler pays the hand-over once per hundreds of records, a slow one is spread over all
    lanes. Starts at one record and at most doubles from slice to slice, so that a handler of unknown
    speed never gets more than it showed itself good for.
    """

    # Weight of the newest slice in the mean: a change of speed is followed within a few slices.
    _WEIGHT = 0.3
    # Above this mean a look at the clock before each record costs less than a hundredth of it.
    _SLOW_S = 50e-6

    def __init__(self, *, slice_s: float, max_records: int) -> None:
        self._slice_s = slice_s
        self._max_records = max_records
        self._mean_s: float | None = None
        self.records = 1

    @property
    def slow(self) -> bool:
        """Whether a record takes so long that a look before each is cheap; it does until one was measured."""
        return self._mean_s is None or self._mean_s > self._SLOW_S

    def measured(self, records: int, seconds: float) -> None:
        """A slice of so many records took so long."""
        if not records:
            return
        newest_s = seconds / records
        mean_s = newest_s if self._mean_s is None else self._mean_s + self._WEIGHT * (newest_s - self._mean_s)
        self._mean_s = mean_s
        fitting = self._max_records if mean_s * self._max_records <= self._slice_s else int(self._slice_s / mean_s)
        self.records = max(1, min(fitting, 2 * self.records))
