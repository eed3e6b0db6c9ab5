"""The Kafka that tests run against: the one given, else one started in a container, else one started by Java.

What is started here listens on the loopback interface, keeps its data in a temporary folder and ends
with the test run. A test may stop or kill it only if `owned`.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not list what it exports
    AdminClient,
    NewTopic,
)
from servers.kafka_jars import ServerUnavailable, fetch_jars, require_java
from servers.ports import free_ports
from servers.tethered import Tethered

from streamworker.dlq.routes import replay_topic
from streamworker.replay.states import state_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_ROOT = Path(__file__).parents[2]
_TEMPLATE = _ROOT / "deploy" / "kafka" / "server.properties.template"
_COMPOSE_FILE = _ROOT / "docker-compose.kafka.yml"

_START_TIMEOUT_S = 60.0  # 6 s on two idle cores
STOP_TIMEOUT_S = 30.0  # a broker hands over its partitions first
_ADMIN_TIMEOUT_S = 30.0
_PULL_TIMEOUT_S = 300.0
ASK_AGAIN_S = 0.05  # a starting broker needs the processor more than an answer is needed at once
_CLOSE_GRACE_S = 20.0  # containers are stopped by their command line, which needs a moment


# Fast compilation for a program that runs for a second, or that has nothing heavy to do.
FAST_START = ("-XX:TieredStopAtLevel=1",)
_BROKER = ("-Xmx384m", "-Xms128m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")


class NotOurs(Exception):
    """A test wanted to stop or kill a server that this test run did not start."""


class KafkaServer(Protocol):
    """A cluster of one node or more, ready when made."""

    @property
    def bootstrap_servers(self) -> str: ...

    @property
    def owned(self) -> bool:
        """Whether this run started it, so that tests may stop and kill it."""

    def restart(self) -> None:
        """Stop it in order if it runs, start it again on the same port and wait until it answers; data are kept."""

    def kill(self) -> None:
        """End it by SIGKILL; it is gone when this returns, until `restart()`."""

    def close(self) -> None:
        """End it if it is ours. Idempotent."""


class GivenKafka:
    """A Kafka that somebody else runs."""

    owned = False

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        wait_until_it_answers(bootstrap_servers)

    def restart(self) -> None:
        raise NotOurs(f"{self.bootstrap_servers} was given, so it is not restarted")

    def kill(self) -> None:
        raise NotOurs(f"{self.bootstrap_servers} was given, so it is not killed")

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Launch:
    """How one kind of server is run: in the foreground by `command`, in `folder`, answering on `port`."""

    command: Sequence[str]
    folder: Path
    port: int
    kill: Callable[[Tethered], object]
    clean: Callable[[], object]


class StartedKafka:
    """A Kafka of this test run."""

    owned = True

    def __init__(self, launch: _Launch) -> None:
        self.bootstrap_servers = f"127.0.0.1:{launch.port}"
        self._launch = launch
        self._process = self._start()

    @property
    def pid(self) -> int:
        """Process of the broker, or of the command line that holds its container."""
        return self._process.pid

    def restart(self) -> None:
        if self._process.running:
            self._process.send(signal.SIGTERM)
            self._process.wait(STOP_TIMEOUT_S)
        self._process.close()
        self._process = self._start()

    def kill(self) -> None:
        self._launch.kill(self._process)
        self._process.wait(STOP_TIMEOUT_S)

    def close(self) -> None:
        self._process.close()
        self._launch.clean()
        shutil.rmtree(self._launch.folder, ignore_errors=True)  # still there if it was killed before

    def _start(self) -> Tethered:
        process = Tethered(self._launch.command, self._launch.folder, grace_s=_CLOSE_GRACE_S)
        try:
            wait_until_it_answers(self.bootstrap_servers, process)
        except ServerUnavailable:
            process.close()
            self._launch.clean()
            raise
        return process


def obtain_kafka(given: str | None) -> KafkaServer:
    """The Kafka at `given`, else one that this machine can start. Raises ServerUnavailable with all reasons."""
    if given:
        return GivenKafka(given)
    reasons = []
    for start in (in_a_container, by_java):
        try:
            return StartedKafka(start())
        except ServerUnavailable as error:
            reasons.append(str(error))
    raise ServerUnavailable("no Kafka: " + "; ".join(reasons))


def by_java() -> _Launch:
    """One node in a Java process, from jars that Maven fetches once."""
    require_java()
    folder = Path(tempfile.mkdtemp(prefix="streamworker-kafka-"))
    port, controller_port = free_ports(2)
    settings = write_settings(folder, port, controller_port, {})
    format_storage(settings, new_cluster_id())
    return _Launch(
        command=broker_command(settings),
        folder=folder,
        port=port,
        kill=lambda process: process.send(signal.SIGKILL),
        clean=lambda: None,
    )


def write_settings(folder: Path, port: int, controller_port: int, changes: Mapping[str, str]) -> Path:
    """The settings of a node that keeps its data in `folder`: the template's, and `changes` laid over them."""
    settings = folder / "server.properties"
    template = Template(_TEMPLATE.read_text())
    text = template.substitute(port=port, controller_port=controller_port, data_folder=folder / "data")
    # Of a name that stands twice Java reads the later line.
    settings.write_text(text + "\n" + "".join(f"{name}={value}\n" for name, value in changes.items()))
    return settings


def format_storage(settings: Path, cluster_id: str) -> None:
    """Make the data folder of a node, which must not have one yet."""
    run_tool("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(settings))


def broker_command(settings: Path, *options: str) -> list[str]:
    """What runs a node in the foreground, with `options` for its Java."""
    return ["java", "-cp", f"{fetch_jars()}/*", *_BROKER, *options, "kafka.Kafka", str(settings)]


def run_tool(name: str, *arguments: str) -> None:
    """Run one of Kafka's own tools to its end; raises ServerUnavailable with its output if it fails."""
    _run(["java", "-cp", f"{fetch_jars()}/*", *FAST_START, name, *arguments])


def in_a_container() -> _Launch:
    """One node in a container, from the compose file that users are given."""
    if shutil.which("docker") is None:
        raise ServerUnavailable("no docker on the PATH")
    _run(["docker", "info"])
    (port,) = free_ports(1)
    project = f"streamworker-{secrets.token_hex(4)}"
    compose = ["docker", "compose", "-p", project, "-f", str(_COMPOSE_FILE), "--profile", "kafka"]
    _run([*compose, "pull", "--quiet"], timeout_s=_PULL_TIMEOUT_S)
    return _Launch(
        command=["env", f"KAFKA_PORT={port}", *compose, "up", "--no-log-prefix"],
        folder=Path(tempfile.mkdtemp(prefix="streamworker-kafka-")),
        port=port,
        kill=lambda _process: _run([*compose, "kill", "kafka"]),
        clean=lambda: _run([*compose, "down", "--volumes"]),
    )


class SharedKafka:
    """One server for the whole run, where names keep tests apart: all begin with the run's id."""

    def __init__(self, server: KafkaServer) -> None:
        self.server = server
        self.bootstrap_servers = server.bootstrap_servers
        self.admin = admin_client(server.bootstrap_servers)
        self._run_id = f"sw{secrets.token_hex(3)}"
        self._topics: list[str] = []
        self._names = 0

    def topic(self, hint: str, partitions: int = 1, **config: str) -> str:
        """Name of a new topic, which has leaders when this returns. `config` as in Kafka, with _ for dots."""
        return self._create(self._name(hint), partitions, **config)

    def dead_letters(self, topic: str) -> str:
        """Name of a new dead-letter topic of one partition for `topic`, as tests name it."""
        return self._create(f"{topic}.dlq", 1)

    def states(self, letters: str, partitions: int = 1) -> str:
        """Name of the new topic for what has become of the letters of a dead-letter topic."""
        return self._create(state_topic(letters), partitions, cleanup_policy="compact")

    def replays(self, topic: str, group: str, partitions: int = 1) -> str:
        """Name of the new topic for what of `topic` is sent to `group` again."""
        return self._create(replay_topic(topic, group), partitions)

    def _create(self, name: str, partitions: int, **config: str) -> str:
        settings = {key.replace("_", "."): value for key, value in config.items()}
        created = self.admin.create_topics([NewTopic(name, partitions, config=settings)])
        created[name].result(_ADMIN_TIMEOUT_S)
        self._topics.append(name)
        self._wait_for_leaders(name, partitions)
        return name

    def topic_called(self, name: str, partitions: int = 1, **config: str) -> str:
        """A new topic whose name is derived from that of another one."""
        return self._create(name, partitions, **config)

    def group(self, hint: str) -> str:
        """Name of a group that nobody has used."""
        return self._name(hint)

    def close(self) -> None:
        """Remove the run's topics from a server that goes on without us; end one that is ours."""
        if self._topics and not self.server.owned:
            for deleted in self.admin.delete_topics(self._topics).values():
                deleted.result(_ADMIN_TIMEOUT_S)
        self.server.close()

    def _name(self, hint: str) -> str:
        self._names += 1
        return f"{self._run_id}.{hint}.{self._names}"

    def _wait_for_leaders(self, topic: str, partitions: int) -> None:
        """Brokers learn of a topic a little after the controller has acknowledged it."""
        deadline_s = time.monotonic() + _ADMIN_TIMEOUT_S
        while time.monotonic() < deadline_s:
            found = self.admin.list_topics(topic, timeout=_ADMIN_TIMEOUT_S).topics[topic].partitions.values()
            if len(found) == partitions and all(partition.leader >= 0 for partition in found):
                return
        raise TimeoutError(f"{topic}: no leaders within {_ADMIN_TIMEOUT_S} s")


def wait_until_it_answers(bootstrap_servers: str, process: Tethered | None = None, node: int | None = None) -> None:
    """Ask for metadata until an answer names a broker, or the one with the id `node`.

    Raises ServerUnavailable when that takes too long or `process` has ended, with the end of its output.
    """
    admin = admin_client(bootstrap_servers)
    pause = threading.Event()
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s and (process is None or process.running):
        with contextlib.suppress(KafkaException):
            brokers = admin.list_topics(timeout=1.0).brokers  # waits for a connection
            if node in brokers or (node is None and brokers):
                return
        pause.wait(ASK_AGAIN_S)
    what = f"no answer within {_START_TIMEOUT_S} s"
    if process is not None:
        log = process.log.read_text(errors="replace")[-2000:]
        what = f"{what if process.running else 'it ended by itself'}; the end of its output:\n{log}"
    raise ServerUnavailable(f"Kafka at {bootstrap_servers}: {what}")


def admin_client(bootstrap_servers: str, *, socket_timeout_s: float = 60.0) -> AdminClient:
    """An admin client that is silent about brokers that are starting or killed: those are no news here."""
    return AdminClient(
        {
            "bootstrap.servers": bootstrap_servers,
            "log_level": 2,  # critical, as in syslog
            "reconnect.backoff.max.ms": 200,
            "socket.timeout.ms": round(socket_timeout_s * 1000),
        }
    )


def new_cluster_id() -> str:
    """A Kafka Uuid: 16 bytes as base64 without padding. It must not begin with a dash, which looks like an option."""
    return urlsafe_b64encode(b"\x00" + secrets.token_bytes(15)).decode().rstrip("=")


def _run(command: Sequence[str], *, timeout_s: float = _START_TIMEOUT_S) -> None:
    what = f"`{' '.join(command[:2])} …`"
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired as error:
        raise ServerUnavailable(f"{what} did not end within {timeout_s} s") from error
    if done.returncode:
        raise ServerUnavailable(f"{what} failed: {done.stdout.strip()[-300:]}")
