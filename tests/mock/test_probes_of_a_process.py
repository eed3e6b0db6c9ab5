"""What a running process tells: probes, status, metrics, and what it says of a call that never returns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from fleet.in_process import committed
from fleet.workers import Fleet, page, produce, terminate
from prometheus_client.parser import text_string_to_metric_families
from servers.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from streamworker.testing.mock_kafka import MockKafka

PARTITIONS = 2
SHORT_DRAIN = {"lifecycle__drain_timeout_s": 0.2, "dead_letters__delivery_timeout_s": 0.1}


@pytest.fixture
def kafka(mock_kafka: MockKafka) -> MockKafka:
    mock_kafka.create_topic("in", PARTITIONS)
    return mock_kafka


@pytest.fixture
def port() -> int:
    return free_port()


def fleet_of(kafka: MockKafka, folder: Path, port: int, **options: object) -> Fleet:
    named = {name.replace("__", "."): value for name, value in options.items()}
    everything = {"http.enabled": "true", "http.port": port, **named}
    return Fleet(kafka.bootstrap_servers, "g", "in", folder, handler="fleet.apps:LedgerInOrder", options=everything)


def code(port: int, probe: str) -> int:
    return page(port, f"health/{probe}")[0]


def sample(port: int, name: str, **labels: str) -> float | None:
    """A sample of /metrics; None if there is none."""
    text = page(port, "metrics")[1]
    found = [
        one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name == f"streamworker_{name}" and labels.items() <= one.labels.items()
    ]
    return found[0] if found else None


def test_the_client_tells_of_its_brokers_and_the_process_of_itself(kafka: MockKafka, tmp_path: Path, port: int) -> None:
    produce(kafka.bootstrap_servers, "in", [(None, "x")] * 20, PARTITIONS)
    with fleet_of(kafka, tmp_path, port, deployment__track="canary") as fleet:
        fleet.start()
        fleet.wait(lambda: sample(port, "kafka_group_join_state", state="steady") == 1, "the statistics of a member")
        fleet.wait(lambda: sample(port, "records_processed_total", outcome="ok") == 20, "handled")
        fleet.wait(lambda: sample(port, "consumer_lag_seconds", partition="0") == 0, "no lag")

        assert sample(port, "kafka_broker_rtt_seconds", broker="1", quantile="0.99") is not None
        assert sample(port, "kafka_broker_rtt_seconds", broker="coordinator", quantile="0.5") is not None
        assert sample(port, "kafka_broker_disconnects_total", broker="1") == 0
        assert sample(port, "kafka_broker_rtt_seconds", broker="-1") is None
        assert sample(port, "kafka_fetch_queue_records") == 0
        assert sample(port, "kafka_producer_queue_records") == 0
        assert sample(port, "build_info", track="canary", group="g") == 1
        assert sample(port, "config_info") == 1
        assert sample(port, "busy_ratio", handler="LedgerInOrder") is not None
        assert sample(port, "end_to_end_latency_seconds_count", topic="in")
        assert sample(port, "log_messages_total", level="INFO")


def test_a_worker_comes_up_and_tells_of_its_life_until_it_drains(kafka: MockKafka, tmp_path: Path, port: int) -> None:
    """Edge cases 28, 93, 102, 103, 106."""
    produce(kafka.bootstrap_servers, "in", [(None, "x")] * 20, PARTITIONS)
    with fleet_of(kafka, tmp_path, port) as fleet:
        worker = fleet.start()
        fleet.wait(lambda: code(port, "ready") == 200, "ready")
        for partition in ("0", "1"):
            fleet.wait(lambda one=partition: sample(port, "consumer_lag_records", partition=one) == 0, "no lag")
        fleet.wait(lambda: sample(port, "commits_total", outcome="ok"), "committed")
        status = json.loads(page(port, "status")[1])
        assert [code(port, probe) for probe in ("startup", "live", "ready")] == [200, 200, 200]
        assert (status["state"], status["group"], status["joined"]) == ("running", "g", True)
        assert [one["next_offset"] for one in status["partitions"]] == [10, 10]
        assert sample(port, "records_processed_total", outcome="ok", topic="in") == 20
        assert sample(port, "assigned_partitions") == PARTITIONS
        assert sample(port, "inflight_records") == 0
        assert "key" not in page(port, "metrics")[1].split("# HELP")[0]

        kafka.produce_raw("in", 0, None, b"slow2")
        fleet.wait(lambda: sample(port, "running_calls", handler="LedgerInOrder") == 1, "a call")
        worker.terminate()
        fleet.wait(lambda: code(port, "ready") == 503, "not ready")
        assert '"not_draining": false' in page(port, "health/ready")[1]
        assert code(port, "live") == 200
        assert worker.wait(10) == 0


def test_the_lag_of_a_paused_partition_is_the_truth(kafka: MockKafka, tmp_path: Path, port: int) -> None:
    """Edge case 101: what is produced while the partition is paused counts; the client's own figure stands still."""
    kafka.produce_raw("in", 0, None, b"slow9999")
    produce(kafka.bootstrap_servers, "in", [(None, "x")] * 600, PARTITIONS)
    with fleet_of(kafka, tmp_path, port, flow__max_inflight=100, flow__pause_after_s=0.1) as fleet:
        fleet.start()
        fleet.wait(lambda: sample(port, "paused_partitions", reason="backpressure"), "paused")
        fleet.wait(lambda: sample(port, "consumer_lag_records", partition="0") == 301, "lag")

        produce(kafka.bootstrap_servers, "in", [(None, "x")] * 100, PARTITIONS)
        fleet.wait(lambda: sample(port, "consumer_lag_records", partition="0") == 351, "the lag grows")
        assert (code(port, "live"), code(port, "ready")) == (200, 200)


def test_a_call_that_never_returns_is_reported_and_holds_nobody_else_up(
    kafka: MockKafka, tmp_path: Path, port: int
) -> None:
    """F-09. Edge cases 39, 90: the log has its stack, the metric counts it, the probes stay green."""
    kafka.produce_raw("in", 0, None, b"slow9999")
    with fleet_of(kafka, tmp_path, port, lifecycle__stall_timeout_s=1, **SHORT_DRAIN) as fleet:
        worker = fleet.start()
        fleet.wait(lambda: sample(port, "stalls_total", what="handler") == 1, "a stall")
        for _ in range(50):
            kafka.produce_raw("in", 1, None, b"x")
        fleet.wait(lambda: committed(kafka.bootstrap_servers, "g", "in", 2) == {1: 50}, "the other partition goes on")
        answer, text = page(port, "health/ready")
        assert (answer, code(port, "live")) == (200, 200)
        assert "LedgerInOrder at in[0]@0" in text
        assert "streamworker watchdog: LedgerInOrder at in[0]@0" in fleet.logs()
        assert 'apps.py", line' in fleet.logs()
        assert sample(port, "stalls_total", what="handler") == 1
        assert terminate(worker) == 3


def test_a_call_past_the_time_limit_ends_the_process(kafka: MockKafka, tmp_path: Path, port: int) -> None:
    """Edge case 47: its record is not committed and comes again."""
    for value in (b"x", b"slow9999"):
        kafka.produce_raw("in", 0, None, value)
    with fleet_of(kafka, tmp_path, port, lifecycle__handler_timeout_s=1, **SHORT_DRAIN) as fleet:
        worker = fleet.start()

        assert worker.wait(20) == 4, fleet.logs()
    assert committed(kafka.bootstrap_servers, "g", "in", 2) == {0: 1}


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_member_without_partitions_is_live_ready_and_idle(kafka: MockKafka, tmp_path: Path, protocol: str) -> None:
    """Edge cases 27, 28: three members, two partitions. Each change of the group waits for heartbeats."""
    ports = [free_port() for _ in range(3)]
    quick = {"kafka__session_timeout_s": 2, "lifecycle__revoke_timeout_s": 1}
    with fleet_of(kafka, tmp_path, 0, kafka__group_protocol=protocol, **quick) as fleet:
        for port in ports:
            fleet.start(**{"http.port": port})
        fleet.wait(lambda: all(code(port, "ready") == 200 for port in ports), "all ready")
        fleet.wait(lambda: sorted(_owned(port) for port in ports) == [0, 1, 1], "shared out")
        produce(kafka.bootstrap_servers, "in", [(None, "x")] * 100, PARTITIONS)
        fleet.wait(lambda: committed(kafka.bootstrap_servers, "g", "in", 2) == {0: 50, 1: 50}, "all committed")
        assert [code(port, "live") for port in ports] == [200, 200, 200]
        assert [code(port, "ready") for port in ports] == [200, 200, 200]


def _owned(port: int) -> int:
    return len(json.loads(page(port, "status")[1])["partitions"])
