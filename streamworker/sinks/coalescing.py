"""Which writes of a batch are left when only the last one of each key counts. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from streamworker.record import Origin


def last_of_each_key(keys: Sequence[Hashable], origins: Sequence[Origin]) -> list[int]:
    """Indices, ascending, of the writes that are left of one write per key and origin.

    A write goes for a later one of its key only if that comes from the same partition and from no lower offset.
    Otherwise a sink that refuses to go back within a partition would keep something else than without this: records
    that come back may come in another order, and those of two partitions have none.
    """
    later: dict[tuple[Hashable, str, int], int] = {}
    left = []
    for index in range(len(keys) - 1, -1, -1):
        origin = origins[index]
        source = (keys[index], origin.topic, origin.partition)
        if later.get(source, -1) < origin.offset:
            later[source] = origin.offset
            left.append(index)
    return left[::-1]
