"""What signals do to a running worker.

Signal handlers run on the main thread, which is the loop's, between any two steps of it; so they set a flag or leave,
and take no lock.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def stop_on_signals(stop: Callable[[str], None], reload: Callable[[], None] = lambda: None) -> None:
    """From now on the first SIGTERM or SIGINT calls `stop`, the second leaves the process; SIGHUP calls `reload`.

    `stop` gets the signal's name; both must only set a flag.
    """
    asked: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if asked:
            _leave(number)
        asked.append(number)
        stop(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGHUP, lambda _number, _frame: reload())


def _leave(number: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(RuntimeError, ValueError, OSError):  # RuntimeError: the signal came amid a write
            stream.flush()
    os._exit(128 + number)
