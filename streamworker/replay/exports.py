"""Dead letters as lines of JSON in a file, and edited lines as values that are sent instead.

Decided here: what a line says, what of it is masked, and which lines of a file are edits. A letter is never changed by
an import, and nothing but values is read of a line that was edited: it makes a repair, for letters that still have the
value that was exported. Pure but for serdes; any thread.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from streamworker.errors import ConfigurationError
from streamworker.record import Headers
from streamworker.replay.dead_record import LetterId
from streamworker.replay.masking import How, Part
from streamworker.replay.repair import NotRepaired
from streamworker.replay.states import State, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from streamworker.interfaces import AnySerde
    from streamworker.record import Origin
    from streamworker.replay.dead_record import DeadRecord
    from streamworker.replay.showing import Showing

VERSION = 1
_MOST_BYTES = 512 * 1024 * 1024  # of edited values, which are held until they are sent
_NAME_CHARS = 12


class Place(msgspec.Struct, frozen=True):
    """Where a record is."""

    topic: str
    partition: int
    offset: int


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. Times are milliseconds since the Unix epoch, `key`, `value` and the values of headers base64.

    A value is in `text` instead where that was asked for and it is text. `masked` says of which parts something is
    hidden; then `sha256` is not there, because from it a short secret could be guessed.
    """

    v: int = VERSION
    topic: str
    id: str  # PARTITION:OFFSET
    state: State
    written_ms: int | None = None
    family: str = ""
    origin: Place | None = None
    group: str | None = None
    handler: str | None = None
    reason: str | None = None
    exception: str | None = None
    message: str | None = None
    fingerprint: str | None = None
    attempts: int | None = None
    replay_count: int = 0
    parent: str | None = None
    headers: list[tuple[str, str | None]] = []
    key: str | None = None
    value: str | None = None
    text: str | None = None
    sha256: str | None = None  # of the value, in hexadecimal digits
    value_at: Place | None = None  # where the value was that is too large for the letter, and is not there any more
    masked: list[str] = []  # key, value, headers


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Line)


@dataclass(frozen=True, slots=True)
class Exporter:
    """Makes lines. `showing` masks, and must cut nothing; `serde_of` is how a letter's handler reads values."""

    showing: Showing
    serde_of: Callable[[DeadRecord], AnySerde | None]
    as_text: bool = False

    def line(self, letter: DeadRecord, state: State) -> bytes:
        """A line with its end, for a letter whose value is whole."""
        hidden: list[str] = []
        key = self._part(letter, Part.KEY, hidden)
        value = self._part(letter, Part.VALUE, hidden)
        headers = list(self._headers(letter, hidden))
        text = _text(value) if self.as_text else None
        found = Line(
            topic=letter.topic,
            id=str(letter.id),
            state=state,
            written_ms=letter.written_ms,
            family=letter.family,
            origin=_place(letter.origin),
            group=letter.group,
            handler=letter.handler,
            reason=letter.reason,
            exception=letter.exception,
            message=letter.message,
            fingerprint=letter.fingerprint,
            attempts=letter.attempts,
            replay_count=letter.replay_count,
            parent=letter.parent,
            headers=headers,
            key=_base64(key),
            value=_base64(value) if text is None else None,
            text=text,
            sha256=None if Part.VALUE in hidden else digest(value),
            value_at=None if letter.pointer is None else _place(letter.pointer.at),
            masked=list(dict.fromkeys(hidden)),
        )
        return _encoder.encode(found) + b"\n"

    def _part(self, letter: DeadRecord, part: Part, hidden: list[str]) -> bytes | None:
        data = letter.key if part is Part.KEY else letter.value
        if data is None or self.showing.masking.fields(_topics(letter), part).free:
            return data
        hidden.append(part)
        serde = self.serde_of(letter) if part is Part.VALUE else None
        return self.showing.show(data, _topics(letter), serde, part).text.encode()

    def _headers(self, letter: DeadRecord, hidden: list[str]) -> Iterator[tuple[str, str | None]]:
        fields = self.showing.masking.fields(_topics(letter), Part.HEADER)
        for name, value in letter.own_headers:
            how = fields.at(name).how
            if how is None:
                yield name, _base64(value)
                continue
            hidden.append("headers")
            if how is not How.REMOVE:
                alone = msgspec.structs.replace(letter, headers=Headers([(name, value)]))
                yield from ((name, _base64(shown.text.encode())) for name, shown in self.showing.headers(alone))


def _topics(letter: DeadRecord) -> Sequence[str]:
    return [topic for topic in (letter.origin_topic, letter.topic) if topic is not None]


def _place(origin: Origin | None) -> Place | None:
    return None if origin is None else Place(*origin)


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _text(data: bytes | None) -> str | None:
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        return None


@dataclass(frozen=True, slots=True)
class Edit:
    """A value that is sent instead of one whose SHA-256 is `sha256`; None: of none."""

    sha256: str | None
    value: bytes


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file says: the edits of letters of `topic`, and how many of its lines are as they were exported."""

    topic: str
    edits: Mapping[LetterId, Edit]
    unchanged: int

    @property
    def name(self) -> str:
        """The name under which a plan knows it: another file, or the same with other edits, has another one."""
        found = hashlib.sha256(self.topic.encode())
        for letter, edit in sorted(self.edits.items()):
            found.update(f"\n{letter} {edit.sha256} {digest(edit.value)}".encode())
        return f"import-{found.hexdigest()[:_NAME_CHARS]}"

    @property
    def ids(self) -> Sequence[LetterId]:
        """The letters that have an edit, in order."""
        return sorted(self.edits)

    def value_for(self, letter: DeadRecord) -> bytes:
        """What is sent for a letter, whose value is whole; raises NotRepaired unless it is as it was exported."""
        edit = self.edits.get(letter.id)
        if edit is None or letter.topic != self.topic:
            raise NotRepaired("the file has no value for it")
        if digest(letter.value) != edit.sha256:
            raise NotRepaired("it is not the letter that was exported: its value has another SHA-256")
        return edit.value


def import_lines(lines: Iterable[bytes], topic: str) -> Imported:
    """The edits of letters of `topic` in an exported file; raises ConfigurationError, which says in which line."""
    edits: dict[LetterId, Edit] = {}
    seen: set[LetterId] = set()
    held_bytes = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            letter, edit = _read(line, topic)
        except ConfigurationError as error:
            raise ConfigurationError(f"line {number}: {error}") from error
        if letter in seen:
            raise ConfigurationError(f"line {number}: there was a line for {letter} before")
        seen.add(letter)
        if edit is not None:
            edits[letter] = edit
            held_bytes += len(edit.value)
        if held_bytes > _MOST_BYTES:
            raise ConfigurationError(f"line {number}: expected at most {_MOST_BYTES} bytes of edits; part the file")
    return Imported(topic, edits, len(seen) - len(edits))


def _read(line: bytes, topic: str) -> tuple[LetterId, Edit | None]:
    try:
        found = _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"expected a line of `streamworker dlq export`: {error}") from error
    if found.v != VERSION:
        raise ConfigurationError(f"expected version {VERSION}, got {found.v}")
    if found.topic != topic:
        raise ConfigurationError(f"it is of {found.topic!r}, not of {topic!r}")
    letter = LetterId.parse(found.id)
    if Part.VALUE in found.masked:
        raise ConfigurationError("something of its value was masked, and would be lost; export with --unmasked")
    value = _value(found)
    if digest(value) == found.sha256:
        return letter, None
    if value is None:
        raise ConfigurationError("an edited value cannot be nothing; `dlq discard` is for letters without use")
    if found.value_at is not None:
        raise ConfigurationError("its value was not there when it was exported, so nothing says what was edited")
    return letter, Edit(found.sha256, value)


def _value(line: Line) -> bytes | None:
    if line.text is not None and line.value is not None:
        raise ConfigurationError("expected its value in `value` or in `text`, not in both")
    if line.text is not None:
        return line.text.encode()
    try:
        return None if line.value is None else base64.b64decode(line.value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigurationError(f"its value is no base64: {error}; text goes into `text`") from error
