"""Keeps handlers from what their breakers forbid: hands nothing over, and pauses the partitions. Loop thread only.

A handler's own breaker holds all of it back. The breaker of a single call holds back the records that met it; a
partition with many of those is paused as well, because they keep the memory that others need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamworker.events import Listener
    from streamworker.partition import Partition
    from streamworker.partitions import Partitions, Stages
    from streamworker.resilience.breaker import CircuitBreaker
    from streamworker.scheduling.lanes import LaneSlice

# Records of a partition that may wait for a dependency, however many partitions there are: below that a pause, which
# throws the client's prefetch away, costs more than they do.
_LEAST_WAITING = 100


class Gatekeeper:
    """Between the schedulers and the threads; `breakers` by the name of the dependency."""

    def __init__(
        self,
        breakers: Mapping[str, CircuitBreaker],
        stages: Stages,
        partitions: Partitions,
        *,
        listener: Listener,
        max_inflight: int,
    ) -> None:
        self.breakers = breakers
        self._stages = stages
        self._partitions = partitions
        self._listener = listener
        self._max_inflight = max_inflight
        self.of_calls_only = frozenset(stages.rooms) - {gate.breaker.rules.name for gate in stages.gates if gate}

    def take(self, handler: int, now_s: float) -> LaneSlice | None:
        """The next slice of a handler that may be handed over."""
        gate, scheduler = self._stages.gates[handler], self._stages.schedulers[handler]
        if gate is None:
            return scheduler.take(now_s)
        permit = gate.begin()
        if permit is None:
            return None
        slice_ = scheduler.take(now_s, gate.most(permit))
        if slice_ is None:
            permit.end()
        else:
            gate.handed_over(slice_, permit)
        return slice_

    def next_due_s(self, handler: int) -> float | None:
        """When something of a handler can be handed over that waits for its time; None without."""
        gate, due_s = self._stages.gates[handler], self._stages.schedulers[handler].next_due_s()
        return due_s if gate is None else gate.next_due_s(due_s)

    def next_trial_s(self) -> float | None:
        """When a record that waits for a dependency may go; None without."""
        dues = [due_s for room in self._stages.rooms.values() if (due_s := room.next_due_s()) is not None]
        return min(dues, default=None)

    def shut(self, handler: int) -> bool:
        """Whether records of a handler cannot be finished now, because something that it needs is away."""
        gate = self._stages.gates[handler]
        return gate is not None and gate.shut

    def let_all_out(self) -> None:
        """Hand over again what waits for a dependency: what handlers can do without has changed."""
        for room in self._stages.rooms.values():
            room.let_all_out()

    def heed(self) -> None:
        """Report what has changed, and fetch only of the partitions that are let in."""
        for breaker in self.breakers.values():
            for change in breaker.changes():
                self._listener.breaker_changed(change.breaker, change.before.value, change.after.value, change.reason)
        for room in self._stages.rooms.values():
            room.let_out()
        if self._stages.rooms:
            self._mark_crowded()
        for handler, gate in enumerate(self._stages.gates):
            if gate is None or gate.at_rest:
                continue
            owned = [one for one in self._partitions if one.handler == handler]
            admitted = gate.admitted(len(owned), fresh=self._stages.schedulers[handler].fresh)
            for place, partition in enumerate(owned):
                self._hold_if(partition, needed=partition.crowded or place >= admitted)

    def _mark_crowded(self) -> None:
        """Pause the partitions of which too many records wait for a dependency, until half of those have gone."""
        most = max(_LEAST_WAITING, self._max_inflight // max(len(self._partitions), 1))
        for partition in self._partitions:
            waiting, before = partition.lanes.waiting, partition.crowded
            partition.crowded = waiting >= (most // 2 if before else most)
            if partition.crowded is not before and not self.shut(partition.handler):
                self._hold_if(partition, needed=partition.crowded)

    def _hold_if(self, partition: Partition, *, needed: bool) -> None:
        if needed:
            self._partitions.hold(partition, PauseReason.BREAKER)
        else:
            self._partitions.release(partition, PauseReason.BREAKER)
