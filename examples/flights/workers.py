"""Worker processes: started by the command line that anybody would use, looked at through their port, ended by pid."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Mapping

    from brokers import Topics

_HERE = Path(__file__).parent
_LOOK_TIMEOUT_S = 2.0
# Longer than the worker's own drain and close timeouts.
_STOP_TIMEOUT_S = 50.0
_LOG_TAIL_CHARS = 2000
# What a call fails with while the file is locked.
_LOCKED = "OperationalError"


class OwnedPartition(msgspec.Struct):
    """What /status says of a partition."""

    topic: str
    partition: int
    next_offset: int | None
    committed_offset: int | None


class Status(msgspec.Struct):
    """What the demo reads of /status."""

    state: str
    partitions: list[OwnedPartition]


@dataclass(frozen=True, slots=True)
class Look:
    """A worker at one moment: what its port said, or all zeros while it says nothing."""

    state: str
    owned: Mapping[int, OwnedPartition]
    handled: int = 0
    retries: int = 0
    dead_letters: int = 0
    breaker: str = "closed"
    failed_calls: int = 0  # because of the database


class WorkerEnded(Exception):
    """A worker process ended that was not told to."""


class WorkerProcess:
    """One `streamworker run`, alive from its construction on."""

    def __init__(self, name: str, topics: Topics, folder: Path) -> None:
        self.name = name
        self._topic = topics.flights  # beside the topic for replays
        self.killed = False
        self._port = _free_port()
        self._log = folder / f"{name}.log"
        self._last = Look("starting", {})
        options = {"http.port": self._port, "app.worker": name, "app.database": folder / "flights.sqlite"}
        command = [sys.executable, "-m", "streamworker", "run", "handlers:StoreFlights", "--group", topics.group]
        command += ["--bootstrap-servers", topics.bootstrap_servers]
        command += [part for option, value in options.items() for part in ("--set", f"{option}={value}")]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - streamworker in this interpreter
                command,
                cwd=_HERE,
                env={**os.environ, "FLIGHTS_TOPIC": topics.flights},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which ends its workers itself
            )

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def look(self) -> Look:
        """What it says now, else what it said last. Raises WorkerEnded."""
        if self.killed:
            return self._last
        if self._process.poll() is not None:
            raise WorkerEnded(f"{self.name} ended with code {self._process.returncode}:\n{self.log_tail()}")
        with contextlib.suppress(OSError, http.client.HTTPException):  # it starts, or is busy with something longer
            self._last = self._ask()
        return self._last

    def _ask(self) -> Look:
        status = msgspec.json.decode(self._get("/status"), type=Status)
        counts, breaker = _read(self._get("/metrics").decode())
        return Look(
            state=status.state,
            owned={one.partition: one for one in status.partitions if one.topic == self._topic},
            handled=counts["ok"],
            retries=counts["retried"],
            dead_letters=counts["dlq"],
            breaker=breaker,
            failed_calls=counts[_LOCKED],
        )

    def _get(self, page: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{page}", timeout=_LOOK_TIMEOUT_S) as answer:
            content = answer.read()
        assert isinstance(content, bytes)
        return content

    def kill(self) -> None:
        """End it by SIGKILL, as the out-of-memory killer would: it commits nothing and leaves no group."""
        self._process.kill()
        self._process.wait()
        self.killed = True
        self._last = replace(self._last, state="killed", owned={}, breaker="")

    def ask_to_stop(self) -> None:
        """Let it finish what runs, commit and leave."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def exit_code(self) -> int:
        """Wait for its end."""
        try:
            return self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def log_tail(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-_LOG_TAIL_CHARS:]


class Fleet:
    """The workers of one group; none of them outlives the `with` block."""

    def __init__(self, topics: Topics, folder: Path) -> None:
        self._topics = topics
        self._folder = folder
        self.workers: list[WorkerProcess] = []

    def start(self) -> WorkerProcess:
        """One more worker."""
        worker = WorkerProcess(f"worker-{len(self.workers) + 1}", self._topics, self._folder)
        self.workers.append(worker)
        return worker

    def stop(self) -> Mapping[str, int]:
        """End those that live in order; their exit codes."""
        alive = [worker for worker in self.workers if not worker.killed]
        for worker in alive:
            worker.ask_to_stop()
        return {worker.name: worker.exit_code() for worker in alive}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for worker in self.workers:
            worker.kill()


def _read(metrics: str) -> tuple[Counter[str], str]:
    """Records by how they came back from the handler and failed calls by their error; the state of the breaker."""
    counts: Counter[str] = Counter()
    breaker = "closed"
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == "streamworker_records_processed_total":
                counts[sample.labels["outcome"]] += int(sample.value)
            elif sample.name == "streamworker_errors_total":
                counts[sample.labels["error_type"]] += int(sample.value)
            elif sample.name == "streamworker_breaker_state" and sample.value:
                breaker = sample.labels["state"]
    return counts, breaker


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port
