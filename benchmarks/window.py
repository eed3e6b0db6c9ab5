"""What one writes by hand for key lanes: which record goes to which lane, and how far each partition is done.

Nothing of any client, and the standard library only, because peers in other environments use it.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from zlib import crc32

LANES, WINDOW = 64, 10_000


class Window:
    """What is under way of each partition. Belongs to one thread."""

    def __init__(self) -> None:
        self.records = 0
        self._open: defaultdict[int, list[int]] = defaultdict(list)
        self._done: defaultdict[int, set[int]] = defaultdict(set)

    def begin(self, partition: int, offset: int, key: bytes) -> int:
        """A record goes to its lane, of which this is the number."""
        heapq.heappush(self._open[partition], offset)
        self.records += 1
        return crc32(key) % LANES

    def end(self, partition: int, offset: int) -> None:
        """A record is done."""
        self._done[partition].add(offset)
        self.records -= 1

    def take_committable(self) -> dict[int, int]:
        """Of each partition that came on since the last call, the lowest offset that is not done."""
        committable = {}
        for partition, opened in self._open.items():
            done, last = self._done[partition], -1
            while opened and opened[0] in done:
                last = heapq.heappop(opened)
                done.discard(last)
            if last >= 0:
                committable[partition] = last + 1
        return committable
