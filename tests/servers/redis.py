"""The Redis that tests run against: the one given, else one started from the Debian package `redis-server`."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import redis
from servers.kafka import free_ports
from servers.kafka_jars import ServerUnavailable
from servers.program import Program, wait_until_it_answers

_ANSWER_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Redis:
    """A server that answers. `program` is None if somebody else runs it, so that it is neither stopped nor ended."""

    url: str
    program: Program | None = None

    def close(self) -> None:
        """End it if it is ours. Idempotent."""
        if self.program is not None:
            self.program.close()


def obtain_redis(given: str | None) -> Redis:
    """The Redis at the URL `given`, else one of this run; 10 ms and 12 MB. Raises ServerUnavailable."""
    if given:
        wait_until_it_answers(f"Redis at {given}", partial(_answers, given))
        return Redis(given)
    if shutil.which("redis-server") is None:
        raise ServerUnavailable("no redis-server on the PATH (Debian: redis-server)")
    (port,) = free_ports(1)
    url = f"redis://127.0.0.1:{port}/0"
    folder = Path(tempfile.mkdtemp(prefix="streamworker-redis-"))
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    # Written at once, because SIGKILL leaves no time for it later.
    command += ["--save", "", "--appendonly", "yes", "--appendfsync", "no"]
    return Redis(url, Program(f"Redis at {url}", command, folder, partial(_answers, url)))


def _answers(url: str) -> bool:
    with redis.Redis.from_url(url, socket_timeout=_ANSWER_TIMEOUT_S) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:  # it does not listen yet, or loads its data
            return False
