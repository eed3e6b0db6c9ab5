"""Nodes that are emptied while a worker runs on them. They are simulated; the evictions are real."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cluster.kubernetes import nodes_of
from cluster.programs import Refused
from cluster.releases import Release, names, values_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cluster.kubernetes import Kubernetes, Object


@pytest.fixture
def release(kubernetes: Kubernetes, tmp_path: Path) -> Iterator[Release]:
    with kubernetes.namespace("drained") as namespace:
        installed = Release(kubernetes, namespace, tmp_path)
        installed.install(values_of())
        [budget] = installed.objects("poddisruptionbudgets")
        kubernetes.wait(f"pdb/{budget['metadata']['name']}", "jsonpath={.status.disruptionsAllowed}=1", namespace)
        yield installed


@pytest.fixture(autouse=True)
def nodes(kubernetes: Kubernetes) -> Iterator[list[str]]:
    """All of them, none of which is a real one; they take pods again afterwards."""
    found = nodes_of(kubernetes)
    assert all(found.values())
    yield [*found]
    kubernetes.kubectl("uncordon", *found)


def evict(cluster: Kubernetes, pod: Object) -> None:
    """Raises Refused if a budget forbids it now."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))


def test_the_second_pod_is_not_evicted_before_the_first_has_a_successor(release: Release, nodes: list[str]) -> None:
    cluster, (first, second) = release.cluster, release.pods()
    at = second["spec"]["nodeName"]
    [workload] = release.workloads()
    cluster.kubectl("cordon", *nodes)
    evict(cluster, first)
    cluster.wait(f"pod/{first['metadata']['name']}", "delete", release.namespace)

    with pytest.raises(Refused, match="disruption budget"):
        evict(cluster, second)
    cluster.kubectl("uncordon", *(name for name in nodes if name != at))
    cluster.kubectl("drain", at, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s")

    cluster.kubectl("rollout", "status", "-n", release.namespace, f"deployment/{workload['metadata']['name']}")
    pods = release.pods()
    assert len(pods) == 2
    assert names(pods) & names([first, second]) == set()
    assert at not in {pod["spec"]["nodeName"] for pod in pods}


def test_a_drain_of_all_pods_at_once_leaves_all_but_one_running(release: Release, nodes: list[str]) -> None:
    cluster, pods = release.cluster, release.pods()
    cluster.kubectl("cordon", *nodes)

    evict(cluster, pods[0])

    for pod in pods[1:]:
        with pytest.raises(Refused, match="disruption budget"):
            evict(cluster, pod)
    assert len(pods) == 2
