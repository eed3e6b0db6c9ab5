"""Whether caches know of what was written here, in what is committed: the next owner must not believe them otherwise.

A cache that is away hears of writes when it is back, from the process that has made them. If that dies before, nobody
would tell it: what it has would be out of date for as long as its entries last. So the commit that says that a record
is done also says that a cache may not know of it, and whoever takes the partition over lets the caches forget all they
have. Loop thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamworker.interfaces import CacheTruth
    from streamworker.partitions import Partitions
    from streamworker.stages import Stages


class Untold:
    """Looks whenever what came back is settled, before anything of it is committed."""

    def __init__(self, stages: Stages, partitions: Partitions, caches: CacheTruth) -> None:
        self._committer = stages.committer
        self._partitions = partitions
        self._caches = caches
        self._before = False

    def step(self) -> None:
        """Let all partitions say so as long as it is so: whose records a key was written for is not kept."""
        untold = self._caches.dirty
        if not untold and not self._before:
            return
        self._before = untold
        for partition in self._partitions:
            if partition.tracker.untold != untold:
                partition.tracker.untold = untold
                self._committer.progressed(partition.key)
