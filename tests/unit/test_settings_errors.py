"""What is said of a wrong setting: what was found, what would do, and where it stood."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.cli.settings import load
from streamworker.config import KafkaConfig, tables
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

LETTERS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12)


def complaint(
    tmp_path: Path, *, toml: str = "", environ: dict[str, str] | None = None, override: str | None = None
) -> str:
    file = tmp_path / "streamworker.toml"
    file.write_text(toml, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load(files=[file], environ=environ or {}, overrides=[] if override is None else [override])
    return str(caught.value).replace(str(tmp_path), "")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[kafak]\ngroup = 1", "kafak: no such table; did you mean 'kafka'? (/streamworker.toml)"),
        ("[kafka]\ngruop = 1", "kafka.gruop: no such option; did you mean 'kafka.group'? (/streamworker.toml)"),
        ("kafka = 1", "kafka: expected a table, [kafka], got a whole number (/streamworker.toml)"),
        ("[http]\nport = '80'", "http.port: expected a whole number, got '80' (/streamworker.toml)"),
        ("[http]\nport = 80.5", "http.port: expected a whole number, got 80.5 (/streamworker.toml)"),
        ("[http]\nport = true", "http.port: expected a whole number, got True (/streamworker.toml)"),
        ("[http]\nport = 70000", "http.port: expected 0 to 65535, got 70000 (http.port: /streamworker.toml)"),
        ("[commit]\ninterval_s = inf", "commit.interval_s: expected a number, got inf (/streamworker.toml)"),
        (
            "[kafka]\ngroup_protocol = 'clasic'",
            "kafka.group_protocol: got 'clasic'; did you mean 'classic'? (/streamworker.toml)",
        ),
        (
            "[log]\nlevel = 'info'",
            (
                "log.level: expected one of DEBUG, INFO, WARNING, ERROR, got 'info'; did you mean 'INFO'?"
                " (log.level: /streamworker.toml)"
            ),
        ),
        (
            "[log]\nlevel = '7'",
            "log.level: expected one of DEBUG, INFO, WARNING, ERROR, got '7' (log.level: /streamworker.toml)",
        ),
        (
            "[kafka]\nsession_timeout_s = 6",
            (
                "lifecycle.revoke_timeout_s: expected at most half of kafka.session_timeout_s (3), got 5"
                " (kafka.session_timeout_s: /streamworker.toml)"
            ),
        ),
        (
            "[degradation]\nplace = 'skp'",
            "degradation.place: got 'skp'; did you mean 'skip'? (degradation.place: /streamworker.toml)",
        ),
        ("[degradation]\nplace = 3", "degradation.place: expected text, got 3 (/streamworker.toml)"),
        ("[degradation.place]\nall = 'skip'", "degradation.place: expected text, got a table (/streamworker.toml)"),
        (
            "[kafka]\nlease_s = 45",
            (
                "kafka.lease_s: expected less than kafka.session_timeout_s (45), got 45"
                " (kafka.lease_s: /streamworker.toml)"
            ),
        ),
        (
            "[kafka]\nlease_s = 0.4",
            "kafka.lease_s: expected at least 0.5, got 0.4 (kafka.lease_s: /streamworker.toml)",
        ),
        (
            "[lifecycle]\nmax_head_age_s = 0.5",
            "lifecycle.max_head_age_s: expected at least 1, got 0.5 (lifecycle.max_head_age_s: /streamworker.toml)",
        ),
        ("[kafka]\ngroup = {}", "kafka.group: expected text, got a table (/streamworker.toml)"),
        ("[kafka]\nlibrdkafka = 1", "kafka.librdkafka: expected a table, got a whole number (/streamworker.toml)"),
        (
            "[kafka.librdkafka]\n'sasl.password' = ['x']",
            (
                "kafka.librdkafka.sasl.password: expected text, a number, or true or false, got an array"
                " (/streamworker.toml)"
            ),
        ),
    ],
)
def test_a_wrong_setting_in_a_file_is_named_with_what_would_do(tmp_path: Path, toml: str, message: str) -> None:
    assert complaint(tmp_path, toml=toml) == message


@pytest.mark.parametrize(
    "servers",
    [
        "",
        " ",
        "http://localhost:9092",
        "localhost:abc",
        "localhost:",
        "localhost:0",
        "localhost:70000",
        ":9092",
        "kafka-1:9092;kafka-2:9092",
        "kafka-1:9092 kafka-2:9092",
        "kafka-1:9092,,kafka-2:9092",
        "kafka-1:9092,",
        "::1",
        "[::1",
        "localhost:9092/path",
    ],
)
def test_what_names_no_broker_is_refused_with_where_it_stood(tmp_path: Path, servers: str) -> None:
    assert complaint(tmp_path, override=f"kafka.bootstrap_servers={servers}") == (
        f"kafka.bootstrap_servers: expected host:port[,host:port], got {servers!r}"
        " (kafka.bootstrap_servers: command line)"
    )


@pytest.mark.parametrize(
    "servers",
    [
        "localhost:9092",
        "localhost",
        "kafka-1:9092,kafka_2.example.org:65535",
        "kafka-1:9092, kafka-2:9092",
        "10.0.0.1:9092",
        "[::1]:9092",
        "[fe80::1%eth0]",
        "PLAINTEXT://a:1,ssl://b:2,SASL_PLAINTEXT://c,SASL_SSL://[::1]:4",
    ],
)
def test_what_names_brokers_is_taken(servers: str) -> None:
    assert KafkaConfig(bootstrap_servers=servers).bootstrap_servers == servers


def test_a_file_that_is_no_toml_says_where(tmp_path: Path) -> None:
    assert complaint(tmp_path, toml="[kafka\n").startswith("/streamworker.toml: not TOML: ")


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    message = complaint(tmp_path, environ={"STREAMWORKER__HTTP__PORT": "eighty"})

    assert message == "http.port: expected a whole number, got 'eighty' (STREAMWORKER__HTTP__PORT)"


def test_a_variable_with_half_of_its_underscores_is_answered_with_all(tmp_path: Path) -> None:
    message = complaint(tmp_path, environ={"STREAMWORKER__KAFKA_GROUP": "x"})

    assert message == "STREAMWORKER__KAFKA_GROUP: no such option; did you mean STREAMWORKER__KAFKA__GROUP?"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("kafka.group", "--set kafka.group: expected table.option=value, for instance kafka.group=orders"),
        ("kafka=x", "kafka: expected a table and an option, like kafka.group (command line)"),
        ("kafka.=x", "kafka.: expected a table and an option, like kafka.group (command line)"),
        ("kafka.group.id=x", "kafka.group.id: kafka.group is a value, not a table (command line)"),
        ("kafka.librdkafka=x", "kafka.librdkafka: a table; name one of the client's options (command line)"),
    ],
)
def test_a_wrong_override_says_what_was_expected(tmp_path: Path, override: str, message: str) -> None:
    assert complaint(tmp_path, override=override) == message


def test_a_value_and_a_table_of_one_name_clash(tmp_path: Path) -> None:
    message = complaint(tmp_path, toml="[app]\ndb = 'x'", override="app.db.host=y")

    assert message == (
        "app.db.host: app.db is a value there and a table here; it is set by /streamworker.toml (command line)"
    )


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_secret_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    secret = tmp_path / "password"
    if content is not None:
        secret.write_bytes(content)

    message = complaint(tmp_path, override=f"kafka.librdkafka.sasl.password_file={secret}")

    assert message.startswith("kafka.librdkafka.sasl.password_file: /password cannot be read: ")


@given(LETTERS.filter(lambda name: name not in tables()))
def test_every_unknown_table_is_an_error(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no such table"):
        load(files=[], environ={}, overrides=[f"{name}.option=1"])


@given(LETTERS.filter(lambda name: name not in KafkaConfig.__slots__))
def test_every_unknown_option_is_an_error(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no such option"):
        load(files=[], environ={f"STREAMWORKER__KAFKA__{name.upper()}": "1"}, overrides=[])
