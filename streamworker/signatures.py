"""Whether the methods of a handler's class can be called as the worker calls them.

Otherwise the first call would say so, in the words of Python and after the start. Types are judged where they are
annotated, and only by whether it is one record or many. Nothing is called here. Any thread.
"""

from __future__ import annotations

import difflib
import inspect
import re
from itertools import islice
from typing import TYPE_CHECKING, get_origin

from streamworker.errors import ConfigurationError
from streamworker.handler import BatchHandler, Declared, Handler
from streamworker.record import Record, Records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NOT_GIVEN = inspect.Parameter.empty
# Likeness from which a method is taken for a misspelled one (handel 0.83, handle_record 0.63; insert 0.33).
_MISSPELLED = 0.6


def refuse_bad_methods(handler: type[Declared]) -> None:
    """Refuse a `handler` whose handle, open, close, preview or `__init__` could not be called; says what to write."""
    argument = "records" if issubclass(handler, BatchHandler) else "record"
    _refuse_bad_handle(handler, argument)
    _refuse_other_arguments(handler, "handle", (argument,))
    _refuse_other_arguments(handler, "open", ("context",))
    _refuse_other_arguments(handler, "close", ())
    if callable(handler.preview):
        _refuse_other_arguments(handler, "preview", ("record",))
    _refuse_arguments_of_init(handler)
    _refuse_annotation_of_the_other_kind(handler)


def _refuse_bad_handle(handler: type[Declared], argument: str) -> None:
    handle = getattr(handler, "handle")  # noqa: B009 - both kinds have it, their common base does not
    if handle in (Handler.handle, BatchHandler.handle):
        meant = difflib.get_close_matches("handle", _own_methods(handler), n=1, cutoff=_MISSPELLED)
        hint = f"; {meant[0]!r} looks like it is meant to be 'handle'" if meant else ""
        raise ConfigurationError(f"{handler.__name__} has no handle(self, {argument}){hint}")
    if inspect.isgeneratorfunction(handle) or inspect.isasyncgenfunction(handle):
        raise ConfigurationError(
            f"{handler.__name__}.handle has a yield, so calling it would do nothing; let it return"
        )


def _own_methods(handler: type[Declared]) -> Sequence[str]:
    known = dir(Declared)
    return [
        name for name in dir(handler) if name not in known and name != "handle" and callable(getattr(handler, name))
    ]


def _refuse_other_arguments(handler: type[Declared], name: str, arguments: Sequence[str]) -> None:
    method = _as_of_an_instance(handler, name)
    if not callable(method):
        raise ConfigurationError(f"{handler.__name__}.{name}: {method!r} cannot be called")
    if not _takes(method, len(arguments)):
        found = _written(name, getattr(handler, name))
        wanted = f"{name}({', '.join(('self', *arguments))})"
        raise ConfigurationError(f"{handler.__name__}.{name}: found {found}, write {wanted}")


def _as_of_an_instance(handler: type[Declared], name: str) -> object:
    """The method as an instance has it, without making one."""
    found = inspect.getattr_static(handler, name)
    bind = getattr(type(found), "__get__", None)
    return found if bind is None else bind(found, object(), handler)


def _takes(method: Callable[..., object], arguments: int) -> bool:
    # What wraps a method may well give it more than it is given itself.
    signature, given = _signature(method, follow_wrapped=False)
    try:
        signature.bind(*[None] * (given + arguments))
    except TypeError:
        return False
    return True


def _signature(method: Callable[..., object], *, follow_wrapped: bool = True) -> tuple[inspect.Signature, int]:
    """The signature, and how many of its arguments are given by Python; of builtins that have none, one that fits."""
    function, given = (method.__func__, 1) if inspect.ismethod(method) else (method, 0)
    try:
        return inspect.signature(function, follow_wrapped=follow_wrapped), given
    except ValueError:
        return inspect.signature(_anything), given


def _anything(*_: object) -> None:
    """Takes what it is given."""


def _written(name: str, method: Callable[..., object], *, before: Sequence[str] = ()) -> str:
    """As in the class, without annotations."""
    signature, _ = _signature(method)
    bare = [one.replace(annotation=_NOT_GIVEN) for one in signature.parameters.values()]
    arguments = str(signature.replace(parameters=bare, return_annotation=_NOT_GIVEN))[1:-1]
    return f"{name}({', '.join(filter(None, (*before, arguments)))})"


def _refuse_arguments_of_init(handler: type[Declared]) -> None:
    if not _takes(handler, 0):
        found = _written("__init__", handler, before=("self",))
        raise ConfigurationError(
            f"{handler.__name__}: found {found}, write __init__(self): the worker makes each instance without"
            f" arguments; get what it needs in open(self, context)"
        )


def _refuse_annotation_of_the_other_kind(handler: type[Declared]) -> None:
    handle = _as_of_an_instance(handler, "handle")
    assert callable(handle)  # what is not was refused
    signature, given = _signature(handle)
    first = next(islice(signature.parameters.values(), given, None), None)
    found = None if first is None else _annotated(first.annotation, handle)
    many = issubclass(handler, BatchHandler)
    if first is None or found is None or (found is Records) == many:
        return
    told = (
        "a BatchHandler is given Records; write handle(self, records: Records[...]), or subclass Handler"
        if many
        else "a Handler is given one Record; write handle(self, record: Record[...]), or subclass BatchHandler"
    )
    raise ConfigurationError(f"{handler.__name__}.handle: found {first.name}: {found.__name__}, and {told}")


def _annotated(annotation: object, method: Callable[..., object]) -> type | None:
    """Record or Records, if `annotation` is one of them; it is text where annotations are not evaluated."""
    if not isinstance(annotation, str):
        kind = get_origin(annotation) or annotation
    elif found := re.match(r"[\"']?([\w.]+)", annotation):
        kind = _named(found[1], method)
    else:
        kind = None
    return next((one for one in (Record, Records) if kind is one), None)


def _named(dotted: str, method: Callable[..., object]) -> object:
    """What is called `dotted` where `method` was written; by its last part if it was imported for the checker only."""
    first, *others = dotted.split(".")
    names = getattr(inspect.unwrap(method), "__globals__", {})
    if first not in names:
        return {"Record": Record, "Records": Records}.get(dotted.rpartition(".")[2])
    found = names[first]
    for name in others:
        found = getattr(found, name, None)
    return found
