"""What a worker under a supervisor is told, and what of its configuration differs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamworker.cli.role import VARIABLE, Role, take_role
from streamworker.config import Config, HttpConfig, KafkaConfig

ROLE = Role(number=3, tether=7, socket="/tmp/workers/3")


def test_without_a_supervisor_there_is_no_role() -> None:
    assert take_role() is None


def test_a_role_is_taken_once_so_that_no_process_of_the_application_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, '{"number": 3, "tether": 7, "socket": "/tmp/workers/3"}')

    assert take_role() == ROLE
    assert VARIABLE not in os.environ


def test_each_worker_has_its_own_socket_in_place_of_the_port() -> None:
    fitted = ROLE.fitted(Config(http=HttpConfig(host="10.0.0.1", port=9090)))

    assert fitted.http.host == "unix:/tmp/workers/3"


@pytest.mark.parametrize("option", ["group.instance.id", "consumer.group.instance.id"])
def test_each_worker_has_its_own_identity_and_all_else_is_the_same(option: str) -> None:
    config = Config(kafka=KafkaConfig(group="g", librdkafka={option: "orders", "client.id": "shop"}))

    fitted = ROLE.fitted(config)

    assert fitted.kafka.librdkafka == {option: "orders-3", "client.id": "shop"}
    assert fitted.kafka.group == "g"


def test_secrets_stay_masked() -> None:
    config = Config(kafka=KafkaConfig(librdkafka={"sasl.password": "s3cr3t"}))

    assert "s3cr3t" not in repr(ROLE.fitted(config).kafka.librdkafka)


def test_the_last_worker_of_a_supervisor_that_is_gone_removes_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "workers"
    folder.mkdir()
    first, last = (Role(number, 7, str(folder / str(number))) for number in range(2))
    for role in (first, last):
        Path(role.socket).touch()

    first.tidy()
    assert [path.name for path in folder.iterdir()] == ["1"]

    last.tidy()
    assert not folder.exists()
