"""What is true at the end: what was sent beside what is in the database and in the dead-letter topic."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import msgspec
from model import Enriched, PlaneChange, enriched

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from model import Flight
    from reference import Reference
    from script import Script
    from workers import Requests

# Of the keys that a cache is asked for, each once for a batch. There are many planes, and each flies a few times only.
_HITS_AT_LEAST = {"airports": 0.5, "planes": 0.1}


@dataclass(frozen=True, slots=True)
class Check:
    """What was to be, or to be `at_least`, and what was found."""

    name: str
    expected: float
    found: float
    at_least: bool = False

    @property
    def passed(self) -> bool:
        """Whether it is as expected."""
        return self.found >= self.expected if self.at_least else self.found == self.expected

    def __str__(self) -> str:
        sign = "≥ " if self.at_least else ""
        said = [f"{number:.1%}" if self.at_least else f"{number:,}" for number in (self.expected, self.found)]
        return f"{self.name:44} {sign + said[0]:>10} {said[1]:>10}  {'ok' if self.passed else 'NOT OK'}"


def judge(
    played: Script,
    stored: Sequence[Enriched],
    letters: set[tuple[int, str]],
    planes: Sequence[tuple[object, ...]],
    requests: Requests,
) -> Iterator[Check]:
    """Compare them; `planes` are tail number, operator, base and revision of each, as they are in the end."""
    expected_letters = dict(_expected_letters(played))
    wanted = {one.id for part in played.parts for one in part.flights} - expected_letters.keys()
    found = Counter(one.id for one in stored)
    history = played.history
    last = {tailnum: change for (tailnum, _), change in sorted(history.items())}
    wrong_planes = sum(last[str(row[0])] != _change(row) for row in planes)
    yield Check("flights sent", sum(len(part.flights) for part in played.parts), len(wanted) + len(expected_letters))
    for why in sorted(set(expected_letters.values())):
        expected = {number for number, reason in expected_letters.items() if reason == why}
        yield Check(f"dead letters: {why}", len(expected), len({n for n, reason in letters if reason == why}))
    yield Check("dead letters of other flights or reasons", 0, len(letters - set(expected_letters.items())))
    yield Check("rows, flights without dead letters", len(wanted), len(stored))
    yield Check("flights that are lost", 0, len(wanted - found.keys()))
    yield Check("flights that are stored twice", 0, sum(times > 1 for times in found.values()))
    yield from _enrichment(played, stored)
    yield Check("planes in the table", len(played.planes), len(planes))
    yield Check("planes in the table that are not as changed", 0, wrong_planes)
    for cache, at_least in _HITS_AT_LEAST.items():
        yield Check(f"hit ratio of cache {cache}", at_least, hit_ratio(requests, cache), at_least=True)


def hit_ratio(requests: Requests, cache: str) -> float:
    """The share of keys that the process had, or Redis."""
    asked = sum(count for (name, level, _), count in requests.items() if (name, level) == (cache, "l1"))
    loaded = sum(count for (name, level, _), count in requests.items() if (name, level) == (cache, "loader"))
    return 1 - loaded / asked if asked else 0.0


def of_rows(reference: Reference) -> tuple[Sequence[Enriched], Sequence[tuple[object, ...]]]:
    """What is stored, and the planes."""
    names = Enriched.__struct_fields__
    rows = reference.rows(f"SELECT {', '.join(names)} FROM enriched")  # noqa: S608 - the names of fields
    stored = [dict(zip(names, row, strict=True)) for row in rows]
    return msgspec.convert(stored, list[Enriched]), reference.rows(
        "SELECT tailnum, operator, base, revision FROM planes"
    )


def _expected_letters(played: Script) -> Iterator[tuple[int, str]]:
    registered = {plane.tailnum for plane in played.planes}
    for part in played.parts:
        for one in part.flights:
            if one.tailnum is None:
                yield one.id, "no tail number"
            elif one.tailnum not in registered:
                yield one.id, "the plane is not registered"


def _enrichment(played: Script, stored: Sequence[Enriched]) -> Iterator[Check]:
    airports = {one.code: one for one in played.airports}
    history, planes = played.history, {one.tailnum: one for one in played.planes}
    sent = {one.id: (one, part.revisions) for part in played.parts for one in part.flights}
    wrong_airport = wrong_plane = old_plane = changed = 0
    for row in stored:
        flight, revisions = sent[row.id]
        right = enriched(flight, airports[flight.origin], airports[flight.dest], planes[row.tailnum])
        plane = history.get((row.tailnum, row.revision))
        wrong_airport += _without_plane(row) != _without_plane(right)
        wrong_plane += plane is None or (row.operator, row.base) != (plane.operator, plane.base)
        old_plane += row.revision < revisions.get(row.tailnum, 0)
        changed += row.tailnum in revisions
    yield Check("flights with a wrong airport", 0, wrong_airport)
    yield Check("flights with a wrong plane", 0, wrong_plane)
    yield Check("flights with an old plane", 0, old_plane)
    yield Check("flights of planes that had changed before", _of_changed(played, planes), changed)


def _of_changed(played: Script, planes: Mapping[str, object]) -> int:
    def counts(one: Flight, revisions: Mapping[str, int]) -> bool:
        return one.tailnum in planes and one.tailnum in revisions

    return sum(counts(one, part.revisions) for part in played.parts for one in part.flights)


def _without_plane(row: Enriched) -> Enriched:
    return msgspec.structs.replace(row, operator="", base="", revision=0)


def _change(row: tuple[object, ...]) -> PlaneChange:
    return PlaneChange(*cast("tuple[str, str, str, int]", row))
