"""Pods of the chart: as the restricted Pod Security Standard asks for, and running what the worker knows."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from rendered_chart import CASE_NAMES, case, refusal, rendered, with_worker

from streamworker import __version__
from streamworker.cli.main import main as command_line
from streamworker.cli.settings import load
from streamworker.config import Config
from streamworker.observability import pages, workers_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rendered_chart import Object

every_case = pytest.mark.parametrize("name", CASE_NAMES)
# What the standard lets a pod have.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def breaches(spec: Object) -> Iterator[str]:
    """What keeps a pod out of a namespace that enforces the standard, as its rules have it."""
    pod = spec.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field
    for volume in spec["volumes"]:
        if not volume.keys() - {"name"} <= VOLUMES:
            yield f"volume {volume['name']}"
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        own = container.get("securityContext", {})
        found = {
            "privileged": own.get("privileged", False),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation", True),
            "runAsNonRoot": not own.get("runAsNonRoot", pod.get("runAsNonRoot", False)),
            "runAsUser": own.get("runAsUser", pod.get("runAsUser")) == 0,
            "capabilities": own.get("capabilities", {}).get("drop") != ["ALL"],
            "added capabilities": set(own.get("capabilities", {}).get("add", ())) - {"NET_BIND_SERVICE"},
            "seccompProfile": own.get("seccompProfile", pod.get("seccompProfile", {})).get("type")
            not in {"RuntimeDefault", "Localhost"},
            "hostPort": any(port.get("hostPort") for port in container.get("ports", ())),
        }
        yield from (f"{container['name']}: {rule}" for rule, is_broken in found.items() if is_broken)


@every_case
def test_every_pod_keeps_to_the_restricted_standard(name: str) -> None:
    found = {where: list(breaches(template["spec"])) for where, template in case(name).templates()}

    assert {where: broken for where, broken in found.items() if broken} == {}


@every_case
def test_no_pod_writes_but_to_its_tmp_or_has_a_token(name: str) -> None:
    for _, template in case(name).templates():
        spec = template["spec"]
        own = spec["containers"][0]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert own["securityContext"]["readOnlyRootFilesystem"] is True
        assert {"name": "tmp", "mountPath": "/tmp"} in own["volumeMounts"]


def test_the_standard_that_is_asked_about_is_broken_by_what_breaks_it() -> None:
    spec = rendered(with_worker({"securityContext": {"allowPrivilegeEscalation": True}})).one(
        "Deployment", "demo-streamworker-orders"
    )["spec"]["template"]["spec"]

    assert list(breaches(spec)) == ["worker: allowPrivilegeEscalation"]


@every_case
def test_the_command_line_of_each_container_is_one_that_the_command_knows(name: str) -> None:
    for where, template in case(name).templates():
        parsed(template["spec"]["containers"][0]["args"], where)


def parsed(arguments: list[str], where: str) -> dict[str, object]:
    """The parameters that the arguments give; files need not exist here. Fails for what click refuses."""
    command: click.Command = command_line
    context = click.Context(command)
    arguments = list(arguments)
    while isinstance(command, click.Group):
        found = command.get_command(context, arguments[0])
        assert found is not None, f"{where}: no command {arguments[0]}"
        command, context = found, click.Context(found, context, info_name=arguments.pop(0))
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):
            parameter.type.exists = False
    command.parse_args(context, arguments)
    return context.params


def test_an_option_that_does_not_exist_is_not_known() -> None:
    with pytest.raises(click.NoSuchOption, match="--handler"):
        parsed(["run", "app:Handler", "--handler", "x"], "here")


@every_case
def test_every_variable_of_ours_sets_an_option(name: str) -> None:
    variables = {
        one["name"]: "text"
        for _, template in case(name).templates()
        for one in template["spec"]["containers"][0]["env"]
        if one["name"].startswith("STREAMWORKER")
    }

    assert load(files=(), environ=variables, overrides=()).cautions == ()


def test_the_id_of_a_static_member_is_the_name_of_its_pod() -> None:
    template = case("statefulset").one("StatefulSet", "demo-streamworker-prices")["spec"]["template"]
    [variable] = [one for one in template["spec"]["containers"][0]["env"] if one["name"].startswith("STREAMWORKER__")]

    settings = load(files=(), environ={variable["name"]: "demo-streamworker-prices-0"}, overrides=())

    assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert settings.config.kafka.librdkafka == {"group.instance.id": "demo-streamworker-prices-0"}


def test_probes_ask_pages_that_there_are() -> None:
    container = case("minimal").one("Deployment", "demo-streamworker-orders")["spec"]["template"]["spec"]["containers"][
        0
    ]

    asked = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")}

    assert asked == {
        "startup": {"path": "/health/startup", "port": "http"},
        "liveness": {"path": "/health/live", "port": "http"},
        "readiness": {"path": "/health/ready", "port": "http"},
    }
    for site in (pages, workers_site):
        assert all(f'"{one["path"]}":' in inspect.getsource(site) for one in asked.values())
    assert container["ports"] == [{"name": "http", "containerPort": Config().http.port, "protocol": "TCP"}]


@every_case
def test_every_worker_has_the_time_that_its_configuration_takes_to_end(name: str) -> None:
    found = case(name)

    for where, template in found.templates():
        if template["metadata"]["labels"]["app.kubernetes.io/component"] == "worker":
            config = _configuration(template["spec"], name)
            needed_s = config.lifecycle.drain_timeout_s + config.commit.timeout_s + config.lifecycle.close_timeout_s
            assert template["spec"]["terminationGracePeriodSeconds"] >= needed_s + 10, where


def _configuration(spec: Object, name: str) -> Config:
    [config_map] = [volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume]
    text = case(name).one("ConfigMap", config_map)["data"]["streamworker.toml"]
    tables = tomllib.loads(text)
    tables["kafka"].pop("librdkafka", None)  # it names files of the pod
    overrides = [
        f"{table}.{option}={value}"
        for table in ("kafka", "lifecycle", "commit")
        for option, value in tables.get(table, {}).items()
    ]
    return load(files=(), environ={}, overrides=overrides).config


def test_the_time_to_end_in_is_that_of_the_workers_own_defaults() -> None:
    config = Config()
    needed_s = config.lifecycle.drain_timeout_s + config.commit.timeout_s + config.lifecycle.close_timeout_s + 10

    spec = case("minimal").one("Deployment", "demo-streamworker-orders")["spec"]["template"]["spec"]

    assert spec["terminationGracePeriodSeconds"] == needed_s


@pytest.mark.parametrize(("timeouts", "grace_s"), [((0, 0.05, 0.1), 11), ((60.5, 3, 4), 78), ((25, 2, 4), 41)])
def test_the_time_to_end_in_follows_the_configuration_upwards(timeouts: tuple[float, ...], grace_s: int) -> None:
    drain_s, commit_s, close_s = timeouts
    tables = {
        "lifecycle": {"drain_timeout_s": drain_s, "close_timeout_s": close_s},
        "commit": {"timeout_s": commit_s},
    }

    found = rendered(with_worker({"config": tables}))

    spec = found.one("Deployment", "demo-streamworker-orders")["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == grace_s


def test_less_time_than_that_is_refused_and_more_is_taken() -> None:
    more = rendered(with_worker({"terminationGracePeriodSeconds": 41}))

    message = refusal(with_worker({"terminationGracePeriodSeconds": 40}))

    spec = more.one("Deployment", "demo-streamworker-orders")["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == 41
    assert "workers.orders.terminationGracePeriodSeconds: expected at least 41" in message


def test_pods_are_replaced_one_after_the_other_each_before_the_old_one_goes() -> None:
    spec = case("minimal").one("Deployment", "demo-streamworker-orders")["spec"]

    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert spec["minReadySeconds"] == 15


def test_recreate_needs_nothing_else_to_be_taken_away() -> None:
    spec = rendered(with_worker({"strategy": {"type": "Recreate"}})).one("Deployment", "demo-streamworker-orders")[
        "spec"
    ]

    assert spec["strategy"] == {"type": "Recreate"}


def test_a_change_of_the_configuration_or_of_a_secret_replaces_pods_and_a_change_of_another_worker_does_not() -> None:
    other = {"workers": {"other": {"handlers": ["a:B"], "group": "other"}}}
    plain = rendered(with_worker({}, **other))
    changed = rendered(with_worker({"config": {"log": {"level": "DEBUG"}}}, **other))
    renewed = rendered(with_worker({}, kafka={"secretRevision": "2"}, **other))

    def annotations(found: object, worker: str) -> object:
        template = found.one("Deployment", f"demo-streamworker-{worker}")["spec"]["template"]
        return template["metadata"]["annotations"]

    assert annotations(plain, "orders") != annotations(changed, "orders")
    assert annotations(plain, "other") == annotations(changed, "other")
    assert annotations(plain, "other") != annotations(renewed, "other")


def test_a_canary_is_in_the_same_group_with_another_image_and_other_labels() -> None:
    found = case("canary")
    stable, canary = (
        found.one("Deployment", f"demo-streamworker-orders{end}")["spec"]["template"] for end in ("", "-canary")
    )

    assert stable["spec"]["containers"][0]["image"] == "streamworker:1.4.0"
    assert canary["spec"]["containers"][0]["image"] == "streamworker:1.5.0"
    assert (stable["metadata"]["labels"]["track"], canary["metadata"]["labels"]["track"]) == ("stable", "canary")
    assert stable["spec"]["containers"][0]["args"] == canary["spec"]["containers"][0]["args"]
    texts = [
        tomllib.loads(found.one("ConfigMap", f"demo-streamworker-orders{end}")["data"]["streamworker.toml"])
        for end in ("", "-canary")
    ]
    assert [text["kafka"]["group"] for text in texts] == ["orders", "orders"]
    assert ("deployment" in texts[0], texts[1]["deployment"]) == (False, {"track": "canary"})
    assert texts[1]["log"] == {"level": "DEBUG"}


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({"image": {"digest": f"sha256:{'0' * 64}"}}, f"streamworker@sha256:{'0' * 64}"),
        ({"workers": {"orders": {"image": {"tag": "2"}}}}, "streamworker:2"),
        ({"image": {"digest": f"sha256:{'0' * 64}"}, "workers": {"orders": {"image": {"tag": "2"}}}}, "streamworker:2"),
        ({"image": {"tag": "3"}, "workers": {"orders": {"image": {"repository": "shop"}}}}, "shop:3"),
    ],
)
def test_an_image_is_that_of_the_worker_before_that_of_all(image: dict[str, object], expected: str) -> None:
    found = rendered(with_worker({}, **image))

    spec = found.one("Deployment", "demo-streamworker-orders")["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == expected


def test_an_image_without_a_tag_is_of_the_version_that_the_chart_is_for() -> None:
    spec = case("minimal").one("Deployment", "demo-streamworker-orders")["spec"]["template"]["spec"]

    assert spec["containers"][0]["image"] == f"streamworker:{__version__}"


def test_files_of_secrets_are_where_the_configuration_says() -> None:
    spec = case("tls-sasl").one("Deployment", "demo-streamworker-orders")["spec"]["template"]["spec"]
    text = case("tls-sasl").one("ConfigMap", "demo-streamworker-orders")["data"]["streamworker.toml"]
    mounts = {one["mountPath"] for one in spec["containers"][0]["volumeMounts"]}

    named = {value for value in tomllib.loads(text)["kafka"]["librdkafka"].values() if value.startswith("/")}

    assert {str(Path(one).parent) for one in named} == {"/run/secrets/kafka-tls", "/run/secrets/kafka-sasl"} <= mounts
