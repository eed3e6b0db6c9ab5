"""The chart's values, as the simulation reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from streamworker.autoscaling.hpa import Kind, Policy, Select, Unit
from streamworker.autoscaling.keda import FallbackBehavior
from streamworker.autoscaling.policy import Autoscaling, Mode
from streamworker.autoscaling.values import merged, policy, worker_values
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamworker.autoscaling.values import Chosen


def chosen(autoscaling: Mapping[str, object] | None = None, **worker: object) -> Chosen:
    values = {"autoscaling": {"mode": "keda", **(autoscaling or {})}, **worker}
    return policy(values, sync_period_s=15, ready_after_s=15)


def test_without_values_it_is_as_the_chart_has_it() -> None:
    found = chosen().policy

    assert found.trigger.activation_lag_threshold == 12
    assert (found.up, found.down, found.fallback) == (Autoscaling().up, Autoscaling().down, Autoscaling().fallback)
    assert (found.min_replicas, found.max_replicas, found.trigger.partitions) == (1, 12, 12)


def test_there_are_as_many_at_most_as_find_a_partition_beside_the_canary() -> None:
    assert chosen(partitions=24).policy.max_replicas == 24
    assert chosen(partitions=24, canary={"enabled": True, "replicas": 2}).policy.max_replicas == 22
    assert chosen(partitions=24, processes=4).policy.max_replicas == 6
    assert chosen({"maxReplicas": 6}, partitions=24).policy.max_replicas == 6


def test_all_values_that_bear_on_it_are_read() -> None:
    found = chosen(
        {
            "mode": "keda",
            "minReplicas": 0,
            "lagThreshold": 500,
            "metricType": "Value",
            "tolerance": 0.05,
            "behavior": {
                "scaleUp": {"stabilizationWindowSeconds": 30},
                "scaleDown": {"selectPolicy": "Min", "policies": [{"type": "Percent", "value": 5, "periodSeconds": 9}]},
            },
            "keda": {
                "pollingInterval": 5,
                "cooldownPeriod": 60,
                "activationLagThreshold": 3,
                "skewAware": True,
                "fallback": {"failureThreshold": 1, "replicas": 3, "behavior": "currentReplicas"},
            },
            "busy": {"enabled": True, "threshold": 0.5},
            "sinkBreakerHold": {"enabled": True},
        }
    ).policy

    assert (found.min_replicas, found.polling_interval_s, found.cooldown_s, found.busy, found.hold) == (
        0,
        5,
        60,
        0.5,
        True,
    )
    trigger = found.trigger
    assert (trigger.lag_threshold, trigger.metric_type, trigger.activation_lag_threshold) == (500, Kind.VALUE, 3)
    assert (trigger.allow_idle_consumers, trigger.limit_to_partitions_with_lag) == (False, True)
    assert (found.up.window_s, found.up.tolerance, found.up.policies) == (30, 0.05, Autoscaling().up.policies)
    assert (found.down.select, found.down.tolerance) == (Select.MIN, 0.05)
    assert found.down.policies == (Policy(Unit.PERCENT, 5, 9),)
    assert found.fallback is not None
    assert (found.fallback.failure_threshold, found.fallback.behavior) == (1, FallbackBehavior.CURRENT)


def test_the_tolerance_of_both_directions_goes_before_that_of_each() -> None:
    behavior = {"scaleUp": {"tolerance": "20m"}, "scaleDown": {"tolerance": 0.3}}

    found = chosen({"behavior": behavior}).policy
    both = chosen({"behavior": behavior, "tolerance": 0.07}).policy

    assert (found.up.tolerance, found.down.tolerance) == (0.02, 0.3)
    assert (both.up.tolerance, both.down.tolerance) == (0.07, 0.07)


def test_an_empty_fallback_is_none() -> None:
    assert chosen({"keda": {"fallback": {}}}).policy.fallback is None


def test_what_is_not_simulated_is_said() -> None:
    found = chosen({"keda": {"excludePersistentLag": True, "extraTriggers": [{"type": "cpu"}]}, "cron": [{}]})

    assert found.left_out == ("excludePersistentLag", "extraTriggers", "cron")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lagThreshhold": 5}, "there is no 'lagThreshhold' in autoscaling; did you mean 'lagThreshold'\\?"),
        ({"keda": {"coolDown": 5}}, "there is no 'coolDown' in autoscaling.keda; did you mean 'cooldownPeriod'\\?"),
        ({"behavior": {"scaleup": {}}}, "no 'scaleup' in autoscaling.behavior; did you mean 'scaleUp'\\?"),
        ({"metricType": "AverageVolume"}, "metricType: got 'AverageVolume'; did you mean 'AverageValue'\\?"),
        ({"mode": "kedda"}, "mode: got 'kedda'; did you mean 'keda'\\?"),
        ({"mode": "none"}, "mode is none: nothing scales this worker"),
        ({"lagThreshold": "many"}, "Expected `int`, got `str` - at `autoscaling.lagThreshold`"),
        ({"minReplicas": 13}, "maxReplicas: expected at least 13"),
        ({"mode": "hpa", "sinkBreakerHold": {"enabled": True}}, "hold and formula need mode keda"),
        ({"behavior": {"scaleUp": {"tolerance": "much"}}}, "tolerance: expected a quantity like 0.05 or 50m"),
        ({"busy": {"enabled": True, "threshold": 2}}, "busy: expected a share of 1, got 2"),
    ],
)
def test_a_value_that_is_wrong_is_refused_with_what_may_be_meant(values: Mapping[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        chosen(values)


FILE: Mapping[str, object] = {
    "workerDefaults": {"partitions": 6, "autoscaling": {"mode": "keda", "keda": {"pollingInterval": 5}}},
    "workers": {
        "orders": {"autoscaling": {"keda": {"cooldownPeriod": 60}}},
        "invoices": {"partitions": 3, "autoscaling": {"mode": "hpa", "keda": {"pollingInterval": None}}},
    },
}


class TestAFile:
    def test_a_worker_has_the_defaults_where_it_does_not_say_otherwise(self) -> None:
        found = policy(worker_values(FILE, "orders"), sync_period_s=15, ready_after_s=0).policy

        assert (found.mode, found.max_replicas, found.polling_interval_s, found.cooldown_s) == (Mode.KEDA, 6, 5, 60)

    def test_null_takes_a_default_away(self) -> None:
        found = policy(worker_values(FILE, "invoices"), sync_period_s=15, ready_after_s=0).policy

        assert (found.mode, found.max_replicas, found.polling_interval_s) == (Mode.HPA, 3, 15)

    @pytest.mark.parametrize(
        ("document", "worker", "words"),
        [
            (FILE, None, "there are 2 workers: give --worker; known: orders, invoices"),
            (FILE, "order", "there is no worker 'order'; did you mean 'orders'\\?"),
            ({}, None, "there are no workers"),
            ([], None, "values: Expected `object`, got `array`"),
            ({"workers": []}, None, "values: Expected `object"),
        ],
    )
    def test_a_worker_that_is_not_there_is_said(self, document: object, worker: str | None, words: str) -> None:
        with pytest.raises(ConfigurationError, match=words):
            worker_values(document, worker)

    def test_the_only_worker_needs_no_name(self) -> None:
        assert worker_values({"workers": {"orders": {"partitions": 4}}}, None) == {"partitions": 4}


def test_tables_are_merged_and_lists_are_replaced() -> None:
    under = {"a": {"b": 1, "c": [1, 2]}, "d": 4}

    assert merged(under, {"a": {"c": [3]}, "d": None, "e": 5}) == {"a": {"b": 1, "c": [3]}, "e": 5}
