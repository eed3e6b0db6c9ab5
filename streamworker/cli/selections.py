"""Which letters a command is about, and how fast it sends: the arguments that commands share."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import click

from streamworker.cli.desks import desk_options
from streamworker.cli.dlq_show import filter_argument
from streamworker.cli.options import TEXT, Amount, json_option
from streamworker.errors import ConfigurationError
from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import Action, Rates, Request
from streamworker.replay.targets import SOURCE

_ID = re.compile("[0-9]+:[0-9]+")

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker.cli.desks import DeskOptions
    from streamworker.exit_code import ExitCode
    from streamworker.replay.desk import Desk

Returned = TypeVar("Returned")


@dataclass(frozen=True, slots=True)
class Selection:
    """What the command line said of which letters, and whether it is meant."""

    options: DeskOptions
    topic: str
    words: Sequence[str]
    ids: Sequence[str]
    everything: bool
    plan_id: str | None
    yes: bool
    as_json: bool

    def request(self, desk: Desk, action: Action) -> Request:
        """Raises ConfigurationError unless letters were chosen in one way."""
        words = " ".join(self.words).strip()  # nothing of it: a variable of the shell that is not set
        ways = [bool(words), bool(self.ids), self.everything]
        if sum(ways) != 1:
            raise ConfigurationError("say which letters: a FILTER, or --id PARTITION:OFFSET, or --all")
        if named := [word for word in self.words if _ID.fullmatch(word)]:
            raise ConfigurationError(f"letters are named by --id, for instance --id {named[0]}")
        if self.ids:
            return Request(topic=self.topic, action=action, ids=sorted({LetterId.parse(one) for one in self.ids}))
        return Request(topic=self.topic, action=action, filter=desk.filter_of(words))


def selecting(command: Callable[..., ExitCode]) -> Callable[..., None]:
    """Give `command` the arguments that make a `Selection`; it returns the exit code."""

    @click.argument("topic", type=TEXT)
    @filter_argument
    @click.option("--id", "ids", multiple=True, metavar="PARTITION:OFFSET", help="This letter; may be repeated.")
    @click.option("--all", "everything", is_flag=True, help="All there are, instead of FILTER.")
    @click.option("--plan", "plan_id", metavar="PLAN", help="Only if the plan is still this one.")
    @click.option("--yes", is_flag=True, help="Do it; without, it is only shown.")
    @json_option
    @desk_options
    @functools.wraps(command)
    def with_selection(
        *,
        options: DeskOptions,
        topic: str,
        words: Sequence[str],
        ids: Sequence[str],
        everything: bool,
        plan_id: str | None,
        yes: bool,
        as_json: bool,
        **others: object,
    ) -> None:
        selection = Selection(options, topic, words, ids, everything, plan_id, yes, as_json)
        click.get_current_context().exit(command(selection, **others))

    return with_selection


def rate_options(command: Callable[..., Returned]) -> Callable[..., Returned]:
    """Give `command` the options that say how fast it sends, as `rate` and `byte_rate`."""
    rate = click.option("--rate", type=Amount(0.1, 1e9), default=500.0, show_default=True, help="Letters per second.")
    byte_rate = click.option("--byte-rate", type=Amount(1, 1e12), help="Bytes of values per second.")
    return rate(byte_rate(command))


def sending(command: Callable[..., ExitCode]) -> Callable[..., ExitCode]:
    """Give `command` the options of what sends, as `rates` and `sent`."""

    @rate_options
    @click.option(
        "--canary",
        type=click.IntRange(0),
        default=20,
        show_default=True,
        help="Send so many first, and go on once they are handled; 0: do not wait.",
    )
    @click.option(
        "--target",
        type=TEXT,
        help=f"Where to, instead of the group's replay topic; {SOURCE!r}: where it came from, for its group only.",
    )
    @click.option("--check-superseded", is_flag=True, help="Warn of letters whose keys have newer records.")
    @click.option("--again", is_flag=True, help="Also what was sent already.")
    @click.option("--force", is_flag=True, help="Also what was replayed three times.")
    @functools.wraps(command)
    def with_pace(
        selection: Selection,
        *,
        rate: float,
        byte_rate: float | None,
        canary: int,
        target: str | None,
        check_superseded: bool,
        again: bool,
        force: bool,
        **others: object,
    ) -> ExitCode:
        sent = functools.partial(replace, target=target, check_superseded=check_superseded, again=again, force=force)
        rates = Rates(records_per_s=rate, bytes_per_s=byte_rate, canary=canary)
        return command(selection, rates=rates, sent=sent, **others)

    return with_pace
