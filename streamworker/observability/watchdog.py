"""Ends a process that can no longer end itself.

The loop thread beats at every step. When the beat stays away, or a block under `deadline` does not
come to its end, the watchdog's thread writes all stacks to stderr and calls `die`. It uses neither
logging nor listeners, because the thread that hangs may hold their locks.
"""

from __future__ import annotations

import faulthandler
import os
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.exit_code import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamworker.clock import Clock

_STDERR = 2
_CHECK_EVERY_S = 0.25
# A gap between two checks that is longer than this means that the whole process was frozen (SIGSTOP, a
# paused machine): then the loop could not beat, and gets its full time from here on.
_FROZEN_S = 2.0


@dataclass(frozen=True, slots=True)
class _Deadline:
    name: str
    until_s: float
    seconds: float
    code: int


def report(reason: str) -> None:
    """Write `reason` and the stacks of all threads to the descriptor of stderr.

    Not to `sys.stderr`, whose buffer has a lock. What cannot be written (a full disk) is left out.
    """
    with suppress(OSError):
        os.write(_STDERR, f"streamworker watchdog: {reason}\n".encode())
    faulthandler.dump_traceback(_STDERR, all_threads=True)


class Watchdog:
    """Watches the loop's beat and one deadline at a time.

    `die` gets the exit code and is expected not to return (`os._exit`); `note` gets the reason before.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        stall_timeout_s: float,
        die: Callable[[int], None],
        note: Callable[[str], None] = report,
    ) -> None:
        self._monotonic_s = clock.monotonic_s
        self._stall_timeout_s = stall_timeout_s
        self._die = die
        self._note = note
        self._beat_s = self._checked_s = self._monotonic_s()
        self._deadline: _Deadline | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamworker-watchdog", daemon=True)

    def start(self) -> None:
        """Start the thread; the loop has its full time from here on."""
        self._beat_s = self._checked_s = self._monotonic_s()
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """End the thread. Idempotent."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def beat(self) -> None:
        """The loop is alive. Loop thread only; costs one look at the clock."""
        self._beat_s = self._monotonic_s()

    @contextmanager
    def deadline(self, name: str, seconds: float, code: int) -> Iterator[None]:
        """Give the block `seconds`, else the process ends with `code`; no beat is expected meanwhile.

        Loop thread only. An inner deadline takes the place of an outer one until it is over.
        """
        outer = self._deadline
        self._deadline = _Deadline(name, self._monotonic_s() + seconds, seconds, code)
        try:
            yield
        finally:
            self.beat()
            self._deadline = outer

    def check(self) -> bool:
        """Look once; false when the process was told to die. Watchdog's thread only."""
        now_s = self._monotonic_s()
        frozen, self._checked_s = now_s - self._checked_s > _FROZEN_S, now_s
        deadline = self._deadline
        if deadline is not None:
            return now_s <= deadline.until_s or self._end(
                f"{deadline.name} took longer than {deadline.seconds:g} s", deadline.code
            )
        if frozen:
            self._beat_s = now_s
        silent_s = now_s - self._beat_s
        return silent_s <= self._stall_timeout_s or self._end(
            f"the loop has not moved for {silent_s:.0f} s", ExitCode.STALL
        )

    def _end(self, reason: str, code: int) -> bool:
        try:
            self._note(f"{reason}; exit code {code}")
        finally:
            self._die(code)
        return False

    def _run(self) -> None:
        while not self._stopping.wait(_CHECK_EVERY_S):
            if not self.check():
                return
