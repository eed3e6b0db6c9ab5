"""What becomes of each record of a slice that came back: handled, retried, given up, or its partition stands still.

Outcomes count only while the ownership lasts that the slice was handled under. Loop thread only.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, assert_never

from streamworker.dlq.envelope import Attempt
from streamworker.errors import ClaimBusy
from streamworker.exit_code import ExitCode
from streamworker.observability.redaction import described, error_text
from streamworker.options import OnExhausted
from streamworker.reason import Reason
from streamworker.record import Ending, TopicPartition, is_replayed, timestamp_ms_of
from streamworker.resilience.breaker import BreakerState
from streamworker.resilience.guard import blame
from streamworker.resilience.verdict import Verdict, VerdictKind, judge
from streamworker.scheduling.lane import Spared

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker.endings import Endings
    from streamworker.errors import WorkerKilled
    from streamworker.letters import Letters
    from streamworker.partition import Partition
    from streamworker.partitions import Partitions
    from streamworker.record import Message
    from streamworker.resilience.breaker import CircuitBreaker, Permit
    from streamworker.resilience.guard import Blame
    from streamworker.resilience.limits import AdaptiveLimit
    from streamworker.scheduling.lane import Held, LaneSlice
    from streamworker.scheduling.scheduler import Scheduler
    from streamworker.stages import Stages
    from streamworker.waiting import WaitingRoom
    from streamworker.work import Failure, SliceOutcome

# Who was refused because there are enough calls asks again, but not at once, even without a back-off.
_LEAST_WAIT_S = 0.01
_log = logging.getLogger(__name__)
_KILLER = Verdict(VerdictKind.DEAD_LETTER, Reason.KILLED_WORKER)
_BLOCKED_KILLER = Verdict(VerdictKind.BLOCK, Reason.KILLED_WORKER)


class Settlement:
    """Settles outcomes.

    `fail(why, exit_code)` stops the worker.
    """

    def __init__(
        self,
        stages: Stages,
        partitions: Partitions,
        endings: Endings,
        letters: Letters,
        *,
        fail: Callable[[str, ExitCode], None],
    ) -> None:
        self._stages = stages
        self._partitions = partitions
        self._endings = endings
        self._letters = letters
        self._clock = stages.clock
        self._listener = stages.listener
        self._fail = fail
        self._notes: set[str] = set()

    def settle(self, outcome: SliceOutcome[LaneSlice]) -> None:
        """Decide how each record of a slice ended."""
        slice_, failure = outcome.slice, outcome.failure
        handler = self._stages.of(slice_)
        scheduler, allowance, adaptive = handler.scheduler, handler.allowance, handler.adaptive
        if slice_.held is not None:
            for room in self._stages.rooms.values():
                room.came_back(slice_.held)
        if allowance is not None and _is_first(slice_):
            allowance.first_calls(self._calls(outcome), self._clock.monotonic_s())
        if adaptive is not None:
            self._adapt(adaptive, scheduler, outcome)
        permit = self._report_calls(outcome)
        if slice_.ownership.ended:
            scheduler.forget()
            self._listener.late_outcome(handler.name, slice_.ownership.partition, len(slice_.messages))
            return
        partition = self._of(slice_)
        scheduler.sizer.measured(slice_.done + (failure is not None), outcome.seconds)
        self.take_handled(partition, slice_, outcome.seconds)
        gone = {index for index, error in slice_.rejected if self._settle_rejected(partition, slice_, index, error)}
        left = _left(slice_, gone)
        slice_.rejected.clear()  # their tracebacks refer to the slice: its records would wait for the collector
        if failure is None and slice_.done < len(slice_.messages):
            scheduler.put_back(slice_, left)
        elif failure is None:
            scheduler.finish(slice_, left)
        elif failure.index is not None and failure.index > slice_.done:
            self._let_others_go_first(partition, slice_, failure.index, failure.error, left)
        else:
            self._settle_failure(partition, slice_, failure, left, permit)

    def _adapt(self, limit: AdaptiveLimit, scheduler: Scheduler, outcome: SliceOutcome[LaneSlice]) -> None:
        """Let the handler have more or fewer calls at once from here on."""
        failure = outcome.failure
        limit.ended(self._calls(outcome) - (failure is not None), None if failure is None else failure.error)
        scheduler.allow(limit.calls)

    def _calls(self, outcome: SliceOutcome[LaneSlice]) -> int:
        """Calls that a slice stands for."""
        done, failed = outcome.slice.done, outcome.failure is not None
        return int(done > 0 or failed) if self._stages.of(outcome.slice).declared.batch else done + failed

    def _report_calls(self, outcome: SliceOutcome[LaneSlice]) -> Permit | None:
        """Tell the handler's breaker what became of the calls that a slice stands for."""
        slice_, failure = outcome.slice, outcome.failure
        gate = self._stages.of(slice_).gate
        if gate is None:
            return None
        succeeded = slice_.done - len(slice_.rejected)
        if self._stages.of(slice_).declared.batch is not None:
            succeeded = int(failure is None and slice_.done > len(slice_.rejected))
        error = None if failure is None or self._blame(slice_, failure.error) is not None else failure.error
        permit = gate.came_back(slice_, succeeded, error, outcome.seconds)
        if permit.trial and succeeded and failure is None:
            gate.trial_succeeded(None if slice_.held is None else slice_.held.history)
        return permit

    def take_handled(self, partition: Partition, slice_: LaneSlice, seconds: float) -> None:
        """Settle what is handled of a slice; of one that still runs, what was handled so far."""
        settled, done = slice_.settled, slice_.done  # the pool thread may move it on meanwhile
        slice_.settled = done
        handled = [slice_.messages if done - settled == len(slice_.messages) else slice_.messages[settled:done]]
        if slice_.rejected:
            rejected = [index for index, _ in slice_.rejected if settled <= index < done]
            handled = _between(slice_.messages, [settled - 1, *rejected, done])
        if slice_.outputs and self._stages.outputs is not None:
            for index in range(settled, done):
                self._stages.outputs.add(partition.key, slice_.messages[index].offset(), slice_.outputs.get(index, ()))
        records = sum(map(len, handled))
        if records:
            partition.budget.handled(records)
            partition.recovered()
            self._endings.complete(partition, handled, Ending.HANDLED, seconds)

    def sift(self, key: TopicPartition, messages: Sequence[Message]) -> Sequence[Message]:
        """End those of `messages` that are not to be handed over, too old or of a parked key; returns the others."""
        partition = self._partitions[key]
        max_age_s = partition.handler.declared.max_age_s
        if max_age_s is not None:
            messages = self._expire(partition, messages, max_age_s)
        return self._letters.follow(partition, messages) if partition.parked else messages

    def _expire(self, partition: Partition, messages: Sequence[Message], max_age_s: float) -> Sequence[Message]:
        """By this machine's clock and the timestamps of the log.

        A record without one is never too old, nor is one that a person has sent again.
        """
        now_ms = self._clock.wall_ms()
        times_ms = [None if is_replayed(one) else timestamp_ms_of(one) for one in messages]
        ages_s = [0.0 if at_ms is None else (now_ms - at_ms) / 1000 for at_ms in times_ms]
        expired = [one for one, age_s in zip(messages, ages_s, strict=True) if age_s > max_age_s]
        if not expired:
            return messages
        self._endings.complete(partition, [expired], Ending.EXPIRED, 0.0)
        self._listener.expired(partition.key, expired[0].offset(), len(expired), max(ages_s))
        return [one for one, age_s in zip(messages, ages_s, strict=True) if age_s <= max_age_s]

    def _settle_rejected(self, partition: Partition, slice_: LaneSlice, index: int, error: BaseException) -> bool:
        """Settle a record that no other call would help; false if it stays, as its partition or the worker stops."""
        message = slice_.messages[index]
        attempts = slice_.attempt  # never tried again, whatever a rule says: the bytes stay the same
        verdict = self._judge(slice_, error, attempts=attempts, defers=False)
        partition.failed(message.offset(), Attempt.of(self._clock.wall_ms(), error))
        if verdict.kind in (VerdictKind.DEAD_LETTER, VerdictKind.SKIP):
            self._letters.dead_letter(partition, message, verdict, error, slice_.attempt)
            return True
        self._stand_still(partition, message, verdict, error, slice_.attempt)
        return False

    def _let_others_go_first(
        self, partition: Partition, slice_: LaneSlice, index: int, error: BaseException, left: Sequence[Message]
    ) -> None:
        """A call was written off, and what was called before it is not done: its rows were still to be written.

        None of that may fall behind it, so all goes again; the next slice ends before the record of that call, since
        that one has a call spent.
        """
        message, attempt = slice_.messages[index], slice_.attempt
        partition.failed(message.offset(), Attempt.of(self._clock.wall_ms(), error))
        self._spend(partition, [message], attempt)
        self._stages.of(slice_).scheduler.finish(slice_, left)
        self._endings.failed(partition, message, error, attempt, Ending.RETRIED)
        self._listener.ended(partition.handler.name, partition.key, Ending.RETRIED, 1, 0.0)

    def _settle_failure(
        self,
        partition: Partition,
        slice_: LaneSlice,
        failure: Failure,
        left: Sequence[Message],
        permit: Permit | None,
    ) -> None:
        scheduler, error, attempt = self._stages.of(slice_).scheduler, failure.error, slice_.attempt
        failed, rest = list(left), []
        if failure.index is not None:
            failed = [slice_.messages[failure.index]]
            rest = [message for message in left if message is not failed[0]]
        if not failed:
            scheduler.finish(slice_)
            self._fail(f"failed outside of a record: {described(error)}", ExitCode.FATAL)
            return
        verdict = self._judge_call(slice_, error)
        self._remember_failure(partition, failed, verdict, error)
        now_s = self._clock.monotonic_s()
        if verdict.takes_apart(len(failed)):
            self._spend(partition, failed, attempt)
            scheduler.hold(slice_, failed, rest, attempt=attempt, due_s=now_s, split=True)
        else:
            match verdict.kind:
                case VerdictKind.RETRY:
                    self._spend(partition, failed, attempt)
                    due_s = now_s + self._stages.of(slice_).backoff.delay_s(attempt, error)
                    scheduler.hold(slice_, failed, rest, attempt=attempt, due_s=due_s)
                case VerdictKind.SPARE:
                    self._hold_spared(slice_, failed, rest, error, permit)
                case VerdictKind.POSTPONE:
                    assert isinstance(error, ClaimBusy)
                    due_s = now_s + error.retry_in_s
                    scheduler.hold(slice_, failed, rest, attempt=attempt - 1, due_s=due_s)
                case VerdictKind.WAIT:
                    self._partitions.stop(partition, verdict.reason, error_text(error), mends_itself=True, retry=True)
                    due_s = partition.retry_at_s or now_s
                    scheduler.hold(slice_, failed, rest, attempt=attempt - 1, due_s=due_s)
                case VerdictKind.DEFER | VerdictKind.DEAD_LETTER | VerdictKind.SKIP:
                    scheduler.finish(slice_, rest, found=True)
                    spent = attempt - 1 if verdict.reason is Reason.DEFERRED else attempt
                    self._letters.give_up(partition, failed[0], verdict, error, spent + _spared(slice_).calls)
                    return
                case VerdictKind.BLOCK | VerdictKind.STOP:
                    self._stand_still(partition, failed[0], verdict, error, attempt)
                    scheduler.finish(slice_, left)
                    return
                case _:
                    assert_never(verdict.kind)
        self._endings.failed(partition, failed[0], error, attempt, Ending.RETRIED)
        self._listener.ended(partition.handler.name, partition.key, Ending.RETRIED, len(failed), 0.0)

    def _remember_failure(
        self, partition: Partition, failed: Sequence[Message], verdict: Verdict, error: BaseException
    ) -> None:
        if verdict.kind not in (VerdictKind.WAIT, VerdictKind.POSTPONE):
            for message in failed:
                partition.failed(message.offset(), Attempt.of(self._clock.wall_ms(), error))
        if verdict.reason is Reason.CRITICAL:
            partition.deadly = failed[0].offset(), failed[-1].offset()

    def _spend(self, partition: Partition, messages: Sequence[Message], attempt: int) -> None:
        """Remember, past the end of this ownership, the calls that were spent on these."""
        partition.tracker.attempts.update((message.offset(), attempt) for message in messages)
        self._stages.committer.progressed(partition.key)

    def _judge_call(self, slice_: LaneSlice, error: BaseException) -> Verdict:
        """Judge a failed call, with the breakers as witnesses of whether a dependency is to blame."""
        route = self._of(slice_).route
        attempts = self._stages.of(slice_).declared.retry.attempts if route is None else route.attempts
        gate = self._stages.of(slice_).gate
        waits = self._room(self._blame(slice_, error)) is not None
        if not waits and (gate is None or not gate.breaker.counts(error)):
            return self._judge(slice_, error, attempts=attempts)
        if slice_.held is None or slice_.held.history.charges < attempts:
            return self._judge(slice_, error, attempts=attempts, spares=True)
        verdict = self._judge(slice_, error, attempts=slice_.attempt)
        return replace(verdict, reason=Reason.FAILS_ALONE) if verdict.reason is Reason.EXHAUSTED else verdict

    def _hold_spared(
        self,
        slice_: LaneSlice,
        failed: Sequence[Message],
        rest: Sequence[Message],
        error: BaseException,
        permit: Permit | None,
    ) -> None:
        """Let records wait that a dependency failed; where they would be exhausted the breaker opens instead."""
        blamed = self._blame(slice_, error)
        room = self._room(blamed)
        if room is not None and blamed is not None:
            self._wait_for(slice_, failed, rest, error, room, blamed)
            return
        gate = self._stages.of(slice_).gate
        assert gate is not None
        assert permit is not None
        spared = self._spare(slice_, gate.breaker)
        due_s = gate.retry_at_s(permit, self._stages.of(slice_).backoff.delay_s(spared.calls, error))
        held = self._hold(slice_, failed, rest, spared=spared, due_s=due_s)
        if permit.trial:
            gate.suspect(held.history)

    def _wait_for(
        self,
        slice_: LaneSlice,
        failed: Sequence[Message],
        rest: Sequence[Message],
        error: BaseException,
        room: WaitingRoom,
        blamed: Blame,
    ) -> None:
        """Let records wait for the dependency of a single call: while it is there for a while, else until it is.

        Where it was only busy they wait for a while, and nothing is counted.
        """
        if blamed.full:
            wait_s = max(_LEAST_WAIT_S, self._stages.of(slice_).backoff.delay_s(1, error))
            self._hold(slice_, failed, rest, spared=_spared(slice_), due_s=self._clock.monotonic_s() + wait_s)
            return
        spared = _spared(slice_) if blamed.refused else self._spare(slice_, room.breaker)
        if not blamed.refused and room.breaker.state is BreakerState.CLOSED:
            due_s = self._clock.monotonic_s() + self._stages.of(slice_).backoff.delay_s(spared.calls, error)
            self._hold(slice_, failed, rest, spared=spared, due_s=due_s)
            return
        held = self._hold(slice_, failed, rest, spared=spared, due_s=inf)
        scheduler = self._stages.of(slice_).scheduler
        room.enter(scheduler, slice_.lane, held, trial_failed=blamed.trial)

    def _spare(self, slice_: LaneSlice, breaker: CircuitBreaker) -> Spared:
        """Count a call that failed and spends no attempt; failures before the breaker last closed are past."""
        spared = _spared(slice_).and_one(breaker.closings)
        if spared.lately >= self._stages.of(slice_).declared.retry.attempts:
            breaker.trip(f"a record's call failed {spared.lately} times")
        return spared

    def _hold(
        self, slice_: LaneSlice, failed: Sequence[Message], rest: Sequence[Message], *, spared: Spared, due_s: float
    ) -> Held:
        """Keep what was spared, and count that."""
        scheduler = self._stages.of(slice_).scheduler
        held = scheduler.hold(slice_, failed, rest, attempt=slice_.attempt - 1, due_s=due_s)
        held.history.spared = spared
        return held

    def _blame(self, slice_: LaneSlice, error: BaseException) -> Blame | None:
        """The dependency of a single call that `error` came from.

        One that the handler's own breaker counts may have been raised amid such an error, by what stands in for it.
        """
        gate = self._stages.of(slice_).gate
        return blame(error, amid=gate is None or not gate.breaker.counts(error))

    def _room(self, blamed: Blame | None) -> WaitingRoom | None:
        """Where records wait for a dependency."""
        return None if blamed is None else self._stages.rooms.get(blamed.dependency)

    def _judge(
        self, slice_: LaneSlice, error: BaseException, *, attempts: int, spares: bool = False, defers: bool = True
    ) -> Verdict:
        declaration = self._stages.of(slice_).declared
        dead_letter = declaration.dead_letter
        verdict = judge(
            error,
            attempt=slice_.attempt,
            attempts=attempts,
            rules=declaration.rules,
            has_dead_letter=dead_letter is not None,
            on_exhausted=OnExhausted.DLQ if dead_letter is None else OnExhausted(dead_letter.on_exhausted),
            spares=spares,
            defers=defers and self._letters.next_route(self._of(slice_)) is not None,
            puts_aside=bool(declaration.retry.topics),
        )
        if verdict.note and verdict.note not in self._notes:
            self._notes.add(verdict.note)
            _log.error("%s.rules: %s; said once", declaration.name, verdict.note)
        return verdict

    def condemn(self, partition: Partition, message: Message, error: WorkerKilled) -> None:
        """End a record that is not handed over, because its workers have died of it."""
        dead_letter = partition.handler.declared.dead_letter
        if dead_letter is None or OnExhausted(dead_letter.on_exhausted) is OnExhausted.BLOCK:
            self._stand_still(partition, message, _BLOCKED_KILLER, error, error.deaths)
        else:
            self._letters.dead_letter(partition, message, _KILLER, error, error.deaths)

    def _stand_still(
        self, partition: Partition, message: Message, verdict: Verdict, error: BaseException, attempt: int
    ) -> None:
        self._endings.failed(partition, message, error, attempt, Ending.STOPPED)
        if verdict.kind is VerdictKind.STOP:
            self._partitions.stop(partition, verdict.reason, described(error), mends_itself=False)
            self._fail(f"{verdict.reason}: {described(error)}", ExitCode.FATAL)
        else:
            detail = f"offset {message.offset()}: {described(error)}"
            self._partitions.stop(partition, verdict.reason, detail, mends_itself=False)

    def _of(self, slice_: LaneSlice) -> Partition:
        return self._partitions[slice_.ownership.partition]


def _is_first(slice_: LaneSlice) -> bool:
    """Whether no call was made for its records before."""
    return slice_.attempt == 1 and not _spared(slice_).calls


def _spared(slice_: LaneSlice) -> Spared:
    """Calls for its records that failed and spent no attempt."""
    return Spared() if slice_.held is None else slice_.held.history.spared


def _between(messages: Sequence[Message], indices: Sequence[int]) -> list[Sequence[Message]]:
    """What lies between these ascending indices."""
    return [messages[before + 1 : index] for before, index in pairwise(indices)]


def _left(slice_: LaneSlice, gone: set[int]) -> list[Message]:
    """Records of a slice that have not ended: not handled, and not settled as undecodable."""
    if slice_.done == len(slice_.messages) and len(gone) == len(slice_.rejected):
        return []
    stay = {index for index, _ in slice_.rejected} - gone
    return [
        message
        for index, message in enumerate(slice_.messages)
        if index not in gone and (index >= slice_.done or index in stay)
    ]
