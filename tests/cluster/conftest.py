"""What the tests on a Kubernetes share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from cluster.kubernetes import Kubernetes, obtain_kubernetes
from missing import obtained
from servers.prometheus import Prometheus, start_prometheus

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def kubernetes() -> Iterator[Kubernetes]:
    """A real API server with simulated nodes: that of STREAMWORKER_TEST_KUBECONFIG, else one of this run."""
    given, owned = os.environ.get("STREAMWORKER_TEST_KUBECONFIG"), os.environ.get("I_OWN_THIS_CLUSTER")
    cluster = obtained(lambda: obtain_kubernetes(given, owned), asked_for=bool(given))
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def prometheus() -> Iterator[Prometheus]:
    """A real one, which scrapes nothing until a test says what."""
    server = obtained(start_prometheus)
    yield server
    server.close()
