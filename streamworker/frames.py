"""Where in the user's code an error was raised, in one line.

The user's is what belongs neither to streamworker, nor to what is installed, nor to Python itself. Only names of files
without their folders, lines and functions are read: the values and the source of a frame may be payload or secrets.
Standard library only; pure, any thread.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, TracebackType

_OURS = Path(__file__).parent
_OF_PYTHON = Path(sysconfig.get_path("stdlib"))
_INSTALLED = {"site-packages", "dist-packages"}
_USERS, _LIBRARYS, _OTHERS = 2, 1, 0
_MAX_LINKS = 16  # far beyond what people chain; `raise a from b` can make a circle


class ToldTraceback(str):
    """A traceback in words, as a note of an error that came from another process, and what was the line `at` there."""

    __slots__ = ("at",)

    def __new__(cls, text: str, at: str | None) -> Self:
        """The note with its text."""
        note = super().__new__(cls, text)
        note.at = at
        return note

    at: str | None


def where_raised(error: BaseException) -> str | None:
    """The innermost frame of the user's code, like `orders.py:27 in total`; None if the error was never raised.

    If the error has passed through none, its causes are asked; and if these have not either, it is the innermost frame
    of an installed library, at last of streamworker or Python.
    """
    best: str | None = None
    best_rank = -1
    for link in _chain(error):
        if told := _told(link):
            return told
        found, rank = _innermost(link.__traceback__)
        if found is not None and rank > best_rank:
            best, best_rank = f"{Path(found[0].co_filename).name}:{found[1]} in {found[0].co_name}", rank
        if best_rank == _USERS:
            break
    return best


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_MAX_LINKS):
        if error is None:
            return
        yield error
        error = error.__cause__


def _told(error: BaseException) -> str | None:
    """Where it was raised in the process that it came from."""
    notes = getattr(error, "__notes__", None)
    told = [note.at for note in notes if isinstance(note, ToldTraceback)] if isinstance(notes, list) else []
    return told[0] if told else None


def _innermost(traceback: TracebackType | None) -> tuple[tuple[CodeType, int | None] | None, int]:
    """Code and line of the innermost of the frames that are nearest to the user, and how near that is."""
    best: tuple[CodeType, int | None] | None = None
    best_rank = -1
    while traceback is not None:
        code = traceback.tb_frame.f_code
        rank = _rank(code.co_filename)
        if rank >= best_rank:
            best, best_rank = (code, traceback.tb_lineno), rank
        traceback = traceback.tb_next
    return best, best_rank


def _rank(file: str) -> int:
    path = Path(file)
    if path.is_relative_to(_OURS) or file.startswith("<frozen "):
        return _OTHERS
    if not _INSTALLED.isdisjoint(path.parts):
        return _LIBRARYS
    return _OTHERS if path.is_relative_to(_OF_PYTHON) else _USERS
