"""The command `streamworker`: its subcommands, and how errors end it.

A command is imported when it is asked for: some are started every few seconds and need little of what the others do. An
error that says itself what is wrong is printed without a traceback; any other keeps its traceback.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

import click

from streamworker import __version__
from streamworker.cli.console_output import say
from streamworker.cli.signals import end_on_sigterm_as_process_1
from streamworker.errors import ClientError, ConfigurationError
from streamworker.exit_code import ExitCode
from streamworker.replay.desk import Refused
from streamworker.replay.view_database import ViewError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Where each command is: there it has its own name, with an underscore for a dash.
_MODULES: Mapping[str, str] = {
    "acl": "acl",
    "audit": "audit",
    "autoscale": "autoscale",
    "cache": "cache",
    "check": "check",
    "config": "config_show",
    "console": "dead_letters",
    "console-account": "console",
    "dlq": "dlq",
    "healthcheck": "healthcheck",
    "lag": "lag",
    "marks": "marks",
    "new": "new",
    "offsets": "offsets",
    "run": "run",
    "sinks": "sinks",
    "topics": "topics",
}


class Commands(click.Group):
    """A group that turns our errors into a message and an exit code, and imports its commands late."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click calls it
        """The names of all."""
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - likewise
        """The one of that name; None if there is none."""
        if cmd_name not in _MODULES:
            return None
        module = importlib.import_module(f"streamworker.cli.{_MODULES[cmd_name]}")
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            say("\n".join((f"Error: {error}", *getattr(error, "__notes__", ()))), to_stderr=True)
            ctx.exit(ExitCode.USAGE)
        except ClientError as error:
            say(f"Error: {error} [{error.code}]", to_stderr=True)
            ctx.exit(ExitCode.FATAL)
        except (Refused, ViewError) as error:
            say(f"Error: {error}", to_stderr=True)
            ctx.exit(ExitCode.FATAL)
        except KeyboardInterrupt:
            ctx.exit(ExitCode.INTERRUPTED)


# Written out, because `options.examples` comes with all that the other commands need.
_EXAMPLES = """\b
Examples:
  streamworker new shop && cd shop
  streamworker check app.handlers:StoreOrders
  streamworker run app.handlers:StoreOrders"""


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog=_EXAMPLES,
)
@click.version_option(__version__, message="streamworker %(version)s")
def main() -> None:
    """Handle Kafka records with your own code: in order per key, at least once, with dead letters."""
    end_on_sigterm_as_process_1()
    # The client's log lines are the worker's business; commands report its errors themselves.
    logging.getLogger("librdkafka").addHandler(logging.NullHandler())
