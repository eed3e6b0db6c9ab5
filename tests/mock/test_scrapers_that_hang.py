"""Clients of the metrics port that dribble, flood or send without end: records flow as if they were not there."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, suppress
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Self

import pytest
from fleet.trial import Trial
from fleet.workers import page
from servers.ports import free_port
from sizes import SOAK

from streamworker.testing import MockKafka

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PARTITIONS = 4
RATE = 400  # records a second
# The mock brokers do not answer a waiting fetch when records come, so by default half a second of them come at once.
AT_ONCE = {"kafka.librdkafka.fetch.wait.max.ms": 20}
ATTACK_S = 4.0 * SOAK
CONNECTIONS = 300
ROUND_S = 0.02  # between two rounds of an attacker: they are many, and share a machine with the worker


class Attackers:
    """Threads that do the same again and again to a port, until the `with` block ends."""

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=one, daemon=True)
            for one in (partial(self._hold, 50, b"G"), partial(self._hold, CONNECTIONS, b""), self._never_end)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(10)

    def _hold(self, connections: int, dribble: bytes) -> None:
        """Keep so many connections open, made anew when they are closed, and send a byte in each round, or none."""
        with ExitStack() as held:
            open_ones = [held.enter_context(self._connect()) for _ in range(connections)]
            while not self._stopping.wait(ROUND_S):
                for number, one in enumerate(open_ones):
                    if _is_closed(one, dribble):
                        open_ones[number] = held.enter_context(self._connect())

    def _never_end(self) -> None:
        """Send a header that has no end."""
        while not self._stopping.wait(ROUND_S):
            with self._connect() as one, suppress(OSError):
                one.sendall(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 1_000_000)

    def _connect(self) -> socket.socket:
        one = socket.socket()
        one.settimeout(1)
        with suppress(OSError):
            one.connect(self._address)
        one.setblocking(False)  # noqa: FBT003 - the standard library's signature
        return one


def _is_closed(one: socket.socket, dribble: bytes) -> bool:
    try:
        if dribble:
            one.send(dribble)
        return one.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def trial(tmp_path: Path, port: int) -> Iterator[Trial]:
    with (
        MockKafka(topics={"in": PARTITIONS}) as kafka,
        Trial(
            kafka.bootstrap_servers,
            "in",
            "g",
            tmp_path,
            partitions=PARTITIONS,
            total=int(RATE * (ATTACK_S + 2)),
            rate=RATE,
            options={**AT_ONCE, "http.enabled": "true", "http.port": port},
            sends_at_once=False,
        ) as trial,
    ):
        yield trial


def test_scrapers_that_hang_neither_slow_the_worker_down_nor_keep_others_out(
    trial: Trial, port: int, figures: Callable[..., None]
) -> None:
    """F-77. Slow ones, many at once, and headers without end; probes are answered meanwhile."""
    trial.fleet.start()
    trial.wait_for_owners(1)
    trial.send()
    trial.wait_for_progress(0.1)

    with Attackers(port):
        began_s = time.monotonic()
        answers = []
        while time.monotonic() < began_s + ATTACK_S:
            asked_s = time.monotonic()
            answers.append((page(port, "health/live")[0], time.monotonic() - asked_s))
        ended_s = time.monotonic()
    verdict = trial.verdict()

    sent = sum(began_s <= one.at_s < ended_s for one in trial.workload.sent())
    calls_s = sorted(one.began_s for one in trial.fleet.effects() if began_s <= one.began_s < ended_s)
    share, gap_s = len(calls_s) / sent, max(after - before for before, after in pairwise(calls_s))
    answered = sum(code == 200 for code, _ in answers) / len(answers)
    assert verdict.broken() == []
    assert (share >= 0.95, gap_s <= 1, answered >= 0.95) == (True, True, True), (share, gap_s, answered)
    figures(
        "F-77",
        "scrapers that hang",
        throughput=f"{share:.0%}",
        longest_gap_s=round(gap_s, 2),
        probes_answered=f"{answered:.0%}",
        slowest_probe_s=round(max(seconds for _, seconds in answers), 2),
        **verdict.figures(),
    )
