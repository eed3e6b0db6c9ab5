"""Async handlers on a real event loop: one instance, tasks at once, and a cancellation that is never a success."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, ClassVar, Self

import pytest

from streamworker import (
    BatchFailed,
    BatchHandler,
    Breaker,
    Bulkhead,
    BulkheadFull,
    CircuitOpen,
    Context,
    DeadLetter,
    Handler,
    Record,
    Records,
    TopicPartition,
)
from streamworker.clock import SystemClock
from streamworker.declaration import declaration, declarations
from streamworker.errors import CallCancelled, ConfigurationError, DecodeError, FatalError, Misuse
from streamworker.processing import event_loops
from streamworker.processing.pools import Pools
from streamworker.resilience.breaker import BreakerState, CircuitBreaker
from streamworker.resilience.guard import Granted, Guard
from streamworker.testing.memory_broker import MemoryMessage
from streamworker.work import Ownership, Slice

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from streamworker.work import SliceOutcome

AT = TopicPartition("t", 0)
PATIENCE_S = 10.0

AnyHandlerClass = type[Handler[bytes]] | type[BatchHandler[bytes]]


class Running:
    """Pools at work until the end of the block."""

    def __init__(self, *handlers: AnyHandlerClass) -> None:
        declared = declarations(handlers)
        self.contexts = [Context(app={}, group="g", handler=one.name, timeout_s=one.timeout_s) for one in declared]
        self.pools: Pools[Slice] = Pools(declared, self.contexts, clock=SystemClock(), max_record_bytes=1000)

    def __enter__(self) -> Self:
        self.pools.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.pools.stop(PATIENCE_S)

    def run(self, *slices: Slice) -> list[SliceOutcome[Slice]]:
        """Submit slices and wait for all."""
        for one in slices:
            self.pools.submit(one)
        outcomes: list[SliceOutcome[Slice]] = []
        while len(outcomes) < len(slices):
            found = self.pools.collect(PATIENCE_S)
            assert found, "no outcome came"
            outcomes += found
        return outcomes


def slice_of(*values: bytes, handler: int = 0) -> Slice:
    messages = [MemoryMessage(AT, offset, value=value) for offset, value in enumerate(values)]
    return Slice(handler, Ownership(AT, 1), messages, 1)


def failure_of(outcome: SliceOutcome[Slice]) -> tuple[int | None, type[BaseException]]:
    assert outcome.failure is not None
    return outcome.failure.index, type(outcome.failure.error)


def test_calls_of_slices_are_in_progress_at_once_and_of_one_slice_one_after_the_other() -> None:
    class Meets(Handler[bytes]):
        topics = ("t",)
        concurrency = 3
        steps: ClassVar[list[str]] = []

        async def open(self, context: Context) -> None:
            await asyncio.sleep(0)
            self.barrier = asyncio.Barrier(3)
            self.steps.append("open")

        async def handle(self, record: Record[bytes]) -> None:
            self.steps.append(f"{record.offset} begins")
            await asyncio.wait_for(self.barrier.wait(), PATIENCE_S)
            self.steps.append(f"{record.offset} ends")

        async def close(self) -> None:
            await asyncio.sleep(0)
            self.steps.append("close")

    with Running(Meets) as running:
        outcomes = running.run(*(slice_of(b"1", b"2") for _ in range(3)))

    assert [(one.slice.done, one.failure) for one in outcomes] == [(2, None)] * 3
    assert [Meets.steps[0], Meets.steps[-1]] == ["open", "close"]
    assert Meets.steps[1:4] == ["0 begins"] * 3
    assert Meets.steps.index("1 ends") > max(at for at, step in enumerate(Meets.steps) if step == "1 begins")


def test_all_of_a_handler_runs_on_one_thread_of_its_own() -> None:
    seen: set[tuple[str, str]] = set()

    class One(Handler[bytes]):
        topics = ("t",)

        def open(self, context: Context) -> None:
            seen.add((threading.current_thread().name, "open"))

        async def handle(self, record: Record[bytes]) -> None:
            seen.add((threading.current_thread().name, "handle"))

        def close(self) -> None:
            seen.add((threading.current_thread().name, "close"))

    with Running(One) as running:
        running.run(*(slice_of(b"1") for _ in range(20)))

    assert seen == {("asyncio-One", "open"), ("asyncio-One", "handle"), ("asyncio-One", "close")}


def test_a_failure_ends_its_slice_at_the_record() -> None:
    class Fails(Handler[bytes]):
        topics = ("t",)

        async def handle(self, record: Record[bytes]) -> None:
            await asyncio.sleep(0)
            if record.value == b"bad":
                raise ValueError("bad")

    with Running(Fails) as running:
        (outcome,) = running.run(slice_of(b"1", b"bad", b"3"))

    assert (outcome.slice.done, failure_of(outcome)) == (1, (1, ValueError))


def test_a_batch_names_its_failed_record() -> None:
    class Names(BatchHandler[bytes]):
        topics = ("t",)

        async def handle(self, records: Records[bytes]) -> None:
            await asyncio.sleep(0)
            for index, record in enumerate(records):
                if record.value == b"bad":
                    raise BatchFailed(index, ValueError("bad"))
                if record.value == b"worse":
                    raise ValueError("worse")

    with Running(Names) as running:
        fine, named, unnamed = (
            running.run(slice_of(b"1", b"2")),
            running.run(slice_of(b"1", b"bad")),
            running.run(slice_of(b"worse")),
        )

    assert (fine[0].slice.done, fine[0].failure) == (2, None)
    assert (named[0].slice.done, failure_of(named[0])) == (1, (1, ValueError))
    assert (unnamed[0].slice.done, failure_of(unnamed[0])) == (0, (None, ValueError))


class Picky:
    """Decodes anything but `bad`."""

    def decode(self, data: bytes, topic: str) -> bytes:
        if data == b"bad":
            raise DecodeError("bad")
        return data

    def encode(self, value: bytes, topic: str) -> bytes:
        return value


@pytest.mark.parametrize("batches", [False, True])
def test_undecodable_records_are_rejected_and_their_neighbours_handled(*, batches: bool) -> None:
    seen: list[bytes | None] = []

    class One(Handler[bytes]):
        topics = ("t",)
        value = Picky()
        dead_letter = DeadLetter("dlq")

        async def handle(self, record: Record[bytes]) -> None:
            seen.append(record.value)

    class Many(BatchHandler[bytes]):
        topics = ("t",)
        value = Picky()
        dead_letter = DeadLetter("dlq")

        async def handle(self, records: Records[bytes]) -> None:
            seen.extend(record.value for record in records)

    with Running(Many if batches else One) as running:
        (outcome,) = running.run(slice_of(b"1", b"bad", b"3"))

    assert seen == [b"1", b"3"]
    assert (outcome.slice.done, [index for index, _ in outcome.slice.rejected]) == (3, [1])


@pytest.mark.parametrize("batches", [False, True])
def test_a_cancellation_from_within_is_a_failure_and_never_a_success(*, batches: bool) -> None:
    """F-46."""

    async def cancelled() -> None:
        task = asyncio.create_task(asyncio.sleep(PATIENCE_S))
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    class One(Handler[bytes]):
        topics = ("t",)

        async def handle(self, record: Record[bytes]) -> None:
            await cancelled()

    class Many(BatchHandler[bytes]):
        topics = ("t",)

        async def handle(self, records: Records[bytes]) -> None:
            await cancelled()

    with Running(Many if batches else One) as running:
        (outcome,) = running.run(slice_of(b"1", b"2"))

    assert (outcome.slice.done, failure_of(outcome)) == (0, (None if batches else 0, CallCancelled))


def test_a_call_over_its_time_is_cancelled() -> None:
    """F-46. Its task ends, and with it what it waited for."""
    begun, ended = threading.Event(), threading.Event()

    class Waits(Handler[bytes]):
        topics = ("t",)
        timeout_s = 1.0

        async def handle(self, record: Record[bytes]) -> None:
            begun.set()
            try:
                await asyncio.sleep(1000)
            finally:
                ended.set()

    with Running(Waits) as running:
        slice_ = slice_of(b"1")
        running.pools.submit(slice_)
        assert begun.wait(PATIENCE_S)
        running.pools.replace(slice_)
        (outcome,) = running.pools.collect(PATIENCE_S)

    assert ended.is_set()
    assert failure_of(outcome) == (0, CallCancelled)


def test_what_still_runs_at_the_end_is_cancelled_before_the_instance_is_closed() -> None:
    steps: list[str] = []
    begun = threading.Event()

    class Waits(Handler[bytes]):
        topics = ("t",)

        async def handle(self, record: Record[bytes]) -> None:
            begun.set()
            try:
                await asyncio.sleep(1000)
            finally:
                steps.append("cancelled")

        async def close(self) -> None:
            steps.append("closed")

    with Running(Waits) as running:
        running.pools.submit(slice_of(b"1"))
        assert begun.wait(PATIENCE_S)

    assert steps == ["cancelled", "closed"]


def test_a_blocked_loop_is_seen_and_another_handlers_goes_on() -> None:
    begun, goes_on = threading.Event(), threading.Event()

    class Blocks(Handler[bytes]):
        topics = ("t",)

        async def handle(self, record: Record[bytes]) -> None:
            begun.set()
            goes_on.wait(PATIENCE_S)

    class Quick(Handler[bytes]):
        topics = ("u",)

        async def handle(self, record: Record[bytes]) -> None: ...

    with Running(Blocks, Quick) as running:
        running.pools.submit(slice_of(b"1"))
        assert begun.wait(PATIENCE_S)
        until_s = time.monotonic() + PATIENCE_S
        while running.pools.blocked()["Blocks"] < 0.1 and time.monotonic() < until_s:
            (outcome,) = running.run(slice_of(b"1", handler=1))
            assert outcome.failure is None
        blocked = running.pools.blocked()
        goes_on.set()

    assert blocked["Blocks"] >= 0.1
    assert blocked["Quick"] < blocked["Blocks"]
    assert running.pools.blocked() == {"Blocks": 0.0, "Quick": 0.0}


def test_what_open_raises_is_raised_at_the_start() -> None:
    class Refuses(Handler[bytes]):
        topics = ("t",)

        async def open(self, context: Context) -> None:
            raise LookupError("no database")

        async def handle(self, record: Record[bytes]) -> None: ...

    pools = Running(Refuses).pools
    with pytest.raises(LookupError, match="no database"):
        pools.start()
    assert pools.stop(PATIENCE_S)


def test_middleware_is_awaited() -> None:
    steps: list[str] = []

    def around(call: Callable[[object], Awaitable[None]]) -> Callable[[object], Awaitable[None]]:
        async def wrapped(record: object) -> None:
            steps.append("before")
            await call(record)
            steps.append("after")

        return wrapped

    class Wrapped(Handler[bytes]):
        topics = ("t",)
        middleware = (around,)  # type: ignore[assignment]

        async def handle(self, record: Record[bytes]) -> None:
            await asyncio.sleep(0)
            steps.append("handle")

    with Running(Wrapped) as running:
        running.run(slice_of(b"1"))

    assert steps == ["before", "handle", "after"]


def test_each_call_knows_its_own_deadline() -> None:
    seen: dict[bytes | None, float] = {}

    class Asks(Handler[bytes]):
        topics = ("t",)
        timeout_s = 60.0

        def open(self, context: Context) -> None:
            self.context = context
            self.both = asyncio.Barrier(2)

        async def handle(self, record: Record[bytes]) -> None:
            await asyncio.wait_for(self.both.wait(), PATIENCE_S)
            seen[record.value] = self.context.deadline_s()

    late = slice_of(b"late")
    late.ownership.ends_s = 5.0
    with Running(Asks) as running:
        running.run(slice_of(b"early"), late)
        outside = running.contexts[0].deadline_s()

    assert seen[b"late"] == 5.0
    assert time.monotonic() < seen[b"early"] <= time.monotonic() + 60
    assert outside == float("inf")


def test_guards_keep_the_tasks_of_a_loop_apart() -> None:
    """Two tasks are inside at once; what a task begins inside a block is inside it."""
    breaker = CircuitBreaker(Breaker("geo", in_a_row=1), clock=SystemClock())
    guard = Guard(breaker, SystemClock())

    async def fails(inside: asyncio.Barrier) -> None:
        with guard:
            await inside.wait()
            raise ConnectionError

    async def succeeds(inside: asyncio.Barrier) -> None:
        with guard:
            await inside.wait()
            await asyncio.gather(nested(), nested())

    async def nested() -> None:
        with guard:
            await asyncio.sleep(0)

    async def both() -> Sequence[BaseException | None]:
        inside = asyncio.Barrier(2)
        return await asyncio.gather(fails(inside), succeeds(inside), return_exceptions=True)

    results = asyncio.run(both())

    assert [type(one) for one in results] == [ConnectionError, type(None)]
    with pytest.raises(CircuitOpen), guard:
        pass


@pytest.mark.parametrize("name", ["open", "close"])
def test_a_plain_handler_with_an_async_open_or_close_is_refused(name: str) -> None:
    async def waits(self: object, context: object = None) -> None: ...

    def handle(self: object, record: object) -> None: ...

    odd = type("Odd", (Handler,), {"topics": ("t",), "handle": handle, name: waits})
    with pytest.raises(ConfigurationError, match=f"Odd.{name} is async and handle is not"):
        declaration(odd)


def generators() -> Iterator[Callable[..., object]]:
    def plain(self: object, record: object) -> Iterator[int]:
        yield 1

    async def asynchronous(self: object, record: object) -> object:
        yield 1

    yield from (plain, asynchronous)


@pytest.mark.parametrize("handle", list(generators()), ids=["plain", "async"])
def test_a_handle_that_yields_is_refused(handle: Callable[..., object]) -> None:
    with pytest.raises(ConfigurationError, match=r"Odd\.handle has a yield"):
        declaration(type("Odd", (Handler,), {"topics": ("t",), "handle": handle}))


@pytest.mark.parametrize("batches", [False, True])
def test_an_awaitable_that_nobody_would_wait_for_ends_the_worker(*, batches: bool) -> None:
    """Else its record would count as handled, and nothing has run."""

    class One(Handler[bytes]):
        topics = ("t",)

        def handle(self, record: Record[bytes]) -> Awaitable[None]:
            return self.later()

        async def later(self) -> None: ...

    class Many(BatchHandler[bytes]):
        topics = ("t",)

        def handle(self, records: Records[bytes]) -> Awaitable[None]:
            return self.later()

        async def later(self) -> None: ...

    with Running(Many if batches else One) as running:
        (outcome,) = running.run(slice_of(b"1"))

    assert (outcome.slice.done, failure_of(outcome)) == (0, (None if batches else 0, FatalError))


def forgets_to_await(call: Callable[[object], Awaitable[None]]) -> Callable[[object], Awaitable[object]]:
    async def wrapped(records: object) -> object:
        return call(records)

    return wrapped


def yields(call: Callable[[object], object]) -> Callable[[object], Iterator[object]]:
    def wrapped(records: object) -> Iterator[object]:
        yield call(records)

    return wrapped


async def _asynchronous(_self: object, _records: object) -> None: ...


def _plain(_self: object, _records: object) -> None: ...


@pytest.mark.parametrize("kind", [Handler, BatchHandler])
@pytest.mark.parametrize(("handle", "wrap"), [(_asynchronous, forgets_to_await), (_plain, yields)])
def test_middleware_whose_result_nobody_would_run_ends_the_worker(kind: type, handle: object, wrap: object) -> None:
    """Its record would count as handled, and the handler was never called."""
    wrapped = type("Wrapped", (kind,), {"topics": ("t",), "handle": handle, "middleware": (wrap,)})

    with Running(wrapped) as running:
        (outcome,) = running.run(slice_of(b"1"))

    assert (outcome.slice.done, failure_of(outcome)) == (0, (None if kind is BatchHandler else 0, FatalError))


def test_what_a_call_does_to_its_loop_ends_the_worker() -> None:
    """Calls in progress, and those that come later, come back."""
    begun = threading.Event()

    class Ends(Handler[bytes]):
        topics = ("t",)

        async def handle(self, record: Record[bytes]) -> None:
            if record.value == b"waits":
                begun.set()
                await asyncio.sleep(1000)
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()

    with Running(Ends) as running:
        waits, ends = slice_of(b"waits"), slice_of(b"ends")
        running.pools.submit(waits)
        assert begun.wait(PATIENCE_S)
        running.pools.submit(ends)
        outcomes: dict[Slice, SliceOutcome[Slice]] = {}
        while len(outcomes) < 2:
            outcomes.update((one.slice, one) for one in running.pools.collect(PATIENCE_S))
        while (late := running.run(slice_of(b"1"))[0]).failure is None:
            pass  # the loop is still about to end

    assert failure_of(outcomes[waits]) == (0, CallCancelled)
    assert outcomes[ends].failure is None
    assert failure_of(late) == (None, FatalError)


def test_a_loop_that_cannot_be_made_is_an_error_of_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> asyncio.AbstractEventLoop:
        raise OSError("no more files")

    class Quick(Handler[bytes]):
        topics = ("t",)

        async def handle(self, record: Record[bytes]) -> None: ...

    monkeypatch.setattr(event_loops, "_loop_factory", lambda: broken)
    with pytest.raises(OSError, match="no more files"):
        Running(Quick).pools.start()


def test_a_task_that_outlives_its_block_asks_for_leave_of_its_own() -> None:
    breaker = CircuitBreaker(Breaker("geo", in_a_row=1), clock=SystemClock())
    guard = Guard(breaker, SystemClock())

    async def outlives(over: asyncio.Event) -> None:
        await over.wait()
        with guard:
            raise ConnectionError

    async def begins() -> None:
        over = asyncio.Event()
        with guard:
            task = asyncio.create_task(outlives(over))
        over.set()
        with pytest.raises(ConnectionError):
            await task

    asyncio.run(begins())

    assert breaker.state is BreakerState.OPEN


def test_a_call_that_has_to_be_awaited_is_refused() -> None:
    async def asks() -> int:
        return 1

    guard = Guard(CircuitBreaker(Breaker("geo"), clock=SystemClock()), SystemClock())
    for dependency in (guard, Granted("geo")):
        with pytest.raises(Misuse, match="does not await"):
            _ = dependency.call(asks)


def test_a_loop_does_not_wait_for_a_seat() -> None:
    """Who holds it runs on the same loop."""
    rules = Breaker("geo", bulkhead=Bulkhead(1, max_wait_s=PATIENCE_S))
    guard = Guard(CircuitBreaker(rules, clock=SystemClock()), SystemClock(), waits=False)
    began_s = time.monotonic()

    async def asks(inside: asyncio.Event) -> None:
        with guard:
            await inside.wait()

    async def both() -> Sequence[BaseException | None]:
        inside = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, inside.set)
        return await asyncio.gather(asks(inside), asks(inside), return_exceptions=True)

    assert [type(one) for one in asyncio.run(both())] == [type(None), BulkheadFull]
    assert time.monotonic() - began_s < PATIENCE_S
