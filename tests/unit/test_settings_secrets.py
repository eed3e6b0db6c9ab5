"""No secret reaches any output, wherever it was written."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from streamworker.cli.main import main
from streamworker.cli.settings import load
from streamworker.config import KafkaConfig
from streamworker.librdkafka import MASK, redact, without_secrets

if TYPE_CHECKING:
    from pathlib import Path

CANARY = f"s3cr3t-{uuid.uuid4()}"

CLIENT_SECRETS = (
    "sasl.password",
    "sasl.username",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    "ssl.ca.pem",
    "consumer.sasl.password",
)
APP_SECRETS = {
    "password": CANARY,
    "api_key": CANARY,
    "auth_token": CANARY,
    "CLIENT_SECRET": CANARY,
    "credentials": f'{{user = "ann", pin = "{CANARY}"}}',
    "redis": f"rediss://:{CANARY}@cache:6379/0",
    "database": f"postgresql://ann:{CANARY}@db/orders",
    "dsn": f"host=db user=ann password={CANARY}",
    "replicas": f'["http://u:{CANARY}@a", "http://u:{CANARY}@b"]',
}
COMMANDS = (["config", "show"], ["config", "show", "--json"], ["check", "--timeout", "0.1"])


def quoted(value: str) -> str:
    return value if value[0] in "{[" else f'"{value}"'


def everywhere() -> str:
    client = "\n".join(f'"{name}" = "{CANARY}"' for name in CLIENT_SECRETS)
    app = "\n".join(f"{name} = {quoted(value)}" for name, value in APP_SECRETS.items())
    return f'[kafka]\nbootstrap_servers = "127.0.0.1:1"\n[kafka.librdkafka]\n{client}\n[app]\n{app}\n'


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_secret_in_a_file_is_in_no_output(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "streamworker.toml"
    file.write_text(everywhere(), encoding="utf-8")

    result = CliRunner().invoke(main, [*command, "--config", str(file)])

    assert CANARY not in result.output + repr(result.exception)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_secret_in_a_variable_or_an_override_is_in_no_output(command: list[str]) -> None:
    environ = {"STREAMWORKER__KAFKA__LIBRDKAFKA__SASL_PASSWORD": CANARY, "STREAMWORKER__APP__TOKEN": CANARY}
    overrides = ["--set", f"kafka.librdkafka.ssl.key.password={CANARY}", "--bootstrap-servers", "127.0.0.1:1"]

    result = CliRunner().invoke(main, [*command, *overrides], env=environ)

    assert CANARY not in result.output + repr(result.exception)


def test_a_secret_that_is_wrong_is_not_in_the_complaint() -> None:
    overrides = ["--set", f"kafka.librdkafka.sasl.password={CANARY}", "--set", f"kafka.librdkafka.ssl.key.pem={CANARY}"]

    result = CliRunner().invoke(main, ["check", *overrides, "--set", "kafka.librdkafka.no.such=1"])

    assert result.exit_code == 2
    assert CANARY not in result.output


def test_a_loaded_configuration_is_safe_to_log(tmp_path: Path) -> None:
    file = tmp_path / "streamworker.toml"
    file.write_text(everywhere(), encoding="utf-8")

    config = load(files=[file], environ={}, overrides=[]).config

    assert CANARY not in repr(config) + str(config)
    assert config.kafka.librdkafka["sasl.password"] == CANARY


def test_what_is_no_secret_is_shown() -> None:
    assert redact("kafka.group", "orders") == "orders"
    assert redact("dead_letters.records_per_token", 10) == 10
    assert redact("app.url", "https://example.org/a?b=c") == "https://example.org/a?b=c"


def test_a_clients_complaint_loses_the_secrets_of_its_options() -> None:
    options = dict(KafkaConfig(librdkafka={"sasl.password": CANARY, "client.rack": "a"}).librdkafka)

    assert without_secrets(f'bad value "{CANARY}" in rack a', options) == f'bad value "{MASK}" in rack a'
