"""Looks at groups on a thread of its own for as long as a process lasts, and says what has changed.

Whoever serves figures takes the latest look by reference. A look that fails is said and tried again; what was seen
before it is told for three intervals, and is then too old to be called lag.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.lag.figures import UNKNOWN
from streamworker.lag.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from streamworker.clock import Clock
    from streamworker.lag.group_lag import GroupLag, PartitionLag
    from streamworker.lag.group_watch import GroupWatch
    from streamworker.record import TopicPartition

_INTERVALS_UNTIL_OLD = 3
# A look asks several questions, each with a timeout; one that takes longer than this has hung.
_LONGEST_LOOK_S = 120.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Observation:
    """What the last look that succeeded has seen."""

    groups: Sequence[GroupLag]
    at_s: float  # monotonic
    at_ms: int  # since the Unix epoch


class Observer:
    """Looks by `watch` at the `groups` there are then, each `interval_s`."""

    def __init__(
        self, watch: GroupWatch, groups: Callable[[], Collection[str]], clock: Clock, *, interval_s: float
    ) -> None:
        self._watch = watch
        self._groups = groups
        self._clock = clock
        self._interval_s = interval_s
        self._latest: Observation | None = None
        self._tried_s = clock.monotonic_s()
        self._states: dict[tuple[str, TopicPartition], State | None] = {}  # of the thread
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamworker-observer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the thread; false if a question was still open after `timeout_s`. Idempotent."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def latest(self) -> Observation | None:
        """None before the first. Any thread."""
        return self._latest

    @property
    def is_fresh(self) -> bool:
        """Whether the latest is new enough to be told. Any thread."""
        latest = self._latest
        limit_s = _INTERVALS_UNTIL_OLD * self._interval_s
        return latest is not None and self._clock.monotonic_s() - latest.at_s <= limit_s

    @property
    def is_looking(self) -> bool:
        """Whether it still tries. Any thread."""
        return self._clock.monotonic_s() - self._tried_s <= self._interval_s + _LONGEST_LOOK_S

    def look(self) -> None:
        """Look once; an error is logged and not raised. One thread: its own, once it was started."""
        self._tried_s = self._clock.monotonic_s()
        try:
            groups = self._watch.look(self._groups())
        except Exception as error:  # noqa: BLE001 - the top of a thread: the next look may succeed
            _log.warning("groups cannot be looked at: %s", error)
            return
        self._latest = Observation(groups, self._clock.monotonic_s(), self._clock.wall_ms())
        self._tell(groups)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.look()
            self._stopping.wait(self._interval_s)

    def _tell(self, groups: Sequence[GroupLag]) -> None:
        before = self._states
        now: dict[tuple[str, TopicPartition], State | None] = {}
        for group in groups:
            if group.error is not None:
                _log.warning("a group cannot be looked at", extra={"group": group.group, "error": group.error})
                now |= {key: state for key, state in before.items() if key[0] == group.group}
            for one in group.partitions:
                key = group.group, one.partition
                now[key] = one.state
                if one.state is not before.get(key):
                    _tell(group.group, one, before.get(key))
        self._states = now


def _tell(group: str, one: PartitionLag, before: State | None) -> None:
    level = logging.WARNING if one.state is not None and one.state is not State.OK else logging.INFO
    fields = {
        "group": group,
        "topic": one.partition.topic,
        "partition": one.partition.partition,
        "state": UNKNOWN if one.state is None else one.state.value,
        "before": UNKNOWN if before is None else before.value,
        "lag": one.lag,
        "reason": one.reason,
    }
    _log.log(level, "lag state changed", extra=fields)
