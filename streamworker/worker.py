"""READ FIRST. What happens to a record, in order.

    fetch ──► admit ──► dispatch ──► (a pool thread decodes and handles) ──► settle ──► commit

`Worker.step` moves records one stage on. The rooms of this package do not know each other; the worker, and its
neighbours in this folder, hand values from one to the next. Everything here runs on the loop thread, which owns the
consumer, the assignment, the lanes, the trackers, the committer and the dead-letter producer. Of user code there run on
it, and must not block: listeners, predicates, wait strategies, and handlers that ask to.

What becomes of a record is decided in `settlement.py`, and it becomes done in one place, `Endings.complete`: handled,
expired, or its letter acknowledged (with a parked key: its note read back). What comes and goes with partitions is in
`rebalance.py`.
"""

from __future__ import annotations

import os
import random
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.addressing import Addressing
from streamworker.bounds import at_least
from streamworker.closing import Closing
from streamworker.delays import Delays
from streamworker.dlq.routes import Routes
from streamworker.dlq.writer import DeadLetterWriter
from streamworker.endings import Endings
from streamworker.errors import Misuse
from streamworker.exit_code import ExitCode
from streamworker.gatekeeper import Gatekeeper
from streamworker.heads import Heads
from streamworker.intake import Intake
from streamworker.interfaces import FaultKind
from streamworker.joining import Joining
from streamworker.lease import LeaseKeeper
from streamworker.letters import Letters
from streamworker.observability.status import LifeState
from streamworker.offsets.committer import Committer
from streamworker.overdue import Overdue
from streamworker.parking import Parking
from streamworker.partitions import Partitions
from streamworker.places import Places
from streamworker.quarantine import Quarantine
from streamworker.reason import Reason
from streamworker.rebalance import Rebalancing
from streamworker.scheduling.backpressure import Backpressure
from streamworker.settlement import Settlement
from streamworker.source.assignment import Assignment
from streamworker.source.flow import PauseLedger, PauseReason
from streamworker.stages import Stages, handler_stages
from streamworker.transactions.pending import PendingOutputs
from streamworker.transactions.source import TransactionalOutbox, TransactionalSource, in_transactions
from streamworker.unread import Unread
from streamworker.untold import Untold
from streamworker.waiting import rooms_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from contextlib import AbstractContextManager

    from streamworker.clock import Clock
    from streamworker.config import Config
    from streamworker.declaration import Declaration
    from streamworker.dlq.replays import ReplayKey
    from streamworker.events import Listener
    from streamworker.interfaces import CacheTruth, CommitAnswer, Executor, Fault, KeyLog, Log, Outbox, Source
    from streamworker.partition import Partition
    from streamworker.record import TopicPartition
    from streamworker.resilience.breaker import CircuitBreaker
    from streamworker.resilience.fallback import Degradation
    from streamworker.scheduling.lane import LaneSlice
    from streamworker.transactions.transactor import Transactor

# How long the loop blocks, in its one place per step: when the buffers are full, when only outcomes are
# waited for, when work waits for a commit, whose answer does not end a poll, when there is nothing to do.
_FULL_WAIT_S, _OUTCOME_WAIT_S, _ANSWER_WAIT_S, _IDLE_WAIT_S = 0.02, 0.001, 0.005, 0.1
# How often a full worker polls, for the sake of rebalances: each time a record may come with it.
_FULL_POLL_S = 0.1
# For the handlers' close(), within the close timeout.
_EXECUTOR_STOP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Where a bounded run ends; without bounds it does not. Raises ConfigurationError for none that can be."""

    until_end: bool = False
    max_records: int | None = None

    def __post_init__(self) -> None:
        if self.max_records is not None:
            at_least("max_records", self.max_records, 1)


UNBOUNDED = Bounds()


def _nobody(_worker: Worker) -> None:
    """Observe nothing."""


def _no_deadline(_name: str, _seconds: float, _exit_code: ExitCode) -> AbstractContextManager[None]:
    """Watch nothing."""
    return nullcontext()


class Worker:
    """A member of a consumer group that runs handlers.

    Make it and call `run` on the same thread; only `stop` may be called from elsewhere.
    """

    def __init__(
        self,
        *,
        declarations: Sequence[Declaration],
        config: Config,
        source: Callable[[], Source],
        executor: Executor[LaneSlice],
        outbox: Outbox,
        log: Log,
        key_log: KeyLog | None,
        clock: Clock,
        listener: Listener,
        breakers: Mapping[str, CircuitBreaker],
        degradation: Degradation,
        transactor: Transactor | None = None,
        caches: CacheTruth | None = None,
        replay_key: ReplayKey | None = None,
        bounds: Bounds = UNBOUNDED,
        letter_max_bytes: int = 1_000_000,
        observe: Callable[[Worker], None] = _nobody,
        deadline: Callable[[str, float, ExitCode], AbstractContextManager[None]] = _no_deadline,
    ) -> None:
        self.declarations = declarations
        self.routes = Routes(declarations, config.kafka.group)
        self.degradation = degradation
        self.config = config
        self.state = LifeState.STARTING
        self.running: set[LaneSlice] = set()
        self._clock = clock
        self._listener = listener
        self.blocked = executor.blocked
        self.outputs = None if transactor is None else PendingOutputs()
        self._make_source = source
        if transactor is not None and self.outputs is not None:
            self._make_source = self._transactional(source, transactor, self.outputs)
            outbox = TransactionalOutbox(outbox, self.outputs)
        self._executor = executor
        self._bounds = bounds
        self._observe = observe
        self._deadline = deadline
        self._pid = os.getpid()
        self._absent = self._denied = frozenset[str]()
        self._stop_reason: str | None = None
        self._exit_code = ExitCode.OK
        self._poll_at_s = 0.0
        self._reopened = False

        self.assignment = Assignment()
        self.ledger = PauseLedger()
        self.backpressure = Backpressure(config.flow)
        self.source = self._make_source()
        self.committer = Committer(
            send=lambda marks: self.source.commit(marks),
            send_now=lambda marks: self.source.commit_now(marks),
            config=config.commit if transactor is None else in_transactions(config),
            clock=clock,
            listener=listener,
        )
        self.writer = DeadLetterWriter(
            outbox, config.dead_letters, clock, lambda *refusal: self.letters.refused(*refusal)
        )
        self._handlers = handler_stages(
            declarations,
            config.flow,
            breakers,
            clock,
            limit=lambda key: self.partitions.limit(key),
            attempts=lambda key: self.partitions.attempts(key),
            sift=lambda key, messages: self.settlement.sift(key, messages),
        )
        stages = Stages(
            config=config,
            clock=clock,
            listener=listener,
            source=lambda: self.source,
            handlers=self._handlers,
            assignment=self.assignment,
            ledger=self.ledger,
            backpressure=self.backpressure,
            rooms=rooms_of(declarations, breakers, clock),
            running=self.running,
            committer=self.committer,
            writer=self.writer,
            outputs=self.outputs,
            routes=self.routes,
        )
        self.partitions = Partitions(stages, identity=f"{random.getrandbits(32):08x}")
        self.gatekeeper = Gatekeeper(stages, self.partitions, breakers)
        self.lease = LeaseKeeper(stages, self.partitions)
        self._joining = Joining(stages, self.partitions)
        self.delays = Delays(stages, self.partitions)
        self.parking = Parking(stages, self.partitions, key_log=key_log, log=log)
        self._endings = endings = Endings(stages)
        self.letters = Letters(stages, self.partitions, self.parking, endings, max_bytes=letter_max_bytes)
        self.settlement = Settlement(stages, self.partitions, endings, self.letters, fail=self.fail)
        self.quarantine = Quarantine(stages, self.partitions, condemn=self.settlement.condemn)
        self._intake = Intake(
            stages,
            self.partitions,
            delays=self.delays,
            addressing=Addressing(stages, endings, replay_key),
            quarantine=self.quarantine,
            max_records=bounds.max_records,
        )
        self.unread = Unread(stages, self.partitions)
        self._places = Places(stages, self.partitions)
        self._untold = None if caches is None else Untold(stages, self.partitions, caches)
        self.heads = Heads(stages, self.partitions, divert=self.letters.divert)
        self.overdue = Overdue(stages, self.partitions, replace=executor.replace, settle=self.settlement.settle)
        self._closing = Closing(stages, self.partitions, self.gatekeeper, take_handled=self.settlement.take_handled)
        self._rebalancing = Rebalancing(
            stages,
            self.partitions,
            self._closing,
            quarantine=self.quarantine,
            parking=self.parking,
            unread=self.unread,
            log=log,
            caches=caches,
            step=self._step_without_fetching,
        )

    def _transactional(
        self, source: Callable[[], Source], transactor: Transactor, outputs: PendingOutputs
    ) -> Callable[[], Source]:
        """The same, with commits that are transactions."""
        return lambda: TransactionalSource(
            source(),
            transactor,
            outputs,
            clock=self._clock,
            patience_s=self.config.commit.timeout_s,
            refused=self._refused,
        )

    def _refused(self, key: TopicPartition, offset: int, topic: str, error: str) -> None:
        """Stop the partition of an output that nobody takes; it is tried again."""
        partition = self.partitions.get(key)
        if partition is not None:
            detail = f"offset {offset}: {topic}: {error}"
            self.partitions.stop(partition, Reason.OUTPUT_REFUSED, detail, mends_itself=True, retry=True)

    def run(self) -> int:
        """Work until told to stop, then drain; returns the exit code."""
        self.begin()
        try:
            while self.stopping is None:
                self.step()
            return self.drain()
        except BaseException:
            # A defect of ours, or no memory for what was fetched, and the process will end by it: others should take
            # over at once, and with care. Nothing is committed any more that would say that all is in order.
            self._rebalancing.lost([one.key for one in self.partitions])
            with self._deadline("close", self.config.lifecycle.close_timeout_s, ExitCode.CLOSE_TIMED_OUT):
                self.source.close()
            raise

    def begin(self) -> None:
        """Open the handlers and join the group, once; raises what a handler's `open` raised."""
        if os.getpid() != self._pid:
            raise Misuse("the process was forked after the worker was made; make it in the child")
        if self.state is not LifeState.STARTING:
            raise Misuse("a worker runs once; make another")
        self._executor.start()
        self._listener.started([one.name for one in self.declarations], self.config.kafka.group)
        self._subscribe()
        self.state = LifeState.RUNNING

    def without(self, *, absent: Collection[str], denied: Collection[str]) -> None:
        """Do without these replay topics, before `run`; somebody has said so.

        Those that are `absent` are read once they come. Those that are `denied` are not subscribed to at all: with them
        among its topics a broker may refuse the whole membership.
        """
        self._absent, self._denied = frozenset(absent), frozenset(denied)

    @property
    def exit_code(self) -> int | None:
        """How the process will end; None while it runs."""
        return None if self._stop_reason is None else self._exit_code

    @property
    def stopping(self) -> str | None:
        """Why the worker is to stop; None while it is not."""
        return self._stop_reason

    def stop(self, reason: str) -> None:
        """Drain and end; only sets a flag, so any thread and any signal handler may call it."""
        self._stop_reason = self._stop_reason or reason

    def fail(self, reason: str, exit_code: ExitCode) -> None:
        """Drain and end with `exit_code`. Loop thread only."""
        if self._exit_code is ExitCode.OK:
            self._exit_code = exit_code
        self.assignment.close(list(self.assignment))
        self.stop(reason)

    def occupancy(self) -> Mapping[str, float]:
        """The share of each handler's calls that was in progress of late, from 0 to 1. Loop thread only."""
        return {one.name: one.occupancy.ratio() for one in self._handlers}

    def switch(self, degradation: Mapping[str, str]) -> None:
        """Put in force what stands in for reads. Loop thread only.

        Raises ConfigurationError and changes nothing if no handler declares it.
        """
        self.degradation.switch(degradation)
        self.gatekeeper.let_all_out()

    def step(self) -> None:
        """Move records one stage on.

        They are handed over last: the fetch that follows lets go of the interpreter's lock, for which the thread that
        is woken would wait otherwise.
        """
        self._fetch()
        self.settle_outcomes(0.0)
        self._mend()
        self.gatekeeper.heed()
        if self.quarantine.any:
            self.quarantine.step()
        if self.unread.any:
            self.unread.step()
        if self.partitions.troubled:
            self._rebalancing.ask_again(self._clock.monotonic_s())
        self.committer.step()
        self._regulate()
        if self.delays.any:
            self.delays.step()
        self.heads.look()
        self._joining.step()
        if self._joining.tries_again:
            self._make_consumer_anew(ExitCode.FENCED)
        self._observe(self)
        self._dispatch()
        self._heed_bounds()

    def _fetch(self) -> None:
        room = self._intake.room()
        if room == 0:
            self.settle_outcomes(_FULL_WAIT_S)
            if self._clock.monotonic_s() < self._poll_at_s:
                return
            self._poll_at_s = self._clock.monotonic_s() + _FULL_POLL_S
        busy = bool(self.running) or self.writer.under_way
        timeout_s = 0.0 if room == 0 or busy else self._idle_s()
        self.assignment.begin_fetch()
        fetched = self.source.fetch(room, timeout_s)
        for key, messages in fetched.runs:
            self._intake.admit(key, messages)
        for fault in fetched.faults:
            self._take_fault(fault)
        if fetched.commits:
            self._take_commit_answers(fetched.commits)
        if busy and room and not fetched.runs:
            self.settle_outcomes(_OUTCOME_WAIT_S)

    def _idle_s(self) -> float:
        """How long nothing will be due."""
        now_s = self._clock.monotonic_s()
        dues = [self.gatekeeper.next_due_s(handler) for handler in self._handlers]
        dues += [self.gatekeeper.next_trial_s(), self.writer.next_due_s(), self.committer.next_due_s()]
        longest_s = _ANSWER_WAIT_S if self.committer.awaited or self.parking.waits else _IDLE_WAIT_S
        return max(0.0, min([longest_s, *(due_s - now_s for due_s in dues if due_s is not None)]))

    def _take_fault(self, fault: Fault) -> None:
        partition = None if fault.partition is None else self.partitions.get(fault.partition)
        if fault.kind is FaultKind.END_OF_PARTITION:
            if partition is not None:
                partition.at_end = True
            return
        if fault.kind is FaultKind.UNKNOWN_TOPIC and fault.partition and fault.partition.topic in self._absent:
            return
        self._listener.fault(fault)
        match fault.kind:
            case FaultKind.FENCED:
                self.fail(fault.detail, ExitCode.FENCED)
            case FaultKind.UNRELEASED if not self._joining.refused():
                self.fail(fault.detail, ExitCode.FENCED)
            case FaultKind.FATAL:
                self.reopen(fault.detail, otherwise=ExitCode.FATAL)
            case FaultKind.OUT_OF_RANGE | FaultKind.TRUNCATED if partition:
                self.partitions.stop(partition, Reason(fault.kind.value), fault.detail, mends_itself=False)
            case FaultKind.UNAUTHORIZED if partition:
                self.partitions.stop(partition, Reason(fault.kind.value), fault.detail, mends_itself=True, retry=True)
            case FaultKind.UNREADABLE if partition:
                self._intake.unreadable(partition, fault)

    def _take_commit_answers(self, answers: Sequence[CommitAnswer]) -> None:
        for key in self.committer.answered(answers):
            partition = self.partitions.get(key)
            if partition is not None:
                partition.handler.scheduler.wake(partition.key)

    def _dispatch(self) -> None:
        self.lease.step()
        now_s = self._clock.monotonic_s()
        if self.outputs is None or self.outputs.size_bytes <= self.config.transactions.max_bytes:
            self._hand_over(now_s)
        for handler in self._handlers:
            handler.occupancy.look(now_s, handler.scheduler.out, handler.scheduler.concurrency)

    def _hand_over(self, now_s: float) -> None:
        for handler in self._handlers:
            while (slice_ := self.gatekeeper.take(handler, now_s)) is not None:
                if handler.declared.sink is not None:
                    slice_.place = self._places.of(slice_)
                self.running.add(slice_)
                self._executor.submit(slice_)

    def settle_outcomes(self, timeout_s: float) -> None:
        """Settle what came back; wait up to `timeout_s` for the first."""
        self._endings.begin()
        for outcome in self._executor.collect(timeout_s):
            if outcome.slice.given_up and self.overdue.came_back(outcome.slice):
                continue
            self.running.discard(outcome.slice)
            self.settlement.settle(outcome)
        if not self.overdue.idle:
            self.overdue.look()
        for operation, fallback, reads in self.degradation.counted():
            self._listener.degraded(operation, fallback, reads)
        if self._untold is not None:
            self._untold.step()

    def _mend(self) -> None:
        """Let go on what can: partitions whose reason to stand still has passed."""
        self.writer.poll()
        self.parking.step()
        if not self.partitions.troubled:
            return
        now_s = self._clock.monotonic_s()
        for partition in list(self.partitions.troubled.values()):
            self.letters.write(partition)
            stop = partition.stop
            if stop is None:
                continue
            tried_again = partition.retry_at_s is not None and now_s >= partition.retry_at_s
            taken_again = stop.reason is Reason.DEAD_LETTER_REFUSED and not self.writer.refused(partition.key)
            if tried_again or taken_again:
                self.partitions.mend(partition)

    def _regulate(self) -> None:
        """Pause and resume what the reasons say."""
        pressure = self.backpressure.check(self._clock.monotonic_s())
        for key in pressure.pause:
            self.partitions.hold(self.partitions[key], PauseReason.BACKPRESSURE)
        for key in pressure.resume:
            self.partitions.release(self.partitions[key], PauseReason.BACKPRESSURE)
        change = self.ledger.changes()
        if change.pause:
            self.source.pause(change.pause)
        if change.resume:
            self.source.resume(change.resume)
        for key, records in pressure.shed.items():
            self._intake.shed(self.partitions[key], records)

    def _heed_bounds(self) -> None:
        """End a bounded run where nothing is left to be done."""
        fetched = self._intake.full
        if self._bounds.until_end and len(self.partitions):
            fetched = fetched or all(one.at_end or self._waits_for_a_person(one) for one in self.partitions)
        if not fetched or self.running or not self.writer.idle:
            return
        stuck = [one for one in self.partitions if self._waits_for_a_person(one)]
        if sum(self.backpressure.buffered(one.key) for one in stuck) < self.backpressure.records:
            return
        if stuck:
            self.fail("the bounds of the run are reached, but partitions stand still", ExitCode.PARTIAL)
        self.stop("the bounds of the run are reached")

    def _waits_for_a_person(self, partition: Partition) -> bool:
        stopped = partition.stop is not None and not partition.stop.mends_itself
        return stopped or PauseReason.PARKED_KEYS_FULL in self.ledger.reasons(partition.key)

    def reopen(self, why: str, *, otherwise: ExitCode) -> None:
        """Make the consumer anew, once in the life of a worker; the second time end with `otherwise`."""
        if self._reopened or self.state is LifeState.DRAINING:
            self.fail(why, otherwise)
            return
        self._reopened = True
        self._make_consumer_anew(ExitCode.CLOSE_TIMED_OUT)

    def _make_consumer_anew(self, overdue: ExitCode) -> None:
        """End with `overdue` if the client does not come back from closing."""
        self._rebalancing.lost([one.key for one in self.partitions])
        with self._deadline("close", self.config.lifecycle.close_timeout_s, overdue):
            self.source.close()
        self.source = self._make_source()
        self._subscribe()

    def _subscribe(self) -> None:
        self.lease.subscribing()
        self._joining.subscribing()
        topics = [topic for one in self.declarations for topic in one.topics]
        routes = [one.name for one in self.routes.all if one.name not in self._denied]
        self.source.subscribe([*topics, *routes], self._rebalancing)

    def _step_without_fetching(self, timeout_s: float) -> None:
        """Inside a rebalance: settle, write dead letters, keep the other partitions busy."""
        self.settle_outcomes(min(timeout_s, _FULL_WAIT_S))
        self._dispatch()
        self._mend()

    def drain(self) -> int:
        """Let what runs end, commit, leave the group; returns the exit code."""
        self.state = LifeState.DRAINING
        self._listener.draining(self._stop_reason or "asked to")
        self._rebalancing.draining = True
        self._closing.close([one.key for one in self.partitions])
        for one in self.partitions:
            self.partitions.hold(one, PauseReason.DRAINING)
        self._regulate()
        until_s = self._clock.monotonic_s() + self.config.lifecycle.drain_timeout_s
        self.partitions.end_by([one.key for one in self.partitions], until_s)
        while self._closing.in_hand([one.key for one in self.partitions]) and self._clock.monotonic_s() < until_s:
            self._regulate()
            self._serve(0.0)
            self._step_without_fetching(until_s - self._clock.monotonic_s())
            self._observe(self)
        abandoned = self._closing.left_over()
        keys = [one.key for one in self.partitions]
        self._closing.abandon(keys)
        self.partitions.give_back(keys)
        patience_s = self._clock.monotonic_s() + self.config.commit.timeout_s
        self._commit_last(min(patience_s, until_s))
        if self._rejoins and self.committer.would_repeat:  # no commit is taken before the whole group has joined
            self._commit_last(until_s)
        # The client may not come back from leaving when it was fenced.
        overdue = ExitCode.FENCED if self._exit_code is ExitCode.FENCED else ExitCode.CLOSE_TIMED_OUT
        with self._deadline("close", self.config.lifecycle.close_timeout_s, overdue):
            self._leave(keys, patience_s)
        if self._exit_code is ExitCode.OK and abandoned:
            self._exit_code = ExitCode.PARTIAL
        self.state = LifeState.CLOSED
        self._observe(self)
        self._listener.closed(self._exit_code, abandoned)
        return self._exit_code

    @property
    def _rejoins(self) -> bool:
        """Whether the group rejoins, as the coordinator or the client says."""
        membership = self.source.membership()
        return self.committer.rejoining or (membership is not None and not membership.joined)

    def _leave(self, keys: Sequence[TopicPartition], patience_s: float) -> None:
        self._commit_last(patience_s)
        self.partitions.end(keys)
        self._executor.stop(_EXECUTOR_STOP_S)
        self.source.close()

    def _commit_last(self, until_s: float) -> None:
        """Commit and wait for the answer, by polling: a synchronous commit has no end while the group rejoins.

        What a member that is fenced has done it cannot commit any more.
        """
        if self._exit_code is ExitCode.FENCED:
            return
        while self.committer.unsaved and self._clock.monotonic_s() < until_s:
            self.committer.step(at_once=True)
            self._serve(_FULL_WAIT_S)
            self._observe(self)

    def _serve(self, timeout_s: float) -> None:
        """Poll for the sake of rebalances and answers; nothing is admitted any more."""
        fetched = self.source.fetch(0, timeout_s)
        for fault in fetched.faults:
            self._take_fault(fault)
        self._take_commit_answers(fetched.commits)
