"""`streamworker dlq export | import`: dead letters as a file, and values that were mended in it.

An export changes nothing and is audited, because payloads leave the cluster by it. An import is a repair like others.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from streamworker.cli.actors import this_actor
from streamworker.cli.console_output import progress_bar, say
from streamworker.cli.desks import desk_options, open_desk
from streamworker.cli.dlq_runs import act
from streamworker.cli.dlq_show import filter_argument
from streamworker.cli.options import TEXT, examples, json_option
from streamworker.cli.selections import Selection, sending
from streamworker.errors import ConfigurationError
from streamworker.replay.desk import Action, Request
from streamworker.replay.exports import import_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO

    from streamworker.cli.desks import DeskOptions
    from streamworker.exit_code import ExitCode
    from streamworker.replay.desk import Rates
    from streamworker.replay.exports import Imported

_STDIO = "-"


@click.command(
    epilog=examples(
        "streamworker dlq export orders.dlq --output letters.jsonl",
        "streamworker dlq export orders.dlq state:pending fp:ab12cd34 --text --unmasked --output letters.jsonl",
        "streamworker dlq export orders.dlq reason:poison | jq .message",
    )
)
@click.argument("topic", type=TEXT)
@filter_argument
@click.option(
    "--output", type=click.Path(dir_okay=False), default=_STDIO, help="A new file, which only its owner may read."
)
@click.option("--text", "as_text", is_flag=True, help="Values that are text as `text` rather than base64.")
@desk_options
def export(options: DeskOptions, topic: str, words: Sequence[str], output: str, *, as_text: bool) -> None:
    """Write the dead letters of TOPIC that FILTER chooses as lines of JSON, in the order of their places.

    Keys, values and headers are base64. What is configured to be masked is masked here as well, and such a value cannot
    be imported again: for that, export with --unmasked.
    """
    with open_desk(options, topic) as desk:
        filter_ = desk.filter_of(" ".join(words))
        total = desk.matching(topic, filter_)
        said = {"topic": topic, "filter": filter_.text, "letters": total, "masked": not options.unmasked}
        desk.noted(this_actor(), "export", said)
        exporter, written = desk.exporter(as_text=as_text), 0
        with _opened(output) as write, progress_bar(f"exporting {topic}", total) as advance:
            for letter, row in desk.letters(topic, filter_):
                write(exporter.line(letter, row.state))
                written += 1
                advance(written)
    if output != _STDIO:
        say(f"{written} letters are in {output}", to_stderr=True)


def _importing(command: Callable[..., ExitCode]) -> Callable[..., None]:
    """Give `command` the arguments of an import, as its `selection` and `imported`; it returns the exit code."""

    @click.argument("topic", type=TEXT)
    @click.argument("file", type=click.File("rb"))
    @click.option("--plan", "plan_id", metavar="PLAN", help="Only if the plan is still this one.")
    @click.option("--yes", is_flag=True, help="Do it; without, it is only shown.")
    @json_option
    @desk_options
    @functools.wraps(command)
    def with_edits(
        *,
        options: DeskOptions,
        topic: str,
        file: BinaryIO,
        plan_id: str | None,
        yes: bool,
        as_json: bool,
        **others: object,
    ) -> None:
        imported = import_lines(file, topic)
        say(f"{len(imported.edits)} values were edited, {imported.unchanged} were not", to_stderr=True)
        if not imported.edits:
            raise ConfigurationError("no value was edited; `dlq replay` sends dead letters as they are")
        ids = [str(one) for one in imported.ids]
        selection = Selection(options, topic, (), ids, everything=False, plan_id=plan_id, yes=yes, as_json=as_json)
        click.get_current_context().exit(command(selection, imported=imported, **others))

    return with_edits


@click.command(
    "import",
    epilog=examples(
        "streamworker dlq import orders.dlq letters.jsonl",
        "streamworker dlq import orders.dlq letters.jsonl --plan 5f1c22 --yes --rate 50",
    ),
)
@_importing
@sending
def import_(selection: Selection, rates: Rates, sent: Callable[[Request], Request], *, imported: Imported) -> ExitCode:
    """Send the values that were edited in FILE, an export of TOPIC, instead of those of its dead letters.

    FILE is - for standard input. Only values are read of it, from `value` or `text`, and only of lines in which they
    were edited; a letter that does not have the value any more that was exported is left alone. With --handlers a value
    must be one that the handler can take.
    """
    with open_desk(selection.options, selection.topic) as desk:
        desk.take(imported)
        request = Request(topic=selection.topic, action=Action.REPAIR, ids=imported.ids, function=imported.name)
        return act(desk, selection, sent(request), rates)


@contextmanager
def _opened(output: str) -> Iterator[Callable[[bytes], object]]:
    """Where lines go to."""
    if output == _STDIO:
        terminal = sys.stdout.isatty()
        yield lambda line: click.echo(_harmless(line) if terminal else line, nl=False)
        sys.stdout.flush()
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigurationError(f"--output {output}: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        yield file.write


def _harmless(line: bytes) -> str:
    """In ASCII: a terminal acts on some of the rest."""
    return json.dumps(json.loads(line), ensure_ascii=True) + "\n"
