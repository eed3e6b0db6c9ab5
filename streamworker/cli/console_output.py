"""How commands write: tables and notes for people, JSON for programs.

Text from records, brokers and files is made harmless on its way to a terminal. Colours appear on terminals only.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, overload

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_FILE_WIDTH = 1000  # columns: where the output is no terminal, nothing is wrapped or cut


def printable(text: str) -> str:
    """`text` without what a terminal acts on: control and formatting characters become U+FFFD, line ends stay."""
    return "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in text)


def say(text: str, *, style: str | None = None, to_stderr: bool = False) -> None:
    """One line or several for people."""
    click.secho(printable(text), fg=style, err=to_stderr)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; an empty cell for None, numbers to the right."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - few commands draw, and it takes longer than all that they import
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    cells = [list(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = any(isinstance(row[index], int) for row in cells)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(printable("" if cell is None else str(cell))) for cell in row))
    terminal = sys.stdout.isatty()
    Console(file=sys.stdout, force_terminal=terminal, width=None if terminal else _FILE_WIDTH).print(table)


def show_json(data: object) -> None:
    """One JSON document in ASCII, so that nothing in it reaches a terminal raw."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=True, default=str))


def moment(at_ms: int | None) -> str | None:
    """A time for people, in UTC; None for none."""
    if at_ms is None:
        return None
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    except (OverflowError, ValueError, OSError):
        return f"{at_ms} ms"


@overload
def key_text(key: bytes) -> str: ...
@overload
def key_text(key: None) -> None: ...
def key_text(key: bytes | None) -> str | None:
    """A key for people: text, or 0x and hexadecimal digits."""
    if key is None:
        return None
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return f"0x{key.hex()}"
    return text if text.isprintable() else f"0x{key.hex()}"


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, if that is a terminal; gives what is to be called with how much is done of `total`."""
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.progress import (  # noqa: PLC0415 - as above
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text  # noqa: PLC0415 - as above

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(Text(printable(title)).plain, total=total)
        yield lambda done: bar.update(task, completed=done)
