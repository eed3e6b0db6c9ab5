"""Keeps handlers from what breakers and rates forbid: hands nothing over, and pauses partitions. Loop thread only.

A handler's own breaker holds all of it back. The breaker of a single call holds back the records that met it; a
partition with many of those is paused as well, because they keep the memory that others need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.events import Listener
    from streamworker.handler import Declaration
    from streamworker.partition import Partition
    from streamworker.partitions import Partitions, Stages
    from streamworker.resilience.breaker import CircuitBreaker
    from streamworker.resilience.gate import Gate
    from streamworker.scheduling.lanes import LaneSlice, Scheduler

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
        declarations: Sequence[Declaration],
        listener: Listener,
        max_inflight: int,
    ) -> None:
        self.breakers = breakers
        self._stages = stages
        self._partitions = partitions
        self._listener = listener
        self._max_inflight = max_inflight
        self._names = [one.name for one in declarations]
        self._limited = any(one.rate is not None or one.retry_budget is not None for one in declarations)
        self.of_calls_only = frozenset(stages.rooms) - {gate.breaker.rules.name for gate in stages.gates if gate}

    def take(self, handler: int, now_s: float) -> LaneSlice | None:
        """The next slice of a handler that may be handed over."""
        gate, scheduler = self._stages.gates[handler], self._stages.schedulers[handler]
        pace, adaptive = self._stages.paces[handler], self._stages.adaptive[handler]
        if adaptive is not None:
            adaptive.presses = scheduler.presses
        if pace is None:
            return scheduler.take(now_s) if gate is None else self._take_through(gate, scheduler, now_s, None)
        most = pace.most(now_s, needed=scheduler.ready)
        if not most:
            return None
        slice_ = scheduler.take(now_s, most) if gate is None else self._take_through(gate, scheduler, now_s, most)
        if slice_ is not None:
            pace.spend(len(slice_.messages))
        return slice_

    @staticmethod
    def _take_through(gate: Gate, scheduler: Scheduler, now_s: float, most: int | None) -> LaneSlice | None:
        permit = gate.begin()
        if permit is None:
            return None
        slice_ = scheduler.take(now_s, _smaller(most, gate.most(permit)))
        if slice_ is None:
            permit.end()
        else:
            gate.handed_over(slice_, permit)
        return slice_

    def next_due_s(self, handler: int) -> float | None:
        """When something of a handler can be handed over that waits for its time; None without."""
        gate, due_s = self._stages.gates[handler], self._stages.schedulers[handler].next_due_s()
        pace = self._stages.paces[handler]
        if pace is not None and pace.ready_at_s is not None:
            due_s = pace.ready_at_s
        return due_s if gate is None else gate.next_due_s(due_s)

    def next_trial_s(self) -> float | None:
        """When a record that waits for a dependency may go; None without."""
        dues = [due_s for room in self._stages.rooms.values() if (due_s := room.next_due_s()) is not None]
        return min(dues, default=None)

    def throttled(self, handler: int) -> bool:
        """Whether records of a handler wait for its rate."""
        pace = self._stages.paces[handler]
        return pace is not None and pace.ready_at_s is not None

    def limits(self) -> Mapping[str, int]:
        """How many calls at once are made of handlers that adapt, by name."""
        limits = zip(self._names, self._stages.adaptive, strict=True)
        return {name: limit.calls for name, limit in limits if limit is not None}

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
            if breaker.seats is not None and (refused := breaker.seats.refused()):
                self._listener.bulkhead_full(breaker.rules.name, refused)
        if self._limited:
            self._report_waits()
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

    def _report_waits(self) -> None:
        for handler, name in enumerate(self._names):
            for pace in (self._stages.paces[handler], self._stages.key_paces[handler]):
                waited_s = 0.0 if pace is None else pace.waited_s()
                if waited_s:
                    self._listener.throttled(name, waited_s)
            allowance = self._stages.allowances[handler]
            postponed = 0 if allowance is None else allowance.postponed()
            if postponed:
                self._listener.retries_postponed(name, postponed)

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


def _smaller(one: int | None, other: int | None) -> int | None:
    """The smaller of two bounds, None being none."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
