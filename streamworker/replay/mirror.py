"""How far dead letters are settled as the offsets of a group, so that any tool of Kafka shows what is pending as lag.

Nothing is decided by it: the state topic is what counts. The group has no members, and it is written again also where
nothing has changed, because Kafka forgets the offsets of a group without members after a week. Any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from streamworker.interfaces import OffsetMark

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streamworker.interfaces import CommitAnswer
    from streamworker.record import TopicPartition
    from streamworker.replay.fronts import Front

_WRITTEN_BY = "streamworker: the first dead letter that is pending"


class Offsets(Protocol):
    """What is asked of a `Cluster`."""

    def set_group_offsets(
        self, group: str, marks: Mapping[TopicPartition, OffsetMark], timeout_s: float
    ) -> Sequence[CommitAnswer]:
        """As of `Cluster`."""


def mirror_group(dead_letter_topic: str) -> str:
    """The group whose lag is what is pending in a dead-letter topic."""
    return f"sw-dlq-{dead_letter_topic}"


def mirror(
    cluster: Offsets, dead_letter_topic: str, open_: Mapping[TopicPartition, int], timeout_s: float
) -> Mapping[TopicPartition, str]:
    """Set the group's offsets to the first open letter of each partition; errors by name, of those that were refused.

    Raises ClientError, also where somebody has joined the group.
    """
    marks = {partition: OffsetMark(offset, _WRITTEN_BY) for partition, offset in open_.items()}
    if not marks:
        return {}
    answers = cluster.set_group_offsets(mirror_group(dead_letter_topic), marks, timeout_s)
    return {one.partition: one.error for one in answers if one.error is not None}


def open_of(fronts: Iterable[Front]) -> Mapping[TopicPartition, int]:
    """What `mirror` is given of fronts."""
    return {front.partition: front.open for front in fronts}
