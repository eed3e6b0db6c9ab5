"""The rules of a HorizontalPodAutoscaler: each by itself, and what holds for all series."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamworker.autoscaling.hpa import (
    DEFAULT_DOWN,
    DEFAULT_UP,
    Autoscaler,
    Bounds,
    Decision,
    Kind,
    Policy,
    Reading,
    Rule,
    Scaling,
    Select,
    Unit,
    proposed,
)
from streamworker.errors import ConfigurationError

AT_ONCE = Scaling(policies=(Policy(Unit.PERCENT, 900, 60),))
FREE = Bounds(max_replicas=100, up=AT_ONCE, down=Scaling(policies=(Policy(Unit.PERCENT, 100, 60),)))


def lag(value: float | None, kind: Kind = Kind.AVERAGE_VALUE, target: float = 10_000) -> Reading:
    return Reading("lag", value, kind, target)


def run(bounds: Bounds, lags: list[float | None], replicas: int = 1, kind: Kind = Kind.AVERAGE_VALUE) -> list[Decision]:
    """A decision each 15 seconds; all replicas are ready at once."""
    autoscaler = Autoscaler(bounds)
    decisions = []
    for number, value in enumerate(lags):
        decisions.append(autoscaler.sync(15.0 * number, replicas, replicas, [lag(value, kind)]))
        replicas = decisions[-1].replicas
    return decisions


def replicas_of(decisions: list[Decision]) -> list[int]:
    return [one.replicas for one in decisions]


@pytest.mark.parametrize(
    ("kind", "value", "replicas", "ready", "asked"),
    [
        (Kind.AVERAGE_VALUE, 25_000, 1, 1, 3),
        (Kind.AVERAGE_VALUE, 25_000, 2, 2, 3),
        (Kind.AVERAGE_VALUE, 25_000, 2, 1, 3),  # how many are ready does not matter
        (Kind.AVERAGE_VALUE, 0, 4, 4, 0),
        (Kind.AVERAGE_VALUE, 11_000, 1, 1, 1),  # within the tolerance
        (Kind.AVERAGE_VALUE, 11_001, 1, 1, 2),
        (Kind.AVERAGE_VALUE, 11_500, 2, 2, 2),  # a half too little for two is not enough for one
        (Kind.AVERAGE_VALUE, 18_000, 2, 2, 2),
        (Kind.AVERAGE_VALUE, 630_000, 64, 64, 64),
        (Kind.AVERAGE_VALUE, 640_000, 63, 63, 63),  # one is missing, and stays so
        (Kind.AVERAGE_VALUE, 640_000, 58, 58, 64),
        (Kind.VALUE, 11_500, 2, 2, 3),
        (Kind.VALUE, 11_000, 2, 2, 2),
        (Kind.VALUE, 25_000, 2, 2, 5),
        (Kind.VALUE, 25_000, 4, 2, 5),  # those that are not ready do not count
        (Kind.VALUE, 5_000, 4, 4, 2),
        (Kind.VALUE, 9_000, 4, 4, 4),
        (Kind.VALUE, 8_999, 4, 4, 4),  # rounded up again
    ],
)
def test_what_a_metric_asks_for(kind: Kind, value: float, replicas: int, ready: int, asked: int) -> None:
    assert proposed(lag(value, kind), replicas, ready, FREE) == asked


def test_the_tolerance_may_be_another_for_each_direction() -> None:
    bounds = Bounds(
        max_replicas=9,
        up=Scaling(policies=AT_ONCE.policies, tolerance=0),
        down=Scaling(policies=AT_ONCE.policies, tolerance=0.5),
    )

    assert proposed(lag(20_001), 2, 2, bounds) == 3
    assert proposed(lag(10_000), 2, 2, bounds) == 2
    assert proposed(lag(9_999), 2, 2, bounds) == 1


def test_a_metric_that_asks_for_nothing_leaves_the_least_that_there_may_be() -> None:
    assert run(FREE, [0, 0], replicas=5)[0] == Decision(1, Rule.MIN, 0, "lag")


def test_there_are_never_more_than_the_most() -> None:
    assert run(Bounds(max_replicas=4, up=AT_ONCE), [90_000])[0] == Decision(4, Rule.MAX, 9, "lag")


@pytest.mark.parametrize(("replicas", "left"), [(9, 6), (1, 2)])
def test_what_is_out_of_bounds_is_brought_back_before_a_metric_is_looked_at(replicas: int, left: int) -> None:
    bounds = Bounds(min_replicas=2, max_replicas=6)

    decision = Autoscaler(bounds).sync(0, replicas, replicas, [lag(None)])

    assert decision.replicas == left


def test_at_zero_it_does_nothing() -> None:
    assert Autoscaler(FREE).sync(0, 0, 0, [lag(90_000)]) == Decision(0, Rule.ASLEEP)


class TestWindows:
    OUT = Bounds(max_replicas=20, up=Scaling(policies=AT_ONCE.policies, window_s=120))
    IN = Bounds(max_replicas=20, up=AT_ONCE, down=Scaling(policies=FREE.down.policies, window_s=300))

    def test_a_sustained_excess_scales_out_once_the_window_has_passed(self) -> None:
        decisions = run(self.OUT, [50_000.0] * 9)

        assert replicas_of(decisions) == [1] * 8 + [5]
        assert {one.rule for one in decisions[:8]} == {Rule.UP_WINDOW}

    def test_the_lowest_of_the_window_counts_for_scaling_out(self) -> None:
        lags = [50_000.0] * 4 + [30_000.0] + [50_000.0] * 8

        decisions = run(self.OUT, lags)

        assert decisions[8].replicas == 3
        assert decisions[12].replicas == 5

    def test_a_spike_that_is_shorter_changes_nothing(self) -> None:
        assert set(replicas_of(run(self.OUT, [0.0] * 4 + [900_000.0] * 7 + [0.0] * 20))) == {1}

    def test_the_highest_of_the_window_counts_for_scaling_in(self) -> None:
        decisions = run(self.IN, [80_000.0, 30_000.0, *[0.0] * 25])

        assert replicas_of(decisions)[:20] == [8] * 20
        assert decisions[20].replicas == 3
        assert decisions[21].replicas == 1
        assert {one.rule for one in decisions[2:20]} == {Rule.DOWN_WINDOW}


class TestPolicies:
    @pytest.mark.parametrize(
        ("policies", "select", "replicas", "first"),
        [
            ([Policy(Unit.PODS, 2, 60)], Select.MAX, 4, 6),
            ([Policy(Unit.PERCENT, 50, 60)], Select.MAX, 4, 6),
            ([Policy(Unit.PERCENT, 50, 60)], Select.MAX, 5, 8),  # rounded up
            ([Policy(Unit.PERCENT, 1, 60)], Select.MAX, 1, 2),  # or one would stay alone for ever
            ([Policy(Unit.PODS, 2, 60), Policy(Unit.PERCENT, 50, 60)], Select.MAX, 10, 15),
            ([Policy(Unit.PODS, 2, 60), Policy(Unit.PERCENT, 50, 60)], Select.MIN, 10, 12),
            ([Policy(Unit.PODS, 2, 60)], Select.DISABLED, 10, 10),
        ],
    )
    def test_how_many_may_be_added(self, policies: list[Policy], select: Select, replicas: int, first: int) -> None:
        bounds = Bounds(max_replicas=99, up=Scaling(policies=policies, select=select))

        decision = run(bounds, [990_000], replicas)[0]

        assert (decision.replicas, decision.rule) == (first, Rule.UP_POLICY)

    @pytest.mark.parametrize(
        ("policies", "select", "replicas", "first"),
        [
            ([Policy(Unit.PODS, 2, 60)], Select.MAX, 9, 7),
            ([Policy(Unit.PERCENT, 50, 60)], Select.MAX, 9, 4),  # rounded down
            ([Policy(Unit.PODS, 2, 60), Policy(Unit.PERCENT, 50, 60)], Select.MAX, 9, 4),
            ([Policy(Unit.PODS, 2, 60), Policy(Unit.PERCENT, 50, 60)], Select.MIN, 9, 7),
            ([Policy(Unit.PODS, 2, 60)], Select.DISABLED, 9, 9),
        ],
    )
    def test_how_many_may_be_taken_away(
        self, policies: list[Policy], select: Select, replicas: int, first: int
    ) -> None:
        bounds = Bounds(max_replicas=99, down=Scaling(policies=policies, select=select))

        decision = run(bounds, [0.0], replicas)[0]

        assert (decision.replicas, decision.rule) == (first, Rule.DOWN_POLICY)

    def test_what_was_added_within_the_period_counts(self) -> None:
        bounds = Bounds(max_replicas=99, up=Scaling(policies=[Policy(Unit.PODS, 2, 60)]))

        assert replicas_of(run(bounds, [990_000.0] * 9)) == [3, 3, 3, 3, 5, 5, 5, 5, 7]

    def test_what_was_taken_away_within_the_period_of_adding_may_be_added_again(self) -> None:
        both = [Policy(Unit.PODS, 1, 600)]
        bounds = Bounds(max_replicas=99, up=Scaling(policies=both), down=Scaling(policies=both))

        assert replicas_of(run(bounds, [0.0, 0.0, 990_000.0, 990_000.0], 5)) == [4, 4, 6, 6]

    def test_without_policies_of_ones_own_it_doubles_each_quarter_of_a_minute_and_by_four_at_least(self) -> None:
        bounds = Bounds(max_replicas=99, up=DEFAULT_UP, down=DEFAULT_DOWN)

        assert replicas_of(run(bounds, [990_000.0] * 4)) == [5, 10, 20, 40]


class TestSeveralMetrics:
    BUSY = Reading("busy", 0.9, Kind.VALUE, 0.3)

    def test_the_one_that_asks_for_the_most_counts(self) -> None:
        decision = Autoscaler(FREE).sync(0, 2, 2, [lag(25_000), self.BUSY])

        assert decision == Decision(6, Rule.TARGET, 6, "busy")

    @given(st.permutations([lag(25_000), BUSY, lag(70_000, Kind.VALUE)]))
    def test_their_order_does_not_matter(self, readings: list[Reading]) -> None:
        assert Autoscaler(FREE).sync(0, 2, 2, readings).replicas == 14

    def test_without_any_that_can_be_read_nothing_changes(self) -> None:
        assert Autoscaler(FREE).sync(0, 4, 4, [lag(None), lag(None)]) == Decision(4, Rule.UNREADABLE)

    def test_with_one_that_cannot_be_read_nothing_is_taken_away(self) -> None:
        assert Autoscaler(FREE).sync(0, 4, 4, [lag(0), lag(None)]) == Decision(4, Rule.UNREADABLE)

    def test_with_one_that_cannot_be_read_the_others_may_add(self) -> None:
        assert Autoscaler(FREE).sync(0, 4, 4, [lag(90_000), lag(None)]).replicas == 9

    def test_what_could_not_be_read_is_no_recommendation(self) -> None:
        bounds = TestWindows.OUT

        decisions = run(bounds, [50_000.0, 50_000.0, None, None, *[50_000.0] * 5])

        assert replicas_of(decisions) == [1] * 8 + [5]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Policy(Unit.PODS, 0, 60), "policies.value: expected at least 1, got 0"),
        (lambda: Policy(Unit.PODS, 1, 1801), "policies.periodSeconds: expected at most 1800, got 1801"),
        (lambda: Scaling(policies=()), "selectPolicy: Disabled is what forbids scaling"),
        (
            lambda: Scaling(policies=AT_ONCE.policies, window_s=3601),
            "stabilizationWindowSeconds: expected at most 3600",
        ),
        (lambda: Bounds(min_replicas=4, max_replicas=3), r"maxReplicas: expected at least minReplicas \(4\), got 3"),
        (lambda: Bounds(min_replicas=0, max_replicas=3), "minReplicas: expected at least 1, got 0"),
    ],
)
def test_what_an_api_server_would_refuse_is_refused(make: object, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make()  # type: ignore[operator]


def scalings(tolerance: float = 0.1) -> st.SearchStrategy[Scaling]:
    policies = st.builds(Policy, st.sampled_from(Unit), st.integers(1, 200), st.integers(1, 300))
    return st.builds(
        Scaling,
        policies=st.lists(policies, min_size=1, max_size=3).map(tuple),
        window_s=st.integers(0, 600),
        select=st.sampled_from(Select),
        tolerance=st.just(tolerance),
    )


BOUNDS = st.tuples(st.integers(1, 6), st.integers(0, 20), scalings(), scalings()).map(
    lambda drawn: Bounds(min_replicas=drawn[0], max_replicas=drawn[0] + drawn[1], up=drawn[2], down=drawn[3])
)
LAGS = st.lists(st.none() | st.integers(0, 10**7).map(float), min_size=1, max_size=30)


@settings(max_examples=40)
@given(BOUNDS, LAGS, st.sampled_from(Kind), st.integers(1, 40))
def test_there_are_never_fewer_than_the_least_and_never_more_than_the_most(
    bounds: Bounds, lags: list[float | None], kind: Kind, first: int
) -> None:
    for decision in run(bounds, lags, first, kind):
        assert bounds.min_replicas <= decision.replicas <= bounds.max_replicas


@given(BOUNDS, st.integers(1, 20), st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(Kind))
def test_more_lag_never_asks_for_fewer(bounds: Bounds, replicas: int, one: int, other: int, kind: Kind) -> None:
    less, more = sorted((one, other))

    asked = [proposed(lag(value, kind), replicas, replicas, bounds) for value in (less, more)]

    assert asked == sorted(asked, key=lambda count: count or 0)


@settings(max_examples=40)
@given(BOUNDS, LAGS)
def test_a_lag_at_the_target_of_what_there_is_changes_nothing(bounds: Bounds, lags: list[float | None]) -> None:
    autoscaler = Autoscaler(Bounds(min_replicas=5, max_replicas=5, up=bounds.up, down=bounds.down))

    assert {autoscaler.sync(15.0 * number, 5, 5, [lag(50_000)]).replicas for number in range(len(lags))} == {5}


@settings(max_examples=40)
@given(BOUNDS, LAGS, st.integers(1, 40))
def test_windows_and_policies_only_ever_hold_back(bounds: Bounds, lags: list[float | None], first: int) -> None:
    highest = lowest = first

    for decision in run(bounds, lags, first):
        if decision.proposal is not None:
            highest, lowest = max(highest, decision.proposal), min(lowest, decision.proposal)
        assert min(lowest, bounds.max_replicas) <= decision.replicas <= max(highest, bounds.min_replicas)


@settings(max_examples=40)
@given(st.integers(15, 600), st.integers(1, 39), scalings())
def test_no_spike_that_is_shorter_than_the_window_adds_a_replica(window_s: int, length: int, down: Scaling) -> None:
    up = Scaling(policies=AT_ONCE.policies, window_s=window_s)
    syncs = min(length, (window_s - 1) // 15)
    lags: list[float | None] = [0.0] * 3 + [9e6] * syncs + [0.0] * 45

    assert set(replicas_of(run(Bounds(max_replicas=50, up=up, down=down), lags))) == {1}
