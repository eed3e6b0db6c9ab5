"""Handlers on real threads, alone and under the real scheduler."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from streamworker import BatchHandler, Context, Handler, Ordering, Record, Records, TopicPartition
from streamworker.clock import SystemClock
from streamworker.config import FlowConfig
from streamworker.declaration import declarations
from streamworker.errors import Defect
from streamworker.processing.executor import SliceRunner
from streamworker.processing.pools import Pools
from streamworker.scheduling.scheduler import Scheduler
from streamworker.testing.memory_broker import MemoryMessage
from streamworker.work import Ownership, Slice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streamworker.scheduling.lane import LaneSlice
    from streamworker.work import SliceOutcome

AT = TopicPartition("t", 0)
PATIENCE_S = 10.0

AnyHandlerClass = type[Handler[bytes]] | type[BatchHandler[bytes]]


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval_s)


def pools_of(*handlers: AnyHandlerClass) -> Pools[Slice]:
    declared = declarations(handlers)
    contexts = [Context(app={"name": "value"}, group="g", handler=one.name) for one in declared]
    return Pools(declared, contexts, clock=SystemClock(), max_record_bytes=1000)


def slice_of(count: int, *, handler: int = 0) -> Slice:
    return Slice(handler, Ownership(AT, 1), [MemoryMessage(AT, offset, value=b"v") for offset in range(count)], 1)


def collect(pools: Pools[Slice], count: int) -> list[SliceOutcome[Slice]]:
    outcomes: list[SliceOutcome[Slice]] = []
    while len(outcomes) < count:
        outcomes += found(pools.collect(PATIENCE_S))
    return outcomes


def found(outcomes: Sequence[SliceOutcome[Slice]]) -> Sequence[SliceOutcome[Slice]]:
    assert outcomes, "no outcome came"
    return outcomes


class Life(Handler[bytes]):
    """Notes each step of its life with its thread."""

    topics = ("t",)
    concurrency = 3

    def open(self, context: Context) -> None:
        self.steps = context.shared("steps", list[tuple[str, int, str]])
        self.gate = context.shared("gate", lambda: threading.Barrier(self.concurrency))
        self.note("open")

    def handle(self, record: Record[bytes]) -> None:
        self.gate.wait(PATIENCE_S)
        self.note("handle")

    def close(self) -> None:
        self.note("close")

    def note(self, step: str) -> None:
        self.steps.append((step, id(self), threading.current_thread().name))


def test_each_thread_has_a_name_and_opens_uses_and_closes_an_instance_of_its_own() -> None:
    declared = declarations([Life])
    context = Context(app={}, group="g", handler="Life")
    pools: Pools[Slice] = Pools(declared, [context], clock=SystemClock(), max_record_bytes=1000)

    pools.start()
    for _ in range(2):  # the second time on threads that have worked before; all three must meet each time
        for _ in range(3):
            pools.submit(slice_of(1))
        assert all(outcome.failure is None for outcome in collect(pools, 3))
    assert pools.stop(PATIENCE_S)

    of_thread: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for step, instance, thread in context.shared("steps", list[tuple[str, int, str]]):
        of_thread[thread].append((step, instance))
    assert sorted(of_thread) == ["pool-Life-0", "pool-Life-1", "pool-Life-2"]
    for steps in of_thread.values():
        assert [step for step, _ in steps] == ["open", "handle", "handle", "close"]
        assert len({instance for _, instance in steps}) == 1
    assert len({instance for steps in of_thread.values() for _, instance in steps}) == 3


def test_what_open_raises_is_raised_by_start() -> None:
    class CannotOpen(Life):
        def open(self, context: Context) -> None:
            raise ConnectionError("no database")

    with pytest.raises(ConnectionError, match="no database"):
        pools_of(CannotOpen).start()


def test_what_a_constructor_raises_is_raised_by_start() -> None:
    class CannotBeMade(Life):
        def __init__(self) -> None:
            raise SystemExit(9)

    with pytest.raises(SystemExit):
        pools_of(CannotBeMade).start()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, ValueError])
def test_whatever_a_handler_raises_comes_back_and_the_thread_goes_on(error: type[BaseException]) -> None:
    class Raises(Handler[bytes]):
        topics = ("t",)
        concurrency = 1

        def handle(self, record: Record[bytes]) -> None:
            if record.offset == 1:
                raise error

    pools = pools_of(Raises)
    pools.start()

    pools.submit(slice_of(2))
    [first] = collect(pools, 1)
    pools.submit(slice_of(1))
    [second] = collect(pools, 1)

    assert first.failure is not None
    assert (first.failure.index, type(first.failure.error), first.slice.done) == (1, error, 1)
    assert second.failure is None
    assert pools.stop(PATIENCE_S)


def test_a_slice_whose_ownership_closes_comes_back_after_the_record_in_progress() -> None:
    reached, go_on = threading.Event(), threading.Event()

    class Waits(Handler[bytes]):
        topics = ("t",)
        concurrency = 1

        def handle(self, record: Record[bytes]) -> None:
            reached.set()
            assert go_on.wait(PATIENCE_S)

    pools, slice_ = pools_of(Waits), slice_of(5)
    pools.start()
    pools.submit(slice_)
    assert reached.wait(PATIENCE_S)
    assert slice_.done == 0
    assert slice_.started_s is not None

    slice_.ownership.closing = True
    go_on.set()

    [outcome] = collect(pools, 1)
    assert (outcome.slice, outcome.failure, slice_.done) == (slice_, None, 1)
    assert pools.stop(PATIENCE_S)


def test_a_call_that_does_not_end_is_not_waited_for_longer_than_asked() -> None:
    go_on = threading.Event()

    class Hangs(Handler[bytes]):
        topics = ("t",)
        concurrency = 1

        def handle(self, record: Record[bytes]) -> None:
            go_on.wait(PATIENCE_S)

    pools = pools_of(Hangs)
    pools.start()
    pools.submit(slice_of(1))

    assert not pools.stop(0.01)

    go_on.set()
    assert pools.stop(PATIENCE_S)


class HangsOnce(Handler[bytes]):
    """Its first call lasts until it is told to go on."""

    topics = ("t",)
    concurrency = 1

    def open(self, context: Context) -> None:
        self.began = context.shared("began", threading.Event)
        self.go_on = context.shared("go_on", threading.Event)
        self.closed = context.shared("closed", lambda: threading.Semaphore(0))

    def handle(self, record: Record[bytes]) -> None:
        if not self.began.is_set():
            self.began.set()
            assert self.go_on.wait(PATIENCE_S)

    def close(self) -> None:
        self.closed.release()


def hanging_pools(handler: AnyHandlerClass = HangsOnce) -> tuple[Pools[Slice], Context, Slice]:
    context = Context(app={}, group="g", handler="HangsOnce")
    pools: Pools[Slice] = Pools(declarations([handler]), [context], clock=SystemClock(), max_record_bytes=1000)
    pools.start()
    hangs = slice_of(3)
    pools.submit(hangs)
    assert context.shared("began", threading.Event).wait(PATIENCE_S)
    return pools, context, hangs


def test_a_thread_that_is_replaced_leaves_its_slice_and_its_pool_when_its_call_ends() -> None:
    pools, context, hangs = hanging_pools()

    hangs.given_up = True
    pools.replace(hangs)
    pools.submit(slice_of(2))
    [other] = collect(pools, 1)
    context.shared("go_on", threading.Event).set()
    [late] = collect(pools, 1)

    assert (other.slice.done, late.slice, late.failure, hangs.done) == (2, hangs, None, 1)
    closed = context.shared("closed", lambda: threading.Semaphore(0))
    assert closed.acquire(timeout=PATIENCE_S)
    assert pools.stop(PATIENCE_S)
    assert closed.acquire(timeout=PATIENCE_S)


def test_a_pool_ends_though_a_thread_that_was_replaced_still_hangs() -> None:
    pools, context, hangs = hanging_pools()
    pools.replace(hangs)

    assert pools.stop(PATIENCE_S)

    context.shared("go_on", threading.Event).set()


def test_a_call_that_has_ended_meanwhile_has_no_thread_to_replace() -> None:
    pools, context, hangs = hanging_pools()
    context.shared("go_on", threading.Event).set()
    collect(pools, 1)
    for _ in range(2):  # what a thread has come back with it lays down after it has told of it
        pools.submit(slice_of(1))
        collect(pools, 1)

    before = threading.active_count()
    pools.replace(hangs)

    assert threading.active_count() == before
    assert pools.stop(PATIENCE_S)


def test_a_call_knows_how_long_it_may_go_on_and_only_while_it_lasts() -> None:
    left_s: list[float | None] = []

    class Asks(Handler[bytes]):
        topics = ("t",)
        concurrency = 1

        def open(self, context: Context) -> None:
            self.context = context

        def handle(self, record: Record[bytes]) -> None:
            left_s.append(self.context.remaining_s())

        def close(self) -> None:
            left_s.append(self.context.remaining_s())

    context = Context(app={}, group="g", handler="Asks", timeout_s=100.0)
    pools: Pools[Slice] = Pools(declarations([Asks]), [context], clock=SystemClock(), max_record_bytes=1000)
    pools.start()
    pools.submit(slice_of(1))
    collect(pools, 1)
    assert pools.stop(PATIENCE_S)

    during_s, after_s = left_s
    assert during_s == pytest.approx(100.0, abs=5.0)
    assert after_s is None


def test_an_error_in_close_does_not_keep_the_pool_from_ending() -> None:
    class CannotClose(Life):
        def close(self) -> None:
            raise ConnectionError("gone already")

    pools = pools_of(CannotClose)
    pools.start()

    assert pools.stop(PATIENCE_S)


def test_outcomes_of_all_handlers_come_back_through_one_queue() -> None:
    class First(Handler[bytes]):
        topics = ("first",)

        def handle(self, record: Record[bytes]) -> None:
            pass

    class Second(BatchHandler[bytes]):
        topics = ("second",)

        def handle(self, records: Records[bytes]) -> None:
            assert len(records) == 4

    pools = pools_of(First, Second)
    pools.start()

    pools.submit(slice_of(2, handler=0))
    pools.submit(slice_of(4, handler=1))

    assert sorted((one.slice.handler_number, one.slice.done) for one in collect(pools, 2)) == [(0, 2), (1, 4)]
    assert list(pools.collect(0.0)) == []
    assert pools.stop(PATIENCE_S)


class FirstNeedsSecond(Handler[bytes]):
    """Returns at once, but for offset 1, whose call lasts until offset 2 was handled."""

    topics = ("t",)
    concurrency = 2

    def open(self, context: Context) -> None:
        self.second = context.shared("second", threading.Event)

    def handle(self, record: Record[bytes]) -> None:
        if record.offset == 1:
            assert self.second.wait(PATIENCE_S)
        if record.offset == 2:
            self.second.set()


def test_a_slice_behind_a_call_that_lasts_is_begun_by_another_thread_though_the_handler_was_quick() -> None:
    pools = pools_of(FirstNeedsSecond)
    pools.start()
    ownership = Ownership(AT, 1)
    for offset in (0, 3, 4):
        pools.submit(Slice(0, ownership, [MemoryMessage(AT, offset, value=b"v")], 1))
        collect(pools, 1)
    for offset in (1, 2):
        pools.submit(Slice(0, ownership, [MemoryMessage(AT, offset, value=b"v")], 1))
    outcomes = collect(pools, 2)
    assert [outcome.failure for outcome in outcomes] == [None, None]
    assert [outcome.slice.messages[0].offset() for outcome in outcomes] == [2, 1]
    assert pools.stop(PATIENCE_S)


class Race:
    """Records of several keys and partitions on their way through the scheduler and real threads."""

    RECORDS, KEYS, PARTITIONS, CONCURRENCY = 600, 7, 3, 6

    def __init__(self, ordering: Ordering) -> None:
        self.handled: list[tuple[TopicPartition, bytes, int]] = []
        self.busy: set[object] = set()
        self.overlaps: list[object] = []
        self.out: list[LaneSlice] = []
        self.back: list[LaneSlice] = []
        race = self

        class Runner(Handler[bytes]):
            topics = ("t",)
            concurrency = Race.CONCURRENCY

            def handle(self, record: Record[bytes]) -> None:
                race.handle(record)

        Runner.ordering = ordering
        self.ordering = ordering
        declared = declarations([Runner])
        contexts = [Context(app={}, group="g", handler="Runner")]
        self.pools: Pools[LaneSlice] = Pools(declared, contexts, clock=SystemClock(), max_record_bytes=1000)
        self.scheduler = Scheduler(
            handler_number=0,
            ordering=ordering,
            concurrency=Race.CONCURRENCY,
            lanes=4,
            batch=None,
            flow=FlowConfig(max_slice=5),
            limit=lambda _: 10**9,
            attempts=lambda _: {},
        )

    def handle(self, record: Record[bytes]) -> None:
        partition, key = TopicPartition(record.topic, record.partition), record.raw_key or b""
        domain = {Ordering.PARTITION: partition, Ordering.KEY: (partition, key)}.get(self.ordering)
        if domain is not None:
            if domain in self.busy:
                self.overlaps.append(domain)
            self.busy.add(domain)
        self.handled.append((partition, key, record.offset))
        self.busy.discard(domain)

    def run(self) -> None:
        partitions = [TopicPartition("t", number) for number in range(self.PARTITIONS)]
        self.pools.start()
        for number, partition in enumerate(partitions):
            self.scheduler.own(Ownership(partition, number + 1))
        clock = SystemClock()
        for first in range(0, self.RECORDS, 20):
            for partition in partitions:
                messages = [
                    MemoryMessage(partition, offset, key=b"k%d" % (offset * 31 % self.KEYS), value=b"v")
                    for offset in range(first, first + 20)
                ]
                self.scheduler.offer(partition, messages, max(map(len, messages)), clock.monotonic_s())
            self._exchange(0.0)
        while len(self.back) < len(self.out):
            self._exchange(PATIENCE_S)
        assert self.pools.stop(PATIENCE_S)

    def _exchange(self, timeout_s: float) -> None:
        self._submit_all()
        for outcome in self.pools.collect(timeout_s):
            assert outcome.failure is None, outcome.failure
            self.back.append(outcome.slice)
            self.scheduler.sizer.measured(len(outcome.slice.messages), outcome.seconds)
            self.scheduler.finish(outcome.slice, outcome.slice.messages[outcome.slice.done :])
        self._submit_all()

    def _submit_all(self) -> None:
        while (slice_ := self.scheduler.take(SystemClock.monotonic_s())) is not None:
            self.out.append(slice_)
            self.pools.submit(slice_)


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize("ordering", Ordering)
@pytest.mark.parametrize("_time", range(5))
def test_every_slice_comes_back_once_and_the_order_of_a_lane_is_kept(ordering: Ordering, _time: int) -> None:
    race = Race(ordering)

    race.run()

    assert sorted(map(id, race.out)) == sorted(map(id, race.back))
    assert len(race.handled) == len(set(race.handled)) == Race.RECORDS * Race.PARTITIONS
    assert race.overlaps == []
    in_order: dict[object, list[int]] = defaultdict(list)
    for partition, key, offset in race.handled:
        in_order[partition if ordering is Ordering.PARTITION else (partition, key)].append(offset)
    if ordering is not Ordering.UNORDERED:
        assert all(offsets == sorted(offsets) for offsets in in_order.values())


def test_a_failure_outside_of_the_call_is_a_defect_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(SliceRunner, "run", fails)
    pools = pools_of(Life)
    pools.start()
    pools.submit(slice_of(1))

    (outcome,) = collect(pools, 1)

    assert pools.stop(PATIENCE_S)
    assert outcome.failure is not None
    assert isinstance(outcome.failure.error, Defect)
    assert "in fails" in outcome.failure.error.__notes__[0]
