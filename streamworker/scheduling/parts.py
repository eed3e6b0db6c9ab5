"""How a batch that failed as a whole is taken apart, to find the records at fault. Pure.

Rules. A part that fails is halved; a part that succeeds is done. So one record at fault among n is found with at most
2·log2(n) calls, k of them with k times as many. After `_MANY` of them halving has lost its point, and the rest goes one
by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_MANY = 8


@dataclass(frozen=True, slots=True)
class Part:
    """So many records, on each of which so many calls were spent."""

    records: int
    attempt: int

    def halves(self) -> tuple[Part, ...]:
        """Both halves, or itself if it is one record."""
        first = self.records // 2
        return tuple(Part(records, self.attempt) for records in (first, self.records - first) if records)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a batch in the order of their records; the first goes next. `found` records failed alone."""

    parts: tuple[Part, ...]
    found: int = 0

    @property
    def next(self) -> Part:
        """The part that goes next."""
        return self.parts[0]

    def back(self, untried: int) -> Parts:
        """The first part is back, and `untried` of its records were not called with."""
        rest = (Part(untried, self.next.attempt),) if untried else ()
        return Parts((*rest, *self.parts[1:]), self.found)

    def failed(self, records: int, untried: int, attempt: int, *, split: bool) -> Parts:
        """The first part is back: `records` of it failed, with `attempt` calls, and then `untried` follow."""
        failed = Part(records, attempt)
        return Parts((*(failed.halves() if split else (failed,)), *self.back(untried).parts), self.found)

    def without(self, gone: Sequence[bool]) -> Parts:
        """The same without those of its records that are gone otherwise; some are left."""
        ends = [*accumulate((part.records for part in self.parts), initial=0)]
        left = [end - start - sum(gone[start:end]) for start, end in pairwise(ends)]
        parts = (Part(records, part.attempt) for records, part in zip(left, self.parts, strict=True) if records)
        return Parts(tuple(parts), self.found)

    def found_one(self) -> Parts:
        """A record has failed alone, which is not among them any more."""
        found = self.found + 1
        if found < _MANY:
            return Parts(self.parts, found)
        return Parts(tuple(Part(1, part.attempt) for part in self.parts for _ in range(part.records)), found)
