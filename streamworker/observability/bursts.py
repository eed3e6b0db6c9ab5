"""Lets the first of many like messages pass and counts the others. Pure; one thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Subject = tuple[str, ...]

# Different subjects in one window; what comes on top shares a window of its own.
_MAX_SUBJECTS = 200
_OTHERS: Subject = ("others",)


@dataclass(slots=True)
class _Window:
    since_s: float
    seen: int = 0


class Bursts:
    """`first` messages per subject in `window_s` pass."""

    def __init__(self, *, first: int = 5, window_s: float = 30.0) -> None:
        self._first = first
        self._window_s = window_s
        self._windows: dict[Subject, _Window] = {}

    def passes(self, subject: Subject, now_s: float) -> bool:
        """Whether a message about `subject` may be said now. Ask `ended` first, for windows that are over."""
        if subject not in self._windows and len(self._windows) >= _MAX_SUBJECTS:
            subject = _OTHERS
        window = self._windows.setdefault(subject, _Window(now_s))
        window.seen += 1
        return window.seen <= self._first

    def ended(self, now_s: float) -> Mapping[Subject, int]:
        """Close the windows that are over; returns how many messages each has held back, if any."""
        over = [subject for subject, window in self._windows.items() if now_s - window.since_s >= self._window_s]
        held_back = {subject: self._windows.pop(subject).seen - self._first for subject in over}
        return {subject: number for subject, number in held_back.items() if number > 0}

    def end(self) -> Mapping[Subject, int]:
        """Close all windows, as `ended` does."""
        return self.ended(float("inf"))
