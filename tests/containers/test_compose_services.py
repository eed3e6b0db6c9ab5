"""The services of the compose file's profile `app`, by their own commands, on the tests' servers."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import yaml
from containers.engine import Container, hardened, podman
from fleet.workers import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servers.kafka import SharedKafka
    from servers.postgres import Postgres

SERVICES: Mapping[str, Mapping[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[2] / "docker-compose.kafka.yml").read_text("utf-8")
)["services"]

WELL_TIMEOUT_S = 120.0  # 10 s each on a busy machine


@pytest.fixture
def options(kafka: SharedKafka, postgres: Postgres) -> list[str]:
    """The environment of the services, with other addresses; names are not ours to choose, so neither are servers."""
    assert kafka.server.owned
    environment = {
        **SERVICES["worker"]["environment"],
        "STREAMWORKER__KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "STREAMWORKER__SINKS__WAREHOUSE": postgres.url,
    }
    return [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]


def words(name: str, key: str) -> list[str]:
    """Of a command, with the defaults of its variables."""
    return [re.sub(r"\$\{\w+:-(.*?)\}", r"\1", word) for word in SERVICES[name].get(key, [])]


def called(name: str) -> tuple[list[str], list[str]]:
    """The command of a service, and the options by which its entry point is another one."""
    entry = words(name, "entrypoint")
    return [*entry[1:], *words(name, "command")], ["--entrypoint", entry[0]] if entry else []


def is_well(name: str) -> bool:
    """Whether the service's own check passes."""
    kind, *check = SERVICES[name]["healthcheck"]["test"]
    command = check if kind == "CMD" else ["sh", "-c", *check]
    return podman("exec", f"streamworker-{name}", *command, check=False).returncode == 0


def test_the_example_runs_as_the_compose_file_says(orders_image: str, options: list[str], postgres: Postgres) -> None:
    for errand in ("orders", "topics", "tables"):
        command, before = called(errand)
        done = hardened(orders_image, *command, options=[*options, *before])
        assert done.returncode == 0, done.stderr
    containers: dict[str, Container] = {}
    with ExitStack() as stack:
        for name in ("worker", "shop", "console"):
            command, before = called(name)
            started = Container(f"streamworker-{name}", orders_image, *command, options=[*options, *before])
            container = containers[name] = stack.enter_context(started)
            wait_for(lambda name=name: is_well(name), lambda c=container: f"{c.name}\n{c.log()}", WELL_TIMEOUT_S)
        with psycopg.connect(postgres.url, autocommit=True) as database:
            count = "SELECT count(*) FROM orders"
            wait_for(lambda: database.execute(count).fetchone() > (300,), containers["worker"].log, WELL_TIMEOUT_S)
        link = re.search(r"http://localhost:8090/login\?token=\S+", container.log())
        for name in ("shop", "worker"):
            assert podman("stop", "--time", "40", f"streamworker-{name}").returncode == 0
        codes = podman("inspect", "--format", "{{.State.ExitCode}}", "streamworker-worker", "streamworker-shop").stdout

    assert link is not None
    assert codes.split() == ["0", "0"]
