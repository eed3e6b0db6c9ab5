"""Caches as they are in papers, for hit ratios only: what a real one is held against."""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def s3_fifo(keys: Sequence[int], size: int) -> int:
    """Hits of S3-FIFO: a small queue of a quarter, out of it after one read, ghosts for half as many as are kept."""
    small, main, ghosts = deque[int](), deque[int](), OrderedDict[int, None]()
    hits: dict[int, int] = {}
    most_small = max(size // 4, 1)
    total = 0
    for key in keys:
        if key in hits:
            hits[key] = min(hits[key] + 1, 3)
            total += 1
            continue
        while len(hits) >= size:
            if len(small) >= most_small or not main:
                oldest = small.popleft()
                if hits[oldest]:
                    hits[oldest] = 0
                    main.append(oldest)
                else:
                    del hits[oldest]
                    ghosts[oldest] = None
                    if len(ghosts) > size // 2:
                        ghosts.popitem(last=False)
            else:
                oldest = main.popleft()
                if hits[oldest]:
                    hits[oldest] -= 1
                    main.append(oldest)
                else:
                    del hits[oldest]
        (main if ghosts.pop(key, key) is None else small).append(key)
        hits[key] = 0
    return total


def lru(keys: Sequence[int], size: int) -> int:
    """Hits of a cache that drops what was read the longest ago."""
    kept: OrderedDict[int, None] = OrderedDict()
    total = 0
    for key in keys:
        if key in kept:
            kept.move_to_end(key)
            total += 1
        else:
            if len(kept) >= size:
                kept.popitem(last=False)
            kept[key] = None
    return total


def belady(keys: Sequence[int], size: int) -> int:
    """The most hits that are possible, by one that knows what comes: it drops what is wanted again the latest."""
    never = len(keys)
    wanted_at = [never] * never
    last: dict[int, int] = {}
    for number in range(never - 1, -1, -1):
        wanted_at[number] = last.get(keys[number], never)
        last[keys[number]] = number
    kept: dict[int, int] = {}  # when it is wanted again
    latest: list[tuple[int, int]] = []
    total = 0
    for number, key in enumerate(keys):
        if key in kept:
            total += 1
        elif len(kept) >= size:
            while True:
                at, victim = heapq.heappop(latest)
                if kept.get(victim) == -at:
                    del kept[victim]
                    break
        kept[key] = wanted_at[number]
        heapq.heappush(latest, (-wanted_at[number], key))
    return total


POLICIES: Mapping[str, Callable[[Sequence[int], int], int]] = {"s3_fifo": s3_fifo, "lru": lru, "belady": belady}
