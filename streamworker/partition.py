"""What lives exactly as long as one ownership of a partition. Loop thread only."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from streamworker.offsets.ages import Ages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from streamworker.dlq.budget import DeadLetterBudget
    from streamworker.dlq.envelope import Attempt, Envelope
    from streamworker.dlq.routes import Route
    from streamworker.observability.status import StopStatus
    from streamworker.offsets.suspects import Suspects
    from streamworker.offsets.tracker import OffsetTracker
    from streamworker.record import TopicPartition
    from streamworker.scheduling.lane import PartitionLanes
    from streamworker.stages import HandlerStages
    from streamworker.work import Ownership

# Back-off of what a stopped partition tries again by itself.
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 30.0
_KEPT_ATTEMPTS = 10  # as many as a dead letter tells of


class Unsent(NamedTuple):
    """A dead letter before it is handed to the writer; `parks` is the key that it parks, None if it parks none."""

    letter: Envelope
    acknowledged: Callable[[], None]
    parks: bytes | None


@dataclass(slots=True)
class Partition:
    """One ownership epoch and all that was made for it."""

    ownership: Ownership
    handler: HandlerStages
    tracker: OffsetTracker
    lanes: PartitionLanes
    budget: DeadLetterBudget
    route: Route | None  # of a retry or replay topic
    start_offset: int  # where the client was told to begin; negative is the log's beginning
    foreign: bool = False  # the group's offset was committed by somebody else
    positioned: bool = True  # false until the group's offset is known
    admits: bool = True  # false once records were dropped that nothing fetches again: going on would leave a gap
    at_end: bool = False  # the end of the log was reached once
    deadly: tuple[int, int] | None = None  # first and last offset of the call that ends the process
    suspects: Suspects | None = None  # while the earlier owner may have died of one of its records
    crowded: bool = False  # as many of its records as may be wait for a dependency
    stop: StopStatus | None = None
    retry_at_s: float | None = None  # when to let a stopped partition go on, to see
    retries_until_s: float = 0.0  # once it closes: what is due later is not waited for
    failures: dict[int, list[Attempt]] = field(default_factory=dict)  # by offset, of calls that failed
    leaving: set[int] = field(default_factory=set)  # offsets of what was given up and whose letter is not acknowledged
    unsent: deque[Unsent] = field(default_factory=deque)  # without a budget, or without room for another parked key
    parked: Mapping[bytes, int] = field(default_factory=dict)  # keys, and the offset from which on each is parked
    parking: set[bytes] = field(default_factory=set)  # keys whose dead letter or note is on its way
    unreadable_at: tuple[int, int] = (-1, 0)  # offset of the last unreadable batch, and how often in a row
    ages: Ages = field(default_factory=Ages)  # of what is not done
    _retries: int = 0

    @property
    def key(self) -> TopicPartition:
        """Which partition it is."""
        return self.ownership.partition

    def failed(self, offset: int, attempt: Attempt) -> None:
        """Remember a failed call; the latest are kept."""
        log = self.failures.setdefault(offset, [])
        log.append(attempt)
        del log[:-_KEPT_ATTEMPTS]

    def next_retry_s(self, now_s: float) -> float:
        """When to try again what just failed by itself; grows until `recovered`."""
        self._retries += 1
        return now_s + min(_LAST_RETRY_S, _FIRST_RETRY_S * 2.0 ** min(self._retries - 1, 8))

    def recovered(self) -> None:
        """Something was handled: the next back-off starts small again."""
        self._retries = 0
