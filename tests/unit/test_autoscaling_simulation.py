"""Autoscaling over a group: what the rules come to together, the traps of scaling by lag, and a group that reacts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamworker.autoscaling.groups import GivenLag, ModelledGroup, RecordedGroup, Sample
from streamworker.autoscaling.hpa import Kind, Rule
from streamworker.autoscaling.keda import Fallback, KafkaTrigger
from streamworker.autoscaling.observation import Observation
from streamworker.autoscaling.policy import Autoscaling, Mode
from streamworker.autoscaling.simulation import Replicas, simulate
from streamworker.autoscaling.synthetic import Sine, Spike, Step, course, duration_s
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.autoscaling.simulation import Timeline

AVERAGE = Autoscaling()
VALUE = replace(AVERAGE, trigger=replace(AVERAGE.trigger, metric_type=Kind.VALUE))


def over(policy: Autoscaling, lag: float, seconds: float = 3600, replicas: int | None = None) -> Timeline:
    """A lag that is there from the beginning and stays."""
    return simulate(policy, GivenLag(Step(to=lag, at_s=0), seconds), replicas)


def counts(timeline: Timeline) -> Sequence[tuple[float, int]]:
    """When the replicas change."""
    changes: list[tuple[float, int]] = []
    for one in timeline.moments:
        if not changes or one.replicas != changes[-1][1]:
            changes.append((one.at_s, one.replicas))
    return changes


class TestTenThousandForTwoMinutes:
    def test_a_sustained_excess_scales_out_after_two_minutes(self) -> None:
        assert counts(over(AVERAGE, 25_000)) == [(0, 1), (120, 3)]

    @pytest.mark.parametrize(("begins_s", "out_s"), [(586, 705), (600, 705), (601, 720)])
    def test_the_two_minutes_begin_with_the_last_sync_that_saw_no_excess(self, begins_s: float, out_s: float) -> None:
        timeline = simulate(AVERAGE, GivenLag(Step(to=25_000, at_s=begins_s), 3600))

        assert counts(timeline) == [(0, 1), (out_s, 3)]

    @pytest.mark.parametrize("peak", [50_000, 5_000_000])
    def test_a_spike_of_ninety_seconds_does_nothing(self, peak: float) -> None:
        timeline = simulate(AVERAGE, GivenLag(Spike(peak=peak, at_s=300, length_s=90), 3600))

        assert counts(timeline) == [(0, 1)]
        assert Rule.UP_WINDOW in {one.rule for one in timeline.moments}

    def test_ten_thousand_means_more_than_eleven_thousand(self) -> None:
        assert counts(over(AVERAGE, 11_000)) == [(0, 1)]
        assert counts(over(AVERAGE, 11_001)) == [(0, 1), (120, 2)]

    def test_with_two_at_least_the_lag_per_replica_hides_eleven_and_a_half_thousand_and_the_total_does_not(
        self,
    ) -> None:
        assert counts(over(replace(AVERAGE, min_replicas=2), 11_500)) == [(0, 2)]
        assert counts(over(replace(VALUE, min_replicas=2), 11_500))[:2] == [(0, 2), (120, 3)]

    def test_the_total_adds_replicas_for_as_long_as_it_is_there(self) -> None:
        at_once = replace(VALUE, min_replicas=2, ready_after_s=0)

        assert counts(over(at_once, 25_000)) == [(0, 2), (120, 4), (180, 5), (240, 8), (300, 12)]

    def test_it_scales_in_one_by_one_after_ten_minutes(self) -> None:
        timeline = simulate(AVERAGE, GivenLag(Spike(peak=40_000, at_s=0, length_s=600), 3600), replicas=4)

        assert counts(timeline) == [(0, 4), (1185, 3), (1305, 2), (1425, 1)]


class TestTheCap:
    CAPPED = replace(
        AVERAGE,
        max_replicas=64,
        trigger=KafkaTrigger(partitions=64, allow_idle_consumers=False),
    )

    @pytest.mark.parametrize(("replicas", "stays"), [(63, 63), (59, 59), (58, 64)])
    def test_the_last_replicas_are_never_added_to_a_capped_lag(self, replicas: int, stays: int) -> None:
        timeline = over(self.CAPPED, 5e6, replicas=replicas)

        assert timeline.moments[-1].replicas == stays

    def test_the_cap_is_named_as_the_reason(self) -> None:
        assert over(self.CAPPED, 5e6, replicas=63).moments[-1].rule is Rule.CAP

    def test_with_idle_consumers_and_as_many_as_there_are_partitions_all_are_reached(self) -> None:
        free = replace(self.CAPPED, trigger=replace(self.CAPPED.trigger, allow_idle_consumers=True))

        assert over(free, 5e6, replicas=63).moments[-1].replicas == 64


class TestTheHold:
    OUTAGE = ((600.0, 2400.0),)

    def lag_of(self, policy: Autoscaling) -> Timeline:
        group = ModelledGroup(Step(base=1500, to=1500), 7200, 1000, 12, self.OUTAGE)
        return simulate(policy, group, 2)

    def test_replicas_stay_as_they_are_while_the_sink_is_away(self) -> None:
        held = self.lag_of(replace(AVERAGE, min_replicas=2, hold=True))

        assert {one.replicas for one in held.moments if one.sink_open} == {2}
        assert {one.rule for one in held.moments if one.sink_open} == {Rule.HOLD}

    def test_they_grow_once_it_is_back(self) -> None:
        assert self.lag_of(replace(AVERAGE, min_replicas=2, hold=True)).most > 2

    def test_without_it_all_are_started_for_a_sink_that_is_away(self) -> None:
        assert self.lag_of(replace(AVERAGE, min_replicas=2)).at(2400).replicas == 12


class TestLagAlone:
    LOAD = Sine(mean=4500, amplitude=100, period_s=3600)

    def test_it_goes_up_and_down_under_a_load_that_stays(self) -> None:
        timeline = simulate(AVERAGE, ModelledGroup(self.LOAD, 6 * 3600, 1000, 12), 5)

        ends = [count for _, count in counts(timeline)]
        assert min(ends) < 5 < max(ends)

    def test_how_busy_workers_are_keeps_those_that_are_needed(self) -> None:
        timeline = simulate(replace(AVERAGE, busy=0.7), ModelledGroup(self.LOAD, 6 * 3600, 1000, 12), 5)

        assert min(count for _, count in counts(timeline)) >= 5


class TestWhatCannotBeRead:
    GAP = RecordedGroup(
        [Sample(0, Observation(40_000)), Sample(600, Observation(None)), Sample(1800, Observation(40_000))]
    )

    def recorded(self) -> RecordedGroup:
        return RecordedGroup(self.GAP.samples)

    def test_nothing_changes_until_it_was_not_read_too_often(self) -> None:
        policy = replace(AVERAGE, fallback=Fallback(failure_threshold=4, replicas=8))

        timeline = simulate(policy, self.recorded(), 4)

        # KEDA's own looks count as well as the questions of the autoscaler: two failures each quarter of a minute.
        assert timeline.at(600 + 15).rule is Rule.UNREADABLE
        assert timeline.at(600 + 30).rule is Rule.FALLBACK
        assert timeline.at(1700).replicas == 8

    def test_without_a_fallback_nothing_changes(self) -> None:
        timeline = simulate(replace(AVERAGE, fallback=None), self.recorded(), 4)

        assert {one.replicas for one in timeline.moments} == {4}

    def test_an_hpa_alone_has_no_fallback(self) -> None:
        policy = replace(AVERAGE, mode=Mode.HPA, fallback=Fallback(failure_threshold=0, replicas=8))

        assert {one.replicas for one in simulate(policy, self.recorded(), 4).moments} == {4}


class TestScaleToZero:
    ZERO = replace(AVERAGE, min_replicas=0, trigger=replace(AVERAGE.trigger, activation_lag_threshold=12))

    def test_it_sleeps_after_the_cool_down_period_and_wakes_at_the_next_look(self) -> None:
        lag = [Sample(0, Observation(500)), Sample(100, Observation(0)), Sample(1000, Observation(500))]

        timeline = simulate(self.ZERO, RecordedGroup([*lag, Sample(1200, Observation(500))]), 1)

        assert counts(timeline) == [(0, 1), (405, 0), (1005, 1)]

    def test_a_lag_that_transactions_leave_for_ever_does_not_wake_it(self) -> None:
        assert over(self.ZERO, 12).most == 0
        assert over(self.ZERO, 13).most == 1

    def test_beside_a_formula_its_value_wakes_it(self) -> None:
        held = replace(self.ZERO, hold=True)

        assert over(held, 12).most == 0
        assert over(held, 13).most == 1

    def test_a_lag_that_cannot_be_read_for_too_long_wakes_it_too(self) -> None:
        lost = RecordedGroup([Sample(0, Observation(None)), Sample(600, Observation(None))])

        assert counts(simulate(self.ZERO, lost, 0)) == [(0, 0), (60, 1), (120, 2)]

    def test_an_hpa_alone_never_wakes_a_workload(self) -> None:
        with pytest.raises(ConfigurationError, match="minReplicas: 0 needs mode keda"):
            Autoscaling(mode=Mode.HPA, min_replicas=0)


class TestAGroupThatReacts:
    def test_lag_is_what_comes_and_is_not_handled(self) -> None:
        group = ModelledGroup(Step(to=1000, at_s=0), 600, rate_per_replica=300, partitions=12)
        for at_s in range(1, 11):
            group.advance(at_s, working=2)

        assert group.observe() == Observation(4000, 12, 0, 1)

    def test_replicas_without_a_partition_handle_nothing(self) -> None:
        group = ModelledGroup(Step(to=1000, at_s=0), 600, rate_per_replica=300, partitions=2)
        group.advance(1, working=10)

        assert group.observe() == Observation(400, 2, 0, 0.2)

    def test_nothing_is_handled_while_the_sink_is_away(self) -> None:
        group = ModelledGroup(Step(to=1000, at_s=0), 600, 5000, 12, outages_s=[(0, 5)])
        group.advance(1, working=2)

        assert group.observe() == Observation(1000, 12, 1, 0)

    @settings(max_examples=15)
    @given(st.integers(1, 12), st.integers(100, 1500), st.integers(0, 10_000))
    def test_a_load_that_all_replicas_can_bear_is_worked_off(self, partitions: int, rate: int, peak: int) -> None:
        policy = replace(
            AVERAGE,
            max_replicas=partitions,
            trigger=KafkaTrigger(partitions=partitions, lag_threshold=1000),
            polling_interval_s=15,
        )
        load = Spike(base=0, peak=min(peak, partitions * rate), at_s=60, length_s=300)

        timeline = simulate(policy, ModelledGroup(load, 7200, rate, partitions))

        assert timeline.moments[-1].lag == 0
        assert timeline.most <= partitions


def test_the_youngest_replicas_go_first() -> None:
    replicas = Replicas.ready(2, ready_after_s=30)
    replicas.set(4, at_s=100)
    assert (replicas.count(), replicas.working(129), replicas.working(130)) == (4, 2, 4)

    replicas.set(3, at_s=110)

    assert (replicas.count(), replicas.working(129)) == (3, 2)


def test_only_changes_are_listed_each_with_its_rule() -> None:
    changes = list(over(AVERAGE, 25_000).changes())

    assert [(one.at_s, one.replicas, one.rule) for one in changes] == [
        (0, 1, Rule.UP_WINDOW),
        (120, 3, Rule.TARGET),
    ]


def test_a_run_that_would_take_for_ever_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected at most"):
        simulate(AVERAGE, ModelledGroup(Step(), 10**9, 1, 1))


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("spike", Spike()),
        ("spike:peak=9,at=2m,for=90", Spike(peak=9, at_s=120, length_s=90)),
        ("step:base=1,to=2.5,at=1h", Step(base=1, to=2.5, at_s=3600)),
        ("sine:mean=5,amplitude=9,period=1d", Sine(5, 9, 86400)),
    ],
)
def test_a_course_is_written_in_one_word(text: str, made: Spike | Step | Sine) -> None:
    assert course(text) == made


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("spyke", "there is no 'spyke'; did you mean 'spike'\\?"),
        ("spike:pek=1", "spike has no 'pek'; did you mean 'peak'\\?"),
        ("spike:peak", "expected peak=VALUE, got 'peak'"),
        ("spike:peak=lots", "peak: expected a number, got 'lots'"),
        ("spike:peak=-1", "peak: expected 0 or more, got '-1'"),
        ("spike:for=soon", "for: expected a duration like 90s or 15m, got 'soon'"),
        ("sine:period=0", "period: expected more than 0"),
    ],
)
def test_what_is_no_course_is_refused_with_the_nearest_word(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        course(text)


def test_a_wave_is_never_below_nothing() -> None:
    assert Sine(mean=0, amplitude=5, period_s=100).at(75) == 0


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_durations_have_units(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds
