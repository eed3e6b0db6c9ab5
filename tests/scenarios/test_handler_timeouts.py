"""Calls that run for longer than their handler's timeout: edge case 47."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, ClassVar

import pytest
from scenarios.worlds import IN, OTHER, handled, headers_of, make_world, obey, produce

from streamworker import BatchHandler, Breaker, Context, DeadLetter, Handler, HandlerTimeout, Ordering, Retry
from streamworker.config import LifecycleConfig
from streamworker.events import Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from streamworker import Record, Records, TopicPartition
    from streamworker.testing.virtual_world import Member
    from streamworker.work import Slice

LEFT_S: list[float | None] = []


@pytest.fixture(autouse=True)
def left_s() -> list[float | None]:
    LEFT_S.clear()
    return LEFT_S


class Timed(Handler[bytes]):
    """A call may take a second."""

    topics: ClassVar[Sequence[str]] = ("in",)
    ordering: ClassVar[Ordering | str] = Ordering.KEY
    concurrency = 2
    lanes = 4
    timeout_s = 1.0
    retry = Retry(attempts=3, base_s=0.1, cap_s=0.5)
    dead_letter = DeadLetter("dlq")

    def open(self, context: Context) -> None:
        self.context = context

    def handle(self, record: Record[bytes]) -> None:
        LEFT_S.append(self.context.remaining_s())
        obey(record)


class TimedInOrder(Timed):
    """The same with one lane per partition."""

    ordering = Ordering.PARTITION


class TimedBatches(BatchHandler[bytes]):
    """The same for batches."""

    topics: ClassVar[Sequence[str]] = ("in",)
    concurrency = 2
    timeout_s = 1.0
    retry = Retry(attempts=3, base_s=0.1, cap_s=0.5)
    dead_letter = DeadLetter("dlq")

    def handle(self, records: Records[bytes]) -> None:
        for record in records:
            obey(record)


class Guarded(Timed):
    """It needs something."""

    breaker = Breaker("db", in_a_row=2, jitter=0.0)


class Untimed(Timed):
    """It has no timeout of its own."""

    timeout_s = None


def hanging(calls: int, seconds: float) -> Callable[[Slice], float]:
    """The first `calls` slices with a record `hang` take so long; all others a millisecond."""
    left = [calls]

    def duration_s(slice_: Slice) -> float:
        if left[0] and any(message.value() == b"hang" for message in slice_.messages):
            left[0] -= 1
            return seconds
        return 0.001

    return duration_s


def errors(member: Member) -> set[type[BaseException]]:
    return {type(error) for _, _, error, _, _ in member.story.failures}


def test_a_call_over_its_time_has_failed_and_its_record_goes_again() -> None:
    world = make_world()
    produce(world, b"hang", b"ok", key=b"a")
    member = world.start(Timed, duration_s=hanging(1, 30.0))

    world.run_to_end("in", timeout_s=5.0)

    assert errors(member) == {HandlerTimeout}
    assert [(effect.offset, effect.attempt) for effect in world.effects] == [(0, 2), (1, 1)]
    assert member.story.write_offs == [(IN, 0)]


def test_what_comes_after_the_timeout_counts_for_nothing_and_is_settled_once() -> None:
    world = make_world()
    produce(world, b"hang", b"ok", key=b"a")
    member = world.start(Timed, duration_s=hanging(1, 3.0), eager=lambda: True)
    world.run_to_end("in", timeout_s=2.5)
    records = sum(count for _, _, _, count in member.story.endings)

    world.run_for(3.0)

    assert member.story.late_calls == 1
    assert sum(count for _, _, _, count in member.story.endings) == records
    assert member.worker.backpressure.records == 0
    assert world.stop(member) == 0


def test_records_that_were_handed_over_with_it_are_neither_lost_nor_started_by_the_old_thread() -> None:
    world = make_world()
    produce(world, *[b"ok"] * 30, b"hang", *[b"ok"] * 30, key=b"a")
    member = world.start(Timed, duration_s=hanging(1, 3.0))

    world.run_to_end("in", timeout_s=5.0)
    world.run_for(5.0)

    assert sorted(effect.offset for effect in world.effects) == list(range(61))
    assert member.story.late_calls == 1


class MovesOn(Listener):
    """Stands for a thread whose call ends while the loop settles it as overdue."""

    def __init__(self) -> None:
        self.slices: Callable[[], Iterable[Slice]] = tuple

    def written_off(self, handler: str, partition: TopicPartition, offset: int, seconds: float) -> None:
        for slice_ in self.slices():
            slice_.done += 1


def test_a_call_that_ends_while_it_is_settled_as_overdue_loses_no_record() -> None:
    world, thread = make_world(), MovesOn()
    produce(world, b"hang", b"ok", key=b"a")
    member = world.start(Timed, duration_s=hanging(1, 3.0), listeners=[thread])
    thread.slices = lambda: tuple(member.worker.overdue.written_off)

    world.run_to_end("in", timeout_s=5.0)

    assert [(effect.offset, effect.attempt) for effect in world.effects] == [(0, 2), (1, 1)]


def test_a_record_whose_calls_all_time_out_is_dead_lettered_after_its_attempts() -> None:
    world = make_world()
    produce(world, b"hang", b"ok", key=b"a")
    world.start(Timed, duration_s=hanging(99, 2.0))

    world.run_to_end("in", timeout_s=20.0)

    letter = headers_of(world, 0)
    assert (letter["sw-reason"], letter["sw-attempts"]) == ("exhausted", "3")


def test_a_batch_over_its_time_goes_again_as_a_whole() -> None:
    world = make_world()
    produce(world, b"hang", b"ok", b"ok")
    world.start(TimedBatches, duration_s=hanging(1, 30.0))

    world.run_to_end("in", timeout_s=5.0)

    assert [(effect.offset, effect.attempt) for effect in world.effects] == [(0, 2), (1, 2), (2, 2)]


def test_the_breaker_of_the_handler_counts_a_timeout_as_its_dependency_s() -> None:
    world = make_world()
    produce(world, b"hang", b"hang", b"ok", key=b"a")
    member = world.start(Guarded, duration_s=hanging(2, 30.0))

    world.run_to_end("in", timeout_s=60.0)

    assert ("db", "closed", "open") in [change[:3] for change in member.story.breaker_changes]
    assert handled(world) == [0, 1, 2]


def test_a_handler_with_all_its_threads_written_off_gets_nothing_until_one_returns() -> None:
    world = make_world()
    for key in (b"a", b"b", b"c", b"d"):
        produce(world, b"hang", key=key)
    member = world.start(Timed, duration_s=hanging(4, 10.0))

    world.run_for(5.0)
    written_off, pauses = len(member.story.write_offs), [reason for _, reason in member.story.pauses]
    world.run_to_end("in", timeout_s=60.0)

    assert written_off == Timed.concurrency
    assert pauses == ["calls_written_off"]
    assert sorted(handled(world)) == [0, 1, 2, 3]


def test_other_keys_go_on_while_a_call_is_written_off() -> None:
    world = make_world()
    produce(world, b"hang", key=b"a")
    produce(world, *[b"ok"] * 20, key=b"b")
    world.start(Timed, duration_s=hanging(1, 60.0))

    world.run_for(3.0)

    assert sorted(handled(world)) == list(range(21))


def test_a_call_whose_partition_has_gone_gives_its_thread_back() -> None:
    lifecycle = LifecycleConfig(revoke_timeout_s=0.0)
    world = make_world(2, lifecycle=lifecycle)
    produce(world, b"hang", key=b"a")
    produce(world, b"hang", partition=1, key=b"a")
    first = world.start(TimedInOrder, duration_s=hanging(2, 20.0))
    world.run(lambda: len(first.worker.running) == 2)
    world.start(TimedInOrder)

    world.run_to_end("in", timeout_s=40.0)

    assert sorted(first.story.write_offs) == [(IN, 0), (OTHER, 0)]
    assert first.story.late_records == 1
    assert not first.worker.running


def test_the_hard_limit_of_the_process_holds_for_calls_that_are_written_off() -> None:
    world = make_world()
    produce(world, b"hang", key=b"a")
    member = world.start(Timed, duration_s=hanging(1, 60.0))

    world.run_for(3.0)

    (began_s,) = member.worker.overdue.written_off.values()
    assert world.time.monotonic_s() - began_s == pytest.approx(3.0, abs=0.1)


def test_a_call_is_told_how_long_it_may_go_on(left_s: list[float | None]) -> None:
    world = make_world()
    produce(world, b"ok")
    world.start(Timed)

    world.run_to_end("in")

    assert left_s == [pytest.approx(1.0, abs=0.01)]


def test_without_a_timeout_a_call_may_go_on_until_others_may_own_its_partition(left_s: list[float | None]) -> None:
    world = make_world()
    produce(world, b"ok")
    world.start(Untimed)

    world.run_to_end("in")

    session_s = world.config.kafka.session_timeout_s
    assert left_s == [pytest.approx(session_s, abs=1.0)]


def test_a_call_that_begins_while_the_worker_drains_is_to_be_through_by_its_end(left_s: list[float | None]) -> None:
    world = make_world(lifecycle=LifecycleConfig(drain_timeout_s=20.0))
    produce(world, b"ok")
    member = world.start(Untimed, duration_s=lambda _slice: 2.0)
    world.run(lambda: bool(member.worker.running))

    world.stop(member)

    assert left_s == [pytest.approx(18.0, abs=0.1)]


def test_outside_of_a_call_there_is_no_deadline() -> None:
    context = Context(app={}, group="g", handler="h", timeout_s=1.0)

    deadline_s, left_s, capped_s = context.deadline_s(), context.remaining_s(), context.remaining_s(2.5)

    assert (deadline_s, left_s, capped_s) == (inf, None, 2.5)
