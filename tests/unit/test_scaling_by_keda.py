"""What KEDA makes of a lag before the autoscaler sees it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.autoscaling.hpa import Rule
from streamworker.autoscaling.keda import Activation, Fallback, FallbackBehavior, KafkaTrigger
from streamworker.autoscaling.observation import Observation
from streamworker.errors import ConfigurationError

CAPPED = KafkaTrigger(partitions=64, lag_threshold=10, allow_idle_consumers=False)


@pytest.mark.parametrize(
    ("lag", "told"),
    [
        (639, 639),
        (640, 640),
        (649, 649),  # whole numbers are compared: 64 is not more than 64
        (650, 640),
        (10**6, 640),
        (None, None),
    ],
)
def test_no_more_lag_is_told_of_than_the_partitions_can_use(lag: float | None, told: float | None) -> None:
    assert CAPPED.metric(Observation(lag)) == told


def test_with_idle_consumers_all_of_it_is_told() -> None:
    trigger = KafkaTrigger(partitions=64, lag_threshold=10, allow_idle_consumers=True)

    assert trigger.metric(Observation(10**6)) == 10**6


@pytest.mark.parametrize(("with_lag", "told"), [(1, 10), (3, 30), (None, 640)])
def test_only_partitions_with_lag_count_where_that_is_asked_for(with_lag: int | None, told: float) -> None:
    trigger = KafkaTrigger(
        partitions=64, lag_threshold=10, allow_idle_consumers=False, limit_to_partitions_with_lag=True
    )

    assert trigger.metric(Observation(10**6, with_lag)) == told


@given(st.integers(0, 10**7), st.integers(1, 200), st.integers(1, 10**5))
def test_the_cap_never_adds_and_never_goes_below_what_all_partitions_can_use(
    lag: int, partitions: int, threshold: int
) -> None:
    trigger = KafkaTrigger(partitions=partitions, lag_threshold=threshold, allow_idle_consumers=False)

    told = trigger.metric(Observation(lag))

    assert told is not None
    assert min(lag, partitions * threshold) <= told <= lag


def test_idle_consumers_and_only_partitions_with_lag_exclude_each_other() -> None:
    with pytest.raises(ConfigurationError, match="KEDA takes one of them"):
        KafkaTrigger(partitions=1, allow_idle_consumers=True, limit_to_partitions_with_lag=True)


@pytest.mark.parametrize(("lag", "active"), [(12, False), (13, True), (None, None)])
def test_there_is_something_to_do_above_the_threshold_for_activation(lag: float | None, active: bool | None) -> None:
    trigger = KafkaTrigger(partitions=12, activation_lag_threshold=12)

    assert trigger.active(Observation(lag)) is active


@pytest.mark.parametrize(
    ("behavior", "replicas", "wanted"),
    [
        (FallbackBehavior.STATIC, 5, 2),
        (FallbackBehavior.CURRENT, 5, 5),
        (FallbackBehavior.CURRENT_IF_HIGHER, 5, 5),
        (FallbackBehavior.CURRENT_IF_HIGHER, 1, 2),
        (FallbackBehavior.CURRENT_IF_LOWER, 5, 2),
        (FallbackBehavior.CURRENT_IF_LOWER, 1, 1),
    ],
)
def test_how_many_there_are_while_nothing_can_be_read(behavior: FallbackBehavior, replicas: int, wanted: int) -> None:
    assert Fallback(failure_threshold=3, replicas=2, behavior=behavior).wanted(replicas) == wanted


class TestZero:
    def test_it_is_woken_when_there_is_something_to_do(self) -> None:
        assert Activation(min_replicas=0).poll(0, 0, active=True) == (1, Rule.WAKE)

    def test_it_sleeps_once_the_cool_down_period_is_over(self) -> None:
        activation = Activation(min_replicas=0, cooldown_s=300)
        activation.poll(0, 1, active=True)

        assert activation.poll(300, 1, active=False) == (1, None)
        assert activation.poll(315, 1, active=False) == (0, Rule.SLEEP)

    def test_it_sleeps_at_once_where_there_was_never_anything_to_do(self) -> None:
        assert Activation(min_replicas=0).poll(0, 3, active=False) == (0, Rule.SLEEP)

    @pytest.mark.parametrize("active", [False, None])
    def test_it_does_not_sleep_below_a_least_and_not_while_nothing_is_known(self, active: bool | None) -> None:
        assert Activation(min_replicas=1).poll(10_000, 1, active=False) == (1, None)
        assert Activation(min_replicas=0).poll(10_000, 1, active=None) == (1, None)
