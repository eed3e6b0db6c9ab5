"""Configurations that nobody wrote on purpose: files, the environment and the command line.

They load, or there is a ConfigurationError that says which option and where. No secret is in the error or in what is
printed of the configuration. What loads becomes settings for the clients, or an error of the same kind.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

from click.testing import CliRunner
from fuzz.target import target
from hypothesis import strategies as st

from streamworker.cli.main import main
from streamworker.cli.settings import load
from streamworker.cli.sources import COMMAND_LINE, PREFIX
from streamworker.config import Config, tables
from streamworker.errors import ConfigurationError
from streamworker.librdkafka import admin_settings, consumer_settings, producer_settings
from streamworker.offsets.policy import parse_start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SECRET = "s3cr3t-7f3a"
_SECRETS = f"""
[kafka.librdkafka]
"sasl.password" = "{SECRET}"
"consumer.ssl.key.password" = "{SECRET}"
[app]
api_token = "{SECRET}"
database = "postgresql://ann:{SECRET}@db/orders"
replicas = [{{ password = "{SECRET}" }}]
"""


def _options() -> list[tuple[str, str]]:
    kinds = get_type_hints(Config)
    own = [
        (table, option.name)
        for table in tables()
        if dataclasses.is_dataclass(kinds[table])
        for option in dataclasses.fields(kinds[table])
    ]
    client = ("sasl.password", "client.rack", "group.id", "debug", "sasl.password_file", "no.such", "message.max.bytes")
    return [*own, *(("kafka", f"librdkafka.{name}") for name in client), ("app", "db.host"), ("app", "token")]


_OPTIONS = st.sampled_from(_options())
_NAMES = st.sampled_from((*tables(), "kafak", "librdkafka", "group", "port", "")) | st.text(max_size=6)
_NUMBERS = ("nan", "-inf", "1e400", "1e308", "301", "0", "-1", "1_000", "0x10", "\uff11", "5 ", "9" * 5000)
_TIMES = (
    "earliest",
    "timestamp:1969-12-31T23:59:59.999Z",
    "timestamp:0001-01-01T00:00:00+23:59",
    "timestamp:9999-12-31",
)
_WORDS = st.sampled_from(("", "true", "classic", "DEBUG", *_NUMBERS, *_TIMES))
# What is not UTF-8 in the environment and on the command line comes as lone surrogates.
_BYTES = st.binary(max_size=6).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=10)
_VARIABLE_VALUES = _WORDS | _BYTES | _TEXT | st.floats().map(repr)
_TOML_SCALARS = st.one_of(
    st.integers().map(str),
    st.floats().map(repr),
    st.booleans().map(lambda truth: str(truth).lower()),
    st.text(st.characters(codec="utf-8"), max_size=10).map(json.dumps),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.sampled_from(
        ("[]", "{}", "1979-13-41", "07:32:00", "0o17", "'" + "x" * 300 + "'", '"""\n"""', "1e308", "1e999")
    ),
    st.integers(4000, 5000).map(lambda digits: "9" * digits),
    st.integers(1, 3000).map(lambda levels: "[" * levels + "]" * levels),
    st.integers(1, 3000).map(lambda levels: "{a=" * levels + "1" + "}" * levels),
)
_TOML_VALUES = st.recursive(
    _TOML_SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.text("ab", min_size=1, max_size=2), inner, max_size=3).map(
            lambda table: "{" + ", ".join(f"{name} = {value}" for name, value in table.items()) + "}"
        )
    ),
    max_leaves=6,
)
_TOML_KEYS = st.one_of(
    st.lists(_NAMES.map(json.dumps), min_size=1, max_size=3).map(".".join),
    _OPTIONS.map(lambda option: option[1]),
    st.integers(1, 2000).map(lambda levels: ".".join("a" * levels)),
)
_TOML_LINES = st.one_of(
    _NAMES.map(lambda name: f"[{name}]"),
    st.sampled_from(tables()).map(lambda name: f"[{name}]"),
    st.builds("{} = {}".format, _TOML_KEYS, _TOML_VALUES),
    st.builds("{0[0]}.{0[1]} = {1}".format, _OPTIONS, _TOML_VALUES),
    st.text(max_size=20),
)
_TOML = st.lists(_TOML_LINES, max_size=6).map("\n".join)
_FILES = _TOML.map(lambda text: text.encode("utf-8", "replace")) | st.binary(max_size=100)
_VARIABLES = st.one_of(
    _OPTIONS.map(lambda option: f"{option[0]}__{option[1].replace('.', '__', 1).replace('.', '_')}".upper()),
    st.lists(_NAMES | _BYTES, max_size=4).map(lambda names: "__".join(names).upper()),
)
_ENVIRONMENTS = st.dictionaries(
    _VARIABLES.map(lambda name: f"{PREFIX}{name}".translate({ord("="): None, 0: None})), _VARIABLE_VALUES, max_size=4
)
_OVERRIDES = st.one_of(
    st.builds("{0[0]}.{0[1]}={1}".format, _OPTIONS, _VARIABLE_VALUES),
    st.builds("{}={}".format, st.lists(_NAMES, max_size=4).map(".".join), _VARIABLE_VALUES),
    _TEXT,
)

Case = tuple[bytes, dict[str, str], list[str]]


def _check_load(case: Case) -> None:
    toml, environ, overrides = case
    loaded: list[Config] = []
    with _files(toml) as files:
        message = _complaint(lambda: loaded.append(load(files=files, environ=environ, overrides=overrides).config))
    if message is not None:
        assert any(place in message for place in (*map(str, files), COMMAND_LINE, "--set", *environ)), message
        assert SECRET not in message, message
    for config in loaded:
        assert SECRET not in repr(config)
        _check_derived(config)


def _check_derived(config: Config) -> None:
    """What is made of a configuration before anything is asked of a cluster, or a complaint."""
    makers: Sequence[Callable[[], object]] = (
        lambda: consumer_settings(config.kafka, end_of_partition=False),
        lambda: producer_settings(config.kafka, config.dead_letters),
        lambda: admin_settings(config.kafka),
        lambda: parse_start(config.kafka.start),
    )
    for message in filter(None, map(_complaint, makers)):
        assert "kafka." in message
        assert SECRET not in message


def _complaint(act: Callable[[], object]) -> str | None:
    """What the ConfigurationError says, None without one."""
    try:
        act()
    except ConfigurationError as error:
        return str(error)
    return None


@contextmanager
def _files(toml: bytes) -> Iterator[list[Path]]:
    """A file with secrets, and after it one that holds `toml`."""
    with tempfile.TemporaryDirectory() as folder:
        secrets, any_file = Path(folder, "secrets.toml"), Path(folder, "any.toml")
        secrets.write_text(_SECRETS, encoding="utf-8")
        any_file.write_bytes(toml)
        yield [secrets, any_file]


def _check_one(case: tuple[str, str, str, str]) -> None:
    """The error for the only setting there is names the option and its place."""
    kind, table, option, value = case
    name, variable = f"{table}.{option}", f"{PREFIX}{table}__{option}".upper()
    toml = f"[{table}]\n{option} = {value}".encode() if kind == "file" else b""
    environ = {variable: value} if kind == "variable" else {}
    overrides = [f"{name}={value}"] if kind == "override" else []
    with _files(toml) as files:
        message = _complaint(lambda: load(files=files[1:], environ=environ, overrides=overrides))
    if message is not None:
        place = {"file": str(files[1]), "variable": variable, "override": COMMAND_LINE}[kind]
        assert place in message, message
        assert name in message or "not TOML" in message or "levels" in message, message


def _check_show(case: Case) -> None:
    toml, environ, overrides = case
    with _files(_SECRETS.encode() + toml) as files:
        arguments = [f"--set={override}" for override in overrides]
        result = CliRunner().invoke(
            main, ["config", "show", "--json", "--config", str(files[1]), *arguments], env=environ
        )
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code in (0, 2), result.output
    assert SECRET not in result.output, result.output


_CASES = st.tuples(_FILES, _ENVIRONMENTS, st.lists(_OVERRIDES, max_size=3))
_SETTING = _OPTIONS.filter(lambda option: "." not in option[1])
CONFIGURATION = target("configuration", _CASES, _check_load)
ONE_SETTING = target(
    "one-setting",
    st.one_of(
        st.builds(lambda option, value: ("file", *option, value), _SETTING, _TOML_VALUES),
        st.builds(
            lambda kind, option, value: (kind, *option, value),
            st.sampled_from(("variable", "override")),
            _SETTING,
            _VARIABLE_VALUES,
        ),
    ),
    _check_one,
)
CONFIG_SHOW = target("config-show", _CASES, _check_show)
