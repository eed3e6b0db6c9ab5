"""A cluster that somebody else runs is taken only if its owner says so, and if nothing real can come to harm there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cluster.kubernetes import nodes_of, obtain_kubernetes
from cluster.simulated import node
from servers.kafka_jars import ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.kubernetes import Kubernetes


@pytest.fixture
def real_node(kubernetes: Kubernetes) -> Iterator[str]:
    one = node(99)
    del one["metadata"]["annotations"]
    kubernetes.apply(one)
    name: str = one["metadata"]["name"]
    yield name
    kubernetes.kubectl("delete", "node", name)


@pytest.mark.parametrize("owned", [None, "another"])
def test_a_cluster_whose_context_its_owner_does_not_name_is_left_alone(
    kubernetes: Kubernetes, owned: str | None
) -> None:
    with pytest.raises(ServerUnavailable, match=f"I_OWN_THIS_CLUSTER={kubernetes.context}"):
        obtain_kubernetes(str(kubernetes.kubeconfig), owned)


def test_a_cluster_with_a_node_that_is_not_simulated_is_left_alone(kubernetes: Kubernetes, real_node: str) -> None:
    with pytest.raises(ServerUnavailable, match=real_node):
        obtain_kubernetes(str(kubernetes.kubeconfig), kubernetes.context)


def test_a_cluster_of_simulated_nodes_is_taken_from_its_owner(kubernetes: Kubernetes) -> None:
    taken = obtain_kubernetes(str(kubernetes.kubeconfig), kubernetes.context)

    assert nodes_of(taken) == nodes_of(kubernetes)
    assert taken.control_plane is None
