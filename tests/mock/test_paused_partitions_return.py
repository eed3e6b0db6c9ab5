"""A partition that was paused, taken away and given back goes on: the client would keep it paused."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from fleet.in_process import Running, committed, config
from fleet.workers import produce

from streamworker import Handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker import Record
    from streamworker.testing.mock_kafka import MockKafka

HALF = 500


def test_a_partition_paused_by_backpressure_goes_on_after_a_round_trip(
    mock_kafka: MockKafka, figures: Callable[..., None]
) -> None:
    """F-17. Edge cases 18, 19, 20, 31, 33."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 2)
    produce(servers, "in", [(None, "x")] * (2 * HALF), 2)
    gate = threading.Event()
    seen: set[tuple[int, int]] = set()

    class Gated(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None:
            gate.wait()
            seen.add((record.partition, record.offset))

    settings = config(
        servers,
        flow__max_inflight=100,
        flow__pause_after_s=0.1,
        lifecycle__drain_timeout_s=0.2,
        dead_letters__delivery_timeout_s=0.1,
    )
    with Running(settings, Gated) as first:
        first.wait(lambda: len(first.recorder.of("paused")) == 2, "both are paused")
        with Running(settings, Gated) as second:
            second.wait(lambda: any(keys for (keys,) in second.recorder.of("assigned")), "the second has its share")
            first.wait(lambda: first.recorder.of("revoked"), "taken from the first")
            second.stop()
        first.wait(lambda: len(first.recorder.of("assigned")) == 2, "given back to the first")
        gate.set()
        given_s, known = time.monotonic(), len(seen)
        first.wait(lambda: len(seen) > known, "a record", timeout_s=5)
        first_record_s = time.monotonic() - given_s
        first.wait(lambda: committed(servers, "g", "in", 2) == {0: HALF, 1: HALF}, "all committed")
        assert first.stop() == 0

    assert len(seen) == 2 * HALF
    figures("F-17", "a paused partition comes back", first_record_s=round(first_record_s, 1))


def test_a_partition_that_stands_still_leaves_the_others_their_share(mock_kafka: MockKafka) -> None:
    """Edge case 90: it was alone when it filled the worker; what comes in another partition later still goes on."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 2)
    produce(servers, "in", [(None, "x")] * HALF, 1)
    gate = threading.Event()

    class OneStands(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None:
            if record.partition == 0:
                gate.wait()

    with Running(config(servers, flow__max_inflight=100, flow__pause_after_s=0.1), OneStands) as worker:
        try:
            worker.wait(lambda: "in', partition=0" in str(worker.recorder.of("paused")), "it is paused")
            for _ in range(20):
                mock_kafka.produce_raw("in", 1, None, b"x")
            worker.wait(lambda: committed(servers, "g", "in", 2) == {1: 20}, "the other partition goes on")
        finally:
            gate.set()
        worker.wait(lambda: committed(servers, "g", "in", 2) == {0: HALF, 1: 20}, "all committed")
        assert worker.stop() == 0
