#!/usr/bin/env python3
"""Writes the reference pages of the documentation from the code: `python tools/generate_docs.py [--check] [FOLDER]`.

Decided here: what a reference page shows and in which order. The words are those of the code: docstrings, and the
comment beside an option. With `--check` nothing is written, and the exit code is 1 if a page is stale.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import io
import re
import sys
import textwrap
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

import click
from made_files import write_or_compare

from streamworker import config, errors, events, exit_code, handler, options
from streamworker.cli.exit_codes import MEANINGS
from streamworker.cli.main import main as command_line
from streamworker.cli.sources import PREFIX
from streamworker.interfaces import FaultKind
from streamworker.observability.catalogue import Kind, Metric, ObserverMetric, SupervisorMetric, markdown
from streamworker.record import Ending
from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

COMMAND = "python tools/generate_docs.py"
FOLDER = Path(__file__).parent.parent / "docs" / "reference"

_HELP_WIDTH = 100
# What a comment may begin with that is for the linter alone.
_FOR_LINTERS = re.compile(r"noqa: \S+ - ")


@dataclasses.dataclass(frozen=True, slots=True)
class Assignment:
    """A name with a value in the body of a class, as it is written, and the comment beside it."""

    name: str
    annotation: str
    value: str
    comment: str


def assignments(kind: type) -> Iterator[Assignment]:
    """The assignments in the source of `kind`, in order; methods and docstrings are passed over."""
    source = textwrap.dedent(inspect.getsource(kind))
    comments = _comments(source)
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.ClassDef)
    for statement in definition.body:
        comment = comments.get(statement.end_lineno or statement.lineno, "")
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                yield Assignment(name, ast.unparse(annotation), "" if value is None else ast.unparse(value), comment)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield Assignment(name, "", ast.unparse(value), comment)


def _comments(source: str) -> Mapping[int, str]:
    """By line number, without the # and what is for linters."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: _FOR_LINTERS.sub("", token.string.lstrip("# "))
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def configuration() -> str:
    """The options of `streamworker.toml`."""
    lines = [
        "# Configuration options",
        "",
        (
            "Every table of `streamworker.toml` with its options. The environment variable of an option is"
            f" `{PREFIX}TABLE__OPTION`, for instance `{PREFIX}KAFKA__GROUP`. How sources are combined is said in"
            " [Configuration](../configuration.md)."
        ),
    ]
    kinds = get_type_hints(config.Config)
    for table in assignments(config.Config):
        if dataclasses.is_dataclass(kinds[table.name]):
            lines += ["", f"## [{table.name}]", "", _text(kinds[table.name]), "", *_options(kinds[table.name])]
        else:
            lines += ["", f"## [{table.name}]", "", _words(table.comment)]
    return _page(lines)


def handlers() -> str:
    """What is declared on a handler class."""
    lines = [
        "# Handler options",
        "",
        (
            "Attributes of a `Handler` or `BatchHandler` class. All are checked before the first poll. How they work"
            " together is said in [Handlers](../handlers.md)."
        ),
        "",
        "## Handler and BatchHandler",
        "",
        *_options(handler.Declared),
        "",
        "## BatchHandler only",
        "",
        *_options(handler.BatchHandler),
    ]
    for kind in (options.Retry, options.Batch, options.DeadLetter):
        lines += ["", f"## {kind.__name__}", "", _text(kind), "", *_options(kind)]
    for choice in (options.Ordering, options.Execution, options.OnExhausted, options.Fallback):
        lines += ["", f"## {choice.__name__}", "", _text(choice), "", *_members(choice)]
    lines += ["", "## Rule", "", _text(options.Rule), "", *_rules()]
    return _page(lines)


def _rules() -> Iterator[str]:
    yield from _table("Rule", "What it does")
    for name, method in vars(options.Rule).items():
        if isinstance(method, classmethod):
            yield _row(f"`Rule.{name}(matches)`", _text(method.__func__))


def _options(kind: type) -> Iterator[str]:
    yield from _table("Option", "Type", "Default", "Meaning")
    for option in assignments(kind):
        yield _row(f"`{option.name}`", _type(option), _default(kind, option), _words(option.comment))


def _type(option: Assignment) -> str:
    """The annotation as it is written, or the texts that name a member of an enum."""
    written = option.annotation
    if written.startswith("ClassVar["):
        written = written.removeprefix("ClassVar[").removesuffix("]")
    name = written.partition(" | ")[0]
    kind = getattr(config, name, None) or getattr(options, name, None)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return ", ".join(f'`"{member.value}"`' for member in kind)
    return f"`{written}`"


def _default(kind: type, option: Assignment) -> str:
    """The value where it is plain, otherwise the expression as it is written."""
    if not option.value:
        return "required"
    if option.value == "field(default_factory=dict)":
        return "empty"
    value = {field.name: field.default for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
    default = value.get(option.name, dataclasses.MISSING)
    if isinstance(default, enum.Enum):
        return f'`"{default.value}"`'
    return f"`{option.value}`" if default is dataclasses.MISSING else f"`{default!r}`".replace("'", '"')


def _members(kind: type[enum.Enum]) -> Iterator[str]:
    yield from _table("Value", "Meaning")
    comments = {one.name: one.comment for one in assignments(kind)}
    for member in kind:
        yield _row(f"`{member.value}`", _words(comments[member.name]))


def metrics() -> str:
    """The catalogue of metrics."""
    buckets = [
        f"- `{metric.value.full_name}`: {', '.join(f'{bound:g}' for bound in metric.value.buckets)}"
        for metric in Metric
        if metric.value.kind is Kind.HISTOGRAM
    ]
    lines = [
        "# Metrics",
        "",
        "All metrics at `/metrics`. Counters begin at 0 with the process. A series of a revoked partition ends.",
        "",
        markdown().rstrip(),
        "",
        "## With several processes",
        "",
        (
            "`streamworker run --processes N` serves the metrics of all its workers on one page, each sample with the"
            " label `worker`, from 0 to N - 1, and some of its own:"
        ),
        "",
        markdown(SupervisorMetric).rstrip(),
        "",
        "## Of an observer",
        "",
        (
            "`streamworker lag --serve` looks at groups from outside, also at those of other programs; what its figures"
            " mean is said in [Lag](../lag.md). It has no bound on its series."
        ),
        "",
        markdown(ObserverMetric).rstrip(),
        "",
        "## Buckets",
        "",
        *buckets,
    ]
    return _page(lines)


def commands() -> str:
    """The help of every command."""
    lines = ["# Command line", "", "The help of each command, as `--help` prints it."]
    for context in _contexts(_context(command_line, "streamworker", None)):
        lines += ["", f"## {context.command_path}", "", "```text", context.get_help(), "```"]
    return _page(lines)


def _contexts(context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None  # it is listed
            yield from _contexts(_context(command, name, context))


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return command.make_context(name, [], parent, resilient_parsing=True, terminal_width=_HELP_WIDTH)


def listener() -> str:
    """The events."""
    lines = [
        "# Events",
        "",
        (
            "What a `Listener` is told of. Metrics, logs and `/status` hang from the same list. Every event is called"
            " on the loop thread, after the fact, for a slice or a partition and never per record. A listener must not"
            " block; what it raises is logged once per listener method and harms nobody."
        ),
    ]
    for name in events.EVENTS:
        method = getattr(events.Listener, name)
        lines += ["", f"## {name}", "", f"`{name}{_arguments(method)}`", "", _text(method)]
    return _page(lines)


def _arguments(method: Callable[..., None]) -> str:
    shown = [
        f"{one.name}: {one.annotation}" for one in inspect.signature(method).parameters.values() if one.name != "self"
    ]
    return f"({', '.join(shown)})"


def endings() -> str:
    """Exceptions, endings of records, reasons to pause, faults and exit codes."""
    tree = textwrap.dedent((errors.__doc__ or "").partition("\n\n")[2].rpartition("\n\n")[0])
    lines = ["# Errors, endings and exit codes", "", "## Exceptions", "", "```text", tree, "```", ""]
    for kind in _raised():
        lines += [f"**{kind.__name__}**: {_text(kind)}", ""]
    lines += ["## Endings of a record", "", *_values(Ending), ""]
    lines += ["## Why a partition is paused", "", _text(PauseReason), "", *_members(PauseReason), ""]
    lines += ["## What the client can report", "", _text(FaultKind), "", *_members(FaultKind), ""]
    lines += ["## Exit codes", "", _text(exit_code.ExitCode), "", *_exit_codes()]
    return _page(lines)


def _raised() -> Iterator[type[BaseException]]:
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.StreamworkerError):
            yield kind


def _values(kind: type[enum.Enum]) -> Iterator[str]:
    yield f"{_text(kind)} They are: {', '.join(f'`{member.value}`' for member in kind)}."


def _exit_codes() -> Iterator[str]:
    yield from _table("Code", "Meaning")
    for code, meaning in MEANINGS.items():
        yield _row(f"{code.value}", meaning)


def _text(documented: object) -> str:
    """A docstring as one Markdown text."""
    return inspect.getdoc(documented) or ""


def _words(comment: str) -> str:
    return comment.strip().rstrip(",").replace("<", "&lt;")


def _table(*columns: str) -> Iterator[str]:
    yield _row(*columns)
    yield _row(*("---" for _ in columns))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _page(lines: Iterable[str]) -> str:
    head, *rest = lines
    note = f"<!-- Made from the code by `{COMMAND}`; changes belong there. -->"
    return "\n".join((head, "", note, *rest)).rstrip() + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "configuration.md": configuration,
    "handlers.md": handlers,
    "metrics.md": metrics,
    "cli.md": commands,
    "events.md": listener,
    "endings.md": endings,
}


if __name__ == "__main__":
    sys.exit(
        write_or_compare(
            "Write the reference pages of the documentation from the code.",
            COMMAND,
            FOLDER,
            lambda _folder: {name: make() for name, make in PAGES.items()},
        )
    )
