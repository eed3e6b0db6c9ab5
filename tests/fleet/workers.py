"""Real worker processes: `streamworker run` in a process each, with a ledger between them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from confluent_kafka import Consumer, Producer, TopicPartition
from fleet.history import Effect, Journal, Reading, Seen, Struck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fleet.history import Happening

_TESTS = Path(__file__).parents[1]

# What makes a test short: dead members are noticed, commits go out and drains end within seconds. In a classic group
# of the mock cluster the first member waits three seconds for others.
QUICK: Mapping[str, object] = {
    "kafka.group_protocol": "consumer",
    "kafka.session_timeout_s": 6,
    "kafka.max_poll_interval_s": 6,
    "lifecycle.revoke_timeout_s": 3,
    "lifecycle.drain_timeout_s": 4,
    "dead_letters.delivery_timeout_s": 3,
    "commit.interval_s": 0.2,
    "http.enabled": "false",
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where workers run: their interpreter, the checkout as they see it, and what stands before their command."""

    python: Path = Path(sys.executable)
    checkout: Path = _TESTS.parent
    before: Sequence[str] = ()


@dataclass(slots=True)
class Fleet:
    """Workers of one group; ends them all when the `with` block ends.

    With `by_file` what is the same for all is in a file that `--config` names, as in a pod; else on the command line.
    """

    bootstrap_servers: str
    group: str
    topic: str
    folder: Path
    handler: str = "fleet.apps:Ledger"
    options: Mapping[str, object] = field(default_factory=dict)
    surroundings: Surroundings = field(default_factory=Surroundings)
    by_file: bool = False
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _started: int = 0
    _reading: Reading = field(init=False)

    def __post_init__(self) -> None:
        self._reading = Reading(self.ledger)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait(10)

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    def start(
        self, *arguments: str, crash_point: str = "", planted: str = "", **options: object
    ) -> subprocess.Popen[bytes]:
        """One more worker, with more arguments of `run`; its log is `worker-N.log` in the folder.

        It kills itself at `crash_point`, see `fleet.crash_points`, and has the bug `planted`, see `planted.bugs`.
        """
        self._started += 1
        where = self.surroundings
        tests = where.checkout / _TESTS.name
        command = [*where.before, str(where.python), "-m", "fleet.entry", "run", self.handler, *arguments]
        if self.by_file:
            command += ["--config", str(self._written(self._settings()))]
        else:
            options = {**self._settings(), **options}
        for name, value in options.items():
            command += ["--set", f"{name}={value}"]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(where.checkout), str(tests)]),
            "LEDGER_TOPIC": self.topic,
            "FLEET_LEDGER": str(self.ledger),
            "FLEET_CRASH_POINT": crash_point,
            "FLEET_PLANTED": planted,
        }
        with (self.folder / f"worker-{self._started}.log").open("wb") as log:
            worker = subprocess.Popen(command, cwd=_TESTS, stdout=log, stderr=log, env=environment)
        self.workers.append(worker)
        return worker

    def _settings(self) -> dict[str, object]:
        return {
            "kafka.bootstrap_servers": self.bootstrap_servers,
            "kafka.group": self.group,
            "app.ledger": str(self.ledger),
            **QUICK,
            **self.options,
        }

    def _written(self, settings: Mapping[str, object]) -> Path:
        """The file that has them; what is a value in JSON is one in TOML."""
        file = self.folder / "streamworker.toml"
        values = {name: value if value in ("true", "false") else json.dumps(value) for name, value in settings.items()}
        file.write_text("".join(f"{name} = {value}\n" for name, value in values.items()))
        return file

    def living(self) -> list[subprocess.Popen[bytes]]:
        """Workers that have not ended, oldest first."""
        return [worker for worker in self.workers if worker.poll() is None]

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """End it by SIGKILL."""
        self.strike("kill", worker)
        worker.kill()
        worker.wait(10)

    def pause(self, worker: subprocess.Popen[bytes]) -> None:
        """Stop its process from running, by SIGSTOP."""
        self.strike("pause", worker)
        worker.send_signal(signal.SIGSTOP)

    def resume(self, worker: subprocess.Popen[bytes]) -> None:
        """Let its process run again."""
        self.strike("resume", worker)
        worker.send_signal(signal.SIGCONT)

    def strike(self, what: str, worker: subprocess.Popen[bytes] | None = None) -> None:
        """Note a fault, so that what it may cause is told from what nothing explains."""
        journal = Journal(self.ledger)
        journal.write(Struck(what, None if worker is None else worker.pid, time.monotonic()))
        journal.close()

    def happenings(self) -> Sequence[Happening]:
        """What the workers have noted so far."""
        return self._reading.all()

    def effects(self) -> list[Effect]:
        """What the handlers have done so far."""
        return [one for one in self.happenings() if isinstance(one, Effect)]

    def logs(self) -> str:
        """All workers' logs."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("worker-*.log")))

    def wait(self, until: Callable[[], bool], what: str, timeout_s: float = 40.0) -> None:
        """Wait for something that only other processes can tell; fails with the logs."""
        wait_for(until, lambda: f"{what}\n{self.logs()[-6000:]}", timeout_s)


def runs(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text() if Path("/proc").exists() else True


def wait_for(until: Callable[[], bool], what: Callable[[], str], timeout_s: float) -> None:
    """Look again and again, since nothing tells us."""
    pause = threading.Event()
    deadline_s = time.monotonic() + timeout_s
    while not until():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what()}")
        pause.wait(0.05)


def produce(bootstrap_servers: str, topic: str, records: Iterable[tuple[str | None, str]], partitions: int) -> int:
    """Write (key, value) records, a key always to the same partition; returns how many were acknowledged."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 5})
    acknowledged = 0

    def count(error: object, _message: object) -> None:
        nonlocal acknowledged
        acknowledged += error is None

    for number, (key, value) in enumerate(records):
        partition = number % partitions if key is None else sum(key.encode()) % partitions
        producer.produce(
            topic, value.encode(), key=None if key is None else key.encode(), partition=partition, on_delivery=count
        )
        producer.poll(0)
    assert producer.flush(30) == 0
    return acknowledged


class CommitWatcher:
    """Reads the group's offsets from outside, again and again, with the time just after each reading."""

    def __init__(self, bootstrap_servers: str, group: str, topic: str, partitions: int) -> None:
        self.seen: list[Seen] = []
        self._reader = Consumer(
            {"bootstrap.servers": bootstrap_servers, "group.id": group, "enable.auto.commit": False}
        )
        self._asked = [TopicPartition(topic, number) for number in range(partitions)]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="commit-watcher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(15)
        self._reader.close()

    def committed(self) -> dict[int, int]:
        """The offsets read last."""
        return {one.partition: one.offset for one in self.seen}

    def _run(self) -> None:
        while not self._stopping.wait(0.1):
            try:
                found = self._reader.committed(self._asked, timeout=5)
            except Exception:  # noqa: BLE001 - brokers are stopped in tests: no answer is no observation
                continue
            now_s = time.monotonic()
            self.seen += [
                Seen(one.partition, one.offset, now_s) for one in found if one.offset >= 0 and one.error is None
            ]


def page(port: int, path: str) -> tuple[int, str]:
    """A page of a worker's port: its code and text; code 0 while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def terminate(worker: subprocess.Popen[bytes], timeout_s: float = 30.0) -> int:
    """SIGTERM, and the exit code."""
    worker.send_signal(signal.SIGTERM)
    return worker.wait(timeout_s)


def let_pass(seconds: float) -> None:
    """Wait for nothing but the time, which a fault is to last."""
    until_s = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() >= until_s, lambda: "time", seconds + 1)
