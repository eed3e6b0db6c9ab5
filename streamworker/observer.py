"""Looks at the worker from the loop thread and hands up what others may see.

Twice a second it makes a status for `/status`, the probes and the metrics, tells the side thread
which partitions to ask about, and looks for what stands still and for memory that grows too large. A stalled client is
made anew once.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from streamworker.exit_code import ExitCode
from streamworker.observability.lag import lag_records
from streamworker.observability.memory import MemoryState
from streamworker.observability.stall import StallKind, Stillness, stalls
from streamworker.observability.status import (
    LifeState,
    PartitionStatus,
    PauseStatus,
    QuarantineStatus,
    RunningSlice,
    WorkerStatus,
)
from streamworker.observability.watchdog import report
from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.config import Config
    from streamworker.declaration import Declaration
    from streamworker.events import Listener
    from streamworker.observability.lag import Ends, LagWatch
    from streamworker.observability.memory import MemoryWatch
    from streamworker.observability.stall import Stall
    from streamworker.observability.status import Board
    from streamworker.observability.watchdog import Watchdog
    from streamworker.partition import Partition
    from streamworker.record import TopicPartition
    from streamworker.scheduling.lane import LaneSlice
    from streamworker.work import Ownership
    from streamworker.worker import Worker

_LOOK_EVERY_S = 0.5


def first_status(declarations: Sequence[Declaration], config: Config, clock: Clock) -> WorkerStatus:
    """The status before the worker has done anything."""
    now_s = clock.monotonic_s()
    return WorkerStatus(
        state=LifeState.STARTING,
        group=config.kafka.group,
        handlers=tuple(one.name for one in declarations),
        protocol=config.kafka.group_protocol.value,
        started_s=now_s,
        now_s=now_s,
    )


class Observer:
    """Called by the worker once a step."""

    def __init__(
        self,
        *,
        board: Board,
        lag: LagWatch,
        watchdog: Watchdog,
        clock: Clock,
        listener: Listener,
        memory: MemoryWatch | None = None,
        note: Callable[[str], None] = report,
    ) -> None:
        self._board = board
        self._lag = lag
        self._watchdog = watchdog
        self._clock = clock
        self._listener = listener
        self._memory = memory
        self._memory_high_since_s: float | None = None
        self._positions_when_high: Mapping[TopicPartition, int] = {}
        self._pausing_helps = True
        self._note = note
        self._started_s = clock.monotonic_s()
        self._next_look_s = self._started_s
        self._stillness = Stillness()
        self._calls: dict[LaneSlice, tuple[int, float]] = {}  # what was done at the last look, and since when
        self._said: set[tuple[StallKind, str]] = set()
        self._join_state: tuple[str, float] = ("", self._started_s)

    def __call__(self, worker: Worker) -> None:
        """Beat, and look if it is time."""
        self._watchdog.beat()
        now_s = self._clock.monotonic_s()
        if now_s < self._next_look_s and worker.state is not LifeState.CLOSED:
            return
        self._next_look_s = now_s + _LOOK_EVERY_S
        self._lag.watch([one.key for one in worker.partitions])
        if self._memory is not None and worker.state is LifeState.RUNNING:
            self._heed(worker, self._memory, now_s)
        status = self._status(worker, now_s)
        self._board.publish(status)
        self._act_on_stalls(worker, status, now_s)

    def _status(self, worker: Worker, now_s: float) -> WorkerStatus:
        membership = worker.source.membership()
        state = membership.state if membership else ""
        if state != self._join_state[0]:
            self._join_state = (state, now_s)
        running = self._running(worker, now_s)
        breakers = {name: breaker.state.value for name, breaker in worker.gatekeeper.breakers.items()}
        partitions = self._stillness.mark(self._partitions(worker), running, now_s)
        return WorkerStatus(
            state=worker.state,
            group=worker.config.kafka.group,
            handlers=tuple(one.name for one in worker.declarations),
            protocol=worker.config.kafka.group_protocol.value,
            started_s=self._started_s,
            now_s=now_s,
            last_poll_s=now_s,
            joined=membership is not None and membership.joined,
            join_state=state.partition("/")[2],
            join_state_since_s=self._join_state[1],
            partitions=partitions,
            inflight_records=worker.backpressure.records,
            inflight_bytes=worker.backpressure.size_bytes,
            running=running,
            last_commit_s=worker.committer.last_success_s,
            breakers=breakers,
            call_breakers=worker.gatekeeper.of_calls_only,
            limits=worker.gatekeeper.limits(),
            event_loops=worker.blocked(),
            reads=worker.degradation.status(),
            busy=worker.occupancy(),
            client=worker.source.statistics(),
            degraded=(
                *(f"breaker {name}: {state}" for name, state in breakers.items() if state != "closed"),
                *(["membership of the group is not proven"] if worker.lease.expired else []),
                *([str(self._memory)] if self._memory_high_since_s is not None else []),
            ),
            commits_refused_since_s=worker.committer.refused_since_s,
            fatal=worker.stopping if worker.exit_code == ExitCode.FATAL else None,
            exit_code=worker.exit_code,
        )

    def _partitions(self, worker: Worker) -> list[PartitionStatus]:
        ends, now_ms = self._lag.ends(), self._clock.wall_ms()
        positions = worker.source.positions()
        behind_retries: Counter[Ownership] = Counter()
        for slice_ in worker.running:
            behind_retries[slice_.ownership] += slice_.held_records
        return [
            PartitionStatus(
                topic=one.key.topic,
                partition=one.key.partition,
                epoch=one.ownership.epoch,
                committed_offset=one.tracker.committed if one.positioned else None,
                next_offset=one.tracker.committable if one.positioned else None,
                position=max(positions.get(one.key, 0), one.tracker.next_offset),
                buffered_records=worker.backpressure.buffered(one.key),
                held_records=one.lanes.held_records + behind_retries[one.ownership],
                parked_keys=len(one.parked),
                throttled=worker.gatekeeper.throttled(one.handler),
                awaits_commit=worker.partitions.awaits_commit(one),
                pauses=_pauses(worker, one),
                stopped=one.stop,
                head=worker.heads.of(one),
                quarantine=_quarantine(one),
                lag_records=lag_records(ends.offsets.get(one.key), one.tracker.committable) if one.positioned else None,
                lag_s=_lag_s(worker, one, ends, positions.get(one.key, 0), now_ms) if one.positioned else None,
            )
            for one in worker.partitions
        ]

    def _running(self, worker: Worker, now_s: float) -> tuple[RunningSlice, ...]:
        # The pool thread moves `done` and `started_s` on meanwhile: each is read once.
        in_hand = [*worker.running, *worker.overdue.written_off]
        begun = [(one, one.started_s, min(one.done, len(one.messages) - 1)) for one in in_hand]
        calls = [
            (one, done, self._since(one, done, began_s, now_s)) for one, began_s, done in begun if began_s is not None
        ]
        self._calls = {one: (done, since_s) for one, done, since_s in calls}
        return tuple(
            RunningSlice(
                handler=worker.declarations[slice_.handler_number].name,
                topic=slice_.ownership.partition.topic,
                partition=slice_.ownership.partition.partition,
                offset=slice_.messages[done].offset(),
                seconds=now_s - since_s,
            )
            for slice_, done, since_s in calls
        )

    def _since(self, slice_: LaneSlice, done: int, began_s: float, now_s: float) -> float:
        """Since when the call in progress runs, to within one look."""
        if slice_ not in self._calls:
            return now_s if done else began_s
        seen, since_s = self._calls[slice_]
        return since_s if seen == done else now_s

    def _heed(self, worker: Worker, memory: MemoryWatch, now_s: float) -> None:
        """Fetch nothing while the process has too much memory, and end it if that does not help.

        Where nothing was delivered since memory was high before, the client has begun anew with a batch that takes so
        much, and would for ever: then it is let through.
        """
        state, since_s = memory.look(now_s), self._memory_high_since_s
        self._memory_high_since_s = memory.high_since_s
        if state is MemoryState.CALM:
            if since_s is not None:
                for one in worker.partitions:
                    worker.partitions.release(one, PauseReason.MEMORY)
                self._listener.memory_settled(memory.resident_bytes, now_s - since_s)
            return
        if since_s is None:
            positions = {one.key: one.tracker.next_offset for one in worker.partitions}
            self._pausing_helps = positions != self._positions_when_high
            self._positions_when_high = positions
        if self._pausing_helps:
            for one in worker.partitions:  # also those that have come meanwhile
                worker.partitions.hold(one, PauseReason.MEMORY)
        if since_s is None:
            self._listener.memory_high(memory.resident_bytes, memory.limit_bytes)
        if state is MemoryState.TOO_LONG:
            worker.fail(str(memory), ExitCode.MEMORY)

    def _act_on_stalls(self, worker: Worker, status: WorkerStatus, now_s: float) -> None:
        lifecycle = worker.config.lifecycle
        found = stalls(
            status,
            now_s,
            stall_timeout_s=lifecycle.stall_timeout_s,
            handler_timeout_s=lifecycle.handler_timeout_s,
        )
        fresh = [stall for stall in found if (stall.kind, stall.subject) not in self._said]
        self._said = {(stall.kind, stall.subject) for stall in found}
        if fresh:
            self._note("; ".join(map(str, fresh)))
        for stall in fresh:
            self._listener.stalled(stall.kind.value, str(stall))
        self._end_or_reopen(worker, fresh)

    def _end_or_reopen(self, worker: Worker, fresh: Sequence[Stall]) -> None:
        kinds = {stall.kind: stall for stall in fresh}
        if StallKind.HANDLER_TIMEOUT in kinds:
            worker.fail(str(kinds[StallKind.HANDLER_TIMEOUT]), ExitCode.STALL)
        for kind in (StallKind.CLIENT, StallKind.LOOP):
            if kind in kinds:
                worker.reopen(str(kinds[kind]), otherwise=ExitCode.STALL)
                return


def _quarantine(partition: Partition) -> QuarantineStatus | None:
    suspects = partition.suspects
    if suspects is None:
        return None
    group = suspects.group
    if group is None:
        return QuarantineStatus(suspects.deaths, None, None)
    return QuarantineStatus(group.deaths, group.first, group.last)


def _lag_s(worker: Worker, partition: Partition, ends: Ends, position: int, now_ms: int) -> float | None:
    """Age of the lowest record of a partition that is not done; 0 if all is done, None if nobody knows.

    Markers of transactions at the end of the log are no records: the client's `position` is past them, and no more
    comes.
    """
    tracker, ages = partition.tracker, partition.ages
    lowest = tracker.committable
    if lowest < tracker.next_offset:
        return ages.open_s(lowest, now_ms)
    end = ends.offsets.get(partition.key)
    if end is None:
        return None
    reasons = worker.ledger.reasons(partition.key)
    quiet = ages.quiet(tracker.next_offset, now_ms, paused=bool(reasons))
    if end <= lowest or (end <= position and quiet) or PauseReason.RETRY_NOT_DUE in reasons:
        ages.caught_up(ends.asked_ms)
        return 0.0
    return ages.next_s(now_ms)


def _pauses(worker: Worker, partition: Partition) -> tuple[PauseStatus, ...]:
    reasons = worker.ledger.reasons(partition.key)
    return tuple(PauseStatus(reason.value, since_s) for reason, since_s in reasons.items())
