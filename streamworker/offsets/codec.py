"""The text that goes beside each committed offset: what the offset alone cannot say.

    sw2 q=42 @1207 r w=5f0c31aa t=Zp3vX0yQR6eGmSxY8kq2Aw d=rAQEDAg a=AQEC g=1207,1270,2 u=1 x

Our magic with its version; the number of the commit request, by which an answer finds its request; the offset that it
was written for; whether the partition is in work (`r`) or was given back in order (`c`), by which process (`w`), and of
which of the topics that ever had its name (`t`); what is done beyond the offset (`d`); the attempts that were spent on
records that are not done (`a`); the records that are suspected of killing the process (`g`: first, last, deaths); how
many owners died before anything was delivered (`u`); whether a cache may not know of what was written (`x`); whether a
sink found that the offset was moved back (`m`).
Offsets are kept as distances. `d` is a list of lengths (`r`, alternately open and done) or a bitmap (`b`), whichever is
shorter; binary parts are base64 without padding.

Beside another offset than its own the text says nothing: some tools copy it. Whatever does not parse was written by
somebody else. `sw1`, which had only the request's number, is still read. Pure.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from streamworker.offsets.progress import Progress, Suspect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# The broker's offset.metadata.max.bytes is 4096 and the client sends a trailing NUL with it:
# 4 095 bytes were kept and 4 096 refused by Kafka 4.3.1.
MAX_METADATA_BYTES = 4095
# From here on nothing new is begun, so that what is in hand still fits; the same share as parallel-consumer's.
PRESSURE_BYTES = MAX_METADATA_BYTES * 3 // 4

_NUMBER = r"(\d{1,18})"
_FORM = re.compile(
    rf"sw2 q={_NUMBER} @{_NUMBER} ([rc])(?: w=([0-9a-f]{{1,16}}))?(?: t=([\w-]{{1,32}}))?"
    rf"(?: d=([rb][\w-]+))?(?: a=([\w-]+))?(?: g={_NUMBER},{_NUMBER},{_NUMBER})?"
    rf"(?: u={_NUMBER})?( x)?( m)?",
    re.ASCII,
)
_TOPIC_ID = re.compile(r"[\w-]{1,32}", re.ASCII)
_FIRST_FORM = re.compile(rf"sw1 q={_NUMBER}", re.ASCII)
# More than a partition can have beyond its offset: a bound on what is made of a few bytes that somebody else wrote.
_MAX_SPAN = 1 << 40


@dataclass(frozen=True, slots=True)
class Metadata:
    """What was read: the commit request's number, and the progress if it was written for this offset."""

    request: int
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text that fits, and the bytes of one that would have left nothing out."""

    text: str
    whole_bytes: int

    @property
    def complete(self) -> bool:
        """Whether nothing was left out."""
        return self.whole_bytes == len(self.text)


def encode(request: int, progress: Progress) -> Encoded:
    """Metadata of commit request number `request`.

    What does not fit is left out: first the attempts of the highest offsets, then all that is done beyond. Then less
    is known after a restart, and more is repeated.
    """
    head = f"sw2 q={request} @{progress.offset} {'r' if progress.running else 'c'}"
    head += f" w={progress.owner}" if progress.owner else ""
    # Text that cannot be read again would be an answer that never comes.
    head += f" t={progress.topic_id}" if _TOPIC_ID.fullmatch(progress.topic_id) else ""
    suspect = progress.suspect
    tail = "" if suspect is None else f" g={suspect.first},{suspect.last},{suspect.deaths}"
    tail += f" u={progress.unread}" if progress.unread else ""
    tail += " x" if progress.untold else ""
    tail += " m" if progress.rewound else ""
    done = f" d={_text_of_ranges(progress)}" if progress.done else ""
    attempts = _text_of_attempts(progress.offset, progress.attempts)
    text = head + done + attempts + tail
    whole_bytes = len(text)
    if whole_bytes > MAX_METADATA_BYTES and len(head + done + tail) > MAX_METADATA_BYTES:
        done = ""
    kept = sorted(progress.attempts)
    while len(text := head + done + attempts + tail) > MAX_METADATA_BYTES:
        kept = kept[: len(kept) // 2]
        attempts = _text_of_attempts(progress.offset, {offset: progress.attempts[offset] for offset in kept})
    return Encoded(text, whole_bytes)


def decode(metadata: str, offset: int | None = None) -> Metadata | None:
    """What `metadata` beside `offset` says; None if it is not ours. Never raises."""
    first = _FIRST_FORM.fullmatch(metadata)
    if first:
        return Metadata(int(first[1]), None)
    found = _FORM.fullmatch(metadata)
    if found is None:
        return None
    request, written_for, state, owner, topic_id, done, attempts, *suspected, unread, untold, moved = found.groups()
    if int(written_for) != offset:
        return Metadata(int(request), None)
    suspect = None if suspected[0] is None else Suspect(*map(int, suspected))
    try:
        ranges = () if done is None else tuple(_ranges(offset, done))
        spent = {} if attempts is None else dict(_attempts(offset, attempts))
    except ValueError:
        return None
    progress = Progress(
        offset,
        ranges,
        spent,
        state == "r",
        suspect,
        owner or "",
        topic_id or "",
        int(unread or 0),
        untold=untold is not None,
        rewound=moved is not None,
    )
    return Metadata(int(request), progress)


def _text_of_ranges(progress: Progress) -> str:
    lengths: list[int] = []
    at = progress.offset
    for first, last in progress.done:
        lengths += (first - at, last + 1 - first)
        at = last + 1
    runs = "r" + _base64(_varints(lengths))
    if (at - progress.offset) * 4 // 24 >= len(runs):
        return runs
    bits = bytearray(b"0") * (at - progress.offset)
    for first, last in progress.done:
        bits[first - progress.offset : last + 1 - progress.offset] = b"1" * (last + 1 - first)
    bitmap = "b" + _base64(int(bits[::-1], 2).to_bytes(-(-len(bits) // 8), "little"))
    return min(runs, bitmap, key=len)


def _ranges(offset: int, text: str) -> Iterator[tuple[int, int]]:
    data = _bytes(text[1:])
    if text[0] == "r":
        lengths = list(_numbers(data))
        if len(lengths) % 2 or 0 in lengths[1:] or sum(lengths) > _MAX_SPAN:
            raise ValueError(text)
        at = offset
        for gap, length in zip(lengths[::2], lengths[1::2], strict=True):
            yield at + gap, at + gap + length - 1
            at += gap + length
        return
    at = offset
    for bit, group in groupby(bin(int.from_bytes(data, "little"))[:1:-1]):
        length = len(list(group))
        if bit == "1":
            yield at, at + length - 1
        at += length


def _text_of_attempts(offset: int, attempts: Mapping[int, int]) -> str:
    """Triples of a distance, a number of neighbours, and the attempts that were spent on each of them."""
    numbers: list[int] = []
    at = offset
    for first, count, spent in _alike(attempts):
        numbers += (first - at, count, spent)
        at = first + count
    return f" a={_base64(_varints(numbers))}" if numbers else ""


def _alike(attempts: Mapping[int, int]) -> Iterator[tuple[int, int, int]]:
    """Neighbours with as many attempts, as (first offset, count, attempts)."""
    neighbours = groupby(enumerate(sorted(attempts)), lambda pair: (pair[1] - pair[0], attempts[pair[1]]))
    for (_, spent), group in neighbours:
        offsets = [offset for _, offset in group]
        yield offsets[0], len(offsets), spent


def _attempts(offset: int, text: str) -> Iterator[tuple[int, int]]:
    numbers = list(_numbers(_bytes(text)))
    if len(numbers) % 3 or sum(numbers[1::3]) > 8 * MAX_METADATA_BYTES or sum(numbers[::3]) > _MAX_SPAN:
        raise ValueError(text)
    at = offset
    for gap, count, spent in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True):
        yield from ((one, spent) for one in range(at + gap, at + gap + count))
        at += gap + count


def _varints(numbers: Iterable[int]) -> bytes:
    """Seven bits a byte, the lowest first, as in Protocol Buffers."""
    data = bytearray()
    for number in numbers:
        rest = number
        while rest > 0x7F:
            data.append(rest & 0x7F | 0x80)
            rest >>= 7
        data.append(rest)
    return bytes(data)


def _numbers(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
    if shift:
        raise ValueError("ends within a number")


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
