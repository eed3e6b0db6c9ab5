"""`streamworker config show`: every option, its value, what it is, and where the value came from."""

from __future__ import annotations

import enum
import functools
import inspect
import re
from typing import TYPE_CHECKING, get_type_hints

import click

from streamworker.cli.console_output import show_json, show_table
from streamworker.cli.options import examples, json_option, settings_options
from streamworker.config import Config
from streamworker.librdkafka import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamworker.cli.options import Sources

_COMMENTED = re.compile(r"    (\w+): .*  # (?:noqa: \S+ - )?(.+)")


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command(
    epilog=examples("streamworker config show", "STREAMWORKER__KAFKA__GROUP=orders streamworker config show --json")
)
@json_option
@settings_options
def show(sources: Sources, as_json: bool) -> None:
    """Every option with its value and where it came from; secrets are masked."""
    settings = sources.load_aloud()
    about = descriptions()
    shown = [(name, _plain(redact(name, value)), settings.origin(name)) for name, value in settings.values()]
    if as_json:
        entries = {name: {"value": value, "from": origin, "about": about.get(name)} for name, value, origin in shown}
        show_json(entries)
    else:
        show_table(("option", "value", "from", "about"), [(*one, about.get(one[0])) for one in shown])


@functools.cache
def descriptions() -> Mapping[str, str]:
    """What the comment beside each option in `streamworker.config` says, by dotted name."""
    return {
        f"{table}.{found[1]}": found[2]
        for table, kind in get_type_hints(Config).items()
        if isinstance(kind, type)
        for line in inspect.getsource(kind).splitlines()
        if (found := _COMMENTED.match(line))
    }


def _plain(value: object) -> object:
    return value.value if isinstance(value, enum.Enum) else value
