from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from streamworker.config import CacheConfig, Config, DeploymentConfig, FlowConfig, HttpConfig, KafkaConfig
from streamworker.observability.catalogue import Metric
from streamworker.observability.logs import LevelCounts
from streamworker.observability.process_figures import config_hash, figures

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE = Config(kafka=KafkaConfig(group="shop", librdkafka={"sasl.password": "one", "client.rack": "a"}))


@contextmanager
def bare_root() -> Iterator[logging.Logger]:
    """The root logger without pytest's handlers, which it is given between a fixture and its test."""
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        yield root
    finally:
        root.handlers = handlers


def librdkafka(**options: str) -> Config:
    dotted = {name.replace("_", "."): value for name, value in options.items()}
    return replace(BASE, kafka=replace(BASE.kafka, librdkafka={**BASE.kafka.librdkafka, **dotted}))


@pytest.mark.parametrize(
    "alike",
    [
        Config(kafka=KafkaConfig(group="shop", librdkafka={"client.rack": "a", "sasl.password": "one"})),
        librdkafka(sasl_password="another"),
        librdkafka(client_rack="b"),
        librdkafka(group_instance_id="pod-1"),
        replace(BASE, http=HttpConfig(host="unix:/tmp/1")),
        replace(BASE, deployment=DeploymentConfig(track="canary")),
    ],
)
def test_secrets_and_what_tells_workers_apart_change_no_hash(alike: Config) -> None:
    assert config_hash(alike) == config_hash(BASE)


@pytest.mark.parametrize(
    "different",
    [
        replace(BASE, kafka=replace(BASE.kafka, group="other")),
        librdkafka(fetch_min_bytes="2"),
        replace(BASE, flow=FlowConfig(max_inflight=7)),
        replace(BASE, cache=CacheConfig(redis="redis://u:secret@other/0")),
        replace(BASE, app={"limits": {"a": [1, 2]}}),
        replace(BASE, app={"limits": {"a": [2, 1]}}),
    ],
)
def test_another_value_changes_the_hash(different: Config) -> None:
    others = [config_hash(BASE), config_hash(replace(BASE, app={"limits": {"a": [3]}}))]

    assert config_hash(different) not in others
    assert len(config_hash(different)) == 12


def test_lines_are_counted_by_level_and_those_of_a_level_of_ones_own_with_the_next_lower() -> None:
    log = logging.getLogger("tests.levels")
    log.setLevel(logging.INFO)

    with bare_root() as root:
        root.addHandler(logging.NullHandler())
        with LevelCounts() as counts:
            for level in (logging.DEBUG, logging.INFO, logging.WARNING, 35, logging.CRITICAL, 99):
                log.log(level, "said")
        log.error("after")

    assert counts.lines() == {"CRITICAL": 2, "ERROR": 0, "WARNING": 2, "INFO": 1, "DEBUG": 0}


def test_counting_does_not_silence_a_program_that_has_not_set_up_logging(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "lastResort", logging.StreamHandler())

    with bare_root(), LevelCounts():
        logging.getLogger("tests.levels").error("to be seen")

    assert "to be seen" in capsys.readouterr().err


def test_a_process_tells_of_its_memory_where_the_system_does() -> None:
    numbers = figures(LevelCounts(), "abc").numbers

    resident = numbers[Metric.RESIDENT]
    assert set(numbers[Metric.LOG_MESSAGES].values()) == {0}
    assert numbers[Metric.CONFIG] == {("abc",): 1}
    assert all(value > 1_000_000 for value in resident.values())
