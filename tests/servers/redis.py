"""The Redis that tests run against: the one given, else one started from the Debian package `redis-server`.

Also a cluster and a set of Sentinels, which are always of this run.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from servers.kafka_jars import ServerUnavailable
from servers.ports import free_ports
from servers.program import Program, wait_until_it_answers

if TYPE_CHECKING:
    from collections.abc import Sequence

_ANSWER_TIMEOUT_S = 1.0
_SLOTS = 16384
MASTER = "cache"  # what the Sentinels call it


@dataclass(frozen=True, slots=True)
class Redis:
    """A server that answers. `program` is None if somebody else runs it, so that it is neither stopped nor ended."""

    url: str
    program: Program | None = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2].partition("/")[0])

    def client(self) -> redis.Redis:
        """A client of the test's own."""
        return redis.Redis.from_url(self.url, socket_timeout=_ANSWER_TIMEOUT_S, protocol=2)

    def close(self) -> None:
        """End it if it is ours. Idempotent."""
        if self.program is not None:
            self.program.close()


@dataclass(frozen=True, slots=True)
class Several:
    """Servers that belong together, and the URL for all of them."""

    url: str
    servers: Sequence[Redis]
    sentinels: Sequence[Redis] = ()

    def close(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.close()


def obtain_redis(given: str | None) -> Redis:
    """The Redis at the URL `given`, else one of this run; 10 ms and 12 MB. Raises ServerUnavailable."""
    if given:
        wait_until_it_answers(f"Redis at {given}", partial(_answers, given))
        return Redis(given)
    return start_redis()


def start_redis(*options: str, port: int | None = None) -> Redis:
    """One of this run, with options of the server's command line. Raises ServerUnavailable."""
    if shutil.which("redis-server") is None:
        raise ServerUnavailable("no redis-server on the PATH (Debian: redis-server)")
    (free,) = free_ports(1)
    url = f"redis://127.0.0.1:{port or free}/0"
    folder = Path(tempfile.mkdtemp(prefix="streamworker-redis-"))
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port or free), "--dir", str(folder)]
    # Written at once, because SIGKILL leaves no time for it later.
    command += ["--save", "", "--appendonly", "yes", "--appendfsync", "no", *options]
    return Redis(url, Program(f"Redis at {url}", command, folder, partial(_answers, url)))


def start_cluster(nodes: int = 3) -> Several:
    """A Redis Cluster without replicas, whose slots are all served. Raises ServerUnavailable."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
    pairs = _pairs(nodes)
    servers = [start_redis(*options, "--cluster-port", str(bus), port=port) for port, bus in pairs]
    share = _SLOTS // nodes + 1
    for number, server in enumerate(servers):
        with server.client() as client:
            slots = range(number * share, min((number + 1) * share, _SLOTS))
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", slots[0], slots[-1])
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", *pairs[0])
    cluster = Several("redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port, _ in pairs), servers)
    for server in servers:
        wait_until_it_answers(f"the cluster at {server.url}", partial(_serves_all_slots, server, nodes))
    return cluster


def start_sentinels(sentinels: int = 3) -> Several:
    """A master with a replica, and Sentinels that take a silent master for gone after 0.5 s."""
    master = start_redis("--repl-diskless-sync-delay", "0")
    replica = start_redis("--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0")
    wait_until_it_answers("the replica", partial(_follows, replica))
    watchers = [_start_sentinel(master.port) for _ in range(sentinels)]
    for one in watchers:
        wait_until_it_answers("the Sentinels", partial(_knows, one, sentinels - 1))
    ports = ",".join(f"127.0.0.1:{one.port}" for one in watchers)
    return Several(f"redis+sentinel://{ports}/{MASTER}/0", [master, replica], watchers)


def _pairs(nodes: int) -> Sequence[tuple[int, int]]:
    """A port for clients and one for the other nodes, of each node."""
    ports = iter(free_ports(2 * nodes))
    return list(zip(ports, ports, strict=True))


def _start_sentinel(master: int) -> Redis:
    (port,) = free_ports(1)
    folder = Path(tempfile.mkdtemp(prefix="streamworker-sentinel-"))
    settings = folder / "sentinel.conf"
    settings.write_text(
        f"bind 127.0.0.1\nport {port}\nsentinel monitor {MASTER} 127.0.0.1 {master} 2\n"
        f"sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 3000\n"
    )
    url = f"redis://127.0.0.1:{port}/0"
    command = ["redis-server", str(settings), "--sentinel"]
    return Redis(url, Program(f"Sentinel at {url}", command, folder, partial(_answers, url)))


def _answers(url: str) -> bool:
    with redis.Redis.from_url(url, socket_timeout=_ANSWER_TIMEOUT_S) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:  # it does not listen yet, or loads its data
            return False


def _serves_all_slots(server: Redis, nodes: int) -> bool:
    with server.client() as client:
        told = client.execute_command("CLUSTER", "INFO").split()
        return b"cluster_state:ok" in told and f"cluster_known_nodes:{nodes}".encode() in told


def _follows(replica: Redis) -> bool:
    with replica.client() as client:
        return client.info("replication").get("master_link_status") == "up"


def _knows(sentinel: Redis, others: int) -> bool:
    with sentinel.client() as client:
        (state,) = client.sentinel_masters().values()
        return state["num-other-sentinels"] == others and state["num-slaves"] == 1
