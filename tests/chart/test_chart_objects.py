"""What the chart renders is what Kubernetes takes, and its parts find one another."""

from __future__ import annotations

import subprocess
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from missing import obtained
from rendered_chart import CASE_NAMES, CHART, KUBERNETES, Rendered, case, helm, rendered, with_worker
from servers.chart_tools import program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rendered_chart import Object

SCHEMAS = Path(__file__).parent / "schemas"
every_case = pytest.mark.parametrize("name", CASE_NAMES)


def _selects(selector: Mapping[str, object], labels: Mapping[str, str]) -> bool:
    by_expression = all(
        labels.get(one["key"]) in one["values"]
        for one in selector.get("matchExpressions", ())
        if one["operator"] == "In"
    )
    return by_expression and selector.get("matchLabels", {}).items() <= labels.items()


def _pods(found: Rendered) -> Iterator[tuple[str, Mapping[str, str], Object]]:
    for where, template in found.templates():
        yield where, template["metadata"]["labels"], template["spec"]


@every_case
def test_values_of_each_case_pass_the_strict_linter(name: str) -> None:
    done = helm(
        "lint", "--strict", CHART, "--kube-version", KUBERNETES, "--values", CHART / "ci" / f"{name}-values.yaml"
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_all_objects_fit_the_schemas_of_kubernetes_and_of_the_operators() -> None:
    text = "\n---\n".join(case(name).text for name in CASE_NAMES)
    location = f"{SCHEMAS}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
    command = [str(obtained(lambda: program("kubeconform"))), "-strict", "-summary", "-schema-location", location]

    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Skipped: 0" in done.stdout


def test_a_field_that_does_not_exist_does_not_fit() -> None:
    found = rendered(with_worker({"strategy": {"rollingUpdate": {"maxSurges": 1}}}))
    location = f"{SCHEMAS}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
    command = [str(obtained(lambda: program("kubeconform"))), "-strict", "-schema-location", location]

    done = subprocess.run(command, input=found.text, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 1
    assert "maxSurges" in done.stdout


@every_case
def test_no_two_objects_have_the_same_name(name: str) -> None:
    found = Counter((one["kind"], one["metadata"]["name"]) for one in case(name).objects)

    assert [one for one, count in found.items() if count > 1] == []


@every_case
def test_every_name_is_short_enough(name: str) -> None:
    assert [one["metadata"]["name"] for one in case(name).objects if len(one["metadata"]["name"]) > 63] == []


@every_case
def test_no_selector_changes_with_the_chart(name: str) -> None:
    labels = chain.from_iterable(
        one["spec"]["selector"]["matchLabels"] for one in case(name).of("Deployment", "StatefulSet")
    )

    assert set(labels) <= {
        "app.kubernetes.io/name",
        "app.kubernetes.io/instance",
        "app.kubernetes.io/component",
        "streamworker.dev/worker",
        "track",
    }


@every_case
def test_each_workload_selects_its_own_pods_and_no_other(name: str) -> None:
    found = case(name)
    pods = list(_pods(found))

    for one in found.of("Deployment", "StatefulSet"):
        selected = [where for where, labels, _ in pods if _selects(one["spec"]["selector"], labels)]
        assert selected == [f"{one['kind']} {one['metadata']['name']}"]


@every_case
def test_no_pod_is_replaced_because_the_chart_has_another_version(name: str) -> None:
    for one in case(name).of("Deployment", "StatefulSet"):
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & labels.keys()


@every_case
def test_a_budget_covers_the_pods_of_a_worker_and_of_its_canary(name: str) -> None:
    found = case(name)
    pods = {where: labels for where, labels, _ in _pods(found)}
    workers = {
        labels["streamworker.dev/worker"]
        for labels in pods.values()
        if labels["app.kubernetes.io/component"] == "worker"
    }

    for budget in found.of("PodDisruptionBudget"):
        covered = {
            where.partition(" ")[2] for where, labels in pods.items() if _selects(budget["spec"]["selector"], labels)
        }
        name = budget["metadata"]["name"]
        assert covered == {name} | ({f"{name}-canary"} if f"Deployment {name}-canary" in pods else set())
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert len(found.of("PodDisruptionBudget")) == len(workers)


@pytest.mark.parametrize("name", ["hpa", "full"])
def test_the_pod_monitor_finds_each_pod_that_serves_metrics_at_its_port(name: str) -> None:
    found = case(name)
    [monitor] = found.of("PodMonitor")
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]

    scraped = {where: spec for where, labels, spec in _pods(found) if _selects(monitor["spec"]["selector"], labels)}

    serving = {where for where, _, spec in _pods(found) if endpoint["port"] in _ports(spec)}
    assert scraped.keys() == serving
    assert {"Deployment demo-streamworker-lag", "Deployment demo-flow-lag"} & serving
    assert monitor["spec"]["namespaceSelector"]["matchNames"] == ["flows"]


def test_metrics_without_a_group_get_that_of_their_pod() -> None:
    found = case("full")
    [monitor] = found.of("PodMonitor")
    [relabeling] = monitor["spec"]["podMetricsEndpoints"][0]["relabelings"]

    template = found.one("Deployment", "demo-flow-orders")["spec"]["template"]

    [annotation] = [one for one in template["metadata"]["annotations"] if one.endswith("/group")]
    named = annotation.replace(".", "_").replace("/", "_")
    assert relabeling == {"sourceLabels": [f"__meta_kubernetes_pod_annotation_{named}"], "targetLabel": "group"}
    assert template["metadata"]["annotations"][annotation] == "orders"


def _ports(spec: Object) -> dict[str, int]:
    return {
        port["name"]: port["containerPort"] for container in spec["containers"] for port in container.get("ports", ())
    }


@every_case
def test_every_named_port_is_one_of_the_containers_that_it_is_asked_of(name: str) -> None:
    found = case(name)

    for service in found.of("Service"):
        selected = [spec for _, labels, spec in _pods(found) if service["spec"]["selector"].items() <= labels.items()]
        assert selected, service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            assert all(port["targetPort"] in _ports(spec) for spec in selected)
    for _, _, spec in _pods(found):
        for container in spec["containers"]:
            probed = [container[probe] for probe in container if probe.endswith("Probe")]
            ports = [(one.get("httpGet") or one["tcpSocket"])["port"] for one in probed]
            assert set(ports) <= _ports(spec).keys()


@pytest.mark.parametrize("name", ["tls-sasl", "full"])
def test_the_network_policy_covers_every_pod_and_names_ports_that_they_have(name: str) -> None:
    found = case(name)
    [policy] = found.of("NetworkPolicy")

    ports = set(chain.from_iterable(_ports(spec) for _, _, spec in _pods(found)))

    assert all(_selects(policy["spec"]["podSelector"], labels) for _, labels, _ in _pods(found))
    let_in = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    assert let_in == (ports if name == "full" else set())
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_the_network_policy_lets_pods_reach_names_brokers_and_what_is_added_only() -> None:
    [policy] = case("full").of("NetworkPolicy")

    names, brokers, workers, redis = policy["spec"]["egress"]

    assert names == {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    assert brokers == {
        "to": [{"ipBlock": {"cidr": "10.20.0.0/16"}}],
        "ports": [{"port": 9093, "protocol": "TCP"}],
    }
    assert workers["ports"] == [{"port": "http", "protocol": "TCP"}]
    assert redis["ports"] == [{"port": 6379, "protocol": "TCP"}]


@pytest.mark.parametrize("name", ["keda", "hpa", "tls-sasl", "canary", "full"])
def test_what_scales_scales_something_that_is_there_and_has_no_replicas(name: str) -> None:
    found = case(name)

    for scaler in found.of("ScaledObject", "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        scaled = found.one(target["kind"], target["name"])
        assert scaled["apiVersion"] == target["apiVersion"]
        # A Rollout without them has no scale, and its controller owns them from then on.
        assert "replicas" not in scaled["spec"] or target["kind"] == "Rollout"
    assert found.of("ScaledObject", "HorizontalPodAutoscaler")


@every_case
def test_only_what_is_not_scaled_says_how_many_there_are(name: str) -> None:
    found = case(name)
    scaled = {
        one["metadata"]["labels"]["streamworker.dev/worker"]
        for one in found.of("ScaledObject", "HorizontalPodAutoscaler")
    }

    for one in found.of("Deployment", "StatefulSet"):
        labels = one["spec"]["selector"]["matchLabels"]
        by_itself = labels.get("track") == "stable" and labels["streamworker.dev/worker"] in scaled
        assert ("replicas" in one["spec"]) is not by_itself


@every_case
def test_what_pods_mount_is_rendered_or_named_by_the_values(name: str) -> None:
    found = case(name)
    config_maps = {one["metadata"]["name"] for one in found.of("ConfigMap")}
    given = (CHART / "ci" / f"{name}-values.yaml").read_text("utf-8")

    for _, _, spec in _pods(found):
        for volume in spec["volumes"]:
            if "configMap" in volume:
                assert volume["configMap"]["name"] in config_maps
            if "secret" in volume:
                assert volume["secret"]["secretName"] in given
        accounts = {one["metadata"]["name"] for one in found.of("ServiceAccount")} | {"default"}
        assert spec["serviceAccountName"] in accounts


def test_no_object_of_an_operator_is_there_unless_it_is_asked_for() -> None:
    kinds = {one["apiVersion"] for one in rendered(with_worker({})).objects}

    assert kinds == {"v1", "apps/v1", "policy/v1"}


def test_a_hooks_job_needs_nothing_that_comes_after_it() -> None:
    found = case("full")
    hooks = [one for one in found.objects if "helm.sh/hook" in one["metadata"].get("annotations", {})]
    before = {one["metadata"]["name"] for one in hooks if one["kind"] == "ConfigMap"}

    jobs = [one for one in hooks if one["kind"] == "Job"]

    assert [job["metadata"]["name"] for job in jobs] == ["demo-flow-orders-topics", "demo-flow-shipments-topics"]
    for job in jobs:
        spec = job["spec"]["template"]["spec"]
        assert spec["serviceAccountName"] == "default"
        assert {volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume} <= before


def test_the_console_asks_workers_at_a_name_that_the_chart_gives_them() -> None:
    found = case("console")

    table = found.one("ConfigMap", "demo-streamworker-console")["data"]["streamworker.toml"]

    service = found.one("Service", "demo-streamworker-workers")
    assert f'workers = "{service["metadata"]["name"]}.flows.svc:{service["spec"]["ports"][0]["port"]}"' in table
    assert service["spec"]["publishNotReadyAddresses"] is True


def test_the_ingress_is_for_the_host_that_people_come_by() -> None:
    [ingress] = case("full").of("Ingress")

    assert ingress["spec"]["rules"][0]["host"] == "letters.example.org"


def test_labels_that_users_add_change_no_selector() -> None:
    labels = {"app.kubernetes.io/instance": "other", "track": "other", "team": "billing"}

    deployment = rendered(with_worker({"podLabels": labels}, commonLabels=labels)).one(
        "Deployment", "demo-streamworker-orders"
    )

    for found in (deployment["metadata"]["labels"], deployment["spec"]["template"]["metadata"]["labels"]):
        assert (found["app.kubernetes.io/instance"], found["track"], found["team"]) == ("demo", "stable", "billing")
