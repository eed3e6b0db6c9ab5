"""A handler that says when its first record came: `streamworker run benchmarks.first:First` is the `start` row."""

from __future__ import annotations

import os
import time

from benchmarks.asked import answer
from streamworker import Handler, Record


class First(Handler[bytes]):
    """Knows from the environment when its process was started, and what it reads."""

    topics = (os.environ["BENCHMARK_TOPIC"],)

    def handle(self, record: Record[bytes]) -> None:
        answer({"start_s": (time.monotonic_ns() - int(os.environ["BENCHMARK_BEGAN_NS"])) / 1e9})
