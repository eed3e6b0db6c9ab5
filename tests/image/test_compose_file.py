"""The compose file, as far as it can be judged without an engine: a schema, and rules of ours."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml

from streamworker import __version__
from streamworker.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.kafka.yml"
TEXT = FILE.read_text("utf-8")
COMPOSE: Mapping[str, Any] = yaml.safe_load(TEXT)
SERVICES: Mapping[str, Mapping[str, Any]] = COMPOSE["services"]
PROFILES = {"kafka", "data", "observe", "app"}
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
# What ends by itself once it has made something; whoever needs that waits for its end.
ERRANDS = {name for name, service in SERVICES.items() if service.get("restart") == "no"}

each_service = pytest.mark.parametrize("name", SERVICES)
each_of_ours = pytest.mark.parametrize("name", OURS)


def test_the_file_is_valid_by_the_schema_of_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]

    checked = subprocess.run(command, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr


@each_service
def test_a_service_belongs_to_profiles_that_the_head_of_the_file_names(name: str) -> None:
    profiles = SERVICES[name]["profiles"]

    assert profiles
    assert set(profiles) <= PROFILES
    assert all(re.search(rf"^#     {profile} ", TEXT, re.MULTILINE) for profile in profiles)


@each_service
def test_a_service_finds_what_it_waits_for_in_each_of_its_profiles(name: str) -> None:
    for other, wait in SERVICES[name].get("depends_on", {}).items():
        assert set(SERVICES[name]["profiles"]) <= set(SERVICES[other]["profiles"])
        assert wait["condition"] == ("service_completed_successfully" if other in ERRANDS else "service_healthy")


@each_service
def test_a_port_is_open_to_this_machine_only_and_may_be_chosen(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        found = re.fullmatch(r"127\.0\.0\.1:\$\{([A-Z]+_PORT):-\d+\}:\d+", port)
        assert found, port
        assert re.search(rf"^#.*\b{found[1]}\b", TEXT, re.MULTILINE)


def test_no_two_services_want_the_same_port() -> None:
    ports = [port.split(":")[2] for service in SERVICES.values() for port in service.get("ports", [])]

    assert len(ports) == len(set(ports))


@each_service
def test_a_service_that_stays_is_asked_whether_it_is_well(name: str) -> None:
    check = SERVICES[name].get("healthcheck", {})

    assert (name in ERRANDS) != ({"test", "interval", "timeout", "retries"} <= check.keys())
    assert name in ERRANDS or check["test"][0] in ("CMD", "CMD-SHELL")


@each_service
def test_an_image_is_of_one_version(name: str) -> None:
    image = SERVICES[name]["image"]

    assert re.fullmatch(r"[a-z/-]+:v?\d+(\.\d+)+(-[a-z]+)?", image), image


@each_service
def test_what_is_mounted_is_there_and_is_not_written_to(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source, _, mode = mount.split(":", 2) if mount.count(":") > 1 else (*mount.split(":"), "")
        if source.startswith("."):
            assert (ROOT / source).exists()
            assert mode == "ro"
        else:
            assert source in COMPOSE["volumes"]


def test_every_volume_is_used() -> None:
    used = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}

    assert set(COMPOSE["volumes"]) == {source for source in used if not source.startswith(".")}


@pytest.mark.parametrize(("service", "pom"), [("kafka", "kafka"), ("registry", "registry")])
def test_servers_have_the_versions_that_tests_run_against(service: str, pom: str) -> None:
    (version,) = re.findall(
        rf"<{pom}\.version>(.+?)</{pom}\.version>", (ROOT / "deploy" / pom / "pom.xml").read_text("utf-8")
    )

    assert SERVICES[service]["image"].endswith(f":{version}")


def test_the_two_listeners_of_kafka_are_for_the_host_and_for_containers() -> None:
    kafka = SERVICES["kafka"]["environment"]
    advertised = dict(one.split("://") for one in kafka["KAFKA_ADVERTISED_LISTENERS"].split(","))

    assert advertised == {"HOST": "localhost:${KAFKA_PORT:-9092}", "CONTAINERS": "kafka:19092"}
    assert COMPOSE["x-of-the-app"]["environment"]["STREAMWORKER__KAFKA__BOOTSTRAP_SERVERS"] == advertised["CONTAINERS"]


@each_of_ours
def test_a_container_of_ours_is_as_confined_as_a_pod(name: str) -> None:
    service = OURS[name]

    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"user", "privileged", "cap_add", "volumes", "init"} & service.keys()


@each_of_ours
def test_a_container_of_ours_is_built_on_the_image_of_this_version(name: str) -> None:
    dockerfile = (ROOT / OURS[name]["build"] / "Dockerfile").read_text("utf-8")

    assert dockerfile.startswith(f"FROM streamworker:{__version__}\n")
    assert len(dockerfile.splitlines()) == 3


@pytest.mark.parametrize("name", [name for name, service in OURS.items() if "entrypoint" not in service])
def test_a_command_of_ours_is_one_that_the_command_line_takes(name: str) -> None:
    words = [re.sub(r"\$\{\w+:-(.*?)\}", r"\1", word) for word in OURS[name].get("command", ["run", "app:Handler"])]
    command: click.Command = main
    context = click.Context(main)

    while isinstance(command, click.Group):
        _, command, words = command.resolve_command(context, words)
        assert command is not None
    made = command.make_context(name, words)  # raises UsageError

    assert made.args == []


def test_prometheus_asks_services_of_the_file_and_reads_the_rules_that_are_mounted() -> None:
    config = yaml.safe_load((ROOT / "deploy/compose/prometheus.yml").read_text("utf-8"))
    asked = {name for job in config["scrape_configs"] for one in job["dns_sd_configs"] for name in one["names"]}
    managers = [one for ones in config["alerting"]["alertmanagers"] for one in ones["static_configs"]]
    told = {target for one in managers for target in one["targets"]}
    mounted = [mount.split(":")[1] for mount in SERVICES["prometheus"]["volumes"]]

    assert asked <= OURS.keys()
    assert {target.partition(":")[0] for target in told} <= SERVICES.keys()
    assert {str(Path(pattern).parent) for pattern in config["rule_files"]} <= set(mounted)


def test_grafana_finds_prometheus_and_the_boards_that_are_mounted() -> None:
    folder = ROOT / "deploy/compose/grafana"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text("utf-8"))["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards/streamworker.yaml").read_text("utf-8"))["providers"]
    mounted = [mount.split(":")[1] for mount in SERVICES["grafana"]["volumes"]]

    assert source["url"] == "http://prometheus:9090"
    assert provider["options"]["path"] in mounted
