"""`run --processes`: several real workers under a real supervisor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fleet.in_process import committed
from fleet.workers import Fleet, page, produce, runs, terminate, wait_for
from prometheus_client.parser import text_string_to_metric_families
from servers.ports import free_port

if TYPE_CHECKING:
    from streamworker.testing.mock_kafka import MockKafka

PARTITIONS = 4
SESSION_S = 3
TIMEOUT_S = 30.0
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
QUICK = {"kafka.session_timeout_s": SESSION_S, "lifecycle.revoke_timeout_s": 1}


@pytest.fixture
def kafka(mock_kafka: MockKafka) -> MockKafka:
    mock_kafka.create_topic("in", PARTITIONS)
    mock_kafka.group_session_timeout(SESSION_S * 1000, heartbeat_interval_ms=200)
    return mock_kafka


@pytest.fixture
def port() -> int:
    return free_port()


def fleet_of(kafka: MockKafka, folder: Path, port: int, **options: object) -> Fleet:
    everything = {"http.enabled": "true", "http.host": "127.0.0.1", "http.port": port, **QUICK, **options}
    return Fleet(kafka.bootstrap_servers, "g", "in", folder, options=everything)


def workers(port: int) -> list[dict[str, object]]:
    """What /status says of each."""
    answer, text = page(port, "status")
    return json.loads(text)["workers"] if answer else []


def owned(port: int) -> list[int]:
    """How many partitions each worker has, least first."""
    statuses = [one["status"] for one in workers(port)]
    return sorted(len(one["partitions"]) for one in statuses if isinstance(one, dict))


def pids(port: int) -> list[int]:
    return [one["pid"] for one in workers(port) if isinstance(one["pid"], int)]


def feed(kafka: MockKafka, records: int = 40) -> None:
    produce(kafka.bootstrap_servers, "in", [(None, "x")] * records, PARTITIONS)


def test_workers_share_the_partitions_and_one_port_and_one_that_is_killed_is_started_again(
    kafka: MockKafka, tmp_path: Path, port: int
) -> None:
    with fleet_of(kafka, tmp_path, port) as fleet:
        supervisor = fleet.start("--processes", "2")
        fleet.wait(lambda: page(port, "health/ready")[0] == 200 and owned(port) == [2, 2], "shared out")
        feed(kafka)
        fleet.wait(lambda: len(fleet.effects()) == 40, "all handled")
        assert {one.pid for one in fleet.effects()} == set(pids(port))
        assert processed(port) == {"0": 20, "1": 20}
        assert page(port, "health/live")[0] == 200

        killed, other = pids(port)
        os.kill(killed, signal.SIGKILL)
        feed(kafka)
        fleet.wait(lambda: len({(one.partition, one.offset) for one in fleet.effects()}) == 80, "all handled again")
        fleet.wait(lambda: page(port, "health/ready")[0] == 200, "ready again")
        assert [one["restarts"] for one in workers(port)] == [1, 0]
        assert pids(port)[1] == other
        assert killed not in pids(port)

        code = terminate(supervisor)

    assert code == 0
    assert committed(kafka.bootstrap_servers, "g", "in", PARTITIONS) == dict.fromkeys(range(PARTITIONS), 20)
    assert '"reason": "SIGTERM"' in fleet.logs()
    assert '"worker": 1' in fleet.logs()


def processed(port: int) -> dict[str, float]:
    """Records that were handled, by worker."""
    return {
        one.labels["worker"]: one.value
        for family in text_string_to_metric_families(page(port, "metrics")[1])
        for one in family.samples
        if one.name == "streamworker_records_processed_total"
    }


def test_without_their_supervisor_the_workers_end_in_order(kafka: MockKafka, tmp_path: Path, port: int) -> None:
    with fleet_of(kafka, tmp_path, port) as fleet:
        supervisor = fleet.start("--processes", "2")
        fleet.wait(lambda: owned(port) == [2, 2], "shared out")
        feed(kafka)
        fleet.wait(lambda: len(fleet.effects()) == 40, "all handled")
        orphans = pids(port)

        fleet.kill(supervisor)

        try:
            wait_for(lambda: not any(map(runs, orphans)), fleet.logs, 20.0)
        finally:
            for left in filter(runs, orphans):
                os.kill(left, signal.SIGKILL)
    assert committed(kafka.bootstrap_servers, "g", "in", PARTITIONS) == dict.fromkeys(range(PARTITIONS), 10)
    assert fleet.logs().count('"reason": "the supervisor is gone"') == 2


def test_a_second_signal_leaves_at_once_whatever_is_in_a_call(kafka: MockKafka, tmp_path: Path, port: int) -> None:
    kafka.produce_raw("in", 0, None, b"slow9999")
    with fleet_of(kafka, tmp_path, port, **{"lifecycle.drain_timeout_s": 60}) as fleet:
        supervisor = fleet.start("--processes", "2")
        fleet.wait(lambda: len(pids(port)) == 2 and '"offset": 0' in page(port, "status")[1], "a call")
        both = pids(port)

        supervisor.send_signal(signal.SIGTERM)
        fleet.wait(lambda: '"state": "draining"' in page(port, "status")[1], "a drain")
        supervisor.send_signal(signal.SIGINT)

        assert supervisor.wait(10) == 130
        assert not any(map(runs, both))
    assert '"exit_code": 130' in fleet.logs()


def test_a_bounded_run_ends_when_all_workers_have_reached_the_end(kafka: MockKafka, tmp_path: Path) -> None:
    feed(kafka)
    with fleet_of(kafka, tmp_path, 0) as fleet:
        supervisor = fleet.start("--processes", "2", "--until-end")

        assert supervisor.wait(30) == 0, fleet.logs()
    assert len({(one.partition, one.offset) for one in fleet.effects()}) == 40
    assert "started again" not in fleet.logs()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--set", "degradation.place=skip"], "degradation.place: no handler has such a read"),
        (["--max-records", "5"], "--max-records counts the records of one worker"),
    ],
)
def test_wrong_usage_is_said_once_and_nothing_is_started(arguments: list[str], complaint: str) -> None:
    command = [sys.executable, "-m", "streamworker", "run", "fleet.apps:Ledger", "--group", "g", "--processes", "3"]
    tests = Path(__file__).parents[1]

    ended = subprocess.run(
        [*command, *arguments],
        cwd=tests,
        env={**os.environ, "LEDGER_TOPIC": "in"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert ended.returncode == 2
    assert ended.stderr.count("Error: ") == 1
    assert complaint in ended.stderr
    assert "worker started" not in ended.stderr


def test_a_handler_that_cannot_be_opened_is_logged_with_its_line_and_nothing_but_lines_of_json(
    kafka: MockKafka, tmp_path: Path
) -> None:
    """The traceback stood bare between the lines, and said nothing of the handler."""
    program = """from streamworker import Handler

class Broken(Handler[bytes]):
    topics = ("in",)

    def open(self, context):
        context.app["dsn"]

    def handle(self, record):
        pass
"""
    (tmp_path / "shop.py").write_text(program, encoding="utf-8")
    command = [sys.executable, "-m", "streamworker", "run", "shop:Broken", "--group", "g", "--processes", "2"]
    settings = ["--bootstrap-servers", kafka.bootstrap_servers, "--set", "http.enabled=false"]
    log = tmp_path / "log"

    with log.open("wb") as file:
        supervisor = subprocess.Popen([*command, *settings], cwd=tmp_path, stderr=file, env=ENVIRONMENT)
        wait_for(lambda: log.read_text().count('"worker ended by an error"') >= 2, log.read_text, TIMEOUT_S)
        terminate(supervisor)

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    opened = [line for line in lines if line["event"] == "open failed"]
    assert {line["worker"] for line in opened} == {0, 1}
    assert {(line["handler"], line["error_type"], line["at"]) for line in opened} == {
        ("Broken", "KeyError", "shop.py:7 in open")
    }
    ended = [line for line in lines if line["event"] == "worker ended by an error"]
    assert "KeyError: 'dsn'" in ended[0]["exception"]
