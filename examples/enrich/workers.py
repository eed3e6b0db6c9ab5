"""Worker processes: started by the command line that anybody would use, ended by pid; and what their caches did."""

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
from pathlib import Path
from typing import TYPE_CHECKING, Self

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Mapping

    from brokers import Topics

_HERE = Path(__file__).parent
_HANDLERS = ["handlers:EnrichFlights", "handlers:KeepPlanes"]
_LOOK_TIMEOUT_S = 2.0
# Longer than the worker's own drain and close timeouts.
_STOP_TIMEOUT_S = 50.0
_LOG_TAIL_CHARS = 3000

Requests = Counter[tuple[str, str, str]]  # keys that were asked for, by cache, level and result


class WorkerEnded(Exception):
    """A worker process ended that was not told to."""


class Program:
    """What is the same for each `streamworker` of a run."""

    def __init__(self, topics: Topics, folder: Path, database: str, redis: str | None) -> None:
        self.folder = folder
        self._settings = [f"sinks.warehouse={database}", *([] if redis is None else [f"cache.redis={redis}"])]
        self._options = ["--group", topics.group, "--bootstrap-servers", topics.bootstrap_servers]
        self.environment = {
            **os.environ,
            "ENRICH_TOPIC": topics.flights,
            "ENRICH_PLANES_TOPIC": topics.planes,
            "ENRICH_DATABASE": database.partition(":")[0],
        }

    def run(self, port: int) -> list[str]:
        """The command line of a worker."""
        return [*self._streamworker("run"), *self._options, *self._set(*self._settings, f"http.port={port}")]

    def make_tables(self) -> None:
        """Make what the sinks need."""
        subprocess.run(  # noqa: S603 - streamworker in this interpreter
            [*self._streamworker("sinks", "create"), *self._set(*self._settings)],
            cwd=_HERE,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )

    @staticmethod
    def _streamworker(*command: str) -> list[str]:
        return [sys.executable, "-m", "streamworker", *command, *_HANDLERS]

    @staticmethod
    def _set(*settings: str) -> list[str]:
        return [part for one in settings for part in ("--set", one)]


class WorkerProcess:
    """One `streamworker run`, alive from its construction on."""

    def __init__(self, name: str, program: Program) -> None:
        self.name = name
        self.killed = False
        self.owned = 0
        self.requests: Requests = Counter()
        self._port = _free_port()
        self._log = program.folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - streamworker in this interpreter
                program.run(self._port),
                cwd=_HERE,
                env=program.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which ends its workers itself
            )

    def look(self) -> None:
        """Note what its caches did so far and how many partitions it has. Raises WorkerEnded."""
        if self.killed:
            return
        if self._process.poll() is not None:
            raise WorkerEnded(f"{self.name} ended with code {self._process.returncode}:\n{self.log_tail()}")
        with contextlib.suppress(OSError, http.client.HTTPException):  # it starts, or is busy with something longer
            self._read(self._metrics())

    def _metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=_LOOK_TIMEOUT_S) as answer:
            return str(answer.read(), "utf-8")

    def _read(self, metrics: str) -> None:
        self.requests.clear()
        for family in text_string_to_metric_families(metrics):
            for sample in family.samples:
                if sample.name == "streamworker_cache_requests_total":
                    told = sample.labels
                    self.requests[told["cache"], told["level"], told["result"]] += int(sample.value)
                elif sample.name == "streamworker_assigned_partitions":
                    self.owned = int(sample.value)

    def kill(self) -> None:
        """End it by SIGKILL, as the out-of-memory killer would: it commits nothing and leaves no group."""
        self._process.kill()
        self._process.wait()
        self.killed = True

    def stop(self) -> int:
        """Let it finish what runs, commit and leave; its exit code."""
        self._process.send_signal(signal.SIGTERM)
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

    def __init__(self, program: Program) -> None:
        self._program = program
        self.workers: list[WorkerProcess] = []

    @property
    def living(self) -> list[WorkerProcess]:
        """Those that were not killed."""
        return [worker for worker in self.workers if not worker.killed]

    @property
    def requests(self) -> Requests:
        """Of all workers; of a killed one as of the last look."""
        return sum((worker.requests for worker in self.workers), Counter())

    def start(self) -> WorkerProcess:
        """One more worker."""
        worker = WorkerProcess(f"worker-{len(self.workers) + 1}", self._program)
        self.workers.append(worker)
        return worker

    def look(self) -> None:
        """Look at each. Raises WorkerEnded."""
        for worker in self.workers:
            worker.look()

    def stop(self) -> Mapping[str, int]:
        """End those that live in order; their exit codes."""
        return {worker.name: worker.stop() for worker in self.living}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for worker in self.workers:
            worker.kill()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port
