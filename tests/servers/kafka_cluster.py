"""A Kafka of several nodes, started by Java, whose brokers a test may kill, freeze and stop one by one.

Each node is broker and controller. Topics have a replica on each of up to three nodes, and of three of them two must
be in sync, so any one node may be away. Brokers talk to each other through a listener of their own: where clients are
told the port of a proxy, its faults hit clients only. The test's thread owns the cluster; its nodes are started
together, each by a thread of its own.
"""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from confluent_kafka import ElectionType, KafkaException, TopicPartition
from servers.kafka import (
    ASK_AGAIN_S,
    FAST_START,
    STOP_TIMEOUT_S,
    admin_client,
    broker_command,
    format_storage,
    new_cluster_id,
    run_tool,
    wait_until_it_answers,
    write_settings,
)
from servers.kafka_jars import require_java
from servers.ports import free_ports
from servers.tethered import Tethered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not list what it exports
        PartitionMetadata,
        TopicMetadata,
    )

T = TypeVar("T")

_ANSWER_TIMEOUT_S = 30.0
# What does not answer within this is asked no more, and another node is: a node may be frozen.
_FROZEN_S = 2.0

# After this without a heartbeat the others take over what a broker leads, and before it a killed broker cannot come
# back. The defaults are 9 s and 2 s.
_BROKER_SESSION_MS, _BROKER_HEARTBEAT_MS = 3000, 300


@dataclass(frozen=True, slots=True)
class _Ports:
    """Of one node, all on the loopback interface. `advertised` is where clients are told that `clients` is.

    At `accounts` clients have to say who they are.
    """

    clients: int
    advertised: int
    brokers: int
    controllers: int
    accounts: int


class Node:
    """One broker, which is a controller as well."""

    def __init__(self, number: int, ports: _Ports, settings: Path) -> None:
        self.number = number
        self.port = ports.clients
        self._address = f"127.0.0.1:{ports.clients}"
        self._settings = settings
        self._process: Tethered | None = None

    @property
    def running(self) -> bool:
        """Whether its process is there, frozen or not."""
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Start it and wait until it answers and its cluster counts it in; most of the nodes must be running."""
        assert not self.running, f"node {self.number} runs already"
        self._process = Tethered(broker_command(self._settings, *FAST_START), self._settings.parent)
        wait_until_it_answers(self._address, self._process, node=self.number)

    def stop(self) -> None:
        """End it in order: it hands over what it leads first. Not while it is frozen."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it by SIGKILL; its data stay as they were."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it: its connections stay open, and nothing answers."""
        self._running().halt()

    def resume(self) -> None:
        """Let it go on, without waiting for anything."""
        self._running().send(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its data. Idempotent."""
        if self._process is not None:
            self._process.close()
        shutil.rmtree(self._settings.parent, ignore_errors=True)  # still there if it was killed before

    def _end(self, signal_number: int) -> None:
        process = self._running()
        process.send(signal_number)
        process.wait(STOP_TIMEOUT_S)
        process.close()

    def _running(self) -> Tethered:
        assert self._process is not None
        assert self._process.running, f"node {self.number} does not run"
        return self._process


class KafkaCluster:
    """A `KafkaServer` of this test run. Its nodes are numbered from 1."""

    owned = True

    def __init__(self, ports: Mapping[int, _Ports], settings: Mapping[int, Path]) -> None:
        self.bootstrap_servers = _servers(one.advertised for one in ports.values())
        # For what a test asks itself: no proxy stands between, whatever clients are told.
        self.direct_servers = _servers(one.brokers for one in ports.values())
        self.account_servers = _servers(one.accounts for one in ports.values())
        self.admin = admin_client(self.direct_servers, socket_timeout_s=_FROZEN_S)
        self._pause = threading.Event()  # never set
        self._nodes = {number: Node(number, one, settings[number]) for number, one in ports.items()}

    @property
    def nodes(self) -> list[Node]:
        """All of them."""
        return list(self._nodes.values())

    def node(self, number: int) -> Node:
        """The node with this id."""
        return self._nodes[number]

    def restart(self) -> None:
        """Stop all that run in order, at the same time, then start all."""
        _each(Node.stop, [node for node in self.nodes if node.running])
        self.start()

    def start(self) -> None:
        """Start all that do not run."""
        _each(Node.start, [node for node in self.nodes if not node.running])

    def kill(self) -> None:
        """End all that run by SIGKILL."""
        _each(Node.kill, [node for node in self.nodes if node.running])

    def close(self) -> None:
        """End it and remove its data. Idempotent."""
        _each(Node.close, self.nodes)

    def coordinator(self, group: str) -> int:
        """Number of the node that coordinates `group`, which need not exist yet."""

        def ask() -> int:
            described = self.admin.describe_consumer_groups([group], request_timeout=_FROZEN_S)
            return int(described[group].result().coordinator.id)

        return self._answer(ask)

    def leaders(self, topic: str) -> dict[int, int]:
        """The node that leads each partition, as far as the cluster knows; -1 where none does."""
        return {number: one.leader for number, one in self._partitions(topic).items()}

    def in_sync(self, topic: str) -> dict[int, tuple[int, ...]]:
        """The nodes whose replicas of each partition are in sync."""
        return {number: tuple(sorted(one.isrs)) for number, one in self._partitions(topic).items()}

    def move_leaders(self, *topics: str) -> None:
        """Let another replica lead each partition of `topics`; all replicas must be in sync."""
        turned = {
            TopicPartition(topic, number): one.replicas[1:] + one.replicas[:1]
            for topic in topics
            for number, one in self._partitions(topic).items()
        }
        self._reassign(turned)
        self.admin.elect_leaders(ElectionType.PREFERRED, list(turned)).result(_ANSWER_TIMEOUT_S)
        self.wait_until(
            lambda: all(self.leaders(one.topic)[one.partition] == replicas[0] for one, replicas in turned.items()),
            "the leaders moved",
        )

    def make_whole(self) -> None:
        """Let all nodes run, and wait until each partition has all its replicas in sync: then any node may go."""
        for node in self.nodes:
            if node.running:
                node.resume()
        self.start()
        self.wait_until(lambda: not self._behind(), "all replicas in sync")

    def wait_until(self, until: Callable[[], bool], what: str) -> None:
        """Ask again and again; fails with what is not as it should be in the cluster."""
        deadline_s = time.monotonic() + _ANSWER_TIMEOUT_S
        while not until():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"not within {_ANSWER_TIMEOUT_S:g} s: {what}; behind: {self._behind()}")
            self._pause.wait(ASK_AGAIN_S)

    def _behind(self) -> list[str]:
        return [
            f"{name}[{number}]: in sync {one.isrs} of {one.replicas}, led by {one.leader}"
            for name, topic in self._topics(None).items()
            for number, one in topic.partitions.items()
            if len(one.isrs) < len(one.replicas)
        ]

    def _partitions(self, topic: str) -> Mapping[int, PartitionMetadata]:
        return self._topics(topic)[topic].partitions

    def _topics(self, topic: str | None) -> Mapping[str, TopicMetadata]:
        return self._answer(lambda: self.admin.list_topics(topic, timeout=_FROZEN_S).topics)

    def _answer(self, ask: Callable[[], T]) -> T:
        """Ask until there is an answer: nodes that are starting, ending or frozen give none."""
        deadline_s = time.monotonic() + _ANSWER_TIMEOUT_S
        while True:
            try:
                return ask()
            except KafkaException:
                if time.monotonic() > deadline_s:
                    raise
            self._pause.wait(ASK_AGAIN_S)

    def _reassign(self, replicas: Mapping[TopicPartition, list[int]]) -> None:
        """By Kafka's own tool: the client has no such request."""
        moves = [{"topic": one.topic, "partition": one.partition, "replicas": nodes} for one, nodes in replicas.items()]
        with tempfile.NamedTemporaryFile("w", suffix=".json") as plan:
            json.dump({"version": 1, "partitions": moves}, plan)
            plan.flush()
            run_tool(
                "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
                *("--bootstrap-server", self.direct_servers, "--reassignment-json-file", plan.name, "--execute"),
            )


# Brokers that look at rights, and allow all that is not denied.
AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
    "early.start.listeners": "CONTROLLER",  # the controller must vote before it knows the rights
}


# The same, and allow what is said alone: to who comes without a name all, so that tests can ask.
STRICT_AUTHORIZER = {
    **AUTHORIZER,
    "allow.everyone.if.no.acl.found": "false",
    "super.users": "User:ANONYMOUS",
}


def account(name: str) -> dict[str, str]:
    """Options of a client that is `name` at `KafkaCluster.account_servers`; its password is its name."""
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": name,
        "sasl.password": name,
    }


def start_cluster(
    nodes: int = 3,
    *,
    ports: Mapping[int, int] | None = None,
    advertised: Mapping[int, int] | None = None,
    changes: Mapping[str, str] | None = None,
    accounts: Sequence[str] = (),
) -> KafkaCluster:
    """A cluster whose nodes all answer. Raises ServerUnavailable.

    `ports` says where a node listens for clients, else that is a free port. `advertised` says which port clients are
    told instead: that of a proxy, which needs the node's port before the node is there, so give both. `changes` are
    settings of all nodes. `accounts` are the names that clients may have, see `account`.
    """
    require_java()
    all_ports = _choose_ports(nodes, ports or {}, advertised or {})
    settings = {number: _write_settings(number, all_ports, accounts, changes or {}) for number in all_ports}
    cluster = KafkaCluster(all_ports, settings)
    cluster_id = new_cluster_id()
    try:
        _each(lambda one: format_storage(one, cluster_id), list(settings.values()))
        cluster.start()
    except BaseException:
        cluster.close()
        raise
    return cluster


def _choose_ports(nodes: int, ports: Mapping[int, int], advertised: Mapping[int, int]) -> dict[int, _Ports]:
    taken = {*ports.values(), *advertised.values()}
    free = [port for port in free_ports(4 * nodes + len(taken)) if port not in taken]
    chosen = {}
    for number in range(1, nodes + 1):
        clients = ports.get(number, free.pop())
        chosen[number] = _Ports(clients, advertised.get(number, clients), free.pop(), free.pop(), free.pop())
    return chosen


def _write_settings(
    number: int, ports: Mapping[int, _Ports], accounts: Sequence[str], changes: Mapping[str, str]
) -> Path:
    """Make the node's folder, with what differs from a node that is alone."""
    own = ports[number]
    replicas = str(min(3, len(ports)))
    in_sync = str(min(2, len(ports)))
    here = "127.0.0.1"
    own_changes = {
        "node.id": str(number),
        "controller.quorum.voters": ",".join(f"{other}@{here}:{one.controllers}" for other, one in ports.items()),
        "listeners": (
            f"PLAINTEXT://{here}:{own.clients},BROKERS://{here}:{own.brokers},CONTROLLER://{here}:{own.controllers}"
        ),
        "advertised.listeners": f"PLAINTEXT://{here}:{own.advertised},BROKERS://{here}:{own.brokers}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,BROKERS:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "BROKERS",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "broker.session.timeout.ms": str(_BROKER_SESSION_MS),
        "broker.heartbeat.interval.ms": str(_BROKER_HEARTBEAT_MS),
    }
    if accounts:
        for name in ("listeners", "advertised.listeners"):
            own_changes[name] += f",ACCOUNTS://{here}:{own.accounts}"
        own_changes["listener.security.protocol.map"] += ",ACCOUNTS:SASL_PLAINTEXT"
        own_changes["listener.name.accounts.sasl.enabled.mechanisms"] = "PLAIN"
        own_changes["listener.name.accounts.plain.sasl.jaas.config"] = _jaas(accounts)
    folder = Path(tempfile.mkdtemp(prefix="streamworker-kafka-"))
    return write_settings(folder, own.clients, own.controllers, {**own_changes, **changes})


def _jaas(accounts: Sequence[str]) -> str:
    names = "".join(f' user_{name}="{name}"' for name in accounts)
    return f"org.apache.kafka.common.security.plain.PlainLoginModule required{names};"


def _servers(ports: Iterable[int]) -> str:
    return ",".join(f"127.0.0.1:{port}" for port in ports)


def _each(act: Callable[[T], None], over: Sequence[T]) -> None:
    """Do it for all at the same time; raises the first error when all are through."""
    with ThreadPoolExecutor(max(len(over), 1)) as pool:
        list(pool.map(act, over))
