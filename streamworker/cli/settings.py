"""The configuration from its sources, in rising order: defaults, files, the environment, the command line.

Decided here: which source wins, and how text becomes an option's type. Whether values fit is checked by the classes
of `streamworker.config`, and which of the client's options are allowed by `streamworker.librdkafka`; an error says
where the value stood. Any thread.
"""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args, get_type_hints

import msgspec

from streamworker.bounds import member
from streamworker.cli.sources import (
    CLIENT,
    WORDS,
    Names,
    Setting,
    from_environment,
    from_file,
    from_override,
    kind_of,
    leaves,
    with_file_read,
)
from streamworker.cli.variables import unread_variables
from streamworker.config import FREE_TABLES, Config, tables
from streamworker.errors import ConfigurationError
from streamworker.librdkafka import Masked, Option, redact, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Settings:
    """A configuration, and by dotted name where each value came from that is no default.

    `cautions` say what is not in it and may have been meant to be. `files` have the values of the client's options that
    they are named after.
    """

    config: Config
    origins: Mapping[str, str]
    cautions: Sequence[str] = ()
    files: Mapping[str, Path] = field(default_factory=dict)

    def origin(self, name: str) -> str:
        """Where the value called `name` came from."""
        return self.origins.get(name, DEFAULT)

    def values(self) -> Iterator[tuple[str, object]]:
        """All values by dotted name, in the order of `streamworker.config`. Secrets are not masked."""
        return ((".".join(path), value) for path, value in leaves((), self.config))


def load(*, files: Sequence[Path], environ: Mapping[str, str], overrides: Sequence[str]) -> Settings:
    """Read everything and check it; `overrides` are `table.option=value`. Raises ConfigurationError."""
    settings = [setting for file in files for setting in from_file(file)]
    settings += from_environment(environ)
    settings += map(from_override, overrides)
    chosen = _without_headings({setting.path: setting for setting in map(with_file_read, settings)})
    _refuse_clashes(chosen)
    origins = {setting.name: setting.origin for setting in chosen.values()}
    named = {setting.path[-1]: setting.file for setting in chosen.values() if setting.file is not None}
    return Settings(_config(chosen), origins, cautions=tuple(unread_variables(environ)), files=named)


def _without_headings(chosen: Mapping[Names, Setting]) -> Mapping[Names, Setting]:
    """Leave out empty tables that another place has filled."""
    filled = {path[:end] for path in chosen for end in range(1, len(path))}
    return {path: setting for path, setting in chosen.items() if setting.value != {} or path not in filled}


def _refuse_clashes(chosen: Mapping[Names, Setting]) -> None:
    for path, setting in chosen.items():
        for end in range(1, len(path)):
            above = chosen.get(path[:end])
            if above is not None:
                raise setting.wrong(f"{above.name} is a value there and a table here; it is set by {above.origin}")


def _config(chosen: Mapping[Names, Setting]) -> Config:
    values = {table: _converted(table, chosen) for table in tables() if table not in FREE_TABLES}
    texts = {table: _texts(table, chosen) for table in ("degradation", "sinks", "masking")}
    try:
        built = {table: _make(get_type_hints(Config)[table], options) for table, options in values.items()}
        app = _tree(one for path, one in chosen.items() if path[0] == "app")
        return Config(**built, **texts, app=app)  # type: ignore[arg-type]  # made from the same list of tables
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}{_places(str(error), chosen)}") from error


def _texts(table: str, chosen: Mapping[Names, Setting]) -> Masked[str]:
    """A table of texts whose names somebody else gives."""
    return Masked({one.name.partition(".")[2]: _text(one) for path, one in chosen.items() if path[0] == table})


def _make(kind: Callable[..., object], options: Mapping[str, object]) -> object:
    return kind(**options)


def _converted(table: str, chosen: Mapping[Names, Setting]) -> dict[str, object]:
    kinds = get_type_hints(get_type_hints(Config)[table])
    own = [setting for path, setting in chosen.items() if path[0] == table]
    values = {one.path[1]: _as(kinds[one.path[1]], one) for one in own if one.path[:2] != CLIENT}
    client = Masked({one.path[-1]: _client_option(one) for one in own if one.path[:2] == CLIENT and len(one.path) > 2})
    return {**values, CLIENT[1]: client} if client else values


def _as(kind: object, setting: Setting) -> object:
    """The value as `kind`; text from the environment and the command line may stand for numbers."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _as_member(kind, setting)
    try:
        value: object = msgspec.convert(setting.value, kind, strict=not setting.text)
    except msgspec.ValidationError as error:
        raise setting.wrong(f"expected {_expected(kind)}, got {_found(setting)}") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise setting.wrong(f"expected {_expected(kind)}, got {value}")
    return value


def _as_member(kind: type[enum.Enum], setting: Setting) -> enum.Enum:
    try:
        return member(setting.name, kind, str(setting.value))
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} ({setting.origin})") from error


def _text(setting: Setting) -> str:
    if not isinstance(setting.value, str):
        raise setting.wrong(f"expected text, got {_found(setting)}")
    return setting.value


def _client_option(setting: Setting) -> Option:
    value = setting.value
    if not isinstance(value, str | int | float | bool):
        raise setting.wrong(f"expected text, a number, or true or false, got {kind_of(value)}")
    if reason := refusal(setting.path[-1], value):
        raise setting.wrong(reason)
    return value


def _places(message: str, chosen: Mapping[Names, Setting]) -> str:
    """Where the options stood that `message` names."""
    told = [f"{one.name}: {one.origin}" for one in chosen.values() if re.search(rf"{re.escape(one.name)}\b", message)]
    return f" ({', '.join(told)})" if told else ""


def _expected(kind: object) -> str:
    return " or ".join(WORDS[one] for one in get_args(kind) or (kind,))


def _found(setting: Setting) -> str:
    shown = redact(setting.name, setting.value)
    return repr(shown) if isinstance(shown, str | int | float) else kind_of(shown)


def _tree(settings: Iterable[Setting]) -> Masked[object]:
    """The application's own table, nested as it was written."""
    root: Masked[object] = Masked()
    for setting in settings:
        table = root
        for name in setting.path[1:-1]:
            below = table.setdefault(name, Masked())
            assert isinstance(below, Masked)  # clashes were refused
            table = below
        table[setting.path[-1]] = setting.value
    return root
