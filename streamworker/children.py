"""The worker processes of `run --processes`: which of them is started again and when, and how the whole ends.

Pure: values in, values out. Times are monotonic seconds, and chance is an argument. `supervisor.py` does what is
decided here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from streamworker.exit_code import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterable

# A process that ran for so long counts as well: the back-off begins anew when it ends, and its probes must answer.
SETTLED_S = 60.0
_LONGEST_BACKOFF_S = 30.0
_DOUBLINGS = 5  # of 1 s reach it
_JITTER = 0.2  # up or down, so that what ended together is not started together

# A new process would end in the same way, or take the identity back from whom it was given to.
_HOPELESS = frozenset({ExitCode.USAGE, ExitCode.FENCED})
# How a bounded run may end; the second, because what stood still would stand still again.
_BOUND_REACHED = frozenset({ExitCode.OK, ExitCode.PARTIAL})
# First what a new process would not help, then what the application or a limit ended, then what is merely repeated.
_WORST_FIRST = (
    ExitCode.USAGE,
    ExitCode.FENCED,
    ExitCode.FATAL,
    ExitCode.STALL,
    ExitCode.MEMORY,
    ExitCode.CLOSE_TIMED_OUT,
    ExitCode.PARTIAL,
    ExitCode.OK,
)


class ChildState(enum.Enum):
    """Where a worker process is in its life."""

    RUNNING = "running"  # was started and has not ended
    WAITING = "waiting"  # is started when its time comes: at once the first time, after a back-off later
    ENDED = "ended"  # is not started again


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One worker process and its successors.

    It is in its state `since_s`. `failures` is how many have ended in a row since one that lasted, and `exit_code` how
    the last one did, negative for the number of a signal.
    """

    number: int
    since_s: float
    state: ChildState = ChildState.WAITING
    next_start_s: float | None = None
    pid: int | None = None
    restarts: int = 0
    failures: int = 0
    exit_code: int | None = None

    def started(self, pid: int, now_s: float) -> Child:
        """With a process."""
        restarts = self.restarts if self.exit_code is None else self.restarts + 1
        return replace(self, state=ChildState.RUNNING, since_s=now_s, next_start_s=None, pid=pid, restarts=restarts)

    def exited(self, code: int, now_s: float, *, chance: float, bounded: bool, stopping: bool) -> Child:
        """Without its process, or without having had one; `chance` is from 0 to 1.

        A `bounded` run may have reached its bound; while `stopping` nothing is started again.
        """
        failures = 1 if self.settled(now_s) else self.failures + 1
        ended = replace(self, failures=failures, exit_code=code).let_go(now_s)
        if stopping or code in _HOPELESS or (bounded and code in _BOUND_REACHED):
            return ended
        return replace(ended, state=ChildState.WAITING, next_start_s=now_s + backoff_s(failures, chance))

    def let_go(self, now_s: float) -> Child:
        """Not to be started again."""
        return replace(self, state=ChildState.ENDED, since_s=now_s, next_start_s=None, pid=None)

    def settled(self, now_s: float) -> bool:
        """Whether it has run for long enough to count as well."""
        return self.state is ChildState.RUNNING and now_s - self.since_s >= SETTLED_S

    def due(self, now_s: float) -> bool:
        """Whether it is to be started."""
        return self.next_start_s is not None and now_s >= self.next_start_s

    @property
    def hopeless(self) -> bool:
        """Whether it ended in a way that ends the others as well."""
        return self.state is ChildState.ENDED and self.exit_code in _HOPELESS


def backoff_s(failures: int, chance: float) -> float:
    """Seconds before the next start after so many `failures` in a row, at least one: 1, 2, 4 and so on up to 30."""
    wait_s = min(2.0 ** min(failures - 1, _DOUBLINGS), _LONGEST_BACKOFF_S)
    return wait_s * (1 - _JITTER + 2 * _JITTER * chance)


def exit_code(children: Iterable[Child]) -> ExitCode:
    """How the whole ends: 0 if all ended with 0, else as the one that ended worst."""
    endings = {_ending(child.exit_code) for child in children}
    return next(code for code in _WORST_FIRST if code in endings)


def _ending(code: int | None) -> ExitCode:
    """As one of those that are compared. What a signal ended is repeated; what nobody knows is the application's."""
    if code is None:
        return ExitCode.OK
    if code < 0 or code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED):
        return ExitCode.PARTIAL
    return ExitCode(code) if code in _WORST_FIRST else ExitCode.FATAL
