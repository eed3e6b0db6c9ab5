"""Handlers that run in virtual time, in the one thread of the test."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

from streamworker.processing.effects import effects_of, shared_effects_of
from streamworker.processing.executor import AsyncSliceRunner, guarded_call
from streamworker.work import Slice, SliceOutcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from streamworker.declaration import Declaration
    from streamworker.handler import Context
    from streamworker.testing.virtual_time import VirtualTime

S = TypeVar("S", bound=Slice)


class VirtualExecutor(Generic[S]):
    """An `Executor` whose calls take `duration_s(slice)` of virtual time.

    The handler is called when that time is over, or at once with `eager`: then the effect is there, and its last
    call is counted only when the time is over, as when a call has done its work and has not returned. An async handler
    has a real event loop that runs one slice to its end at a time: what it sleeps takes real time, not virtual.
    """

    def __init__(
        self,
        declarations: Sequence[Declaration],
        contexts: Sequence[Context],
        *,
        time: VirtualTime,
        max_record_bytes: int,
        duration_s: Callable[[Slice], float] = lambda slice_: 0.001 * len(slice_.messages),
        eager: Callable[[], bool] = lambda: False,
    ) -> None:
        self._declarations = declarations
        self._contexts = contexts
        self._runners = [
            AsyncSliceRunner(one, clock=time, max_record_bytes=max_record_bytes, in_hand=context.in_hand)
            for one, context in zip(declarations, contexts, strict=True)
        ]
        self._time = time
        self._duration_s = duration_s
        self._eager = eager
        self._outcomes: list[SliceOutcome[S]] = []
        self._running = 0
        self._event_loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Make and open one instance per handler."""
        self._handlers = [one.make() for one in self._declarations]
        if any(one.is_async for one in self._declarations):
            self._event_loop = asyncio.new_event_loop()
            weakref.finalize(self, self._event_loop.close)  # of a worker that is never stopped
        for handler, context in zip(self._handlers, self._contexts, strict=True):
            self._finish(handler.open(context))
        self._effects = [
            None if one.is_async else effects_of(one, context)
            for one, context in zip(self._declarations, self._contexts, strict=True)
        ]
        self._shared_effects = [
            shared_effects_of(one, context) if one.is_async else None
            for one, context in zip(self._declarations, self._contexts, strict=True)
        ]
        pairs = zip(self._declarations, self._handlers, strict=True)
        self._calls = [guarded_call(declaration, handler) for declaration, handler in pairs]

    def submit(self, slice_: S) -> None:
        """Run the slice in a while."""
        self._running += 1
        seconds = self._duration_s(slice_)
        slice_.started_s = self._time.monotonic_s()
        slice_.called = (0, slice_.started_s)
        if self._eager():
            outcome = self._run(slice_, seconds)
            done, slice_.done = slice_.done, self._done_before_last_call(outcome)
            slice_.called = (slice_.done, self._time.monotonic_s())
            self._time.call_in(seconds, lambda: self._arrive(outcome, done))
        else:
            self._time.call_in(seconds, lambda: self._arrive(self._run(slice_, seconds)))

    def replace(self, slice_: S) -> None:
        """There are as many threads as it takes."""

    def blocked(self) -> Mapping[str, float]:
        """Nothing blocks in virtual time."""
        return {}

    def collect(self, timeout_s: float) -> Sequence[SliceOutcome[S]]:
        """Outcomes that are there."""
        self._time.wait(timeout_s, lambda: bool(self._outcomes))
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def stop(self, timeout_s: float) -> bool:
        """Close the instances."""
        ended = self._time.wait(timeout_s, lambda: self._running == 0)
        for handler in self._handlers:
            self._finish(handler.close())
        for effects in (*self._effects, *self._shared_effects):
            if effects is not None:
                effects.close()
        return ended

    def _run(self, slice_: S, seconds: float) -> SliceOutcome[S]:
        return SliceOutcome(slice_, seconds, self._called(slice_).failure)

    def _called(self, slice_: S) -> SliceOutcome[S]:
        number = slice_.handler_number
        runner, call = self._runners[number], self._calls[number]
        if self._event_loop is not None and self._declarations[number].is_async:
            awaited = runner.run_async(call, slice_, self._shared_effects[number])  # type: ignore[arg-type]  # of an async handle
            return self._event_loop.run_until_complete(awaited)
        return runner.run(call, slice_, self._effects[number])

    def _finish(self, result: Awaitable[None] | None) -> None:
        if result is not None and self._event_loop is not None:
            self._event_loop.run_until_complete(result)

    def _done_before_last_call(self, outcome: SliceOutcome[S]) -> int:
        slice_ = outcome.slice
        declaration = self._declarations[slice_.handler_number]
        if declaration.batch is not None or declaration.sink is not None:
            return 0
        return slice_.done if outcome.failure or slice_.rejected else max(slice_.done - 1, 0)

    def _arrive(self, outcome: SliceOutcome[S], done: int | None = None) -> None:
        self._running -= 1
        if done is not None:
            outcome.slice.done = done
        self._outcomes.append(outcome)
