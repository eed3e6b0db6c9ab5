"""What people do not get to see of a payload: rules by topic and path, and where in a document they apply.

Decided here: the paths, and what becomes of what they name. The document itself is walked through in `showing.py`.
Pure, any thread.

A path has a name per level, `*` for any name, `[3]` or `[*]` for places in a list, and `**` for any number of levels:
`customer.email`, `items[*].card`, `**.password`. A name with other signs than letters, digits, `_` and `-` stands in
brackets and quotes: `["e.mail"]`. Of headers the path is a name. A pattern of topics has to fit the whole name.
"""

from __future__ import annotations

import enum
import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    Steps = tuple[str | int | "_Any", ...]

REPLACEMENT = "***"

_STEP = re.compile(r'(?:^|(?<=.)\.)(\*\*|\*|[\w-]+)|\[(\*|[0-9]{1,9})\]|\["((?:[^"\\]|\\.)+)"\]')
_KEPT = frozenset(string.punctuation + " ")


class How(enum.IntEnum):
    """What becomes of a field; of several rules for it the strictest holds."""

    MASK = 1  # its length and punctuation stay
    REPLACE = 2
    REMOVE = 3


class Part(enum.StrEnum):
    """What of a record a rule is about."""

    VALUE = "value"
    KEY = "key"
    HEADER = "header"


class _Any(enum.Enum):
    NAME = "*"
    PLACE = "[*]"
    DEPTH = "**"


@dataclass(frozen=True, slots=True)
class MaskingRule:
    """What becomes of the field at `path` in records of topics whose whole name `topics`, a regular expression, fits.

    Raises ConfigurationError.
    """

    topics: str
    path: str
    how: How = How.REPLACE
    part: Part = Part.VALUE

    def __post_init__(self) -> None:
        try:
            re.compile(self.topics)
        except re.error as error:
            raise ConfigurationError(f"masking topics {self.topics!r}: not a regular expression: {error}") from error
        if list(_steps(self.path))[-1:] in ([], [_Any.DEPTH]):
            raise ConfigurationError(f"masking path {self.path!r}: expected the name of a field at its end")


def _steps(path: str) -> Iterator[str | int | _Any]:
    at = 0
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None:
            example = "for instance customer.email, items[*].card"
            raise ConfigurationError(f"masking path {path!r}: cannot be read from {path[at:]!r} on; {example}")
        name, place, quoted = found.groups()
        if quoted is not None:
            yield re.sub(r"\\(.)", r"\1", quoted)
        elif place is not None:
            yield _Any.PLACE if place == "*" else int(place)
        else:
            yield {"*": _Any.NAME, "**": _Any.DEPTH}.get(name, name)
        at = found.end()


@dataclass(frozen=True, slots=True)
class Fields:
    """A place in a document: what becomes of it, and the rest of the paths that lead through it."""

    how: How | None = None
    _paths: tuple[tuple[How, Steps], ...] = ()

    @property
    def free(self) -> bool:
        """Whether nothing becomes of it, nor of anything in it."""
        return self.how is None and not self._paths

    def at(self, step: str | int) -> Fields:
        """The field of this name, or the item at this place."""
        if not self._paths:
            return self
        found = [after for how, steps in self._paths for after in _after(how, steps, step)]
        decided = [how for how, rest in found if not rest]
        if self.how is not None:
            decided.append(self.how)
        return Fields(max(decided, default=None), tuple([one for one in found if one[1]]))


def _after(how: How, steps: Steps, step: str | int) -> Iterator[tuple[How, Steps]]:
    if steps[0] is _Any.DEPTH:
        yield how, steps
        yield from _after(how, steps[1:], step)
    elif steps[0] == step or steps[0] is (_Any.NAME if isinstance(step, str) else _Any.PLACE):
        yield how, steps[1:]


def rule_of(name: str, how: str) -> MaskingRule:
    """The rule that a configuration writes as `name = how`; raises ConfigurationError.

    `name` is a path, with `key:` or `header:` before it if it is about these, and before that a pattern of topics and a
    blank if it is not about all of them.
    """
    topics, blank, rest = name.rpartition(" ")
    part, colon, path = rest.partition(":")
    if not colon:
        part, path = Part.VALUE.value, rest
    known = {one.name.lower(): one for one in How}
    if how not in known:
        raise ConfigurationError(f"masking {name!r}: expected {', '.join(known)}, got {how!r}; {nearest(how, known)}")
    parts = [one.value for one in Part]
    if part not in parts:
        raise ConfigurationError(f"masking {name!r}: {part!r} is no part of a record; {nearest(part, parts)}")
    return MaskingRule(topics.strip() if blank else ".*", path, known[how], Part(part))


class Masking:
    """The rules of an installation."""

    def __init__(self, rules: Sequence[MaskingRule] = ()) -> None:
        self._rules = [(re.compile(rule.topics), rule.part, (rule.how, tuple(_steps(rule.path)))) for rule in rules]

    def fields(self, topics: Collection[str], part: Part) -> Fields:
        """What becomes of this part of a record that was in one of `topics`."""
        paths = [path for pattern, of, path in self._rules if of is part and any(map(pattern.fullmatch, topics))]
        return Fields(None, tuple(paths))


def masked(text: str) -> str:
    """`text` of which only the length and the punctuation are left."""
    return "".join(one if one in _KEPT else "*" for one in text)
