"""What signals do to a running worker or supervisor.

Signal handlers run on the main thread, which is the loop's, between any two steps of it; so they set a flag or leave,
and take no lock. A worker with a supervisor also has a thread that waits for what that passes on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from streamworker.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    Stop = Callable[[str], None]
    Reload = Callable[[], None]

_WAKES = 4096  # bytes that are read at once


class _Sender:
    """Somebody whose signals this process follows: the first SIGTERM or SIGINT stops it, the second leaves it."""

    def __init__(self, stop: Stop, reload: Reload) -> None:
        self._stop = stop
        self._reload = reload
        self._has_asked = False

    def __call__(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reload()
            return
        if self._has_asked:
            _leave(number)
        self._has_asked = True
        self._stop(signal.Signals(number).name)


def end_on_sigterm_as_process_1() -> None:
    """From now on a SIGTERM ends process 1 of a container, as it ends any other process.

    The kernel gives process 1 no default: until a command has a handler of its own, SIGTERM would mean nothing to it.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda number, _frame: _leave(number))


def stop_on_signals(stop: Stop, reload: Reload = lambda: None) -> None:
    """From now on the first SIGTERM or SIGINT calls `stop`, the second leaves the process; SIGHUP calls `reload`.

    `stop` gets the signal's name; both must only set a flag.
    """
    _on_signals(_Sender(stop, reload))


class StopRequest:
    """What the main thread waits for that has nothing else to do: a signal that asks for the end.

    From `__enter__` to `__exit__` signals wake it; see `woken_by_signals`.
    """

    def __init__(self) -> None:
        self._asked = False
        self._ends = ExitStack()
        self._wakes = -1

    def __enter__(self) -> Self:
        """Follow signals. Main thread."""
        self._wakes, waker = os.pipe()
        for end in (self._wakes, waker):
            os.set_blocking(end, False)
            self._ends.callback(os.close, end)
        stop_on_signals(self._note)
        self._ends.enter_context(woken_by_signals(waker))
        return self

    def __exit__(self, *_raised: object) -> None:
        """Wait for none any more."""
        self._ends.close()

    def came(self, within_s: float | None = None) -> bool:
        """Wait for it, for ever or for so long; whether it has come."""
        monotonic_s = SystemClock().monotonic_s
        until_s = None if within_s is None else monotonic_s() + within_s
        while not self._asked:
            left_s = None if until_s is None else max(0.0, until_s - monotonic_s())
            if not select.select([self._wakes], [], [], left_s)[0]:
                break
            os.read(self._wakes, _WAKES)  # a signal that asks for something else wakes as well
        return self._asked

    def _note(self, _name: str) -> None:
        self._asked = True


@contextlib.contextmanager
def woken_by_signals(waker: int) -> Iterator[None]:
    """Meanwhile each signal writes to the descriptor `waker`, which must not block: the main thread waits for it there.

    A handler cannot: it runs only once the main thread has woken up, and a signal that another thread is given, or that
    comes just before the main thread begins to wait, does not wake it. Main thread.
    """
    own = os.dup(waker)  # who waits may close its own earlier
    before = signal.set_wakeup_fd(own, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(own)


def follow_supervisor(tether: int, stop: Stop, reload: Reload, tidy: Callable[[], None]) -> None:
    """From now on do the same for each number of a signal that comes over the descriptor `tether`, on a thread.

    When its other end closes, `tidy` is called, and then `stop`. What the supervisor has passed on and what came as a
    signal are not counted together, because a service manager may have signalled both.
    """
    sender = _Sender(stop, reload)

    def follow() -> None:
        while told := os.read(tether, 1):
            sender(told[0])
        tidy()
        stop("the supervisor is gone")

    os.set_inheritable(tether, False)  # noqa: FBT003 - the standard library's signature
    threading.Thread(target=follow, name="streamworker-tether", daemon=True).start()


def pass_on_signals(stop: Callable[[int, str], None], reload: Callable[[int], None]) -> None:
    """From now on each SIGTERM or SIGINT calls `stop` with its number and name, and SIGHUP `reload` with its number."""

    def passed_on(number: int) -> None:
        if number == signal.SIGHUP:
            reload(number)
        else:
            stop(number, signal.Signals(number).name)

    _on_signals(passed_on)


def _on_signals(act: Callable[[int], None]) -> None:
    def on_signal(number: int, _frame: FrameType | None) -> None:
        act(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)


def _leave(number: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(RuntimeError, ValueError, OSError):  # RuntimeError: the signal came amid a write
            stream.flush()
    os._exit(128 + number)
