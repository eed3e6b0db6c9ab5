"""Text that is no setting at all: too deep, too long, not Unicode, beyond what a client counts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from streamworker.cli.main import main
from streamworker.cli.settings import load
from streamworker.cli.sources import MAX_LEVELS
from streamworker.errors import ConfigurationError
from streamworker.librdkafka import redact

if TYPE_CHECKING:
    from pathlib import Path

DEEP = 3000


@pytest.mark.parametrize(
    "toml",
    [
        f"[app]\nx = {'[' * DEEP}{']' * DEEP}",
        f"[app]\nx = {'{a = ' * DEEP}1{'}' * DEEP}",
        f"[app]\n{'.'.join('a' * DEEP)} = 1",
        f"[app.{'.'.join('a' * DEEP)}]",
        f"[app]\nx = {'[' * MAX_LEVELS}{']' * MAX_LEVELS}",
        f"[kafka.librdkafka]\n{'.'.join('a' * MAX_LEVELS)} = 1",
    ],
    ids=["arrays", "inline tables", "dotted", "a heading", "just too deep", "an option of the client"],
)
def test_a_file_that_nests_too_deep_is_an_error_with_its_place(tmp_path: Path, toml: str) -> None:
    file = tmp_path / "any.toml"
    file.write_text(toml)

    with pytest.raises(ConfigurationError) as caught:
        load(files=[file], environ={}, overrides=[])

    assert str(caught.value) == f"expected at most {MAX_LEVELS} levels of tables and arrays ({file})"


def test_a_name_that_nests_too_deep_is_an_error_with_its_place() -> None:
    variable = "STREAMWORKER__APP__" + "__".join("A" * DEEP)

    with pytest.raises(ConfigurationError, match=r"levels of tables and arrays \(STREAMWORKER__APP__A"):
        load(files=[], environ={variable: "x"}, overrides=[])
    with pytest.raises(ConfigurationError, match=r"levels of tables and arrays \(command line\)"):
        load(files=[], environ={}, overrides=[f"app.{'.'.join('a' * DEEP)}=x"])


def test_what_is_as_deep_as_allowed_is_read_and_can_be_printed(tmp_path: Path) -> None:
    file = tmp_path / "any.toml"
    arrays = MAX_LEVELS - 2
    file.write_text(f"[app]\nx = {'[' * arrays}{']' * arrays}")

    assert "[[]]" in repr(load(files=[file], environ={}, overrides=[]).config)


def test_a_whole_number_of_thousands_of_digits_is_not_toml(tmp_path: Path) -> None:
    file = tmp_path / "any.toml"
    file.write_text(f"[http]\nport = {'9' * 5000}")

    with pytest.raises(ConfigurationError, match=r"any\.toml: not TOML: .*4300"):
        load(files=[file], environ={}, overrides=[])


@pytest.mark.parametrize("name", ["HTTP__PORT", "KAFKA__GROUP", "LOG__LEVEL", "APP__TOKEN", "COMMIT__INTERVAL_S"])
def test_a_variable_that_is_not_unicode_is_named_and_not_shown(name: str) -> None:
    variable = f"STREAMWORKER__{name}"

    with pytest.raises(ConfigurationError) as caught:
        load(files=[], environ={variable: "s3cr3t\udcff"}, overrides=[])

    option = name.lower().replace("__", ".")
    assert str(caught.value) == f"{option}: expected text in UTF-8 ({variable})"


@pytest.mark.parametrize(
    "option", ["kafka.max_poll_interval_s", "kafka.session_timeout_s", "dead_letters.delivery_timeout_s"]
)
def test_a_time_that_no_client_can_count_is_an_error(option: str) -> None:
    others = ["kafka.max_poll_interval_s=1e300", "lifecycle.drain_timeout_s=1e308"]

    with pytest.raises(ConfigurationError, match="expected at most"):
        load(files=[], environ={}, overrides=[*others, f"{option}=1e306"])


def test_an_override_without_a_sign_does_not_show_its_secret() -> None:
    with pytest.raises(ConfigurationError, match=r"^--set kafka\.librdkafka\.sasl\.password:\S+: expected") as caught:
        load(files=[], environ={}, overrides=["kafka.librdkafka.sasl.password:s3cr3t"])

    assert "s3cr3t" not in str(caught.value)


def test_an_empty_table_can_be_filled_from_elsewhere(tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text("[app.db]\n[app.cache]")
    second.write_text("[app.db]\nport = 1\n[app.empty]")

    loaded = load(files=[first, second, first], environ={"STREAMWORKER__APP__CACHE__HOST": "x"}, overrides=[])

    assert loaded.config.app == {"db": {"port": 1}, "cache": {"host": "x"}, "empty": {}}


@pytest.mark.parametrize("timeout", ["nan", "inf", "-inf", "3601", "1e400", "0"])
def test_a_timeout_that_the_client_cannot_take_is_a_usage_error(timeout: str) -> None:
    result = CliRunner().invoke(main, ["offsets", "show", "orders", f"--timeout={timeout}"])

    assert result.exit_code == 2
    assert "--timeout" in result.output


@pytest.mark.parametrize(
    "command", ["show g\udcff", "show g --topic t\udcff", "set g --topic t\udcff --partition 0 --offset 0"]
)
def test_names_that_are_not_unicode_are_usage_errors(command: str) -> None:
    """The client would raise errors of its own that do not name the place."""
    result = CliRunner().invoke(main, ["offsets", *command.split()])

    assert result.exit_code == 2
    assert "UTF-8" in result.output


def test_an_empty_name_of_a_group_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["offsets", "show", ""])

    assert result.exit_code == 2
    assert "expected a name" in result.output


@pytest.mark.parametrize("moment", ["1969-12-31T23:59:59.999Z", "1970-01-01T00:00:00+00:01", "0001-01-01"])
def test_offsets_cannot_be_moved_to_times_that_stand_for_the_ends_of_the_log(moment: str) -> None:
    """A broker takes -1 ms for the end of the log and -2 ms for its beginning."""
    result = CliRunner().invoke(main, ["offsets", "reset", "orders", "--to-datetime", moment])

    assert result.exit_code == 2
    assert "before 1970" in result.output


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "kafka.session_timeout_s=301",
            (
                "kafka.max_poll_interval_s: expected at least kafka.session_timeout_s (301), got 300.0"
                " (kafka.session_timeout_s: command line)"
            ),
        ),
        (
            "dead_letters.retry_min_s=31",
            (
                "dead_letters.retry_max_s: expected at least dead_letters.retry_min_s (31), got 30.0"
                " (dead_letters.retry_min_s: command line)"
            ),
        ),
    ],
)
def test_a_value_that_does_not_fit_a_default_is_named_with_its_place(override: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(files=[], environ={}, overrides=[override])

    assert str(caught.value) == message


@pytest.mark.parametrize("word", ["a", "passw", "secret", "token=", "credential "])
def test_a_long_value_is_printed_without_delay(word: str) -> None:
    text = word * (200_000 // len(word))

    begin_s = time.process_time()
    redact("app.value", text)

    assert time.process_time() - begin_s < 0.5
