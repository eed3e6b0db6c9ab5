"""When which offsets are committed, and what an answer means.

Rules. At most one asynchronous commit is in flight. It goes out each `interval_s` if there is
news, and at once when a partition has a quarter of its bound done and not committed. Beside the offset goes
what is done beyond it and what was tried (`codec.py`), taken at the same moment; that is news, too, though the offset
has not moved. Success
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
    from streamworker.offsets.progress import Progress
    from streamworker.offsets.tracker import OffsetTracker
    from streamworker.record import TopicPartition

# Errors of a commit made while the group rebalances: the same commit succeeds a moment later.
_PASSING = frozenset({"STALE_MEMBER_EPOCH", "REBALANCE_IN_PROGRESS"})
_RETRY_PAUSE_S = 0.05
# Requests whose answers are still recognised after their time-out.
_REMEMBERED_REQUESTS = 64


@dataclass(frozen=True, slots=True)
class _Carried:
    """What a request carries of one partition."""

    tracker: OffsetTracker
    progress: Progress
    mark: OffsetMark


@dataclass(frozen=True, slots=True)
class _Request:
    carried: Mapping[TopicPartition, _Carried]
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
        self._awaited: set[TopicPartition] = set()  # those in which work waits for the answer
        self._requests: dict[int, _Request] = {}
        self._number = 0
        self._in_flight: int | None = None
        self._next_tick_s = clock.monotonic_s()
        self._urgent = False
        self._rejoining = False  # as the last answer said
        self.last_success_s: float | None = None
        self.proven_s: float | None = None  # when the last commit was sent that succeeded for a present epoch
        self.refused_since_s: float | None = None  # the first refusal since then

    def own(self, partition: TopicPartition, tracker: OffsetTracker) -> None:
        """A new epoch of `partition` begins: that it is in work is committed at the next occasion."""
        self._trackers[partition] = tracker
        self.hurry(partition)

    def disown(self, partitions: Iterable[TopicPartition]) -> None:
        """The epochs of these have ended: nothing of theirs is sent any more."""
        for partition in partitions:
            self._trackers.pop(partition, None)
            self._dirty.discard(partition)
            self._again.discard(partition)
            self._awaited.discard(partition)

    def progressed(self, partition: TopicPartition) -> None:
        """Something of `partition` is done, or was tried in vain."""
        self._dirty.add(partition)
        done = self._trackers[partition].done_uncommitted
        self._urgent = self._urgent or 4 * done >= self._config.max_uncommitted

    def hurry(self, partition: TopicPartition) -> None:
        """Commit the news of `partition` at the next occasion: work waits for the answer."""
        self._dirty.add(partition)
        self._awaited.add(partition)
        self._urgent = True

    def commit_again(self, partition: TopicPartition) -> None:
        """Commit `partition` at the next occasion even if there is no news of it."""
        self._again.add(partition)
        self._urgent = True

    def next_due_s(self) -> float | None:
        """Monotonic time of the next tick that has something to send; None without."""
        if self._in_flight is not None:
            return self._requests[self._in_flight].sent_s + self._config.timeout_s
        return self._next_tick_s if self._dirty or self._again else None

    @property
    def awaited(self) -> bool:
        """Whether work waits for the coordinator's answer."""
        return bool(self._awaited)

    @property
    def would_repeat(self) -> bool:
        """Whether a crash now would repeat something that a commit would save."""
        return any(map(_has_work, self._trackers.values()))

    @property
    def rejoining(self) -> bool:
        """Whether the group rejoins, as the last answer said: until it has, it takes no commit."""
        return self._rejoining

    @property
    def unsaved(self) -> bool:
        """Whether something is to be committed that the coordinator has not acknowledged.

        While the group rejoins only what would be repeated otherwise: that a partition was given back is not worth the
        wait, since a commit may be answered only when everybody has joined. Its next owner is careful for nothing then.
        """
        counts = _has_work if self._rejoining else _has_news
        return any(map(counts, self._trackers.values()))

    def step(self, *, at_once: bool = False) -> None:
        """Send a commit if one is due, or `at_once` if there is something to commit."""
        now_s = self._clock.monotonic_s()
        self._give_up_waiting(now_s)
        due = at_once or self._urgent or now_s >= self._next_tick_s
        if self._in_flight is not None or not due:
            return
        if at_once:
            self._dirty.update(self._trackers)
        carried = self._carried(self._dirty | self._again)
        self._dirty.intersection_update(carried)
        self._urgent = False
        self._next_tick_s = now_s + self._config.interval_s
        if carried:
            self._send_request(carried, now_s)

    def answered(self, answers: Iterable[CommitAnswer]) -> Sequence[TopicPartition]:
        """Take the coordinator's answers to asynchronous commits; returns what is committed of present epochs."""
        committed: list[TopicPartition] = []
        now_s = self._clock.monotonic_s()
        by_request: dict[int, list[CommitAnswer]] = {}
        for answer in answers:
            metadata = codec.decode(answer.mark.metadata)
            if metadata is not None and metadata.request in self._requests:
                by_request.setdefault(metadata.request, []).append(answer)
        for number, own_answers in by_request.items():
            request = self._requests.pop(number)
            self._in_flight = None if self._in_flight == number else self._in_flight
            self._settle(request, own_answers, now_s)
            committed += [
                answer.partition
                for answer in own_answers
                if answer.error is None and self._is_present(answer.partition, request)
            ]
        return committed

    def commit_now(
        self, partitions: Iterable[TopicPartition], *, until_s: float, meanwhile: Callable[[float], None]
    ) -> None:
        """Commit these and wait, on revoke and on close; errors that pass are tried again until `until_s`.

        `meanwhile` is given the time to let go by between two tries.
        """
        left = set(partitions) & self._trackers.keys()
        while carried := self._carried(left):
            request, marks = _Request(carried, self._clock.monotonic_s()), _marks(carried)
            try:
                answers = self._send_now(marks)
            except ClientError as error:
                answers = [CommitAnswer(partition, mark, error.code) for partition, mark in marks.items()]
            self._settle(request, answers, self._clock.monotonic_s())
            passing = {answer.partition for answer in answers if answer.error in _PASSING}
            left = {one for one in passing & self._trackers.keys() if _has_work(self._trackers[one])}
            if not left or self._clock.monotonic_s() + _RETRY_PAUSE_S >= until_s:
                return
            meanwhile(_RETRY_PAUSE_S)

    def send_last(self, partitions: Iterable[TopicPartition]) -> None:
        """Send an asynchronous commit of these whose answer nobody waits for."""
        if carried := self._carried(set(partitions) & self._trackers.keys()):
            self._send_request(carried, self._clock.monotonic_s())

    def _carried(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, _Carried]:
        """The next request's content: offsets and what is beside them are taken here and nowhere else."""
        self._number += 1
        trackers = {one: self._trackers[one] for one in sorted(partitions)}
        return {
            one: self._carry(one, tracker)
            for one, tracker in trackers.items()
            if _has_news(tracker) or (one in self._again and tracker.located)
        }

    def _carry(self, partition: TopicPartition, tracker: OffsetTracker) -> _Carried:
        progress = tracker.progress()
        encoded = codec.encode(self._number, progress)
        tracker.crowded = encoded.whole_bytes > codec.PRESSURE_BYTES
        if not encoded.complete:
            self._listener.progress_cut(partition, encoded.whole_bytes)
        return _Carried(tracker, progress, OffsetMark(progress.offset, encoded.text))

    def _send_request(self, carried: Mapping[TopicPartition, _Carried], now_s: float) -> None:
        try:
            self._send(_marks(carried))
        except ClientError as error:
            self._listener.commit_answered(len(carried), error.code, 0.0)
            return
        if self._in_flight is not None:
            # Nobody waits for the earlier one any more, so what it carried goes again.
            self._dirty.update(self._requests[self._in_flight].carried.keys() & self._trackers.keys())
        self._requests[self._number] = _Request(carried, now_s)
        self._in_flight = self._number
        self._dirty.difference_update(carried)
        while len(self._requests) > _REMEMBERED_REQUESTS:
            del self._requests[next(iter(self._requests))]

    def _give_up_waiting(self, now_s: float) -> None:
        if self._in_flight is None:
            return
        request = self._requests[self._in_flight]
        if now_s >= request.sent_s + self._config.timeout_s:
            self._in_flight = None
            self._dirty.update(request.carried.keys() & self._trackers.keys())
            self._listener.commit_unanswered(len(request.carried))

    def _settle(self, request: _Request, answers: Sequence[CommitAnswer], now_s: float) -> None:
        by_error: dict[str | None, int] = {}
        for answer in answers:
            by_error[answer.error] = by_error.get(answer.error, 0) + 1
            carried = request.carried.get(answer.partition)
            if answer.error is None and self._is_present(answer.partition, request):
                self.proven_s = max(self.proven_s or request.sent_s, request.sent_s)
            self._settle_one(carried, answer)
        for error, partitions in by_error.items():
            self._listener.commit_answered(partitions, error, now_s - request.sent_s)
        self._rejoining = bool(by_error.keys() & _PASSING)
        if self._rejoining:
            self._next_tick_s = min(self._next_tick_s, now_s + _RETRY_PAUSE_S)
        if None in by_error:
            self.last_success_s, self.refused_since_s = now_s, None
        elif self.refused_since_s is None:
            self.refused_since_s = now_s

    def _settle_one(self, carried: _Carried | None, answer: CommitAnswer) -> None:
        partition = answer.partition
        current = self._trackers.get(partition)
        if carried is None or current is None:
            return
        if carried.tracker is not current or answer.mark.offset < current.committed:
            # An older offset may have been written over a newer one, even if its commit ends with an error: the client
            # sends again what it finds no answer to.
            self.commit_again(partition)
        elif answer.error is None:
            current.acknowledge(carried.progress)
            self._again.discard(partition)
            self._awaited.discard(partition)
            if _has_news(current):
                self._dirty.add(partition)
        else:
            self._dirty.add(partition)

    def _is_present(self, partition: TopicPartition, request: _Request) -> bool:
        carried = request.carried.get(partition)
        return carried is not None and self._trackers.get(partition) is carried.tracker


def _marks(carried: Mapping[TopicPartition, _Carried]) -> dict[TopicPartition, OffsetMark]:
    return {partition: one.mark for partition, one in carried.items()}


def _has_work(tracker: OffsetTracker) -> bool:
    """Whether a crash now would repeat something that a commit would save."""
    known = tracker.known
    if known is None or not tracker.located:
        return tracker.committable > tracker.committed
    now = tracker.progress()
    return (now.offset, now.done, now.attempts) != (known.offset, known.done, known.attempts)


def _has_news(tracker: OffsetTracker) -> bool:
    """Whether there is something that the coordinator has not acknowledged."""
    if not tracker.located:
        return False
    known = tracker.known
    return known is None or tracker.committable > known.offset or tracker.progress() != known
