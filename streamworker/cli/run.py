"""`streamworker run`: one worker process, until it is told to stop or has reached its bound."""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamworker.assembly import assemble
from streamworker.cli.exit_codes import listing
from streamworker.cli.handlers import import_handlers
from streamworker.cli.options import connect, examples, settings_options
from streamworker.cli.reload import Reload
from streamworker.cli.signals import stop_on_signals
from streamworker.errors import ConfigurationError
from streamworker.librdkafka import cautions
from streamworker.observability import logs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.cli.options import Sources

_EXAMPLES = examples(
    "streamworker run app.handlers:StoreOrders --group orders",
    "streamworker run app.handlers:StoreOrders --until-end --set log.level=DEBUG",
)
_HELP = f"""Run HANDLERS, each given as module:Class, as one member of a consumer group.

The first SIGTERM or SIGINT finishes what runs, commits and leaves; the second leaves at once. SIGHUP reads the
configuration again: [degradation] is in force from then on, and other options that have changed are named in the log.

{_EXAMPLES}

{listing()}"""


@click.command(help=_HELP, short_help="Run handlers as a member of a consumer group.")
@click.argument("handlers", nargs=-1, required=True, metavar="MODULE:CLASS…")
@click.option("--group", help="Consumer group; the same as --set kafka.group=….")
@click.option("--until-end", is_flag=True, help="Stop once the end of each partition was reached.")
@click.option("--max-records", type=click.IntRange(min=1), help="Stop after so many records.")
@settings_options
@click.pass_context
def run(
    ctx: click.Context,
    sources: Sources,
    handlers: Sequence[str],
    group: str | None,
    until_end: bool,
    max_records: int | None,
) -> None:
    """Load, assemble, run."""
    settings = sources.load(group=group)
    config = settings.config
    if not config.kafka.group:
        raise ConfigurationError("kafka.group is missing: name the consumer group by --group or in the configuration")
    logs.configure(config.log, sys.stderr)
    log = logging.getLogger(__name__)
    for caution in cautions(config.kafka):
        log.warning(caution)
    connect(config.kafka)  # here, a wrong option of the client ends with a message
    worker = assemble(config, import_handlers(handlers, Path.cwd()), until_end=until_end, max_records=max_records)
    reload = Reload(partial(sources.load, group=group), settings, worker.switch)
    stop_on_signals(worker.stop, reload.ask)
    log.info("SIGTERM and SIGINT stop this worker in order, SIGHUP reads the configuration again")
    ctx.exit(worker.run(between_steps=reload))
