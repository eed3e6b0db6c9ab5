"""`streamworker check`: whether these handlers would run with this configuration on this cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamworker.cli.console_output import say, show_json
from streamworker.cli.findings import Finding, Level, look
from streamworker.cli.handlers import fitting_declarations, import_handlers
from streamworker.cli.options import connect, examples, json_option, settings_options, timeout_option
from streamworker.errors import ClientError, ConfigurationError
from streamworker.exit_code import ExitCode
from streamworker.librdkafka import cautions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streamworker.cli.options import Sources

_STYLES = {Level.OK: "green", Level.NOT_CHECKED: None, Level.WARNING: "yellow", Level.WRONG: "red"}


@click.command(
    epilog=examples("streamworker check", "streamworker check app.handlers:StoreOrders --group orders --json")
)
@click.argument("handlers", nargs=-1, metavar="[MODULE:CLASS…]")
@click.option("--group", help="Consumer group; the same as --set kafka.group=….")
@json_option
@timeout_option
@settings_options
@click.pass_context
def check(
    ctx: click.Context, sources: Sources, handlers: Sequence[str], group: str | None, as_json: bool, timeout_s: float
) -> None:
    """Check configuration, handlers, brokers, topics and group; say what is wrong and what mends it.

    Exits with 0 if all is well or worth a warning only, with 2 if something is wrong.
    """
    found = []
    for finding in _findings(sources, handlers, group, timeout_s):
        found.append(finding)
        if not as_json:
            _say(finding)
    wrong = any(finding.level is Level.WRONG for finding in found)
    if as_json:
        show_json({"ok": not wrong, "findings": [_plain(finding) for finding in found]})
    ctx.exit(ExitCode.USAGE if wrong else ExitCode.OK)


def _findings(sources: Sources, handlers: Sequence[str], group: str | None, timeout_s: float) -> Iterator[Finding]:
    try:
        settings = sources.load(group=group)
        config = settings.config
        cluster = connect(config.kafka)
    except ConfigurationError as error:
        yield Finding(Level.WRONG, "configuration", str(error), "streamworker config show")
        return
    yield Finding(Level.OK, "configuration", "valid")
    for caution in (*settings.cautions, *cautions(config.kafka)):
        yield Finding(Level.WARNING, "configuration", caution)
    try:
        classes = import_handlers(handlers, Path.cwd())
        declared = fitting_declarations(classes, config) if classes else ()
    except ConfigurationError as error:
        yield Finding(Level.WRONG, "handlers", str(error))
        return
    for one in declared:
        yield Finding(Level.OK, f"handler {one.name}", f"topics {', '.join(one.topics)}")
    try:
        yield from look(cluster, config, declared, timeout_s)
    except ClientError as error:
        yield Finding(Level.WRONG, "cluster", f"stopped answering: {error}", "streamworker check --timeout 30")


def _say(finding: Finding) -> None:
    mend = f"\n             mend: {finding.mend}" if finding.mend else ""
    say(f"{finding.level.value + ':':<13}{finding.subject}: {finding.message}{mend}", style=_STYLES[finding.level])


def _plain(finding: Finding) -> dict[str, str | None]:
    return {
        "level": finding.level.value,
        "subject": finding.subject,
        "message": finding.message,
        "mend": finding.mend,
    }
