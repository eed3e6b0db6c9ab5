"""The unit of work that crosses a thread, and the ownership that it is done under.

An *epoch* is one uninterrupted ownership of a partition by this process. Work carries the ownership
it was made under; when that has ended, its result counts for nothing, even if the partition has
come back meanwhile. Standard library only.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.record import Letter, Message, TopicPartition
    from streamworker.tally import Tally

S = TypeVar("S")


class Lease:
    """Until which monotonic time calls may be started, because membership of the group is proven for so long.

    The loop thread moves `until_s` on; pool threads compare it with the clock themselves, so that a process that was
    stopped for a while starts nothing when it goes on. From `lost_s` on others may own what the worker owns. Single
    numbers, hence no lock.
    """

    __slots__ = ("lost_s", "until_s")

    def __init__(self, until_s: float = inf) -> None:
        self.until_s = until_s
        self.lost_s = inf


class Ownership:
    """One epoch of one partition. The loop thread writes, pool threads read: single values, hence no lock.

    `closing`: only records below `closes_at` may still be started; pool threads look before each record.
    `ended`: results are dropped, and no record is started any more; `ends_s` is the monotonic time of that, once it is
    known. `lease` is that of the worker; without one given it has no end. `topic` is the one that the records were
    first in: of a retry topic it is not the partition's.
    """

    __slots__ = ("closes_at", "closing", "ended", "ends_s", "epoch", "lease", "partition", "topic")

    def __init__(self, partition: TopicPartition, epoch: int, lease: Lease | None = None) -> None:
        self.partition = partition
        self.topic = partition.topic
        self.epoch = epoch
        self.lease = lease or Lease()
        self.closing = False
        self.closes_at = 0
        self.ended = False
        self.ends_s = inf

    def __repr__(self) -> str:
        return f"<Ownership {self.partition} epoch {self.epoch}{' ended' if self.ended else ''}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the rows of one write come from: a run of records of one lane, in offset order.

    `owner` names this ownership of the partition and no other, of this or any other worker. Below `done_below`, which
    the group has committed and the broker acknowledged, all of the partition is done. `open_below` are records of the
    lane below the last row's that are not done and have no row here: they wait for another try, or follow one that
    does. `foreign` says that the group's offset was not committed by streamworker, or that it had none, or that an
    earlier owner has stopped for that: what was delivered may have been handled before.
    """

    group: str
    partition: TopicPartition  # where the records were delivered from
    lanes: int
    lane: int
    owner: str
    done_below: int
    open_below: Sequence[int] = ()
    foreign: bool = False
    max_uncommitted: int = 16_384


class Slice:
    """A run of records of one partition on its way through the handler number `handler`.

    Made by the loop thread, then owned by the pool thread that has it in hand; the loop reads `done`,
    `rejected` and `started_s`, and writes `settled`, meanwhile: that is how an abandoned slice repeats only the call in
    progress.
    `attempt` is 1 for records that go for the first time. `done` counts the finished ones from the front; of these,
    the first `settled` are settled, and `rejected` (index, error) go to the dead letters. `started_s` is the monotonic
    time at which the handler began with the slice. No value is larger than `largest_bytes`, where that is known.
    The lease is looked at before the first record, and before each if the loop says that it is `watched`; then
    `called` tells the index of the record in the handler's hands, and when its call began. Once `given_up` no record of
    it is started any more: a thread writes `called` before it reads that, and the loop the other way round.
    `place` is for the handler's sink, None if it has none. While effects are held back `tally` has what counts later.
    `outputs` are what a transaction is to have, by the index of the record that each was made of.
    """

    __slots__ = (
        "attempt",
        "called",
        "done",
        "given_up",
        "handler_number",
        "largest_bytes",
        "messages",
        "outputs",
        "ownership",
        "place",
        "rejected",
        "settled",
        "started_s",
        "tally",
        "watched",
    )

    def __init__(self, handler_number: int, ownership: Ownership, messages: Sequence[Message], attempt: int) -> None:
        self.handler_number = handler_number  # among the worker's handlers
        self.ownership = ownership
        self.messages = messages
        self.attempt = attempt
        self.done = self.settled = 0
        self.largest_bytes: int | None = None
        self.rejected: list[tuple[int, BaseException]] = []
        self.started_s: float | None = None
        self.called: tuple[int, float] | None = None
        self.given_up = False
        self.watched = True
        self.place: Place | None = None
        self.tally: Tally | None = None
        self.outputs: dict[int, Sequence[Letter]] | None = None


# The slice that a thread is at, or a task: for each its own, None outside of a call.
InHand = ContextVar["Slice | None"]


@dataclass(slots=True)
class Failure:
    """Why a slice ended early: the record at `index` failed, or the whole batch (`index` None)."""

    index: int | None
    error: BaseException


@dataclass(slots=True)
class SliceOutcome(Generic[S]):
    """A slice that came back from its pool thread after `seconds`; what is not done was not tried, or failed.

    Without a failure it was not tried because the ownership closes or the lease has run out.
    """

    slice: S
    seconds: float
    failure: Failure | None = None
