"""What a worker and one of its child processes tell each other while a slice runs: a few numbers in shared memory.

The worker writes until when and as far as calls may be started, the child which call it is at. Each number has one
writer and is stored at once, hence no lock between the two; what must not be read before another is written after it.
Times are monotonic ones: on Linux and macOS all processes of a machine have the same. Imports the vocabulary only.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamworker.work import Slice

# Places of 8 bytes. Of the worker:
_UNTIL_S, _LOST_S, _ENDS_S, _CLOSES_AT, _GIVEN_UP = range(5)
# Of the child, but for the beginning of a slice; in a cache line of its own.
_INDEX, _CALLED_S = 8, 9
_SIZE_BYTES = 16 * 8
_OPEN = -1  # of `closes_at`: all offsets may be started


def new_file() -> int:
    """A descriptor of what a slate is written in: memory on Linux, elsewhere a file without a name."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("streamworker-slate")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, _SIZE_BYTES)
    return descriptor


class Slate:
    """One per child, in the file `descriptor`, which may be closed afterwards."""

    def __init__(self, descriptor: int) -> None:
        block = memoryview(mmap.mmap(descriptor, _SIZE_BYTES))
        self._numbers = block.cast("q")
        self._times_s = block.cast("d")

    def begin(self, index: int, now_s: float) -> None:
        """The call for the record at `index` begins now. The child; the worker before it hands a slice over."""
        self._times_s[_CALLED_S] = now_s
        self._numbers[_INDEX] = index  # last: a call must never look older than it is

    @property
    def called(self) -> tuple[int, float]:
        """Index of the record whose call began last, and when. The worker."""
        index = self._numbers[_INDEX]
        return index, self._times_s[_CALLED_S]

    def tell(self, slice_: Slice) -> None:
        """Write what holds for the slice in hand. The worker."""
        ownership = slice_.ownership
        self._times_s[_UNTIL_S] = ownership.lease.until_s
        self._times_s[_LOST_S] = ownership.lease.lost_s
        self._times_s[_ENDS_S] = ownership.ends_s
        self._numbers[_CLOSES_AT] = ownership.closes_at if ownership.closing else _OPEN
        self._numbers[_GIVEN_UP] = slice_.given_up

    def heed(self, slice_: Slice) -> None:
        """Let the child's copy of the slice be as the worker last said. The child."""
        ownership = slice_.ownership
        ownership.lease.until_s = self._times_s[_UNTIL_S]
        ownership.lease.lost_s = self._times_s[_LOST_S]
        ownership.ends_s = self._times_s[_ENDS_S]
        closes_at = self._numbers[_CLOSES_AT]
        ownership.closes_at = max(closes_at, 0)
        ownership.closing = closes_at != _OPEN
        slice_.given_up = bool(self._numbers[_GIVEN_UP])
