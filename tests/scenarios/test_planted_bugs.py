"""The oracle finds planted bugs: a simulation that cannot fail proves nothing.

The first tests plant what people get wrong; the others, for each check of the oracle, a bug that it alone finds.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import msgspec
import pytest
from scenarios.oracle import CHECKS
from scenarios.schedule import Fault, Strike, draw_schedule
from scenarios.simulation import broken_promises

from streamworker import Ending, Ordering
from streamworker.dlq.writer import DeadLetterWriter
from streamworker.endings import Endings
from streamworker.interfaces import Fetched, OffsetMark
from streamworker.letters import Letters
from streamworker.offsets.committer import Committer
from streamworker.offsets.tracker import OffsetTracker
from streamworker.parking import Parking
from streamworker.partitions import Partitions
from streamworker.processing import executor
from streamworker.rebalance import Rebalancing
from streamworker.scheduling import scheduler
from streamworker.scheduling.scheduler import Scheduler
from streamworker.settlement import Settlement
from streamworker.source.assignment import Assignment
from streamworker.source.flow import PauseReason
from streamworker.testing import virtual_executor
from streamworker.testing.memory_source import MemorySource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from scenarios.schedule import Schedule

    from streamworker.declaration import Declaration
    from streamworker.dlq.envelope import Envelope
    from streamworker.handler import AnyHandler, Call
    from streamworker.interfaces import CommitAnswer
    from streamworker.offsets.committer import _Carried
    from streamworker.offsets.progress import Progress
    from streamworker.partition import Partition
    from streamworker.record import Message, TopicPartition
    from streamworker.resilience.breaker import Permit
    from streamworker.resilience.verdict import Verdict
    from streamworker.scheduling.lane import Held, Lane, LaneSlice
    from streamworker.stages import HandlerStages
    from streamworker.work import Failure, Ownership, SliceOutcome

_HANDFUL, _FEW = 50, 6


def unchanged(schedule: Schedule) -> Schedule:
    return schedule


def complaints(change: Callable[[Schedule], Schedule], seeds: int) -> Iterator[str]:
    """The checks that complain of the first few seeds, one after the other."""
    for seed in range(1, 1 + seeds):
        for sentence in broken_promises(change(draw_schedule(seed))):
            yield sentence.partition(":")[0]


def found_by(*checks: str, change: Callable[[Schedule], Schedule] = unchanged) -> bool:
    """Whether one of these checks complains of one of a handful of seeds."""
    return any(check in checks for check in complaints(change, _HANDFUL))


def test_committing_what_was_fetched_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OffsetTracker, "committable", property(lambda self: self.next_offset))

    assert found_by("lost", "early_commit")


def test_committing_one_too_far_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = vars(OffsetTracker)["committable"].fget
    monkeypatch.setattr(OffsetTracker, "committable", property(lambda self: min(sound(self) + 1, self.next_offset)))

    assert found_by("lost", "early_commit")


def test_spreading_a_key_over_lanes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = count()
    monkeypatch.setattr(scheduler, "crc32", lambda _key: next(numbers))

    assert found_by("disorder", "key_overlap")


def test_committing_before_the_dead_letter_is_acknowledged_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plant_done_before_its_letter(monkeypatch)

    assert found_by("lost", "early_commit")


def test_records_that_the_client_drops_when_a_callback_fails_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = MemorySource.fetch

    def fetch(self: MemorySource, max_records: int, timeout_s: float) -> Fetched:
        fetched = sound(self, max_records, timeout_s)
        return Fetched((), fetched.faults, fetched.commits) if fetched.commits else fetched

    monkeypatch.setattr(MemorySource, "fetch", fetch)

    assert found_by("lost")


def test_going_on_where_a_partition_was_left_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    own, end = Partitions.own, Partitions.end
    reached: dict[tuple[int, TopicPartition], int] = {}

    def remember(self: Partitions, keys: Iterable[TopicPartition]) -> None:
        keys = list(keys)
        for key in keys:
            partition = self.get(key)
            if partition is not None:
                reached[id(self), key] = partition.tracker.next_offset
        end(self, keys)

    def reuse(
        self: Partitions,
        key: TopicPartition,
        *,
        handler: HandlerStages,
        start_offset: int | None,
        progress: Progress | None = None,
        topic_id: str = "",
    ) -> Partition:
        known = None if start_offset is None else max(start_offset, reached.get((id(self), key), 0))
        return own(self, key, handler=handler, start_offset=known, progress=progress, topic_id=topic_id)

    monkeypatch.setattr(Partitions, "end", remember)
    monkeypatch.setattr(Partitions, "own", reuse)

    assert found_by("lost")


def test_accepting_the_outcome_of_an_ended_ownership_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = Settlement.settle

    def settle(self: Settlement, outcome: SliceOutcome[LaneSlice]) -> None:
        present = self._partitions.get(outcome.slice.ownership.partition)
        if present is not None:
            outcome.slice.ownership = present.ownership
        sound(self, outcome)

    monkeypatch.setattr(Settlement, "settle", settle)

    # What it marks as done in the present ownership was not delivered there: the books no longer add up.
    assert found_by("lost", "early_commit", "crashed", change=only(*EXPULSIONS, call_s=0.2))


def test_leaving_an_older_offset_that_the_client_has_written_over_a_newer_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound = Committer._settle_one

    def settle_one(self: Committer, carried: _Carried | None, answer: CommitAnswer) -> None:
        if carried is None or answer.mark.offset >= carried.tracker.committed:
            sound(self, carried, answer)

    monkeypatch.setattr(Committer, "_settle_one", settle_one)

    resent = Strike(at_s=0.0, for_s=60.0, rate=0.5, fault=Fault.COMMITS_RESENT, amount=3.0)
    assert found_by("stuck", change=only(resent))


def test_dropping_the_neighbours_of_a_poison_in_a_batch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = Letters.dead_letter

    def dead_letter(
        self: Letters, partition: Partition, message: Message, verdict: Verdict, error: BaseException, attempt: int
    ) -> None:
        for lane in partition.lanes.lanes:
            for held in [held for held in lane.held if held.parts]:
                lane.held.remove(held)
                self._endings.complete(partition, [held.messages], Ending.HANDLED, 0.0)
        sound(self, partition, message, verdict, error, attempt)

    monkeypatch.setattr(Letters, "dead_letter", dead_letter)

    assert found_by("lost", change=only(poison=0.05, batch_records=50))


def test_a_commit_without_what_belongs_beside_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edge case 15b. It erases what an earlier commit of the same offset has said."""
    sound = Rebalancing.commit

    def commit(self: Rebalancing, keys: Sequence[TopicPartition], until_s: float) -> None:
        sound(self, keys, until_s)
        bare = {one.key: OffsetMark(one.tracker.committable) for one in self._partitions if one.key in keys}
        self._source().commit_now(bare)

    monkeypatch.setattr(Rebalancing, "commit", commit)

    change = only(*RESTARTS, revoke_timeout_s=5.0, flaky=0.3, retry_cap_s=2.0, attempts=8, batch_records=0)
    assert found_by("needless_repeat", change=change)


def plant_nothing_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed record counts as done."""

    def drop(
        self: Settlement,
        partition: Partition,
        slice_: LaneSlice,
        failure: Failure,
        left: Sequence[Message],
        _permit: Permit | None,
    ) -> None:
        self._endings.complete(partition, [left], Ending.SKIPPED, 0.0)
        partition.handler.scheduler.finish(slice_)

    monkeypatch.setattr(Settlement, "_settle_failure", drop)


def plant_done_before_its_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record counts as done when its dead letter is on its way."""
    sound = DeadLetterWriter.write

    def write(self: DeadLetterWriter, envelope: Envelope, on_done: Callable[[], None]) -> None:
        on_done()
        sound(self, envelope, lambda: None)

    monkeypatch.setattr(DeadLetterWriter, "write", write)


def plant_one_more_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """When all is done, the offset after the next one is committed."""
    sound = vars(OffsetTracker)["committable"].fget
    monkeypatch.setattr(
        OffsetTracker,
        "committable",
        property(lambda self: sound(self) + (self.next_offset > 0 and sound(self) == self.next_offset)),
    )


def plant_an_old_offset_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each third commit of a partition is that of two commits ago."""
    sound = Committer._carry
    sent: defaultdict[tuple[Committer, TopicPartition], list[int]] = defaultdict(list)

    def carry(self: Committer, partition: TopicPartition, tracker: OffsetTracker) -> _Carried:
        carried, offsets = sound(self, partition, tracker), sent[self, partition]
        offsets.append(carried.mark.offset)
        if len(offsets) % 3:
            return carried
        return replace(carried, mark=OffsetMark(offsets[-3], carried.mark.metadata))

    monkeypatch.setattr(Committer, "_carry", carry)


def plant_nobody_waits_for_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later records of a key go on while one of it waits for its next try."""
    sound = Scheduler._keep

    def keep(self: Scheduler, lane: Lane, held: Held) -> None:
        sound(self, lane, held)
        lane.held_keys.clear()

    monkeypatch.setattr(Scheduler, "_keep", keep)


def plant_calls_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler is called again with what it has handled."""
    sound = executor.guarded_call

    def call_twice(declaration: Declaration, handler: AnyHandler) -> Call:
        call = sound(declaration, handler)
        return lambda argument: (call(argument), call(argument))

    monkeypatch.setattr(virtual_executor, "guarded_call", call_twice)


def plant_two_slices_of_a_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane is cut while a slice of it is out."""
    sound = Scheduler._cut

    def cut(self: Scheduler, lane: Lane, now_s: float, most: int | None) -> LaneSlice | None:
        out, lane.out = lane.out, 0
        slice_ = sound(self, lane, now_s, most)
        lane.out = out
        return slice_

    monkeypatch.setattr(Scheduler, "_cut", cut)


def plant_threads_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are not told that an ownership closes."""
    close, end = Assignment.close, Assignment.end

    def open_again(ownerships: Sequence[Ownership]) -> Sequence[Ownership]:
        for ownership in ownerships:
            ownership.closing = False
        return ownerships

    monkeypatch.setattr(Assignment, "close", lambda self, keys: open_again(close(self, keys)))
    monkeypatch.setattr(Assignment, "end", lambda self, keys: open_again(end(self, keys)))


def plant_one_attempt_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries are counted from none."""
    sound = Settlement._judge

    def judge(self: Settlement, slice_: LaneSlice, error: BaseException, *, attempts: int) -> Verdict:
        return sound(self, slice_, error, attempts=attempts + 1)

    monkeypatch.setattr(Settlement, "_judge", judge)


def plant_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records go on however much is not committed."""
    monkeypatch.setattr(OffsetTracker, "limit", lambda self, _max_uncommitted: self.next_offset)


def plant_a_short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier owner did beyond its offset is not read."""

    def remember(self: OffsetTracker, progress: Progress) -> None:
        self.known = progress

    monkeypatch.setattr(OffsetTracker, "remember", remember)


def plant_no_last_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition is given back without a commit."""
    monkeypatch.setattr(Rebalancing, "commit", lambda _self, _keys, _until_s: None)


def plant_counting_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handled is reported twice."""
    sound = Endings.complete

    def complete(
        self: Endings, partition: Partition, messages: Sequence[Message], ending: Ending, seconds: float
    ) -> None:
        sound(self, partition, messages, ending, seconds)
        self._listener.ended("", partition.key, ending, len(messages), seconds)

    monkeypatch.setattr(Endings, "complete", complete)


def plant_no_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that was refused is not made again."""
    sound = Committer._settle_one

    def settle_one(self: Committer, carried: _Carried | None, answer: CommitAnswer) -> None:
        if answer.error is None:
            sound(self, carried, answer)

    monkeypatch.setattr(Committer, "_settle_one", settle_one)


def plant_done_before_its_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead letter is done when it is acknowledged, whether or not its key is parked."""
    sound = Parking.park

    def park(self: Parking, partition: Partition, message: Message, then: Callable[[], None]) -> None:
        then()
        sound(self, partition, message, lambda: None)

    monkeypatch.setattr(Parking, "park", park)


def plant_notes_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An assigned partition goes on before it is known which of its keys are parked."""
    sound = Parking.begin

    def begin(self: Parking, partition: Partition) -> None:
        sound(self, partition)
        if self._reading.pop(partition.ownership, None) is not None:
            self._partitions.release(partition, PauseReason.PARKED_KEYS_UNREAD)

    monkeypatch.setattr(Parking, "begin", begin)


def plant_letters_are_never_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition has always a letter under way."""
    monkeypatch.setattr(DeadLetterWriter, "outstanding", lambda _self, _key: 1)


def plant_a_forgotten_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    """The committer is not told of new ownerships."""
    monkeypatch.setattr(Committer, "own", lambda _self, _partition, _tracker: None)


def only(*strikes: Strike, **changes: float | str | Ordering) -> Callable[[Schedule], Schedule]:
    """A run with the seed's traffic in which only this happens, in a setting that is well but for the changes."""

    def change(schedule: Schedule) -> Schedule:
        traffic = schedule.only(Fault.PRODUCE).set(poison=0.0, undecodable=0.0, skipped=0.0, flaky=0.0)
        struck = msgspec.structs.replace(traffic, strikes=(*traffic.strikes, *strikes))
        return struck.set(on_exhausted="dlq", start="earliest", breaker=False).set(**changes)

    return change


def one_burst(schedule: Schedule) -> Schedule:
    """A run in which all records are there before the first is fetched."""
    burst = Strike(at_s=0.0, fault=Fault.PRODUCE, amount=30)
    return msgspec.structs.replace(only(max_inflight=10_000)(schedule), strikes=(burst,))


EXPULSIONS = [Strike(at_s=0.3 * number, fault=Fault.EXPEL, which=number) for number in range(1, 6)]
RESTARTS = [Strike(at_s=0.13 * number, fault=Fault.RESTART, which=number) for number in range(1, 20)]
ALONE: Mapping[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[Schedule], Schedule]]] = {
    "lost": (plant_nothing_is_retried, only(flaky=0.1, ordering=Ordering.UNORDERED)),
    "early_commit": (
        plant_done_before_its_letter,
        only(Strike(at_s=0.0, for_s=6.0, fault=Fault.LETTERS_REFUSED, error="_MSG_TIMED_OUT"), poison=0.1),
    ),
    "commit_past_end": (plant_one_more_at_the_end, one_burst),
    "commit_regress": (plant_an_old_offset_now_and_then, only(commit_interval_s=0.05)),
    "disorder": (plant_nobody_waits_for_a_retry, only(flaky=0.3, attempts=3, ordering=Ordering.KEY)),
    "epoch_order": (plant_calls_twice, only()),
    "unparked": (
        plant_done_before_its_note,
        only(
            Strike(at_s=0.0, for_s=6.0, fault=Fault.LETTERS_REFUSED, error="_MSG_TIMED_OUT"),
            poison=0.1,
            on_exhausted="dlq_key",
            ordering=Ordering.KEY,
        ),
    ),
    "overtaken_letter": (
        plant_notes_are_not_waited_for,
        only(*RESTARTS, poison=0.1, on_exhausted="dlq_key", ordering=Ordering.KEY, call_s=0.0002, members=2),
    ),
    "key_overlap": (plant_two_slices_of_a_lane, only(eager=1.0, ordering=Ordering.KEY, call_s=0.2, batch_records=0)),
    "foreign_call": (
        plant_threads_go_on,
        only(
            Strike(at_s=0.0, fault=Fault.PRODUCE, amount=100),
            Strike(at_s=0.2, for_s=4.0, fault=Fault.HANG),
            Strike(at_s=0.2, fault=Fault.PRODUCE, amount=100),
            Strike(at_s=1.0, fault=Fault.JOIN),
            revoke_timeout_s=0.0,
            call_s=0.0001,
            batch_records=0,
            max_slice=500,
            members=1,
            partitions=4,
        ),
    ),
    "attempts": (plant_one_attempt_more, only(flaky=0.3, batch_records=0)),
    "repeats": (
        plant_no_bound,
        only(
            Strike(at_s=0.5, for_s=6.0, fault=Fault.COMMITS_FAIL, error="_TRANSPORT"),
            Strike(at_s=2.0, fault=Fault.CRASH),
            Strike(at_s=2.0, fault=Fault.JOIN),
            max_uncommitted=8,
        ),
    ),
    "forgotten": (
        plant_a_short_memory,
        only(
            *(Strike(at_s=2.0 * number, fault=Fault.CRASH, which=number) for number in range(1, 4)),
            *(Strike(at_s=2.0 * number, fault=Fault.JOIN) for number in range(1, 4)),
            flaky=0.3,
            attempts=8,
            retry_cap_s=2.0,
            call_s=0.01,
            batch_records=0,
            ordering=Ordering.KEY,
            commit_interval_s=0.05,
        ),
    ),
    "needless_repeat": (
        plant_no_last_commit,
        only(*RESTARTS, revoke_timeout_s=5.0, max_uncommitted=16_384, commit_interval_s=1.0, call_s=0.01),
    ),
    "miscount": (plant_counting_twice, only()),
    "stuck": (
        plant_no_second_try,
        only(Strike(at_s=0.0, for_s=60.0, fault=Fault.COMMITS_FAIL, error="NOT_COORDINATOR")),
    ),
    "exit": (plant_letters_are_never_through, only()),
    "crashed": (plant_a_forgotten_partition, only()),
}


@pytest.mark.parametrize("check", ALONE)
def test_each_check_finds_a_bug_that_no_other_finds(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, change = ALONE[check]

    plant(monkeypatch)

    assert set(complaints(change, _FEW)) == {check}


def test_no_check_is_without_its_bug() -> None:
    assert CHECKS.keys() <= ALONE.keys()
