"""Keeps the worker processes of `run --processes` going, and ends them together.

Decided here: nothing; what follows from an end is in `children.py`. Done here: processes are started, told to stop,
and killed when they outlast it; one HTTP server shows them all. The main thread owns everything. Signal handlers and
a thread per process note what happened, and wake it by a byte in a pipe: in CPython 3.11 and 3.12 a signal that comes
while the main thread waits in a queue can make it wait for ever, and a lock is not for signal handlers.

A worker is told by a pipe, its *tether*: each byte is the number of a signal. Its other end closes with the supervisor,
however that ends, and then the worker stops in order. Signals would not do: one that comes before the worker has its
handlers would kill it, and where a service manager signals all processes the worker would count two.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from streamworker import children
from streamworker.children import Child, ChildState
from streamworker.errors import ConfigurationError
from streamworker.exit_code import ExitCode
from streamworker.observability.http import HttpServer
from streamworker.observability.unix_http import ask
from streamworker.observability.workers_site import WorkersSite

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from streamworker.clock import Clock
    from streamworker.config import Config

_SIGTERM = 15  # by POSIX
_MAX_PATH_BYTES = 100  # of a socket: macOS takes 103, Linux 107
_ANSWER_TIMEOUT_S = 2.0  # a scrape has 10 s by default, so one worker that hangs does not cost it
# Beyond what a worker may take: its watchdog, which looks four times a second, is to end it first, with a code of its
# own. Short enough for the whole to be gone within the 30 s that Kubernetes gives.
_BEYOND_ITS_TIME_S = 0.4
_WAKES = 4096  # bytes that are read at once
_LEAVE_S = 1.0  # what is told to leave at once does so within milliseconds

_log = logging.getLogger(__name__)


class Launch(Protocol):
    """Starts the process of a worker. Main thread; raises OSError."""

    def __call__(self, number: int, *, tether: int, socket: Path) -> subprocess.Popen[bytes]:
        """Worker `number`; it follows what comes over the descriptor `tether`, and serves its pages on `socket`."""


@dataclass(frozen=True, slots=True)
class _Exited:
    number: int
    code: int


@dataclass(frozen=True, slots=True)
class _Told:
    signal_number: int
    reason: str | None  # of the stop that it asks for, if it does


@dataclass(frozen=True, slots=True)
class _Process:
    handle: subprocess.Popen[bytes]
    tether: int

    def tell(self, signal_number: int) -> None:
        """Send the number of a signal; it may have ended already."""
        with suppress(BrokenPipeError):
            os.write(self.tether, bytes([signal_number]))


class Supervisor:
    """Runs `processes` workers; in a `bounded` run those that have reached their bound are not started again."""

    def __init__(
        self,
        config: Config,
        launch: Launch,
        *,
        processes: int,
        bounded: bool,
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self._config = config
        self._launch = launch
        self._bounded = bounded
        self._monotonic_s = clock.monotonic_s
        self._chance = chance
        now_s = self._monotonic_s()
        self._children = tuple(Child(number=number, since_s=now_s, next_start_s=now_s) for number in range(processes))
        self._processes: dict[int, _Process] = {}
        self._happened: deque[_Exited | _Told] = deque()
        self._wakes, self._waker = os.pipe()
        for end in (self._wakes, self._waker):
            os.set_blocking(end, False)
        self._sockets = Path()  # set before other threads begin
        self._asked = False
        self._stopping = False
        self._kill_at_s: float | None = None
        self._left_by: int | None = None
        self._site = WorkersSite(children=lambda: self._children, ask=self._ask, clock=clock)

    @property
    def waker(self) -> int:
        """The descriptor that wakes the main thread when something is written to it; open until the run is over."""
        return self._waker

    def stop(self, signal_number: int, reason: str) -> None:
        """Pass it on: the first stops in order, the second leaves at once. For signal handlers."""
        self._note(_Told(signal_number, reason))

    def reload(self, signal_number: int) -> None:
        """Pass it on: the workers read the configuration again. For signal handlers."""
        self._note(_Told(signal_number, None))

    def _note(self, what: _Exited | _Told) -> None:
        """Any thread, any signal handler."""
        self._happened.append(what)
        with suppress(OSError):  # the pipe is full, so the main thread is awake; or all is over
            os.write(self._waker, b"!")

    def run(self) -> int:
        """Work until all have ended; returns the exit code. Main thread.

        Raises ConfigurationError before anything is started, if the port or a place for sockets cannot be had.
        """
        try:
            with self._served():
                while any(child.state is not ChildState.ENDED for child in self._children):
                    self._start_those_due()
                    self._wait()
        finally:
            ends, self._waker = (self._wakes, self._waker), -1
            for end in ends:
                os.close(end)
        return children.exit_code(self._children) if self._left_by is None else 128 + self._left_by

    @contextmanager
    def _served(self) -> Iterator[None]:
        server = HttpServer(self._config.http, self._site) if self._config.http.enabled else None
        with TemporaryDirectory(prefix="streamworker-") as folder:  # open to nobody else
            self._sockets = _short(Path(folder), len(self._children))
            if server:
                _log.info("serving metrics, probes and status of all workers", extra={"port": server.start()})
            try:
                yield
            finally:
                if server:
                    server.stop()

    def _ask(self, number: int, target: str, accept: str) -> tuple[int, bytes]:
        return ask(self._socket(number), target, accept=accept, timeout_s=_ANSWER_TIMEOUT_S)

    def _socket(self, number: int) -> Path:
        return self._sockets / str(number)

    def _start_those_due(self) -> None:
        now_s = self._monotonic_s()
        for child in self._children:
            if child.due(now_s):
                self._start(child)

    def _start(self, child: Child) -> None:
        theirs, ours = os.pipe()
        try:
            handle = self._launch(child.number, tether=theirs, socket=self._socket(child.number))
        except OSError as error:
            os.close(ours)
            _log.error("worker cannot be started: %s", error, extra={"worker": child.number})
            self._exited(child, ExitCode.FATAL)
            return
        finally:
            os.close(theirs)
        self._processes[child.number] = _Process(handle, ours)
        self._put(child.started(handle.pid, self._monotonic_s()))
        _log.info("worker started", extra={"worker": child.number, "pid": handle.pid})
        threading.Thread(
            target=lambda: self._note(_Exited(child.number, handle.wait())),
            name=f"streamworker-child-{child.number}",
            daemon=True,
        ).start()

    def _wait(self) -> None:
        if not self._happened and select.select([self._wakes], [], [], self._patience_s())[0]:
            with suppress(BlockingIOError):
                os.read(self._wakes, _WAKES)
        if not self._happened:
            self._kill_those_overdue()
            return
        match self._happened.popleft():
            case _Exited(number, code):
                os.close(self._processes.pop(number).tether)
                self._socket(number).unlink(missing_ok=True)
                self._exited(self._children[number], code)
            case _Told(signal_number, None):
                self._tell(signal_number)
            case _Told(signal_number, str(reason)):
                self._asked_to_stop(signal_number, reason)

    def _patience_s(self) -> float | None:
        """Until something is to be done though nothing happens; None for ever."""
        times_s = [child.next_start_s for child in self._children if child.next_start_s is not None]
        times_s += [] if self._kill_at_s is None else [self._kill_at_s]
        return max(0.0, min(times_s) - self._monotonic_s()) if times_s else None

    def _exited(self, child: Child, code: int) -> None:
        now_s = self._monotonic_s()
        ended = child.exited(code, now_s, chance=self._chance(), bounded=self._bounded, stopping=self._stopping)
        self._put(ended)
        fields = {"worker": child.number, "exit_code": code}
        if ended.next_start_s is None:
            _log.info("worker ended", extra=fields)
        else:
            _log.warning("worker ended, started again", extra={**fields, "in_s": round(ended.next_start_s - now_s, 1)})
        if ended.hopeless and not self._stopping:
            self._stop(_SIGTERM, f"worker {child.number} ended with {code}")

    def _asked_to_stop(self, signal_number: int, reason: str) -> None:
        if self._asked:
            self._leave(signal_number, reason)
        elif not self._stopping:
            self._stop(signal_number, reason)
        self._asked = True

    def _stop(self, signal_number: int, reason: str) -> None:
        """Let all workers end in order."""
        _log.info("stopping all workers", extra={"reason": reason})
        now_s = self._monotonic_s()
        lifecycle = self._config.lifecycle
        self._stopping = True
        self._kill_at_s = now_s + lifecycle.drain_timeout_s + lifecycle.close_timeout_s + _BEYOND_ITS_TIME_S
        for child in self._children:
            if child.state is ChildState.WAITING:
                self._put(child.let_go(now_s))
        self._tell(signal_number)

    def _leave(self, signal_number: int, reason: str) -> None:
        """Let all workers leave at once, and do so ourselves."""
        _log.warning("leaving at once, all workers too", extra={"reason": reason})
        self._left_by = signal_number
        self._kill_at_s = self._monotonic_s() + _LEAVE_S
        self._tell(signal_number)

    def _tell(self, signal_number: int) -> None:
        for process in self._processes.values():
            process.tell(signal_number)

    def _kill_those_overdue(self) -> None:
        if self._kill_at_s is None or self._monotonic_s() < self._kill_at_s:
            return
        _log.error("these workers outlast the stop and are killed: %s", ", ".join(map(str, self._processes)))
        for process in self._processes.values():
            process.handle.kill()
        self._kill_at_s = None

    def _put(self, child: Child) -> None:
        """Publish the new state; the HTTP server's threads read the tuple by reference."""
        self._children = tuple(child if one.number == child.number else one for one in self._children)


def _short(folder: Path, processes: int) -> Path:
    """`folder`, if the paths of sockets in it are not longer than the system takes."""
    longest = os.fsencode(folder / str(processes))
    if len(longest) > _MAX_PATH_BYTES:
        raise ConfigurationError(
            f"--processes: {folder} is too long for sockets; expected a shorter TMPDIR, for instance /tmp"
        )
    return folder
