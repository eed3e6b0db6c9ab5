"""The command `streamworker`: its subcommands, and how errors end it.

An error that says itself what is wrong is printed without a traceback; any other keeps its traceback.
"""

from __future__ import annotations

import logging

import click

from streamworker import __version__
from streamworker.cli.cache import cache
from streamworker.cli.check import check
from streamworker.cli.config_show import config
from streamworker.cli.console_output import say
from streamworker.cli.marks import marks
from streamworker.cli.new import new
from streamworker.cli.offsets import offsets
from streamworker.cli.options import examples
from streamworker.cli.run import run
from streamworker.cli.sinks import sinks
from streamworker.cli.topics import topics
from streamworker.errors import ClientError, ConfigurationError
from streamworker.exit_code import ExitCode
from streamworker.replay.desk import Refused
from streamworker.replay.view_database import ViewError

# What they import is imported when they are asked for. A worker starts a quarter sooner without.
_LATER = frozenset({"audit", "autoscale", "console", "console-account", "dlq"})


class Commands(click.Group):
    """A group that turns our errors into a message and an exit code, and imports some of its commands late."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all."""
        return sorted({*super().list_commands(ctx), *_LATER})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The one of that name; None if there is none."""
        match cmd_name:
            case "autoscale":
                from streamworker.cli.autoscale import autoscale  # noqa: PLC0415 - as above

                return autoscale
            case "audit" | "console" | "console-account" | "dlq":
                from streamworker.cli.dead_letters import COMMANDS  # noqa: PLC0415 - as above

                return COMMANDS[cmd_name]
            case _:
                return super().get_command(ctx, cmd_name)

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


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog=examples(
        "streamworker new shop && cd shop",
        "streamworker check app.handlers:StoreOrders",
        "streamworker run app.handlers:StoreOrders",
    ),
)
@click.version_option(__version__, message="streamworker %(version)s")
def main() -> None:
    """Handle Kafka records with your own code: in order per key, at least once, with dead letters."""
    # The client's log lines are the worker's business; commands report its errors themselves.
    logging.getLogger("librdkafka").addHandler(logging.NullHandler())


for command in (run, check, offsets, topics, sinks, marks, cache, config, new):
    main.add_command(command)
