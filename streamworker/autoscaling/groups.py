"""Groups to look at: one that was recorded, and one that is modelled, on which replicas have an effect.

Decided here: how a lag follows from what comes in and what is handled. All replicas are alike, records are spread
evenly over the partitions, and a partition is handled by one replica at a time. Pure; any thread.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamworker.autoscaling.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.autoscaling.synthetic import Course

_LONGEST_STEP_S = 3600


@dataclass(frozen=True, slots=True)
class Sample:
    """What was recorded at a time, in seconds from the first."""

    at_s: float
    seen: Observation


@dataclass(slots=True)
class RecordedGroup:
    """A series as it was: replicas have no effect on it. Each sample stands until the next."""

    samples: Sequence[Sample]
    _times_s: list[float] = field(init=False)
    _at_s: float = 0

    def __post_init__(self) -> None:
        self._times_s = [one.at_s for one in self.samples]

    @property
    def duration_s(self) -> float:
        """To the last sample."""
        return self._times_s[-1]

    @property
    def knows_busy(self) -> bool:
        """Whether that was recorded."""
        return any(one.seen.busy is not None for one in self.samples)

    @property
    def step_s(self) -> int:
        """Any: nothing happens in between."""
        return _LONGEST_STEP_S

    def advance(self, to_s: float, working: int) -> None:  # noqa: ARG002 - it is as it was
        """Look at a later time."""
        self._at_s = to_s

    def observe(self) -> Observation:
        """The latest sample."""
        return self.samples[max(0, bisect_right(self._times_s, self._at_s) - 1)].seen


@dataclass(slots=True)
class GivenLag:
    """A lag that is made up: replicas have no effect on it."""

    course: Course
    duration_s: float
    outages_s: Sequence[tuple[float, float]] = ()  # from when until when the sink's breaker is open
    step_s: int = _LONGEST_STEP_S
    knows_busy: bool = False
    _at_s: float = 0

    def advance(self, to_s: float, working: int) -> None:  # noqa: ARG002 - it is given
        """Look at a later time."""
        self._at_s = to_s

    def observe(self) -> Observation:
        """What the course says."""
        return Observation(self.course.at(self._at_s), sink_open=_open(self.outages_s, self._at_s))


@dataclass(slots=True)
class ModelledGroup:
    """Records come at the rate of `course`, a second, and each replica handles `rate_per_replica` of them."""

    course: Course
    duration_s: float
    rate_per_replica: float
    partitions: int
    outages_s: Sequence[tuple[float, float]] = ()
    lag: float = 0
    step_s: int = 1
    knows_busy: bool = True
    _at_s: float = 0
    _busy: float = 0

    def advance(self, to_s: float, working: int) -> None:
        """Let records come, and be handled by as many replicas as have partitions. None are while the sink is away."""
        passed_s = to_s - self._at_s
        came = self.course.at(self._at_s) * passed_s
        able = min(working, self.partitions) * self.rate_per_replica * passed_s
        handled = 0.0 if _open(self.outages_s, self._at_s) else min(able, self.lag + came)
        self.lag += came - handled
        if passed_s:
            # Replicas without a partition are idle, and count in the mean.
            self._busy = handled / (working * self.rate_per_replica * passed_s) if working else 0.0
        self._at_s = to_s

    def observe(self) -> Observation:
        """What there is now."""
        lag = float(int(self.lag))
        return Observation(lag, min(self.partitions, int(lag)), _open(self.outages_s, self._at_s), self._busy)


def _open(outages_s: Sequence[tuple[float, float]], at_s: float) -> float:
    return float(any(since_s <= at_s < until_s for since_s, until_s in outages_s))
