"""In which state a group is with a partition, judged from what it has committed lately. Pure; any thread.

What is asked, in this order; the first that holds decides:

1. The lag is at most the lag that is allowed: OK.
2. Less was seen than is needed to judge: unknown.
3. Nothing was committed for longer than the window of commits spans, and the last commit had not reached an end that
   the log had lately: STOP.
4. A commit is below an earlier one, and none has come up to that again: REWIND.
5. The lag was within what is allowed at some commit: OK.
6. All commits have the same offset: STALL.
7. No commit has a smaller lag than the one before it: WARN.
8. Otherwise OK: it lags, and it catches up.

These are the rules of Burrow's evaluator (https://github.com/linkedin/Burrow/wiki/Consumer-Lag-Evaluation-Rules) in the
order of its later versions, but for the second: there, what is not known to be bad is OK.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class State(enum.Enum):
    """How a group is with a partition, from good to bad."""

    OK = "ok"  # it keeps up, or catches up
    WARN = "warn"  # it goes on, and the lag does not shrink
    STALL = "stall"  # somebody has it, and commits nothing new
    STOP = "stop"  # nobody commits any more
    REWIND = "rewind"  # it went back

    @property
    def is_error(self) -> bool:
        """Whether somebody has to look."""
        return self in _ERRORS


_ERRORS = frozenset({State.STALL, State.STOP, State.REWIND})
_ORDER = tuple(State)


@dataclass(frozen=True, slots=True)
class Commit:
    """What a group had committed at a time, and its lag then; None: it was not known."""

    offset: int
    at_s: float  # monotonic
    lag: int | None


@dataclass(frozen=True, slots=True)
class Window:
    """What was seen of a partition lately, the oldest first. `complete` is the share of the looks that are wanted."""

    commits: Sequence[Commit]
    ends: Sequence[int]  # of the log
    complete: float = 1.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What is taken for good, and how much must have been seen before anything is judged."""

    allowed_lag: int = 0
    minimum_complete: float = 0.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """The state and, in words, why. None: too little was seen."""

    state: State | None
    reason: str


def judge(window: Window, lag: int, now_s: float, rules: Rules) -> Judgement:
    """The state of a partition whose lag is `lag` now."""
    if lag <= rules.allowed_lag:
        return Judgement(State.OK, "caught up" if lag <= 0 else f"{lag} behind, which is allowed")
    if not window.commits or window.complete < rules.minimum_complete:
        return Judgement(None, "too little was seen of it to judge")
    return _without_commits(window, now_s) or _going_back(window) or _standing(window, lag, now_s, rules)


def _without_commits(window: Window, now_s: float) -> Judgement | None:
    first, last = window.commits[0], window.commits[-1]
    silent_s = now_s - last.at_s
    if silent_s <= last.at_s - first.at_s or any(last.offset >= end for end in window.ends):
        return None
    return Judgement(State.STOP, f"nothing was committed for {silent_s:.0f} s")


def _going_back(window: Window) -> Judgement | None:
    last, highest = window.commits[-1], max(one.offset for one in window.commits)
    if last.offset == highest:
        return None
    return Judgement(State.REWIND, f"it went back from offset {highest} and is at {last.offset}")


def _standing(window: Window, lag: int, now_s: float, rules: Rules) -> Judgement:
    """What is left to ask of a group that goes forward, or stands."""
    commits = window.commits
    lags = [one.lag for one in commits if one.lag is not None]
    span_s = now_s - commits[0].at_s
    if any(one <= rules.allowed_lag for one in lags):
        return Judgement(State.OK, f"{lag} behind, and was caught up a short while ago")
    if all(one.offset == commits[0].offset for one in commits):
        return Judgement(State.STALL, f"at offset {commits[0].offset} for {span_s:.0f} s")
    if all(later >= earlier for earlier, later in pairwise(lags)):
        return Judgement(State.WARN, f"goes on, and its lag has not shrunk for {span_s:.0f} s")
    return Judgement(State.OK, "catches up")


def worst(states: Iterable[State | None]) -> State | None:
    """Of all partitions of a group: the worst there is; None if none is bad and one is unknown."""
    found = set(states)
    bad = [state for state in reversed(_ORDER) if state in found and state is not State.OK]
    if bad:
        return bad[0]
    return None if None in found else State.OK
