"""`streamworker sinks`: what the sinks of handlers need in their databases, looked at and made."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamworker.bounds import member
from streamworker.cli.console_output import say, show_json, show_table
from streamworker.cli.handlers import import_handlers
from streamworker.cli.options import examples, json_option, settings_options
from streamworker.errors import ConfigurationError, nearest
from streamworker.exit_code import ExitCode
from streamworker.options import Ordering
from streamworker.sinks.sql import Lack, SqlSink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streamworker.cli.handlers import HandlerClass
    from streamworker.cli.options import Sources
    from streamworker.config import Config


@dataclass(frozen=True, slots=True)
class Placed:
    """The sink of a handler, and where its database is."""

    handler: HandlerClass
    sink: SqlSink
    url: str


@click.group()
def sinks() -> None:
    """Look at and make what handlers' sinks need in their databases."""


@sinks.command(
    epilog=examples(
        "streamworker sinks create app.handlers:StoreOrders --dry-run",
        "streamworker sinks create app.handlers:StoreOrders --set sinks.warehouse=postgresql://localhost/shop",
    )
)
@click.argument("handlers", nargs=-1, required=True, metavar="MODULE:CLASS…")
@click.option("--dry-run", is_flag=True, help="Show the statements that would be run.")
@settings_options
@click.pass_context
def create(ctx: click.Context, sources: Sources, handlers: Sequence[str], dry_run: bool) -> None:
    """Make the tables and columns that the sinks of HANDLERS need; what exists is left as it is.

    A handler's own table is made only if its sink declares columns. The statements are printed, as SQL. Exits with 2
    if something is lacking that only you can make.
    """
    left: list[str] = []
    for one in placed(sources.load_aloud().config, handlers):
        with driver_errors_told(one):
            lacking = one.sink.lacks(one.url)
            mends = [lack.mend for lack in lacking if lack.mend is not None]
            if mends and not dry_run:
                one.sink.make(one.url, mends)
        for mend in mends:
            say(f"{mend};")
        left += [f"{one.handler.__name__}: {one.sink.name} has no {lack.what}" for lack in lacking if lack.mend is None]
    for line in left:
        say(f"Error: {line}; make it yourself, or give the sink its columns", to_stderr=True)
    ctx.exit(ExitCode.USAGE if left else ExitCode.OK)


@sinks.command(
    epilog=examples("streamworker sinks check app.handlers:StoreOrders", "streamworker sinks check app:A --json")
)
@click.argument("handlers", nargs=-1, required=True, metavar="MODULE:CLASS…")
@json_option
@settings_options
@click.pass_context
def check(ctx: click.Context, sources: Sources, handlers: Sequence[str], as_json: bool) -> None:
    """Whether the databases have what the sinks of HANDLERS need; exits with 2 if something is lacking."""
    found = [(one, lack) for one in placed(sources.load_aloud().config, handlers) for lack in _lacking(one)]
    if as_json:
        show_json([_plain(one, lack) for one, lack in found])
    elif found:
        show_table(("handler", "sink", "lacking", ""), [(*_names(one), lack.what, _help(lack)) for one, lack in found])
    else:
        say("nothing is lacking")
    ctx.exit(ExitCode.USAGE if found else ExitCode.OK)


def placed(config: Config, references: Sequence[str]) -> Sequence[Placed]:
    """The sinks of the handlers with these names; raises ConfigurationError for one that has none, or no URL."""
    return [_placed(config, handler) for handler in import_handlers(references, Path.cwd())]


def _placed(config: Config, handler: HandlerClass) -> Placed:
    sink = getattr(handler, "sink", None)
    if not isinstance(sink, SqlSink):
        found = "no sink" if sink is None else f"the sink {type(sink).__name__}, which is of no database"
        raise ConfigurationError(
            f"{handler.__name__} declares {found}; expected sink = PostgresSink(…) or SqliteSink(…)"
        )
    if sink.name not in config.sinks:
        known = nearest(sink.name, config.sinks) if config.sinks else "the table is empty"
        raise ConfigurationError(f"sinks: no URL for {sink.name!r}, which {handler.__name__} writes to; {known}")
    return Placed(handler, sink, config.sinks[sink.name])


@contextmanager
def driver_errors_told(one: Placed) -> Iterator[None]:
    """What the database says instead of an answer is an error without a traceback."""
    try:
        yield
    except ConfigurationError:  # there may be no driver at all
        raise
    except one.sink.driver_error() as error:
        raise click.ClickException(f"sinks.{one.sink.name}: {str(error).strip()}") from error


def _lacking(one: Placed) -> Sequence[Lack]:
    with driver_errors_told(one):
        lacking = list(one.sink.lacks(one.url))
    name = one.handler.__name__
    if one.sink.keeps_marks and member(f"{name}.ordering", Ordering, one.handler.ordering) is Ordering.UNORDERED:
        lacking.append(Lack("an ordering: marks follow it; use guard='row'", None))
    return lacking


def _names(one: Placed) -> tuple[str, str]:
    return one.handler.__name__, one.sink.name


def _help(lack: Lack) -> str:
    return "only you can make it" if lack.mend is None else "made by: streamworker sinks create"


def _plain(one: Placed, lack: Lack) -> dict[str, str | None]:
    handler, sink = _names(one)
    return {"handler": handler, "sink": sink, "lacking": lack.what, "mend": lack.mend}
