"""When which offsets are committed, and what an answer means.

Rules. At most one asynchronous commit is in flight. It goes out each `interval_s` if there is
progress, and at once when a partition has a quarter of its bound done and not committed. Success
comes only from the coordinator's answer, partition by partition; what failed or stayed unanswered
goes again with the same or a higher offset. An answer belongs to the tracker that it was made for: if
that epoch has ended, it says nothing about the present one, except that an older offset may have
been written over a newer one, so the present one is committed again.

The loop thread owns it. It commits through the functions it is given and knows no client.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.errors import ClientError
from streamworker.interfaces import CommitAnswer, OffsetMark
from streamworker.offsets import codec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.config import CommitConfig
    from streamworker.events import Listener
    from streamworker.offsets.tracker import OffsetTracker
    from streamworker.record import TopicPartition

# Errors of a commit made while the group rebalances: the same commit succeeds a moment later.
_PASSING = frozenset({"STALE_MEMBER_EPOCH", "REBALANCE_IN_PROGRESS"})
_RETRY_PAUSE_S = 0.05
# Requests whose answers are still recognised after their time-out.
_REMEMBERED_REQUESTS = 64


@dataclass(frozen=True, slots=True)
class _Request:
    trackers: Mapping[TopicPartition, OffsetTracker]
    sent_s: float


class Committer:
    """Commits the trackers that it was told of."""

    def __init__(
        self,
        *,
        send: Callable[[Mapping[TopicPartition, OffsetMark]], None],
        send_now: Callable[[Mapping[TopicPartition, OffsetMark]], Sequence[CommitAnswer]],
        config: CommitConfig,
        clock: Clock,
        listener: Listener,
    ) -> None:
        self._send = send
        self._send_now = send_now
        self._config = config
        self._clock = clock
        self._listener = listener
        self._trackers: dict[TopicPartition, OffsetTracker] = {}
        self._dirty: set[TopicPartition] = set()
        self._again: set[TopicPartition] = set()  # to be committed though nothing moved
        self._requests: dict[int, _Request] = {}
        self._number = 0
        self._in_flight: int | None = None
        self._next_tick_s = clock.monotonic_s()
        self._urgent = False
        self.last_success_s: float | None = None
        self.refused_since_s: float | None = None  # the first refusal since then

    def own(self, partition: TopicPartition, tracker: OffsetTracker) -> None:
        """A new epoch of `partition` begins."""
        self._trackers[partition] = tracker

    def disown(self, partitions: Iterable[TopicPartition]) -> None:
        """The epochs of these have ended: nothing of theirs is sent any more."""
        for partition in partitions:
            self._trackers.pop(partition, None)
            self._dirty.discard(partition)
            self._again.discard(partition)

    def progressed(self, partition: TopicPartition) -> None:
        """Something of `partition` is done."""
        self._dirty.add(partition)
        done = self._trackers[partition].done_uncommitted
        self._urgent = self._urgent or 4 * done >= self._config.max_uncommitted

    def commit_again(self, partition: TopicPartition) -> None:
        """Commit `partition` at the next occasion even if it has not moved."""
        self._again.add(partition)
        self._urgent = True

    def next_due_s(self) -> float | None:
        """Monotonic time of the next tick that has something to send; None without."""
        if self._in_flight is not None:
            return self._requests[self._in_flight].sent_s + self._config.timeout_s
        return self._next_tick_s if self._dirty or self._again else None

    @property
    def unsaved(self) -> bool:
        """Whether something may be committed that the coordinator has not acknowledged."""
        return any(tracker.committable > tracker.committed for tracker in self._trackers.values())

    def step(self, *, at_once: bool = False) -> None:
        """Send a commit if one is due, or `at_once` if there is something to commit."""
        now_s = self._clock.monotonic_s()
        self._give_up_waiting(now_s)
        due = at_once or self._urgent or now_s >= self._next_tick_s
        if self._in_flight is not None or not due:
            return
        if at_once:
            self._dirty.update(self._trackers)
        marks = self._marks(self._dirty | self._again)
        self._dirty.intersection_update(marks)
        self._urgent = False
        self._next_tick_s = now_s + self._config.interval_s
        if marks:
            self._send_request(marks, now_s)

    def answered(self, answers: Iterable[CommitAnswer]) -> Sequence[TopicPartition]:
        """Take the coordinator's answers to asynchronous commits; returns what is committed of present epochs."""
        committed: list[TopicPartition] = []
        now_s = self._clock.monotonic_s()
        by_request: dict[int, list[CommitAnswer]] = {}
        for answer in answers:
            number = codec.decode(answer.mark.metadata)
            if number in self._requests:
                by_request.setdefault(number, []).append(answer)
        for number, own_answers in by_request.items():
            request = self._requests.pop(number)
            self._in_flight = None if self._in_flight == number else self._in_flight
            self._settle(request, own_answers, now_s)
            committed += [
                answer.partition
                for answer in own_answers
                if answer.error is None
                and self._trackers.get(answer.partition) is request.trackers.get(answer.partition)
            ]
        return committed

    def commit_now(
        self, partitions: Iterable[TopicPartition], *, until_s: float, meanwhile: Callable[[float], None]
    ) -> None:
        """Commit these and wait, on revoke and on close; errors that pass are tried again until `until_s`.

        `meanwhile` is given the time to let go by between two tries.
        """
        left = set(partitions) & self._trackers.keys()
        while marks := self._marks(left):
            sent_s = self._clock.monotonic_s()
            request = _Request({one: self._trackers[one] for one in marks}, sent_s)
            try:
                answers = self._send_now(marks)
            except ClientError as error:
                answers = [CommitAnswer(partition, mark, error.code) for partition, mark in marks.items()]
            self._settle(request, answers, self._clock.monotonic_s())
            left = {answer.partition for answer in answers if answer.error in _PASSING}
            if not left or self._clock.monotonic_s() + _RETRY_PAUSE_S >= until_s:
                return
            meanwhile(_RETRY_PAUSE_S)

    def send_last(self, partitions: Iterable[TopicPartition]) -> None:
        """Send an asynchronous commit of these whose answer nobody waits for."""
        if marks := self._marks(set(partitions) & self._trackers.keys()):
            self._send_request(marks, self._clock.monotonic_s())

    def _marks(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetMark]:
        self._number += 1
        metadata = codec.encode(self._number)
        return {
            one: OffsetMark(self._trackers[one].committable, metadata)
            for one in sorted(partitions)
            if self._has_news(one)
        }

    def _has_news(self, partition: TopicPartition) -> bool:
        tracker = self._trackers[partition]
        return tracker.committable > tracker.committed or (partition in self._again and tracker.located)

    def _send_request(self, marks: Mapping[TopicPartition, OffsetMark], now_s: float) -> None:
        request = _Request({one: self._trackers[one] for one in marks}, now_s)
        try:
            self._send(marks)
        except ClientError as error:
            self._listener.commit_answered(len(marks), error.code, 0.0)
            return
        if self._in_flight is not None:
            # Nobody waits for the earlier one any more, so what it carried goes again.
            self._dirty.update(self._requests[self._in_flight].trackers.keys() & self._trackers.keys())
        self._requests[self._number] = request
        self._in_flight = self._number
        self._dirty.difference_update(marks)
        while len(self._requests) > _REMEMBERED_REQUESTS:
            del self._requests[next(iter(self._requests))]

    def _give_up_waiting(self, now_s: float) -> None:
        if self._in_flight is None:
            return
        request = self._requests[self._in_flight]
        if now_s >= request.sent_s + self._config.timeout_s:
            self._in_flight = None
            self._dirty.update(request.trackers.keys() & self._trackers.keys())
            self._listener.commit_unanswered(len(request.trackers))

    def _settle(self, request: _Request, answers: Sequence[CommitAnswer], now_s: float) -> None:
        by_error: dict[str | None, int] = {}
        for answer in answers:
            by_error[answer.error] = by_error.get(answer.error, 0) + 1
            self._settle_one(request.trackers.get(answer.partition), answer)
        for error, partitions in by_error.items():
            self._listener.commit_answered(partitions, error, now_s - request.sent_s)
        if None in by_error:
            self.last_success_s, self.refused_since_s = now_s, None
        elif self.refused_since_s is None:
            self.refused_since_s = now_s

    def _settle_one(self, tracker: OffsetTracker | None, answer: CommitAnswer) -> None:
        partition = answer.partition
        current = self._trackers.get(partition)
        if tracker is None or current is None:
            return
        if tracker is not current or answer.mark.offset < tracker.committed:
            # An older offset may have been written over a newer one, even if its commit ends with an error: the client
            # sends again what it finds no answer to.
            self.commit_again(partition)
        elif answer.error is None:
            tracker.acknowledge(answer.mark.offset)
            self._again.discard(partition)
            if tracker.committable > tracker.committed:
                self._dirty.add(partition)
        else:
            self._dirty.add(partition)
