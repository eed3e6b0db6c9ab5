"""A member of the group of a `MemoryBroker`: what a client is to a worker. In virtual time, without threads."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

from streamworker.errors import ClientError
from streamworker.interfaces import CommitAnswer, Fault, FaultKind, Fetched, Membership, OffsetMark
from streamworker.record import TopicPartition
from streamworker.testing.memory_broker import Tenure, TenureEnd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streamworker.interfaces import Rebalance
    from streamworker.record import Letter, Message
    from streamworker.testing.memory_broker import MemoryBroker, MemoryMessage

_WAY_THERE_S = 0.001  # of a commit
_PATIENCE_S = 1.0  # of a synchronous commit whose answer is lost
_QUEUE_BYTES = 16 * 1024 * 1024  # what the client holds ready at most, hence what one fetch can bring of a partition


class MemorySource:
    """A `Source`: a member of the broker's group."""

    def __init__(self, broker: MemoryBroker, name: str, *, end_of_partition: bool = False) -> None:
        self.name = name
        self.topics: tuple[str, ...] = ()
        self.expelled = False
        self.pauses = 0  # calls that paused something
        self._broker = broker
        self._end_of_partition = end_of_partition
        self._rebalance: Rebalance | None = None
        self._positions: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()  # the flags outlive an assignment
        self._answers: list[CommitAnswer] = []
        self._faults: list[Fault] = []
        self._silent: set[TopicPartition] = set()  # out of range, said once
        self._ended: set[TopicPartition] = set()
        self._closed = False
        self._heard_s = broker.time.monotonic_s()  # the coordinator, for the last time
        self._generation = 0  # counts how often it joined anew; commits from before are refused

    def subscribe(self, topics: Sequence[str], rebalance: Rebalance) -> None:
        """Join the group."""
        self.topics = tuple(topics)
        self._rebalance = rebalance
        self._broker.join(self)

    def fetch(self, max_records: int, timeout_s: float) -> Fetched:
        """Wait for records, callbacks or answers.

        As with the client's two calls, the first record is taken before the callbacks are served: it may
        belong to an ownership that they end.
        """
        self._broker.time.wait(min(timeout_s, self._broker.longest_wait_s), self._anything)
        runs = self._take(1)
        self._rebalance_now()
        if max_records > 1:
            runs += self._take(max_records - 1)
        answers, faults = list(self._answers), list(self._faults)
        self._answers.clear()
        self._faults.clear()
        return Fetched(runs, faults, answers)

    def committed(
        self, partitions: Sequence[TopicPartition], timeout_s: float
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        """The group's offsets."""
        error = self._broker.offsets_error()
        if error is not None:
            self._broker.time.wait(timeout_s, lambda: False)
            raise ClientError("offsets cannot be had", code=error, retriable=True)
        return {key: self._broker.group_offset(key) for key in partitions}

    def commit(self, marks: Mapping[TopicPartition, OffsetMark]) -> None:
        """Send a commit that is answered later, if the coordinator is there."""
        error = self._broker.commit_unsent()
        if error is not None:
            raise ClientError("the commit cannot be sent", code=error, retriable=True)
        if self._broker.coordinator_up:
            self._broker.time.call_in(self._way_there_s(), partial(self._arrive, dict(marks), self._generation))

    def commit_now(self, marks: Mapping[TopicPartition, OffsetMark]) -> Sequence[CommitAnswer]:
        """Commit and wait: what was sent before arrives before."""
        broker, generation = self._broker, self._generation
        if not broker.coordinator_up:
            raise ClientError("no coordinator", code="_WAIT_COORD", retriable=True)
        broker.time.wait(self._way_there_s(), lambda: False)
        answers = self._commit(marks, generation)
        if broker.commit_unanswered():
            broker.time.wait(_PATIENCE_S, lambda: False)
            raise ClientError("the answer was lost", code="_TIMED_OUT", retriable=True)
        error = broker.commit_raises()
        if error is not None:
            raise ClientError("the commit failed for some", code=error)
        return answers

    def report(self, fault: Fault) -> None:
        """Let the next fetch bring an error event."""
        self._faults.append(fault)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop fetching these."""
        self.pauses += bool(partitions)
        self.paused.update(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Go on with these."""
        self.paused.difference_update(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Deliver from `offset` next."""
        if partition not in self._positions:
            raise ClientError(f"{partition} is not assigned", code="_STATE")
        error = self._broker.seek_error()
        if error is not None:
            raise ClientError(f"{partition} cannot be sought in", code=error, retriable=True)
        self._positions[partition] = self._resolve(partition, offset)
        self._silent.discard(partition)
        self._ended.discard(partition)

    def membership(self) -> Membership | None:
        """Joined, and the coordinator heard just now if it is up."""
        now_s = self._broker.time.monotonic_s()
        if self._broker.coordinator_up:
            self._heard_s = now_s
        proven_s = self._heard_s if self._broker.coordinator_up and not self.expelled else None
        return Membership(not self.expelled, "up/steady", now_s - self._heard_s, now_s, proven_s)

    def statistics(self) -> None:
        """There is no client."""

    def group_metadata(self) -> object:
        """The member, and how often it has joined anew: what is committed with less is refused."""
        return self, self._generation

    def transact(
        self, letters: Sequence[Letter], marks: Mapping[TopicPartition, OffsetMark], generation: int
    ) -> tuple[str | None, int | None]:
        """Write and commit all of it, or nothing; returns the error, and the index of a letter that is refused."""
        if generation != self._generation:
            return "ILLEGAL_GENERATION", None
        return self._broker.take_transaction(self, letters, marks)

    def positions(self) -> Mapping[TopicPartition, int]:
        """The next offset of each."""
        return dict(self._positions)

    def close(self) -> None:
        """Leave the group."""
        if self._closed or self._rebalance is None:
            return
        self._closed = True
        if not self.expelled:
            self._revoke(list(self._positions))
        self._broker.leave(self)

    def _anything(self) -> bool:
        return bool(self._answers or self._faults or self._rebalance_due() or any(map(self._readable, self._positions)))

    def _fetches(self, key: TopicPartition) -> bool:
        return key not in self.paused and key not in self._silent and key not in self._broker.leaderless

    def _readable(self, key: TopicPartition) -> bool:
        if not self._fetches(key):
            return False
        records = self._broker.read(key, self._positions[key], 1)
        return records is None or bool(records) or (self._end_of_partition and key not in self._ended)

    def _take(self, max_records: int) -> list[tuple[TopicPartition, Sequence[Message]]]:
        runs: list[tuple[TopicPartition, Sequence[Message]]] = []
        for key in list(self._positions):
            if max_records <= 0 or not self._fetches(key):
                continue
            records = self._broker.read(key, self._positions[key], max_records)
            if records is None:
                self._report(key, FaultKind.OUT_OF_RANGE, f"offset {self._positions[key]} is out of range")
                self._silent.add(key)
            elif records:
                self._broker.on_read(self, key)
                records = _within_queue(records)
                self._positions[key] = records[-1].offset() + 1
                max_records -= len(records)
                runs.append((key, records))
            elif self._end_of_partition and key not in self._ended:
                self._ended.add(key)
                self._report(key, FaultKind.END_OF_PARTITION, "end of partition")
        # The next fetch begins with another partition.
        if self._positions:
            first = next(iter(self._positions))
            self._positions[first] = self._positions.pop(first)
        return runs

    def _report(self, key: TopicPartition, kind: FaultKind, detail: str) -> None:
        self._faults.append(Fault(kind, key, self._positions[key], detail))

    def _rebalance_due(self) -> bool:
        if self.expelled:
            return True
        target, owned = self._broker.target(self), self._positions.keys()
        if owned == target:
            return False
        return bool(owned - target or (target - owned) - self._broker.held_by_others(self))

    def _rebalance_now(self) -> None:
        if self._rebalance is None or not self._rebalance_due():
            return
        if self.expelled:
            lost = list(self._positions)
            self._positions.clear()
            self.expelled = False
            self._generation += 1
            self._rebalance.lost(lost)
        target = self._broker.target(self)
        self._revoke(sorted(key for key in self._positions if key not in target))
        if self.expelled:
            return
        self._assign(sorted(target - set(self._positions) - self._broker.held_by_others(self)))

    def _revoke(self, keys: Sequence[TopicPartition]) -> None:
        if keys and self._rebalance is not None:
            self._broker.ask_back(keys, self)
            self._rebalance.revoked(keys)
            ending = TenureEnd.LEFT if self._closed else TenureEnd.REVOKED
            for key in keys:
                del self._positions[key]
                self._broker.give_back(key, self, ending)

    def _assign(self, keys: Sequence[TopicPartition]) -> None:
        if not keys or self._rebalance is None:
            return
        for key in keys:
            self._broker.hold(key, self)
        starts = self._rebalance.assigned(keys)
        for key in keys:
            self._positions[key] = self._resolve(key, starts[key].offset)
            self._silent.discard(key)
            (self.pause if starts[key].paused else self.resume)([key])

    def _resolve(self, key: TopicPartition, offset: int) -> int:
        return self._broker.low(key) if offset < 0 else offset

    def _way_there_s(self) -> float:
        return min(self._broker.commit_latency_s, _WAY_THERE_S)

    def _arrive(self, marks: Mapping[TopicPartition, OffsetMark], generation: int) -> None:
        """The broker takes requests in the order in which they were sent; only its answer may be late."""
        answers = self._commit(marks, generation)
        resent_after_s = self._broker.commit_resent_after_s()
        if resent_after_s is not None:
            tenures = {key: self._broker.latest_tenure(self.name, key) for key in marks}
            self._broker.time.call_in(resent_after_s, partial(self._arrive_again, marks, tenures))
        elif not self._broker.commit_unanswered():
            self._broker.time.call_in(self._broker.commit_latency_s, partial(self._answers.extend, answers))

    def _arrive_again(
        self, marks: Mapping[TopicPartition, OffsetMark], tenures: Mapping[TopicPartition, Tenure]
    ) -> None:
        """What the client sends a second time may come after a newer commit, but not after a rebalance."""
        for key, mark in marks.items():
            same = self._broker.latest_tenure(self.name, key) is tenures[key] and tenures[key].ended_s is None
            error = self._broker.take_commit(self, key, mark, again=True) if same else "ILLEGAL_GENERATION"
            self._answers.append(CommitAnswer(key, mark, error))

    def _commit(self, marks: Mapping[TopicPartition, OffsetMark], generation: int) -> list[CommitAnswer]:
        if generation != self._generation:
            return [CommitAnswer(key, mark, "UNKNOWN_MEMBER_ID") for key, mark in marks.items()]
        return [CommitAnswer(key, mark, self._broker.take_commit(self, key, mark)) for key, mark in marks.items()]


def _within_queue(records: list[MemoryMessage]) -> list[MemoryMessage]:
    size_bytes = 0
    for index, record in enumerate(records):
        size_bytes += len(record)
        if size_bytes > _QUEUE_BYTES and index:
            return records[:index]
    return records


def by_partition(messages: Iterable[MemoryMessage]) -> Mapping[TopicPartition, list[MemoryMessage]]:
    """Records grouped by where they are."""
    groups: defaultdict[TopicPartition, list[MemoryMessage]] = defaultdict(list)
    for message in messages:
        groups[TopicPartition(message.topic(), message.partition())].append(message)
    return groups
