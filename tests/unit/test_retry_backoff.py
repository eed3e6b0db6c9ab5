"""How long a failed record waits for its next call."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from streamworker.errors import RetryableError
from streamworker.options import Retry
from streamworker.resilience.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

CAP_S = 2.0


def delay_of(wait: Callable[..., float], attempt: int = 1, error: BaseException | None = None) -> float:
    return Backoff(Retry(wait=wait, cap_s=CAP_S)).delay_s(attempt, error or OSError())


@given(
    attempt=st.integers(1, 10_000),
    base_s=st.just(0.0) | st.floats(0.001, 100),
    more_s=st.floats(0, 10_000),
)
def test_a_delay_is_within_the_window_that_doubles_up_to_the_cap(attempt: int, base_s: float, more_s: float) -> None:
    retry = Retry(base_s=base_s, cap_s=base_s + more_s)

    delay_s = Backoff(retry).delay_s(attempt, OSError())

    window_s = base_s * 2.0 ** min(attempt - 1, 1_000)
    assert 0 <= delay_s <= min(retry.cap_s, window_s) * (1 + 1e-9)


def test_delays_are_spread_over_the_whole_window() -> None:
    backoff = Backoff(Retry(base_s=1, cap_s=1))

    delays = [backoff.delay_s(1, OSError()) for _ in range(500)]

    assert min(delays) < 0.1
    assert max(delays) > 0.9


def test_a_strategy_of_tenacity_takes_the_place_of_the_default() -> None:
    wait = tenacity.wait_incrementing(start=10, increment=5)

    assert delay_of(wait, attempt=3) == 20


def test_a_strategy_sees_the_attempt_and_the_error() -> None:
    def wait(state: tenacity.RetryCallState) -> float:
        assert state.outcome is not None
        assert state.outcome.exception() is error
        return state.attempt_number * 7.0

    error = OSError("down")

    assert delay_of(wait, attempt=2, error=error) == 14


@given(seconds=st.floats(0, 1e6))
def test_the_time_that_a_server_asked_for_goes_before_everything(seconds: float) -> None:
    error = RetryableError("429", retry_after_s=seconds)

    assert delay_of(tenacity.wait_fixed(5), error=error) == seconds


def test_the_time_that_a_server_asked_for_is_found_in_a_cause() -> None:
    error = RuntimeError("call failed")
    error.__cause__ = RetryableError("429", retry_after_s=33)

    assert delay_of(tenacity.wait_fixed(5), error=error) == 33


@pytest.mark.parametrize("nonsense", [-1, math.nan, math.inf, -math.inf, 10**400, "soon", None], ids=repr)
def test_what_is_no_delay_becomes_the_cap_and_the_log_says_so_once(
    nonsense: float, caplog: pytest.LogCaptureFixture
) -> None:
    backoff = Backoff(Retry(wait=lambda _: nonsense, cap_s=CAP_S))

    assert [backoff.delay_s(attempt, OSError()) for attempt in (1, 2)] == [CAP_S, CAP_S]
    (record,) = caplog.records
    assert record.message == (
        "Retry.wait or retry_after_s gave what cannot be waited"
        f" ({type(nonsense).__name__}), cap_s stands in; said once"
    )


def test_a_server_that_asks_for_nonsense_gets_the_cap() -> None:
    assert delay_of(tenacity.wait_fixed(5), error=RetryableError(retry_after_s=-3)) == CAP_S


def test_the_default_stands_in_for_a_strategy_that_raises_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def wait(state: tenacity.RetryCallState) -> float:
        raise ZeroDivisionError

    backoff = Backoff(Retry(wait=wait, base_s=1, cap_s=1))

    delays = [backoff.delay_s(attempt, OSError()) for attempt in (1, 2, 3)]

    assert all(0 <= delay <= 1 for delay in delays)
    (record,) = caplog.records
    assert record.message == f"Retry.wait {wait!r} failed, the default back-off stands in; said once"
    assert record.name == "streamworker.resilience.retry"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
