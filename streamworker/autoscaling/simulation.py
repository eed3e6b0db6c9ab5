"""Runs autoscaling over a group in a time of its own, and notes what was decided when, and why.

Decided here: who acts in which order at a moment. The group moves on, KEDA looks whether to wake it or to put it to
sleep, and the autoscaler decides on what it sees then. Pure; any thread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamworker.autoscaling.hpa import Autoscaler, Decision, Kind, Reading, Rule
from streamworker.autoscaling.keda import Activation
from streamworker.autoscaling.policy import HOLD, Mode
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streamworker.autoscaling.formula import Formula
    from streamworker.autoscaling.observation import Group, Observation
    from streamworker.autoscaling.policy import Autoscaling

MOST_STEPS = 5_000_000  # some ten seconds of work


@dataclass(frozen=True, slots=True)
class Moment:
    """What was seen and decided at a time."""

    at_s: float
    lag: float | None
    sink_open: bool
    proposal: int | None  # replicas that the metrics ask for
    replicas: int  # from now on
    ready: int
    rule: Rule


@dataclass(frozen=True, slots=True)
class Timeline:
    """All of a run, a moment per decision."""

    moments: Sequence[Moment]

    def changes(self) -> Iterator[Moment]:
        """The first moment, and those at which the replicas change or another rule decides."""
        before: Moment | None = None
        for one in self.moments:
            if before is None or (one.replicas, one.rule) != (before.replicas, before.rule):
                yield one
            before = one

    @property
    def most(self) -> int:
        """The most replicas that there were."""
        return max(one.replicas for one in self.moments)

    def at(self, at_s: float) -> Moment:
        """The last moment up to that time."""
        return [one for one in self.moments if one.at_s <= at_s][-1]


@dataclass(slots=True)
class Replicas:
    """Those that there are, and since when each is asked for."""

    ready_after_s: float
    _since_s: list[float] = field(default_factory=list)

    @classmethod
    def ready(cls, count: int, ready_after_s: float) -> Replicas:
        """So many, which are ready from the beginning."""
        return cls(ready_after_s, [-ready_after_s] * count)

    def set(self, count: int, at_s: float) -> None:
        """Make it so many; the youngest go first, as a ReplicaSet has it."""
        self._since_s = self._since_s[:count] + [at_s] * (count - len(self._since_s))

    def count(self) -> int:
        """How many there are."""
        return len(self._since_s)

    def working(self, at_s: float) -> int:
        """How many are ready at that time."""
        return sum(since_s + self.ready_after_s <= at_s for since_s in self._since_s)


def simulate(policy: Autoscaling, group: Group, replicas: int | None = None) -> Timeline:
    """What `policy` would do to `group`, from `replicas` on (the least there may be without)."""
    return Timeline(tuple(_Run(policy, group, replicas).moments()))


class _Run:
    """One run; used once."""

    def __init__(self, policy: Autoscaling, group: Group, replicas: int | None) -> None:
        self._policy = policy
        self._group = group
        self._formula: Formula | None = policy.compiled()
        self._autoscaler = Autoscaler(policy.bounds)
        self._activation = Activation(policy.min_replicas, policy.cooldown_s)
        first = policy.min_replicas if replicas is None else replicas
        self._replicas = Replicas.ready(first, policy.ready_after_s)
        self._failures = 0

    def moments(self) -> Iterator[Moment]:
        policy = self._policy
        looks = policy.mode is Mode.KEDA
        step_s = math.gcd(policy.sync_period_s, policy.polling_interval_s if looks else 0)
        step_s = min(step_s, self._group.step_s)
        if self._group.duration_s / step_s > MOST_STEPS:
            raise ConfigurationError(
                f"expected at most {MOST_STEPS * step_s:,} seconds, got {self._group.duration_s:,.0f}"
            )
        for at_s in range(0, int(self._group.duration_s) + 1, step_s):
            self._group.advance(at_s, self._replicas.working(at_s))
            if looks and at_s % policy.polling_interval_s == 0:
                yield from self._look(at_s)
            if at_s % policy.sync_period_s == 0:
                yield self._sync(at_s)

    def _look(self, at_s: float) -> Iterator[Moment]:
        """KEDA's own look, which counts as a failure, too, where the lag cannot be read."""
        seen = self._group.observe()
        before = self._replicas.count()
        readings = self._policy.readings(seen, before, self._formula)
        lost = self._lost(readings, before)
        active = True if lost is not None else self._policy.active(seen, readings, self._formula)
        count, rule = self._activation.poll(at_s, before, active=active)
        if rule is not None:
            yield self._noted(at_s, seen, Decision(count, rule))

    def _sync(self, at_s: float) -> Moment:
        seen = self._group.observe()
        count = self._replicas.count()
        readings = self._policy.readings(seen, count, self._formula)
        lost = None if count == 0 else self._lost(readings, count)  # nobody asks for metrics at zero
        ready = self._replicas.working(at_s)
        decision = self._autoscaler.sync(at_s, count, ready, readings if lost is None else [lost, *readings[1:]])
        rule = Rule.FALLBACK if lost is not None else self._closer(decision, seen, count)
        return self._noted(at_s, seen, Decision(decision.replicas, rule, decision.proposal))

    def _lost(self, readings: Sequence[Reading], count: int) -> Reading | None:
        """What KEDA says in place of a lag that it could not read too often in a row; None while it says nothing."""
        fallback = self._policy.fallback
        first = readings[0]
        if self._policy.mode is not Mode.KEDA or fallback is None:
            return None
        self._failures = self._failures + 1 if first.value is None else 0
        if self._failures <= fallback.failure_threshold:
            return None
        return Reading("fallback", fallback.wanted(count) * first.target, Kind.AVERAGE_VALUE, first.target)

    def _closer(self, decision: Decision, seen: Observation, before: int) -> Rule:
        """The rule of KEDA's that is behind one of the autoscaler's."""
        policy = self._policy
        if decision.replicas != before or decision.rule not in (Rule.TARGET, Rule.TOLERANCE):
            return decision.rule
        if policy.hold and policy.formula is None and seen.sink_open >= HOLD:
            return Rule.HOLD
        metric = policy.trigger.metric(seen)
        capped = policy.mode is Mode.KEDA and metric is not None and seen.lag is not None and metric < int(seen.lag)
        return Rule.CAP if capped and decision.rule is Rule.TOLERANCE else decision.rule

    def _noted(self, at_s: float, seen: Observation, decision: Decision) -> Moment:
        self._replicas.set(decision.replicas, at_s)
        ready = self._replicas.working(at_s)
        away = seen.sink_open >= HOLD
        return Moment(at_s, seen.lag, away, decision.proposal, decision.replicas, ready, decision.rule)
