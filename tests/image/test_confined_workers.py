"""Workers as pods run them: confined, told to stop as a kubelet does it, and replaced one by one under load."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fleet.confinement import NOBODY, WHERE_IT_WRITES, confinement, process_1, status_of
from fleet.trial import Trial
from fleet.workers import page, runs, terminate, wait_for
from missing import obtained
from servers.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fleet.confinement import Confinement
    from servers.kafka import SharedKafka

PARTITIONS = 4
# What a pod of one small worker is given.
MEMORY_KIB = 256 * 1024
DRAIN_TIMEOUT_S = 4.0
CLOSE_TIMEOUT_S = 4.0

STARTS = """
import subprocess, sys
print(subprocess.Popen(sys.argv[1:]).pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def confined() -> Iterator[Confinement]:
    """A place where a process may do no more than in a hardened pod."""
    with ExitStack() as stack:
        yield obtained(lambda: stack.enter_context(confinement()))


def test_a_confined_process_has_no_rights_and_nothing_but_its_temporary_folder_to_write_to(
    confined: Confinement,
) -> None:
    """What the other tests here lean on."""
    where = confined.surroundings
    folders = ["/", "/tmp", "/var/tmp", "/dev/shm", str(where.checkout), str(where.python.parent)]
    command = [*where.before, str(where.python), "-c", WHERE_IT_WRITES, *folders, str(confined.writable)]

    answers = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert list(answers.values()) == ["yes", *["Read-only file system"] * len(folders), "yes"]


def test_sigterm_ends_a_command_that_is_process_1_and_has_no_handler_of_its_own(confined: Confinement) -> None:
    """The kernel gives process 1 no default, so a pod would wait for the end of its grace period."""
    where = confined.surroundings
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command = ["healthcheck", "--url", f"http://127.0.0.1:{silent.getsockname()[1]}/", "--timeout-s", "60"]
        environment = {**os.environ, "PYTHONPATH": str(where.checkout)}
        waiting = subprocess.Popen([*where.before, str(where.python), "-m", "streamworker", *command], env=environment)
        connection, _ = silent.accept()

        with connection:
            os.kill(process_1(waiting), signal.SIGTERM)
            code = waiting.wait(10)

    assert code == 128 + signal.SIGTERM


def test_what_is_confined_ends_with_who_has_started_it_however_that_ends(confined: Confinement) -> None:
    where = confined.surroundings
    waits = [*where.before, str(where.python), "-c", "import signal; print('up', flush=True); signal.pause()"]
    with subprocess.Popen(
        [sys.executable, "-c", STARTS, *waits], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert starter.stdout.readline() == "up\n"

        starter.kill()

    wait_for(lambda: not runs(pid), lambda: f"the end of {pid}", 10.0)


def test_a_confined_worker_that_is_told_to_stop_drains_in_time_and_loses_nothing(
    kafka: SharedKafka, confined: Confinement, figures: Callable[..., None]
) -> None:
    """F-24 in 256 MiB, as nobody, with a read-only file system, as process 1: SIGTERM amid calls, then a successor."""
    with _trial(kafka, confined.writable, total=2000, deeds={"flaky": 0.01}) as trial:
        trial.fleet.surroundings = confined.surroundings
        first = trial.fleet.start()
        trial.wait_for_progress(0.3)
        process = process_1(first)
        rights = status_of(process)
        began_s = time.monotonic()
        os.kill(process, signal.SIGTERM)
        code = first.wait(30)
        drained_s = time.monotonic() - began_s
        second = trial.fleet.start()
        trial.come_to_rest()
        peak_kib = max(_peak_kib(rights), _peak_kib(status_of(process_1(second))))
        verdict = trial.verdict_now()

    assert code == 0
    assert drained_s < DRAIN_TIMEOUT_S + CLOSE_TIMEOUT_S
    assert verdict.broken() == []
    assert verdict.repeats == 0
    assert peak_kib < MEMORY_KIB
    assert rights["NSpid"].split()[-1] == "1"
    assert set(rights["Uid"].split() + rights["Gid"].split()) == {str(NOBODY)}
    assert (rights["Groups"], rights["NoNewPrivs"]) == ("", "1")
    assert {int(rights[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    figures("F-24", "SIGTERM to a confined worker", drained_s=round(drained_s, 1), peak_mib=peak_kib // 1024)


def test_replacing_four_workers_one_by_one_under_load_handles_each_record_once(
    kafka: SharedKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-24 with the command line of a pod: `run` and a file; the next one goes when its successor is ready."""
    with _trial(kafka, tmp_path, total=1_000_000, rate=400.0, options={"kafka.group_protocol": "classic"}) as trial:
        replaced = [_start(trial) for _ in range(4)]
        trial.wait_for_owners(4)
        sent = []
        for worker, _ in replaced:
            sent.append(trial.workload.acknowledged())
            terminate(worker)
            _, port = _start(trial)
            trial.fleet.wait(lambda port=port: page(port, "health/ready")[0] == 200, "the successor is ready")
        sent.append(trial.workload.acknowledged())
        trial.workload.stop()
        verdict = trial.verdict()

    assert [worker.returncode for worker, _ in replaced] == [0] * 4
    assert all(before < after for before, after in pairwise(sent)), "there was no load"
    assert verdict.broken() == []
    assert verdict.repeats == 0
    figures("F-24", "replacing four workers on Kafka", stops=4, **verdict.figures())


def _trial(
    kafka: SharedKafka,
    folder: Path,
    *,
    total: int,
    rate: float = 1e9,
    deeds: dict[str, float] | None = None,
    options: dict[str, object] | None = None,
) -> Trial:
    trial = Trial(
        kafka.bootstrap_servers,
        kafka.topic("orders", partitions=PARTITIONS),
        kafka.group("orders"),
        folder,
        partitions=PARTITIONS,
        total=total,
        rate=rate,
        deeds=deeds or {},
        options={
            "app.work_s": 0.004,
            "http.enabled": "true",
            "http.port": 0,
            "lifecycle.drain_timeout_s": DRAIN_TIMEOUT_S,
            "lifecycle.close_timeout_s": CLOSE_TIMEOUT_S,
            **(options or {}),
        },
    )
    trial.fleet.by_file = True
    return trial


def _start(trial: Trial) -> tuple[subprocess.Popen[bytes], int]:
    """One more worker, and its port."""
    port = free_port()
    return trial.fleet.start(**{"http.port": port}), port


def _peak_kib(status: dict[str, str]) -> int:
    return int(status["VmHWM"].removesuffix("kB"))
