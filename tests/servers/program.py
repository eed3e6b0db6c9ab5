"""A server program of the test run: started, stopped hard, halted and started again on the same port and data.

It listens on the loopback interface, keeps everything in a temporary folder, and cannot outlive the run.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from typing import TYPE_CHECKING

from servers.kafka_jars import ServerUnavailable
from servers.tethered import Tethered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_START_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 30.0
_ASK_AGAIN_S = 0.02  # nothing tells when it listens


class Program:
    """`command`, run in the foreground in `folder`; it answers when this is made. Raises ServerUnavailable."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        answers: Callable[[], bool],
        *,
        start_timeout_s: float = _START_TIMEOUT_S,
    ) -> None:
        self._name = name
        self._command = command
        self._folder = folder
        self._answers = answers
        self._start_timeout_s = start_timeout_s
        self._process = self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self, signal_number: int = signal.SIGKILL) -> None:
        """It is gone when this returns, until `restart()`."""
        self._process.send(signal_number)
        self._process.wait(_END_TIMEOUT_S)

    def halt(self) -> None:
        """Keep it from running: its port takes connections, and nothing is answered until `resume()`."""
        self._process.halt()

    def resume(self) -> None:
        """Let it run again."""
        self._process.send(signal.SIGCONT)

    def restart(self) -> None:
        """Start it again after `end()` and wait until it answers; its data are kept."""
        self._process.close()
        self._process = self._start()

    def close(self) -> None:
        """End it and remove its data. Idempotent."""
        self._process.close()
        shutil.rmtree(self._folder, ignore_errors=True)  # still there if it was ended before

    def _start(self) -> Tethered:
        process = Tethered(self._command, self._folder)
        try:
            wait_until_it_answers(
                self._name, self._answers, alive=lambda: process.running, timeout_s=self._start_timeout_s
            )
        except ServerUnavailable as error:
            log = process.log.read_text(errors="replace")[-2000:]
            process.close()
            raise ServerUnavailable(f"{error}; the end of its output:\n{log}") from error
        return process


def wait_until_it_answers(
    name: str,
    answers: Callable[[], bool],
    *,
    alive: Callable[[], bool] = lambda: True,
    timeout_s: float = _START_TIMEOUT_S,
) -> None:
    """Ask again and again. Raises ServerUnavailable when that takes too long or it is not alive any more."""
    pause = threading.Event()
    deadline_s = time.monotonic() + timeout_s
    while alive() and time.monotonic() < deadline_s:
        if answers():
            return
        pause.wait(_ASK_AGAIN_S)
    raise ServerUnavailable(f"{name}: " + (f"no answer within {timeout_s} s" if alive() else "it ended by itself"))
