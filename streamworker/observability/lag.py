"""How far the log is ahead of what is done.

The client's own lag figure stands still while a partition is paused, which is just when it matters
(https://github.com/confluentinc/librdkafka/issues/4996); so a side thread asks the cluster for the ends of
the logs. It owns nothing of the worker: partitions come and figures go by reference.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streamworker.clock import Clock
    from streamworker.interfaces import Log
    from streamworker.record import TopicPartition

_QUESTION_TIMEOUT_S = 5.0
# Rebalances that follow each other closely do not make more questions than this.
_SPACING_S = 1.0
# After so many failures in a row the figures are too old to be called lag.
_FAILURES_UNTIL_UNKNOWN = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ends:
    """End offsets as one answer told them; what was in the log at `asked_ms` of the wall clock is below them."""

    offsets: Mapping[TopicPartition, int] = field(default_factory=dict)
    asked_ms: int = 0


class LagWatch:
    """Keeps the end offsets of the watched partitions fresh."""

    def __init__(self, log: Log, clock: Clock, *, interval_s: float = 10.0) -> None:
        self._log = log
        self._wall_ms = clock.wall_ms
        self._interval_s = interval_s
        self._watched: frozenset[TopicPartition] = frozenset()
        self._ends = Ends()
        self._failures = 0
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamworker-lag", daemon=True)

    def start(self) -> None:
        """Start the side thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> bool:
        """End the side thread; false if a question was still open after `timeout_s`. Idempotent."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def watch(self, partitions: Iterable[TopicPartition]) -> None:
        """Ask for these from now on, and soon if there are new ones among them. Does not block."""
        watched = frozenset(partitions)
        news = not watched <= self._watched
        self._watched = watched
        if news:
            self._wake.set()

    def ends(self) -> Ends:
        """The figures of the last answer. Any thread, does not block."""
        return self._ends

    def refresh(self) -> None:
        """Ask once; an error is logged when it makes the lag unknown, and not raised. Side thread only."""
        watched, asked_ms = self._watched, self._wall_ms()
        try:
            found = self._log.end_offsets(sorted(watched), _QUESTION_TIMEOUT_S) if watched else {}
        except Exception as error:  # noqa: BLE001 - the top of a thread: an unknown lag harms nobody, its end would
            self._failed(error)
        else:
            self._ends = Ends(found, asked_ms)
            self._failures = 0

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == _FAILURES_UNTIL_UNKNOWN:
            self._ends = Ends()
            _log.warning("the lag is unknown: %s", error)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(self._interval_s)
            self._wake.clear()
            if self._stopping.is_set():
                return
            self.refresh()
            self._stopping.wait(min(_SPACING_S, self._interval_s))


def lag_records(end_offset: int | None, next_offset: int | None) -> int | None:
    """Records from `next_offset`, the lowest that is not done, to the end of the log.

    None if either is unknown; 0 where the figure of the end is older than what is done.
    """
    if end_offset is None or next_offset is None:
        return None
    return max(0, end_offset - next_offset)
