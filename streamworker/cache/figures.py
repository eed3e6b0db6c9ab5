"""The counts of caches as metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.observability.catalogue import Metric
from streamworker.observability.metrics import Figures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamworker.cache.two_level import CacheStats
    from streamworker.observability.series import Distribution, Labels


def figures(caches: Iterable[CacheStats]) -> Figures:
    """What `Metrics` is to show of `caches`."""
    numbers: dict[Metric, dict[Labels, float]] = {}
    loads: dict[Labels, Distribution] = {}

    def note(metric: Metric, value: float, *labels: str) -> None:
        numbers.setdefault(metric, {})[labels] = value

    for one in caches:
        name, local = one.name, one.local
        for (level, result), keys in one.requests.items():
            note(Metric.CACHE_REQUESTS, keys, name, level, result)
        for result, keys in one.leases.items():
            note(Metric.CACHE_LEASES, keys, name, result)
        for direction, keys in one.invalidations.items():
            note(Metric.CACHE_INVALIDATIONS, keys, name, direction)
        for reason, times in one.flushes.items():
            note(Metric.CACHE_FLUSHES, times, name, reason)
        for operation, calls in one.failed.items():
            note(Metric.CACHE_FAILURES, calls, name, operation)
        for cause, values in local.removals.items():
            note(Metric.CACHE_REMOVALS, values, name, cause.value)
        note(Metric.CACHE_REJECTED, local.rejected_by_guard, name, "guard")
        note(Metric.CACHE_REJECTED, local.rejected_by_version, name, "version")
        note(Metric.CACHE_SKIPPED, one.not_asked, name)
        note(Metric.CACHE_ENTRIES, local.entries, name)
        note(Metric.CACHE_DIRTY, one.dirty_keys, name)
        note(Metric.CACHE_LINKED, one.linked, name)
        loads[name,] = one.loads
    return Figures(numbers, {Metric.CACHE_LOADS: loads})
