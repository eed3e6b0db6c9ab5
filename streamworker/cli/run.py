"""`streamworker run`: one worker process or several, until they are told to stop or have reached their bound."""

from __future__ import annotations

import logging
import random
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamworker.assembly import assemble
from streamworker.cli.exit_codes import listing
from streamworker.cli.findings import MISSING_GROUP
from streamworker.cli.handlers import fitting_declarations, import_handlers
from streamworker.cli.options import connect, examples, settings_options
from streamworker.cli.reload import Reload
from streamworker.cli.role import launch, take_role
from streamworker.cli.rotation import Rotation
from streamworker.cli.signals import follow_supervisor, pass_on_signals, stop_on_signals, woken_by_signals
from streamworker.clock import SystemClock
from streamworker.errors import ClientError, ConfigurationError
from streamworker.exit_code import ExitCode
from streamworker.frames import where_raised
from streamworker.librdkafka import cautions
from streamworker.observability import logs
from streamworker.observability.redaction import error_text
from streamworker.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker.assembly import Application
    from streamworker.cli.options import Sources
    from streamworker.config import Config

_log = logging.getLogger(__name__)
_EXAMPLES = examples(
    "streamworker run app.handlers:StoreOrders --group orders",
    "streamworker run app.handlers:StoreOrders --until-end --set log.level=DEBUG",
    "streamworker run app.handlers:StoreOrders --processes 4",
)
_HELP = f"""Run HANDLERS, each given as module:Class, as one member of a consumer group.

The first SIGTERM or SIGINT finishes what runs, commits and leaves; the second leaves at once. SIGHUP reads the
configuration again: [degradation] is in force from then on, and other options that have changed are named in the log.

With --processes several members run under a supervisor, which starts those again that end although nobody asked them
to, passes signals on, and shows them all at one port.

{_EXAMPLES}

{listing()}"""


@click.command(help=_HELP, short_help="Run handlers as a member of a consumer group.")
@click.argument("handlers", nargs=-1, required=True, metavar="MODULE:CLASS…")
@click.option("--group", help="Consumer group; the same as --set kafka.group=….")
@click.option("--until-end", is_flag=True, help="Stop once the end of each partition was reached.")
@click.option("--max-records", type=click.IntRange(min=1), help="Stop after so many records.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Worker processes, each a member of the group.",
)
@settings_options
@click.pass_context
def run(
    ctx: click.Context,
    sources: Sources,
    handlers: Sequence[str],
    group: str | None,
    until_end: bool,
    max_records: int | None,
    processes: int,
) -> None:
    """Load, assemble, run."""
    role = take_role()
    settings = sources.load(group=group)
    config = settings.config if role is None else role.fitted(settings.config)
    if not config.kafka.group:
        raise ConfigurationError(". ".join((MISSING_GROUP, *settings.cautions)))
    logs.configure(config.log, sys.stderr, None if role is None else role.number)
    for caution in (*settings.cautions, *cautions(config.kafka)):
        _log.warning(caution)
    connect(config.kafka)  # here, a wrong option of the client ends with a message
    classes = import_handlers(handlers, Path.cwd())
    if role is None and processes > 1:
        _refuse_several(max_records)
        fitting_declarations(classes, config)  # here, what is wrong with a handler is said once
        ctx.exit(_supervise(config, processes, bounded=until_end))
    worker = assemble(config, classes, until_end=until_end, max_records=max_records)
    reload = Reload(partial(sources.load, group=group), settings, worker.switch)
    rotation = Rotation(settings, worker.take_credentials, SystemClock())
    stop_on_signals(worker.stop, reload.ask)
    if role is not None:
        follow_supervisor(role.tether, worker.stop, reload.ask, role.tidy)
    _log.info("SIGTERM and SIGINT stop this worker in order, SIGHUP reads the configuration again")
    ctx.exit(_run(worker, reload, rotation))


def _run(worker: Application, *between_steps: Callable[[], None]) -> int:
    """Run to the end; an error that does not say itself what is wrong ends in the log, as all that the worker says."""
    try:
        return worker.run(lambda: _each(between_steps))
    except (ConfigurationError, ClientError):
        raise
    except Exception as error:  # noqa: BLE001 - where an error of the main thread becomes an exit code
        fields = {"error_type": type(error).__name__, "error": error_text(error), "at": where_raised(error)}
        _log.critical("worker ended by an error", extra=fields, exc_info=error)
        return ExitCode.FATAL


def _each(what: Sequence[Callable[[], None]]) -> None:
    for one in what:
        one()


def _refuse_several(max_records: int | None) -> None:
    if sys.platform == "win32":
        raise click.UsageError("--processes needs a system with unix sockets; on Windows start each worker by itself")
    if max_records is not None:
        raise click.UsageError("--max-records counts the records of one worker; leave it, or leave --processes")


def _supervise(config: Config, processes: int, *, bounded: bool) -> int:
    supervisor = Supervisor(
        config, launch, processes=processes, bounded=bounded, clock=SystemClock(), chance=random.random
    )
    pass_on_signals(supervisor.stop, supervisor.reload)
    with woken_by_signals(supervisor.waker):
        return supervisor.run()
