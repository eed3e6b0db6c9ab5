"""Which of several places a value is taken from, and what text becomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from streamworker.cli.settings import Settings, load
from streamworker.config import Config, GroupProtocol

if TYPE_CHECKING:
    from pathlib import Path


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def loaded(*files: Path, environ: dict[str, str] | None = None, overrides: list[str] | None = None) -> Settings:
    return load(files=files, environ=environ or {}, overrides=overrides or [])


def test_without_any_source_everything_is_default() -> None:
    settings = loaded()

    assert settings.config == Config()
    assert {settings.origin(name) for name, _ in settings.values()} == {"default"}


def test_a_file_wins_over_the_default_a_variable_over_the_file_and_the_command_line_over_all(tmp_path: Path) -> None:
    file = written(tmp_path / "a.toml", '[kafka]\ngroup = "f"\nstart = "f"\nbootstrap_servers = "f:1"')
    environ = {"STREAMWORKER__KAFKA__GROUP": "v", "STREAMWORKER__KAFKA__START": "v"}

    settings = loaded(file, environ=environ, overrides=["kafka.group=c"])

    kafka = settings.config.kafka
    assert (kafka.bootstrap_servers, kafka.start, kafka.group) == ("f:1", "v", "c")
    assert settings.origin("kafka.bootstrap_servers") == str(file)
    assert settings.origin("kafka.start") == "STREAMWORKER__KAFKA__START"
    assert settings.origin("kafka.group") == "command line"
    assert settings.origin("kafka.session_timeout_s") == "default"


def test_the_last_of_two_equal_overrides_wins() -> None:
    assert loaded(overrides=["kafka.group=a", "kafka.group=b"]).config.kafka.group == "b"


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("STREAMWORKER_KAFKA_GROUP", "STREAMWORKER__KAFKA__GROUP"),
        ("STREAMWORKER_KAFKA__GROUP", "STREAMWORKER__KAFKA__GROUP"),
        ("streamworker__kafka__group", "STREAMWORKER__KAFKA__GROUP"),
        ("STREAMWORKER_GROUP", "STREAMWORKER__KAFKA__GROUP"),
        ("STREAMWORKER_BOOTSTRAP_SERVERS", "STREAMWORKER__KAFKA__BOOTSTRAP_SERVERS"),
        ("STREAMWORKER_KAFKA_SERVERS", "STREAMWORKER__KAFKA__BOOTSTRAP_SERVERS"),
        ("STREAMWORKER_KAFAK_GROUP", "STREAMWORKER__KAFKA__GROUP"),
        ("STREAMWORKER_HTTP_PORT", "STREAMWORKER__HTTP__PORT"),
        ("STREAMWORKER_DEAD_LETTERS_BUDGET", "STREAMWORKER__DEAD_LETTERS__BUDGET"),
        ("STREAMWORKER_KAFKA_LIBRDKAFKA_SASL_PASSWORD", "STREAMWORKER__KAFKA__LIBRDKAFKA__SASL_PASSWORD"),
        ("STREAMWORKER_APP__DB__HOST", "STREAMWORKER__APP__DB__HOST"),
        ("STREAMWORKER_DEGRADATION_PLACE", "STREAMWORKER__DEGRADATION__PLACE"),
    ],
)
def test_a_variable_that_only_looks_like_an_option_is_said_with_what_is_read(variable: str, meant: str) -> None:
    settings = loaded(environ={variable: "x"})

    assert settings.config == Config()
    assert settings.cautions == (f"{variable} is not read; did you mean {meant}?",)


def test_variables_of_others_are_not_ours() -> None:
    """Kubernetes sets some in each pod for a service that is called streamworker, or streamworker-http."""
    environ = {
        "STREAMWORKER_TEST_KAFKA": "x",
        "STREAMWORKER_SOAK_S": "60",
        "STREAMWORKER_ROLE": "{}",
        "KAFKA__GROUP": "x",
        "STREAMWORKER_LOG_DIR": "x",
        "STREAMWORKER_KAFKA_TOPIC": "x",
        "STREAMWORKER_VERSION": "1",
        "STREAMWORKER_SERVICE_HOST": "10.0.0.1",
        "STREAMWORKER_SERVICE_PORT": "80",
        "STREAMWORKER_SERVICE_PORT_HTTP": "80",
        "STREAMWORKER_PORT": "tcp://10.0.0.1:80",
        "STREAMWORKER_PORT_80_TCP": "tcp://10.0.0.1:80",
        "STREAMWORKER_PORT_80_TCP_ADDR": "10.0.0.1",
        "STREAMWORKER_HTTP_PORT": "tcp://10.0.0.1:80",
        "STREAMWORKER_HTTP_PORT_80_TCP_PORT": "80",
        "STREAMWORKER_HTTP_SERVICE_HOST": "10.0.0.1",
    }

    settings = loaded(environ=environ)

    assert (settings.config, settings.cautions) == (Config(), ())


@pytest.mark.parametrize(
    ("override", "table", "option", "value"),
    [
        ("http.port=9000", "http", "port", 9000),
        ("http.enabled=false", "http", "enabled", False),
        ("commit.interval_s=0.5", "commit", "interval_s", 0.5),
        ("lifecycle.handler_timeout_s=30", "lifecycle", "handler_timeout_s", 30.0),
        ("lifecycle.handler_timeout_s=null", "lifecycle", "handler_timeout_s", None),
        ("kafka.group_protocol=consumer", "kafka", "group_protocol", GroupProtocol.CONSUMER),
        ("kafka.group=a=b", "kafka", "group", "a=b"),
        ("kafka.group=17", "kafka", "group", "17"),
    ],
)
def test_text_becomes_the_type_of_the_option(override: str, table: str, option: str, value: object) -> None:
    settings = loaded(overrides=[override])

    assert getattr(getattr(settings.config, table), option) == value


def test_the_clients_options_are_written_with_quotes_or_as_tables(tmp_path: Path) -> None:
    quoted = written(tmp_path / "q.toml", '[kafka.librdkafka]\n"security.protocol" = "ssl"\n"client.rack" = "a"')
    dotted = written(tmp_path / "d.toml", '[kafka.librdkafka]\nsecurity.protocol = "ssl"\nclient.rack = "a"')

    assert loaded(quoted).config.kafka.librdkafka == loaded(dotted).config.kafka.librdkafka
    assert dict(loaded(dotted).config.kafka.librdkafka) == {"security.protocol": "ssl", "client.rack": "a"}


def test_the_clients_options_have_underscores_for_dots_in_variables() -> None:
    environ = {"STREAMWORKER__KAFKA__LIBRDKAFKA__SASL_USERNAME": "ann"}

    settings = loaded(environ=environ, overrides=["kafka.librdkafka.client.rack=a"])

    assert dict(settings.config.kafka.librdkafka) == {"sasl.username": "ann", "client.rack": "a"}


def test_an_option_that_ends_in_file_is_read_from_there(tmp_path: Path) -> None:
    secret = written(tmp_path / "password", "  pw\n")

    by_override = loaded(overrides=[f"kafka.librdkafka.sasl.password_file={secret}"])
    by_variable = loaded(environ={"STREAMWORKER__KAFKA__LIBRDKAFKA__SASL_PASSWORD_FILE": str(secret)})

    for settings in (by_override, by_variable):
        assert dict(settings.config.kafka.librdkafka) == {"sasl.password": "pw"}
        assert str(secret) in settings.origin("kafka.librdkafka.sasl.password")


def test_an_option_of_the_client_that_names_a_file_itself_is_left_alone() -> None:
    environ = {"STREAMWORKER__KAFKA__LIBRDKAFKA__SASL_OAUTHBEARER_ASSERTION_PRIVATE_KEY_FILE": "/key.pem"}

    options = loaded(environ=environ).config.kafka.librdkafka

    assert dict(options) == {"sasl.oauthbearer.assertion.private.key.file": "/key.pem"}


def test_the_applications_table_passes_through_and_is_merged_leaf_by_leaf(tmp_path: Path) -> None:
    file = written(tmp_path / "a.toml", '[app]\nsizes = [1, 2]\nempty = {}\n[app.db]\nhost = "a"\nport = 5432')

    settings = loaded(file, environ={"STREAMWORKER__APP__DB__HOST": "b"})

    assert settings.config.app == {"sizes": [1, 2], "empty": {}, "db": {"host": "b", "port": 5432}}
    assert settings.origin("app.db.port") == str(file)
