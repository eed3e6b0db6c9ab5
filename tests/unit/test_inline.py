"""Handlers whose calls are made on the loop thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, ClassVar

import pytest

from streamworker import Adaptive, Breaker, ConfigurationError, Execution, Handler, Read, Record
from streamworker.clock import SystemClock
from streamworker.declaration import declaration
from streamworker.handler import Context
from streamworker.processing.pools import Pools
from streamworker.record import TopicPartition
from streamworker.testing.memory_broker import MemoryMessage
from streamworker.work import Ownership, Slice

if TYPE_CHECKING:
    from collections.abc import Sequence

AT = TopicPartition("t", 0)


class Tiny(Handler[bytes]):
    topics = ("t",)
    execution = Execution.INLINE
    seen: ClassVar[list[tuple[str, int]]] = []

    def open(self, context: Context) -> None:
        self.seen.clear()
        self.note("open")

    def handle(self, record: Record[bytes]) -> None:
        self.note(f"handle {record.offset}")
        if record.value == b"bad":
            raise ValueError

    def close(self) -> None:
        self.note("close")

    def note(self, what: str) -> None:
        self.seen.append((what, threading.get_ident()))


def pools() -> Pools[Slice]:
    context = Context(app={}, group="g", handler="Tiny")
    return Pools([declaration(Tiny)], [context], clock=SystemClock(), max_record_bytes=100)


def slice_of(*values: bytes) -> Slice:
    return Slice(0, Ownership(AT, 1), [MemoryMessage(AT, number, value=one) for number, one in enumerate(values)], 1)


def test_all_happens_on_the_loop_thread_and_is_over_when_it_was_handed_over() -> None:
    executor, slice_ = pools(), slice_of(b"a", b"b")

    executor.start()
    executor.submit(slice_)
    (outcome,) = executor.collect(0.0)
    assert executor.stop(0.0)

    here = threading.get_ident()
    assert Tiny.seen == [("open", here), ("handle 0", here), ("handle 1", here), ("close", here)]
    assert (outcome.slice, outcome.failure, slice_.done) == (slice_, None, 2)


def test_a_failure_is_an_outcome_and_not_an_error_of_the_loop() -> None:
    executor, slice_ = pools(), slice_of(b"a", b"bad", b"c")
    executor.start()

    executor.submit(slice_)

    (outcome,) = executor.collect(0.0)
    assert outcome.failure is not None
    assert (outcome.failure.index, slice_.done) == (1, 1)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("breaker", Breaker("db")),
        ("dependencies", (Breaker("db"),)),
        ("reads", (Read("name", ("default",), dependency="db"),)),
        ("timeout_s", 1.0),
        ("adaptive", Adaptive()),
    ],
)
def test_what_is_for_calls_that_wait_is_refused(option: str, value: object) -> None:
    class Waits(Tiny):
        pass

    setattr(Waits, option, value)

    with pytest.raises(ConfigurationError, match=rf'Waits\.{option}: .* execution = "inline"'):
        declaration(Waits)


def test_an_async_handler_is_refused() -> None:
    class Waits(Tiny):
        topics: ClassVar[Sequence[str]] = ("t",)

        async def handle(self, record: Record[bytes]) -> None: ...  # type: ignore[override]  # one of the two kinds

    with pytest.raises(ConfigurationError, match=r"Waits\.execution: an async handler waits"):
        declaration(Waits)


@pytest.mark.parametrize("execution", ["inline", Execution.INLINE])
def test_no_more_slices_go_at_once_than_a_fetch_makes(execution: str | Execution) -> None:
    class Many(Tiny):
        concurrency = 64

    Many.execution = execution  # type: ignore[assignment]  # either is allowed

    assert declaration(Many).concurrency == 2
