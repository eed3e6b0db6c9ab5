"""What a record costs, counted and not timed: calls made by the engine's code, and objects that it keeps.

The counts are the same on every machine, so a slower hot path is seen where clocks are too noisy.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Self

import pytest

import streamworker
from streamworker import Batch, BatchHandler, DeadLetter, Handler, PoisonError, Retry
from streamworker.intake import Intake
from streamworker.testing.virtual_world import VirtualWorld
from streamworker.work import Slice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from streamworker import Record, Records
    from streamworker.testing.memory_broker import MemoryBroker

RECORDS = 8000
_ENGINE = streamworker.__path__[0]
_NOT_ENGINE = (f"{_ENGINE}/testing",)


class Single(Handler[bytes]):
    topics = ("in",)
    concurrency = 1

    def handle(self, record: Record[bytes]) -> None: ...


class Keyed(Single):
    ordering = "key"
    concurrency = 4


class Many(BatchHandler[bytes]):
    topics = ("in",)
    concurrency = 1
    batch = Batch(max_records=500)

    def handle(self, records: Records[bytes]) -> None: ...


class CallCounter:
    """Counts calls of functions, Python's and C's, made by code of the engine."""

    def __init__(self) -> None:
        self.calls = 0
        self._is_engine: dict[str, bool] = {}

    def __enter__(self) -> Self:
        sys.setprofile(self._on_event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _on_event(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "c_call":
            self.calls += self._of_engine(frame)
        elif event == "call" and frame.f_back is not None:
            self.calls += self._of_engine(frame.f_back)

    def _of_engine(self, frame: FrameType) -> bool:
        path = frame.f_code.co_filename
        if path not in self._is_engine:
            self._is_engine[path] = path.startswith(_ENGINE) and not path.startswith(_NOT_ENGINE)
        return self._is_engine[path]


def calls_per_record(handler: type[Handler[bytes]] | type[BatchHandler[bytes]]) -> float:
    """Of a whole worker, from the fetch to the commit."""
    world = _filled(RECORDS)
    world.start(handler, recorded=False, duration_s=lambda _slice: 0.0)

    with CallCounter() as counter:
        world.run_to_end("in")

    return counter.calls / RECORDS


def _filled(records: int) -> VirtualWorld:
    world = VirtualWorld({"in": 4})
    for number in range(records):
        world.broker.produce("in", number % 4, b"x" * 200, key=b"key-%d" % (number % 1000))
    return world


# What was counted, and less than one call more.
LIMITS = {Single: 7.5, Keyed: 12.0, Many: 3.4}


@pytest.mark.parametrize("handler", LIMITS)
def test_a_record_costs_no_more_calls_than_it_did(handler: type[Handler[bytes]]) -> None:
    calls = calls_per_record(handler)

    print(f"{handler.__name__}: {calls:.2f} calls per record")
    assert calls < LIMITS[handler]


def test_one_needless_call_per_record_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check can fail: an engine that asks each message for its offset once more is over the limit."""
    admit = Intake.admit

    def slower(self: Intake, key: object, messages: object) -> None:
        _touch_each(messages)
        admit(self, key, messages)

    monkeypatch.setattr(Intake, "admit", slower)
    code = _touch_each.__code__.replace(co_filename=f"{_ENGINE}/intake.py")
    monkeypatch.setattr(_touch_each, "__code__", code)

    assert calls_per_record(Many) > LIMITS[Many]


def _touch_each(messages: list[object]) -> None:
    for message in messages:
        message.offset(), message.offset()  # type: ignore[attr-defined]


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
def test_what_is_done_leaves_nothing_behind() -> None:
    world = _filled(0)
    world.start(Single, recorded=False, duration_s=lambda _slice: 0.0)
    _handle_some(world, 2000)

    before = sys.getallocatedblocks()
    _handle_some(world, 4000)

    assert (sys.getallocatedblocks() - before) / 4000 < 0.05


class Failing(Handler[bytes]):
    topics = ("in",)
    dead_letter = DeadLetter("dlq")
    retry = Retry(attempts=2, base_s=0.0, cap_s=0.0)
    concurrency = 1

    def handle(self, record: Record[bytes]) -> None:
        if record.offset % 10 == 0:
            raise PoisonError("refused")
        if record.offset % 10 == 5:
            raise ConnectionError("nobody there")


@pytest.mark.usefixtures("_no_collector")
def test_a_slice_with_failures_does_not_wait_for_the_collector_with_its_records() -> None:
    """The traceback of an error refers to the slice, and what refers to the error must not be the slice for long."""
    before = _slices()
    world = VirtualWorld({"in": 1, "dlq": 1})
    member = world.start(Failing, recorded=False, duration_s=lambda _slice: 0.0)
    for _ in range(400):
        world.broker.produce("in", 0, b"x")

    world.run_to_end("in")

    member.story.failures.clear()

    assert len(world.broker.records("dlq")) == 80
    assert _slices() <= before


def _slices() -> int:
    return sum(isinstance(one, Slice) for one in gc.get_objects())


def _handle_some(world: VirtualWorld, records: int) -> None:
    for _ in range(records):
        world.broker.produce("in", 0, b"x")
    world.run_to_end("in")
    _forget(world.broker)
    gc.collect()


def _forget(broker: MemoryBroker) -> None:
    """Let the test's own memory of the records and commits go."""
    for key in broker.partitions("in"):
        broker.delete_records(key, before=broker.end(key))
    broker.commits.clear()
