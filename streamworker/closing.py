"""How partitions are finished before they go to others: what may still start, and what is to be waited for.

A revocation and the drain do the same: close, wait until nothing is in hand or time is up, abandon the rest. Loop
thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from streamworker.gatekeeper import Gatekeeper
    from streamworker.partition import Partition
    from streamworker.partitions import Partitions
    from streamworker.record import TopicPartition
    from streamworker.scheduling.lane import LaneSlice
    from streamworker.stages import Stages

# On closing, retries that are due within this are still made, so that what was done beyond them can be committed;
# longer back-offs are not waited for.
_RETRY_GRACE_S = 1.0


class Closing:
    """Closes partitions; `take_handled` settles what is done of a slice that runs."""

    def __init__(
        self,
        stages: Stages,
        partitions: Partitions,
        gatekeeper: Gatekeeper,
        *,
        take_handled: Callable[[Partition, LaneSlice, float], None],
    ) -> None:
        self._stages = stages
        self._partitions = partitions
        self._gatekeeper = gatekeeper
        self._clock = stages.clock
        self._running = stages.running
        self._take_handled = take_handled

    def close(self, keys: Sequence[TopicPartition]) -> None:
        """Start nothing more in these, except what lies below something that is done or in hand.

        A commit covers only what has nothing open below it: with several lanes, the rest would be repeated.
        """
        retries_until_s = self._clock.monotonic_s() + _RETRY_GRACE_S
        for ownership in self._stages.assignment.close(keys):
            partition = self._partitions[ownership.partition]
            partition.retries_until_s = retries_until_s
            in_hand = [slice_ for slice_ in self._running if slice_.ownership is ownership]
            ownership.closes_at = 1 + max([partition.tracker.highest_done, *map(self._reached, in_hand)])
            partition.handler.scheduler.wake(partition.key)

    def in_hand(self, keys: Iterable[TopicPartition]) -> bool:
        """Whether anything of these is with a handler, can be finished now, or is on its way to the dead letters."""
        owned = [partition for key in keys if (partition := self._partitions.get(key)) is not None]
        return (
            any(slice_.ownership is one.ownership for slice_ in self._running for one in owned)
            or any(self._can_go_on(one) for one in owned)
            or any(self._awaits_letters(one) for one in owned)
        )

    def abandon(self, keys: Iterable[TopicPartition]) -> None:
        """Take what is done of slices whose ownership ends while they run: only the call in progress repeats."""
        keys = set(keys)
        for slice_ in self._living():
            if slice_.ownership.partition in keys:
                self._take_handled(self._partitions[slice_.ownership.partition], slice_, 0.0)

    def left_over(self) -> list[str]:
        """What has not ended, in words: calls in progress, and dead letters that are not acknowledged."""
        calls = [
            f"{self._stages.of(one).name} {one.ownership.partition}@{one.messages[0].offset()}"
            for one in self._living()
        ]
        writer = self._stages.writer
        letters = {
            one.key: max(writer.outstanding(one.key), len(one.parking)) + len(one.unsent) for one in self._partitions
        }
        return [*calls, *(f"dead letters of {key}: {count}" for key, count in letters.items() if count)]

    def _living(self) -> list[LaneSlice]:
        """What is with handlers under an ownership that lasts."""
        return [slice_ for slice_ in self._running if not slice_.ownership.ended]

    def _reached(self, slice_: LaneSlice) -> int:
        """The offset that the handler may have in hand: a batch is handed over whole."""
        is_batch = self._stages.of(slice_).declared.batch is not None
        index = len(slice_.messages) - 1 if is_batch else min(slice_.done, len(slice_.messages) - 1)
        return slice_.messages[index].offset()

    def _awaits_letters(self, partition: Partition) -> bool:
        """Whether dead letters are on their way, or the keys that they park, and nothing was refused."""
        on_the_way = self._stages.writer.outstanding(partition.key) or partition.parking
        return bool(on_the_way) and not self._stages.writer.refused(partition.key)

    def _can_go_on(self, partition: Partition) -> bool:
        """Whether records of a closing partition can still be finished."""
        unfinished = partition.handler.scheduler.unfinished(partition.key, partition.retries_until_s)
        return unfinished and not self._gatekeeper.shut(partition.handler)
