"""What KEDA makes of a lag: the metric that it hands to the autoscaler, waking from zero and going to sleep, fallback.

Decided here: the cap by partitions, what counts as active, and what stands in for a lag that cannot be read. Compared
with KEDA 2.21: `kafka_scaler.go` of pkg/scalers, `scale_handler.go` and `scale_scaledobjects.go` of pkg/scaling, and
pkg/fallback. Pure; any thread.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.autoscaling.hpa import Kind, Rule
from streamworker.bounds import at_least
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from streamworker.autoscaling.observation import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaTrigger:
    """The trigger of type `kafka`, by the names of its metadata."""

    lag_threshold: int = 10_000
    metric_type: Kind = Kind.AVERAGE_VALUE
    partitions: int
    activation_lag_threshold: int = 0
    allow_idle_consumers: bool = True
    limit_to_partitions_with_lag: bool = False

    def __post_init__(self) -> None:
        at_least("lagThreshold", self.lag_threshold, 1)
        at_least("partitions", self.partitions, 1)
        at_least("activationLagThreshold", self.activation_lag_threshold, 0)
        if self.allow_idle_consumers and self.limit_to_partitions_with_lag:
            raise ConfigurationError("allowIdleConsumers and limitToPartitionsWithLag: KEDA takes one of them")

    def metric(self, seen: Observation) -> float | None:
        """The lag as the autoscaler is told of it; None where it cannot be read.

        Without idle consumers it is at most the threshold times the partitions. The comparison is one of whole
        numbers, so a lag of up to one threshold more passes.
        """
        if seen.lag is None:
            return None
        lag = int(seen.lag)
        if self.allow_idle_consumers:
            return lag
        bound = self.partitions
        if self.limit_to_partitions_with_lag:
            bound = min(self.partitions, lag) if seen.partitions_with_lag is None else seen.partitions_with_lag
        return bound * self.lag_threshold if lag // self.lag_threshold > bound else lag

    def active(self, seen: Observation) -> bool | None:
        """Whether there is something to do; None where that is not known."""
        return None if seen.lag is None else int(seen.lag) > self.activation_lag_threshold


class FallbackBehavior(enum.Enum):
    """How many replicas there are to be while the lag cannot be read."""

    STATIC = "static"  # as many as `replicas` says
    CURRENT = "currentReplicas"
    CURRENT_IF_HIGHER = "currentReplicasIfHigher"
    CURRENT_IF_LOWER = "currentReplicasIfLower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """`spec.fallback`: after how many failures in a row the lag counts as lost."""

    failure_threshold: int
    replicas: int
    behavior: FallbackBehavior = FallbackBehavior.STATIC

    def __post_init__(self) -> None:
        at_least("fallback.failureThreshold", self.failure_threshold, 0)
        at_least("fallback.replicas", self.replicas, 0)

    def wanted(self, replicas: int) -> int:
        """How many replicas there are to be, with so many now."""
        match self.behavior:
            case FallbackBehavior.STATIC:
                return self.replicas
            case FallbackBehavior.CURRENT:
                return replicas
            case FallbackBehavior.CURRENT_IF_HIGHER:
                return max(self.replicas, replicas)
            case FallbackBehavior.CURRENT_IF_LOWER:
                return min(self.replicas, replicas)


@dataclass(slots=True)
class Activation:
    """Wakes the workload from zero replicas and puts it to sleep; owned by whoever asks it."""

    min_replicas: int
    cooldown_s: float = 300
    _active_at_s: float | None = None

    def poll(self, at_s: float, replicas: int, *, active: bool | None) -> tuple[int, Rule | None]:
        """How many replicas there are to be at a poll, and why; None if KEDA leaves them to the autoscaler."""
        if active:
            self._active_at_s = at_s
            return (max(1, self.min_replicas), Rule.WAKE) if replicas == 0 else (replicas, None)
        if active is None or self.min_replicas > 0 or replicas == 0:
            return replicas, None
        idle_since_s = self._active_at_s
        if idle_since_s is None or idle_since_s + self.cooldown_s < at_s:
            return 0, Rule.SLEEP
        return replicas, None
