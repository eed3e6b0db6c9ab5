"""Where a slice stands among the records of its lane, which its handler's sink has to know.

A sink that marks what it has applied writes down how far its lane has come, and which records it has passed by. Only
the loop knows these: records that wait for another try, those that follow them, and those whose letters are not
acknowledged. Loop thread only.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from streamworker.work import Place

if TYPE_CHECKING:
    from streamworker.partition import Partition
    from streamworker.partitions import Partitions
    from streamworker.scheduling.lane import LaneSlice
    from streamworker.stages import Stages


class Places:
    """Tells slices where they stand."""

    def __init__(self, stages: Stages, partitions: Partitions) -> None:
        self._group = stages.config.kafka.group
        self._max_uncommitted = stages.config.commit.max_uncommitted
        self._partitions = partitions

    def of(self, slice_: LaneSlice) -> Place:
        """Where it stands; its records are no longer in their lane."""
        partition, lane = self._partitions[slice_.ownership.partition], slice_.lane
        return Place(
            group=self._group,
            partition=partition.key,
            lanes=len(lane.of.lanes),
            lane=lane.number,
            owner=f"{self._partitions.identity}-{partition.ownership.epoch}",
            done_below=partition.tracker.committed,
            open_below=self._open_below(partition, slice_),
            foreign=partition.foreign,
            max_uncommitted=self._max_uncommitted,
        )

    @staticmethod
    def _open_below(partition: Partition, slice_: LaneSlice) -> list[int]:
        last = slice_.messages[-1].offset()
        behind = (message.offset() for message in slice_.behind)
        return sorted({*slice_.lane.open_below(last), *(one for one in chain(behind, partition.leaving) if one < last)})
