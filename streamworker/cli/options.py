"""Options that several commands share, and what they stand for: where the configuration comes from, and the cluster.

The only reader of the environment.
"""

from __future__ import annotations

import functools
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamworker.cli.console_output import say
from streamworker.cli.settings import Settings, load
from streamworker.cli.sources import DEFAULT_FILE, is_utf8_text
from streamworker.cluster import Cluster
from streamworker.errors import ClientError, ConfigurationError
from streamworker.librdkafka import admin_settings, without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker.config import KafkaConfig


@dataclass(frozen=True, slots=True)
class Sources:
    """What the command line said of the configuration."""

    file: Path | None
    overrides: Sequence[str]

    def load(self, **options: str | None) -> Settings:
        """Read everything; `options` are kafka options with a switch of their own, None where it was not given."""
        overrides = [f"kafka.{name}={value}" for name, value in options.items() if value is not None]
        return load(files=self._files(), environ=os.environ, overrides=[*self.overrides, *overrides])

    def load_aloud(self, **options: str | None) -> Settings:
        """The same, and what it may have been meant to say is said on standard error."""
        settings = self.load(**options)
        for caution in settings.cautions:
            say(f"Warning: {caution}", to_stderr=True)
        return settings

    def _files(self) -> list[Path]:
        if self.file is not None:
            return [self.file]
        return [DEFAULT_FILE] if DEFAULT_FILE.exists() else []


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options --config, --set and --bootstrap-servers, as its argument `sources`."""

    @click.option(
        "--config",
        "config_file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Configuration file; ./streamworker.toml by itself if there is one.",
    )
    @click.option(
        "--set", "overrides", multiple=True, metavar="TABLE.OPTION=VALUE", help="Set one option; may be repeated."
    )
    @click.option("--bootstrap-servers", metavar="HOST:PORT,…", help="The same as --set kafka.bootstrap_servers=….")
    @functools.wraps(command)
    def with_sources(
        config_file: Path | None, overrides: tuple[str, ...], bootstrap_servers: str | None, **others: object
    ) -> None:
        servers = [] if bootstrap_servers is None else [f"kafka.bootstrap_servers={bootstrap_servers}"]
        command(sources=Sources(config_file, [*overrides, *servers]), **others)

    return with_sources


class Amount(click.FloatRange):
    """A range that has no NaN in it: that compares with nothing, so click lets it through."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As of its base."""
        amount = super().convert(value, param, ctx)
        if math.isnan(amount):
            self.fail(f"{value} is not a number.", param, ctx)
        return amount


class _Text(click.types.StringParamType):
    """Text that can go to a cluster: the shell may have passed bytes that are none, and no name is empty."""

    def convert(self, value: str | bytes, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = super().convert(value, param, ctx)
        if not text:
            self.fail("expected a name, got nothing.", param, ctx)
        if not is_utf8_text(text):
            self.fail("expected text in UTF-8.", param, ctx)
        return text


TEXT = _Text()
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=Amount(min=0.1, max=3600),  # the client takes no more
    default=10.0,
    show_default=True,
    help="Seconds to wait for each answer of the cluster.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def examples(*commands: str) -> str:
    """The end of a command's help; its first line keeps click from joining the others."""
    return "\n".join(("\b", "Examples:", *(f"  {command}" for command in commands)))


def connect(kafka: KafkaConfig) -> Cluster:
    """The cluster; nothing is asked of it yet. Raises ConfigurationError for options that the client refuses."""
    options = admin_settings(kafka)
    try:
        return Cluster(options)
    except ClientError as error:
        raise ConfigurationError(f"kafka.librdkafka: {without_secrets(str(error), options)}") from error
