"""What claims were answered is on the page of metrics."""

from __future__ import annotations

from streamworker.idempotency.figures import figures
from streamworker.idempotency.slices import SliceClaims
from streamworker.idempotency.watchdog import LeaseExtender
from streamworker.observability.catalogue import Metric
from streamworker.observability.metrics import Figures
from streamworker.options import OnUnavailable
from streamworker.testing import VirtualTime
from streamworker.testing.memory_claims import MemoryClaims


def test_each_handler_has_its_counts_beside_what_others_count() -> None:
    time = VirtualTime()
    kept = MemoryClaims(time)
    claimer = SliceClaims(
        kept,
        LeaseExtender(kept.extend, name="h", lease_s=30.0, clock=time),
        handler="h",
        chosen=None,
        on_unavailable=OnUnavailable.PAUSE,
        clock=time,
    )
    claimer.counts["busy"] = 3

    found = figures({"Charges": claimer}).and_those(Figures({Metric.CACHE_LEASES: {("c", "granted"): 1.0}}))

    assert found.numbers[Metric.CLAIMS]["Charges", "busy"] == 3
    assert found.numbers[Metric.CACHE_LEASES] == {("c", "granted"): 1.0}
    assert figures({}).numbers == {}
