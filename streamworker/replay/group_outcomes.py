"""Finds out what became of replays: how far their groups are, and what came back of them.

Decided here: in which order the cluster is asked, so that the answer is exact. The groups' offsets come first and the
dead letters after, because a worker's dead letter is acknowledged before the offset behind it is committed. One thread
at a time.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import count, takewhile
from typing import TYPE_CHECKING, NamedTuple

from streamworker.dlq.routes import retry_topic
from streamworker.offsets.codec import decode
from streamworker.record import TopicPartition, read_headers
from streamworker.replay.outcomes import outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from streamworker.cluster import Cluster
    from streamworker.interfaces import OffsetMark
    from streamworker.replay.dead_record import LetterId
    from streamworker.replay.desk import Outcome
    from streamworker.replay.states import Target
    from streamworker.replay.topic_log import TopicLog

    Marks = Mapping[TopicPartition, OffsetMark | None]


class Addressee(NamedTuple):
    """Whom a copy was for: a group, and the topic that the record was in first. None: not known."""

    group: str | None
    origin_topic: str | None


class GroupOutcomes:
    """Of letters of `topic` that were sent since `since_ms`; `addressee` says for whom. What was read is remembered."""

    def __init__(
        self,
        cluster: Cluster,
        log: TopicLog,
        topic: str,
        addressee: Callable[[LetterId, Target], Addressee],
        *,
        since_ms: int,
        timeout_s: float,
    ) -> None:
        self._cluster = cluster
        self._log = log
        self._topic = topic
        self._addressee = addressee
        self._since_ms = since_ms
        self._timeout_s = timeout_s
        self._returned: set[str] = set()  # parents that letters name
        self._deferred: defaultdict[str, list[tuple[TopicPartition, int]]] = defaultdict(list)  # copies in retry topics
        self._read_to: dict[TopicPartition, int] = {}

    def begin(self) -> None:
        """Only dead letters that are written from now on can have come back; raises ClientError.

        To be called before anything is sent: other clocks than ours may be behind `since_ms`, and set the times.
        """
        partitions = self._cluster.partitions(self._topic, self._timeout_s)
        self._read_to.update({one: self._log.bounds(one, self._timeout_s)[1] for one in partitions})

    def look(self, sent: Mapping[LetterId, Target]) -> Mapping[LetterId, Outcome]:
        """For each of these; raises ClientError."""
        whose = {letter: self._addressee(letter, target) for letter, target in sent.items()}
        retries = list(self._retry_topics(set(whose.values())))
        asked = {one for topic in retries for one in self._cluster.partitions(topic, self._timeout_s)}
        asked |= {TopicPartition(target.topic, target.partition) for target in sent.values()}
        groups = {one.group for one in whose.values() if one.group is not None}
        marks = {group: self._cluster.group_offsets(group, sorted(asked), self._timeout_s) for group in groups}
        for parent, _, _ in self._new_children([self._topic]):
            self._returned.add(parent)
        for parent, partition, offset in self._new_children(retries):
            self._deferred[parent].append((partition, offset))
        return {
            letter: self._outcome(letter, target, marks.get(whose[letter].group or "", {}))
            for letter, target in sent.items()
        }

    def _outcome(self, letter: LetterId, target: Target, marks: Marks) -> Outcome:
        place = f"{self._topic}/{letter.partition}/{letter.offset}"
        there = TopicPartition(target.topic, target.partition)
        waits = (not _has_passed(marks.get(retry), offset) for retry, offset in self._deferred.get(place, ()))
        return outcome(
            known=target.offset is not None and marks.get(there) is not None,
            passed=target.offset is not None and _has_passed(marks.get(there), target.offset),
            returned=place in self._returned,
            deferred=any(waits),
        )

    def _retry_topics(self, addressees: Collection[Addressee]) -> Iterable[str]:
        topics = self._cluster.topics(self._timeout_s)
        for group, origin in addressees:
            if group is not None and origin is not None:
                named = (retry_topic(origin, group, level) for level in count(1))
                yield from takewhile(topics.__contains__, named)

    def _new_children(self, topics: Iterable[str]) -> Iterator[tuple[str, TopicPartition, int]]:
        """The parent that each record names which was written since the last look, and where the record is."""
        asked = [one for topic in topics for one in self._cluster.partitions(topic, self._timeout_s)]
        new = [one for one in asked if one not in self._read_to]
        if new:
            self._read_to.update(self._cluster.offsets_at(new, self._since_ms, self._timeout_s))
        ranges = {one: (self._read_to[one], self._log.bounds(one, self._timeout_s)[1]) for one in asked}
        for message in (message for batch in self._log.read(ranges, self._timeout_s) for message in batch):
            parent = read_headers(message).last("sw-parent")
            if parent is not None:
                place = TopicPartition(message.topic(), message.partition())
                yield parent.decode("utf-8", "replace"), place, message.offset()
        for one, (_, end) in ranges.items():
            self._read_to[one] = max(end, self._read_to[one])


def _has_passed(mark: OffsetMark | None, offset: int) -> bool:
    if mark is None:
        return False
    if mark.offset > offset:
        return True
    metadata = decode(mark.metadata, mark.offset) if mark.metadata else None
    progress = None if metadata is None else metadata.progress
    return progress is not None and any(first <= offset <= last for first, last in progress.done)
