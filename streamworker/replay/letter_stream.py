"""The letters of a topic that a filter chooses, with their values and states, one after the other.

Decided here: that the view answers what it can, and values are read only of what it has chosen. One thread at a time.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Protocol

from streamworker.replay.filters import payload_matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from streamworker.replay.dead_record import DeadRecord, LetterId
    from streamworker.replay.desk import Row
    from streamworker.replay.filters import Filter

_AT_ONCE = 500  # letters that are asked for, so that neighbours are read together


class Letters(Protocol):
    """What is asked of a `View`."""

    def ids(self, filter_: Filter) -> Iterator[LetterId]:
        """As of `View`."""

    def row(self, letter: LetterId) -> Row | None:
        """As of `View`."""


class Reader(Protocol):
    """What is asked of a `LetterReader`."""

    def read(self, ids: Sequence[LetterId]) -> Iterator[DeadRecord]:
        """As of `LetterReader`."""


def letters(view: Letters, reader: Reader, filter_: Filter) -> Iterator[tuple[DeadRecord, Row]]:
    """Those that match, in the order of their places; what is gone meanwhile is left out.

    Raises ClientError and ViewError.
    """
    for _, of_partition in groupby(view.ids(filter_.without_payload), key=lambda letter: letter.partition):
        for chunk in _chunks(of_partition):
            for letter in reader.read(chunk):
                row = view.row(letter.id)
                if row is not None and payload_matches(filter_, letter.value):
                    yield letter, row


def _chunks(ids: Iterable[LetterId]) -> Iterator[Sequence[LetterId]]:
    chunk: list[LetterId] = []
    for one in ids:
        chunk.append(one)
        if len(chunk) == _AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
