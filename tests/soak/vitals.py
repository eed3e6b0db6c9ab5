"""What a process uses, as Linux tells it in /proc, and whether that grows. Reads only; any thread."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MIB = 1024 * 1024
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """One reading; `at_s` is of the monotonic clock."""

    at_s: float
    rss_bytes: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Vitals:
        """What the process uses now. Raises OSError if it has ended."""
        process = Path("/proc") / str(pid)
        return cls(
            at_s=time.monotonic(),
            rss_bytes=int((process / "statm").read_text().split()[1]) * _PAGE_BYTES,
            descriptors=len(list((process / "fd").iterdir())),
            threads=len(list((process / "task").iterdir())),
        )


def rss_slope_mib_per_h(readings: Sequence[Vitals]) -> float:
    """The median slope of all pairs: a cache that fills once, or one peak, is not growth."""
    slopes = [
        (after.rss_bytes - before.rss_bytes) / MIB / (after.at_s - before.at_s) * 3600
        for before, after in combinations(readings, 2)
    ]
    return median(slopes)


def growth(numbers: Sequence[int]) -> int:
    """By how much the median of the last third is above that of the first."""
    third = max(1, len(numbers) // 3)
    return round(median(numbers[-third:]) - median(numbers[:third]))
