"""The language in which dead letters are chosen, for instance `state:pending reason:poison age:>1h text:"timed out"`.

Decided here: what a filter means. It is a value: `selection.py` makes SQL of it, `matches` is what it means, and a test
holds one against the other. Times are made absolute when it is read. Pure, any thread.

Rules. Terms stand beside each other and all must hold; `-` before one turns it round. Values that are parted by commas
are alternatives, a `*` at the end of one stands for any rest. Quotes take blanks, commas and stars literally, and so
does a backslash before a single character. What a letter does not say is like nothing: only a term that is turned
round holds for it.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from streamworker.errors import ConfigurationError, nearest
from streamworker.replay.dead_record import LetterId
from streamworker.replay.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from streamworker.replay.dead_record import DeadRecord
    from streamworker.replay.states import Disposition

# Whoever keeps one more than that of a value can tell all that are asked for apart.
LONGEST_VALUE = 1024  # characters, or bytes of a key or header
SEARCHED_CHARS = 1000  # of an exception's class and message; more than our dead letters have
MOST_VALUES = 200  # in a filter; SQLite refuses statements that are a thousand conditions deep


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
    SNOOZED = "snoozed"  # until when
    TEXT = "text"  # in the exception's class or message, without regard to capitals
    PAYLOAD = "payload"  # in the value: needs a scan


@dataclass(frozen=True, slots=True)
class Exactly:
    """This value: bytes of a key or header, text of other fields."""

    value: str | bytes


@dataclass(frozen=True, slots=True)
class Prefix:
    """What begins with it."""

    value: str | bytes


@dataclass(frozen=True, slots=True)
class Part:
    """What contains it: bytes of a payload, text of an error."""

    value: str | bytes


@dataclass(frozen=True, slots=True)
class Span:
    """Numbers from `low` to `high`, both included; None: without end. Times are milliseconds since the Unix epoch."""

    low: int | None
    high: int | None


Value = Exactly | Prefix | Part | Span | LetterId


@dataclass(frozen=True, slots=True)
class Term:
    """One condition: one of `values`, or none of them if it is `negated`."""

    field: Field
    values: tuple[Value, ...]
    header: str | None = None  # of HEADER
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """All of `terms`; none of them: everything. `text` is what was read, with times made absolute; see `Filter.of`."""

    terms: tuple[Term, ...] = ()
    text: str = ""

    @classmethod
    def of(cls, *terms: Term) -> Filter:
        """With the text that says it."""
        return cls(terms, " ".join(map(_text_of, terms)))

    def in_states(self, *states: State) -> Filter:
        """The same of letters in these states, unless it says itself which."""
        if any(term.field is Field.STATE for term in self.terms):
            return self
        return Filter.of(Term(Field.STATE, tuple(Exactly(state.value) for state in states)), *self.terms)

    @property
    def scans(self) -> bool:
        """Whether values have to be read from the topic to answer it."""
        return any(term.field is Field.PAYLOAD for term in self.terms)

    @property
    def without_payload(self) -> Filter:
        """What can be answered without reading values."""
        return Filter.of(*(term for term in self.terms if term.field is not Field.PAYLOAD))


def matches(filter_: Filter, letter: DeadRecord, disposition: Disposition | None) -> bool:
    """Whether the filter chooses `letter`, of which `disposition` is what is believed to be said last."""
    return all(_holds(term, letter, disposition) for term in filter_.terms)


def payload_matches(filter_: Filter, value: bytes | None) -> bool:
    """What the filter's terms for the payload say of a letter's value."""
    return all(_any(term, [value]) for term in filter_.terms if term.field is Field.PAYLOAD)


def _holds(term: Term, letter: DeadRecord, disposition: Disposition | None) -> bool:
    return _any(term, list(_found(term, letter, disposition)))


def _any(term: Term, found: list[_Said]) -> bool:
    return term.negated != any(_is(value, one) for value in term.values for one in found)


_Said = str | bytes | int | LetterId | None


def _found(term: Term, letter: DeadRecord, disposition: Disposition | None) -> Iterator[_Said]:
    """What a letter says where the term asks."""
    match term.field:
        case Field.STATE:
            yield State.PENDING if disposition is None else disposition.state
        case Field.EXCEPTION if letter.exception is not None:
            yield letter.exception
            yield short_name(letter.exception)
        case Field.TEXT:
            said = (letter.exception, letter.message)
            yield from (text[:SEARCHED_CHARS].casefold() for text in said if text is not None)
        case Field.HEADER:
            yield from (value for name, value in letter.own_headers if name == term.header)
        case Field.ASSIGNED if disposition is not None:
            yield disposition.assigned_to
        case Field.SNOOZED if disposition is not None:
            yield disposition.snoozed_until_ms
        case simple if simple in _SIMPLE:
            yield _SIMPLE[simple](letter)


_SIMPLE: Mapping[Field, Callable[[DeadRecord], _Said]] = {
    Field.REASON: lambda letter: letter.reason,
    Field.HANDLER: lambda letter: letter.handler,
    Field.GROUP: lambda letter: letter.group,
    Field.FINGERPRINT: lambda letter: letter.fingerprint,
    Field.TOPIC: lambda letter: letter.origin_topic,
    Field.PARTITION: lambda letter: letter.id.partition,
    Field.OFFSET: lambda letter: letter.id.offset,
    Field.ID: lambda letter: letter.id,
    Field.KEY: lambda letter: letter.key,
    Field.WRITTEN: lambda letter: letter.written_ms,
    Field.ATTEMPTS: lambda letter: letter.attempts,
    Field.REPLAYS: lambda letter: letter.replay_count,
    Field.PAYLOAD: lambda letter: letter.value,
}


def _is(value: Value, found: _Said) -> bool:
    match value, found:
        case (Exactly(value=wanted), str() | bytes()):
            return wanted == found
        case (Prefix(value=wanted), str() | bytes()):
            return found[: len(wanted)] == wanted
        case (Part(value=bytes() as wanted), bytes()):
            return wanted in found
        case (Part(value=str() as wanted), str()):
            return wanted.casefold() in found
        case (Span(low=low, high=high), int()):
            return (low is None or low <= found) and (high is None or found <= high)
    return isinstance(value, LetterId) and value == found


def short_name(exception: str) -> str:
    """What is behind the last dot of a class's name."""
    return exception.rpartition(".")[2]


def duration_ms(text: str) -> int:
    """Milliseconds of a duration as people write it, for instance 1h30m; raises ConfigurationError."""
    if not _DURATION.fullmatch(text):
        raise ConfigurationError(f"expected a duration as 90s, 15m, 1h, 2d or 1w, got {text!r}")
    return sum(int(part[:-1]) * _UNITS[part[-1]] for part in re.findall("[0-9]+[smhdw]", text))


def parse(text: str, now_ms: int) -> Filter:
    """Read a filter; `age` counts from `now_ms`, milliseconds since the Unix epoch.

    Raises ConfigurationError, which says where and what would do.
    """
    return Filter.of(*_Reader(text, now_ms).terms())


class _Word(NamedTuple):
    """A value as it is written, `at` this place in the text."""

    text: str
    plain: bool  # without quotes and backslashes
    star: bool  # ends with one that stands for any rest
    at: int

    @property
    def stem(self) -> str:
        """Without the star."""
        return self.text[:-1] if self.star else self.text


_BLANKS = " \t\r\n"
_NAME = re.compile(r"([A-Za-z_]+)(?=[:~])|(header)(?=\.)", re.IGNORECASE)
_COMPARISON = re.compile(r"[<>]=?")
_NUMBER = re.compile(r"[0-9]{1,18}")
_DURATION = re.compile(r"(?:[0-9]{1,9}[smhdw])+")
_UNITS: Mapping[str, int] = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBERS = frozenset({Field.PARTITION, Field.OFFSET, Field.ATTEMPTS, Field.REPLAYS})
_TIMES = frozenset({Field.WRITTEN, Field.SNOOZED})
_ORDERED = _NUMBERS | _TIMES
_BYTES = frozenset({Field.KEY, Field.HEADER, Field.PAYLOAD})
_SEARCHED = frozenset({Field.TEXT, Field.PAYLOAD})
_LARGEST_NUMBER = 10**18 - 1
_LATEST_MS = (datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
_AGE = "age"


class _Reader:
    """Goes through one text from left to right."""

    def __init__(self, text: str, now_ms: int) -> None:
        self._text = text
        self._now_ms = now_ms
        self._at = 0
        self._count = 0

    def terms(self) -> Iterator[Term]:
        try:
            self._text.encode()
        except UnicodeEncodeError as error:
            self._refuse(error.start, "this is no character")
        while self._skip_blanks():
            yield self._term()

    def _term(self) -> Term:
        negated = self._take("-")
        name = _NAME.match(self._text, self._at)
        if name is None:
            word = self._word(_BLANKS)
            return Term(Field.TEXT, (self._value(Field.TEXT, "text", word),), negated=negated)
        at, self._at = self._at, name.end()
        written = name[0].lower()
        field = Field.WRITTEN if written == _AGE else self._field(written, at)
        header = self._header(at) if field is Field.HEADER else None
        if not (self._take(":") or (field in _SEARCHED and self._take("~"))):
            self._refuse(self._at, f"only text and payload are searched; {written}:abc* is what begins with abc")
        return Term(field, tuple(self._values(field, written)), header, negated)

    def _field(self, written: str, at: int) -> Field:
        try:
            return Field(written)
        except ValueError:
            told = nearest(written, [*(field.value for field in Field), _AGE])
            self._refuse(at, f"no field is called {written!r}, {told} To search for it as text, put it in quotes")

    def _header(self, at: int) -> str:
        if not self._take("."):
            self._refuse(at, "expected header.NAME:VALUE")
        return self._word(f"{_BLANKS}:~").text

    def _values(self, field: Field, written: str) -> Iterator[Value]:
        comparison = _COMPARISON.match(self._text, self._at)
        if comparison is not None:
            if field not in _ORDERED:
                self._refuse(self._at, f"{written} has no order; what begins with {comparison[0]!r} goes in quotes")
            self._at = comparison.end()
            yield self._compared(written, comparison[0], self._word(_BLANKS))
            return
        yield self._value(field, written, self._word(f"{_BLANKS},"))
        while self._take(","):
            yield self._value(field, written, self._word(f"{_BLANKS},"))

    def _value(self, field: Field, written: str, word: _Word) -> Value:
        self._counted(word)
        if field in _ORDERED:
            return self._range(written, word)
        match field:
            case Field.STATE:
                return self._state(word)
            case Field.ID:
                return self._id(word)
            case Field.TEXT | Field.PAYLOAD:
                return self._part(field, word)
        value = self._bytes(word.stem, word) if field in _BYTES else self._short_enough(word.stem, word)
        return Prefix(value) if word.star else Exactly(value)

    def _part(self, field: Field, word: _Word) -> Part:
        if not word.text:
            self._refuse(word.at, "expected something to search for")
        read = self._bytes if field in _BYTES else self._short_enough
        return Part(read(word.text, word))

    def _counted(self, word: _Word) -> None:
        self._count += 1
        if self._count > MOST_VALUES:
            self._refuse(word.at, f"expected at most {MOST_VALUES} values in all")

    def _state(self, word: _Word) -> Exactly:
        try:
            return Exactly(State(word.text.lower()).value)
        except ValueError:
            self._refuse(
                word.at, f"no state is called {word.text!r}, {nearest(word.text, [state.value for state in State])}"
            )

    def _id(self, word: _Word) -> LetterId:
        try:
            return LetterId.parse(word.text)
        except ConfigurationError as error:
            self._refuse(word.at, str(error))

    def _bytes(self, text: str, word: _Word) -> bytes:
        if not (word.plain and text.startswith("0x")):
            value = text.encode()
        else:
            try:
                value = bytes.fromhex(text[2:])
            except ValueError:
                self._refuse(word.at, f"{text!r} is no even number of hexadecimal digits; as text it goes in quotes")
        if len(value) > LONGEST_VALUE:
            self._refuse(word.at, f"expected at most {LONGEST_VALUE} bytes")
        return value

    def _short_enough(self, text: str, word: _Word) -> str:
        if len(text) > LONGEST_VALUE:
            self._refuse(word.at, f"expected at most {LONGEST_VALUE} characters")
        return text

    def _compared(self, written: str, sign: str, word: _Word) -> Span:
        self._counted(word)
        span = self._point(written, word.text, word.at)
        assert span.low is not None
        assert span.high is not None
        if written == _AGE:
            sign = sign.translate({ord("<"): ">", ord(">"): "<"})  # what is older was written earlier
        match sign:
            case "<":
                return Span(None, span.low - 1)
            case "<=":
                return Span(None, span.high)
            case ">":
                return Span(span.high + 1, None)
        return Span(span.low, None)

    def _range(self, written: str, word: _Word) -> Span:
        if written == Field.SNOOZED and word.text == "yes":
            return Span(self._now_ms + 1, None)
        first, two, last = word.text.partition("..")
        if not two:
            if written == _AGE:
                self._refuse(word.at, "no letter has exactly this age; expected for instance age:>1h or age:1h..2h")
            return self._point(written, first, word.at)
        low = self._point(written, first, word.at).low if first else None
        high = self._point(written, last, word.at + len(first) + 2).high if last else None
        if written == _AGE:
            low, high = high, low
        if low is None and high is None:
            self._refuse(word.at, "expected a range with a beginning or an end")
        if low is not None and high is not None and low > high:
            self._refuse(word.at, f"the range {word.text} ends before it begins")
        return Span(low, high)

    def _point(self, written: str, text: str, at: int) -> Span:
        """What a number, a time or a day covers."""
        if written == _AGE:
            return self._ago(text, at)
        if written in _TIMES:
            return self._when(written, text, at)
        if not _NUMBER.fullmatch(text):
            self._refuse(at, f"{written}: expected a whole number, got {text!r}")
        return Span(int(text), int(text))

    def _ago(self, text: str, at: int) -> Span:
        try:
            age_ms = duration_ms(text)
        except ConfigurationError as error:
            self._refuse(at, f"age: {error}")
        then_ms = self._now_ms // 1_000 * 1_000 - age_ms  # whole seconds are easier to read where the text is shown
        if then_ms < 0:
            self._refuse(at, f"age: {text} ago was before 1970")
        return Span(then_ms, then_ms)

    def _when(self, written: str, text: str, at: int) -> Span:
        try:
            if _DAY.fullmatch(text):
                first_ms = _ms_of(datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC))
                last_ms = first_ms + _UNITS["d"] - 1
            else:
                when = datetime.fromisoformat(text)
                first_ms = last_ms = _ms_of(when.replace(tzinfo=UTC) if when.tzinfo is None else when)
        except ValueError:
            hint = "; age counts back from now" if _DURATION.fullmatch(text) else ""
            self._refuse(at, f"{written}: expected 2026-11-01 or 2026-11-01T14:30:00Z, got {text!r}{hint}")
        if not 0 <= first_ms <= last_ms <= _LATEST_MS:
            self._refuse(at, f"{written}: expected a time from 1970 to 9998, got {text!r}")
        return Span(first_ms, last_ms)

    def _word(self, ends: str) -> _Word:
        """All up to one of `ends`, or the text's end."""
        start, quoted, plain, star = self._at, False, True, False
        found: list[str] = []
        while self._at < len(self._text) and (quoted or self._text[self._at] not in ends):
            letter = self._text[self._at]
            self._at += 1
            star = False
            if letter == '"':
                quoted, plain = not quoted, False
            elif letter == "\\":
                if self._at == len(self._text):
                    self._refuse(self._at - 1, "expected a character behind the backslash")
                plain = False
                found.append(self._text[self._at])
                self._at += 1
            else:
                star = letter == "*" and not quoted
                found.append(letter)
        if quoted:
            self._refuse(start, "the quotes are not closed")
        if self._at == start:
            self._refuse(start, 'expected a value; nothing is ""')
        return _Word("".join(found), plain, star, start)

    def _take(self, letter: str) -> bool:
        taken = self._text.startswith(letter, self._at)
        self._at += taken
        return taken

    def _skip_blanks(self) -> bool:
        """Whether something follows."""
        while self._at < len(self._text) and self._text[self._at] in _BLANKS:
            self._at += 1
        return self._at < len(self._text)

    def _refuse(self, at: int, why: str) -> NoReturn:
        raise ConfigurationError(f"filter, character {at + 1}: {why}")


def _ms_of(when: datetime) -> int:
    return (when - _EPOCH) // timedelta(milliseconds=1)


_SAFE = re.compile(r"(?!0x)[A-Za-z0-9_./:@+#$%-]*[A-Za-z0-9_./:@+#$%-]")


def _text_of(term: Term) -> str:
    """What is read as `term`, whenever that is."""
    name = f"{term.field}.{_quoted(term.header)}" if term.header is not None else term.field.value
    sign = "~" if term.field is Field.PAYLOAD else ":"
    alone = len(term.values) == 1
    return (
        f"{'-' * term.negated}{name}{sign}{','.join(_shown(term.field, value, alone=alone) for value in term.values)}"
    )


def _shown(field: Field, value: Value, *, alone: bool) -> str:
    match value:
        case Span():
            return _span_text(field, value, alone=alone)
        case LetterId():
            return str(value)
        case Prefix():
            return f"{_literal(value.value) if value.value else ''}*"
    return _literal(value.value)


def _literal(value: str | bytes) -> str:
    if isinstance(value, str):
        return _quoted(value)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return f"0x{value.hex()}"
    return _quoted(text) if text.isprintable() else f"0x{value.hex()}"


def _quoted(text: str) -> str:
    if _SAFE.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _span_text(field: Field, span: Span, *, alone: bool) -> str:
    show, most = (_time_text, _LATEST_MS) if field in _TIMES else (str, _LARGEST_NUMBER)
    if span.low is not None and span.high is not None:
        return show(span.low) if span.low == span.high else f"{show(span.low)}..{show(span.high)}"
    if span.low is not None:
        if not alone:
            return f"{show(span.low)}.."
        options = [(">", span.low - 1), (">=", span.low)]
    else:
        assert span.high is not None
        if not alone:
            return f"..{show(span.high)}"
        options = [("<", span.high + 1), ("<=", span.high)]
    return min((f"{sign}{show(number)}" for sign, number in options if 0 <= number <= most), key=len)


def _time_text(at_ms: int) -> str:
    when = _EPOCH + timedelta(milliseconds=at_ms)
    precision = "milliseconds" if at_ms % 1_000 else "seconds"
    return f"{when.replace(tzinfo=None).isoformat(timespec=precision)}Z"
