"""How many dead letters a partition may write, in virtual time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamworker.config import DeadLetterConfig
from streamworker.dlq.budget import DeadLetterBudget

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 30)),
        st.tuples(st.just("handled"), st.integers(0, 500)),
        st.tuples(st.just("wait"), st.integers(0, 400)),
    ),
    max_size=60,
)


def budget_of(capacity: int, now_s: float = 0.0) -> DeadLetterBudget:
    return DeadLetterBudget(DeadLetterConfig(budget=capacity, records_per_token=10, seconds_per_token=10), now_s)


def takes(budget: DeadLetterBudget, tries: int, now_s: float) -> int:
    return sum(budget.take(now_s) for _ in range(tries))


def test_a_burst_takes_the_whole_budget_and_no_more() -> None:
    assert takes(budget_of(1_000), 5_000, now_s=0) == 1_000


def test_where_every_record_fails_one_dead_letter_per_ten_seconds_follows_the_burst() -> None:
    budget = budget_of(1_000)

    taken = sum(takes(budget, 5, now_s=second) for second in range(3_600))

    assert taken == 1_000 + 359


def test_ten_records_handled_bring_a_token_back() -> None:
    budget = budget_of(5)
    takes(budget, 5, now_s=0)

    budget.handled(9)
    before = budget.take(0)
    budget.handled(1)
    after = budget.take(0)

    assert (before, after) == (False, True)


def test_records_handled_do_not_save_up_more_than_the_budget() -> None:
    budget = budget_of(5)

    budget.handled(1_000_000)

    assert takes(budget, 100, now_s=0) == 5


def test_a_quiet_week_does_not_save_up_more_than_the_budget() -> None:
    budget = budget_of(5)
    takes(budget, 5, now_s=0)

    week_s = 7 * 24 * 3_600
    assert takes(budget, 100, now_s=week_s) == 5
    assert takes(budget, 100, now_s=week_s + 9) == 0


def test_the_next_token_is_there_when_it_is_due() -> None:
    budget = budget_of(1, now_s=100)
    budget.take(104)

    assert not budget.take(113.9)
    assert budget.take(114)


@given(capacity=st.integers(1, 50), start_s=st.integers(0, 10**6), steps=STEPS)
def test_no_more_is_granted_than_capacity_and_refills_allow(
    capacity: int, start_s: int, steps: list[tuple[str, int]]
) -> None:
    budget = budget_of(capacity, now_s=start_s)
    now_s, granted, handled = float(start_s), 0, 0

    for step, amount in steps:
        if step == "take":
            granted += takes(budget, amount, now_s)
        elif step == "handled":
            budget.handled(amount)
            handled += amount
        else:
            now_s += amount

    assert granted <= capacity + handled / 10 + (now_s - start_s) / 10
