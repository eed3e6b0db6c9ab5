"""Says in words why there are as many replicas as there are. Pure; any thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.autoscaling.hpa import Rule
from streamworker.autoscaling.policy import Mode

if TYPE_CHECKING:
    from streamworker.autoscaling.hpa import Scaling
    from streamworker.autoscaling.policy import Autoscaling
    from streamworker.autoscaling.simulation import Moment


def reason(moment: Moment, policy: Autoscaling) -> str:  # noqa: C901, PLR0911, PLR0912 - a line for each rule
    """Why it was decided as it was at `moment`."""
    match moment.rule:
        case Rule.TARGET:
            return "as the metrics ask"
        case Rule.TOLERANCE:
            up, down = policy.up.tolerance, policy.down.tolerance
            return f"within the tolerance: up to {up:.0%} above the target and {down:.0%} below nothing happens"
        case Rule.UP_WINDOW:
            return f"the window for scaling out: the least that was asked for in the last {policy.up.window_s} s"
        case Rule.DOWN_WINDOW:
            return f"the window for scaling in: the most that was asked for in the last {policy.down.window_s} s"
        case Rule.UP_POLICY:
            return f"the policies for scaling out: {_policies(policy.up)}"
        case Rule.DOWN_POLICY:
            return f"the policies for scaling in: {_policies(policy.down)}"
        case Rule.MAX:
            return f"the most there may be, {policy.max_replicas}"
        case Rule.MIN:
            return f"the least there may be, {policy.bounds.min_replicas}"
        case Rule.CAP:
            return _cap(policy)
        case Rule.HOLD:
            return "held: a sink's breaker is open"
        case Rule.UNREADABLE:
            return "a metric cannot be read: nothing is taken away, and nothing added without one"
        case Rule.FALLBACK:
            return "the lag could not be read for too long: fallback"
        case Rule.WAKE:
            return f"woken: the lag is above {policy.trigger.activation_lag_threshold}"
        case Rule.SLEEP:
            return f"asleep: there was nothing to do for {policy.cooldown_s} s"
        case Rule.ASLEEP:
            return "at zero, where only KEDA acts" if policy.mode is Mode.KEDA else "at zero"


def _policies(scaling: Scaling) -> str:
    if scaling.select.value == "Disabled":
        return "disabled"
    each = [f"{one.value}{' %' if one.unit.value == 'Percent' else ''} in {one.period_s} s" for one in scaling.policies]
    return (
        f"{'the more' if scaling.select.value == 'Max' else 'the less'} of {', '.join(each)}"
        if len(each) > 1
        else each[0]
    )


def _cap(policy: Autoscaling) -> str:
    what = (
        "partitions with lag"
        if policy.trigger.limit_to_partitions_with_lag
        else f"{policy.trigger.partitions} partitions"
    )
    return f"KEDA counts the lag for {what} only, and what is missing is within the tolerance"
