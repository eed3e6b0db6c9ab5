"""Keys and values of dead letters for people: what they hold, as text, and only as much of it as they may see.

Decided here: how bytes are read of which nobody has said what they are, what is cut, and what a terminal or a table
must not get. A handler's serde is asked first; one that asks a registry may block, all else is pure. Any thread.

JSON is laid out as it was written: order, duplicates and numbers of any length stay, because it may be repaired. It is
laid out only as far as it is shown, and not at all if it nests deeper than anybody can read.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from streamworker.errors import DecodeError, DependencyUnavailable
from streamworker.replay.desk import Decoded
from streamworker.replay.masking import REPLACEMENT, Fields, How, Masking, Part, masked
from streamworker.serde.avro import Avro, FramedAvro
from streamworker.serde.json import nests_deeper
from streamworker.serde.reasons import brief

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from streamworker.interfaces import AnySerde
    from streamworker.replay.dead_record import DeadRecord

MAX_CHARS = 4_096

_MAX_LEVELS = 64  # as deep as `Json` reads
_FRAME_BYTES = 5  # a zero and the id of a schema, as Confluent's serializers write them
_INDENT = "  "
_PIECE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},:]|[^\s\[\]{},:"]+')
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # control characters that no text has


@dataclass(frozen=True, slots=True)
class _Found:
    """What bytes are. `document`: one of JSON that the rules for masking can be applied to."""

    kind: str
    text: str
    document: bool = False
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """How payloads are shown. `registry` reads what names a schema of it; its subjects say whose schemas it believes.

    `max_chars` None: all of it.
    """

    masking: Masking = field(default_factory=Masking)
    registry: AnySerde | None = None
    max_chars: int | None = MAX_CHARS

    def key(self, letter: DeadRecord, serde: AnySerde | None = None) -> Decoded:
        """Its key; `serde` is that of its handler, if it is known."""
        return self.show(letter.key, _topics(letter), serde, Part.KEY)

    def value(self, letter: DeadRecord, serde: AnySerde | None = None) -> Decoded:
        """Its value, or where that is."""
        if letter.value is None and letter.pointer is not None:
            size_bytes = letter.pointer.size_bytes or 0
            return Decoded("null", "", size_bytes, note=f"too large for the letter; it is in {_place(letter)}")
        return self.show(letter.value, _topics(letter), serde)

    def headers(self, letter: DeadRecord) -> list[tuple[str, Decoded]]:
        """All its headers that may be seen, in their order."""
        fields = self.masking.fields(_topics(letter), Part.HEADER)
        shown = ((name, self._header(value, fields.at(name).how)) for name, value in letter.headers)
        return [(name, value) for name, value in shown if value is not None]

    def _header(self, value: bytes | None, how: How | None) -> Decoded | None:
        if how is How.REMOVE:
            return None
        if value is None:
            return Decoded("null", "", 0)
        found, most = _guessed(value), self.max_chars
        if how is None:
            return Decoded(found.kind, found.text[:most], len(value), most is not None and len(found.text) > most)
        hidden = how is How.REPLACE or found.kind == "hex"
        return Decoded("text", REPLACEMENT if hidden else masked(found.text)[:most], len(value))

    def show(
        self, data: bytes | None, topics: Collection[str], serde: AnySerde | None = None, part: Part = Part.VALUE
    ) -> Decoded:
        """Bytes that were in `topics`, the first of which is where they were first."""
        if data is None:
            return Decoded("null", "", 0)
        fields = self.masking.fields(topics, part)
        found = self._found(data, next(iter(topics), ""), serde)
        if not fields.free and (not found.document or nests_deeper(found.text.encode(), _MAX_LEVELS)):
            return Decoded("hidden", "", len(data), note="there is a mask for it, and it cannot be read", masked=True)
        most = sys.maxsize if self.max_chars is None else self.max_chars
        if not found.document or nests_deeper(found.text.encode(), _MAX_LEVELS):
            return Decoded(found.kind, found.text[:most], len(data), len(found.text) > most, found.note)
        layout = _Layout(found.text, most)
        text, cut = layout.of(fields)
        return Decoded(found.kind, text, len(data), cut, found.note, masked=layout.masked or (cut and not fields.free))

    def _found(self, data: bytes, topic: str, serde: AnySerde | None) -> _Found:
        note = None
        for one in (serde, self.registry if _schema_id(data) is not None else None):
            if one is not None:
                found = _decoded(data, topic, one)
                if found.kind:
                    return found
                note = note or found.note
        guessed = _guessed(data)
        if note is None and _schema_id(data) is not None and guessed.kind == "hex":
            note = f"begins like a value with schema id {_schema_id(data)}; no registry is given"
        return _Found(guessed.kind, guessed.text, guessed.document, note)


def _topics(letter: DeadRecord) -> list[str]:
    return [topic for topic in (letter.origin_topic, letter.topic) if topic is not None]


def _place(letter: DeadRecord) -> str:
    if letter.pointer is None:
        return letter.topic
    topic, partition, offset = letter.pointer.at
    return f"{topic}[{partition}]@{offset}"


def _schema_id(data: bytes) -> int | None:
    return int.from_bytes(data[1:_FRAME_BYTES], "big") if len(data) >= _FRAME_BYTES and data[0] == 0 else None


def _decoded(data: bytes, topic: str, serde: AnySerde) -> _Found:
    """By a serde; without a kind where that fails or says nothing. Only our own errors are known to quote nothing."""
    try:
        value = serde.decode(data, topic)
    except (DecodeError, DependencyUnavailable) as error:
        return _Found("", "", note=brief(str(error)))
    except Exception as error:  # noqa: BLE001 - a serde of the user's may raise anything
        return _Found("", "", note=f"its serde raised {type(error).__name__}")
    if isinstance(value, str):
        return _Found("text", value) if not _is_json(data) else _Found("", "")
    if isinstance(value, bytes | bytearray | memoryview) or _is_json(data):
        return _Found("", "")
    try:
        text = msgspec.json.encode(value, enc_hook=str).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return _Found("", "", note=f"what its serde made of it does not fit into JSON ({type(error).__name__})")
    return _Found("avro" if isinstance(serde, Avro | FramedAvro) else "json", text, document=text[:1] in {"{", "["})


def _guessed(data: bytes) -> _Found:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _Found("hex", data.hex(" ", -4))
    if _is_json(data):
        return _Found("json", text, document=True)
    return _Found("hex", data.hex(" ", -4)) if _NO_TEXT.search(text) else _Found("text", text)


def _is_json(data: bytes) -> bool:
    """An object or a list: a number or a word alone is as well a text, and no path leads into it."""
    if data.lstrip(b" \t\r\n")[:1] not in {b"{", b"["}:
        return False
    try:
        data.decode()
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


class _Full(Exception):
    """Enough is written."""


class _Layout:
    """Lays out `text`, a well-formed document of at most `_MAX_LEVELS`, up to `most` characters."""

    def __init__(self, text: str, most: int) -> None:
        self._pieces: Iterator[str] = (found[0] for found in _PIECE.finditer(text))
        self._left = most
        self._written: list[str] = []
        self.masked = False  # whether something of what was laid out is not as it is there

    def of(self, fields: Fields) -> tuple[str, bool]:
        """The text, and whether there is more. Once."""
        try:
            self._value(next(self._pieces), fields, "\n")
        except _Full:
            return "".join(self._written), True
        return "".join(self._written), False

    def _write(self, text: str) -> None:
        self._written.append(text[: self._left])
        self._left -= len(text)
        if self._left < 0:
            raise _Full

    def _value(self, piece: str, fields: Fields, line: str) -> None:
        if piece in {"{", "["}:
            self._container(piece, fields, line)
        else:
            self._write(_masked_scalar(piece) if fields.how is How.MASK else piece)

    def _container(self, opening: str, fields: Fields, line: str) -> None:
        self._write(opening)
        position, begun = -1, False
        for piece in self._pieces:
            if piece in {"}", "]"}:
                self._write(f"{line if begun else ''}{piece}")
                return
            if piece == ",":
                continue
            position += 1
            key, first = self._member(piece) if opening == "{" else ("", piece)
            inner = fields if fields.free else fields.at(json.loads(piece) if opening == "{" else position)
            self.masked = self.masked or inner.how is not None
            if inner.how is How.REMOVE:
                self._skip(first)
                continue
            self._write(f"{',' if begun else ''}{line}{_INDENT}{key}")
            begun = True
            if inner.how is How.REPLACE:
                self._skip(first)
                self._write(f'"{REPLACEMENT}"')
            else:
                self._value(first, inner, line + _INDENT)

    def _member(self, key: str) -> tuple[str, str]:
        next(self._pieces)  # the colon
        return f"{key}: ", next(self._pieces)

    def _skip(self, first: str) -> None:
        open_ = int(first in {"{", "["})
        while open_:
            piece = next(self._pieces)
            open_ += (piece in {"{", "["}) - (piece in {"}", "]"})


def _masked_scalar(piece: str) -> str:
    """A string; null stays, because what is not there is no secret."""
    if piece[0] == '"':
        return json.dumps(masked(json.loads(piece)), ensure_ascii=False)
    if piece in {"true", "false"}:
        return f'"{REPLACEMENT}"'
    return piece if piece == "null" else f'"{masked(piece)}"'
