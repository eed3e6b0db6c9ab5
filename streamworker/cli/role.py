"""Which of several worker processes this one is: its supervisor says so in a variable of the environment.

Decided here: how a worker process is started, which is as its supervisor was, and what of its configuration differs.
Main thread, at start.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from streamworker.librdkafka import Masked

if TYPE_CHECKING:
    from streamworker.config import Config

# With one underscore it is no option of the configuration.
VARIABLE = "STREAMWORKER_ROLE"
_INSTANCE_ID = "group.instance.id"


@dataclass(frozen=True, slots=True)
class Role:
    """Worker `number`, which follows the descriptor `tether` and serves its pages on `socket`."""

    number: int
    tether: int
    socket: str

    def fitted(self, config: Config) -> Config:
        """`config` as it is for this worker: the port is the supervisor's, and an identity has one process."""
        client = {
            name: f"{value}-{self.number}" if name.endswith(_INSTANCE_ID) else value
            for name, value in config.kafka.librdkafka.items()
        }
        return replace(
            config,
            kafka=replace(config.kafka, librdkafka=Masked(client)),
            http=replace(config.http, host=f"unix:{self.socket}"),
        )

    def tidy(self) -> None:
        """Remove what a supervisor that is gone has left; its folder goes with the last worker. Any thread."""
        socket = Path(self.socket)
        with suppress(OSError):
            socket.unlink(missing_ok=True)
            socket.parent.rmdir()


def take_role() -> Role | None:
    """What a supervisor has said to this process, and not to those that it will start; None without a supervisor."""
    told = os.environ.pop(VARIABLE, None)
    return None if told is None else msgspec.json.decode(told, type=Role)


def launch(number: int, *, tether: int, socket: Path) -> subprocess.Popen[bytes]:
    """Start worker `number`: a fresh interpreter with the command line and the environment of this process.

    In a session of its own, so that Ctrl-C reaches the supervisor only. Raises OSError.
    """
    role = msgspec.json.encode(Role(number, tether, str(socket))).decode()
    return subprocess.Popen(  # noqa: S603 - the command line is our own
        [sys.executable, *sys.orig_argv[1:]],
        env={**os.environ, VARIABLE: role},
        pass_fds=[tether],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
