"""An async handler over the real client: calls at once, a stop in order, and a blocked event loop that is seen."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING

from fleet.in_process import Running, committed, config
from servers.ports import free_port

from streamworker import Handler, Ordering

if TYPE_CHECKING:
    import pytest

    from streamworker import Record
    from streamworker.testing.mock_kafka import MockKafka


def test_calls_at_once_in_order_of_their_keys_and_a_stop_in_order(mock_kafka: MockKafka) -> None:
    servers = mock_kafka.bootstrap_servers
    for number in range(200):
        mock_kafka.produce_raw("in", 0, b"%d" % (number % 20), b"%d" % number)
    seen: list[tuple[bytes | None, int]] = []
    most = 0

    class Awaits(Handler[bytes]):
        topics = ("in",)
        ordering = Ordering.KEY
        concurrency = 32
        at_once = 0

        async def handle(self, record: Record[bytes]) -> None:
            nonlocal most
            self.at_once += 1
            most = max(most, self.at_once)
            await asyncio.sleep(0.002)
            self.at_once -= 1
            seen.append((record.raw_key, record.offset))

    with Running(config(servers), Awaits) as worker:
        worker.wait(lambda: committed(servers, "g", "in", 1) == {0: 200}, "committed")
        assert worker.stop() == 0

    assert sorted(offset for _, offset in seen) == list(range(200))
    for key in {key for key, _ in seen}:
        offsets = [offset for one, offset in seen if one == key]
        assert offsets == sorted(offsets)
    assert most > 4


def test_a_blocked_event_loop_is_counted_and_its_stack_said(
    mock_kafka: MockKafka, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    servers, goes_on = mock_kafka.bootstrap_servers, threading.Event()
    settings = config(servers, http__enabled="true", http__port=free_port())
    mock_kafka.produce_raw("in", 0, None, b"1")

    class Blocks(Handler[bytes]):
        topics = ("in",)

        async def handle(self, record: Record[bytes]) -> None:
            self.wait_without_awaiting()

        def wait_without_awaiting(self) -> None:
            goes_on.wait(30)

    with caplog.at_level(logging.WARNING), Running(settings, Blocks) as worker:
        worker.wait(lambda: ("event_loop",) in [one[:1] for one in worker.recorder.of("stalled")], "seen")
        ready, page = worker.page("/health/ready")
        _, metrics = worker.page("/metrics")
        goes_on.set()
        worker.wait(lambda: committed(servers, "g", "in", 1) == {0: 1}, "committed")
        assert worker.stop() == 0

    said = capfd.readouterr().err
    assert "wait_without_awaiting" in said
    assert "the event loop of Blocks" in page
    assert ready == 200
    assert 'streamworker_event_loop_lag_seconds{handler="Blocks"}' in metrics
