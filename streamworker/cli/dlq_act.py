"""`streamworker dlq replay | repair | discard | restore | snooze | assign`: what people do to dead letters.

All are dry until --yes is given: they show what would be done, and its plan.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

import click

from streamworker.cli.console_output import say
from streamworker.cli.desks import open_desk
from streamworker.cli.dlq_runs import act
from streamworker.cli.options import examples
from streamworker.cli.selections import selecting, sending
from streamworker.clock import SystemClock
from streamworker.errors import ConfigurationError
from streamworker.exit_code import ExitCode
from streamworker.replay.desk import Action, Rates
from streamworker.replay.filters import duration_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker.cli.selections import Selection
    from streamworker.replay.dead_record import LetterId
    from streamworker.replay.desk import Desk, Request


@click.command(
    epilog=examples(
        "streamworker dlq replay orders.dlq --id 3:1042 --yes",
        "streamworker dlq replay orders.dlq reason:exhausted 'age:<1d'",
        "streamworker dlq replay orders.dlq reason:exhausted 'age:<1d' --plan 5f1c22 --yes --rate 50",
    )
)
@selecting
@sending
def replay(selection: Selection, rates: Rates, sent: Callable[[Request], Request]) -> ExitCode:
    """Send dead letters of TOPIC to be handled again, to the replay topic of their group.

    Each is sent once, whoever else does the same at the same time and whatever is killed meanwhile.
    """
    with open_desk(selection.options, selection.topic) as desk:
        return act(desk, selection, sent(selection.request(desk, Action.REPLAY)), rates)


@click.command(
    epilog=examples(
        "streamworker dlq repair orders.dlq --id 3:1042 --edit --handlers app.handlers:StoreOrders",
        "streamworker dlq repair orders.dlq fp:ab12cd34 --function status-as-word --repairs app.repairs",
    )
)
@click.option("--edit", is_flag=True, help="Open the value of one letter in $EDITOR.")
@click.option("--value-file", type=click.File("r", encoding="utf-8"), help="The new value of one letter; - is stdin.")
@click.option("--function", metavar="NAME", help="A repair of the application's, over many letters; see --repairs.")
@selecting
@sending
def repair(
    selection: Selection,
    rates: Rates,
    sent: Callable[[Request], Request],
    *,
    edit: bool,
    value_file: TextIO | None,
    function: str | None,
) -> ExitCode:
    """Mend the values of dead letters of TOPIC and send them to be handled again; the letters stay as they are.

    With --handlers a value must be one that the handler can take.
    """
    if sum((edit, value_file is not None, function is not None)) != 1:
        raise ConfigurationError("say how: --edit, --value-file FILE, or --function NAME")
    with open_desk(selection.options, selection.topic) as desk:
        request = sent(selection.request(desk, Action.REPAIR))
        if function is not None:
            request = replace(request, function=function)
        else:
            if len(request.ids) != 1:
                raise ConfigurationError("only one letter can be edited: name it with --id, or use --function")
            given = value_file.read() if value_file is not None else edited_text(desk, selection.topic, request.ids[0])
            if given is None:
                say("nothing was changed", to_stderr=True)
                return ExitCode.OK
            request = replace(request, edited=given)
        return act(desk, selection, request, rates)


@click.command(
    epilog=examples(
        "streamworker dlq discard orders.dlq --id 3:1042 --reason test-data --note 'from the load test' --yes",
        "streamworker dlq discard orders.dlq reason:poison 'age:>30d' --reason stale",
    )
)
@click.option("--reason", "reason_code", required=True, metavar="CODE", help="Why, in one word; for the audit.")
@click.option("--note", help="Why, in a sentence.")
@selecting
def discard(selection: Selection, *, reason_code: str, note: str | None) -> ExitCode:
    """Say of dead letters of TOPIC that nothing is to be done about them; they stay until their retention ends."""
    return _say_of(selection, Action.DISCARD, reason_code=reason_code, note=note)


@click.command(epilog=examples("streamworker dlq restore orders.dlq state:discarded fp:ab12cd34 --yes"))
@click.option("--note", help="Why, in a sentence.")
@selecting
def restore(selection: Selection, *, note: str | None) -> ExitCode:
    """Make discarded dead letters of TOPIC pending again."""
    return _say_of(selection, Action.RESTORE, note=note)


@click.command(
    epilog=examples("streamworker dlq snooze orders.dlq fp:ab12cd34 --for 2d --note 'fix comes on Thursday' --yes")
)
@click.option("--for", "duration", required=True, metavar="DURATION", help="For instance 30m, 8h, 2d.")
@click.option("--note", help="Why, in a sentence.")
@selecting
def snooze(selection: Selection, *, duration: str, note: str | None) -> ExitCode:
    """Leave dead letters of TOPIC out of what filters act on, for a while."""
    until_ms = SystemClock().wall_ms() + duration_ms(duration)
    return _say_of(selection, Action.SNOOZE, until_ms=until_ms, note=note)


@click.command(epilog=examples("streamworker dlq assign orders.dlq fp:ab12cd34 --to anna --yes"))
@click.option("--to", "assignee", required=True, metavar="NAME", help="Who looks at them; an empty name: nobody.")
@click.option("--note", help="Why, in a sentence.")
@selecting
def assign(selection: Selection, *, assignee: str, note: str | None) -> ExitCode:
    """Say who looks at dead letters of TOPIC."""
    return _say_of(selection, Action.ASSIGN, assignee=assignee or None, note=note)


def _say_of(selection: Selection, action: Action, **said: object) -> ExitCode:
    """Do what sends nothing."""
    with open_desk(selection.options, selection.topic) as desk:
        request = replace(selection.request(desk, action), **said)  # type: ignore[arg-type]
        return act(desk, selection, request, Rates(records_per_s=None, canary=0))


def edited_text(desk: Desk, topic: str, letter: LetterId) -> str | None:
    """What a person makes of the value; None if nothing was changed."""
    detail = desk.detail(topic, letter)
    if not detail.repairable:
        raise ConfigurationError(f"{letter}: its value cannot be edited as text")
    text = desk.text_of(topic, letter)
    edited = click.edit(text, extension=".json" if detail.value.kind != "text" else ".txt")
    if edited is not None and not text.endswith("\n"):
        edited = edited.removesuffix("\n")  # editors put a line end behind a last line that has none
    return None if edited == text else edited
