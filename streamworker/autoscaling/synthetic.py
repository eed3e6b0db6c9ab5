"""Courses over time that are made up: a spike, a step, a wave. Of a lag, or of the rate at which records come.

Decided here: how people write them, `spike:peak=50000,at=60,for=90`. Pure; any thread.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, ClassVar, Protocol

from streamworker.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Course(Protocol):
    """A quantity over time."""

    def at(self, at_s: float) -> float:
        """How much it is at that time, and never below 0."""
        ...


def duration_s(text: str) -> float:
    """Seconds of `90`, `90s`, `15m`, `2h` or `1d`. Raises ConfigurationError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if found is None:
        raise ConfigurationError(f"expected a duration like 90s, 15m or 2h, got {text!r}")
    return float(found[1]) * _SECONDS[found[2]]


@dataclass(frozen=True, slots=True)
class Spike:
    """`base`, but for `length_s` seconds from `at_s` on `peak`."""

    word: ClassVar[str] = "spike"
    base: float = field(default=0, metadata={"word": "base"})
    peak: float = field(default=50_000, metadata={"word": "peak"})
    at_s: float = field(default=60, metadata={"word": "at"})
    length_s: float = field(default=90, metadata={"word": "for"})

    def at(self, at_s: float) -> float:
        """As of its protocol."""
        return self.peak if self.at_s <= at_s < self.at_s + self.length_s else self.base


@dataclass(frozen=True, slots=True)
class Step:
    """`base`, and from `at_s` on `to`."""

    word: ClassVar[str] = "step"
    base: float = field(default=0, metadata={"word": "base"})
    to: float = field(default=25_000, metadata={"word": "to"})
    at_s: float = field(default=60, metadata={"word": "at"})

    def at(self, at_s: float) -> float:
        """As of its protocol."""
        return self.to if at_s >= self.at_s else self.base


@dataclass(frozen=True, slots=True)
class Sine:
    """A wave around `mean` that begins there and rises; what would be below 0 is 0."""

    word: ClassVar[str] = "sine"
    mean: float = field(default=5_000, metadata={"word": "mean"})
    amplitude: float = field(default=4_000, metadata={"word": "amplitude"})
    period_s: float = field(default=3_600, metadata={"word": "period"})

    def at(self, at_s: float) -> float:
        """As of its protocol."""
        return max(0.0, self.mean + self.amplitude * math.sin(2 * math.pi * at_s / self.period_s))


_KINDS: Mapping[str, type[Spike] | type[Step] | type[Sine]] = {kind.word: kind for kind in (Spike, Step, Sine)}


def course(text: str) -> Spike | Step | Sine:
    """The one that `text` describes. Raises ConfigurationError."""
    word, _, rest = text.partition(":")
    kind = _KINDS.get(word)
    if kind is None:
        raise ConfigurationError(f"synthetic: there is no {word!r}; {nearest(word, _KINDS)}")
    words = {str(one.metadata["word"]): one.name for one in fields(kind)}
    given: dict[str, float] = {}
    for part in filter(None, rest.split(",")):
        name, equals, value = part.partition("=")
        if name not in words:
            raise ConfigurationError(f"synthetic: {word} has no {name!r}; {nearest(name, words)}")
        if not equals:
            raise ConfigurationError(f"synthetic: expected {name}=VALUE, got {part!r}")
        given[words[name]] = _amount(f"synthetic: {name}", value, time=words[name].endswith("_s"))
    if given.get("period_s") == 0:
        raise ConfigurationError("synthetic: period: expected more than 0")
    return kind(**given)


def _amount(name: str, value: str, *, time: bool) -> float:
    try:
        amount = duration_s(value) if time else float(value)
    except (ConfigurationError, ValueError):
        expected = "a duration like 90s or 15m" if time else "a number"
        raise ConfigurationError(f"{name}: expected {expected}, got {value!r}") from None
    if not (math.isfinite(amount) and amount >= 0):
        raise ConfigurationError(f"{name}: expected 0 or more, got {value!r}")
    return amount
