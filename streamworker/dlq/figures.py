"""What waits in the producer of dead letters as metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.observability.catalogue import Metric
from streamworker.observability.metrics import Figures

if TYPE_CHECKING:
    from streamworker.dlq.outbox import Queued


def figures(queued: Queued) -> Figures:
    """What `Metrics` is to show of it."""
    return Figures(
        {
            Metric.KAFKA_PRODUCER_QUEUE_RECORDS: {(): queued.msg_cnt},
            Metric.KAFKA_PRODUCER_QUEUE_BYTES: {(): queued.msg_size},
        }
    )
