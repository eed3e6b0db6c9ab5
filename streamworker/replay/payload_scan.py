"""Looks for what values hold: chooses by the view first, and reads only the values of those from the topic.

Decided here: how long a page is looked for. It ends with what was found when its budget is used up, and the next page
goes on behind the last letter that was looked at; a plan is looked for to its end. One thread at a time.
"""

from __future__ import annotations

from itertools import groupby, islice
from typing import TYPE_CHECKING

from streamworker.replay.desk import Page
from streamworker.replay.filters import payload_matches
from streamworker.replay.view import position_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from streamworker.clock import Clock
    from streamworker.replay.dead_record import LetterId
    from streamworker.replay.desk import Row
    from streamworker.replay.filters import Filter
    from streamworker.replay.letter_reader import LetterReader
    from streamworker.replay.plans import Candidate
    from streamworker.replay.view import View

_AT_ONCE = 500  # letters whose values are read together
_PAGE_S = 5.0
_PAGE_BYTES = 64 * 1024 * 1024  # of values


class PayloadScan:
    """Over the letters of `view`, whose values `letters` reads."""

    def __init__(self, view: View, letters: LetterReader, clock: Clock) -> None:
        self._view = view
        self._letters = letters
        self._clock = clock

    def page(self, filter_: Filter, *, limit: int, after: str | None = None) -> Page:
        """Letters that match, the newest first: up to `limit`, or as many as five seconds and 64 MiB come to."""
        until_s = self._clock.monotonic_s() + _PAGE_S
        found: list[Row] = []
        size_bytes = 0
        while True:
            looked_at = self._view.page(filter_.without_payload, limit=_AT_ONCE, after=after, count=False)
            matching = self._matching(filter_, [row.letter.id for row in looked_at.letters])
            for row in looked_at.letters:
                if row.letter.id in matching:
                    found.append(row)
                if len(found) == limit:
                    is_last = row is looked_at.letters[-1] and looked_at.next is None
                    return Page(found, None if is_last else position_of(row), None, looked_at.built)
                size_bytes += row.letter.size_bytes or 0
            after = looked_at.next
            if after is None or size_bytes > _PAGE_BYTES or self._clock.monotonic_s() > until_s:
                return Page(found, after, None, looked_at.built)

    def those_with(self, filter_: Filter, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """Those of `candidates`, which come in the order of their places, whose values match as well."""
        left = iter(candidates)
        while part := list(islice(left, _AT_ONCE)):
            matching = self._matching(filter_, [one.id for one in part])
            yield from (one for one in part if one.id in matching)

    def _matching(self, filter_: Filter, ids: Sequence[LetterId]) -> set[LetterId]:
        by_partition = groupby(sorted(ids), key=lambda letter: letter.partition)
        return {
            letter.id
            for _, of in by_partition
            for letter in self._letters.read(list(of))
            if payload_matches(filter_, letter.value)
        }
