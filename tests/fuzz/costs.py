"""What an untrusted input may cost: processor time, and memory in proportion to its size."""

from __future__ import annotations

import time
import tracemalloc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CPU_S = 1.0  # far beyond what inputs of this size take; what is quadratic exceeds it
MEMORY_FLOOR_BYTES = 10 * 2**20
TIMES = 20  # its own size, for the objects that a value becomes


@contextmanager
def bounded(size_bytes: int, *, times: int = TIMES) -> Iterator[None]:
    """Fail if the block takes more than an input of `size_bytes` may cost."""
    tracemalloc.start()
    begin_s = time.process_time()
    try:
        yield
    finally:
        cpu_s = time.process_time() - begin_s
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert cpu_s <= CPU_S, f"{size_bytes} bytes took {cpu_s:.1f} s of CPU, at most {CPU_S:g} s are expected"
    allowed_bytes = times * size_bytes + MEMORY_FLOOR_BYTES
    assert peak_bytes <= allowed_bytes, f"{size_bytes} bytes took {peak_bytes} of memory, at most {allowed_bytes}"
