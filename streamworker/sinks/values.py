"""What handlers return, as sinks see it: the fields of a value, names made of them, and deletions. Pure.

A value is a mapping, a `msgspec.Struct` or a dataclass. What is wrong with one is the record's fault: PoisonError.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING

import msgspec

from streamworker.errors import ConfigurationError, PoisonError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Delete:
    """Returned by a handler instead of a value: what the fields of `value` name is to be deleted."""

    value: object


def fields_of(value: object) -> Mapping[str, object]:
    """The fields of `value`, by the names that Python knows them by; raises PoisonError if it has none."""
    match value:
        case Mapping():
            return value
        case msgspec.Struct():
            names = type(value).__struct_fields__
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = tuple(field.name for field in dataclasses.fields(value))
        case _:
            raise PoisonError(
                f"expected a mapping, a msgspec.Struct or a dataclass to write, got {type(value).__name__}"
            )
    return {name: getattr(value, name) for name in names}


class Template:
    """Text with fields in braces, `order:{order_id}`, to be filled with those of a value. Immutable."""

    __slots__ = ("_pieces", "text")

    def __init__(self, option: str, text: str) -> None:
        """Raises ConfigurationError, which names `option`, for anything in braces that is not a plain name."""
        self.text = text
        try:
            self._pieces: Sequence[tuple[str, str | None]] = tuple(map(_piece, Formatter().parse(text)))
        except ValueError as error:
            raise ConfigurationError(f"{option}: {error} in {text!r}; write fields as {{name}}") from error

    @property
    def has_fields(self) -> bool:
        """Whether it differs from value to value."""
        return any(name is not None for _, name in self._pieces)

    def filled(self, value: object, escape: Callable[[str], str] = str) -> str:
        """The text for `value`, each field escaped; raises PoisonError for one that is missing, empty or no name."""
        if not self.has_fields:
            return "".join(literal for literal, _ in self._pieces)
        fields = fields_of(value)
        return "".join(
            literal if name is None else literal + escape(self._text_of(name, fields)) for literal, name in self._pieces
        )

    def _text_of(self, name: str, fields: Mapping[str, object]) -> str:
        if name not in fields:
            raise PoisonError(f"{self.text!r} needs the field {name!r}, which the value does not have")
        try:
            plain = msgspec.to_builtins(fields[name])
            str(plain).encode()
        except (TypeError, ValueError):
            plain = None
        if isinstance(plain, bool) or not isinstance(plain, str | int) or plain == "":
            raise PoisonError(
                f"{self.text!r}: expected text or a whole number in the field {name!r}, got"
                f" {'nothing' if fields[name] in (None, '') else type(fields[name]).__name__}"
            )
        return str(plain)


def _piece(parsed: tuple[str, str | None, str | None, str | None]) -> tuple[str, str | None]:
    literal, name, form, conversion = parsed
    if name is not None and (not name.isidentifier() or form or conversion):
        raise ValueError(f"expected a plain name in braces, got {name!r}")
    return literal, name
