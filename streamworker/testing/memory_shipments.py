"""Dead letters that are sent and marked in memory: a cluster that knows transactions and fences, with the real steps.

What is decided is what `PartitionShipping` decides; only its producer and its reader are replaced. A test is called at
each step, where it can raise, or let somebody else go first. One thread.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING
from zlib import crc32

from streamworker.errors import ClientError
from streamworker.record import TopicPartition
from streamworker.replay.audit import TOPIC as AUDIT_TOPIC
from streamworker.replay.audit import Chain
from streamworker.replay.shipping import PartitionShipping
from streamworker.replay.states import Target, state_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.record import Letter


class Step(enum.Enum):
    """Where a test is called, in the order of one chunk."""

    OPENED = enum.auto()  # whoever had the partition is fenced
    BEGUN = enum.auto()
    SENDING = enum.auto()  # some letters, each time
    SENT = enum.auto()
    COMMITTING = enum.auto()  # the request is under way
    COMMITTED = enum.auto()  # and the answer is not


@dataclass(slots=True, eq=False)
class _Transaction:
    partitions: set[TopicPartition] = field(default_factory=set)
    open: bool = True
    committed: bool = False


@dataclass(frozen=True, slots=True)
class _Stored:
    letter: Letter | None  # None: the mark of a transaction's end
    transaction: _Transaction | None


class MemoryShipmentCluster:
    """Topics in memory, by their number of partitions.

    `at` is called at each step; `refuses` may name an error for each letter of a batch, and `forbids` one for all
    transactions; topics that it `lacks` are gone.
    """

    def __init__(self, topics: Mapping[str, int]) -> None:
        self.at: Callable[[Step], None] = lambda _step: None
        self.refuses: Callable[[Sequence[Letter]], Sequence[str | None]] = lambda letters: [None] * len(letters)
        self.forbids: str | None = None
        self.lacks: Collection[str] = ()
        self.first_letters: dict[TopicPartition, int] = {}  # where retention has got to
        self._topics = dict(topics)
        self._logs: dict[TopicPartition, list[_Stored]] = {}
        self._epochs: dict[str, int] = {}
        self._open: dict[str, _Transaction] = {}

    def has(self, topic: str) -> bool:
        """Whether there is such a topic."""
        return topic in self._topics and topic not in self.lacks

    def write(self, letter: Letter, transaction: _Transaction | None = None) -> Target:
        """Append a record."""
        number = letter.partition
        if number is None:
            number = crc32(letter.key or b"") % self._topics[letter.topic]
        partition = TopicPartition(letter.topic, number)
        log = self._logs.setdefault(partition, [])
        log.append(_Stored(letter, transaction))
        if transaction is not None:
            transaction.partitions.add(partition)
        return Target(*partition, len(log) - 1)

    def end(self, partition: TopicPartition) -> int:
        """Behind the last record that can be read: nothing is read from the first open transaction on."""
        log = self._logs.get(partition, [])
        still_open = (at for at, one in enumerate(log) if one.transaction is not None and one.transaction.open)
        return next(still_open, len(log))

    def read(self, partition: TopicPartition, start: int = 0, end: int | None = None) -> Iterator[Letter]:
        """What is committed of a partition."""
        for one in self._logs.get(partition, [])[start : self.end(partition) if end is None else end]:
            if one.letter is not None and (one.transaction is None or one.transaction.committed):
                yield one.letter

    def opened(self, transactional_id: str) -> int:
        """Fence who has the id; the epoch of who has it now."""
        if transactional_id in self._open:
            self.ended(transactional_id, committed=False)
        self._epochs[transactional_id] = self._epochs.get(transactional_id, -1) + 1
        return self._epochs[transactional_id]

    def begun(self, transactional_id: str) -> _Transaction:
        """A transaction of the id."""
        return self._open.setdefault(transactional_id, _Transaction())

    def ended(self, transactional_id: str, *, committed: bool) -> None:
        """End it, with its mark in each partition."""
        transaction = self._open.pop(transactional_id)
        transaction.open, transaction.committed = False, committed
        for partition in transaction.partitions:
            self._logs[partition].append(_Stored(None, transaction))

    def fences(self, transactional_id: str, epoch: int) -> bool:
        """Whether somebody else has the id by now."""
        return self._epochs[transactional_id] != epoch


class MemorySender:
    """A `Sender` for a `MemoryShipmentCluster`."""

    def __init__(self, cluster: MemoryShipmentCluster, transactional_id: str | None) -> None:
        self._cluster = cluster
        self._id = transactional_id
        self._epoch = -1
        self._transaction: _Transaction | None = None

    def open(self) -> None:
        """As of `Sender`."""
        if self._id is None:
            return
        if self._cluster.forbids is not None:
            raise ClientError("no transactions here", code=self._cluster.forbids)
        self._epoch = self._cluster.opened(self._id)
        self._cluster.at(Step.OPENED)

    def unknown(self, topics: Iterable[str]) -> Mapping[str, str]:
        """As of `Sender`."""
        return {topic: "UNKNOWN_TOPIC_OR_PART" for topic in topics if not self._cluster.has(topic)}

    def begin(self) -> None:
        """As of `Sender`."""
        if self._id is not None:
            self._check_fence()
            self._transaction = self._cluster.begun(self._id)
            self._cluster.at(Step.BEGUN)

    def send(self, letters: Sequence[Letter]) -> Sequence[Target | str | None]:
        """As of `Sender`."""
        self._cluster.at(Step.SENDING)
        self._check_fence()
        refusals = self._cluster.refuses(letters)
        if self._id is not None and any(refusals):
            return refusals
        answers = [
            refusal or self._cluster.write(letter, self._transaction)
            for letter, refusal in zip(letters, refusals, strict=True)
        ]
        self._cluster.at(Step.SENT)
        return answers

    def commit(self) -> None:
        """As of `Sender`."""
        if self._id is not None:
            self._cluster.at(Step.COMMITTING)
            self._check_fence()
            self._cluster.ended(self._id, committed=True)
            self._cluster.at(Step.COMMITTED)

    def abort(self) -> None:
        """As of `Sender`."""
        if self._id is not None:
            self._check_fence()
            self._cluster.ended(self._id, committed=False)

    def close(self) -> None:
        """As of `Sender`."""

    def _check_fence(self) -> None:
        if self._id is not None and self._cluster.fences(self._id, self._epoch):
            raise ClientError("somebody else has this transactional id", code="_FENCED")


class MemoryStateLog:
    """A `StateLog` for a `MemoryShipmentCluster`."""

    def __init__(self, cluster: MemoryShipmentCluster, dead_letters: TopicPartition) -> None:
        self._cluster = cluster
        self._letters = dead_letters
        self._states = TopicPartition(state_topic(dead_letters.topic), dead_letters.partition)

    def bounds(self) -> tuple[int, int]:
        """As of `StateLog`."""
        return 0, self._cluster.end(self._states)

    def read(self, start: int, end: int) -> Iterator[tuple[bytes | None, bytes | None]]:
        """As of `StateLog`."""
        for letter in self._cluster.read(self._states, start, end):
            yield letter.key, letter.value

    def letters(self) -> tuple[int, int]:
        """As of `StateLog`."""
        return self._cluster.first_letters.get(self._letters, 0), self._cluster.end(self._letters)


def memory_shipping(
    cluster: MemoryShipmentCluster,
    dead_letters: TopicPartition,
    *,
    writer: str,
    clock: Clock,
    wait: Callable[[float], bool] = lambda _s: False,
    audit_key: bytes | None = None,
) -> PartitionShipping:
    """A `Shipping` for one partition; its chains in the audit are named after `writer`, who is nobody else."""
    chains = count()
    transactional_id = f"sw-dlq-{dead_letters.topic}-{dead_letters.partition}"
    return PartitionShipping(
        dead_letters,
        make_sender=lambda transactional: MemorySender(cluster, transactional_id if transactional else None),
        log=MemoryStateLog(cluster, dead_letters),
        make_chain=lambda: Chain(f"{writer}.{next(chains)}", audit_key),
        audit_topic=AUDIT_TOPIC,
        clock=clock,
        wait=wait,
        chance=lambda: 0.5,
    )
