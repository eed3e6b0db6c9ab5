"""How fast records are handed over, and how many of them again: retry budgets (M6), rates and rates per key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker import Adaptive, ConfigurationError, Handler, Ordering, Rate, Record, RetryBudget
from streamworker.declaration import declaration
from streamworker.resilience.limits import AdaptiveLimit, KeyPace, Pace, RetryAllowance

KEPT_S = 10.0
# How long until the next event, how many first calls have ended by then, and how many retries are due.
EVENTS = st.lists(
    st.tuples(st.floats(0, 15), st.integers(0, 200), st.integers(0, 200)),
    min_size=1,
    max_size=40,
)


@given(events=EVENTS, ratio=st.floats(0, 1), per_s=st.floats(0.1, 50))
def test_in_any_stretch_of_time_retries_are_a_share_of_the_first_calls_and_the_floor(
    events: list[tuple[float, int, int]], ratio: float, per_s: float
) -> None:
    allowance, now_s = RetryAllowance(RetryBudget(ratio=ratio, min_per_s=per_s), 0.0), 0.0
    firsts: list[tuple[float, int]] = []
    made: list[tuple[float, int]] = []

    for pause_s, first, due in events:
        now_s += pause_s
        allowance.first_calls(first, now_s)
        firsts.append((now_s, first))
        made.append((now_s, sum(allowance.wait_s(1, now_s) == 0 for _ in range(due))))

    for begin, (from_s, _) in enumerate(made):
        for end in range(begin, len(made)):
            until_s = made[end][0]
            retries = sum(count for _, count in made[begin : end + 1])
            # Tokens are kept for 10 s, counted by the second.
            counted = sum(count for at_s, count in firsts if from_s - KEPT_S - 1 <= at_s <= until_s)
            assert retries <= ratio * counted + per_s * (until_s - from_s + KEPT_S) + 1


@given(per_s=st.floats(0.1, 50), calls=st.integers(1, 500))
def test_a_retry_that_asks_again_when_it_was_told_to_is_made(per_s: float, calls: int) -> None:
    allowance, now_s = RetryAllowance(RetryBudget(ratio=0, min_per_s=per_s), 0.0), 0.0
    while not (wait_s := allowance.wait_s(calls, now_s)):
        pass

    assert allowance.wait_s(calls, now_s + wait_s) == 0
    assert allowance.postponed() == 1


def test_what_is_earned_within_a_second_is_kept_together_and_each_postponed_retry_is_counted() -> None:
    allowance = RetryAllowance(RetryBudget(ratio=1.0, min_per_s=1.0), 0.0)
    assert allowance.wait_s(10, 0.0) == 0  # what there is without first calls
    for _ in range(3):
        allowance.first_calls(2, 5.5)

    assert allowance.wait_s(8, 5.5) == 0
    assert [allowance.wait_s(9, 5.5) > 0 for _ in range(3)] == [True, True, True]
    assert (allowance.postponed(), allowance.postponed()) == (3, 0)


def test_the_default_budget_allows_a_fifth_of_the_first_calls_and_ten_a_second() -> None:
    allowance = RetryAllowance(RetryBudget(), 0.0)
    allowance.first_calls(1000, 0.0)

    made = 0
    while allowance.wait_s(1, 0.0) == 0:
        made += 1

    assert made == 200 + 10 * KEPT_S


def test_what_first_calls_have_earned_is_gone_after_ten_seconds() -> None:
    allowance = RetryAllowance(RetryBudget(ratio=1, min_per_s=1), 0.0)
    allowance.first_calls(1000, 0.0)

    made = 0
    while allowance.wait_s(1, 11.0) == 0:
        made += 1

    assert made == KEPT_S


@given(
    per_s=st.floats(0.1, 1000),
    burst=st.integers(1, 100),
    events=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50)), min_size=1, max_size=50),
)
def test_in_any_stretch_of_time_no_more_go_than_the_rate_and_the_burst(
    per_s: float, burst: int, events: list[tuple[float, int]]
) -> None:
    pace, now_s = Pace(Rate(per_s, burst=burst), 0.0), 0.0
    gone: list[tuple[float, int]] = []

    for pause_s, wanted in events:
        now_s += pause_s
        records = min(wanted, pace.most(now_s, needed=True))
        pace.spend(records)
        gone.append((now_s, records))

    for begin, (from_s, _) in enumerate(gone):
        for end in range(begin, len(gone)):
            assert sum(count for _, count in gone[begin : end + 1]) <= burst + per_s * (gone[end][0] - from_s) + 0.01


def test_who_is_refused_is_told_when_to_come_again_and_the_time_is_counted() -> None:
    pace = Pace(Rate(2, burst=1), 0.0)
    pace.spend(pace.most(0.0, needed=True))

    refused, ready_at_s = pace.most(0.1, needed=True), pace.ready_at_s
    assert ready_at_s is not None
    then = pace.most(ready_at_s, needed=True)

    assert (refused, ready_at_s, then) == (0, pytest.approx(0.5), 1)
    pace.spend(then)
    for now_s in (0.6, 0.8, 1.0):
        pace.most(now_s, needed=True)
    assert pace.waited_s() == pytest.approx(0.4 + 0.4)
    assert pace.waited_s() == 0
    assert pace.ready_at_s is None


def test_a_handler_that_has_nothing_to_do_does_not_wait_for_its_rate() -> None:
    pace = Pace(Rate(1), 0.0)
    pace.spend(pace.most(0.0, needed=True))

    pace.most(0.1, needed=False)
    pace.most(0.9, needed=False)

    assert (pace.ready_at_s, pace.waited_s()) == (None, 0.0)


def test_what_goes_in_one_piece_makes_the_next_wait_for_all_of_it() -> None:
    pace = Pace(Rate(10, burst=10), 0.0)

    pace.spend(110)

    assert pace.most(9.9, needed=True) == 0
    assert pace.most(10.15, needed=True) == 1


@given(
    per_s=st.floats(0.1, 100),
    burst=st.integers(1, 20),
    pauses=st.lists(st.floats(0, 2), min_size=1, max_size=60),
)
def test_of_a_key_no_more_go_than_its_rate_and_burst_and_it_may_go_when_it_was_told(
    per_s: float, burst: int, pauses: list[float]
) -> None:
    pace, now_s = KeyPace(Rate(per_s, burst=burst, per_key=True)), 0.0
    gone: list[float] = []

    for pause_s in pauses:
        now_s += pause_s
        wait_s = pace.wait_s(b"k", now_s)
        if wait_s:
            assert pace.wait_s(b"k", now_s + wait_s) == 0
        else:
            pace.spend(b"k", now_s)
            gone.append(now_s)

    for begin in range(len(gone)):
        for end in range(begin, len(gone)):
            assert end - begin + 1 <= burst + per_s * (gone[end] - gone[begin]) + 0.01


def test_what_keys_have_waited_is_told_once() -> None:
    pace = KeyPace(Rate(per_s=1, per_key=True))
    pace.waits(2.0)
    pace.waits(0.5)

    assert (pace.waited_s(), pace.waited_s()) == (2.5, 0.0)


def test_one_call_more_after_as_many_successes_as_are_allowed_and_fewer_after_a_failure() -> None:
    limit = AdaptiveLimit(Adaptive(least=1, backoff=0.5), 10)
    assert limit.calls == 10
    limit.saturated = True

    limit.ended(3, ConnectionError())
    assert limit.calls == 5
    for _ in range(4):
        limit.ended(1, None)
    assert limit.calls == 5
    limit.ended(1, None)
    assert limit.calls == 6
    limit.ended(5, ValueError())
    limit.ended(1, None)
    assert limit.calls == 7
    limit.ended(6, None)
    limit.ended(0, TimeoutError())
    assert limit.calls == 3
    limit.ended(1, None)
    assert limit.calls == 3  # what succeeded before the failure is past
    for _ in range(10):
        limit.ended(0, TimeoutError())
    assert limit.calls == 1
    for _ in range(100):
        limit.ended(1, None)
    assert limit.calls == 10


def test_what_counts_as_a_failure_may_be_said() -> None:
    limit = AdaptiveLimit(Adaptive(counts=KeyError, backoff=0.5), 10)

    limit.ended(0, ConnectionError())
    assert limit.calls == 10
    limit.ended(0, KeyError())
    assert limit.calls == 5


def test_keys_do_not_wait_for_one_another() -> None:
    pace = KeyPace(Rate(1, per_key=True))
    pace.spend(b"a", 0.0)

    assert pace.wait_s(b"a", 0.0) == pytest.approx(1.0)
    assert pace.wait_s(b"b", 0.0) == 0


def test_a_million_keys_take_no_more_memory_than_those_that_are_remembered() -> None:
    pace = KeyPace(Rate(1, per_key=True, max_keys=1000))

    for number in range(1_000_000):
        pace.spend(str(number).encode(), number / 1000)

    assert len(pace) == 1000
    assert pace.wait_s(b"999999", 1000.0) > 0


class Limited(Handler[bytes]):
    topics = ("in",)

    def handle(self, record: Record[bytes]) -> None:
        raise NotImplementedError


def test_a_rate_per_key_needs_an_order_per_key() -> None:
    class PerKey(Limited):
        rate = Rate(1, per_key=True)

    class InKeyOrder(PerKey):
        ordering = Ordering.KEY

    with pytest.raises(ConfigurationError, match=r"PerKey.rate: per_key needs ordering = Ordering.KEY"):
        declaration(PerKey)
    assert declaration(InKeyOrder).rate == Rate(1, per_key=True)


@pytest.mark.parametrize("wrong", [{"per_s": 0}, {"per_s": 1, "burst": 0}, {"per_s": 1, "max_keys": 0}])
def test_a_rate_that_lets_nothing_through_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=r"^Rate\.\w+: expected"):
        Rate(**wrong)


@pytest.mark.parametrize("wrong", [{"ratio": -0.1}, {"min_per_s": 0}])
def test_a_budget_that_can_never_be_filled_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"^RetryBudget\.\w+: expected"):
        RetryBudget(**wrong)


def test_a_limit_of_another_type_is_refused() -> None:
    class Wrong(Limited):
        rate = 5  # type: ignore[assignment]  # on purpose

    with pytest.raises(ConfigurationError, match=r"Wrong.rate: expected Rate\(...\), got 5"):
        declaration(Wrong)
