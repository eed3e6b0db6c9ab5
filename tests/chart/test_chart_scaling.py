"""What scales workers: by lag alone as the documentation says it, and by what may be added."""

from __future__ import annotations

import pytest
from rendered_chart import CASE_NAMES, case, refusal, rendered, with_worker

from streamworker.dlq.routes import replay_topic

SCALED = {"topics": ["orders"], "partitions": 12, "autoscaling": {"mode": "keda"}}


def _scaled(name: str, object_name: str) -> dict[str, object]:
    return case(name).one("ScaledObject", object_name)["spec"]


def test_lag_over_ten_thousand_for_two_minutes_scales_out() -> None:
    spec = _scaled("keda", "demo-streamworker-orders")

    assert spec == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "demo-streamworker-orders"},
        "pollingInterval": 15,
        "cooldownPeriod": 300,
        "minReplicaCount": 1,
        "maxReplicaCount": 12,
        "fallback": {"failureThreshold": 4, "replicas": 2, "behavior": "currentReplicasIfHigher"},
        "advanced": {
            "horizontalPodAutoscalerConfig": {
                "behavior": {
                    "scaleUp": {
                        "stabilizationWindowSeconds": 120,
                        "selectPolicy": "Max",
                        "policies": [
                            {"type": "Percent", "value": 50, "periodSeconds": 60},
                            {"type": "Pods", "value": 2, "periodSeconds": 60},
                        ],
                    },
                    "scaleDown": {
                        "stabilizationWindowSeconds": 600,
                        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}],
                    },
                }
            }
        },
        "triggers": [_trigger("lag", "orders"), _trigger("lag_replay", "orders.replay.orders")],
    }


def _trigger(name: str, topic: str) -> dict[str, object]:
    return {
        "type": "kafka",
        "name": name,
        "metricType": "AverageValue",
        "metadata": {
            "bootstrapServers": "kafka-1:9092,kafka-2:9092",
            "consumerGroup": "orders",
            "topic": topic,
            "lagThreshold": "10000",
            "activationLagThreshold": "12",
            "offsetResetPolicy": "earliest",
            "allowIdleConsumers": "true",
            "limitToPartitionsWithLag": "false",
            "excludePersistentLag": "false",
            "version": "3.6.0",
        },
    }


@pytest.mark.parametrize("name", CASE_NAMES)
def test_keda_gets_texts_only(name: str) -> None:
    for one in case(name).of("ScaledObject"):
        for trigger in one["spec"]["triggers"]:
            assert {key: value for key, value in trigger["metadata"].items() if not isinstance(value, str)} == {}


def test_each_topic_and_each_replay_topic_scales_and_retry_topics_do_not() -> None:
    triggers = _scaled("keda", "demo-streamworker-payments")["triggers"]

    assert [(one["name"], one["metadata"]["topic"]) for one in triggers if one["type"] == "kafka"] == [
        ("lag", "payments"),
        ("lag_2", "refunds"),
        ("lag_2_replay", "refunds.replay.payments"),
        ("lag_replay", "payments.replay.payments"),
    ]


@pytest.mark.parametrize(
    ("topic", "group"), [("orders", "billing"), ("orders", "billing/eu ünit"), ("t" * 200, "g" * 60), ("t" * 249, "g")]
)
def test_replay_topics_are_named_as_the_worker_names_them(topic: str, group: str) -> None:
    spec = rendered(with_worker({**SCALED, "topics": [topic], "group": group})).of("ScaledObject")[0]["spec"]

    assert spec["triggers"][1]["metadata"]["topic"] == replay_topic(topic, group)


@pytest.mark.parametrize(
    ("start", "policy"),
    [("earliest", "earliest"), ("latest", "latest"), ("timestamp:2026-01-31T00:00:00Z", "earliest")],
)
def test_keda_takes_a_new_group_to_begin_where_the_worker_does(start: str, policy: str) -> None:
    found = rendered(with_worker(SCALED, config={"kafka": {"start": start}}))

    assert found.of("ScaledObject")[0]["spec"]["triggers"][0]["metadata"]["offsetResetPolicy"] == policy


def test_an_open_sink_breaker_holds_what_there_is_while_lag_alone_would_not() -> None:
    scaling = {
        "prometheus": {"serverAddress": "http://prometheus"},
        "sinkBreakerHold": {"enabled": True},
        "replayTopics": False,
    }

    spec = rendered(with_worker({**SCALED, "autoscaling": {"mode": "keda", **scaling}})).of("ScaledObject")[0]["spec"]

    assert spec["advanced"]["scalingModifiers"] == {
        "formula": "sink_open >= 0.5 ? pods * 10000 : lag",
        "target": "10000",
    }
    pods, sink_open = spec["triggers"][1:]
    assert pods["metadata"]["podSelector"] == (
        "app.kubernetes.io/component=worker,app.kubernetes.io/instance=demo,app.kubernetes.io/name=streamworker,"
        "streamworker.dev/worker=orders,track=stable"
    )
    assert sink_open["metadata"]["query"] == (
        'avg(streamworker_breaker_state{namespace="flows",group="orders",kind="sink",state="open"}) or vector(0)'
    )


def test_the_formula_asks_for_what_the_largest_of_all_triggers_asks_for() -> None:
    spec = _scaled("keda", "demo-streamworker-payments")

    formula = spec["advanced"]["scalingModifiers"]["formula"]

    assert formula == (
        "sink_open >= 0.5 ? pods * 10000 :"
        " max(lag, lag_2, lag_2_replay, lag_replay, busy / 0.7 * pods * 10000, cron_0 * 10000)"
    )
    assert {one["name"] for one in spec["triggers"]} == {
        "lag", "lag_2", "lag_2_replay", "lag_replay", "busy", "cron_0", "pods", "sink_open",
    }  # fmt: skip


def test_the_busy_ratio_holds_capacity_without_the_formula_too() -> None:
    scaling = {"prometheus": {"serverAddress": "http://prometheus"}, "busy": {"enabled": True}}

    spec = rendered(with_worker({**SCALED, "autoscaling": {"mode": "keda", **scaling}})).of("ScaledObject")[0]["spec"]

    [busy] = [one for one in spec["triggers"] if one["name"] == "busy"]
    assert "scalingModifiers" not in spec["advanced"]
    assert busy == {
        "type": "prometheus",
        "name": "busy",
        "metricType": "Value",
        "metadata": {
            "serverAddress": "http://prometheus",
            "query": 'avg(streamworker_busy_ratio{namespace="flows",group="orders"})',
            "threshold": "0.7",
            "ignoreNullValues": "false",
        },
    }


def test_the_first_pod_is_started_by_the_formula_and_no_pod_that_is_missing_keeps_it_from_that() -> None:
    scaling = {
        "minReplicas": 0,
        "prometheus": {"serverAddress": "http://prometheus"},
        "busy": {"enabled": True},
        "sinkBreakerHold": {"enabled": True},
    }

    spec = rendered(with_worker({**SCALED, "autoscaling": {"mode": "keda", **scaling}})).of("ScaledObject")[0]["spec"]

    [busy] = [one for one in spec["triggers"] if one["name"] == "busy"]
    assert spec["advanced"]["scalingModifiers"]["activationTarget"] == "12"
    assert busy["metadata"]["query"].endswith(" or vector(0)")


@pytest.mark.parametrize(
    ("worker", "most"),
    [
        ({}, 12),
        ({"processes": 4}, 3),
        ({"processes": 5}, 2),
        ({"canary": {"enabled": True, "replicas": 2, "image": {"tag": "2"}}}, 10),
        ({"canary": {"replicas": 2}}, 12),
        ({"autoscaling": {"mode": "keda", "maxReplicas": 6}}, 6),
    ],
)
def test_no_more_pods_are_made_than_find_a_partition(worker: dict[str, object], most: int) -> None:
    found = rendered(with_worker({**SCALED, **worker}))

    assert found.of("ScaledObject")[0]["spec"]["maxReplicaCount"] == most


def test_keda_reads_the_secrets_that_workers_read() -> None:
    found = case("tls-sasl")
    [authentication] = found.of("TriggerAuthentication")
    [scaled] = found.of("ScaledObject")

    assert {one["parameter"]: (one["name"], one["key"]) for one in authentication["spec"]["secretTargetRef"]} == {
        "username": ("kafka-sasl", "username"),
        "password": ("kafka-sasl", "password"),
        "ca": ("kafka-tls", "ca.crt"),
        "cert": ("kafka-tls", "tls.crt"),
        "key": ("kafka-tls", "tls.key"),
        "keyPassword": ("kafka-tls", "password"),
    }
    for trigger in scaled["spec"]["triggers"]:
        assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
        assert (trigger["metadata"]["tls"], trigger["metadata"]["sasl"]) == ("enable", "scram_sha512")


def test_a_skewed_group_gets_as_many_pods_as_partitions_with_lag() -> None:
    metadata = _scaled("keda", "demo-streamworker-audit")["triggers"][0]["metadata"]

    assert (metadata["limitToPartitionsWithLag"], metadata["allowIdleConsumers"]) == ("true", "false")


def test_an_hpa_asks_for_the_groups_lag_by_topic() -> None:
    spec = case("hpa").of("HorizontalPodAutoscaler")[0]["spec"]

    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 12)
    assert spec["behavior"]["scaleUp"]["stabilizationWindowSeconds"] == 120
    assert [one["external"] for one in spec["metrics"]] == [
        {
            "metric": {
                "name": "streamworker_group_lag_records",
                "selector": {"matchLabels": {"group": "orders", "topic": topic}},
            },
            "target": {"type": "AverageValue", "averageValue": "10000"},
        }
        for topic in ("orders", "orders.replay.orders")
    ]


def test_an_hpa_that_looks_at_the_total_compares_a_value() -> None:
    scaling = {"mode": "hpa", "metricType": "Value", "replayTopics": False}

    spec = rendered(with_worker({**SCALED, "autoscaling": scaling})).of("HorizontalPodAutoscaler")[0]["spec"]

    assert spec["metrics"][0]["external"]["target"] == {"type": "Value", "value": "10000"}


@pytest.mark.parametrize(
    ("values", "is_there"),
    [
        ({}, False),
        ({"rules": {"enabled": True}}, True),
        ({"rules": {"enabled": True}, "lagObserver": {"enabled": False}}, False),
        ({"lagObserver": {"enabled": True}}, True),
    ],
)
def test_the_lag_observer_is_there_when_something_asks_for_what_it_tells(
    values: dict[str, object], is_there: bool
) -> None:
    found = rendered(with_worker({}, **values))

    assert any(one["metadata"]["name"] == "demo-streamworker-lag" for one in found.of("Deployment")) is is_there


def test_the_lag_observer_is_there_with_an_hpa() -> None:
    container = case("hpa").one("Deployment", "demo-streamworker-lag")["spec"]["template"]["spec"]["containers"][0]

    assert container["args"] == ["lag", "--serve", "orders", "--config", "/etc/streamworker/streamworker.toml"]


def test_a_tolerance_of_zero_is_not_taken_for_none() -> None:
    spec = rendered(with_worker({**SCALED, "autoscaling": {"mode": "hpa", "tolerance": 0}})).objects

    [scaler] = [one for one in spec if one["kind"] == "HorizontalPodAutoscaler"]
    assert scaler["spec"]["behavior"]["scaleUp"]["tolerance"] == "0"


def test_static_members_are_scaled_only_by_who_knows_what_that_means() -> None:
    static = {**SCALED, "kind": "StatefulSet"}

    message = refusal(with_worker(static))
    found = rendered(with_worker({**static, "acknowledgeStaticMembershipScaleIn": True}))

    assert "workers.orders.acknowledgeStaticMembershipScaleIn to true" in message
    assert found.of("ScaledObject")[0]["spec"]["scaleTargetRef"]["kind"] == "StatefulSet"
