"""Each of the chart's scenarios in a namespace that lets only restricted pods in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from cluster.releases import CHART, SCENARIOS, Release, names
from fleet.workers import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cluster.kubernetes import Kubernetes, Object

# 15 s between a worker's pods say nothing here, and are waited for at each installation.
QUICK = ("--set", "workerDefaults.minReadySeconds=0")
TIMEOUT_S = 60.0


def hint(values: Path) -> str:
    return values.name.removesuffix("-values.yaml")


def plural(kind: str) -> str:
    return f"{kind.lower()}s"


@pytest.fixture(scope="module", params=SCENARIOS, ids=hint)
def installed(
    kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Release]:
    with kubernetes.namespace(hint(request.param)) as namespace:
        release = Release(kubernetes, namespace, tmp_path_factory.mktemp("values"))
        release.install(request.param, *QUICK)
        yield release


def test_what_the_other_tests_look_at_is_in_some_scenario(kubernetes: Kubernetes) -> None:
    looked_at = {
        "PodDisruptionBudget", "HorizontalPodAutoscaler", "ScaledObject", "PodMonitor", "NetworkPolicy", "Service",
        "Deployment", "StatefulSet",
    }  # fmt: skip

    version = kubernetes.raw("/version")["gitVersion"]
    rendered = [
        kubernetes.helm("template", "w", CHART, "--kube-version", version, "-f", values) for values in SCENARIOS
    ]

    found = {kind for text in rendered for kind in re.findall(r"^kind: (\w+)", text, re.MULTILINE)}
    assert looked_at - found == set()


def test_all_pods_run_and_are_available(installed: Release) -> None:
    workloads = installed.workloads()

    assert workloads
    for one in workloads:
        assert one["status"].get("availableReplicas") == one["spec"]["replicas"] > 0, one["metadata"]["name"]
    assert {pod["status"]["phase"] for pod in installed.pods()} == {"Running"}


def test_no_object_has_a_field_that_the_api_server_does_not_know(installed: Release) -> None:
    """Of kinds that operators bring it would drop such fields and say nothing."""
    strictly = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"]

    installed.cluster.kubectl(*strictly, "-n", installed.namespace, "-f", "-", stdin=installed.manifest())


def test_budgets_count_the_pods_of_their_workers(installed: Release) -> None:
    for budget in installed.objects("poddisruptionbudgets"):
        found = installed.pods_of(budget["spec"]["selector"])

        assert found, budget["metadata"]["name"]
        name = f"pdb/{budget['metadata']['name']}"
        installed.cluster.wait(name, f"jsonpath={{.status.expectedPods}}={len(found)}", installed.namespace)
        installed.cluster.wait(name, "jsonpath={.status.disruptionsAllowed}=1", installed.namespace)


def test_what_scales_finds_what_it_scales(installed: Release) -> None:
    for one in installed.objects("horizontalpodautoscalers,scaledobjects"):
        target = one["spec"]["scaleTargetRef"]
        version, kind = target["apiVersion"], plural(target["kind"])
        path = f"/apis/{version}/namespaces/{installed.namespace}/{kind}/{target['name']}/scale"

        scale = installed.cluster.raw(path)

        assert scale["kind"] == "Scale"


def test_no_two_scale_the_same(installed: Release) -> None:
    targets = [
        tuple(one["spec"]["scaleTargetRef"].values())
        for one in installed.objects("horizontalpodautoscalers,scaledobjects")
    ]

    assert len(targets) == len(set(targets))


def test_monitors_find_pods_and_their_ports(installed: Release) -> None:
    for monitor in installed.objects("podmonitors"):
        pods = installed.pods_of(monitor["spec"]["selector"])

        assert pods
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert all(endpoint["port"] in port_names(pod) for pod in pods)


def test_policies_find_pods(installed: Release) -> None:
    for policy in installed.objects("networkpolicies"):
        assert installed.pods_of(policy["spec"]["podSelector"]), policy["metadata"]["name"]


def test_services_lead_to_pods(installed: Release) -> None:
    for service in installed.objects("services"):
        name = service["metadata"]["name"]
        of_it = f"kubernetes.io/service-name={name}"

        slices = installed.cluster.items("endpointslices", installed.namespace, of_it)

        ready = [one for part in slices for one in part["endpoints"] or () if one["conditions"]["ready"]]
        # A headless one without ports is for names only.
        ports = {port["name"] for part in slices for port in part["ports"] or ()}
        assert ready, name
        assert ports == {port.get("name", "") for port in service["spec"].get("ports", ())}


def test_nothing_is_left_of_what_was_installed_and_tested(
    kubernetes: Kubernetes, tmp_path: Path, scenario: Path
) -> None:
    """But the pods of its tests: Helm keeps them, so that their logs can be read."""
    with kubernetes.namespace(f"{hint(scenario)}-gone") as namespace:
        release = Release(kubernetes, namespace, tmp_path)
        before = kubernetes.all_in(namespace)
        release.install(scenario, *QUICK)
        release.test()
        there = kubernetes.all_in(namespace)
        kept = before | {f"Pod/{name}" for name in names(release.tests())}

        release.uninstall()

        assert there - kept
        # Pods and what else belongs to what was removed go a little later.
        wait_for(lambda: kubernetes.all_in(namespace) == kept, lambda: str(kubernetes.all_in(namespace)), TIMEOUT_S)


@pytest.fixture(params=SCENARIOS, ids=hint)
def scenario(request: pytest.FixtureRequest) -> Path:
    values: Path = request.param
    return values


def port_names(pod: Object) -> set[str]:
    return {port.get("name", "") for each in pod["spec"]["containers"] for port in each.get("ports", ())}
