"""The stages that records go through: those that all partitions share, and those of one handler.

The worker makes them, and its neighbours in this folder move records between them. Loop thread only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from streamworker.options import Execution
from streamworker.resilience.gate import Gate
from streamworker.resilience.limits import AdaptiveLimit, KeyPace, Pace, RetryAllowance
from streamworker.resilience.retry import Backoff
from streamworker.scheduling.occupancy import Occupancy
from streamworker.scheduling.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.config import Config, FlowConfig
    from streamworker.declaration import Declaration
    from streamworker.dlq.routes import Routes
    from streamworker.dlq.writer import DeadLetterWriter
    from streamworker.events import Listener
    from streamworker.interfaces import Source
    from streamworker.offsets.committer import Committer
    from streamworker.record import Message, TopicPartition
    from streamworker.resilience.breaker import CircuitBreaker
    from streamworker.scheduling.backpressure import Backpressure
    from streamworker.scheduling.lane import LaneSlice
    from streamworker.source.assignment import Assignment
    from streamworker.source.flow import PauseLedger
    from streamworker.transactions.pending import PendingOutputs
    from streamworker.waiting import WaitingRoom
    from streamworker.work import Slice

    Sift = Callable[[TopicPartition, Sequence[Message]], Sequence[Message]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HandlerStages:
    """What the records of one handler go through; None for what it does not declare."""

    number: int  # among the worker's handlers
    declared: Declaration
    scheduler: Scheduler
    backoff: Backoff
    gate: Gate | None  # of its own breaker
    pace: Pace | None  # for all its records together
    key_pace: KeyPace | None
    adaptive: AdaptiveLimit | None
    allowance: RetryAllowance | None  # of its budget for retries
    occupancy: Occupancy

    @property
    def name(self) -> str:
        """The handler's."""
        return self.declared.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """What all partitions share, and what is told to every neighbour of the worker."""

    config: Config
    clock: Clock
    listener: Listener
    source: Callable[[], Source]  # another one after the consumer was made anew
    handlers: Sequence[HandlerStages]  # by their numbers
    assignment: Assignment
    ledger: PauseLedger
    backpressure: Backpressure
    rooms: Mapping[str, WaitingRoom]  # by the name of what single calls need
    running: set[LaneSlice]  # with handlers
    committer: Committer
    writer: DeadLetterWriter
    outputs: PendingOutputs | None  # for transactions; None where nothing is delivered by them
    routes: Routes

    def of(self, slice_: Slice) -> HandlerStages:
        """Those of the handler that a slice is for."""
        return self.handlers[slice_.handler_number]


def handler_stages(
    declarations: Sequence[Declaration],
    flow: FlowConfig,
    breakers: Mapping[str, CircuitBreaker],
    clock: Clock,
    *,
    limit: Callable[[TopicPartition], int],
    attempts: Callable[[TopicPartition], Mapping[int, int]],
    sift: Sift,
) -> Sequence[HandlerStages]:
    """Make the stages of each handler. `limit`, `attempts` and `sift` are as `Scheduler` describes them."""
    now_s = clock.monotonic_s()
    made: list[HandlerStages] = []
    for number, declared in enumerate(declarations):
        key_pace = KeyPace(declared.rate) if declared.rate and declared.rate.per_key else None
        allowance = RetryAllowance(declared.retry_budget, now_s) if declared.retry_budget else None
        scheduler = Scheduler(
            handler_number=number,
            ordering=declared.ordering,
            concurrency=declared.concurrency,
            lanes=declared.lanes,
            batch=declared.batch,
            flow=_flow(declared, flow),
            limit=limit,
            attempts=attempts,
            watched=declared.timeout_s is not None,
            retry_wait_s=None if allowance is None else allowance.wait_s,
            key_pace=key_pace,
            sift=sift if _sifts(declared) else None,
        )
        made.append(
            HandlerStages(
                number=number,
                declared=declared,
                scheduler=scheduler,
                backoff=Backoff(declared.retry),
                gate=_gate(declared, breakers, clock),
                pace=Pace(declared.rate, now_s) if declared.rate and not declared.rate.per_key else None,
                key_pace=key_pace,
                adaptive=AdaptiveLimit(declared.adaptive, declared.concurrency) if declared.adaptive else None,
                allowance=allowance,
                occupancy=Occupancy(now_s),
            )
        )
    return made


def _gate(declared: Declaration, breakers: Mapping[str, CircuitBreaker], clock: Clock) -> Gate | None:
    breaker = declared.breaker
    return None if breaker is None else Gate(breakers[breaker.name], clock=clock, is_batch=declared.batch is not None)


def _flow(declared: Declaration, flow: FlowConfig) -> FlowConfig:
    """With the size of slices that suits where the handler's calls are made, and what they bring about."""
    if declared.sink is not None:
        return replace(flow, slice_s=flow.sink_slice_s)
    return replace(flow, slice_s=flow.process_slice_s) if declared.execution is Execution.PROCESS else flow


def _sifts(declared: Declaration) -> bool:
    """Whether records can end that no handler gets to see."""
    follows = declared.dead_letter is not None and declared.dead_letter.keys_topic is not None
    return follows or declared.max_age_s is not None
