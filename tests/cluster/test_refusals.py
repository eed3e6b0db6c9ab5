"""What must not get into a cluster, and who keeps it out: the chart, or the API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cluster.programs import Refused
from cluster.releases import Release, values_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cluster.kubernetes import Kubernetes, Object


@pytest.fixture
def release(kubernetes: Kubernetes, tmp_path: Path) -> Iterator[Release]:
    with kubernetes.namespace("refused") as namespace:
        yield Release(kubernetes, namespace, tmp_path)


def extra(kind: str, version: str, spec: Object) -> list[Object]:
    return [{"apiVersion": version, "kind": kind, "metadata": {"name": "extra"}, "spec": spec}]


POD_OF_THE_NODE = {
    "hostNetwork": True,
    "containers": [{"name": "one", "image": "streamworker", "securityContext": {"privileged": True}}],
}
BUDGET_OF_BOTH = {"minAvailable": 1, "maxUnavailable": 1, "selector": {"matchLabels": {"app": "one"}}}
SCALED_BY_A_WORD = {"scaleTargetRef": {"name": "w"}, "pollingInterval": "often", "triggers": []}
SCALED_BY_NOTHING = {"scaleTargetRef": {"name": "w"}}
MONITOR_OF_A_WORD = {"selector": {}, "podMetricsEndpoints": "http"}


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        (extra("Pod", "v1", POD_OF_THE_NODE), 'violates PodSecurity "restricted'),
        (
            extra("PodDisruptionBudget", "policy/v1", BUDGET_OF_BOTH),
            "cannot be both set",
        ),
        (extra("ScaledObject", "keda.sh/v1alpha1", SCALED_BY_A_WORD), "pollingInterval"),
        (extra("ScaledObject", "keda.sh/v1alpha1", SCALED_BY_NOTHING), "spec.triggers: Required value"),
        (extra("PodMonitor", "monitoring.coreos.com/v1", MONITOR_OF_A_WORD), "podMetricsEndpoints"),
    ],
    ids=["pod", "budget", "scaled-by-a-word", "scaled-by-nothing", "monitor"],
)
def test_the_api_server_refuses_an_object(release: Release, objects: list[Object], said: str) -> None:
    with pytest.raises(Refused, match=said):
        release.start(values_of(extraObjects=objects))


@pytest.mark.parametrize(
    "context",
    [
        {"allowPrivilegeEscalation": True},
        {"capabilities": {"add": ["NET_ADMIN"]}},
        {"runAsNonRoot": False},
        {"privileged": True, "allowPrivilegeEscalation": True},
    ],
    ids=["escalation", "capabilities", "root", "privileged"],
)
def test_pods_that_are_not_restricted_are_kept_out(release: Release, context: Object) -> None:
    """The workload is let in, and its controller is refused each pod: so running pods say that they are restricted."""
    release.start(values_of({"securityContext": context}))

    [workload] = release.workloads()
    name = f"deployment/{workload['metadata']['name']}"
    release.cluster.wait(name, "condition=ReplicaFailure", release.namespace)
    failed = release.cluster.one("deployment", workload["metadata"]["name"], release.namespace)
    [said] = [one["message"] for one in failed["status"]["conditions"] if one["type"] == "ReplicaFailure"]
    assert 'violates PodSecurity "restricted' in said
    assert release.pods() == []


def test_a_misspelled_field_of_an_operators_kind_is_found_when_it_is_asked_to_be_strict(release: Release) -> None:
    [misspelled] = extra(
        "ScaledObject", "keda.sh/v1alpha1", {**SCALED_BY_NOTHING, "triggers": [], "poolingInterval": 5}
    )

    with pytest.raises(Refused, match="poolingInterval"):
        release.cluster.kubectl(
            "apply", "--server-side", "--dry-run=server", "--validate=strict", "-n", release.namespace, "-f", "-",
            stdin=json.dumps(misspelled),
        )  # fmt: skip


AUTOSCALED = {"autoscaling": {"mode": "keda"}}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (values_of(kafka={"bootstrapServers": ""}), "bootstrapServers"),
        (values_of(replicaCount=3), "replicaCount"),
        (values_of({"partitions": 0, **AUTOSCALED}), "partitions"),
        (values_of({"kind": "StatefulSet", **AUTOSCALED}), "acknowledgeStaticMembershipScaleIn"),
        (values_of({"terminationGracePeriodSeconds": 1}), "terminationGracePeriodSeconds"),
        (values_of(networkPolicy={"enabled": True}), "networkPolicy.kafka"),
    ],
    ids=["no-brokers", "unknown", "no-partitions", "static-members", "no-time-to-end", "no-way-to-brokers"],
)
def test_the_chart_refuses_values_and_nothing_is_installed(
    release: Release, values: dict[str, object], said: str
) -> None:
    with pytest.raises(Refused, match=said):
        release.start(values)

    assert release.cluster.all_in(release.namespace) == set()


def test_a_namespace_that_is_not_restricted_lets_such_a_pod_in(kubernetes: Kubernetes, tmp_path: Path) -> None:
    """So it is the namespace that refuses above, and not a value that makes no sense."""
    with kubernetes.namespace("privileged", pod_security="privileged") as namespace:
        release = Release(kubernetes, namespace, tmp_path)

        release.install(values_of({"securityContext": {"privileged": True, "allowPrivilegeEscalation": True}}))

        assert len(release.pods()) == 2
