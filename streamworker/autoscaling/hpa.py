"""How many replicas a HorizontalPodAutoscaler asks for: ratio, tolerance, windows, policies, bounds.

Decided here: what the controller would decide at one sync, from what it has seen before. Written after the description
of the algorithm in the Kubernetes documentation, and compared with pkg/controller/podautoscaler of Kubernetes 1.34
(`replica_calculator.go`, `horizontal.go`). Pure; any thread.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamworker.bounds import at_least, at_most
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# --horizontal-pod-autoscaler-tolerance; behavior.scaleUp.tolerance and behavior.scaleDown.tolerance replace it.
TOLERANCE = 0.1
# --horizontal-pod-autoscaler-downscale-stabilization
DOWN_WINDOW_S = 300
# What the API server takes (pkg/apis/autoscaling/validation).
_MAX_WINDOW_S, _MAX_PERIOD_S = 3600, 1800


class Kind(enum.Enum):
    """What a metric is compared with."""

    AVERAGE_VALUE = "AverageValue"  # target times replicas: so many per replica
    VALUE = "Value"  # the target alone, whatever the number of replicas


class Unit(enum.Enum):
    """What a policy counts."""

    PODS = "Pods"
    PERCENT = "Percent"


class Select(enum.Enum):
    """Which of several policies counts."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


class Rule(enum.Enum):
    """Why there are as many replicas as there are, and not as many as the metrics ask for."""

    TARGET = "target"  # as the metrics ask
    TOLERANCE = "tolerance"  # the metrics are too near to their targets
    UP_WINDOW = "up_window"
    DOWN_WINDOW = "down_window"
    UP_POLICY = "up_policy"
    DOWN_POLICY = "down_policy"
    MAX = "max"
    MIN = "min"
    UNREADABLE = "unreadable"  # no metric could be read, or the others would scale in
    CAP = "cap"  # KEDA counts no more lag than the partitions can use, and the rest is within the tolerance
    HOLD = "hold"  # a sink's breaker is open
    FALLBACK = "fallback"  # KEDA could not read the lag for too long
    WAKE = "wake"  # KEDA: there is something to do again
    SLEEP = "sleep"  # KEDA: there was nothing to do for the cool-down period
    ASLEEP = "asleep"  # at zero the controller does nothing


@dataclass(frozen=True, slots=True)
class Policy:
    """How much may be added or taken away within a period."""

    unit: Unit
    value: int
    period_s: int

    def __post_init__(self) -> None:
        at_least("policies.value", self.value, 1)
        at_least("policies.periodSeconds", self.period_s, 1)
        at_most("policies.periodSeconds", self.period_s, _MAX_PERIOD_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """The rules of one direction: `behavior.scaleUp` or `behavior.scaleDown`."""

    policies: Sequence[Policy]
    window_s: int = 0
    select: Select = Select.MAX
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        at_least("stabilizationWindowSeconds", self.window_s, 0)
        at_most("stabilizationWindowSeconds", self.window_s, _MAX_WINDOW_S)
        at_least("tolerance", self.tolerance, 0)
        if not self.policies:
            raise ConfigurationError("policies: expected one at least; selectPolicy: Disabled is what forbids scaling")


# What the API server fills in (pkg/apis/autoscaling/v2/defaults.go).
DEFAULT_UP = Scaling(policies=(Policy(Unit.PODS, 4, 15), Policy(Unit.PERCENT, 100, 15)))
DEFAULT_DOWN = Scaling(policies=(Policy(Unit.PERCENT, 100, 15),), window_s=DOWN_WINDOW_S)


@dataclass(frozen=True, slots=True)
class Reading:
    """A metric at one sync; `value` is None where it could not be read."""

    name: str
    value: float | None
    kind: Kind
    target: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of one sync; `proposal` is what the metrics ask for, None where they could not be read."""

    replicas: int
    rule: Rule
    proposal: int | None = None
    metric: str | None = None  # the one that asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The rest of the specification."""

    min_replicas: int = 1
    max_replicas: int
    up: Scaling = DEFAULT_UP
    down: Scaling = DEFAULT_DOWN

    def __post_init__(self) -> None:
        at_least("minReplicas", self.min_replicas, 1)
        at_least("maxReplicas", self.max_replicas, self.min_replicas, "minReplicas")


def proposed(reading: Reading, replicas: int, ready: int, bounds: Bounds) -> int | None:
    """How many replicas one metric asks for; None where it could not be read.

    With AverageValue the metric is shared by all replicas there are, with Value it is multiplied with those that are
    ready. Within the tolerance the metric asks for what there is.
    """
    if reading.value is None:
        return None
    each = replicas if reading.kind is Kind.AVERAGE_VALUE else 1
    ratio = reading.value / (reading.target * each)
    if 1 - bounds.down.tolerance <= ratio <= 1 + bounds.up.tolerance:
        return replicas
    if reading.kind is Kind.AVERAGE_VALUE:
        return math.ceil(reading.value / reading.target)
    return math.ceil(ratio * ready)


@dataclass(slots=True)
class Autoscaler:
    """One HorizontalPodAutoscaler and what it remembers; owned by whoever asks it. Times are seconds and only grow."""

    bounds: Bounds
    _recommended: deque[tuple[float, int]] = field(default_factory=deque)
    _added: deque[tuple[float, int]] = field(default_factory=deque)
    _removed: deque[tuple[float, int]] = field(default_factory=deque)

    def sync(self, at_s: float, replicas: int, ready: int, readings: Sequence[Reading]) -> Decision:
        """What is decided at `at_s` with so many replicas, of which so many are ready; it counts as done."""
        decision = self._decided(at_s, replicas, ready, readings)
        if decision.replicas != replicas:
            log = self._added if decision.replicas > replicas else self._removed
            log.append((at_s, abs(decision.replicas - replicas)))
        return decision

    def _decided(self, at_s: float, replicas: int, ready: int, readings: Sequence[Reading]) -> Decision:
        bounds = self.bounds
        if not self._recommended:
            self._recommended.append((at_s, replicas))  # the controller's first is what it finds
        if replicas == 0:
            return Decision(0, Rule.ASLEEP)
        if replicas > bounds.max_replicas:
            return Decision(bounds.max_replicas, Rule.MAX)
        if replicas < bounds.min_replicas:
            return Decision(bounds.min_replicas, Rule.MIN)
        proposals = [(proposed(one, replicas, ready, bounds), one) for one in readings]
        readable = [(count, one) for count, one in proposals if count is not None]
        # One that cannot be read might have asked for more: the others may scale out and not in.
        if not readable or (len(readable) < len(proposals) and max(count for count, _ in readable) < replicas):
            return Decision(replicas, Rule.UNREADABLE)
        proposal, asking = max(readable, key=lambda one: one[0])
        return self._within(at_s, replicas, proposal, asking)

    def _within(self, at_s: float, replicas: int, proposal: int, asking: Reading) -> Decision:
        """What windows, policies and bounds leave of what the metrics ask for."""
        stable = self._stabilized(at_s, replicas, proposal)
        count, limit = self._limited(at_s, replicas, stable)
        if count == proposal == replicas:
            limit = Rule.TARGET if _exact(asking, replicas) else Rule.TOLERANCE
        elif limit is None:
            windows = Rule.UP_WINDOW if stable < proposal else Rule.DOWN_WINDOW
            limit = Rule.TARGET if stable == proposal else windows
        return Decision(count, limit, proposal, asking.name)

    def _stabilized(self, at_s: float, replicas: int, proposal: int) -> int:
        """Up to the lowest of the one window, down to the highest of the other; as it is where it lies between."""
        up_s, down_s = self.bounds.up.window_s, self.bounds.down.window_s
        lowest = min([proposal, *_since(self._recommended, at_s - up_s)])
        highest = max([proposal, *_since(self._recommended, at_s - down_s)])
        _forget(self._recommended, at_s - max(up_s, down_s))
        self._recommended.append((at_s, proposal))
        return min(max(replicas, lowest), highest)

    def _limited(self, at_s: float, replicas: int, wanted: int) -> tuple[int, Rule | None]:
        """`wanted` within what policies and bounds allow, and which of them it was that did not."""
        if wanted > replicas:
            policy = max(replicas, self._most(at_s, replicas))
            most = min(self.bounds.max_replicas, policy)
            rule = Rule.UP_POLICY if policy < self.bounds.max_replicas else Rule.MAX
            return (wanted, None) if wanted <= most else (most, rule)
        if wanted < replicas:
            policy = min(replicas, self._least(at_s, replicas))
            least = max(self.bounds.min_replicas, policy)
            rule = Rule.DOWN_POLICY if policy > self.bounds.min_replicas else Rule.MIN
            return (wanted, None) if wanted >= least else (least, rule)
        return wanted, None

    def _most(self, at_s: float, replicas: int) -> int:
        """As many as the policies for scaling out allow. Percentages are rounded up, or one would stay alone."""
        scaling = self.bounds.up
        if scaling.select is Select.DISABLED:
            return replicas
        allowed = []
        for policy in scaling.policies:
            start = self._at_start(at_s, replicas, policy)
            percent = math.ceil(start * (1 + policy.value / 100))
            allowed.append(start + policy.value if policy.unit is Unit.PODS else percent)
        return max(allowed) if scaling.select is Select.MAX else min(allowed)

    def _least(self, at_s: float, replicas: int) -> int:
        """As few as the policies for scaling in allow; percentages are rounded down."""
        scaling = self.bounds.down
        if scaling.select is Select.DISABLED:
            return replicas
        allowed = []
        for policy in scaling.policies:
            start = self._at_start(at_s, replicas, policy)
            percent = int(start * (1 - policy.value / 100))
            allowed.append(start - policy.value if policy.unit is Unit.PODS else percent)
        return min(allowed) if scaling.select is Select.MAX else max(allowed)

    def _at_start(self, at_s: float, replicas: int, policy: Policy) -> int:
        """How many there were when the period of `policy` began."""
        since_s = at_s - policy.period_s
        return replicas - sum(_since(self._added, since_s)) + sum(_since(self._removed, since_s))


def _exact(reading: Reading, replicas: int) -> bool:
    """Whether the metric asks for as many as there are without the help of the tolerance."""
    assert reading.value is not None  # it has asked
    if reading.kind is Kind.VALUE:
        return reading.value == reading.target
    return math.ceil(reading.value / reading.target) == replicas


def _since(log: Iterable[tuple[float, int]], cutoff_s: float) -> list[int]:
    return [count for at_s, count in log if at_s > cutoff_s]


def _forget(log: deque[tuple[float, int]], cutoff_s: float) -> None:
    while log and log[0][0] < cutoff_s:
        log.popleft()
