"""A member of a group whose commits are transactions, and the producer's side of them.

To the worker it is a `Source` and an `Outbox` like others: a commit is sent and answered later, a letter is handed over
and acknowledged. Here both become parts of one transaction: the offsets, what was made of the records that are done by
them, and dead letters. So the offset of a record is never there without its outputs, nor they without it. Loop thread.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from streamworker.errors import ClientError
from streamworker.interfaces import CommitAnswer, Fault, FaultKind, Fetched
from streamworker.transactions.transactor import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.config import CommitConfig, Config
    from streamworker.interfaces import ClientStatistics, Membership, OffsetMark, Outbox, Rebalance, Source
    from streamworker.record import Letter, TopicPartition
    from streamworker.transactions.pending import Output, PendingOutputs
    from streamworker.transactions.transactor import Ended, Transactor

# While an output of a partition is refused its transactions are tried again so often, and others go on.
_REFUSED_AGAIN_S = 5.0
_FENCED = "another process has the same transactional id, or transactions take longer than transactions.timeout_s"
# Why a commit came to nothing without a transaction.
_REFUSED, _ENDED, _REPLACED = "_OUTPUT_REFUSED", "_OWNERSHIP_ENDED", "_REPLACED"


def in_transactions(config: Config) -> CommitConfig:
    """When offsets are committed where that makes outputs visible, and how long the answer may take."""
    # A transaction may take its whole time, and then as long again until it is known how it ended.
    timeout_s = 2 * config.transactions.timeout_s + config.commit.timeout_s
    interval_s = min(config.commit.interval_s, config.transactions.interval_s)
    return replace(config.commit, interval_s=interval_s, timeout_s=timeout_s)


class TransactionalOutbox:
    """An `Outbox` whose letters go with the next transaction of their partition; `outbox` knows the topics."""

    def __init__(self, outbox: Outbox, pending: PendingOutputs) -> None:
        self._outbox = outbox
        self._pending = pending
        self._taken: list[Callable[[str | None], None]] = []

    def send(self, letter: Letter, done: Callable[[str | None], None]) -> None:
        """As of `Outbox`; it is done as soon as it is sure to be in the transaction that commits its record."""
        assert letter.of is not None
        self._pending.add(*letter.of, [letter])
        self._taken.append(done)

    def poll(self) -> None:
        """As of `Outbox`."""
        self._outbox.poll()
        taken, self._taken = self._taken, []
        for done in taken:
            done(None)

    def partitions(self, topic: str, timeout_s: float) -> int | None:
        """As of `Outbox`."""
        return self._outbox.partitions(topic, timeout_s)

    def flush(self, timeout_s: float) -> int:
        """As of `Outbox`."""
        self.poll()
        return self._outbox.flush(timeout_s)


class TransactionalSource:
    """A `Source` over another; `refused(partition, offset, topic, error)` is told of outputs that nobody takes.

    A commit that has to be waited for is given `patience_s`.
    """

    def __init__(
        self,
        source: Source,
        transactor: Transactor,
        pending: PendingOutputs,
        *,
        clock: Clock,
        patience_s: float,
        refused: Callable[[TopicPartition, int, str, str], None],
    ) -> None:
        self._source = source
        self._transactor = transactor
        self._pending = pending
        self._monotonic_s = clock.monotonic_s
        self._patience_s = patience_s
        self._refused = refused
        self._in_hand: tuple[Transaction, Sequence[Output]] | None = None
        self._next: dict[TopicPartition, tuple[OffsetMark, int]] = {}  # with the ownership that it was made in
        self._answers: list[CommitAnswer] = []
        self._faults: list[Fault] = []
        self._refused_until_s: dict[TopicPartition, float] = {}

    def subscribe(self, topics: Sequence[str], rebalance: Rebalance) -> None:
        """As of `Source`."""
        self._source.subscribe(topics, rebalance)

    def fetch(self, max_records: int, timeout_s: float) -> Fetched:
        """As of `Source`; brings how transactions ended."""
        fetched = self._source.fetch(max_records, timeout_s)
        self._collect()
        answers, self._answers = [*fetched.commits, *self._answers], []
        faults, self._faults = [*fetched.faults, *self._faults], []
        return Fetched(fetched.runs, faults, answers)

    def committed(
        self, partitions: Sequence[TopicPartition], timeout_s: float
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        """As of `Source`."""
        return self._source.committed(partitions, timeout_s)

    def commit(self, marks: Mapping[TopicPartition, OffsetMark]) -> None:
        """As of `Source`; what is sent while a transaction is in hand makes the next one."""
        self._put(marks)
        self._submit()

    def commit_now(self, marks: Mapping[TopicPartition, OffsetMark]) -> Sequence[CommitAnswer]:
        """As of `Source`; raises ClientError if the time is over before it is known how it ended."""
        until_s = self._monotonic_s() + self._patience_s
        self._wait(until_s)
        self._put(marks)
        self._submit()
        self._wait(until_s)
        own = [one for one in self._answers if marks.get(one.partition) == one.mark]
        if len(own) < len(marks):
            raise ClientError("the transaction takes too long", code="_TIMED_OUT", retriable=True)
        self._answers = [one for one in self._answers if one not in own]
        return own

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """As of `Source`."""
        self._source.pause(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """As of `Source`."""
        self._source.resume(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """As of `Source`."""
        self._source.seek(partition, offset)

    def membership(self) -> Membership | None:
        """As of `Source`."""
        return self._source.membership()

    def statistics(self) -> ClientStatistics | None:
        """As of `Source`."""
        return self._source.statistics()

    def group_metadata(self) -> object:
        """As of `Source`."""
        return self._source.group_metadata()

    def positions(self) -> Mapping[TopicPartition, int]:
        """As of `Source`."""
        return self._source.positions()

    def close(self) -> None:
        """As of `Source`."""
        self._source.close()

    def _put(self, marks: Mapping[TopicPartition, OffsetMark]) -> None:
        """Let the next transaction have these, instead of what it would have had of their partitions."""
        for partition, mark in marks.items():
            if partition in self._next:
                self._answers.append(CommitAnswer(partition, self._next[partition][0], _REPLACED))
            self._next[partition] = mark, self._pending.ownership(partition)

    def _submit(self) -> None:
        """Make a transaction of what is to be committed, unless one is in hand.

        Not of what waited when its ownership ended: the broker would take that of any member, its outputs are gone, and
        the next owner may be further on.
        """
        if self._in_hand is not None or not self._next:
            return
        now_s = self._monotonic_s()
        waiting, self._next = self._next, {}
        marks: dict[TopicPartition, OffsetMark] = {}
        for partition, (mark, ownership) in waiting.items():
            if self._pending.ownership(partition) != ownership:
                self._answers.append(CommitAnswer(partition, mark, _ENDED))
            elif self._refused_until_s.get(partition, 0.0) > now_s:
                self._answers.append(CommitAnswer(partition, mark, _REFUSED))
            else:
                marks[partition] = mark
        if marks:
            outputs = self._pending.take(marks)
            letters = [output.letter for output in outputs]
            transaction = Transaction(letters, marks, self._source.group_metadata())
            self._in_hand = transaction, outputs
            self._transactor.submit(transaction)

    def _wait(self, until_s: float) -> None:
        while self._in_hand is not None and self._monotonic_s() < until_s:
            self._transactor.wait(until_s - self._monotonic_s())
            self._collect()

    def _collect(self) -> None:
        while (ended := self._transactor.ended()) is not None:
            self._take(ended)
        self._submit()

    def _take(self, ended: Ended) -> None:
        if self._in_hand is None or self._in_hand[0] is not ended.transaction:
            return  # of the consumer before this one: its ownerships have ended
        (transaction, outputs), self._in_hand = self._in_hand, None
        marks = transaction.marks
        self._answers += [CommitAnswer(partition, mark, ended.error) for partition, mark in marks.items()]
        if ended.error is None:
            for partition in marks:
                self._refused_until_s.pop(partition, None)
            return
        self._pending.put_back(outputs)
        if ended.refused is not None:
            output = outputs[ended.refused]
            self._refused_until_s[output.partition] = self._monotonic_s() + _REFUSED_AGAIN_S
            self._refused(output.partition, output.offset, output.letter.topic, ended.error)
        if ended.fenced:
            self._faults.append(Fault(FaultKind.FENCED, None, None, f"{ended.error}: {_FENCED}"))
