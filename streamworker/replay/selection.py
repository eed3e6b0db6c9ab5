"""Dead letters as rows of SQLite, and filters as conditions on them.

Decided here: the tables of the view, and how each field of a letter lies there so that a scan of a million rows answers
any filter within a second. Values are bound, never written into a statement. Pure, any thread; touches no database.

Rules. The table of letters lies in the order of lists, the newest first, and is written in that order while the view is
built, so both go from page to page of the file. It has the message and headers in the row: their own tables would cost
a look-up per row. What is the same in many letters (handler, reason, class of the error, …) is a row of `mistakes`, and
a condition on it is answered there. Text is searched by scanning: an index of trigrams made writing far slower, and
would still have to be joined with letters in their order.
"""

from __future__ import annotations

import json
import re
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from streamworker.errors import ConfigurationError
from streamworker.replay.filters import (
    LONGEST_VALUE,
    SEARCHED_CHARS,
    Exactly,
    Field,
    Part,
    Prefix,
    Span,
    short_name,
)
from streamworker.replay.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from streamworker.record import Header
    from streamworker.replay.dead_record import DeadRecord
    from streamworker.replay.filters import Filter, Term, Value
    from streamworker.replay.states import Disposition

Cell = str | bytes | int | None

NO_TIME = -(2**63)  # `written` of a letter without a timestamp: behind all others in lists
STATES: tuple[State, ...] = tuple(State)  # by the number that a row has
PENDING = STATES.index(State.PENDING)

SCHEMA = """
CREATE TABLE letters (
    written INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    mistake INTEGER NOT NULL,
    state INTEGER NOT NULL,
    attempts INTEGER,
    replay_count INTEGER NOT NULL,
    size INTEGER,
    assigned TEXT,
    snoozed INTEGER,
    op TEXT,
    key BLOB,
    message TEXT,
    folded TEXT,
    headers BLOB NOT NULL,
    origin_partition INTEGER,
    origin_offset INTEGER,
    sw_id TEXT,
    parent TEXT,
    replay_id TEXT,
    sha256 BLOB,
    PRIMARY KEY (written DESC, partition DESC, offset DESC)
) WITHOUT ROWID;
CREATE UNIQUE INDEX places ON letters (partition, offset);
CREATE INDEX records ON letters (sw_id) WHERE sw_id IS NOT NULL;
CREATE INDEX children ON letters (parent) WHERE parent IS NOT NULL;
CREATE TABLE mistakes (
    id INTEGER PRIMARY KEY,
    facts TEXT NOT NULL UNIQUE,
    error TEXT NOT NULL,
    fingerprint TEXT,
    exception TEXT,
    exception_short TEXT,
    exception_folded TEXT,
    reason TEXT,
    handler TEXT,
    consumer_group TEXT,
    topic TEXT,
    family TEXT NOT NULL
);
CREATE INDEX errors ON mistakes (error);
CREATE TABLE said (
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    position INTEGER NOT NULL,
    entry BLOB NOT NULL,
    ignored INTEGER NOT NULL,
    PRIMARY KEY (partition, offset, position)
) WITHOUT ROWID;
"""

INSERT_LETTER = "INSERT INTO letters VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
INSERT_SAID = "INSERT OR IGNORE INTO said VALUES (?, ?, ?, ?, 0)"
INSERT_MISTAKE = "INSERT INTO mistakes VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Mistake(NamedTuple):
    """What many letters have in common."""

    fingerprint: str | None
    exception: str | None
    reason: str | None
    handler: str | None
    group: str | None
    topic: str | None
    family: str

    @property
    def facts(self) -> str:
        """As one text."""
        return json.dumps(self)

    @property
    def cells(self) -> Sequence[Cell]:
        """Its row, but for the number."""
        exception = self.exception
        return [
            self.facts,
            json.dumps([self.fingerprint, exception if self.fingerprint is None else None]),
            _kept(self.fingerprint),
            _kept(exception),
            None if exception is None else _kept(short_name(exception)),
            None if exception is None else clean(exception[:SEARCHED_CHARS]).casefold(),
            _kept(self.reason),
            _kept(self.handler),
            _kept(self.group),
            _kept(self.topic),
            _kept(self.family),
        ]


MistakeFacts = tuple[str | None, str | None, str | None, str | None, str | None, str | None, str]
# Those of a letter, which may have made them up, as a plain tuple: it is looked for once per letter.
mistake_of: Callable[[DeadRecord], MistakeFacts] = attrgetter(
    "fingerprint", "exception", "reason", "handler", "group", "origin_topic", "family"
)


class Cells(NamedTuple):
    """The row of a letter, in the order of the table's columns."""

    written: int
    partition: int
    offset: int
    mistake: int
    state: int
    attempts: int | None
    replay_count: int
    size: int | None
    assigned: str | None
    snoozed: int | None
    op: str | None
    key: bytes | None
    message: str | None
    folded: str | None  # None: the message is plain
    headers: bytes
    origin_partition: int | None
    origin_offset: int | None
    sw_id: str | None
    parent: str | None
    replay_id: str | None
    sha256: bytes | None


class DispositionCells(NamedTuple):
    """What the row of a letter has of the disposition that holds for it, in the order of the table's columns."""

    state: int = PENDING
    assigned: str | None = None
    snoozed: int | None = None
    op: str | None = None

    @classmethod
    def of(cls, said: Disposition | None) -> DispositionCells:
        """None: nothing that is believed was said of it."""
        return (
            cls()
            if said is None
            else cls(STATES.index(said.state), said.assigned_to, said.snoozed_until_ms, said.op_id)
        )


def cells_of(letter: DeadRecord, mistake: int, said: DispositionCells, payload: str | None) -> Cells:
    """The row of a letter whose payload has this SHA-256."""
    value, message, origin, pointer = letter.value, letter.message, letter.origin, letter.pointer
    if message is not None:
        message = message[:SEARCHED_CHARS]
    if value is not None:
        size: int | None = len(value)
    else:
        size = None if pointer is None else pointer.size_bytes
    return Cells(
        NO_TIME if letter.written_ms is None else letter.written_ms,
        letter.id.partition,
        letter.id.offset,
        mistake,
        said.state,
        letter.attempts,
        letter.replay_count,
        size,
        said.assigned,
        said.snoozed,
        said.op,
        None if letter.key is None else letter.key[: LONGEST_VALUE + 1],
        message,
        None if message is None or _is_plain(message) else clean(message).casefold(),
        _encoded(letter.own_headers),
        None if origin is None else origin.partition,
        None if origin is None else origin.offset,
        letter.sw_id,
        letter.parent,
        letter.replay_id,
        None if payload is None else bytes.fromhex(payload),
    )


def tamed(cells: Cells) -> Cells:
    """The same as SQLite can hold it: what headers claim may be no text, or a number without measure."""
    return Cells._make(map(_tame, cells))


def _tame(cell: Cell) -> Cell:
    if isinstance(cell, str):
        return clean(cell)
    return min(max(cell, NO_TIME), -(NO_TIME + 1)) if isinstance(cell, int) else cell


def clean(text: str) -> str:
    """Without halves of characters, which cannot be encoded."""
    return text.encode("utf-8", "backslashreplace").decode()


def _kept(text: str | None) -> str | None:
    """One character more than a filter can ask for, so that what is longer is equal to nothing."""
    return None if text is None else clean(text[: LONGEST_VALUE + 1])


# Headers are one value, in which a search for bytes finds a header: each begins with 00, name and value are parted by
# 01, a name without a value ends with 03, and these bytes do not occur elsewhere.
def _encoded(headers: Sequence[Header]) -> bytes:
    if not headers:
        return b""
    return b"".join([_header(name, value) for name, value in headers]) + b"\0"


def _is_plain(text: str) -> bool:
    """Whether LIKE compares it without regard to capitals: it knows those of ASCII, and ends at a zero byte."""
    return text.isascii() and "\0" not in text


def _header(name: str, value: bytes | None) -> bytes:
    escaped = _escaped(name.encode("utf-8", "surrogatepass"))
    return b"\0%b\3" % escaped if value is None else b"\0%b\1%b" % (escaped, _escaped(value[: LONGEST_VALUE + 1]))


def _escaped(part: bytes) -> bytes:
    if len(part.translate(None, b"\0\1\2\3")) == len(part):
        return part
    return part.replace(b"\2", b"\2c").replace(b"\0", b"\2a").replace(b"\1", b"\2b").replace(b"\3", b"\2d")


AMONG = "(partition, offset) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"


class Condition(NamedTuple):
    """Part of a WHERE on `letters`, and what is bound to its places."""

    sql: str
    cells: tuple[Cell, ...] = ()

    def and_(self, sql: str, cells: tuple[Cell, ...]) -> Condition:
        """With another that must hold too."""
        return Condition(f"{self.sql} AND {sql}", (*self.cells, *cells))


def condition(filter_: Filter) -> Condition:
    """What holds for the letters that `filter_` chooses.

    Raises ConfigurationError if it asks for payloads, which are not here.
    """
    parts = [_negatable(term) for term in filter_.terms]
    return Condition(
        " AND ".join(part.sql for part in parts) or "1", tuple(cell for part in parts for cell in part.cells)
    )


def _negatable(term: Term) -> Condition:
    found = _term(term)
    return found._replace(sql=f"({found.sql}) IS {'NOT ' * term.negated}TRUE" if term.negated else f"({found.sql})")


def _term(term: Term) -> Condition:
    if term.field is Field.PAYLOAD:
        raise ConfigurationError("payload~ needs the letters themselves; it cannot be answered from their outlines")
    if term.field is Field.ID:
        return Condition(AMONG, (json.dumps(term.values),))  # a hundred thousand of them, too, if need be
    if term.field is Field.HEADER:
        return _any(_with_header(term.header or "", value) for value in term.values)
    if term.field in _OF_MISTAKES:
        columns = _OF_MISTAKES[term.field]
        return _in_mistakes(_any(_compared(column, value) for value in term.values for column in columns))
    return _any(map(_OF_LETTERS[term.field], term.values))


def _any(parts: Iterable[Condition]) -> Condition:
    found = list(parts)
    return Condition(" OR ".join(part.sql for part in found), tuple(cell for part in found for cell in part.cells))


def _in_mistakes(condition: Condition) -> Condition:
    return condition._replace(sql=f"mistake IN (SELECT id FROM mistakes WHERE {condition.sql})")


def _compared(column: str, value: Value) -> Condition:
    match value:
        case Exactly(value=wanted):
            return Condition(f"{column} = ?", (wanted,))
        case Prefix(value=wanted):
            return Condition(f"instr({column}, ?) = 1", (wanted,))  # substr and LIKE stop at a zero byte
    raise AssertionError(value)


def _state(value: Value) -> Condition:
    assert isinstance(value, Exactly)
    return Condition("state = ?", (STATES.index(State(str(value.value))),))


def _with_header(name: str, value: Value) -> Condition:
    match value:
        case Exactly(value=bytes() as wanted):
            return Condition("instr(headers, ?)", (_header(name, wanted) + b"\0",))
        case Prefix(value=bytes() as wanted):
            return Condition("instr(headers, ?)", (_header(name, wanted),))
    raise AssertionError(value)


def _written(value: Value) -> Condition:
    assert isinstance(value, Span)
    return _within("written", Span(NO_TIME + 1, value.high) if value.low is None else value)


def _within(column: str, value: Value) -> Condition:
    match value:
        case Span(low=int() as low, high=int() as high):
            return Condition(f"{column} BETWEEN ? AND ?", (low, high))
        case Span(low=int() as low):
            return Condition(f"{column} >= ?", (low,))
        case Span(high=high):
            return Condition(f"{column} <= ?", (high,))
    raise AssertionError(value)


def _searched(value: Value) -> Condition:
    assert isinstance(value, Part)
    wanted = str(value.value).casefold()
    in_class = _in_mistakes(Condition("instr(exception_folded, ?)", (wanted,)))
    if not _is_plain(wanted):
        return _any([in_class, Condition("instr(folded, ?)", (wanted,))])
    pattern = re.sub(r"([\\%_])", r"\\\1", wanted)
    # LIKE takes half the time of a search in lower(message).
    in_message = r"CASE WHEN folded IS NULL THEN message LIKE ? ESCAPE '\' ELSE instr(folded, ?) END"
    return _any([in_class, Condition(in_message, (f"%{pattern}%", wanted))])


_OF_MISTAKES: Mapping[Field, Sequence[str]] = {
    Field.REASON: ("reason",),
    Field.HANDLER: ("handler",),
    Field.GROUP: ("consumer_group",),
    Field.FINGERPRINT: ("fingerprint",),
    Field.TOPIC: ("topic",),
    Field.EXCEPTION: ("exception", "exception_short"),
}
_OF_LETTERS: Mapping[Field, Callable[[Value], Condition]] = {
    Field.STATE: _state,
    Field.KEY: partial(_compared, "key"),
    Field.ASSIGNED: partial(_compared, "assigned"),
    Field.WRITTEN: _written,
    Field.TEXT: _searched,
    # The plus keeps SQLite from going through the index of places, where it would look up each row and then sort.
    Field.PARTITION: partial(_within, "+partition"),
    Field.OFFSET: partial(_within, "+offset"),
    Field.ATTEMPTS: partial(_within, "attempts"),
    Field.REPLAYS: partial(_within, "replay_count"),
    Field.SNOOZED: partial(_within, "snoozed"),
}
