"""The breaker's state machine, by examples and against a plain model of it."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.errors import ConfigurationError, DependencyUnavailable, PoisonError
from streamworker.options import Breaker
from streamworker.resilience.breaker import BreakerState, CircuitBreaker, Permit
from streamworker.testing.virtual_time import VirtualTime

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
STEADY = Breaker("db", jitter=0.0)
TRIAL_S = 30.0


@dataclass
class Bench:
    """A breaker and the time that it lives in."""

    rules: Breaker = STEADY
    time: VirtualTime = field(default_factory=VirtualTime)

    def __post_init__(self) -> None:
        self.breaker = CircuitBreaker(self.rules, clock=self.time, draw=lambda: 0.5)

    def call(self, succeeded: int = 0, failed: int = 0, seconds: float = 0.0) -> bool:
        """Whether a call was let through; reports what became of it."""
        permit = self.breaker.acquire()
        if permit is not None:
            permit.end(succeeded, failed, seconds)
        return permit is not None

    def wait(self, seconds: float) -> None:
        self.time.wait(seconds, lambda: False)

    def open(self) -> None:
        self.breaker.trip("test")


def test_failures_in_a_row_open_it_and_nothing_is_let_through() -> None:
    """Edge case 77."""
    bench = Bench()

    for _ in range(3):
        assert bench.call(failed=1)

    assert bench.breaker.state is OPEN
    assert not bench.call(succeeded=1)
    assert [(one.before, one.after, one.reason) for one in bench.breaker.changes()] == [
        (CLOSED, OPEN, "3 calls failed in a row")
    ]


def test_failures_among_successes_open_it_by_their_share() -> None:
    """Counting failures in a row alone would never open it."""
    bench = Bench()

    calls = 0
    while bench.breaker.state is CLOSED:
        bench.call(succeeded=1)
        bench.call(failed=1)
        calls += 2

    assert calls == 10
    assert bench.breaker.changes()[0].reason == "5 of 10 calls failed"


def test_failures_that_are_older_than_the_window_do_not_count() -> None:
    bench = Bench(Breaker("db", in_a_row=None, min_calls=4))
    bench.call(succeeded=1, failed=1)
    bench.call(failed=1)

    bench.wait(31)
    bench.call(succeeded=3, failed=1)

    assert bench.breaker.state is CLOSED


def test_slow_calls_open_it_though_they_succeed() -> None:
    """Edge case 80."""
    bench = Bench(Breaker("db", slow_call_s=1.0))

    for _ in range(10):
        bench.call(succeeded=1, seconds=1.5)

    assert bench.breaker.state is OPEN
    assert bench.breaker.changes()[0].reason == "10 of 10 calls were slow"


def test_a_call_is_slow_by_its_own_share_of_the_time() -> None:
    """Five calls in four seconds are none; the share of slow ones decides, and a call that says nothing is neither."""
    bench = Bench(Breaker("db", slow_call_s=1.0, slow_rate=0.5, min_calls=10))
    bench.call(succeeded=4, failed=1, seconds=4.9)
    bench.call(seconds=100)
    bench.call(succeeded=4, seconds=4)
    assert bench.breaker.state is CLOSED

    bench.call(succeeded=1, seconds=1)

    assert [one.reason for one in bench.breaker.changes()] == ["5 of 10 calls were slow"]


def test_calls_leave_the_window_as_they_came() -> None:
    bench = Bench(Breaker("db", in_a_row=None, failure_rate=0.5, min_calls=20))
    bench.call(succeeded=6, failed=2)
    bench.call(succeeded=4)
    bench.wait(15)
    bench.call(succeeded=6, failed=2)
    bench.wait(16)

    bench.call(failed=14)

    assert [one.reason for one in bench.breaker.changes()] == ["16 of 22 calls failed"]


def test_each_change_is_told_once_with_its_reason_and_counted() -> None:
    bench = Bench(Breaker("db", jitter=0.0, successes=2, open_s=5.0))
    told: list[tuple[str, BreakerState, BreakerState, str]] = []

    def changes() -> list[tuple[str, BreakerState, BreakerState, str]]:
        found = [(one.breaker, one.before, one.after, one.reason) for one in bench.breaker.changes()]
        told.extend(found)
        return found

    assert (changes(), bench.breaker.closings, bench.breaker.trials_succeeded) == ([], 0, 0)
    assert bench.breaker.wakes_at_s is None
    bench.breaker.trip("told so")
    assert len(changes()) == 1
    bench.wait(5)
    bench.call(succeeded=1, failed=1)  # a trial of a batch
    bench.wait(10)
    assert bench.breaker.acquire() is not None
    bench.wait(TRIAL_S)
    changes()
    bench.wait(20)
    bench.call(succeeded=1)
    bench.call(succeeded=1)
    changes()

    assert told == [
        ("db", CLOSED, OPEN, "told so"),
        ("db", OPEN, HALF_OPEN, "its time was over"),
        ("db", HALF_OPEN, OPEN, "a trial failed"),
        ("db", OPEN, HALF_OPEN, "its time was over"),
        ("db", HALF_OPEN, OPEN, "a trial did not come back"),
        ("db", OPEN, HALF_OPEN, "its time was over"),
        ("db", HALF_OPEN, CLOSED, "2 trials succeeded"),
    ]
    assert changes() == []
    assert (bench.breaker.closings, bench.breaker.trials_succeeded) == (1, 2)


def test_each_life_begins_with_nothing_counted() -> None:
    """And what a trial of an earlier one reports late counts for nothing."""
    bench = Bench(Breaker("db", jitter=0.0, successes=1, open_s=5.0))
    late: list[Permit] = []
    for life in (1, 2):
        bench.call(succeeded=1, failed=1)
        bench.open()
        bench.wait(5)
        trial = bench.breaker.acquire()
        assert trial is not None
        late.append(trial)
        bench.wait(TRIAL_S)
        assert bench.breaker.state is OPEN
        bench.wait(10)
        trial.end(failed=1)
        assert bench.breaker.state is HALF_OPEN
        bench.call(succeeded=1)
        assert (bench.breaker.state, bench.breaker.closings) == (CLOSED, life)
        bench.breaker.changes()
    for trial in late:
        trial.end(failed=9)

    bench.call(succeeded=5)
    for _ in range(5):
        bench.call(succeeded=1, failed=2)

    assert [one.reason for one in bench.breaker.changes()] == ["10 of 20 calls failed"]


def test_a_slow_trial_opens_it_again_and_says_so() -> None:
    bench = Bench(Breaker("db", slow_call_s=1.0, jitter=0.0))
    bench.open()
    bench.wait(5)

    bench.call(succeeded=1, seconds=1)

    assert bench.breaker.changes()[-1].reason == "a trial was slow"
    assert bench.breaker.trials_succeeded == 0


def test_what_says_nothing_of_the_dependency_does_not_count() -> None:
    bench = Bench()

    for _ in range(50):
        assert bench.call()

    assert bench.breaker.state is CLOSED


def test_one_trial_at_a_time_and_three_good_ones_close_it() -> None:
    """Edge case 79."""
    bench = Bench()
    bench.open()
    bench.wait(5)

    first = bench.breaker.acquire()
    assert first is not None
    assert first.trial
    assert bench.breaker.acquire() is None
    first.end(succeeded=1)
    assert bench.breaker.state is HALF_OPEN
    assert bench.call(succeeded=1)
    assert bench.call(succeeded=1)

    assert bench.breaker.state is CLOSED


def test_a_trial_that_says_nothing_gives_its_place_back() -> None:
    bench = Bench()
    bench.open()
    bench.wait(5)

    for _ in range(10):
        assert bench.call()

    assert bench.breaker.state is HALF_OPEN


def test_failed_trials_make_it_wait_longer_up_to_a_limit() -> None:
    bench = Bench(Breaker("db", jitter=0.0, max_open_s=30.0))
    bench.open()

    waits: list[float] = []
    for _ in range(5):
        wakes_at_s = bench.breaker.wakes_at_s
        assert wakes_at_s is not None
        waits.append(wakes_at_s - bench.time.monotonic_s())
        bench.wait(waits[-1])
        assert bench.call(failed=1)

    assert waits == [5, 10, 20, 30, 30]


def test_the_waits_are_short_again_after_it_was_closed() -> None:
    bench = Bench(Breaker("db", jitter=0.0, successes=1))
    bench.open()
    bench.wait(5)
    bench.call(failed=1)
    bench.wait(10)
    bench.call(succeeded=1)

    bench.open()

    assert bench.breaker.wakes_at_s == bench.time.monotonic_s() + 5


@pytest.mark.parametrize(("drawn", "wait_s"), [(0.0, 4.0), (0.5, 5.0), (1.0, 6.0)])
def test_workers_do_not_try_at_once(drawn: float, wait_s: float) -> None:
    time = VirtualTime()
    breaker = CircuitBreaker(Breaker("db"), clock=time, draw=lambda: drawn)

    breaker.trip("test")

    assert breaker.wakes_at_s == pytest.approx(time.monotonic_s() + wait_s)


def test_a_trial_that_never_comes_back_opens_it_again() -> None:
    bench = Bench()
    bench.open()
    bench.wait(5)
    lost = bench.breaker.acquire()
    assert lost is not None

    bench.wait(TRIAL_S)

    assert bench.breaker.state is OPEN
    lost.end(succeeded=1)
    assert bench.breaker.state is OPEN


def test_results_of_calls_that_began_before_a_change_count_for_nothing() -> None:
    """Edge case 82."""
    bench = Bench(Breaker("db", jitter=0.0, successes=1))
    early = [bench.breaker.acquire() for _ in range(3)]
    bench.open()
    bench.wait(5)
    bench.call(succeeded=1)
    assert bench.breaker.state is CLOSED

    for permit in early:
        assert permit is not None
        permit.end(failed=1)

    assert bench.breaker.state is CLOSED


def test_the_preset_for_failures_in_a_row_waits_as_long_each_time() -> None:
    bench = Bench(Breaker.consecutive("db"))
    for _ in range(2):
        bench.call(succeeded=1, failed=3)
        assert bench.breaker.state is CLOSED
    bench.call(failed=1)
    assert bench.breaker.state is OPEN

    bench.wait(6)
    bench.call(failed=1)
    wakes_at_s = bench.breaker.wakes_at_s

    assert wakes_at_s is not None
    assert wakes_at_s - bench.time.monotonic_s() <= 6


class OperationalError(Exception):
    """As drivers name it (PEP 249)."""


class LostConnection(OperationalError):
    """One of its kinds."""


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (socket.gaierror(), True),
        (LostConnection(), True),
        (ValueError("bad"), False),
        (KeyError("x"), False),
        (PoisonError("bad"), False),
        (DependencyUnavailable("a registry"), False),
    ],
)
def test_connection_errors_and_timeouts_are_the_dependencys(error: Exception, counted: bool) -> None:
    wrapped = RuntimeError("could not store")
    wrapped.__cause__ = error

    assert Bench().breaker.counts(error) is counted
    assert Bench().breaker.counts(wrapped) is counted


def test_the_user_may_say_which_errors_are_the_dependencys() -> None:
    by_class = Bench(Breaker("db", counts=KeyError)).breaker
    by_predicate = Bench(Breaker("db", counts=lambda error: "busy" in str(error))).breaker
    broken = Bench(Breaker("db", counts=lambda error: bool(1 / 0))).breaker

    assert (by_class.counts(KeyError()), by_class.counts(ConnectionError())) == (True, False)
    assert (by_predicate.counts(ValueError("busy")), by_predicate.counts(ValueError("bad"))) == (True, False)
    assert not broken.counts(ConnectionError())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "Breaker.name"),
        ({"name": "my db"}, "Breaker.name"),
        ({"in_a_row": 0}, "Breaker.in_a_row: expected at least 1"),
        ({"failure_rate": 0.0}, "Breaker.failure_rate: expected a share above 0"),
        ({"slow_rate": 1.5}, "Breaker.slow_rate: expected a share"),
        ({"in_a_row": None, "failure_rate": None}, "expected one of in_a_row"),
        ({"open_s": 10.0, "max_open_s": 5.0}, "Breaker.max_open_s: expected at least 10"),
        ({"jitter": 0.9}, "Breaker.jitter: expected at most 0.5"),
        ({"successes": 0}, "Breaker.successes"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Breaker(**{"name": "db", **options})  # type: ignore[arg-type]


@dataclass
class Model:
    """The rules as plainly as they can be said, with all calls in a list."""

    rules: Breaker
    state: BreakerState = CLOSED
    calls: list[tuple[float, bool]] = field(default_factory=list)
    openings: int = 0
    until_s: float = 0.0
    trial: bool = False
    good: int = 0
    epoch: int = 0
    closings: int = 0
    good_ever: int = 0

    def turn(self, now_s: float) -> None:
        if self.state is OPEN and now_s >= self.until_s:
            self.state, self.trial, self.good = HALF_OPEN, False, 0
            self.epoch += 1
        elif self.state is HALF_OPEN and self.trial and now_s >= self.until_s:
            self.open(now_s)

    def open(self, now_s: float) -> None:
        self.until_s = now_s + min(self.rules.max_open_s, self.rules.open_s * 2**self.openings)
        self.openings += 1
        self.state, self.trial = OPEN, False
        self.epoch += 1
        self.calls.clear()

    def let_through(self, now_s: float) -> bool:
        self.turn(now_s)
        if self.state is CLOSED:
            return True
        if self.state is OPEN or self.trial:
            return False
        self.trial, self.until_s = True, now_s + TRIAL_S
        return True

    def report(self, now_s: float, *, failed: bool) -> None:
        if self.state is HALF_OPEN:
            self.trial = False
            self.good += not failed
            self.good_ever += not failed
            if failed:
                self.open(now_s)
            elif self.good >= self.rules.successes:
                self.state, self.openings = CLOSED, 0
                self.epoch += 1
                self.closings += 1
                self.calls.clear()
            return
        self.calls.append((now_s, failed))
        bucket_s = self.rules.window_s / 10
        seen = [bad for at_s, bad in self.calls if at_s // bucket_s > now_s // bucket_s - 10]
        row = self.rules.in_a_row
        rate = self.rules.failure_rate
        assert row is not None
        assert rate is not None
        in_a_row = len(self.calls) >= row and all(bad for _, bad in self.calls[-row:])
        if in_a_row or (len(seen) >= self.rules.min_calls and sum(seen) >= rate * len(seen)):
            self.open(now_s)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 2.9, 5.0, 31.0])),
        st.tuples(st.just("begin"), st.just(0.0)),
        st.tuples(st.sampled_from(["succeed", "fail"]), st.integers(0, 5)),
    ),
    max_size=100,
)


@given(STEPS, st.integers(1, 5), st.sampled_from([0.3, 0.5, 1.0]), st.integers(1, 12), st.integers(1, 3))
def test_it_is_in_the_state_of_its_model_whatever_happens(
    steps: list[tuple[str, float]], in_a_row: int, rate: float, min_calls: int, successes: int
) -> None:
    """M5. Calls overlap; what a call of an earlier state reports counts for nothing."""
    rules = Breaker("db", in_a_row=in_a_row, failure_rate=rate, min_calls=min_calls, successes=successes, jitter=0.0)
    bench, model = Bench(rules), Model(rules)
    out: list[tuple[Permit, int]] = []
    for what, number in steps:
        now_s = bench.time.monotonic_s()
        if what == "wait":
            bench.wait(number)
        elif what == "begin":
            permit = bench.breaker.acquire()
            assert (permit is not None) == model.let_through(now_s)
            if permit is not None:
                out.append((permit, model.epoch))
        elif out:
            permit, epoch = out.pop(int(number) % len(out))
            permit.end(succeeded=int(what == "succeed"), failed=int(what == "fail"))
            if epoch == model.epoch:
                model.report(now_s, failed=what == "fail")
        model.turn(bench.time.monotonic_s())
        assert bench.breaker.state is model.state
        assert bench.breaker.closings == model.closings
        assert bench.breaker.trials_succeeded == model.good_ever


def test_it_holds_no_lock_while_calls_run_and_loses_no_count() -> None:
    """Eight threads at once."""
    bench = Bench(Breaker("db", in_a_row=None, min_calls=8 * 1000, failure_rate=1.0))
    inside = threading.Barrier(8)

    def work() -> None:
        permit = bench.breaker.acquire()
        assert permit is not None
        inside.wait(10)
        permit.end(failed=1)
        for _ in range(999):
            bench.call(failed=1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert bench.breaker.changes()[0].reason == "8000 of 8000 calls failed"
