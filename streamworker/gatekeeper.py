"""Keeps handlers from what breakers and rates forbid: hands nothing over, and pauses partitions. Loop thread only.

A handler's own breaker holds all of it back. The breaker of a single call holds back the records that met it; a
partition with many of those is paused as well, because they keep the memory that others need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamworker.partitions import Partitions
    from streamworker.resilience.breaker import CircuitBreaker
    from streamworker.resilience.gate import Gate
    from streamworker.scheduling.lane import LaneSlice
    from streamworker.scheduling.scheduler import Scheduler
    from streamworker.stages import HandlerStages, Stages

# Records of a partition that may wait for a dependency, however many partitions there are: below that a pause, which
# throws the client's prefetch away, costs more than they do.
_LEAST_WAITING = 100


class Gatekeeper:
    """Between the schedulers and the threads; `breakers` by the name of the dependency."""

    def __init__(self, stages: Stages, partitions: Partitions, breakers: Mapping[str, CircuitBreaker]) -> None:
        self.breakers = breakers
        self._stages = stages
        self._partitions = partitions
        self._listener = stages.listener
        self._max_inflight = stages.config.flow.max_inflight
        declared = [one.declared for one in stages.handlers]
        self._limited = any(one.rate is not None or one.retry_budget is not None for one in declared)
        self.of_calls_only = frozenset(stages.rooms) - {one.breaker.name for one in declared if one.breaker}

    def take(self, handler: HandlerStages, now_s: float) -> LaneSlice | None:
        """The next slice of a handler that may be handed over."""
        gate, scheduler, pace = handler.gate, handler.scheduler, handler.pace
        if handler.adaptive is not None:
            handler.adaptive.saturated = scheduler.saturated
        most = None if pace is None else pace.most(now_s, needed=scheduler.ready)
        if most == 0:
            return None
        slice_ = scheduler.take(now_s, most) if gate is None else self._take_through(gate, scheduler, now_s, most)
        if slice_ is not None and pace is not None:
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

    @staticmethod
    def next_due_s(handler: HandlerStages) -> float | None:
        """When something of a handler can be handed over that waits for its time; None without."""
        due_s = handler.scheduler.next_due_s()
        if handler.pace is not None and handler.pace.ready_at_s is not None:
            due_s = handler.pace.ready_at_s
        return due_s if handler.gate is None else handler.gate.next_due_s(due_s)

    def next_trial_s(self) -> float | None:
        """When a record that waits for a dependency may go; None without."""
        dues = [due_s for room in self._stages.rooms.values() if (due_s := room.next_due_s()) is not None]
        return min(dues, default=None)

    @staticmethod
    def throttled(handler: HandlerStages) -> bool:
        """Whether records of a handler wait for its rate."""
        return handler.pace is not None and handler.pace.ready_at_s is not None

    def limits(self) -> Mapping[str, int]:
        """How many calls at once are made of handlers that adapt, by name."""
        return {one.name: one.adaptive.calls for one in self._stages.handlers if one.adaptive is not None}

    @staticmethod
    def shut(handler: HandlerStages) -> bool:
        """Whether records of a handler cannot be finished now, because something that it needs is away."""
        return handler.gate is not None and handler.gate.shut

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
        for handler in self._stages.handlers:
            if handler.gate is None or handler.gate.at_rest:
                continue
            owned = [one for one in self._partitions if one.handler is handler]
            admitted = handler.gate.admitted(len(owned), fresh=handler.scheduler.fresh)
            for place, partition in enumerate(owned):
                self._partitions.hold_if(partition, PauseReason.BREAKER, needed=partition.crowded or place >= admitted)

    def _report_waits(self) -> None:
        for handler in self._stages.handlers:
            for pace in (handler.pace, handler.key_pace):
                waited_s = 0.0 if pace is None else pace.waited_s()
                if waited_s:
                    self._listener.throttled(handler.name, waited_s)
            postponed = 0 if handler.allowance is None else handler.allowance.postponed()
            if postponed:
                self._listener.retries_postponed(handler.name, postponed)

    def _mark_crowded(self) -> None:
        """Pause the partitions of which too many records wait for a dependency, until half of those have gone."""
        most = max(_LEAST_WAITING, self._max_inflight // max(len(self._partitions), 1))
        for partition in self._partitions:
            waiting, before = partition.lanes.waiting, partition.crowded
            partition.crowded = waiting >= (most // 2 if before else most)
            gate = partition.handler.gate
            if partition.crowded is not before and (gate is None or gate.at_rest):  # else its gate says, with this
                self._partitions.hold_if(partition, PauseReason.BREAKER, needed=partition.crowded)


def _smaller(one: int | None, other: int | None) -> int | None:
    """The smaller of two bounds, None being none."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
