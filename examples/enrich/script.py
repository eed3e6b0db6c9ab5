"""What is sent, in which order, and so which plane each flight may be enriched with. Pure.

Flights come in parts. After each part but the last, planes that fly in the next one change, and the next part waits
until these changes are handled. So a flight must know all changes from before its part, and may know later ones.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model import Plane, PlaneChange, airports_of, flights, planes_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model import Airport, Flight

_PARTS = 4
_CHANGED_ONE_IN = 3
_BASES = ("EWR", "JFK", "LGA")


@dataclass(frozen=True, slots=True)
class Part:
    """Flights, what is known at the least of their planes, and the changes that follow."""

    flights: Sequence[Flight]
    revisions: Mapping[str, int]
    changes: Sequence[PlaneChange]


@dataclass(frozen=True, slots=True)
class Script:
    """All that is sent, and what the reference tables have at the beginning."""

    airports: Sequence[Airport]
    planes: Sequence[Plane]
    parts: Sequence[Part]

    @property
    def history(self) -> Mapping[tuple[str, int], PlaneChange]:
        """Each plane at each of its revisions."""
        first = [PlaneChange(one.tailnum, one.operator, one.base, one.revision) for one in self.planes]
        return {(one.tailnum, one.revision): one for one in (*first, *(c for p in self.parts for c in p.changes))}


def script(rows: int) -> Script:
    """Of the first `rows` flights of the file."""
    source = list(flights(rows))
    planes = {one.tailnum: one for one in planes_of(source)}
    size = -(-len(source) // _PARTS)
    cut = [source[first : first + size] for first in range(0, len(source), size)]
    revisions: Counter[str] = Counter()
    parts = []
    for those, following in zip(cut, [*cut[1:], []], strict=True):
        changed = sorted({one.tailnum for one in following if one.tailnum in planes} - {None})[::_CHANGED_ONE_IN]
        known = dict(revisions)
        revisions.update(changed)
        changes = [_changed(planes[one], revisions[one]) for one in changed]
        parts.append(Part(those, known, changes))
    return Script(airports_of(source), list(planes.values()), parts)


def _changed(plane: Plane, revision: int) -> PlaneChange:
    """It flies from another airport with each revision."""
    base = _BASES[(_BASES.index(plane.base) + revision) % len(_BASES)]
    return PlaneChange(plane.tailnum, plane.operator, base, revision)
