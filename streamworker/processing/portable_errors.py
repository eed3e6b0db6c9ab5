"""Errors in a form that survives the way between processes, with what rules ask of them: class, attributes, causes.

Pickle alone loses the causes, and fails for classes whose `__init__` wants other arguments than it keeps. Pure; any
thread. Of streamworker it imports `frames` only.
"""

from __future__ import annotations

import pickle
import traceback
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Self

from streamworker.frames import ToldTraceback, where_raised

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MAX_LINKS = 16  # far beyond what people chain; `raise a from b` can make a circle
_MAX_TRACEBACK_CHARS = 16_384


class PortableError(NamedTuple):
    """An error and what it was raised from, one after the other, and where that was."""

    links: tuple[bytes, ...]
    traceback: str
    at: str | None

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """The form of `error` that crosses."""
        links: list[bytes] = []
        link: BaseException | None = error
        while link is not None and len(links) < _MAX_LINKS:
            links.append(_pickled(link))
            link = link.__cause__
        told = "".join(traceback.format_exception(error))[-_MAX_TRACEBACK_CHARS:]
        return cls(tuple(links), told, where_raised(error))

    def error(self) -> BaseException:
        """The error with its causes. Its traceback is a note: a cause would be asked about by the rules."""
        chain: list[BaseException] = [pickle.loads(link) for link in self.links]
        for error, cause in pairwise(chain):
            error.__cause__ = cause
        chain[0].add_note(ToldTraceback(f"\nIn the child process:\n{self.traceback}", self.at))
        return chain[0]


def _pickled(error: BaseException) -> bytes:
    """The most exact form of `error` that comes back as an exception."""
    for form in (error, _Bare(error), *_stand_ins(error)):
        with suppress(Exception):
            data = pickle.dumps(form)
            if isinstance(pickle.loads(data), BaseException):
                return data
    return pickle.dumps(Exception(_described(error)))


def _stand_ins(error: BaseException) -> Iterator[BaseException]:
    """Errors of what its class is based on, the nearest first, with its name and words."""
    for kind in type(error).__mro__[1:]:
        if issubclass(kind, BaseException):
            with suppress(Exception):  # of a class that wants other arguments
                yield kind(_described(error))


class _Bare:
    """Comes back as `error`, without a call of its `__init__`; what of it cannot be pickled is left out."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[object, ...]:
        arguments = tuple(one if _can_be_pickled(one) else repr(one) for one in self._error.args)
        attributes = {name: value for name, value in vars(self._error).items() if _can_be_pickled(value)}
        return _made_anew, (type(self._error), arguments, attributes)


def _made_anew(
    kind: type[BaseException], arguments: tuple[object, ...], attributes: Mapping[str, object]
) -> BaseException:
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(attributes)
    return error


def _can_be_pickled(value: object) -> bool:
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:  # noqa: BLE001 - it runs code of the value's class, which may raise anything
        return False
    return True


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the error's class is user code; its words are not worth a failure
        return type(error).__name__
