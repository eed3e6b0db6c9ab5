"""Which groups beside the one that is meant read the topics that a replay goes to: they get it as well.

Decided here: whom that is told of, and how. A group is known by its offsets; one that keeps them elsewhere is not seen.
Any thread; asks the cluster for as long as is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.cluster import GroupListing
    from streamworker.interfaces import OffsetMark
    from streamworker.record import TopicPartition

_AT_ONCE = 50  # groups that are asked for: each is a request to its coordinator
_NAMED = 5  # groups in a warning
_WITHOUT_MEMBERS = frozenset({"EMPTY", "DEAD"})


class Groups(Protocol):
    """What is asked of a `Cluster`."""

    def groups(self, timeout_s: float) -> GroupListing | None:
        """As of `Cluster`."""

    def partitions(self, topic: str, timeout_s: float) -> Sequence[TopicPartition]:
        """As of `Cluster`."""

    def offsets_of_groups(
        self, groups: Sequence[str], partitions: Sequence[TopicPartition], timeout_s: float
    ) -> Mapping[str, Mapping[TopicPartition, OffsetMark]]:
        """As of `Cluster`."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A group with offsets of a topic. `live`: it has members now."""

    group: str
    live: bool


@dataclass(frozen=True, slots=True)
class OtherGroups:
    """What was found. `told` is false where the cluster lists no groups: then nothing is known."""

    readers: Mapping[str, Sequence[Reader]]  # by topic, those with members first
    unanswered: int  # groups that were not asked for in time, or gave no answer
    told: bool
    whole: bool  # every broker has listed its groups

    def warnings(self) -> Iterator[str]:
        """For a plan."""
        if not self.told:
            yield "which other groups read what is sent was not looked at: this cluster lists none to us"
            return
        for topic, readers in sorted(self.readers.items()):
            if readers:
                yield _warning(topic, readers)
        if self.unanswered:
            yield f"whether {self.unanswered} more groups read what is sent is not known: there was no answer in time"
        if not self.whole:
            yield "some brokers did not say which groups they have, so others may read what is sent"


def other_groups(
    cluster: Groups, topics: Collection[str], meant: Collection[str], *, clock: Clock, timeout_s: float
) -> OtherGroups:
    """Groups with offsets of `topics` that are none of `meant`, as many as can be asked for within `timeout_s`.

    Raises ClientError if not even the list of groups can be had.
    """
    until_s = clock.monotonic_s() + timeout_s
    listing = cluster.groups(timeout_s)
    if listing is None:
        return OtherGroups({}, 0, told=False, whole=False)
    partitions = list(chain.from_iterable(cluster.partitions(topic, timeout_s) for topic in sorted(topics)))
    others = sorted(listing.states.keys() - set(meant), key=lambda group: (not _is_live(listing, group), group))
    found: dict[str, list[Reader]] = {topic: [] for topic in topics}
    unanswered = 0
    for first in range(0, len(others) if partitions else 0, _AT_ONCE):
        groups = others[first : first + _AT_ONCE]
        left_s = until_s - clock.monotonic_s()
        marks = cluster.offsets_of_groups(groups, partitions, left_s) if left_s > 0 else {}
        unanswered += len(groups) - len(marks)
        for group in groups:
            for topic in {partition.topic for partition in marks.get(group, ())}:
                found[topic].append(Reader(group, _is_live(listing, group)))
    return OtherGroups(found, unanswered, told=True, whole=listing.whole)


def _is_live(listing: GroupListing, group: str) -> bool:
    return listing.states[group] not in _WITHOUT_MEMBERS


def _warning(topic: str, readers: Sequence[Reader]) -> str:
    named = ", ".join(one.group if one.live else f"{one.group} (no members now)" for one in readers[:_NAMED])
    more = f" and {len(readers) - _NAMED} more" if len(readers) > _NAMED else ""
    groups = "another group reads" if len(readers) == 1 else f"{len(readers)} other groups read"
    return (
        f"{groups} {topic}: {named}{more}; what is sent there reaches them, too, and only streamworkers pass over what"
        " is addressed to others"
    )
