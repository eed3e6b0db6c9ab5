"""What a breaker means for one handler: trials, who is charged, and how many partitions are fetched."""

from __future__ import annotations

import pytest

from streamworker.options import Breaker
from streamworker.resilience.breaker import BreakerState, CircuitBreaker
from streamworker.resilience.gate import Gate
from streamworker.scheduling.lane import History
from streamworker.testing.virtual_time import VirtualTime


class Bench:
    """A gate, its breaker, and the time that both live in."""

    def __init__(self, *, is_batch: bool = False) -> None:
        self.time = VirtualTime()
        self.began_s = self.time.monotonic_s()
        self.breaker = CircuitBreaker(Breaker("db", jitter=0.0, successes=1), clock=self.time)
        self.gate = Gate(self.breaker, clock=self.time, is_batch=is_batch)

    def wait(self, seconds: float) -> None:
        self.time.wait(seconds, lambda: False)

    def half_open(self) -> None:
        self.breaker.trip("test")
        self.wait(5)

    def call(self, error: BaseException | None = None, *, succeeded: int = 0) -> bool:
        """Whether something was handed over; it came back at once. True for a trial's permit, too."""
        permit = self.gate.begin()
        if permit is None:
            return False
        self.gate.handed_over("work", permit)
        assert self.gate.came_back("work", succeeded, error, 0.5) is permit
        return True


def test_what_a_call_raised_counts_if_it_is_the_dependencys() -> None:
    bench = Bench()
    for _ in range(5):
        assert bench.call(ValueError())
    assert not bench.gate.shut

    for _ in range(3):
        assert bench.call(ConnectionError())

    assert bench.gate.shut
    assert not bench.call(succeeded=1)
    assert bench.breaker.changes()[0].reason == "3 calls failed in a row"


def test_successes_and_their_time_are_told_to_the_breaker() -> None:
    time = VirtualTime()
    breaker = CircuitBreaker(Breaker("db", slow_call_s=0.1, min_calls=10), clock=time)
    gate = Gate(breaker, clock=time, is_batch=False)
    permit = gate.begin()
    assert permit is not None
    gate.handed_over("work", permit)

    gate.came_back("work", 10, None, 1.0)

    assert breaker.changes()[0].reason == "10 of 10 calls were slow"


@pytest.mark.parametrize(("is_batch", "records"), [(False, 1), (True, 10)])
def test_a_trial_is_small_and_all_else_is_left_to_the_scheduler(is_batch: bool, records: int) -> None:
    bench = Bench(is_batch=is_batch)
    permit = bench.gate.begin()
    assert permit is not None
    assert bench.gate.most(permit) is None

    bench.half_open()
    trial = bench.gate.begin()
    assert trial is not None
    assert bench.gate.most(trial) == records


def test_what_goes_on_in_the_place_of_another_comes_back_for_it() -> None:
    bench = Bench()
    permit = bench.gate.begin()
    assert permit is not None
    bench.gate.handed_over("slice", permit)

    bench.gate.goes_on_as("slice", "copy")

    assert bench.gate.came_back("copy", 1, None, 0.0) is permit


def test_a_failed_trial_goes_again_when_others_have_had_theirs() -> None:
    bench = Bench()
    usual = bench.gate.begin()
    assert usual is not None
    assert bench.gate.retry_at_s(usual, 2.0) == bench.began_s + 2

    bench.half_open()
    trial = bench.gate.begin()
    assert trial is not None
    bench.gate.handed_over("work", trial)
    bench.gate.came_back("work", 0, ConnectionError(), 0.0)

    assert bench.breaker.wakes_at_s == bench.began_s + 15
    assert bench.gate.retry_at_s(trial, 2.0) == bench.began_s + 16
    assert bench.gate.retry_at_s(trial, 30.0) == bench.began_s + 35
    assert bench.gate.retry_at_s(usual, 2.0) == bench.began_s + 7


def test_a_record_is_charged_when_the_trial_of_another_succeeds() -> None:
    gate, blamed, other = Bench().gate, History(), History()

    gate.trial_succeeded(other)
    gate.suspect(blamed)
    gate.trial_succeeded(blamed)
    gate.trial_succeeded(other)
    assert blamed.charges == 0

    gate.suspect(blamed)
    gate.trial_succeeded(None)
    gate.trial_succeeded(None)
    assert (blamed.charges, other.charges) == (1, 0)
    gate.suspect(blamed)
    gate.trial_succeeded(other)
    assert blamed.charges == 2


def test_something_is_due_when_the_breaker_wakes() -> None:
    bench = Bench()
    assert bench.gate.next_due_s(3.0) == 3.0
    assert bench.gate.next_due_s(None) is None

    bench.breaker.trip("test")
    assert bench.gate.next_due_s(3.0) == bench.gate.next_due_s(None) == bench.began_s + 5


def test_partitions_are_let_in_by_doubling_once_it_has_closed() -> None:
    bench = Bench()
    gate = bench.gate
    assert gate.at_rest
    assert gate.admitted(8, fresh=0) == 8

    bench.breaker.trip("test")
    assert (gate.admitted(8, fresh=0), gate.admitted(8, fresh=3), gate.at_rest) == (0, 0, False)
    bench.wait(5)
    assert bench.breaker.state is BreakerState.HALF_OPEN
    assert (gate.admitted(8, fresh=3), gate.admitted(8, fresh=0)) == (0, 8)
    assert bench.call(succeeded=1)
    assert not gate.at_rest

    let_in = []
    for _ in range(4):
        let_in.append((gate.admitted(9, fresh=0), gate.at_rest))
        bench.wait(1)
    assert let_in == [(1, False), (2, False), (4, False), (8, False)]
    assert (gate.admitted(9, fresh=0), gate.at_rest) == (9, True)
    assert gate.admitted(9, fresh=0) == 9
