"""The language in which dead letters are chosen, for instance `state:pending reason:poison age:>1h text:"timeout"`.

Decided here: what a filter means. It is a value: `view.py` makes SQL of it, `matches` is what it means, and a test
holds one against the other. Times are made absolute when it is read. Pure, any thread.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Field(enum.StrEnum):
    """What can be asked of a dead letter."""

    STATE = "state"
    REASON = "reason"
    HANDLER = "handler"
    GROUP = "group"
    EXCEPTION = "exception"  # the whole name of the class, or what is behind its last dot
    FINGERPRINT = "fp"
    TOPIC = "topic"  # where the record was first
    PARTITION = "partition"  # of the dead-letter topic
    OFFSET = "offset"  # in the dead-letter topic
    ID = "id"  # PARTITION:OFFSET
    KEY = "key"
    HEADER = "header"  # header.NAME, of those that the record had before it failed
    WRITTEN = "written"  # when the letter was written
    ATTEMPTS = "attempts"
    REPLAYS = "replays"
    ASSIGNED = "assigned"
    TEXT = "text"  # in the exception's class and message, without regard to capitals
    PAYLOAD = "payload"  # in the value: needs a scan


class Test(enum.StrEnum):
    """How the value of a field is compared."""

    IS = "="  # one of the values; `*` at the end of one stands for any rest
    CONTAINS = "~"
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="


@dataclass(frozen=True, slots=True)
class Term:
    """One condition. `values` are text for `IS` and `CONTAINS`, one number for the others."""

    field: Field
    test: Test
    values: tuple[str | int, ...]
    header: str | None = None  # of HEADER
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """All of `terms`; none of them: everything. `text` is what was read, with times made absolute."""

    terms: tuple[Term, ...] = ()
    text: str = ""
