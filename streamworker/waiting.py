"""Who waits for a dependency that single calls need, and who goes next.

While the breaker is open nobody goes. Half open, one record at a time is handed over again, the one that waits
longest; when its call was the trial and failed it goes to the end, so that trials go round, and it is *charged* when
the trial of another one succeeds. Closed again, 1, 2, 4, … records go, doubled each second, so that a dependency that
has just come back is not met by all that has piled up. Records that were never called do not wait here: they find
out by their own call, and come here when it is refused.

Loop thread only.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from streamworker.resilience.breaker import BreakerState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.declaration import Declaration
    from streamworker.resilience.breaker import CircuitBreaker
    from streamworker.scheduling.lane import Held, History, Lane
    from streamworker.scheduling.scheduler import Scheduler

# A record that was let out for a trial and has not come back by then may be stuck behind something else.
_NEXT_TRIAL_S = 1.0
_STEP_S = 1.0  # of the slow start

_Place = tuple[int, int, "Scheduler", "Lane", "Held"]


class WaitingRoom:
    """Records that wait for one dependency, of all handlers."""

    def __init__(self, breaker: CircuitBreaker, clock: Clock) -> None:
        self.breaker = breaker
        self._monotonic_s = clock.monotonic_s
        self._places: list[_Place] = []  # a heap: by turn, then by number
        self._numbers = 0
        self._out: History | None = None  # let out for a trial and not back
        self._out_since_s = 0.0
        self._suspect: History | None = None  # whose trial failed last
        self._trials_seen = 0
        self._next_step_s: float | None = None  # while more and more go: when the next step begins
        self._steps = self._gone = 0  # since the breaker closed

    def enter(self, scheduler: Scheduler, lane: Lane, held: Held, *, trial_failed: bool) -> None:
        """`held` waits from now on; it keeps its turn, if it has one, unless its trial failed."""
        self._numbers += 1
        history = held.history
        if trial_failed or history.room is not self:
            history.room, history.turn = self, self._numbers
        if trial_failed:
            self._suspect, self._trials_seen = history, self.breaker.trials_succeeded
        heapq.heappush(self._places, (history.turn, self._numbers, scheduler, lane, held))

    def came_back(self, held: Held) -> None:
        """What was handed over is back, whatever became of it."""
        if self._out is held.history:
            self._out = None
        if self._suspect is held.history and self._trials_seen != self.breaker.trials_succeeded:
            self._suspect, self._trials_seen = None, self.breaker.trials_succeeded  # the trial was its own

    def let_out(self) -> None:
        """Let those go whose turn it is."""
        self._charge()
        if not self._places:
            self._next_step_s = None
            return
        now_s = self._monotonic_s()
        if self.breaker.state is not BreakerState.CLOSED:
            self._next_step_s = None
            # While somebody else's trial is out it would be refused, come back at once and go again, round and round.
            if self.breaker.admits and (self._out is None or now_s >= self._out_since_s + _NEXT_TRIAL_S):
                self._release(1, now_s)
            return
        if self._next_step_s is None:
            self._next_step_s, self._steps, self._gone = now_s, 0, 0
        while now_s >= self._next_step_s:
            self._steps += 1
            self._next_step_s += _STEP_S
        self._gone += self._release(int(2 ** min(self._steps, 32)) - 1 - self._gone, now_s)

    def let_all_out(self) -> None:
        """All go and find out anew: they may be able to do without now. Who is refused comes back to its turn."""
        self._release(len(self._places), self._monotonic_s())

    def next_due_s(self) -> float | None:
        """When somebody may go, as far as time decides."""
        if not self._places:
            return None
        return self.breaker.wakes_at_s if self._next_step_s is None else self._next_step_s

    def _charge(self) -> None:
        """If a trial has succeeded while the last one whose trial failed waits here, that one is to blame itself."""
        succeeded = self.breaker.trials_succeeded
        if succeeded == self._trials_seen:
            return
        self._trials_seen = succeeded
        if self._suspect is not None and self._suspect is not self._out:
            self._suspect.charges += 1
        self._suspect = None

    def _release(self, count: int, now_s: float) -> int:
        """Let up to `count` go, past those whose partition stands still or is given back; returns how many went."""
        gone = 0
        stay: list[_Place] = []
        while self._places and gone < count:
            place = heapq.heappop(self._places)
            _, _, scheduler, lane, held = place
            if lane.of.ownership.ended:
                continue
            if lane.of.blocked or lane.of.ownership.closing:
                stay.append(place)
                continue
            scheduler.release(lane, held, now_s)
            self._out, self._out_since_s = held.history, now_s
            gone += 1
        for place in stay:
            heapq.heappush(self._places, place)
        return gone


def rooms_of(
    declarations: Sequence[Declaration], breakers: Mapping[str, CircuitBreaker], clock: Clock
) -> Mapping[str, WaitingRoom]:
    """One for each dependency of single calls, by name."""
    names = {breaker.name for one in declarations for breaker in one.dependencies}
    return {name: WaitingRoom(breakers[name], clock) for name in sorted(names)}
