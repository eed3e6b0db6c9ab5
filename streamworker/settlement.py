"""How each record ends: the only way to done.

A slice came back, or a dead letter was acknowledged. Handled, retried, dead-lettered, skipped or
stopped: an offset counts as done only here, and only while the ownership that it was handled under
lasts. Loop thread only.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING

from streamworker.config import OnExhausted
from streamworker.dlq.envelope import Attempt, ComesBack, envelope
from streamworker.errors import HeadOfLine, KeyParked
from streamworker.exit_code import ExitCode
from streamworker.observability.redaction import described, error_text
from streamworker.partition import Unsent
from streamworker.record import Ending, TopicPartition, calls_before, timestamp_ms_of
from streamworker.resilience.breaker import BreakerState
from streamworker.resilience.guard import blame
from streamworker.resilience.retry import Backoff
from streamworker.resilience.verdict import Verdict, VerdictKind, judge
from streamworker.scheduling.lanes import Spared
from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker.clock import Clock
    from streamworker.config import Config
    from streamworker.dlq.envelope import Envelope
    from streamworker.dlq.retries import RetryRoute
    from streamworker.errors import WorkerKilled
    from streamworker.events import Listener
    from streamworker.handler import Declaration
    from streamworker.parking import Parking
    from streamworker.partition import Partition
    from streamworker.partitions import Partitions, Stages
    from streamworker.record import Message
    from streamworker.resilience.breaker import CircuitBreaker, Permit
    from streamworker.resilience.guard import Blame
    from streamworker.resilience.limits import AdaptiveLimit
    from streamworker.scheduling.lanes import Held, LaneSlice, Scheduler
    from streamworker.waiting import WaitingRoom
    from streamworker.work import Failure, SliceOutcome

# Who was refused because there are enough calls asks again, but not at once, even without a back-off.
_LEAST_WAIT_S = 0.01
_log = logging.getLogger(__name__)
_PUT_ASIDE = "deferred"  # the reason of a record that spends no attempt
_KILLER = Verdict(VerdictKind.DEAD_LETTER, "killed_worker")
_BLOCKED_KILLER = Verdict(VerdictKind.BLOCK, "killed_worker")


class Settlement:
    """Settles outcomes.

    `fail(why, exit_code)` stops the worker; `letter_max_bytes` is the largest record that the dead-letter
    producer takes.
    """

    def __init__(
        self,
        stages: Stages,
        partitions: Partitions,
        parking: Parking,
        *,
        declarations: Sequence[Declaration],
        config: Config,
        clock: Clock,
        listener: Listener,
        fail: Callable[[str, ExitCode], None],
        letter_max_bytes: int,
    ) -> None:
        self._stages = stages
        self._partitions = partitions
        self._parking = parking
        self._declarations = declarations
        self._config = config
        self._clock = clock
        self._listener = listener
        self._fail = fail
        self._letter_max_bytes = letter_max_bytes
        self._notes: set[str] = set()
        self._backoffs = [Backoff(one.retry) for one in declarations]

    def settle(self, outcome: SliceOutcome[LaneSlice]) -> None:
        """Decide how each record of a slice ended; the only way to done leads through here."""
        slice_, failure = outcome.slice, outcome.failure
        scheduler = self._stages.schedulers[slice_.handler]
        if slice_.held is not None:
            for room in self._stages.rooms.values():
                room.came_back(slice_.held)
        allowance = self._stages.allowances[slice_.handler]
        if allowance is not None and _is_first(slice_):
            allowance.first_calls(self._calls(outcome), self._clock.monotonic_s())
        adaptive = self._stages.adaptive[slice_.handler]
        if adaptive is not None:
            self._adapt(adaptive, scheduler, outcome)
        permit = self._report_calls(outcome)
        if slice_.ownership.ended:
            scheduler.forget()
            self._listener.late_outcome(self._name(slice_), slice_.ownership.partition, len(slice_.messages))
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
        return int(done > 0 or failed) if self._declarations[outcome.slice.handler].batch else done + failed

    def _report_calls(self, outcome: SliceOutcome[LaneSlice]) -> Permit | None:
        """Tell the handler's breaker what became of the calls that a slice stands for."""
        slice_, failure = outcome.slice, outcome.failure
        gate = self._stages.gates[slice_.handler]
        if gate is None:
            return None
        succeeded = slice_.done - len(slice_.rejected)
        if self._declarations[slice_.handler].batch is not None:
            succeeded = int(failure is None and slice_.done > len(slice_.rejected))
        error = None if failure is None or self._blame(slice_, failure.error) is not None else failure.error
        permit = gate.came_back(slice_, succeeded, error, outcome.seconds)
        if permit.trial and succeeded and failure is None:
            gate.trial_succeeded(slice_.held)
        return permit

    def take_handled(self, partition: Partition, slice_: LaneSlice, seconds: float) -> None:
        """Settle what is handled of a slice; of one that still runs, what was handled so far."""
        settled, done = slice_.settled, slice_.done  # the pool thread may move it on meanwhile
        slice_.settled = done
        handled = [slice_.messages if done - settled == len(slice_.messages) else slice_.messages[settled:done]]
        if slice_.rejected:
            rejected = [index for index, _ in slice_.rejected if settled <= index < done]
            handled = _between(slice_.messages, [settled - 1, *rejected, done])
        records = sum(map(len, handled))
        if records:
            partition.budget.handled(records)
            partition.recovered()
            self._complete(partition, handled, Ending.HANDLED, seconds)

    def sift(self, key: TopicPartition, messages: Sequence[Message]) -> Sequence[Message]:
        """End those of `messages` that are not to be handed over, too old or of a parked key; returns the others."""
        partition = self._partitions[key]
        max_age_s = self._declarations[partition.handler].max_age_s
        if max_age_s is not None:
            messages = self._expire(partition, messages, max_age_s)
        return self._follow(partition, messages) if partition.parked else messages

    def _expire(self, partition: Partition, messages: Sequence[Message], max_age_s: float) -> Sequence[Message]:
        """By this machine's clock and the timestamps of the log; a record without one is never too old."""
        now_ms = self._clock.wall_ms()
        ages_s = [0.0 if (at_ms := timestamp_ms_of(one)) is None else (now_ms - at_ms) / 1000 for one in messages]
        expired = [one for one, age_s in zip(messages, ages_s, strict=True) if age_s > max_age_s]
        if not expired:
            return messages
        self._complete(partition, [expired], Ending.EXPIRED, 0.0)
        self._listener.expired(partition.key, expired[0].offset(), len(expired), max(ages_s))
        return [one for one, age_s in zip(messages, ages_s, strict=True) if age_s <= max_age_s]

    def _follow(self, partition: Partition, messages: Sequence[Message]) -> Sequence[Message]:
        """Let those of a parked key follow its dead letter."""
        others: list[Message] = []
        for message in messages:
            key = message.key()
            first = None if key is None else partition.parked.get(key)
            if first is None or message.offset() < first:
                others.append(message)
            else:
                spent = partition.tracker.attempts.get(message.offset(), 0)
                letter = self._dead_letter_of(partition, message, "parked_behind", KeyParked(first), spent)
                self._hand_over(partition, message, letter, Ending.DEAD_LETTERED)
        return others

    def _settle_rejected(self, partition: Partition, slice_: LaneSlice, index: int, error: BaseException) -> bool:
        """Settle a record that no other call would help; false if it stays, as its partition or the worker stops."""
        message = slice_.messages[index]
        attempts = slice_.attempt  # never tried again, whatever a rule says: the bytes stay the same
        verdict = self._judge(slice_, error, attempts=attempts, defers=False)
        partition.failed(message.offset(), Attempt.of(self._clock.wall_ms(), error))
        if verdict.kind in (VerdictKind.DEAD_LETTER, VerdictKind.SKIP):
            self._dead_letter(partition, message, verdict, error, slice_.attempt)
            return True
        self._stand_still(partition, message, verdict, error, slice_.attempt)
        return False

    def _settle_failure(
        self,
        partition: Partition,
        slice_: LaneSlice,
        failure: Failure,
        left: Sequence[Message],
        permit: Permit | None,
    ) -> None:
        scheduler, error, attempt = self._stages.schedulers[slice_.handler], failure.error, slice_.attempt
        failed, rest = list(left), []
        if failure.index is not None:
            failed = [slice_.messages[failure.index]]
            rest = [message for message in left if message is not failed[0]]
        if not failed:
            scheduler.finish(slice_)
            self._fail(f"a pool thread failed outside of a record: {described(error)}", ExitCode.FATAL)
            return
        verdict = self._judge_call(slice_, error)
        self._remember_failure(partition, failed, verdict, error)
        now_s = self._clock.monotonic_s()
        if verdict.kind is VerdictKind.STOP or (verdict.kind is VerdictKind.BLOCK and len(failed) == 1):
            self._stand_still(partition, failed[0], verdict, error, attempt)
            scheduler.finish(slice_, left)
            return
        if verdict.kind is VerdictKind.WAIT:
            self._partitions.stop(partition, "dependency_unavailable", error_text(error), mends_itself=True, retry=True)
            due_s = partition.retry_at_s or now_s
            scheduler.hold(slice_, failed, rest, attempt=attempt - 1, due_s=due_s)
        elif verdict.kind is VerdictKind.SPARE:
            self._hold_spared(slice_, failed, rest, error, permit)
        elif verdict.kind is VerdictKind.RETRY:
            self._spend(partition, failed, attempt)
            due_s = now_s + self._backoffs[slice_.handler].delay_s(attempt, error)
            scheduler.hold(slice_, failed, rest, attempt=attempt, due_s=due_s)
        elif len(failed) > 1:
            # Somebody in this batch is at fault and nobody said who: in halves from here.
            self._spend(partition, failed, attempt)
            scheduler.hold(slice_, failed, rest, attempt=attempt, due_s=now_s, split=True)
        else:
            scheduler.finish(slice_, rest, found=True)
            spent = attempt - 1 if verdict.reason == _PUT_ASIDE else attempt
            self._give_up(partition, failed[0], verdict, error, spent + _spared(slice_).calls)
            return
        self._report_failure(partition, failed[0], error, attempt, Ending.RETRIED)
        self._listener.ended(self._name(slice_), partition.key, Ending.RETRIED, len(failed), 0.0)

    def _remember_failure(
        self, partition: Partition, failed: Sequence[Message], verdict: Verdict, error: BaseException
    ) -> None:
        if verdict.kind is not VerdictKind.WAIT:
            for message in failed:
                partition.failed(message.offset(), Attempt.of(self._clock.wall_ms(), error))
        if verdict.reason == "critical":
            partition.deadly = failed[0].offset(), failed[-1].offset()

    def _spend(self, partition: Partition, messages: Sequence[Message], attempt: int) -> None:
        """Remember, past the end of this ownership, the calls that were spent on these."""
        partition.tracker.attempts.update((message.offset(), attempt) for message in messages)
        self._stages.committer.progressed(partition.key)

    def _judge_call(self, slice_: LaneSlice, error: BaseException) -> Verdict:
        """Judge a failed call, with the breakers as witnesses of whether a dependency is to blame."""
        route = self._of(slice_).route
        attempts = self._declarations[slice_.handler].retry.attempts if route is None else route.attempts
        gate = self._stages.gates[slice_.handler]
        parks = self._room(self._blame(slice_, error)) is not None
        if not parks and (gate is None or not gate.breaker.counts(error)):
            return self._judge(slice_, error, attempts=attempts)
        if slice_.held is None or slice_.held.charges < attempts:
            return self._judge(slice_, error, attempts=attempts, spares=True)
        verdict = self._judge(slice_, error, attempts=slice_.attempt)
        return replace(verdict, reason="fails_alone") if verdict.reason == "exhausted" else verdict

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
            self._park(slice_, failed, rest, error, room, blamed)
            return
        gate = self._stages.gates[slice_.handler]
        assert gate is not None
        assert permit is not None
        spared = self._spare(slice_, gate.breaker)
        due_s = gate.retry_at_s(permit, self._backoffs[slice_.handler].delay_s(spared.calls, error))
        held = self._hold(slice_, failed, rest, spared=spared, due_s=due_s)
        if permit.trial:
            gate.suspect(held)

    def _park(
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
            wait_s = max(_LEAST_WAIT_S, self._backoffs[slice_.handler].delay_s(1, error))
            self._hold(slice_, failed, rest, spared=_spared(slice_), due_s=self._clock.monotonic_s() + wait_s)
            return
        spared = _spared(slice_) if blamed.refused else self._spare(slice_, room.breaker)
        if not blamed.refused and room.breaker.state is BreakerState.CLOSED:
            due_s = self._clock.monotonic_s() + self._backoffs[slice_.handler].delay_s(spared.calls, error)
            self._hold(slice_, failed, rest, spared=spared, due_s=due_s)
            return
        held = self._hold(slice_, failed, rest, spared=spared, due_s=inf)
        scheduler = self._stages.schedulers[slice_.handler]
        room.enter(scheduler, slice_.lane, held, trial_failed=blamed.trial)

    def _spare(self, slice_: LaneSlice, breaker: CircuitBreaker) -> Spared:
        """Count a call that failed and spends no attempt; failures before the breaker last closed are past."""
        spared = _spared(slice_).and_one(breaker.closings)
        if spared.lately >= self._declarations[slice_.handler].retry.attempts:
            breaker.trip(f"a record's call failed {spared.lately} times")
        return spared

    def _hold(
        self, slice_: LaneSlice, failed: Sequence[Message], rest: Sequence[Message], *, spared: Spared, due_s: float
    ) -> Held:
        """Keep what was spared, with what is known of it."""
        scheduler, before = self._stages.schedulers[slice_.handler], slice_.held
        held = scheduler.hold(slice_, failed, rest, attempt=slice_.attempt - 1, due_s=due_s)
        held.spared = spared
        if before is not None:
            held.charges, held.turn = before.charges, before.turn
        return held

    def _blame(self, slice_: LaneSlice, error: BaseException) -> Blame | None:
        """The dependency of a single call that `error` came from.

        One that the handler's own breaker counts may have been raised amid such an error, by what stands in for it.
        """
        gate = self._stages.gates[slice_.handler]
        return blame(error, amid=gate is None or not gate.breaker.counts(error))

    def _room(self, blamed: Blame | None) -> WaitingRoom | None:
        """Where records wait for a dependency."""
        return None if blamed is None else self._stages.rooms.get(blamed.dependency)

    def _judge(
        self, slice_: LaneSlice, error: BaseException, *, attempts: int, spares: bool = False, defers: bool = True
    ) -> Verdict:
        declaration = self._declarations[slice_.handler]
        dead_letter = declaration.dead_letter
        verdict = judge(
            error,
            attempt=slice_.attempt,
            attempts=attempts,
            rules=declaration.rules,
            has_dead_letter=dead_letter is not None,
            on_exhausted=OnExhausted.DLQ if dead_letter is None else OnExhausted(dead_letter.on_exhausted),
            spares=spares,
            defers=defers and self._next_route(self._of(slice_)) is not None,
            puts_aside=bool(declaration.retry.topics),
        )
        if verdict.note and verdict.note not in self._notes:
            self._notes.add(verdict.note)
            _log.error("%s.rules: %s; said once", declaration.name, verdict.note)
        return verdict

    def condemn(self, partition: Partition, message: Message, error: WorkerKilled) -> None:
        """End a record that is not handed over, because its workers have died of it."""
        dead_letter = self._declarations[partition.handler].dead_letter
        if dead_letter is None or OnExhausted(dead_letter.on_exhausted) is OnExhausted.BLOCK:
            self._stand_still(partition, message, _BLOCKED_KILLER, error, error.deaths)
        else:
            self._dead_letter(partition, message, _KILLER, error, error.deaths)

    def _stand_still(
        self, partition: Partition, message: Message, verdict: Verdict, error: BaseException, attempt: int
    ) -> None:
        self._report_failure(partition, message, error, attempt, Ending.STOPPED)
        if verdict.kind is VerdictKind.STOP:
            self._partitions.stop(partition, verdict.reason, described(error), mends_itself=False)
            self._fail(f"{verdict.reason}: {described(error)}", ExitCode.FATAL)
        else:
            detail = f"offset {message.offset()}: {described(error)}"
            self._partitions.stop(partition, verdict.reason, detail, mends_itself=False)

    def _give_up(
        self, partition: Partition, message: Message, verdict: Verdict, error: BaseException, attempt: int
    ) -> None:
        """Send a record to the next retry topic, or to the dead letters if it is not for one or does not fit."""
        route = self._next_route(partition)
        if route is None and verdict.reason == _PUT_ASIDE:
            route = partition.route
        if verdict.kind is VerdictKind.DEFER and route is not None:
            due_ms = self._clock.wall_ms() + round(route.delay_s * 1000)
            comes_back = ComesBack(route.level, due_ms)
            letter = self._letter(partition, message, route.name, verdict.reason, error, attempt, comes_back)
            if letter.fits:
                self._send(partition, message, letter, error, attempt, Ending.DEFERRED)
                return
        self._dead_letter(partition, message, verdict, error, attempt)

    def _next_route(self, partition: Partition) -> RetryRoute | None:
        """The retry topic for what is given up in `partition`; None behind the last."""
        here = partition.route
        return self._stages.routes.after(partition.ownership.topic, 0 if here is None else here.level)

    def _dead_letter(
        self, partition: Partition, message: Message, verdict: Verdict, error: BaseException, attempt: int
    ) -> None:
        ending = Ending.SKIPPED if verdict.kind is VerdictKind.SKIP else Ending.DEAD_LETTERED
        letter = self._dead_letter_of(partition, message, verdict.reason, error, attempt)
        self._send(partition, message, letter, error, attempt, ending)

    def _dead_letter_of(
        self, partition: Partition, message: Message, reason: str, error: BaseException, attempt: int
    ) -> Envelope:
        dead_letter = self._declarations[partition.handler].dead_letter
        assert dead_letter is not None
        return self._letter(partition, message, dead_letter.topic, reason, error, attempt)

    def _letter(
        self,
        partition: Partition,
        message: Message,
        topic: str,
        reason: str,
        error: BaseException,
        attempt: int,
        comes_back: ComesBack | None = None,
    ) -> Envelope:
        return envelope(
            message,
            topic=topic,
            group=self._config.kafka.group,
            handler=self._declarations[partition.handler].name,
            reason=reason,
            error=error,
            attempts=attempt,
            attempt_log=partition.attempts.get(message.offset(), ()),
            now_ms=self._clock.wall_ms(),
            max_bytes=self._letter_max_bytes,
            comes_back=comes_back,
            parked_behind=error.first if isinstance(error, KeyParked) else None,
        )

    def _send(
        self,
        partition: Partition,
        message: Message,
        letter: Envelope,
        error: BaseException,
        attempt: int,
        ending: Ending,
    ) -> None:
        self._report_failure(partition, message, error, attempt, ending)
        self._hand_over(partition, message, letter, ending)

    def _hand_over(self, partition: Partition, message: Message, letter: Envelope, ending: Ending) -> None:
        parks = self._parks(partition, message, ending)
        acknowledged = partial(self._acknowledged, partition, message, letter, ending, parks=parks is not None)
        if letter.reason == _PUT_ASIDE:  # an outage is no reason to stop, and what is put aside comes back
            self._stages.writer.write(letter, acknowledged)
        else:
            partition.unsent.append(Unsent(letter, acknowledged, parks))
        self.write_dead_letters(partition)

    def _parks(self, partition: Partition, message: Message, ending: Ending) -> bytes | None:
        """The key that is to be parked behind a record; None if none is, or it is already."""
        dead_letter, key = self._declarations[partition.handler].dead_letter, message.key()
        if dead_letter is None or dead_letter.keys_topic is None or ending is not Ending.DEAD_LETTERED:
            return None
        return None if key is None or partition.parked.get(key, inf) <= message.offset() else key

    def divert(self, partition: Partition, message: Message, age_s: float, attempts: int) -> None:
        """Give a record up that holds its partition back for too long, and that no thread has."""
        error = HeadOfLine(f"not done {age_s:.0f} s after it became the lowest open record of {partition.key}")
        self._give_up(partition, message, Verdict(VerdictKind.DEFER, "head_of_line"), error, attempts)

    def write_dead_letters(self, partition: Partition) -> None:
        """Hand over what the budget allows, and hold the partition as long as something stays behind."""
        unsent, writer = partition.unsent, self._stages.writer
        while unsent and self._has_room(partition, unsent[0]) and partition.budget.take(self._clock.monotonic_s()):
            next_ = unsent.popleft()
            if next_.parks is not None:
                partition.parking.add(next_.parks)
            writer.write(next_.letter, next_.acknowledged)
        has_room = not unsent or self._has_room(partition, unsent[0])
        self._hold_if(partition, PauseReason.DEAD_LETTER_BUDGET, needed=bool(unsent) and has_room)
        self._hold_if(partition, PauseReason.PARKED_KEYS_FULL, needed=not has_room)
        limit = self._config.dead_letters.max_unacknowledged
        pending = writer.waiting(partition.key) > 0 or writer.outstanding(partition.key) >= limit
        # What is parked now is known to the lanes once its note has come back.
        self._hold_if(partition, PauseReason.DEAD_LETTERS_PENDING, needed=pending or bool(partition.parking))

    def _has_room(self, partition: Partition, unsent: Unsent) -> bool:
        """Whether one more key may be parked, if that is what a letter does."""
        most = self._config.dead_letters.max_parked_keys
        needs_none = unsent.parks is None or unsent.parks in partition.parked
        return needs_none or len(partition.parked) + len(partition.parking) < most

    def _hold_if(self, partition: Partition, reason: PauseReason, *, needed: bool) -> None:
        if needed:
            self._partitions.hold(partition, reason)
        else:
            self._partitions.release(partition, reason)

    def _acknowledged(
        self, partition: Partition, message: Message, letter: Envelope, ending: Ending, *, parks: bool
    ) -> None:
        if partition.ownership.ended:
            return
        if ending is Ending.DEFERRED:
            # A bounded run has not seen its end then: the copy has the same number, where there is one.
            there = self._partitions.get(TopicPartition(letter.topic, partition.key.partition))
            if there is not None:
                there.at_end = False
            self._listener.deferred(partition.key, letter.topic, letter.reason)
        else:
            self._listener.dead_lettered(partition.key, letter.topic, letter.reason)
        if parks:
            self._parking.park(partition, message, lambda: self._complete(partition, [[message]], ending, 0.0))
        else:
            self._complete(partition, [[message]], ending, 0.0)

    def dead_letter_refused(self, key: TopicPartition, offset: int, topic: str, error: str) -> None:
        """Stop the partition of a dead letter that was not taken; the writer keeps trying."""
        self._listener.dead_letter_refused(key, offset, topic, error)
        partition = self._partitions.get(key)
        if partition is not None:
            self._partitions.stop(partition, "dead_letter_refused", f"{topic}: {error}", mends_itself=True)

    def _complete(
        self, partition: Partition, parts: Sequence[Sequence[Message]], ending: Ending, seconds: float
    ) -> None:
        backpressure, tracker = self._stages.backpressure, partition.tracker
        for messages in filter(None, parts):
            first, last = messages[0].offset(), messages[-1].offset()
            if last - first + 1 == len(messages):
                tracker.complete_run(first, last)
            else:
                tracker.complete([message.offset() for message in messages])
            _forget(partition.attempts, messages)
            _forget(tracker.attempts, messages)
        records = sum(map(len, parts))
        size_bytes = backpressure.size_of(partition.key, parts, partition.lanes.largest_bytes)
        backpressure.settled(partition.key, records, size_bytes)
        self._stages.committer.progressed(partition.key)
        name = self._declarations[partition.handler].name
        self._listener.ended(name, partition.key, ending, records, seconds)

    def _report_failure(
        self, partition: Partition, message: Message, error: BaseException, attempt: int, ending: Ending
    ) -> None:
        name = self._declarations[partition.handler].name
        self._listener.failed(name, partition.key, message.offset(), error, attempt + calls_before(message), ending)

    def _of(self, slice_: LaneSlice) -> Partition:
        return self._partitions[slice_.ownership.partition]

    def _name(self, slice_: LaneSlice) -> str:
        return self._declarations[slice_.handler].name


def _forget(calls: dict[int, list[Attempt]] | dict[int, int], messages: Sequence[Message]) -> None:
    """Drop what is known, by offset, of the failed calls of `messages`, which are in offset order.

    Where few records have failed it goes through those: nearly all others never did.
    """
    if not calls:
        return
    if len(calls) < len(messages):
        first, last = messages[0].offset(), messages[-1].offset()
        if not any(first <= offset <= last for offset in calls):
            return
    for message in messages:
        calls.pop(message.offset(), None)


def _is_first(slice_: LaneSlice) -> bool:
    """Whether no call was made for its records before."""
    return slice_.attempt == 1 and not _spared(slice_).calls


def _spared(slice_: LaneSlice) -> Spared:
    """Calls for its records that failed and spent no attempt."""
    return Spared() if slice_.held is None else slice_.held.spared


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
