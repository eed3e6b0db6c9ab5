"""A breaker around single calls: what it counts, what it refuses, and whom an error is blamed on."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from streamworker import Breaker, CircuitOpen, ConfigurationError, Context, PoisonError
from streamworker.errors import DependencyUnavailable
from streamworker.resilience.breaker import BreakerState, CircuitBreaker
from streamworker.resilience.guard import Blame, Guard, blame
from streamworker.testing.virtual_time import VirtualTime


@dataclass
class Bench:
    """A guard and its breaker, which opens at the second failure in a row."""

    name: str = "geo"
    counts: type[BaseException] | None = None
    time: VirtualTime = field(default_factory=VirtualTime)

    def __post_init__(self) -> None:
        rules = Breaker(self.name, in_a_row=2, successes=1, jitter=0.0, counts=self.counts, slow_call_s=2.0)
        self.breaker = CircuitBreaker(rules, clock=self.time)
        self.guard = Guard(self.breaker, self.time)

    def fail(self, error: BaseException) -> BaseException:
        """Let a guarded call raise `error`; returns what came out."""
        with pytest.raises(type(error)) as raised, self.guard:
            raise error
        return raised.value

    def wait(self, seconds: float) -> None:
        self.time.wait(seconds, lambda: False)


def test_a_call_returns_what_the_function_returns() -> None:
    assert Bench().guard.call(int, "11", base=2) == 3


def test_failures_open_it_and_the_next_call_is_refused() -> None:
    """Edge case 77."""
    bench = Bench()
    bench.fail(ConnectionError())
    bench.fail(ConnectionError())
    bench.wait(2)

    with pytest.raises(CircuitOpen) as refused:
        bench.guard.call(pytest.fail, "was called")

    assert (refused.value.name, refused.value.retry_in_s) == ("geo", 3.0)
    assert str(refused.value) == "geo is away; it is tried again in 3.0 s"


def test_one_call_tries_whether_it_is_back() -> None:
    """Edge case 79."""
    bench = Bench()
    bench.breaker.trip("test")
    bench.wait(5)
    refused: list[str] = []

    def another() -> None:
        try:
            bench.guard.call(int)
        except CircuitOpen as error:
            refused.append(error.name)

    with bench.guard:
        thread = threading.Thread(target=another)
        thread.start()
        thread.join()

    assert refused == ["geo"]
    assert bench.breaker.state is BreakerState.CLOSED


def test_errors_of_the_record_do_not_count() -> None:
    """Edge case 80."""
    bench = Bench()

    for _ in range(20):
        bench.fail(PoisonError("no such street"))

    assert bench.breaker.state is BreakerState.CLOSED
    assert blame(PoisonError("no such street")) is None


def test_slow_calls_count() -> None:
    """Edge case 80."""
    bench = Bench()

    for _ in range(10):
        with bench.guard:
            bench.wait(2)

    assert bench.breaker.state is BreakerState.OPEN


def test_a_call_inside_a_call_is_one() -> None:
    """Else a trial would be refused to itself."""
    bench = Bench()
    bench.breaker.trip("test")
    bench.wait(5)

    with bench.guard, bench.guard:
        pass

    assert bench.breaker.state is BreakerState.CLOSED


def test_what_is_blamed_on_one_dependency_does_not_count_for_the_one_around_it() -> None:
    inner, outer = Bench("inner"), Bench("outer", counts=Exception)
    for _ in range(5):
        with pytest.raises((ConnectionError, CircuitOpen)) as raised, outer.guard, inner.guard:
            raise ConnectionError

    assert outer.breaker.state is BreakerState.CLOSED
    assert inner.breaker.state is BreakerState.OPEN
    assert blame(raised.value) == Blame("inner", refused=True)


def test_an_error_is_blamed_on_whom_it_came_from() -> None:
    bench = Bench()
    failed = bench.fail(ConnectionError())

    assert blame(failed) == Blame("geo")
    assert blame(_raised(RuntimeError(), cause=failed)) == Blame("geo")
    assert blame(_raised(RuntimeError(), context=failed)) == Blame("geo")
    assert blame(_raised(RuntimeError(), context=failed), amid=False) is None
    assert blame(CircuitOpen("geo", 1.0)) == Blame("geo", refused=True)


def test_an_error_that_hides_what_it_was_raised_amid_is_blamed_on_nobody() -> None:
    failed = Bench().fail(ConnectionError())
    error = _raised(RuntimeError(), context=failed)
    error.__suppress_context__ = True

    assert blame(error) is None
    assert blame(DependencyUnavailable("a registry")) is None


def test_the_trial_is_told_from_other_calls() -> None:
    bench = Bench()
    bench.breaker.trip("test")
    bench.wait(5)

    assert blame(bench.fail(ConnectionError())) == Blame("geo", trial=True)


def test_a_dependency_that_was_not_declared_is_refused_with_the_nearest() -> None:
    context = Context(app={}, group="g", handler="Orders", dependencies={"geo": Bench().guard})

    with pytest.raises(ConfigurationError, match=r"Orders.dependencies: no Breaker 'goe'; did you mean 'geo'\?"):
        context.dependency("goe")
    with pytest.raises(ConfigurationError, match="it declares none"):
        Context(app={}, group="g", handler="Orders").dependency("geo")


def _raised(
    error: BaseException, *, cause: BaseException | None = None, context: BaseException | None = None
) -> BaseException:
    if cause is not None:
        error.__cause__ = cause
    error.__context__ = context
    return error
