"""A server process that cannot outlive the test run, however that ends.

Between the run and the server stands a small process, this file run as a script. It holds the other
end of a pipe: when the run closes it or dies, also by SIGKILL, the server is ended and its folder
removed. If the server ends by itself, or by a test's hand, the folder stays so that it can be
started again. On Linux the server also dies with the process between.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LOG = "output.log"
_LOOK_AGAIN_S = 0.002  # nothing tells when a thread has stopped


class Tethered:
    """The run's end: a command that runs in `folder` until `close()`, with its output in `log`.

    `grace_s` is how long it may take to end by SIGTERM when the tether is cut; 0 is SIGKILL at once.
    """

    def __init__(self, command: Sequence[str], folder: Path, *, grace_s: float = 0.0) -> None:
        self.log = folder / _LOG
        self._grace_s = grace_s
        self._tether = subprocess.Popen(
            [sys.executable, __file__, str(folder), str(grace_s), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the test run
        )
        assert self._tether.stdout is not None
        answer = self._tether.stdout.readline()
        if not answer:
            self.close()
            raise OSError(f"could not run {command[0]}; see standard error")
        self.pid = int(answer)

    @property
    def running(self) -> bool:
        return self._tether.poll() is None

    def send(self, signal_number: int) -> None:
        """Signal the server itself, if it still runs."""
        if self.running:
            os.kill(self.pid, signal_number)

    def halt(self) -> None:
        """Keep the server from running until SIGCONT. On Linux no thread of it runs any more when this returns."""
        self.send(signal.SIGSTOP)
        pause = threading.Event()
        while self.running and not all(state == "T" for state in self._states_of_threads()):
            pause.wait(_LOOK_AGAIN_S)

    def _states_of_threads(self) -> Iterator[str]:
        for stat in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            with suppress(OSError):  # it has ended meanwhile
                yield stat.read_text().rpartition(")")[2].split()[0]

    def wait(self, timeout_s: float) -> None:
        """Wait until the server has ended; raises subprocess.TimeoutExpired."""
        self._tether.wait(timeout_s)

    def close(self) -> None:
        """End the server and remove its folder, unless it has ended before. Idempotent."""
        assert self._tether.stdin is not None
        assert self._tether.stdout is not None
        self._tether.stdin.close()
        self._tether.stdout.close()
        self._tether.wait(self._grace_s + 10)


def _hold(folder: Path, grace_s: float, command: Sequence[str]) -> int:
    libc = ctypes.CDLL(None)  # loaded before the fork

    def die_with_parent() -> None:
        if sys.platform == "linux":
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    with (folder / _LOG).open("ab") as log:
        # The signal comes when the thread that forked ends: here that is the main thread, so the process.
        server = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no other thread exists yet
        )
    print(server.pid, flush=True)
    cut = threading.Event()
    threading.Thread(target=_watch, args=(cut, server, grace_s), daemon=True).start()
    code = server.wait()
    if cut.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    return code


def _watch(cut: threading.Event, server: subprocess.Popen[bytes], grace_s: float) -> None:
    os.read(0, 1)  # not through sys.stdin, whose lock would be held when this process ends for another reason
    cut.set()
    server.terminate()
    try:
        server.wait(grace_s)
    except subprocess.TimeoutExpired:
        server.kill()


if __name__ == "__main__":
    sys.exit(abs(_hold(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])))
