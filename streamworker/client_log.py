"""Where the clients log to: each kind of line once in a while, as a client that finds no broker repeats it for ever.

They call it inside a poll, on any of their threads; decides nothing else.
"""

from __future__ import annotations

import logging
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    Kind = tuple[object, ...]

_WINDOW_S = 30.0
# Kinds in one window; what comes on top shares one.
_MAX_KINDS = 200
_OTHERS: Kind = ("others",)
# What differs between lines of a kind: how long and how often, in parentheses at the end, and correlation numbers.
_PARTICULARS = re.compile(r"\(after [^)]*+\)|\bCorrId \d++|\b\d++ms\b")


@dataclass(slots=True)
class _Window:
    since_s: float
    held_back: int = 0


class ClientLogger(logging.LoggerAdapter[logging.Logger]):
    """Takes what a client logs. It calls it inside a poll, where an error of a log handler would cost records.

    Of one kind, which is the same words about the same broker, a line is said once in 30 s, and the next one tells how
    many were left out. Debug lines were asked for, and are all said.
    """

    def __init__(self, monotonic_s: Callable[[], float] = SystemClock.monotonic_s) -> None:
        super().__init__(logging.getLogger("librdkafka"))
        self._monotonic_s = monotonic_s
        self._windows: dict[Kind, _Window] = {}
        self._lock = threading.Lock()  # protects the windows from the client's threads

    def log(self, level: int, msg: object, *args: object, **kwargs: object) -> None:
        """Log; never raises."""
        with suppress(Exception):  # there is nobody left to tell
            held_back = 0 if level <= logging.DEBUG else self._held_back(msg, args)
            if held_back is None:
                return
            if held_back:
                msg, args = f"{msg} (and %d like it in %d s)", (*args, held_back, _WINDOW_S)
            super().log(level, msg, *args, **kwargs)  # type: ignore[arg-type]  # passed on as they are

    def _held_back(self, msg: object, args: tuple[object, ...]) -> int | None:
        """How many lines of the kind were left out since the last one; None if this one is to be left out, too."""
        kind: Kind = (msg, *(_PARTICULARS.sub("", str(one)) for one in args))
        now_s = self._monotonic_s()
        with self._lock:
            if kind not in self._windows and len(self._windows) >= _MAX_KINDS:
                self._forget(now_s)
                kind = kind if len(self._windows) < _MAX_KINDS else _OTHERS
            window = self._windows.get(kind)
            if window is not None and now_s - window.since_s < _WINDOW_S:
                window.held_back += 1
                return None
            self._windows[kind] = _Window(now_s)
            return 0 if window is None else window.held_back

    def _forget(self, now_s: float) -> None:
        """Drop the windows that are over."""
        self._windows = {kind: window for kind, window in self._windows.items() if now_s - window.since_s < _WINDOW_S}
