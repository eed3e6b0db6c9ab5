"""Ports of the loopback interface for whatever a test starts."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
from typing import TYPE_CHECKING

from servers.kafka_jars import ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

# Below the range that the kernel takes ports for outgoing connections from: a client that looks for a
# killed broker would otherwise get its port sooner or later, and the broker could not come back.
_PORTS = range(20_000, 32_000)
# A server listens seconds after its port was found free: processes that run tests side by side have ports of their own,
# and one is found again only after all others.
_PROCESSES = 16


def own_ports(number: int) -> Iterator[int]:
    """Those of the process of that number, without end, by chance."""
    own = list(_PORTS[number % _PROCESSES :: _PROCESSES])
    random.SystemRandom().shuffle(own)
    return itertools.cycle(own)


_OWN = own_ports(int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different. Raises ServerUnavailable."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for port in itertools.islice(_OWN, len(_PORTS) // _PROCESSES):
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                listener.bind(("127.0.0.1", port))
                ports.append(port)
            if len(ports) == count:
                return ports
    raise ServerUnavailable(f"no {count} free ports from {_PORTS.start} to {_PORTS.stop}")


def free_port() -> int:
    """A port that nobody listens on."""
    [port] = free_ports(1)
    return port
