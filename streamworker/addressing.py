"""Lets replayed records in as what they were first, and ends those that are for another group.

They come from the group's replay topic, where their headers are believed, or from a source topic, signed by the key
that the group has. Without a key nothing looks at the headers of a source topic's records. Loop thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.dlq.replays import addressed_to, replayed
from streamworker.record import Ending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.dlq.replays import ReplayKey
    from streamworker.endings import Endings
    from streamworker.partition import Partition
    from streamworker.record import Message
    from streamworker.stages import Stages


class Addressing:
    """Of a group that has `key`; None if it has none."""

    def __init__(self, stages: Stages, endings: Endings, key: ReplayKey | None) -> None:
        self._group = stages.config.kafka.group
        self._endings = endings
        self._key = key

    def concerns(self, partition: Partition) -> bool:
        """Whether replayed records may come from there."""
        route = partition.route
        return self._key is not None if route is None else route.is_replay

    def admitted(self, partition: Partition, messages: Sequence[Message]) -> Sequence[Message]:
        """Of records that were delivered, those that are to be handled; the others have ended."""
        is_believed = partition.route is not None
        here: list[Message] = []
        elsewhere: list[Message] = []
        for message in messages:
            group = addressed_to(message, None if is_believed else self._key)
            if group is not None and group != self._group:
                elsewhere.append(message)
            else:
                here.append(message if group is None and not is_believed else replayed(message))
        if elsewhere:
            lanes = partition.lanes  # which never see these, and go by the largest record that they have seen
            lanes.largest_bytes = max(lanes.largest_bytes, *map(len, elsewhere))
            self._endings.complete(partition, [elsewhere], Ending.NOT_ADDRESSED, 0.0)
        return here
