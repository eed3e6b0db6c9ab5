"""What is seen of a group at a moment, whether it comes from a recording or from a model. Pure; any thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Observation:
    """A group at a moment. What is None could not be read."""

    lag: float | None  # records, over all partitions
    partitions_with_lag: int | None = None
    sink_open: float = 0  # the share of workers whose breaker of a sink is open
    busy: float | None = None  # the share of its time that a worker handles records, mean over the workers


class Group(Protocol):
    """What the autoscaler looks at. Times are seconds from the beginning, and only grow."""

    @property
    def duration_s(self) -> float:
        """How long there is something to see."""
        ...

    @property
    def knows_busy(self) -> bool:
        """Whether it can be seen how busy workers are."""
        ...

    @property
    def step_s(self) -> int:
        """The longest step in which it may be advanced."""
        ...

    def advance(self, to_s: float, working: int) -> None:
        """Let time pass with so many replicas that handle records."""
        ...

    def observe(self) -> Observation:
        """What is seen now."""
        ...
