"""What is configured of autoscaling, with the chart's defaults, and which metrics come of it.

Decided here: which combinations make no sense, and what the autoscaler is told at a moment. Pure; any thread.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamworker.autoscaling.formula import Formula
from streamworker.autoscaling.hpa import Bounds, Kind, Policy, Reading, Scaling, Unit
from streamworker.autoscaling.keda import Fallback, FallbackBehavior, KafkaTrigger
from streamworker.bounds import at_least
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.autoscaling.observation import Observation

TRIGGERS = ("lag", "pods", "sink_open", "busy")
HOLD = 0.5  # the share of workers with an open breaker from which on replicas are held


class Mode(enum.Enum):
    """Who tells the autoscaler of the lag."""

    KEDA = "keda"
    HPA = "hpa"  # Prometheus, by an adapter for external metrics: no cap, no fallback, no sleep


# "A lag over 10,000 for two minutes": out after two minutes, by half or by two, in after ten, one by one.
SCALE_UP = Scaling(window_s=120, policies=(Policy(Unit.PERCENT, 50, 60), Policy(Unit.PODS, 2, 60)))
SCALE_DOWN = Scaling(window_s=600, policies=(Policy(Unit.PODS, 1, 120),))
FALLBACK = Fallback(failure_threshold=4, replicas=2, behavior=FallbackBehavior.CURRENT_IF_HIGHER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscaling:
    """All of it. Without `busy` and `hold` the lag alone counts."""

    mode: Mode = Mode.KEDA
    min_replicas: int = 1
    max_replicas: int = 12
    trigger: KafkaTrigger = field(default_factory=lambda: KafkaTrigger(partitions=12))
    up: Scaling = SCALE_UP
    down: Scaling = SCALE_DOWN
    busy: float | None = None  # the share of time that workers may be busy, as a second trigger
    hold: bool = False  # as many replicas as there are, while a sink's breaker is open
    formula: str | None = None  # in place of that of `hold`
    fallback: Fallback | None = FALLBACK
    polling_interval_s: int = 15  # between KEDA's looks, for waking and sleep
    cooldown_s: int = 300
    sync_period_s: int = 15  # --horizontal-pod-autoscaler-sync-period
    ready_after_s: int = 15  # from the decision until a new replica handles records

    def __post_init__(self) -> None:
        at_least("minReplicas", self.min_replicas, 0)
        at_least("maxReplicas", self.max_replicas, max(1, self.min_replicas))
        for name, seconds in (("pollingInterval", self.polling_interval_s), ("sync period", self.sync_period_s)):
            at_least(name, seconds, 1)
        at_least("cooldownPeriod", self.cooldown_s, 0)
        at_least("ready after", self.ready_after_s, 0)
        if self.busy is not None and not 0 < self.busy <= 1:
            raise ConfigurationError(f"busy: expected a share of 1, got {self.busy:g}")
        if self.mode is Mode.HPA:
            self._refuse_what_keda_has()
        self.compiled()

    def _refuse_what_keda_has(self) -> None:
        if self.min_replicas == 0:
            raise ConfigurationError("minReplicas: 0 needs mode keda; an HPA alone never wakes a workload")
        if self.hold or self.formula is not None:
            raise ConfigurationError("hold and formula need mode keda: an HPA has no formula")

    @property
    def bounds(self) -> Bounds:
        """For the autoscaler, which never goes below one: sleep is KEDA's."""
        least = max(1, self.min_replicas)
        return Bounds(min_replicas=least, max_replicas=self.max_replicas, up=self.up, down=self.down)

    @property
    def needs_busy(self) -> bool:
        """Whether a decision depends on how busy workers are."""
        formula = self.compiled()
        return self.busy is not None if formula is None else "busy" in formula.names

    def compiled(self) -> Formula | None:
        """The formula in force. It takes the place of all triggers, so the one of `hold` has that of `busy` in it."""
        text = self.formula or (self._holding() if self.hold else None)
        return None if text is None else Formula.of(text, TRIGGERS)

    def _holding(self) -> str:
        target = self.trigger.lag_threshold
        asked = "lag" if self.busy is None else f"max(lag, busy / {self.busy:g} * pods * {target})"
        return f"sink_open >= {HOLD} ? pods * {target} : {asked}"

    def active(self, seen: Observation, readings: Sequence[Reading], formula: Formula | None) -> bool | None:
        """Whether KEDA finds something to do; None where that is not known.

        Beside a formula the activation of single triggers counts for nothing: its value does.
        """
        if formula is None:
            working = self.busy is not None and (seen.busy or 0) > 0
            return True if working else self.trigger.active(seen)
        value = readings[0].value
        return None if value is None else value > self.trigger.activation_lag_threshold

    def readings(self, seen: Observation, replicas: int, formula: Formula | None) -> Sequence[Reading]:
        """The metrics as the autoscaler sees them, with so many replicas."""
        lag = self.trigger.metric(seen) if self.mode is Mode.KEDA else seen.lag
        target = self.trigger.lag_threshold
        if formula is not None:
            values = {"lag": lag, "pods": float(replicas), "sink_open": seen.sink_open, "busy": seen.busy}
            known = {name: value for name, value in values.items() if value is not None}
            value = formula.value(known) if formula.names <= known.keys() else None
            return [Reading("formula", value, Kind.AVERAGE_VALUE, target)]
        readings = [Reading("lag", lag, self.trigger.metric_type, target)]
        if self.busy is not None:
            readings.append(Reading("busy", seen.busy, Kind.VALUE, self.busy))
        return readings
