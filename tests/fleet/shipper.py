"""The process of an operator in tests: sends letters of partition 0 again, chunk by chunk, as one operation.

`python -m fleet.shipper ERRAND`, which is JSON; the environment may name a crash point and a planted bug. It says that
it begins with a line, and what became of the letters with another one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self, cast

import msgspec
import planted.bugs
from fleet import crash_points
from fleet.entry import LEDGER, PLANTED
from fleet.in_process import config
from fleet.shipped import chunk_of

from streamworker.clock import SystemClock
from streamworker.record import TopicPartition
from streamworker.replay.dead_record import LetterId
from streamworker.replay.shipments import Shipments

if TYPE_CHECKING:
    from signal import Signals

_TESTS = Path(__file__).parents[1]
_TIMEOUT_S = 60.0
KEY = b"a key for the audit"


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator is told: to send `count` letters to `target`, `chunk` of them at once."""

    servers: str
    letters: str
    target: str
    audit: str
    op_id: str = "op"
    count: int = 6
    chunk: int = 3


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What became of them, by offset."""

    marked: list[int] = []
    dropped: dict[int, str] = {}
    failed: dict[int, str] = {}
    uncertain: list[int] = []
    exactly_once: bool = True


def operating(errand: Errand) -> Shipments:
    """What does it in this process."""
    return Shipments(
        config(errand.servers),
        clock=SystemClock(),
        wait=threading.Event().wait,
        audit_key=KEY,
        audit_topic=errand.audit,
    )


def ship(errand: Errand) -> Account:
    """Do it in this process."""
    account = Account()
    with closing(operating(errand)) as shipments:
        shipping = shipments.of(TopicPartition(errand.letters, 0))
        for first in range(0, errand.count, errand.chunk):
            letters = [LetterId(0, offset) for offset in range(first, min(first + errand.chunk, errand.count))]
            at_ms = SystemClock.wall_ms()
            done = shipping.ship(chunk_of(letters, errand.target, op_id=errand.op_id, at_ms=at_ms))
            account = Account(
                marked=[*account.marked, *(one.offset for one in done.marked)],
                dropped={**account.dropped, **{one.offset: state.value for one, state in done.dropped.items()}},
                failed={**account.failed, **{one.offset: why for one, why in done.failed.items()}},
                uncertain=[*account.uncertain, *(one.offset for one in done.uncertain)],
                exactly_once=done.exactly_once,
            )
    return account


class Shipper:
    """Such a process, until it ends."""

    def __init__(self, errand: Errand, folder: Path, *, crash_point: str = "", bug: str = "") -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(_TESTS.parent), str(_TESTS)]),
            LEDGER: str(folder / "ledger"),
            crash_points.VARIABLE: crash_point,
            PLANTED: bug,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fleet.shipper", msgspec.json.encode(errand).decode()],
            cwd=_TESTS,
            env=environment,
            stdout=subprocess.PIPE,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(_TIMEOUT_S)
        self._output.close()

    def begun(self) -> None:
        """Wait until it begins."""
        assert self._output.readline() == b"begun\n"

    def send(self, signal: Signals) -> None:
        """Signal it."""
        self._process.send_signal(signal)

    def stopped(self) -> None:
        """Wait until it is stopped."""
        found = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert found is not None
        assert found.si_code == os.CLD_STOPPED

    def ended(self) -> int:
        """Wait until it has ended; the exit code."""
        return self._process.wait(_TIMEOUT_S)

    def account(self) -> Account:
        """What it says that became of the letters; waits for it."""
        lines = self._output.read().splitlines()
        assert self.ended() == 0, lines
        return msgspec.json.decode(lines[-1], type=Account)

    @property
    def _output(self) -> IO[bytes]:
        return cast("IO[bytes]", self._process.stdout)


if __name__ == "__main__":
    if bug := os.environ[PLANTED]:
        planted.bugs.plant(bug)
    if point := os.environ[crash_points.VARIABLE]:
        crash_points.install(point)
    print("begun", flush=True)
    print(msgspec.json.encode(ship(msgspec.json.decode(sys.argv[1], type=Errand))).decode())
