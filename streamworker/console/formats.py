"""How values look to people: times, sizes, numbers, bytes, JSON with its parts marked. Pure, any thread."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from markupsafe import Markup, escape

from streamworker.replay.filters import Exactly, Field, Filter, Term

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamworker.replay.dead_record import LetterId

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_SIZES = ("B", "KiB", "MiB", "GiB")
# What would not arrive as it is: a browser drops NUL and makes a line feed of a carriage return, and what is half of a
# character cannot be sent. These are shown as a picture, a reference, and their number.
_UNSENDABLE = re.compile("[\x00\r\ud800-\udfff]")
# What people do not see, or see in another place than where it is.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_JSON = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*")(?=\s*:)|(?P<string>"(?:[^"\\]|\\.)*")'
    r"|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<word>\b(?:true|false|null)\b)",
    re.DOTALL,
)
_MARKED_MAX_CHARS = 200_000  # more than anybody reads; marking takes longer than sending it


def shown(value: object) -> object:
    """`value` so that what a browser shows of it is what it is."""
    return _sendable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def hidden(text: str) -> list[str]:
    """Characters in `text` that people do not see where they are, as U+202E, without repeats and eight at most."""
    return [f"U+{ord(one):04X}" for one in dict.fromkeys(_HIDDEN.findall(text))][:8]


def marked(text: str, kind: str) -> str:
    """`text`, with the parts of JSON marked for their colours."""
    if kind not in {"json", "avro"} or len(text) > _MARKED_MAX_CHARS:
        return _sendable(text)
    return Markup("").join(_parts(text))


def _parts(text: str) -> Iterator[str]:
    end = 0
    for found in _JSON.finditer(text):
        yield _sendable(text[end : found.start()])
        yield Markup('<span class="json-{}">{}</span>').format(found.lastgroup, _sendable(found[0]))
        end = found.end()
    yield _sendable(text[end:])


def _sendable(text: str) -> str:
    """`text`, or markup of it where that is not what would arrive."""
    if _UNSENDABLE.search(text) is None:
        return text
    return Markup(_UNSENDABLE.sub(_stand_in, str(escape(text))))  # noqa: S704 - escaped just now


def lined(line: str) -> str:
    """What a line of a unified diff is: added, removed, place, or same."""
    if line.startswith("@@"):
        return "place"
    if line.startswith(("+++", "---")):
        return "file"
    return {"+": "added", "-": "removed"}.get(line[:1], "same")


def number(value: float) -> str:
    """With thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\u2009")


def rate(value: float) -> str:
    """To two digits below ten."""
    return f"{value:.1f}" if 0 < value < 10 else number(value)


def size(value: int) -> str:
    """Bytes in the largest unit that leaves at least one."""
    amount, unit = float(value), _SIZES[0]
    for unit in _SIZES:
        if amount < 1024 or unit == _SIZES[-1]:
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def moment(at_ms: int) -> str:
    """In UTC, to the millisecond."""
    try:
        return f"{(_EPOCH + timedelta(milliseconds=at_ms)).isoformat(' ', 'milliseconds')[:-6]} UTC"
    except OverflowError:
        return f"{at_ms} ms"


def machine_moment(at_ms: int) -> str:
    """As HTML wants it."""
    try:
        return f"{(_EPOCH + timedelta(milliseconds=at_ms)).isoformat('T', 'milliseconds')[:-6]}Z"
    except OverflowError:
        return ""


def ago(at_ms: int, now_ms: int) -> str:
    """How long before now, or after it, in the largest unit that leaves at least one."""
    away_s = abs(now_ms - at_ms) // 1000
    if away_s < 1:
        return "now"
    count, unit = next((away_s // seconds, unit) for seconds, unit in _UNITS if away_s >= seconds)
    return f"in {count} {unit}" if at_ms > now_ms else f"{count} {unit} ago"


def lasting(duration_ms: int) -> str:
    """A duration in two units at most."""
    seconds = duration_ms // 1000
    if seconds < 1:
        return f"{duration_ms} ms"
    parts = []
    for length, unit in _UNITS:
        count, seconds = divmod(seconds, length)
        parts += [f"{count} {unit}"] if count else []
    return " ".join(parts[:2])


def raw(value: bytes | None, most: int = 120) -> str:
    """Bytes as text if they are some, else in hexadecimal digits; what is cut ends with an ellipsis."""
    if value is None:
        return "null"
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = f"0x{value.hex()}"
    return text if len(text) <= most else f"{text[:most]}…"


def as_json(text: str) -> str | None:
    """What keeps `text` from being JSON, and where; None: it is."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    except (RecursionError, ValueError) as error:
        return f"it cannot be read: {error}"
    return None


def as_typed(text: str, original: str) -> str:
    """What somebody typed: browsers send each line end as two characters, whatever it was."""
    return text if "\r\n" in original else text.replace("\r\n", "\n")


def term(field: str, value: str) -> str:
    """A condition of the filter language."""
    return Filter.of(Term(Field(field), (Exactly(value),))).text


def query(**values: str | int | None) -> str:
    """The end of a URL; what is None or empty is left out."""
    given = {name: value for name, value in values.items() if value not in {None, ""}}
    return f"?{urlencode(given)}" if given else ""


def path_of(*parts: str | int) -> str:
    """A path of these parts, whatever they hold."""
    return "/" + "/".join(quote(str(part), safe="") for part in parts)


def letter_path(topic: str, letter: LetterId, *parts: str) -> str:
    """Where a dead letter is shown, or what is below it."""
    return path_of("topics", topic, letter.partition, letter.offset, *parts)


def _stand_in(found: re.Match[str]) -> str:
    one = found[0]
    return {"\x00": "\u2400", "\r": "&#13;"}.get(one) or f"\\u{ord(one):04x}"
