"""The committer beside a coordinator that answers late, out of order, with errors or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sizes import SOAK

from streamworker.config import CommitConfig
from streamworker.errors import ClientError
from streamworker.events import Listener
from streamworker.interfaces import CommitAnswer, OffsetMark
from streamworker.offsets import codec
from streamworker.offsets.committer import Committer
from streamworker.offsets.policy import BEGINNING
from streamworker.offsets.progress import Progress
from streamworker.offsets.tracker import OffsetTracker
from streamworker.record import TopicPartition
from streamworker.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PARTITIONS = [TopicPartition("t", number) for number in range(3)]
P0, P1 = PARTITIONS[:2]
INTERVAL_S, TIMEOUT_S, MAX_UNCOMMITTED = 1.0, 2.0, 40
ERRORS = ["REBALANCE_IN_PROGRESS", "STALE_MEMBER_EPOCH", "_TRANSPORT", "TOPIC_AUTHORIZATION_FAILED"]


@dataclass(eq=False)
class Request:
    """A commit on its way, and the epochs that it was made for."""

    marks: Mapping[TopicPartition, OffsetMark]
    trackers: Mapping[TopicPartition, OffsetTracker]
    sent_s: float


class Reports(Listener):
    """What the committer reported of its commits."""

    def __init__(self) -> None:
        self.answered: list[tuple[int, str | None]] = []
        self.seconds: list[float] = []
        self.unanswered = 0
        self.cut: list[tuple[TopicPartition, int]] = []

    def commit_answered(self, partitions: int, error: str | None, seconds: float) -> None:
        assert seconds >= 0
        self.answered.append((partitions, error))
        self.seconds.append(seconds)

    def progress_cut(self, partition: TopicPartition, whole_bytes: int) -> None:
        self.cut.append((partition, whole_bytes))

    def commit_unanswered(self, partitions: int) -> None:
        self.unanswered += partitions


class Coordinator:
    """A committer with its epochs, and the far end of its commits."""

    def __init__(self) -> None:
        self.time = VirtualTime()
        self.reports = Reports()
        self.trackers: dict[TopicPartition, OffsetTracker] = {}
        self.requests: list[Request] = []
        self.waited_for: list[Request] = []  # synchronous ones
        self.errors_now: list[str | None] = []  # of the next synchronous commits; then they succeed
        self.refusing: str | None = None  # what sending raises
        self.committer = Committer(
            send=self._send,
            send_now=self._send_now,
            config=CommitConfig(interval_s=INTERVAL_S, timeout_s=TIMEOUT_S, max_uncommitted=MAX_UNCOMMITTED),
            clock=self.time,
            listener=self.reports,
        )

    def own(self, partition: TopicPartition, start: int = 0, *, announced: bool = True) -> OffsetTracker:
        tracker = self.trackers[partition] = OffsetTracker(start)
        if announced:
            tracker.remember(Progress(start, running=True))
        self.committer.own(partition, tracker)
        return tracker

    def disown(self, partition: TopicPartition) -> None:
        del self.trackers[partition]
        self.committer.disown([partition])

    def progress(self, partition: TopicPartition, records: int) -> None:
        tracker = self.trackers[partition]
        first = tracker.next_offset
        tracker.deliver(first, records)
        tracker.complete_run(first, first + records - 1)
        self.committer.progressed(partition)

    def progress_beyond_the_first(self, partition: TopicPartition, records: int) -> None:
        tracker = self.trackers[partition]
        first = tracker.next_offset
        tracker.deliver(first, records)
        tracker.complete_run(first + 1, first + records - 1)
        tracker.attempts[first] = 1
        self.committer.progressed(partition)

    def step_after(self, seconds: float, *, at_once: bool = False) -> None:
        self.time.wait(seconds, lambda: False)
        self.committer.step(at_once=at_once)

    def answer(self, request: Request, errors: Mapping[TopicPartition, str] | None = None) -> None:
        self.requests.remove(request)
        errors = errors or {}
        self.committer.answered([CommitAnswer(one, mark, errors.get(one)) for one, mark in request.marks.items()])

    def commit_now(self, *partitions: TopicPartition, within_s: float = 1.0) -> None:
        until_s = self.time.monotonic_s() + within_s
        self.committer.commit_now(
            partitions, until_s=until_s, meanwhile=lambda s: void(self.time.wait(s, lambda: False))
        )

    def _request(self, marks: Mapping[TopicPartition, OffsetMark]) -> Request:
        assert marks, "an empty commit"
        numbers = {read.request for mark in marks.values() if (read := codec.decode(mark.metadata)) is not None}
        assert len(numbers) == 1, "one request has one number"
        for partition, mark in marks.items():
            assert partition in self.trackers, "an ownership that has ended is committed"
            assert mark.offset == self.trackers[partition].committable
            read = codec.decode(mark.metadata, mark.offset)
            assert read is not None
            assert read.progress == self.trackers[partition].progress()
        return Request(dict(marks), {one: self.trackers[one] for one in marks}, self.time.monotonic_s())

    def _send(self, marks: Mapping[TopicPartition, OffsetMark]) -> None:
        if self.refusing is not None:
            raise ClientError("not sent", code=self.refusing)
        self.requests.append(self._request(marks))

    def _send_now(self, marks: Mapping[TopicPartition, OffsetMark]) -> Sequence[CommitAnswer]:
        request = self._request(marks)
        self.waited_for.append(request)
        error = self.errors_now.pop(0) if self.errors_now else None
        if error == "_WAIT_COORD":
            raise ClientError("no coordinator", code=error)
        return [CommitAnswer(one, mark, error) for one, mark in marks.items()]


def void(_result: object) -> None:
    """Nothing."""


class CommitterMachine(RuleBasedStateMachine):
    """Epochs progress and end while answers come in any order, late, with errors, or never."""

    @initialize()
    def begin(self) -> None:
        self.far = Coordinator()
        self.acked: dict[TopicPartition, int] = {}
        self.sent: dict[OffsetTracker, int] = {}
        self.looked_at: list[Request] = []
        self.in_flight: Request | None = None

    @rule(partition=st.sampled_from(PARTITIONS), start=st.integers(0, 100), announced=st.booleans())
    def own(self, partition: TopicPartition, start: int, *, announced: bool) -> None:
        if partition not in self.far.trackers:
            self.far.own(partition, start, announced=announced)
            self.acked[partition] = start

    @rule(partition=st.sampled_from(PARTITIONS))
    def disown(self, partition: TopicPartition) -> None:
        if partition in self.far.trackers:
            self.far.disown(partition)

    @precondition(lambda self: self.far.trackers)
    @rule(data=st.data(), records=st.integers(1, 15))
    def progress(self, data: st.DataObject, records: int) -> None:
        self.far.progress(self._some_partition(data), records)

    @precondition(lambda self: self.far.trackers)
    @rule(data=st.data(), records=st.integers(2, 9))
    def progress_beyond_a_record_that_waits(self, data: st.DataObject, records: int) -> None:
        self.far.progress_beyond_the_first(self._some_partition(data), records)

    @precondition(lambda self: self.far.trackers)
    @rule(data=st.data())
    def commit_again(self, data: st.DataObject) -> None:
        self.far.committer.commit_again(self._some_partition(data))

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 2.5]), at_once=st.booleans())
    def step(self, seconds: float, *, at_once: bool) -> None:
        self.far.step_after(seconds, at_once=at_once)
        self._look_at_what_was_sent()

    @rule(refusing=st.sampled_from(["_STATE", None]))
    def refuse_to_send(self, refusing: str | None) -> None:
        self.far.refusing = refusing

    @precondition(lambda self: self.far.requests)
    @rule(data=st.data())
    def answer_any(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.far.requests))
        errors = data.draw(st.dictionaries(st.sampled_from(list(request.marks)), st.sampled_from(ERRORS)))
        self._answer(request, errors)

    @precondition(lambda self: self.far.requests)
    @rule(data=st.data())
    def lose_any(self, data: st.DataObject) -> None:
        self.far.requests.remove(data.draw(st.sampled_from(self.far.requests)))

    @precondition(lambda self: self.far.trackers)
    @rule(data=st.data(), errors=st.lists(st.sampled_from([*ERRORS, "_WAIT_COORD"]), max_size=3))
    def commit_now(self, data: st.DataObject, errors: list[str]) -> None:
        partition = self._some_partition(data)
        self.far.errors_now = [*errors]
        tried = len(self.far.waited_for)

        self.far.commit_now(partition)

        succeeded = len(self.far.waited_for) - tried > len(errors)
        if succeeded:
            self.acked[partition] = max(self.acked[partition], self.far.trackers[partition].committable)
        self.far.errors_now.clear()

    @rule()
    def after_the_faults_everything_is_committed(self) -> None:
        self.far.refusing = None
        for request in list(self.far.requests):
            self._answer(request, {})
        for _ in range(4):
            due_s = self.far.committer.next_due_s()
            if due_s is None:
                break
            self.far.step_after(max(0.0, due_s - self.far.time.monotonic_s()))
            self._look_at_what_was_sent()
            for request in list(self.far.requests):
                self._answer(request, {})

        assert self.far.committer.next_due_s() is None
        assert not self.far.committer.unsaved
        assert all(tracker.known == tracker.progress() for tracker in self.far.trackers.values())

    @invariant()
    def committed_is_the_highest_acknowledged_offset_of_the_epoch(self) -> None:
        assert {one: tracker.committed for one, tracker in self.far.trackers.items()} == {
            one: self.acked[one] for one in self.far.trackers
        }

    def _answer(self, request: Request, errors: Mapping[TopicPartition, str]) -> None:
        self.far.answer(request, errors)
        self.in_flight = None if self.in_flight is request else self.in_flight
        for partition, mark in request.marks.items():
            if partition not in errors and self.far.trackers.get(partition) is request.trackers[partition]:
                self.acked[partition] = max(self.acked[partition], mark.offset)

    def _look_at_what_was_sent(self) -> None:
        request = self.far.requests[-1] if self.far.requests else None
        if request is None or request in self.looked_at:
            return
        self.looked_at.append(request)
        earlier = self.in_flight
        assert earlier is None or request.sent_s >= earlier.sent_s + TIMEOUT_S, "two commits are in flight"
        self.in_flight = request
        for partition, mark in request.marks.items():
            tracker = request.trackers[partition]
            assert mark.offset >= self.sent.get(tracker, 0), "an epoch commits backwards"
            self.sent[tracker] = mark.offset

    def _some_partition(self, data: st.DataObject) -> TopicPartition:
        return data.draw(st.sampled_from(sorted(self.far.trackers)))


TestCommitter = CommitterMachine.TestCase
TestCommitter.settings = settings(max_examples=120 * SOAK, stateful_step_count=40)


def test_a_commit_goes_out_once_an_interval_and_only_if_something_moved() -> None:
    far = Coordinator()
    far.own(P0)
    far.progress(P0, 1)

    for _ in range(100):
        far.step_after(INTERVAL_S / 10)
        for request in list(far.requests):
            far.answer(request)

    assert far.reports.answered == [(1, None)]
    assert far.committer.next_due_s() is None


def test_a_quarter_of_the_bound_is_committed_at_once() -> None:
    far = Coordinator()
    far.own(P0)
    far.step_after(0)

    far.progress(P0, MAX_UNCOMMITTED // 4 - 1)
    far.step_after(0)
    assert not far.requests

    far.progress(P0, 1)
    far.step_after(0)
    assert len(far.requests) == 1


def test_that_a_partition_is_in_work_is_committed_at_once() -> None:
    far = Coordinator()
    tracker = far.own(P0, 5, announced=False)
    announced = [tracker.announced]

    far.step_after(0)
    far.answer(far.requests[0])

    assert [*announced, tracker.announced] == [False, True]
    assert tracker.known == Progress(5, running=True)


def test_what_is_done_beyond_a_record_that_waits_is_committed_though_the_offset_stays() -> None:
    far = Coordinator()
    far.own(P0)
    far.step_after(0)
    far.progress_beyond_the_first(P0, 3)
    far.step_after(INTERVAL_S)

    mark = far.requests[0].marks[P0]
    far.answer(far.requests[0])
    far.step_after(INTERVAL_S)

    assert codec.decode(mark.metadata, 0) == codec.Metadata(2, Progress(0, ((1, 2),), {0: 1}, running=True))
    assert not far.requests


def test_an_older_commit_of_the_same_offset_that_was_written_last_is_written_over() -> None:
    far = Coordinator()
    tracker = far.own(P0)
    far.progress_beyond_the_first(P0, 3)
    far.step_after(0)
    far.progress_beyond_the_first(P0, 3)
    far.step_after(TIMEOUT_S)
    older, newer = far.requests

    far.answer(newer)
    far.answer(older)
    far.step_after(INTERVAL_S)

    assert [one.marks[P0].offset for one in far.requests] == [0]
    far.answer(far.requests[0])
    assert tracker.known == tracker.progress()


def test_what_is_done_is_committed_at_once_when_asked() -> None:
    far = Coordinator()
    far.own(P0)
    far.step_after(0)
    far.progress(P0, 1)
    unsaved = [far.committer.unsaved]

    far.step_after(0, at_once=True)
    assert [request.marks[P0].offset for request in far.requests] == [1]
    far.answer(far.requests[0])
    unsaved.append(far.committer.unsaved)

    far.step_after(0, at_once=True)
    assert unsaved == [True, False]
    assert not far.requests


def test_an_epoch_from_the_beginning_of_the_log_has_no_offset_to_commit_again_before_its_first_record() -> None:
    far = Coordinator()
    far.own(P0)
    far.progress(P0, 9)
    far.step_after(0)
    far.disown(P0)
    far.own(P0, start=BEGINNING)

    far.answer(far.requests[0])
    far.step_after(0)

    assert not far.requests


def test_an_answer_that_does_not_come_is_reported_and_the_offset_goes_again() -> None:
    far = Coordinator()
    far.own(P0)
    far.progress(P0, 3)
    far.step_after(0)

    far.step_after(TIMEOUT_S - 0.1)
    assert (len(far.requests), far.reports.unanswered) == (1, 0)

    far.step_after(0.1)
    assert (len(far.requests), far.reports.unanswered) == (2, 1)


@pytest.mark.parametrize("error", [None, "UNKNOWN_MEMBER_ID"])
def test_an_answer_to_an_ended_epoch_says_nothing_of_the_present_one_which_is_committed_again(
    error: str | None,
) -> None:
    far = Coordinator()
    far.own(P0)
    far.progress(P0, 9)
    far.step_after(0)
    far.disown(P0)
    present = far.own(P0, start=7)

    far.answer(far.requests[0], {P0: error} if error else {})
    far.step_after(0)

    assert present.committed == 7
    assert [request.marks[P0].offset for request in far.requests] == [7]


def test_an_error_of_one_partition_does_not_touch_the_other() -> None:
    far = Coordinator()
    far.own(P0)
    far.own(P1)
    far.progress(P0, 3)
    far.progress(P1, 5)
    far.step_after(0)

    far.answer(far.requests[0], {P0: "TOPIC_AUTHORIZATION_FAILED"})
    far.step_after(INTERVAL_S)

    assert far.trackers[P1].committed == 5
    assert [list(request.marks) for request in far.requests] == [[P0]]


def test_a_commit_that_cannot_be_sent_is_reported_as_one_that_took_no_time_and_goes_again_after_the_interval() -> None:
    far = Coordinator()
    far.own(P0)
    far.progress(P0, 3)
    far.refusing = "_STATE"
    far.step_after(0)

    far.refusing = None
    far.step_after(INTERVAL_S / 2)
    assert not far.requests

    far.step_after(INTERVAL_S / 2)
    assert far.reports.answered == [(1, "_STATE")]
    assert [request.marks[P0].offset for request in far.requests] == [3]
    far.time.wait(0.25, lambda: False)
    far.answer(far.requests[0])
    assert far.reports.seconds == [0.0, pytest.approx(0.25)]


def test_the_last_commit_is_tried_again_as_long_as_its_error_passes() -> None:
    far = Coordinator()
    far.own(P0)
    far.progress(P0, 3)
    far.errors_now = ["REBALANCE_IN_PROGRESS", "STALE_MEMBER_EPOCH"]

    far.commit_now(P0)

    assert len(far.waited_for) == 3
    assert far.trackers[P0].committed == 3
    assert far.committer.last_success_s == far.time.monotonic_s()


def test_the_last_commit_is_given_up_at_its_deadline() -> None:
    far = Coordinator()
    far.own(P0)
    far.progress(P0, 3)
    far.errors_now = ["REBALANCE_IN_PROGRESS"] * 1000
    began_s = far.time.monotonic_s()

    far.commit_now(P0, within_s=1.0)

    assert 2 < len(far.waited_for) < 100
    assert 0.5 < far.time.monotonic_s() - began_s <= 1.0
    assert far.trackers[P0].committed == 0


@pytest.mark.parametrize("error", ["UNKNOWN_MEMBER_ID", "_WAIT_COORD"])
def test_the_last_commit_is_not_repeated_after_an_error_that_stays(error: str) -> None:
    far = Coordinator()
    far.own(P0)
    far.progress(P0, 3)
    far.errors_now = [error]

    far.commit_now(P0)

    assert len(far.waited_for) == 1
    assert far.reports.answered == [(1, error)]
    assert far.trackers[P0].committed == 0


def test_that_a_partition_was_given_back_is_said_once_and_not_insisted_upon() -> None:
    far = Coordinator()
    far.own(P0).running = False
    far.errors_now = ["REBALANCE_IN_PROGRESS"] * 1000

    far.commit_now(P0)
    far.step_after(0, at_once=True)
    unsaved = [far.committer.unsaved]
    far.answer(far.requests[0], {P0: "REBALANCE_IN_PROGRESS"})

    assert len(far.waited_for) == 1
    assert [*unsaved, far.committer.unsaved] == [False, False]


def test_the_last_commit_leaves_out_what_is_committed_or_owned_by_nobody() -> None:
    far = Coordinator()
    far.own(P0)

    far.commit_now(P0, P1)

    assert not far.waited_for


def test_a_commit_that_nobody_waits_for_is_sent_once() -> None:
    far = Coordinator()
    far.own(P0)
    far.own(P1)
    far.progress(P0, 3)

    far.committer.send_last(PARTITIONS)

    assert [list(request.marks) for request in far.requests] == [[P0]]


def test_since_when_commits_are_refused_and_when_the_last_one_succeeded() -> None:
    far = Coordinator()
    began_s = far.time.monotonic_s()
    assert (far.committer.last_success_s, far.committer.refused_since_s) == (None, None)
    assert not far.committer.rejoining
    far.own(P0)
    for _ in range(3):
        far.progress(P0, 1)
        far.step_after(INTERVAL_S)
        far.answer(far.requests[0], {P0: "TOPIC_AUTHORIZATION_FAILED"})
    assert far.committer.refused_since_s == began_s + INTERVAL_S
    assert far.committer.last_success_s is None
    assert not far.committer.rejoining

    far.step_after(INTERVAL_S)
    far.answer(far.requests[0], {P0: "REBALANCE_IN_PROGRESS"})
    assert far.committer.rejoining

    far.step_after(INTERVAL_S)
    far.answer(far.requests[0])
    assert far.committer.last_success_s == began_s + 5 * INTERVAL_S
    assert far.committer.refused_since_s is None
    assert not far.committer.rejoining


def test_an_error_that_passes_is_tried_again_soon_and_not_at_once() -> None:
    far = Coordinator()
    far.own(P0)
    far.progress(P0, 1)
    far.step_after(0)
    far.answer(far.requests[0], {P0: "REBALANCE_IN_PROGRESS"})

    far.step_after(0)
    assert not far.requests
    far.step_after(INTERVAL_S / 2)
    assert len(far.requests) == 1


def test_who_waits_for_an_answer_is_known_until_it_has_come_or_its_epoch_has_ended() -> None:
    far = Coordinator()
    far.own(P0, announced=False)
    far.own(P1, announced=False)
    far.step_after(0)
    assert far.committer.awaited is True
    far.disown(P1)
    assert far.committer.awaited is True

    far.answer(far.requests[0])

    assert far.committer.awaited is False


def test_what_work_waits_for_goes_at_once() -> None:
    far = Coordinator()
    far.own(P0)
    far.step_after(0)
    far.progress(P0, 1)
    far.step_after(0)
    assert not far.requests

    far.committer.hurry(P0)
    far.step_after(0)

    assert len(far.requests) == 1


def test_what_is_committed_of_present_epochs_is_told() -> None:
    far = Coordinator()
    for partition in PARTITIONS:
        far.own(partition)
        far.progress(partition, 1)
    far.step_after(0)
    far.own(PARTITIONS[2])
    (request,) = far.requests
    refused = {P1: "TOPIC_AUTHORIZATION_FAILED"}
    answers = [CommitAnswer(one, mark, refused.get(one)) for one, mark in request.marks.items()]

    assert far.committer.answered(answers) == [P0]
    assert far.reports.answered == [(2, None), (1, "TOPIC_AUTHORIZATION_FAILED")]


def test_a_crash_would_repeat_what_no_commit_has_saved() -> None:
    far = Coordinator()
    tracker = far.own(P0)
    assert not far.committer.would_repeat
    far.progress_beyond_the_first(P0, 2)
    assert far.committer.would_repeat
    far.step_after(0)
    far.answer(far.requests[0])
    assert not far.committer.would_repeat

    tracker.running = False  # that it is given back is news, and repeats nothing
    assert not far.committer.would_repeat
    assert far.committer.unsaved

    unknown = far.own(P1, announced=False)
    assert not far.committer.would_repeat
    unknown.deliver(0, 1)
    unknown.complete_run(0, 0)
    assert far.committer.would_repeat


def test_what_does_not_fit_beside_an_offset_is_reported_and_the_partition_counts_as_crowded() -> None:
    far = Coordinator()
    tracker = far.own(P0)
    tracker.deliver(0, 60_000)
    tracker.complete(range(1, 40, 2))
    far.committer.progressed(P0)
    far.step_after(0)
    assert (tracker.crowded, far.reports.cut) == (False, [])
    far.answer(far.requests[0])

    tracker.complete([offset for offset in range(41, 60_000) if offset * offset % 7 == 1])
    far.committer.progressed(P0)
    whole_bytes = codec.encode(2, tracker.progress()).whole_bytes
    with pytest.raises(AssertionError):
        far.step_after(INTERVAL_S)  # the far end finds that something was left out

    assert tracker.crowded
    assert far.reports.cut == [(P0, whole_bytes)]


def test_of_requests_without_an_answer_the_latest_are_remembered() -> None:
    far = Coordinator()
    far.own(P0)
    for _ in range(65):
        far.progress(P0, 1)
        far.step_after(TIMEOUT_S)
    first, *_, last = far.requests

    assert far.committer.answered([CommitAnswer(P0, first.marks[P0], None)]) == []
    assert far.committer.answered([CommitAnswer(P0, last.marks[P0], None)]) == [P0]


def test_answers_to_foreign_commits_are_passed_over() -> None:
    far = Coordinator()
    far.own(P0)

    far.committer.answered([CommitAnswer(P0, OffsetMark(99, text), None) for text in ("", "sw1 q=99", "other")])

    assert far.trackers[P0].committed == 0
