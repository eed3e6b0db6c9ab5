"""What waits: lanes, the records that are held in them for another try, and the slices that are cut of them.

A *lane* is an order domain of one partition. What happens to it is decided in `scheduler.py`. Loop thread only, but
for a slice in a thread's hands.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import takewhile
from math import inf
from typing import TYPE_CHECKING

from streamworker.work import Slice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.record import Message
    from streamworker.scheduling.parts import Parts
    from streamworker.work import Ownership


@dataclass(frozen=True, slots=True)
class Spared:
    """Failed calls that spent no attempt: `calls`, of these `lately` since the breaker closed `closings` times."""

    calls: int = 0
    lately: int = 0
    closings: int = 0

    def and_one(self, closings: int) -> Spared:
        """One more, while the breaker has closed `closings` times."""
        lately = self.lately if closings == self.closings else 0
        return Spared(self.calls + 1, lately + 1, closings)


@dataclass(slots=True, eq=False)
class History:
    """What is remembered of records as long as they are held, whatever they are held for.

    `charges` counts calls that failed for a dependency, whichever, and after which another record's call succeeded;
    `turn` is their place among all that wait in one of the `WaitingRoom`s, `room`.
    """

    spared: Spared = Spared()
    charges: int = 0
    room: object = None
    turn: int = 0


class Held:
    """Records that wait until `due_s` for their next try; `attempt` calls were spent on the first of them.

    They go together, or in `parts` after a batch failed as a whole too often and is taken apart. With an infinite
    `due_s` they wait until `Scheduler.release`.
    """

    __slots__ = ("attempt", "due_s", "followers", "history", "messages", "parts")

    def __init__(
        self,
        messages: Sequence[Message],
        *,
        attempt: int,
        due_s: float,
        parts: Parts | None = None,
        history: History | None = None,
    ) -> None:
        self.messages = messages
        self.attempt = attempt
        self.due_s = due_s
        self.parts = parts
        self.history = History() if history is None else history
        self.followers: list[Message] = []  # later records of the same keys

    @property
    def calls(self) -> int:
        """Calls that failed of the first of them."""
        return self.attempt + self.history.spared.calls

    @property
    def next(self) -> Sequence[Message]:
        """Those that go next."""
        return self.messages if self.parts is None else self.messages[: self.parts.next.records]


class Lane:
    """Records of one order domain that were delivered and are not in a handler's hands."""

    __slots__ = ("arrivals", "held", "held_keys", "number", "of", "out", "pending", "queued", "timer_s", "waiting")

    def __init__(self, of: PartitionLanes, number: int) -> None:
        self.of = of
        self.number = number  # among those of its partition
        self.pending: list[Message] = []
        self.held: list[Held] = []
        self.waiting: set[Held] = set()  # held without end: apart, because there may be many
        self.held_keys: dict[bytes, Held] = {}  # KEY only
        self.out = 0  # slices in a handler's hands
        self.queued = False  # among the lanes of its partition that take turns
        self.arrivals: deque[tuple[int, float]] = deque()  # batches only: (first offset, when it came)
        self.timer_s: float | None = None  # the timer that was set last and has not gone off

    def oldest_s(self) -> float:
        """When the first of `pending` came; long ago for one that was handed over before."""
        first, arrivals = self.pending[0].offset(), self.arrivals
        while len(arrivals) > 1 and arrivals[1][0] <= first:
            arrivals.popleft()
        return arrivals[0][1] if arrivals and arrivals[0][0] <= first else 0.0

    def open_below(self, offset: int) -> list[int]:
        """Offsets below `offset` of the records that wait here, ascending."""
        held = [m for one in (*self.held, *self.waiting) for m in (*one.messages, *one.followers)]
        found = [m.offset() for m in held if m.offset() < offset]
        found += takewhile(lambda one: one < offset, (m.offset() for m in self.pending))
        return sorted(found)

    @property
    def records(self) -> int:
        """Records that wait here."""
        return len(self.pending) + self.held_records

    @property
    def held_records(self) -> int:
        """Records that wait for a retry, their own or the one before them."""
        return sum(len(held.messages) + len(held.followers) for held in (*self.held, *self.waiting))


class LaneSlice(Slice):
    """A slice that remembers where it was cut."""

    __slots__ = ("held", "lane")

    def __init__(
        self, handler_number: int, lane: Lane, messages: Sequence[Message], held: Held | None, *, attempt: int
    ) -> None:
        super().__init__(handler_number, lane.of.ownership, messages, attempt)
        self.lane = lane
        self.held = held
        self.largest_bytes = lane.of.largest_bytes

    def seen_at(self, index: int, *, batch: bool) -> LaneSlice:
        """It as it stands while the record at `index`, or its batch, is with the handler: nobody moves the copy on."""
        seen = LaneSlice(self.handler_number, self.lane, self.messages, self.held, attempt=self.attempt)
        seen.done, seen.settled = index, self.settled
        seen.rejected = [one for one in tuple(self.rejected) if batch or one[0] < index]
        return seen

    @property
    def held_records(self) -> int:
        """Records that wait behind it for its return."""
        return len(self.behind)

    @property
    def behind(self) -> Sequence[Message]:
        """The records that wait behind it for its return: others of its group, and those of the same keys."""
        held = self.held
        return () if held is None else [*held.messages[len(self.messages) :], *held.followers]

    @property
    def highest(self) -> int:
        """The highest offset among its records and those that wait behind them for its return."""
        with_it = [self.messages, *([self.held.messages, self.held.followers] if self.held else [])]
        return max(message.offset() for messages in with_it for message in messages)


class PartitionLanes:
    """The lanes of one partition, for one epoch."""

    __slots__ = ("blocked", "lanes", "largest_bytes", "ownership", "turns", "waiting")

    def __init__(self, ownership: Ownership, count: int) -> None:
        self.ownership = ownership
        self.lanes = [Lane(self, number) for number in range(count)]
        self.turns: deque[Lane] = deque()  # lanes that may have something to do
        self.largest_bytes = 0  # of all values offered: spares most looks at single ones
        self.waiting = 0  # records that are held without end
        self.blocked = False  # nothing is cut while the partition is stopped or held back

    @property
    def end(self) -> float:
        """The offset from which nothing is handed over any more; infinite until the ownership closes."""
        return self.ownership.closes_at if self.ownership.closing else inf

    @property
    def records(self) -> int:
        """Records that wait, in all lanes."""
        return sum(lane.records for lane in self.lanes)

    @property
    def held_records(self) -> int:
        """Records that wait for a retry, in all lanes."""
        return sum(lane.held_records for lane in self.lanes)
