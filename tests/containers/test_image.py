"""The image, run as the chart's securityContext says."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, TopicPartition
from containers.engine import Container, hardened, inspected
from fleet.confinement import WHERE_IT_WRITES, status_of
from fleet.history import Effect, read
from fleet.workers import wait_for
from fleet.workload import Workload

from streamworker import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers.kafka import SharedKafka

USER = 10001
PARTITIONS = 4
MEMORY_KIB = 256 * 1024
GRACE_S = 39  # the chart's, of the defaults: drain 25, close 4, and 10
# Where the engine mounts something: it is there, and nothing in it is the container's.
MOUNTS = {"/tmp", "/shared", "/etc", "/run", "/run/.containerenv", "/etc/mtab"}
MODULES = "redis psycopg httpx2 starlette jinja2 uvicorn argon2 uvloop joserfc confluent_kafka.schema_registry fastavro"


def python(image: str, code: str, *arguments: str) -> str:
    """What `code` prints in a container."""
    done = hardened(image, "-c", code, *arguments, options=["--entrypoint", "python"])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_image_says_what_it_is_and_how_it_is_run(
    image: tuple[str, float], base_image: str, figures: Callable[..., None]
) -> None:
    tag, build_s = image

    config = inspected(tag)["Config"]

    assert config["Entrypoint"] == ["streamworker"]
    assert config["Cmd"] == ["--help"]
    assert config["User"] == f"{USER}:{USER}"
    assert inspected(tag)["Healthcheck"]["Test"] == ["CMD", "streamworker", "healthcheck"]
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    base_mb, all_mb = (inspected(one)["Size"] / 1e6 for one in (base_image, tag))
    figures("S20", "image", build_s=round(build_s), base_mb=round(base_mb), added_mb=round(all_mb - base_mb))


def test_it_runs_as_nobody_with_no_capability_and_writes_nowhere_but_to_tmp(image: tuple[str, float]) -> None:
    answers = json.loads(python(image[0], WHERE_IT_WRITES, "/app", "/opt/streamworker", "/run", "/var/tmp"))
    said = python(image[0], "print(open('/proc/self/status').read())").splitlines()
    rights = dict(line.split(":\t", 1) for line in said if ":\t" in line)

    assert set(rights["Uid"].split()) == {str(USER)}
    assert {int(rights[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (rights["NoNewPrivs"], rights["Seccomp"]) == ("1", "2")
    assert answers.pop("/tmp") == "yes"
    assert set(answers.values()) == {"Read-only file system"}


def test_without_a_command_it_shows_its_help_at_once(image: tuple[str, float], figures: Callable[..., None]) -> None:
    began_s = time.monotonic()
    shown = hardened(image[0])
    figures("S20", "image, from podman run to the end of --help", seconds=round(time.monotonic() - began_s, 1))

    assert shown.returncode == 0
    assert shown.stdout.startswith("Usage: streamworker [OPTIONS] COMMAND")
    assert hardened(image[0], "--version").stdout == f"streamworker {__version__}\n"


def test_it_has_what_the_extras_need_and_nothing_to_install_more_with(image: tuple[str, float]) -> None:
    code = f"import importlib; [importlib.import_module(name) for name in {MODULES.split()!r}]; print('all')"

    assert python(image[0], code) == "all\n"
    assert "No module named pip" in hardened(image[0], "-m", "pip", options=["--entrypoint", "python"]).stderr


def test_its_modules_are_compiled_because_nobody_could_do_so_later(image: tuple[str, float]) -> None:
    code = """
import importlib.util, pathlib, streamworker
for file in pathlib.Path(streamworker.__file__).parent.rglob('*.py'):
    kept = pathlib.Path(importlib.util.cache_from_source(str(file))).read_bytes()
    assert int.from_bytes(kept[8:12], 'little') == int(file.stat().st_mtime), file
print('all')
"""

    assert python(image[0], code) == "all\n"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that containers may write to."""
    folder = tmp_path / "shared"
    folder.mkdir()
    os.chown(folder, USER, USER)
    return folder


def test_a_worker_in_a_container_drains_in_time_on_sigterm_and_loses_nothing(
    kafka: SharedKafka, ledger_image: str, shared: Path, figures: Callable[..., None]
) -> None:
    """A pod's life: ready by the image's own check, SIGTERM under load, and a successor that goes on."""
    topic, group = kafka.topic("orders", partitions=PARTITIONS), kafka.group("orders")
    kafka.dead_letters(topic)
    settings = shared / "streamworker.toml"
    settings.write_text(
        f'kafka.bootstrap_servers = "{kafka.bootstrap_servers}"\nkafka.group = "{group}"\n'
        'kafka.group_protocol = "consumer"\nkafka.session_timeout_s = 6\nlifecycle.revoke_timeout_s = 3\n'
        'app.ledger = "/shared/ledger"\napp.work_s = 0.004\n'
    )
    options = ["--volume", f"{shared}:/shared", "--env", f"LEDGER_TOPIC={topic}"]
    command = ["run", "fleet.apps:LedgerWithDeadLetters", "--config", "/shared/streamworker.toml"]

    def effects() -> list[Effect]:
        return [one for one in read(shared / "ledger") if isinstance(one, Effect)]

    deeds = {"poison": 0.01, "slow0.5": 0.005}
    with Workload(
        kafka.bootstrap_servers, topic, shared, partitions=PARTITIONS, total=8000, rate=400, deeds=deeds
    ) as workload:
        with Container("streamworker-first", ledger_image, *command, options=options) as first:
            began_s = time.monotonic()
            wait_for(lambda: first.healthy, first.log, 30)
            ready_s = time.monotonic() - began_s
            wait_for(lambda: len(effects()) > 500, first.log, 60)
            peak_kib = int(status_of(first.pid)["VmHWM"].removesuffix("kB"))
            began_s = time.monotonic()
            code = first.stop(GRACE_S)
            stop_s = time.monotonic() - began_s
            changed = first.changed()
        handled_by_first = len(effects())
        workload.stop()
        with Container("streamworker-second", ledger_image, *command, "--until-end", options=options) as second:
            workload.finish()
            wait_for(lambda: not second.running, second.log, 60)

    sent = [one for one in workload.sent() if one.outcome == "ok"]
    handled = [(one.partition, one.offset) for one in effects()]
    poison = {(one.partition, one.offset) for one in sent} - set(handled)
    letters = dead_letters(kafka, f"{topic}.dlq")
    assert code == 0
    assert stop_s < GRACE_S
    assert handled_by_first < len(sent)
    assert len(handled) == len(set(handled))
    assert len(poison) == letters
    assert peak_kib < MEMORY_KIB
    assert {line.split()[1] for line in changed.splitlines()} <= MOUNTS
    figures(
        "S20",
        "worker in a container",
        ready_s=round(ready_s, 1),
        stop_s=round(stop_s, 1),
        peak_mib=peak_kib // 1024,
        records=len(sent),
        lost=len(poison) - letters,
        repeats=len(handled) - len(set(handled)),
    )


def dead_letters(kafka: SharedKafka, topic: str) -> int:
    """How many are in the topic, which has one partition."""
    reader = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "reader of dead letters"})
    try:
        return int(reader.get_watermark_offsets(TopicPartition(topic, 0), 10)[1])
    finally:
        reader.close()
