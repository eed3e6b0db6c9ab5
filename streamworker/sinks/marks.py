"""What a database has taken of each lane, and what follows for rows that come: new, a repeat, or a rewind. Pure.

A *mark* is kept in the database beside the rows and changes in the transaction that writes them. Below its
`next_offset` all of its lane has been dealt with, except the *holes*: records that were still open when later ones of
the lane were written, because they wait for another try or follow one that does. So a mark and the rows always tell the
same story, whoever wrote last and wherever the group's offset is.

Rules. A record is *applied* if its offset is below the mark and no hole. The marks of other lane counts stay as long as
they may say something that no other does; a record is applied if the mark of its lane says so under any count. What is
below `Place.done_below` can be open no more, so its holes close, and marks that end below it may go.

A record that was applied before its owner took over is an ordinary repeat, as after a crash, unless it lies so far back
that no crash explains it. Then somebody has moved the group's offset: a *rewind*.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from streamworker.interfaces import Row
    from streamworker.work import Place


class LaneOf(NamedTuple):
    """A lane, and how many there were when it was one."""

    lanes: int
    lane: int


class OnRewind(enum.Enum):
    """What becomes of records that come again because somebody has moved the group's offset back."""

    STOP = "stop"  # they are refused, and their partition stops
    APPLY = "apply"  # they have their effect again, and so has what follows them
    SKIP = "skip"  # they have none: what was applied stays so


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a lane is. `inherited` is the `next_offset` that its present owner found."""

    next_offset: int
    holes: tuple[int, ...] = ()  # ascending, below next_offset
    inherited: int = 0
    done_below: int = 0  # of the whole partition, when the lane was written last

    def applied(self, offset: int) -> bool:
        """Whether the record at `offset` of the lane has been dealt with."""
        if offset >= self.next_offset:
            return False
        at = bisect_left(self.holes, offset)
        return at == len(self.holes) or self.holes[at] != offset


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with rows: indices of theirs, ascending. `rewound` are among `repeated`."""

    fresh: Sequence[int]
    repeated: Sequence[int]
    rewound: Sequence[int]


def lane_of(key: bytes | None, offset: int, lanes: int) -> int:
    """The lane of a record, as the scheduler chooses it."""
    if lanes == 1:
        return 0
    return crc32(offset.to_bytes(8, "big") if key is None else key) % lanes


def plan(marks: Mapping[LaneOf, Mark], place: Place, rows: Sequence[Row]) -> Plan:
    """Look at rows, in offset order, in the light of all `marks` of their partition."""
    known = [one for at, one in marks.items() if at.lanes != place.lanes or at.lane == place.lane]
    if all(one.next_offset <= rows[0].offset for one in known):
        return Plan(range(len(rows)), (), ())
    current = marks.get(LaneOf(place.lanes, place.lane))
    counts = {one.lanes for one in marks if one.lanes != place.lanes}
    floor = max((mark.done_below for mark in marks.values()), default=0)
    fresh: list[int] = []
    repeated: list[int] = []
    rewound: list[int] = []
    for index, row in enumerate(rows):
        offset, key = row.offset, row.key
        found = [current] if current is not None else []
        found += [mark for lanes in counts if (mark := marks.get(LaneOf(lanes, lane_of(key, offset, lanes))))]
        saying = [mark for mark in found if mark.applied(offset)]
        (repeated if saying else fresh).append(index)
        if any(_rewinds(mark, offset, floor, place) for mark in saying):
            rewound.append(index)
    return Plan(fresh, repeated, rewound)


def _rewinds(mark: Mark, offset: int, floor: int, place: Place) -> bool:
    """The distance is of offsets, and a bound on records; where the log has gaps, what was done for good decides."""
    if offset >= mark.inherited:
        return False
    return place.foreign or (mark.inherited - offset > place.max_uncommitted and offset < floor)


def advanced(mark: Mark | None, place: Place, offsets: Sequence[int]) -> Mark:
    """The mark of the lane of `place` when the rows at `offsets`, ascending and at least one, are in the database.

    `place.open_below` may reach beyond the last of them.
    """
    old = Mark(0) if mark is None else mark
    next_offset = max(old.next_offset, offsets[-1] + 1)
    written = set(offsets)
    opened = (one for one in place.open_below if old.next_offset <= one < next_offset)
    holes = sorted({one for one in (*old.holes, *opened) if one >= place.done_below and one not in written})
    return Mark(next_offset, tuple(holes), old.inherited, max(old.done_below, place.done_below))


def rewound_to(mark: Mark, start: int) -> Mark:
    """A mark that says nothing of records from `start` on."""
    next_offset = min(mark.next_offset, start)
    return Mark(next_offset, (), next_offset, min(mark.done_below, start))


def spent(marks: Mapping[LaneOf, Mark], place: Place) -> Sequence[LaneOf]:
    """Marks of other lane counts that say nothing any more."""
    return [one for one, mark in marks.items() if one.lanes != place.lanes and mark.next_offset <= place.done_below]


def encode_holes(holes: Sequence[int]) -> str:
    """As text: runs of neighbours, each as the distance from the end of the one before and how many more follow.

    So 5, 6, 7 and 9 are `5+2,1`.
    """
    starts = [at for at in range(len(holes)) if at == 0 or holes[at] != holes[at - 1] + 1]
    parts: list[str] = []
    end = 0
    for first, beyond in pairwise([*starts, len(holes)]):
        more = beyond - first - 1
        parts.append(f"{holes[first] - end}+{more}" if more else str(holes[first] - end))
        end = holes[first] + more + 1
    return ",".join(parts)


def decode_holes(text: str) -> tuple[int, ...]:
    """What `encode_holes` made the text of; raises ValueError for another one."""
    return tuple(_runs(text.split(","))) if text else ()


def _runs(parts: Iterable[str]) -> Iterator[int]:
    end = 0
    for part in parts:
        gap, _, more = part.partition("+")
        first = end + int(gap)
        end = first + int(more or 0) + 1
        yield from range(first, end)
