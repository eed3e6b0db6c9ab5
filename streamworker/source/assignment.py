"""Who owns which partition, and since when. Pure.

The loop thread owns the assignment; pool threads read its ownerships and the lease, see `work.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.work import Lease, Ownership

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from streamworker.record import TopicPartition


class Assignment:
    """The partitions owned now.

    A fetch may cross a rebalance: between `begin_fetch` and the look at its records, what began is
    remembered.
    """

    def __init__(self) -> None:
        self.lease = Lease()
        self._owned: dict[TopicPartition, Ownership] = {}
        self._epochs = 0
        self._began: set[TopicPartition] = set()

    def begin_fetch(self) -> None:
        """Forget the changes of the fetch before."""
        self._began.clear()

    @property
    def began(self) -> Sequence[TopicPartition]:
        """Partitions whose epoch began since `begin_fetch` and still lasts."""
        return [partition for partition in self._began if partition in self._owned]

    def assign(self, partition: TopicPartition) -> Ownership:
        """Begin an epoch; one that had not ended ends."""
        self.end([partition])
        self._epochs += 1
        self._began.add(partition)
        ownership = self._owned[partition] = Ownership(partition, self._epochs, self.lease)
        return ownership

    def close(self, partitions: Iterable[TopicPartition]) -> Sequence[Ownership]:
        """Let nothing further start in these, until they are told an offset; returns those that are owned."""
        closing = [self._owned[partition] for partition in partitions if partition in self._owned]
        for ownership in closing:
            ownership.closing = True
        return closing

    def end(self, partitions: Iterable[TopicPartition]) -> Sequence[Ownership]:
        """End the epochs of these; partitions that are not owned are passed over."""
        ended = [self._owned.pop(partition) for partition in partitions if partition in self._owned]
        for ownership in ended:
            ownership.closes_at = 0
            ownership.closing = ownership.ended = True
        return ended

    def __iter__(self) -> Iterator[TopicPartition]:
        return iter(self._owned)

    def __len__(self) -> int:
        return len(self._owned)
