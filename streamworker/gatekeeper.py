"""Keeps handlers from what their breakers forbid: hands nothing over, and pauses the partitions. Loop thread only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamworker.events import Listener
    from streamworker.partitions import Partitions, Stages
    from streamworker.resilience.breaker import CircuitBreaker
    from streamworker.scheduling.lanes import LaneSlice


class Gatekeeper:
    """Between the schedulers and the threads; `breakers` by the name of the dependency."""

    def __init__(
        self, breakers: Mapping[str, CircuitBreaker], stages: Stages, partitions: Partitions, listener: Listener
    ) -> None:
        self.breakers = breakers
        self._stages = stages
        self._partitions = partitions
        self._listener = listener

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

    def shut(self, handler: int) -> bool:
        """Whether records of a handler cannot be finished now, because something that it needs is away."""
        gate = self._stages.gates[handler]
        return gate is not None and gate.shut

    def heed(self) -> None:
        """Report what has changed, and fetch only of the partitions that are let in."""
        for breaker in self.breakers.values():
            for change in breaker.changes():
                self._listener.breaker_changed(change.breaker, change.before.value, change.after.value, change.reason)
        for handler, gate in enumerate(self._stages.gates):
            if gate is None or gate.at_rest:
                continue
            owned = [one for one in self._partitions if one.handler == handler]
            admitted = gate.admitted(len(owned), fresh=self._stages.schedulers[handler].fresh)
            for partition in owned[:admitted]:
                self._partitions.release(partition, PauseReason.BREAKER)
            for partition in owned[admitted:]:
                self._partitions.hold(partition, PauseReason.BREAKER)
