"""What a breaker means for one handler: what may be handed over, and of how many partitions more is fetched.

While the breaker is open nothing is handed over and nothing is fetched. Half open, one small call at a time is made;
a record whose trial failed goes last, so that trials go round and one bad record does not keep the breaker
open: it is *charged* when the trial of another one succeeds. Closed again, 1, 2, 4, … partitions are fetched, doubled
each second, so that a dependency that has just come back is not met by all that has piled up.

Loop thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from streamworker.resilience.breaker import BreakerState, CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.declaration import Declaration
    from streamworker.resilience.breaker import Permit

_TRIAL_BATCH = 10  # records of a batch that is cut for a trial
# How long others go first after a record's trial has failed; if there are none it is tried again.
_LAST_IN_TURN_S = 1.0
_STEP_S = 1.0  # of the slow start


class Charged(Protocol):
    """What is known of a record or batch that waits: how often it failed where another one did not."""

    charges: int


class Gate:
    """Stands before one handler whose breaker this is."""

    def __init__(self, breaker: CircuitBreaker, *, clock: Clock, is_batch: bool) -> None:
        self.breaker = breaker
        self._monotonic_s = clock.monotonic_s
        self._trial_records = _TRIAL_BATCH if is_batch else 1
        self._permits: dict[object, Permit] = {}
        self._suspect: Charged | None = None
        self._was_shut = False
        self._closed_at_s: float | None = None  # since when partitions are let back in

    @property
    def shut(self) -> bool:
        """Whether the breaker is anything but closed."""
        return self.breaker.state is not BreakerState.CLOSED

    def begin(self) -> Permit | None:
        """Leave to hand something over; None without. End it, or say with `handed_over` what it was used for."""
        return self.breaker.acquire()

    def most(self, permit: Permit) -> int | None:
        """How many records may be handed over at once; None leaves it to the scheduler."""
        return self._trial_records if permit.trial else None

    def handed_over(self, work: object, permit: Permit) -> None:
        """`work` is with the handler."""
        self._permits[work] = permit

    def goes_on_as(self, work: object, other: object) -> None:
        """`other` comes back in the place of `work`."""
        self._permits[other] = self._permits.pop(work)

    def came_back(self, work: object, succeeded: int, error: BaseException | None, seconds: float) -> Permit:
        """`work` is back after so many calls in `seconds`, the last of which raised `error`, or not."""
        permit = self._permits.pop(work)
        permit.end(succeeded, int(error is not None and self.breaker.counts(error)), seconds)
        return permit

    def next_due_s(self, due_s: float | None) -> float | None:
        """When something can be handed over, of what the scheduler says is due."""
        wakes_at_s = self.breaker.wakes_at_s
        return due_s if wakes_at_s is None else wakes_at_s

    def retry_at_s(self, permit: Permit, delay_s: float) -> float:
        """When what failed with `permit` goes again: after its back-off, and after a trial when others had theirs."""
        at_s = self._monotonic_s() + delay_s
        opens_at_s = self.breaker.wakes_at_s
        return at_s if opens_at_s is None or not permit.trial else max(at_s, opens_at_s + _LAST_IN_TURN_S)

    def suspect(self, of_failed: Charged) -> None:
        """Its trial failed; if the next one's succeeds, the dependency is not to blame."""
        self._suspect = of_failed

    def trial_succeeded(self, of_tried: Charged | None) -> None:
        """A trial succeeded: of records that were held, or that go for the first time (None)."""
        if self._suspect is not None and self._suspect is not of_tried:
            self._suspect.charges += 1
        self._suspect = None

    def admitted(self, partitions: int, *, fresh: int) -> int:
        """Of how many of the handler's `partitions` records may be fetched now; `fresh` ones wait for their first call.

        Half open that is none as long as trials can be made with those: a record that failed says less than another.
        """
        state = self.breaker.state
        if state is not BreakerState.CLOSED:
            self._was_shut = True
            return partitions if state is BreakerState.HALF_OPEN and not fresh else 0
        now_s = self._monotonic_s()
        if self._was_shut:
            self._was_shut, self._closed_at_s = False, now_s
        if self._closed_at_s is None:
            return partitions
        steps = int((now_s - self._closed_at_s) / _STEP_S)
        if 2 ** min(steps, 32) >= partitions:
            self._closed_at_s = None
            return partitions
        return int(2**steps)

    @property
    def at_rest(self) -> bool:
        """Whether all partitions are fetched and nothing has changed."""
        return not (self._was_shut or self._closed_at_s is not None or self.shut)


def breakers_of(declarations: Sequence[Declaration], clock: Clock) -> Mapping[str, CircuitBreaker]:
    """The breakers by name; handlers that name the same dependency share one."""
    rules = {one.name: one for declared in declarations for one in declared.breakers}
    return {name: CircuitBreaker(one, clock=clock) for name, one in rules.items()}
