"""SIGHUP to a real worker: what may change does, what is wrong changes nothing, and the log says which."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from fleet.workers import Fleet, page, produce, terminate
from servers.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from streamworker.testing.mock_kafka import MockKafka


def reads(port: int) -> dict[str, dict[str, object]]:
    """What /status says of reads that may degrade."""
    found: dict[str, dict[str, object]] = json.loads(page(port, "status")[1])["reads"]
    return found


def test_a_hangup_puts_in_force_what_may_change_and_names_the_rest(mock_kafka: MockKafka, tmp_path: Path) -> None:
    """F-04. Edge case 81. Records wait for an answer, until the configuration lets them do without."""
    mock_kafka.create_topic("in", 1)
    produce(mock_kafka.bootstrap_servers, "in", [(f"k{number}", "x") for number in range(20)], 1)
    file = tmp_path / "worker.toml"
    file.write_text("")
    port = free_port()
    options = {"http.enabled": "true", "http.port": port}
    with Fleet(
        mock_kafka.bootstrap_servers, "g", "in", tmp_path, handler="fleet.apps:LedgerWithRead", options=options
    ) as fleet:
        worker = fleet.start("--config", str(file))
        fleet.wait(lambda: '"places": "open"' in page(port, "status")[1], "an open breaker")

        file.write_text('[degradation]\nplaze = "skip"\n')
        worker.send_signal(signal.SIGHUP)
        fleet.wait(lambda: "did you mean 'place'" in fleet.logs(), "a complaint")
        before = len(fleet.effects())
        file.write_text('[degradation]\nplace = "skip"\n[flow]\nmax_slice = 7\n')
        worker.send_signal(signal.SIGHUP)
        fleet.wait(lambda: len(fleet.effects()) == 20, "all records")
        fleet.wait(lambda: reads(port)["place"]["fallbacks"] == ["skip"], "a status")
        degraded = reads(port)["place"]["degraded"]
        metrics = page(port, "metrics")[1]
        code = terminate(worker)

    assert (before, code) == (0, 0)
    assert degraded == {"skip": 20}
    assert 'streamworker_degraded_total{mode="skip",operation="place"} 20.0' in metrics
    assert "the one before stays in force" in fleet.logs()
    assert "need a restart: flow.max_slice" in fleet.logs()
