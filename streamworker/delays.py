"""Lets records of retry topics in when they are due, never before.

The first record that is not due holds its partition: it and what follows is dropped and fetched again, so that what
waits for minutes takes no room from what could be handled. The time at which a record is due is one of the wall clock,
set by whoever wrote it; the wait is by the monotonic clock, and then the record is looked at anew: a clock that is set
back makes it wait longer. Loop thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.dlq.retries import returned
from streamworker.errors import ClientError
from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.partition import Partition
    from streamworker.partitions import Partitions
    from streamworker.record import Message, Returned
    from streamworker.stages import Stages
    from streamworker.work import Ownership

# A pause throws the client's prefetch away, so what is due a little later comes with the next look: this share of the
# topic's delay, and at most so long.
_SHARE, _LONGEST_S = 0.05, 5.0


@dataclass(slots=True)
class _Wait:
    partition: Partition
    offset: int  # of the first record that is not due
    until_s: float
    sought: bool = False


class Delays:
    """The retry topics' partitions that wait; `any` spares the loop a call where none does."""

    def __init__(self, stages: Stages, partitions: Partitions) -> None:
        self._partitions = partitions
        self._source = stages.source
        self._clock = stages.clock
        self._waits: dict[Ownership, _Wait] = {}

    @property
    def any(self) -> bool:
        """Whether a partition waits."""
        return bool(self._waits)

    def due(self, partition: Partition, messages: Sequence[Message]) -> Sequence[Returned]:
        """Those of `messages` that are due, up to the first that is not; the others are fetched again."""
        if partition.ownership in self._waits:
            return ()
        now_ms = self._clock.wall_ms()
        found: list[Returned] = []
        for message in messages:
            one = returned(message)
            if one.due_ms > now_ms:
                self._wait(partition, one, now_ms)
                break
            found.append(one)
        return found

    def step(self) -> None:
        """Go back to where partitions wait, and let those go on whose time has come.

        To be called once the client was told of the pause.
        """
        now_s = self._clock.monotonic_s()
        for ownership, wait in list(self._waits.items()):
            if ownership.ended:
                del self._waits[ownership]
            elif not wait.sought:
                wait.sought = self._seek(wait)
            elif now_s >= wait.until_s:
                del self._waits[ownership]
                self._partitions.release(wait.partition, PauseReason.RETRY_NOT_DUE)

    def _wait(self, partition: Partition, first: Returned, now_ms: int) -> None:
        assert partition.route is not None
        delay_s = partition.route.delay_s
        # Nothing is due later than a delay after it was written: a look by then, whatever the clocks did meanwhile.
        wait_s = min((first.due_ms - now_ms) / 1000, delay_s)
        wait_s = max(wait_s, min(_SHARE * delay_s, _LONGEST_S))
        until_s = self._clock.monotonic_s() + wait_s
        self._waits[partition.ownership] = _Wait(partition, first.offset(), until_s)
        self._partitions.hold(partition, PauseReason.RETRY_NOT_DUE)

    def _seek(self, wait: _Wait) -> bool:
        try:
            self._source().seek(wait.partition.key, wait.offset)
        except ClientError:
            return False  # until it succeeds the partition waits: to go on would leave a gap
        wait.partition.at_end = False
        return True
