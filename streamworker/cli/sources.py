"""The places where settings are written: files, the environment, the command line.

Decided here: which name means which option, and that the option exists. A `Setting` keeps where it stood. Types are
not looked at (`settings.py`). The environment is an argument; only files are read. Any thread.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

from streamworker.cli.variables import PREFIX, meant_variable
from streamworker.config import FREE_TABLES, Config, tables
from streamworker.errors import ConfigurationError, nearest
from streamworker.librdkafka import redact

Names = tuple[str, ...]

DEFAULT_FILE = Path("streamworker.toml")
COMMAND_LINE = "command line"

WORDS: Mapping[object, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "an array",
    dict: "a table",
    type(None): "nothing",
}

CLIENT = ("kafka", "librdkafka")
# Deeper than anybody writes. What walks a table later does so by recursion.
MAX_LEVELS = 50
# The client's own options that name a file and so end like our `…_file` does once dots are underscores.
_FILE_OPTIONS = frozenset(
    {
        "sasl.oauthbearer.assertion.file",
        "sasl.oauthbearer.assertion.jwt.template.file",
        "sasl.oauthbearer.assertion.private.key.file",
    }
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One value, where it stood, and whether it came as text that stands for another type."""

    path: Names
    value: object
    origin: str
    text: bool = False
    file: Path | None = None  # that has its value

    @property
    def name(self) -> str:
        """Its dotted name."""
        return ".".join(self.path)

    def wrong(self, complaint: str) -> ConfigurationError:
        """The error that says what is wrong with it, and where it stood."""
        return ConfigurationError(f"{self.name}: {complaint} ({self.origin})")


def from_file(file: Path) -> Iterator[Setting]:
    """What a TOML file says."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # bad TOML, bad UTF-8, and whole numbers of more than 4300 digits
        raise ConfigurationError(f"{file}: not TOML: {error}") from error
    except RecursionError as error:
        raise _too_deep(str(file)) from error
    _check_depth(content, str(file))
    for table, options in content.items():
        _check_table(table, str(file))
        if not isinstance(options, dict):
            raise ConfigurationError(f"{table}: expected a table, [{table}], got {kind_of(options)} ({file})")
        for option, value in options.items():
            yield from _file_settings((table, option), value, str(file))


def _check_depth(content: Mapping[str, object], origin: str) -> None:
    layer: list[object] = [content]
    for _ in range(MAX_LEVELS):
        layer = [inner for one in layer for inner in _inside(one)]
        if not layer:
            return
    raise _too_deep(origin)


def _too_deep(origin: str) -> ConfigurationError:
    return ConfigurationError(f"expected at most {MAX_LEVELS} levels of tables and arrays ({origin})")


def _inside(value: object) -> Iterable[object]:
    match value:
        case dict():
            return value.values()
        case list():
            return value
    return ()


def _file_settings(path: Names, value: object, origin: str) -> Iterator[Setting]:
    _check_option(path, origin)
    if path != CLIENT and path[0] != "app":
        yield Setting(path, value, origin)
        return
    if path == CLIENT and not isinstance(value, dict):
        raise ConfigurationError(f"kafka.librdkafka: expected a table, got {kind_of(value)} ({origin})")
    for names, one in leaves(path, value):
        yield Setting(_joined(names), one, origin)


def _joined(names: Names) -> Names:
    """The client's options have dots in their names, which TOML and the command line take for tables."""
    return (*CLIENT, ".".join(names[2:])) if names[:2] == CLIENT and len(names) > 2 else names


def from_environment(environ: Mapping[str, str]) -> Iterator[Setting]:
    """What the variables `STREAMWORKER__TABLE__OPTION` say."""
    for variable in sorted(environ):
        if variable.startswith(PREFIX):
            names = variable.removeprefix(PREFIX).lower().split("__")
            if len(names) == 1 and (meant := meant_variable(variable)):
                raise ConfigurationError(f"{variable}: no such option; did you mean {meant}?")
            if names[:2] == list(CLIENT):
                names[2:] = map(_client_name, names[2:])
            yield _text_setting(tuple(names), environ[variable], variable)


def _client_name(name: str) -> str:
    dotted = name.replace("_", ".")
    if dotted.endswith(".file") and dotted not in _FILE_OPTIONS:
        return f"{dotted.removesuffix('.file')}_file"
    return dotted


def from_override(override: str) -> Setting:
    """What `table.option=value` from the command line says."""
    name, equals, value = override.partition("=")
    if not equals:
        shown = redact("--set", name)
        raise ConfigurationError(f"--set {shown}: expected table.option=value, for instance kafka.group=orders")
    return _text_setting(tuple(name.strip().split(".")), value, COMMAND_LINE)


def _text_setting(names: Names, value: str, origin: str) -> Setting:
    path = _joined(names)
    _check_table(path[0], origin)
    if len(path) < 2 or not all(path):
        raise ConfigurationError(f"{'.'.join(path)}: expected a table and an option, like kafka.group ({origin})")
    _check_option(path[:2], origin)
    if path == CLIENT:
        raise ConfigurationError(f"kafka.librdkafka: a table; name one of the client's options ({origin})")
    if len(path) > 2 and path[0] != "app" and path[:2] != CLIENT:
        raise ConfigurationError(f"{'.'.join(path)}: {path[0]}.{path[1]} is a value, not a table ({origin})")
    if len(path) > MAX_LEVELS:
        raise _too_deep(origin)
    setting = Setting(path, value, origin, text=True)
    if not is_utf8_text(value):
        raise setting.wrong("expected text in UTF-8")
    return setting


def is_utf8_text(text: str) -> bool:
    """False for what the system handed over as bytes that are not UTF-8; the clients cannot take it."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _check_table(table: str, origin: str) -> None:
    if table not in tables():
        raise ConfigurationError(f"{table}: no such table; {nearest(table, tables())} ({origin})")


def _check_option(path: Names, origin: str) -> None:
    table = path[0]
    if table in FREE_TABLES:
        return
    known = [f"{table}.{one.name}" for one in dataclasses.fields(get_type_hints(Config)[table])]
    name = ".".join(path)
    if name not in known:
        raise ConfigurationError(f"{name}: no such option; {nearest(name, known)} ({origin})")


def with_file_read(setting: Setting) -> Setting:
    """The content of the file that a client's option `…_file` names, without surrounding white space."""
    if setting.path[:2] != CLIENT or not setting.path[-1].endswith("_file"):
        return setting
    file = Path(str(setting.value))
    try:
        content = content_of(file)
    except ConfigurationError as error:
        raise setting.wrong(str(error)) from error
    path = (*CLIENT, setting.path[-1].removesuffix("_file"))
    return Setting(path, content, f"{setting.origin}, file {file}", text=True, file=file)


def content_of(file: Path) -> str:
    """The text in `file` without surrounding white space; raises ConfigurationError."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigurationError(f"{file} cannot be read: {reason}") from error


def leaves(path: Names, value: object) -> Iterator[tuple[Names, object]]:
    """Everything below `path` that is no table, or an empty one that somebody wrote."""
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if not isinstance(value, Mapping) or (not value and path not in (CLIENT, *((table,) for table in FREE_TABLES))):
        yield path, value
    else:
        for name, inner in value.items():
            yield from leaves((*path, name), inner)


def kind_of(value: object) -> str:
    """What kind of value it is; nothing of the value itself."""
    return WORDS.get(type(value), "a date or time")
