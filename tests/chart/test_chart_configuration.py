"""The configuration of the values, as TOML, is what the worker's own loader reads of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from rendered_chart import CASE_NAMES, case, refusal, rendered, with_worker

from streamworker.cli.settings import load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rendered_chart import Rendered

    from streamworker.config import Config


def _loaded(found: Rendered, folder: Path, name: str = "demo-streamworker-orders") -> Config:
    file = folder / "streamworker.toml"
    file.write_text(found.one("ConfigMap", name)["data"]["streamworker.toml"], "utf-8")
    return load(files=[file], environ={}, overrides=()).config


def test_every_kind_of_value_arrives_as_it_was_meant(tmp_path: Path) -> None:
    values: Mapping[str, object] = {
        "text": 'quotes " and \\, <tags> & a tab\t, a line\n, and ünïcode 🎉',
        "control": "\x01\x7f",
        "empty": "",
        "number": "500",
        "whole": 500,
        "zero": 0,
        "large": 9_007_199_254_740_991,
        "negative": -3,
        "share": 0.5,
        "small": 1e-9,
        "huge": 2.5e20,
        "yes": True,
        "no": False,
        "list": [1, 2.5, "three", [True], {"four": 4}],
        "nothing in it": [],
        "table": {"nested": {"a.b": 1, 'quote"d': 2}, "before": "it"},
        "no table": {},
    }

    config = _loaded(rendered(with_worker({"config": {"app": values}})), tmp_path)

    assert config.app == values
    assert {name: type(value) for name, value in config.app.items() if name in {"whole", "zero", "large", "share"}} == {
        "whole": int,
        "zero": int,
        "large": int,
        "share": float,
    }


def test_whole_numbers_fit_options_of_either_kind(tmp_path: Path) -> None:
    tables = {"commit": {"interval_s": 1, "max_uncommitted": 500}, "flow": {"resume_at": 0.25}}

    config = _loaded(rendered(with_worker({"config": tables})), tmp_path)

    assert (config.commit.interval_s, config.commit.max_uncommitted, config.flow.resume_at) == (1, 500, 0.25)
    assert isinstance(config.commit.max_uncommitted, int)


def test_the_clients_options_keep_the_dots_of_their_names(tmp_path: Path) -> None:
    flat = {"consumer.fetch.min.bytes": 1000, "linger.ms": 5, "enable.random.seed": False}

    config = _loaded(rendered(with_worker({"config": {"kafka": {"librdkafka": flat}}})), tmp_path)

    assert config.kafka.librdkafka == flat


def test_a_worker_has_its_own_tables_over_those_of_all(tmp_path: Path) -> None:
    found = rendered(
        with_worker(
            {"config": {"log": {"level": "DEBUG"}, "app": {"share": 0}}},
            config={"log": {"level": "ERROR", "format": "json"}, "app": {"share": 0.5, "kept": True}},
        )
    )

    config = _loaded(found, tmp_path)

    assert (config.log.level, config.log.format) == ("DEBUG", "json")
    assert config.app == {"share": 0, "kept": True}
    assert (config.kafka.bootstrap_servers, config.kafka.group) == ("kafka:9092", "orders")


def test_null_takes_an_option_away(tmp_path: Path) -> None:
    found = rendered(with_worker({"config": {"app": {"a": None}}}, config={"app": {"a": 1, "b": None, "c": 2}}))

    assert _loaded(found, tmp_path).app == {"c": 2}


@pytest.mark.parametrize("name", [name for name in CASE_NAMES if name not in {"tls-sasl", "full"}])
def test_the_loader_takes_the_configuration_of_each_case(name: str, tmp_path: Path) -> None:
    found = case(name)
    maps = [one["metadata"]["name"] for one in found.of("ConfigMap") if "streamworker.toml" in one["data"]]

    for one in maps:
        assert _loaded(found, tmp_path, one).kafka.bootstrap_servers

    assert maps


@pytest.mark.parametrize("name", ["tls-sasl", "full"])
def test_the_loader_takes_it_with_the_files_of_the_secrets(name: str, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    for folder, files in {"kafka-tls": ("ca.crt", "password"), "kafka-sasl": ("username", "user", "password")}.items():
        (secrets / folder).mkdir(parents=True)
        for file in files:
            (secrets / folder / file).write_text(f"{file}\n")
    found = case(name)
    for one in found.of("ConfigMap"):
        text = one["data"].get("streamworker.toml")
        if text is not None:
            (tmp_path / "streamworker.toml").write_text(text.replace("/run/secrets", str(secrets)))
            config = load(files=[tmp_path / "streamworker.toml"], environ={}, overrides=()).config

            assert config.kafka.librdkafka["security.protocol"] == "SASL_SSL"
            assert config.kafka.librdkafka["sasl.password"] == "password"


@pytest.mark.parametrize(
    ("kafka", "protocol"),
    [
        ({"tls": {"enabled": True}}, "SSL"),
        ({"sasl": {"mechanism": "PLAIN", "existingSecret": "kafka"}}, "SASL_PLAINTEXT"),
        ({"tls": {"enabled": True}, "sasl": {"mechanism": "PLAIN", "existingSecret": "kafka"}}, "SASL_SSL"),
    ],
)
def test_the_protocol_follows_what_is_asked_for(kafka: Mapping[str, object], protocol: str) -> None:
    found = rendered(with_worker({}, kafka=kafka))

    text = found.one("ConfigMap", "demo-streamworker-orders")["data"]["streamworker.toml"]

    assert f'"security.protocol" = "{protocol}"' in text


@pytest.mark.parametrize(
    "option", ["sasl.password", "ssl.key.password", "sasl.username", "sasl.oauthbearer.client.secret"]
)
def test_a_secret_among_the_clients_options_is_refused(option: str) -> None:
    message = refusal(with_worker({"config": {"kafka": {"librdkafka": {option: "abc"}}}}))

    assert f"config.kafka.librdkafka.{option}: a ConfigMap is no place for secrets" in message


def test_a_password_in_a_url_is_refused_wherever_it_stands() -> None:
    message = refusal(with_worker({}, config={"cache": {"redis": "redis://:abc@redis:6379/0"}}))

    assert "a URL with a password" in message
    assert "abc" not in message


def test_a_name_in_an_option_that_does_not_exist_is_refused_before_anything_is_installed() -> None:
    message = refusal(with_worker({}, config={"commit": {"intervall_s": 1}}))

    assert "intervall_s" in message


def test_the_schema_of_the_configuration_is_the_workers_own() -> None:
    wrong = json.loads('{"config": {"commit": {"interval_s": "soon"}}}')

    message = refusal(with_worker({}, **wrong))

    assert "/config/commit/interval_s" in message
