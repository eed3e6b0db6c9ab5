"""Reads what a values file of the chart says of autoscaling: `workers.NAME.autoscaling` over `workerDefaults`.

Decided here: what of the chart's values the simulation knows, and what it says that it leaves out. Values in, values
out. Pure; any thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import msgspec

from streamworker.autoscaling.hpa import Kind, Policy, Scaling, Select, Unit
from streamworker.autoscaling.keda import Fallback, FallbackBehavior, KafkaTrigger
from streamworker.autoscaling.policy import FALLBACK, Autoscaling, Mode
from streamworker.bounds import member
from streamworker.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Tree = Mapping[str, object]

S = TypeVar("S", bound=msgspec.Struct)

PARTITIONS = 12  # where neither values nor options say how many
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m?)")  # of Kubernetes, as far as a share needs it


class _Values(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A table whose keys are all known; what is absent has the default of `Autoscaling`."""


class _Policy(_Values, frozen=True):
    type: str
    value: int
    period_seconds: int


class _Rules(_Values, frozen=True):
    stabilization_window_seconds: int | None = None
    select_policy: str | None = None
    policies: list[_Policy] | None = None
    tolerance: float | str | None = None


class _Behavior(_Values, frozen=True):
    scale_up: _Rules = _Rules()
    scale_down: _Rules = _Rules()


class _Fallback(_Values, frozen=True):
    failure_threshold: int | None = None
    replicas: int | None = None
    behavior: str = "static"


class _Keda(_Values, frozen=True):
    polling_interval: int | None = None
    cooldown_period: int | None = None
    activation_lag_threshold: int = 12
    skew_aware: bool = False
    exclude_persistent_lag: bool = False
    fallback: _Fallback | None = None
    kafka_version: str = ""
    authentication_ref: dict[str, object] = {}
    annotations: dict[str, object] = {}
    extra_triggers: list[object] = []


class _Busy(_Values, frozen=True):
    enabled: bool = False
    threshold: float = 0.7
    query: str = ""


class _Hold(_Values, frozen=True):
    enabled: bool = False
    query: str = ""


class _Autoscaling(_Values, frozen=True):
    mode: str = "none"
    min_replicas: int = 1
    max_replicas: int = 0
    lag_threshold: int = 10_000
    metric_type: str = "AverageValue"
    replay_topics: bool = True
    tolerance: float | None = None
    behavior: _Behavior = _Behavior()
    keda: _Keda = _Keda()
    busy: _Busy = _Busy()
    sink_breaker_hold: _Hold = _Hold()
    prometheus: dict[str, object] = {}
    scale_target_ref: dict[str, object] = {}
    cron: list[object] = []


class _Canary(msgspec.Struct, frozen=True):
    enabled: bool = False
    replicas: int = 1


class _Worker(msgspec.Struct, frozen=True):
    """Of a worker what bears on autoscaling; the rest is the chart's."""

    partitions: int = 0
    processes: int = 1
    canary: _Canary = _Canary()
    autoscaling: _Autoscaling = _Autoscaling()


class _Chart(msgspec.Struct, frozen=True, rename="camel"):
    worker_defaults: dict[str, object] | None = None
    workers: dict[str, dict[str, object] | None] | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the values come to, and what of them the simulation leaves out."""

    policy: Autoscaling
    left_out: Sequence[str]


def worker_values(document: object, name: str | None) -> Tree:
    """The values of one worker of the chart; `name` may be left out where there is one. Raises ConfigurationError."""
    chart = _converted(document, _Chart, "values")
    workers = chart.workers or {}
    if not workers:
        raise ConfigurationError("values: there are no workers")
    if name is None and len(workers) > 1:
        raise ConfigurationError(
            f"values: there are {len(workers)} workers: give --worker; known: {', '.join(workers)}"
        )
    chosen = next(iter(workers)) if name is None else name
    if chosen not in workers:
        raise ConfigurationError(f"values: there is no worker {chosen!r}; {nearest(chosen, workers)}")
    return merged(chart.worker_defaults or {}, workers[chosen] or {})


def merged(under: Tree, over: Tree) -> Tree:
    """As Helm does it: tables are merged, all else is replaced, and null takes a value away."""
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def policy(values: Tree, *, sync_period_s: int, ready_after_s: int, formula: str | None = None) -> Chosen:
    """What a worker's values come to. Raises ConfigurationError."""
    worker = _converted(values, _Worker, "worker")
    given = worker.autoscaling
    if given.mode == "none":
        raise ConfigurationError("autoscaling.mode is none: nothing scales this worker; give --mode keda or --mode hpa")
    partitions = worker.partitions or PARTITIONS
    room = partitions // worker.processes - (worker.canary.replicas if worker.canary.enabled else 0)
    base = Autoscaling()
    keda = given.keda
    chosen = Autoscaling(
        mode=member("autoscaling.mode", Mode, given.mode),
        min_replicas=given.min_replicas,
        max_replicas=given.max_replicas or max(1, room),
        trigger=KafkaTrigger(
            lag_threshold=given.lag_threshold,
            metric_type=member("autoscaling.metricType", Kind, given.metric_type),
            partitions=partitions,
            activation_lag_threshold=keda.activation_lag_threshold,
            allow_idle_consumers=not keda.skew_aware,
            limit_to_partitions_with_lag=keda.skew_aware,
        ),
        up=_scaling("scaleUp", given.behavior.scale_up, base.up, given.tolerance),
        down=_scaling("scaleDown", given.behavior.scale_down, base.down, given.tolerance),
        busy=given.busy.threshold if given.busy.enabled else None,
        hold=given.sink_breaker_hold.enabled,
        formula=formula,
        fallback=_fallback(keda.fallback),
        polling_interval_s=base.polling_interval_s if keda.polling_interval is None else keda.polling_interval,
        cooldown_s=base.cooldown_s if keda.cooldown_period is None else keda.cooldown_period,
        sync_period_s=sync_period_s,
        ready_after_s=ready_after_s,
    )
    return Chosen(chosen, tuple(_left_out(given)))


def _scaling(name: str, given: _Rules, default: Scaling, tolerance: float | None) -> Scaling:
    own = _share(f"behavior.{name}.tolerance", given.tolerance) if given.tolerance is not None else None
    share = own if tolerance is None else tolerance  # the chart writes the one of both over those of each
    window_s = given.stabilization_window_seconds
    return replace(
        default,
        policies=default.policies if given.policies is None else tuple(_policy(name, one) for one in given.policies),
        window_s=default.window_s if window_s is None else window_s,
        select=member(f"behavior.{name}.selectPolicy", Select, given.select_policy or default.select),
        tolerance=default.tolerance if share is None else share,
    )


def _policy(name: str, given: _Policy) -> Policy:
    return Policy(member(f"behavior.{name}.policies.type", Unit, given.type), given.value, given.period_seconds)


def _share(name: str, quantity: float | str) -> float:
    found = _QUANTITY.fullmatch(str(quantity))
    if found is None:
        raise ConfigurationError(f"{name}: expected a quantity like 0.05 or 50m, got {quantity!r}")
    return float(found[1]) / (1000 if found[2] else 1)


def _fallback(given: _Fallback | None) -> Fallback | None:
    if given is None:
        return FALLBACK
    if given.failure_threshold is None or given.replicas is None:
        return None
    behavior = member("keda.fallback.behavior", FallbackBehavior, given.behavior)
    return Fallback(failure_threshold=given.failure_threshold, replicas=given.replicas, behavior=behavior)


def _left_out(given: _Autoscaling) -> list[str]:
    told = {
        "excludePersistentLag": given.keda.exclude_persistent_lag,
        "extraTriggers": bool(given.keda.extra_triggers),
        "cron": bool(given.cron),
        "annotations": bool(given.keda.annotations),
    }
    return [name for name, there in told.items() if there]


def _converted(value: object, kind: type[S], what: str) -> S:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{what}: {_said(str(error))}") from None


def _said(message: str) -> str:
    """The words of msgspec, with the nearest key where one is not known."""
    unknown = re.search(r"unknown field `(\w+)`(?: - at `\$\.?(.*)`)?", message)
    if unknown is None:
        return message.replace("`$.", "`")
    table = _TABLES.get((unknown[2] or "").rpartition(".")[2], _Autoscaling)
    return f"there is no {unknown[1]!r} in {unknown[2] or 'it'}; {nearest(unknown[1], table.__struct_encode_fields__)}"


_TABLES: Mapping[str, type[_Values]] = {
    "autoscaling": _Autoscaling,
    "behavior": _Behavior,
    "scaleUp": _Rules,
    "scaleDown": _Rules,
    "policies[...]": _Policy,
    "keda": _Keda,
    "fallback": _Fallback,
    "busy": _Busy,
    "sinkBreakerHold": _Hold,
}
