"""`streamworker dlq process`: dead letters handled in the process of this command, outside of their group.

Dry until --yes is given, like all that acts on dead letters. The first SIGTERM or SIGINT ends it after the records in
hand; what is left stays pending, so the same command goes on with it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamworker.cli.actors import this_actor
from streamworker.cli.console_output import progress_bar, say, show_json, show_table
from streamworker.cli.desks import audit_key, open_desk
from streamworker.cli.dlq_runs import show_plan
from streamworker.cli.findings import MISSING_GROUP
from streamworker.cli.handlers import import_handlers
from streamworker.cli.options import connect, examples
from streamworker.cli.selections import selecting
from streamworker.cli.signals import stop_on_signals
from streamworker.clock import SystemClock
from streamworker.declaration import declarations
from streamworker.errors import ConfigurationError
from streamworker.exit_code import ExitCode
from streamworker.replay.desk import Action
from streamworker.replay.in_process import refuse
from streamworker.replay.kafka_process import Work, kafka_process

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamworker.cli.selections import Selection
    from streamworker.config import Config
    from streamworker.declaration import Declaration
    from streamworker.replay.dead_record import LetterId
    from streamworker.replay.desk import Plan
    from streamworker.replay.letter_source import Account

_OP_ID_BYTES = 6
_SHOWN = 20  # letters that are named with what they failed of
NO_ORDER = (
    "they are handled beside the workers of the group: an old value may replace a newer one of its key, unless the sink"
    " goes by rows"
)
NOT_ONCE = "the handler has no sink that knows repeats: what is handled when the process is killed is handled again"


@click.command(
    epilog=examples(
        "streamworker dlq process app.handlers:StoreOrders orders.dlq --id 3:1042 --group orders",
        "streamworker dlq process app.handlers:StoreOrders orders.dlq fp:ab12cd34 --group orders --yes",
    )
)
@click.argument("handler", metavar="MODULE:CLASS")
@selecting
def process(selection: Selection, *, handler: str) -> ExitCode:
    """Handle dead letters of TOPIC with HANDLER in this process, without sending them anywhere.

    With its retries, breakers, claims and sinks, and outside of its group: there is no order between them and what the
    group handles meanwhile. What fails again stays pending, and is told with its error; then the exit code is 3.
    """
    config, declared = _handler(selection, handler)
    with open_desk(selection.options, selection.topic) as desk:
        plan = desk.plan(this_actor(), selection.request(desk, Action.PROCESS))
        if selection.plan_id is not None and not plan.sha256.startswith(selection.plan_id):
            raise ConfigurationError(
                f"the plan is {plan.id} now, not {selection.plan_id}: look at it again without --yes"
            )
        if not selection.yes or not plan.ids:
            show_plan(desk, replace(plan, warnings=[*plan.warnings, *_warnings(declared)]), as_json=selection.as_json)
            return ExitCode.PARTIAL if selection.yes and plan.refusals else ExitCode.OK
    for warning in _warnings(declared):
        say(f"Warning: {warning}", style="yellow", to_stderr=True)
    done = _process(selection, config, declared, plan)
    _tell(done, as_json=selection.as_json)
    return done.code


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a plan."""

    op_id: str
    plan: Plan
    account: Account
    code: ExitCode

    @property
    def pending(self) -> int:
        """Letters that are as they were."""
        return len(self.plan.ids) - self.account.handled - len(self.account.repeats)


def _handler(selection: Selection, handler: str) -> tuple[Config, Declaration]:
    """What it runs with, once it is known that it can."""
    groups = selection.options.groups
    if len(groups) > 1:
        raise ConfigurationError(f"--group: a handler is of one group, got {', '.join(groups)}")
    config = selection.options.sources.load(group=groups[0] if groups else None).config
    if not config.kafka.group:
        raise ConfigurationError(MISSING_GROUP)
    [declared] = declarations(import_handlers([handler], Path.cwd()))
    refuse(declared)
    return config, declared


def _warnings(declared: Declaration) -> list[str]:
    knows_repeats = declared.sink is not None and declared.sink.knows_repeats
    return [NO_ORDER] if knows_repeats or declared.idempotency is not None else [NO_ORDER, NOT_ONCE]


def _process(selection: Selection, config: Config, declared: Declaration, plan: Plan) -> Done:
    """Do it, with a progress bar; a signal ends it in order."""
    op_id = secrets.token_hex(_OP_ID_BYTES)
    request = plan.request
    work = Work(
        topic=selection.topic,
        ids=plan.ids,
        duplicates=plan.duplicates,
        op_id=op_id,
        actor=this_actor(),
        detail={"plan": plan.sha256, "filter": None if request.filter is None else request.filter.text},
    )
    with (
        progress_bar(f"process {selection.topic}", len(plan.ids)) as advance,
        kafka_process(
            config,
            declared,
            work,
            cluster=connect(config.kafka),
            clock=SystemClock(),
            audit_key=audit_key(config),
            timeout_s=selection.options.timeout_s,
            tell=lambda text: say(text, style="yellow", to_stderr=True),
            progress=advance,
        ) as process_,
    ):
        stop_on_signals(process_.stop)
        code = process_.run()
    return Done(op_id, plan, process_.account, code)


def _tell(done: Done, *, as_json: bool) -> None:
    account = done.account
    if as_json:
        show_json(
            {
                "operation": done.op_id,
                "plan_sha256": done.plan.sha256,
                "topic": done.plan.request.topic,
                "matched": len(done.plan.ids),
                "handled": account.handled,
                "pending": done.pending,
                "failures": _plain(account.failures),
                "repeats": _plain(account.repeats),
                "unsaid": [str(one) for one in sorted(account.unsaid)],
                "trouble": None if account.trouble is None else str(account.trouble),
            }
        )
        return
    say(f"operation {done.op_id}: {account.handled} of {len(done.plan.ids)} handled, {done.pending} stay pending")
    if account.failures:
        show_table(("letter", "why it stays pending"), list(_plain(account.failures).items())[:_SHOWN])
        if len(account.failures) > _SHOWN:
            say(f"and {len(account.failures) - _SHOWN} more; --json names all of them")
    for letter, why in sorted(account.repeats.items())[:_SHOWN]:
        say(f"{letter} was handled, and somebody else did something with it: {why}", style="yellow")
    if account.unsaid:
        say(f"{len(account.unsaid)} of these were handled, and their states could not be written", style="red")
    if account.trouble is not None:
        say(f"no more could be read: {account.trouble}", style="red")


def _plain(letters: Mapping[LetterId, str]) -> dict[str, str]:
    return {str(letter): why for letter, why in sorted(letters.items())}
