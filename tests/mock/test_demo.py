"""The examples do what their READMEs say, on the mock cluster and as processes of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamworker.testing.mock_kafka import MockKafka

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "examples/flights/demo.py"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
TIMEOUT_S = 100.0  # 20 s on two idle cores


@pytest.fixture
def endless_demo() -> Iterator[subprocess.Popen[str]]:
    """A demo that would send for hours."""
    process = subprocess.Popen(
        [*DEMO, "--rate", "1"], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def found(output: str, name: str) -> str:
    """What the last table says was found for `name`."""
    row = re.search(rf"^ *{re.escape(name)} .* ([\d,]+) +(?:ok)? *$", output, re.MULTILINE)
    assert row is not None, output
    return row[1]


def test_the_demo_loses_nothing_though_the_database_is_locked_and_a_worker_is_killed() -> None:
    done = subprocess.run(
        [*DEMO, "--rows", "3000", "--rate", "1000"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "the database is locked for 5 s" in done.stdout
    assert "breaker open" in done.stdout
    assert "worker-2 is killed" in done.stdout
    assert "all checks passed" in done.stdout
    assert found(done.stdout, "records in the log") == "3,000"
    assert found(done.stdout, "handled") == "2,956"
    assert found(done.stdout, "dead letters: no departure time") == "36"
    assert found(done.stdout, "lost") == "0"
    assert found(done.stdout, "out of order within a key") == "0"
    assert found(done.stdout, "database locked for 5 s: a breaker opened") == "1"
    assert found(done.stdout, "database locked for 5 s: dead letters") == "0"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_that_is_told_to_end_takes_its_workers_along(
    endless_demo: subprocess.Popen[str], number: signal.Signals, code: int
) -> None:
    assert endless_demo.stdout is not None
    started = [line for line in (endless_demo.stdout.readline() for _ in range(3)) if " is process " in line]
    pids = [int(line.rpartition(" ")[2]) for line in started]

    for _ in range(2):  # an impatient second time must not keep the first from its work
        endless_demo.send_signal(number)
    endless_demo.communicate(timeout=TIMEOUT_S)

    assert endless_demo.returncode == code
    assert len(pids) == 2
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_the_quickstart_greets_in_order_within_a_partition(mock_kafka: MockKafka) -> None:
    mock_kafka.create_topic("names", 1)
    for name in ("Ada", "Grace"):
        mock_kafka.produce_raw("names", 0, None, name.encode())

    command = [sys.executable, "-m", "streamworker", "run", "greet:Greet", "--group", "greeters", "--until-end"]
    done = subprocess.run(
        [*command, "--bootstrap-servers", mock_kafka.bootstrap_servers, "--set", "http.port=0"],
        cwd=ROOT / "examples" / "quickstart",
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "Hello, Ada!\nHello, Grace!\n"


def test_the_quickstart_greets_nobody_the_second_time_and_soon() -> None:
    """It looked hung for 43 s: in a classic group of the mock it waits until the first one's session is over."""
    names = subprocess.Popen(
        [sys.executable, "names.py"],
        cwd=ROOT / "examples" / "quickstart",
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert names.stdout is not None
    command = next(line.split() for line in names.stdout if line.startswith("  streamworker run"))

    def greetings() -> str:
        return subprocess.run(
            [sys.executable, "-m", *command, "--until-end", "--set", "http.port=0"],
            cwd=ROOT / "examples" / "quickstart",
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
            timeout=20,
            check=True,
        ).stdout

    try:
        assert greetings() == "Hello, Ada!\nHello, Grace!\nHello, Katherine!\n"
        assert greetings() == ""
    finally:
        names.communicate("\n")
