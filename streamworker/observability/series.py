"""Numbers by labels, bounded.

The loop thread adds, other threads take copies: `dict.copy` and `list` of a list are single steps of the
interpreter, so a copy is never half of a change and no lock is needed. Standard library only.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Labels = tuple[str, ...]

# A handful of handlers, topics and outcomes stays far below; a regex over thousands of topics does not.
MAX_SERIES = 2000
OTHER = "_OTHER"


class Counts:
    """A number for each combination of labels; new combinations beyond `limit` are only counted."""

    def __init__(self, limit: int = MAX_SERIES) -> None:
        self._limit = limit
        self._values: dict[Labels, float] = {}
        self.dropped = 0

    def add(self, labels: Labels, amount: float = 1) -> None:
        """Add `amount`, which may be 0 to let the series exist."""
        value = self._values.get(labels)
        if value is None:
            if len(self._values) >= self._limit:
                self.dropped += 1
                return
            value = 0
        self._values[labels] = value + amount

    def copy(self) -> Mapping[Labels, float]:
        """What is there now. Any thread."""
        return self._values.copy()


class Distribution:
    """How often values fell into each bucket: a bisection and an int, since this runs once per slice."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count `value` so many times, in the bucket of the first bound that is not below it."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._total += value * times

    def cumulative(self) -> tuple[Sequence[int], float]:
        """Observations up to each bound and, last, all of them; and the sum of their values. Any thread."""
        total, counts = self._total, list(self._counts)
        for index in range(1, len(counts)):
            counts[index] += counts[index - 1]
        return counts, total


@dataclass(frozen=True, slots=True)
class Summary:
    """What somebody else has observed: how often, the sum, and quantiles of late by their names."""

    count: int
    total: float
    quantiles: Mapping[str, float]


class Distributions:
    """A `Distribution` for each combination of labels; bounded like `Counts`."""

    def __init__(self, bounds: Sequence[float], limit: int = MAX_SERIES) -> None:
        self._bounds = bounds
        self._limit = limit
        self._values: dict[Labels, Distribution] = {}
        self.dropped = 0

    def observe(self, labels: Labels, value: float, times: int = 1) -> None:
        """Count `value` so many times."""
        distribution = self._values.get(labels)
        if distribution is None:
            if len(self._values) >= self._limit:
                self.dropped += 1
                return
            distribution = self._values[labels] = Distribution(self._bounds)
        distribution.observe(value, times)

    def copy(self) -> Mapping[Labels, Distribution]:
        """What is there now. Any thread."""
        return self._values.copy()


class BoundedNames:
    """Lets the first `limit` different names pass and calls all others `_OTHER`."""

    def __init__(self, limit: int = 50) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def name(self, name: str) -> str:
        """`name` if it is among the first, else `_OTHER`."""
        if name in self._known:
            return name
        if len(self._known) >= self._limit:
            return OTHER
        self._known.add(name)
        return name
