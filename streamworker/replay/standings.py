"""What the records of one partition of a state topic add up to, in a few bytes per letter.

A dead-letter topic may have a million letters, of which as many things were said: their dispositions as objects would
take half a gigabyte. Kept is what decides about the next one (`Standing`), in pages by offset. Pure; one thread at a
time.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from streamworker.replay.dead_record import LetterId
from streamworker.replay.states import Standing, State, decode, letter_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamworker.replay.states import Disposition

_PER_PAGE = 256  # letters; pages that nothing is said of are not there
_FORM = struct.Struct("<B8s8s8s")  # state, and the hashes of a `Standing`
_SIZE = _FORM.size
_NOTHING = bytes(_SIZE)
_UNREADABLE = 255
_STATES = tuple(State)  # its place plus one is what is kept; 0: nothing was said


class Unreadable(Exception):
    """Something was said of the letter that this version cannot read, so it is not known to be pending."""


class Standings:
    """What was said last of the letters of `partition`. Records of other partitions, and unknown keys, are left out."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._pages: dict[int, bytearray] = {}

    def take(self, key: bytes | None, value: bytes | None, end: int) -> tuple[LetterId, Disposition | None] | None:
        """Take a record of the state topic in, and tell what it says; None if it is of no letter before offset `end`.

        A letter that is not there yet cannot have been judged: what names one was not written by us, and could take
        any amount of memory.
        """
        letter = letter_of(key)
        if letter is None or letter.partition != self._partition or letter.offset >= end:
            return None
        if value is None:
            self.forget(letter)
            return letter, None
        said = decode(value)
        if said is None:
            self._put(letter.offset, _FORM.pack(_UNREADABLE, b"", b"", b""))
        else:
            self.note(letter, said)
        return letter, said

    def note(self, letter: LetterId, said: Disposition) -> None:
        """It was said of a letter."""
        state, topic, payload, replay = Standing.of(said)
        self._put(letter.offset, _FORM.pack(_STATES.index(state) + 1, topic, payload, replay))

    def forget(self, letter: LetterId) -> None:
        """Nothing is said of a letter any more."""
        page = letter.offset // _PER_PAGE
        if page in self._pages:
            self._put(letter.offset, _NOTHING)
            if not any(self._pages[page]):
                del self._pages[page]

    def of(self, letter: LetterId) -> Standing | None:
        """What was said last of a letter, believed or not; None: nothing. Raises Unreadable."""
        page = self._pages.get(letter.offset // _PER_PAGE)
        if page is None:
            return None
        state, topic, payload, replay = _FORM.unpack_from(page, letter.offset % _PER_PAGE * _SIZE)
        if state == _UNREADABLE:
            raise Unreadable(letter)
        return Standing(_STATES[state - 1], topic, payload, replay) if state else None

    def before(self, offset: int) -> Iterator[LetterId]:
        """Letters below `offset` of which something is said, in their order."""
        for number in sorted(self._pages):
            if number * _PER_PAGE >= offset:
                return
            page = self._pages[number]
            for place in range(_PER_PAGE):
                at = number * _PER_PAGE + place
                if at < offset and page[place * _SIZE]:
                    yield LetterId(self._partition, at)

    def _put(self, offset: int, entry: bytes) -> None:
        page = self._pages.get(offset // _PER_PAGE)
        if page is None:
            page = self._pages[offset // _PER_PAGE] = bytearray(_PER_PAGE * _SIZE)
        start = offset % _PER_PAGE * _SIZE
        page[start : start + _SIZE] = entry
