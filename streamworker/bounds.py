"""Refuses values that an option cannot have, in words that say what was found and expected. Pure."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, TypeVar

from streamworker.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

E = TypeVar("E", bound=enum.Enum)


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
        raise ConfigurationError(f"{name}: expected one of {', '.join(options)}, got {value!r}")


def member(name: str, kind: type[E], value: E | str) -> E:
    """The member of enum `kind` that `value` is or names; `name` says where it stood."""
    if isinstance(value, kind):
        return value
    try:
        return kind(value)
    except ValueError:
        known = [str(option.value) for option in kind]
        raise ConfigurationError(f"{name}: got {value!r}; {nearest(str(value), known)}") from None
