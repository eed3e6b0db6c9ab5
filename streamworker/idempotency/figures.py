"""The counts of claims as metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.observability.catalogue import Metric
from streamworker.observability.metrics import Figures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamworker.idempotency.slices import SliceClaims
    from streamworker.observability.series import Labels


def figures(claimers: Mapping[str, SliceClaims]) -> Figures:
    """What `Metrics` is to show of them, by the handler's name."""
    numbers: dict[Labels, float] = {
        (handler, result): float(records)
        for handler, claimer in claimers.items()
        for result, records in claimer.counts.items()
    }
    return Figures({Metric.CLAIMS: numbers} if numbers else {})
