"""Refuses values that an option cannot have, in words that say what was found and expected. Pure."""

from __future__ import annotations

import enum
import re
from types import UnionType
from typing import TYPE_CHECKING, TypeVar

from streamworker.errors import ConfigurationError, closest, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

E = TypeVar("E", bound=enum.Enum)

# What the client takes: it passes over what it cannot read, and then waits for brokers that nobody has named.
_ADDRESS = re.compile(
    r"(?:(?i:PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)://)?"
    r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)


def at_least(name: str, value: float, minimum: float, option: str | None = None) -> None:
    """Refuse a `value` below `minimum`, which is that of another `option` if one is named."""
    if not value >= minimum:
        least = f"{minimum:g}" if option is None else f"{option} ({minimum:g})"
        raise ConfigurationError(f"{name}: expected at least {least}, got {value!r}")


def at_most(name: str, value: float, maximum: float) -> None:
    """Refuse a `value` above `maximum`."""
    if not value <= maximum:
        raise ConfigurationError(f"{name}: expected at most {maximum:g}, got {value!r}")


def one_of(name: str, value: str, options: Sequence[str]) -> None:
    """Refuse a `value` that is none of `options`."""
    if value not in options:
        close = closest(value, options)
        meant = "" if close is None else f"; did you mean {close!r}?"
        raise ConfigurationError(f"{name}: expected one of {', '.join(options)}, got {value!r}{meant}")


def member(name: str, kind: type[E], value: E | str) -> E:
    """The member of enum `kind` that `value` is or names; `name` says where it stood."""
    if isinstance(value, kind):
        return value
    try:
        return kind(value)
    except ValueError:
        known = [str(option.value) for option in kind]
        raise ConfigurationError(f"{name}: got {value!r}; {nearest(str(value), known)}") from None


def matching(name: str, matches: object) -> None:
    """Refuse what could not match any error: neither an exception class, a tuple of those nor a predicate."""
    for one in matches if isinstance(matches, tuple) else ():
        if not _is_exception_class(one):
            raise ConfigurationError(f"{name}: expected an exception class in the tuple, got {one!r}{_instead(one)}")
    if isinstance(matches, tuple) or (not isinstance(matches, type) and callable(matches)):
        return
    if not _is_exception_class(matches):
        raise ConfigurationError(
            f"{name}: expected an exception class, a tuple of them or a predicate, got {matches!r}{_instead(matches)}"
        )


def _is_exception_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _instead(value: object) -> str:
    match value:
        case str():
            return "; write it without quotes"
        case type():
            return ", which is no exception"
        case BaseException():
            return f"; write its class, {type(value).__name__}"
        case list() | set() | frozenset() | UnionType():
            return "; write a tuple"
    return ""


def addresses(name: str, value: str) -> None:
    """Refuse a `value` that is no list of brokers' addresses."""
    found = [_ADDRESS.fullmatch(one.strip()) for one in value.split(",")]
    if not all(one and 1 <= int(one["port"] or 9092) <= 65_535 for one in found):
        raise ConfigurationError(f"{name}: expected host:port[,host:port], got {value!r}")
