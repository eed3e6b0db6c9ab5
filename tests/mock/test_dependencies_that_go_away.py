"""What handlers call is away for a while: they are held back, and everything is done afterwards."""

from __future__ import annotations

import json
import socketserver
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from fleet.trial import Trial
from fleet.workers import let_pass, page
from servers.ports import free_port
from sizes import SOAK

from streamworker.testing import MockKafka

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PARTITIONS = 4
WORKERS = 2
OUTAGE_S = 6 * SOAK
# Calls in flight when it goes away, as many that begin before the breaker has heard of those, and trials after 0.5, 1,
# 2, 2 … s, a fifth more or less.
CALLS_WHILE_AWAY = WORKERS * (8 + 8 + OUTAGE_S / 1.6)


class Server(socketserver.ThreadingTCPServer):
    """Takes connections and says nothing."""

    allow_reuse_address = True
    request_queue_size = 128
    daemon_threads = True


@contextmanager
def dependency(port: int) -> Iterator[None]:
    with Server(("127.0.0.1", port), socketserver.BaseRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("handler", "breaker"), [("LedgerWithDependency", "a handler"), ("LedgerWithSingleCalls", "single calls")]
)
def test_an_outage_of_a_dependency_dead_letters_nothing_and_is_hardly_called(
    handler: str, breaker: str, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-62. P15. Readiness stays, and says what is impaired."""
    port, probes = free_port(), [free_port() for _ in range(WORKERS)]
    refused = tmp_path / "refused"
    with (
        MockKafka(topics={"in": PARTITIONS, "in.dlq": 1}) as kafka,
        Trial(
            kafka.bootstrap_servers,
            "in",
            "g",
            tmp_path,
            partitions=PARTITIONS,
            total=200 * (OUTAGE_S + 4),
            rate=200,
            handler=f"fleet.apps:{handler}",
            letter_partitions=1,
            options={"app.dependency": port, "http.enabled": "true"},
            sends_at_once=False,
        ) as trial,
    ):
        with dependency(port):
            for probe in probes:
                trial.fleet.start(**{"http.port": probe})
            trial.wait_for_owners(WORKERS)
            trial.send()
            trial.wait_for_progress(0.1)
        trial.fleet.strike("outage")
        let_pass(OUTAGE_S)
        answers = [page(probe, "health/ready") for probe in probes]
        calls = len(refused.read_text().splitlines())
        with dependency(port):
            verdict = trial.verdict()
        letters = trial.copies()

    assert [code for code, _ in answers] == [200] * WORKERS
    for _, text in answers:
        (degraded,) = json.loads(text)["degraded"]
        assert degraded in ("breaker dependency: open", "breaker dependency: half_open")
    assert verdict.broken() == []
    assert verdict.repeats == 0
    assert letters == []
    assert calls <= CALLS_WHILE_AWAY
    figures(
        "F-62", f"a dependency of {breaker} away for {OUTAGE_S} s", calls=calls, dead_letters=0, **verdict.figures()
    )
