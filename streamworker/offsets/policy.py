"""Where a newly assigned partition starts. Pure.

Rules. A committed offset is taken whoever wrote it. A partition without one, in a topic where the
group has others, starts at the beginning: it is new, or its offset expired, and repeating is
better than skipping. Only where the group has no offset in the whole topic does `start` apply.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from streamworker.errors import ConfigurationError, nearest
from streamworker.offsets import codec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.interfaces import OffsetMark
    from streamworker.offsets.progress import Progress
    from streamworker.record import TopicPartition

_EXAMPLE = "timestamp:2026-01-31T00:00:00Z"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BEGINNING = -2  # librdkafka's logical offset for the start of the log


class StartKind(enum.Enum):
    """Where to start."""

    COMMITTED = "committed"
    EARLIEST = "earliest"
    LATEST = "latest"
    TIMESTAMP = "timestamp"


@dataclass(frozen=True, slots=True)
class StartPolicy:
    """The configured start of a group without offsets."""

    kind: StartKind
    timestamp_ms: int = 0


@dataclass(frozen=True, slots=True)
class StartPlan:
    """Where one partition starts; `offset` is meant for COMMITTED, `foreign` that another wrote it.

    `progress` is what the earlier owner has left, None if it did not say; `end` where the log ended, if that was asked;
    `topic_id` tells the topic from another of its name, if the cluster does.
    """

    kind: StartKind
    offset: int = BEGINNING
    foreign: bool = False
    progress: Progress | None = None
    end: int | None = None
    topic_id: str = ""

    @property
    def other_topic(self) -> bool:
        """Whether the group's offset was committed for a topic that had the same name."""
        before = self.progress.topic_id if self.progress is not None else ""
        return bool(before and self.topic_id) and before != self.topic_id

    def at(self, offset: int) -> StartPlan:
        """The same plan with its offset found out."""
        return replace(self, offset=offset)


def parse_start(text: str) -> StartPolicy:
    """The policy that `text` names: earliest, latest or timestamp:<ISO 8601>."""
    if text in ("earliest", "latest"):
        return StartPolicy(StartKind(text))
    word, colon, moment = text.partition(":")
    if word == "timestamp" and not colon:
        raise ConfigurationError(f"kafka.start: got {text!r}; expected a time, as in {_EXAMPLE}")
    if word != "timestamp":
        known = ("earliest", "latest", _EXAMPLE)
        raise ConfigurationError(f"kafka.start: got {text!r}; {nearest(text, known)}")
    try:
        return StartPolicy(StartKind.TIMESTAMP, moment_ms(moment))
    except ValueError as error:
        raise ConfigurationError(f"kafka.start: {error}") from error


def moment_ms(text: str) -> int:
    """Milliseconds since 1970 of an ISO 8601 time, in UTC if it names no zone. Raises ValueError with the reason.

    Earlier times are refused: brokers take -1 for the end of the log and -2 for its beginning, and refuse the others.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not an ISO 8601 time, like 2026-01-31T00:00:00Z: {error}") from error
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    if at < _EPOCH:
        raise ValueError(f"{text!r} is before 1970, and Kafka knows no earlier times")
    return (at - _EPOCH) // timedelta(milliseconds=1)


def plan_starts(
    assigned: Sequence[TopicPartition],
    committed: Mapping[TopicPartition, OffsetMark | None],
    policy: StartPolicy,
) -> Mapping[TopicPartition, StartPlan]:
    """Plan for each of `assigned`; `committed` knows all partitions of their topics."""
    known_topics = {partition.topic for partition, mark in committed.items() if mark is not None}
    return {one: _plan(committed.get(one), known=one.topic in known_topics, policy=policy) for one in assigned}


def _plan(mark: OffsetMark | None, *, known: bool, policy: StartPolicy) -> StartPlan:
    if mark is not None:
        read = codec.decode(mark.metadata, mark.offset)
        progress = None if read is None else read.progress
        return StartPlan(StartKind.COMMITTED, mark.offset, foreign=read is None, progress=progress)
    return StartPlan(StartKind.EARLIEST if known else policy.kind)
