"""An event loop with the calls of one `async def` handler.

It has a thread of its own, one instance of the handler, and a task for each slice; records of a slice go one after the
other. A handler that blocks it holds up its own slices and those of no other handler. The loop thread puts slices into
`_work` and sets `_called`, which the event loop's thread takes back before it looks; both are single operations.
When that thread has ended, the one that finds a slice gives it back. All else happens on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar

from streamworker.errors import Defect, FatalError
from streamworker.processing.effects import shared_effects_of
from streamworker.processing.executor import AsyncSliceRunner, guarded_call
from streamworker.work import Failure, Slice, SliceOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker.clock import Clock
    from streamworker.declaration import Declaration
    from streamworker.handler import Context
    from streamworker.processing.effects import SharedEffects
    from streamworker.processing.executor import AsyncCall

S = TypeVar("S", bound=Slice)

_BEAT_S = 0.25  # how often an event loop says that it comes round
_log = logging.getLogger(__name__)


class EventLoop(Generic[S]):
    """A `Pool` of tasks; uvloop's if that is installed."""

    def __init__(
        self,
        declaration: Declaration,
        context: Context,
        report: Callable[[SliceOutcome[S]], None],
        *,
        clock: Clock,
        max_record_bytes: int,
    ) -> None:
        self.last_s = inf  # of a `Pool`; nobody reads it here
        self._declaration = declaration
        self._context = context
        self._runner = AsyncSliceRunner(
            declaration, clock=clock, max_record_bytes=max_record_bytes, in_hand=context.in_hand
        )
        self._report = report
        self._monotonic_s = clock.monotonic_s
        self._beat_s = inf  # the event loop's thread writes it, the loop thread reads it
        self._work: deque[S] = deque()
        self._called = False  # to look at `_work`
        self._tasks: dict[S, asyncio.Task[SliceOutcome[S]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._call: AsyncCall
        self._effects: SharedEffects | None = None
        self._ends: asyncio.Event
        self._opened = threading.Event()
        self._open_error: BaseException | None = None
        self._ended = False  # in order or not: what is submitted from then on comes back as failed
        # Daemon, because a call that never returns must not keep the process from exiting.
        self._thread = threading.Thread(target=self._run, name=f"asyncio-{declaration.name}", daemon=True)

    def start(self) -> None:
        """Make and open the instance; raises what `open` raised."""
        self._thread.start()
        self._opened.wait()
        if self._open_error is not None:
            raise self._open_error

    def submit(self, slice_: S) -> None:
        """Begin a task for a slice."""
        self._work.append(slice_)
        if self._ended:
            self._give_back(self._work)
        elif not self._called:
            self._called = True
            self._tell(self._begin)

    def widen(self) -> None:
        """Tasks wait for nobody."""

    def replace(self, slice_: S) -> None:
        """Cancel the call that has run out of time: others need no thread of its."""
        self._tell(lambda: self._cancel(slice_))

    def blocked_s(self) -> float:
        """For how long it has not come round."""
        return max(0.0, self._monotonic_s() - self._beat_s - _BEAT_S)

    def stop(self) -> None:
        """Cancel what still runs, close the instance, end the thread."""
        self._tell(lambda: self._ends.set())

    def stopped(self, until_s: float) -> bool:
        """Whether the thread has ended by then."""
        self._thread.join(max(until_s - self._monotonic_s(), 0.0))
        return not self._thread.is_alive()

    def _tell(self, what: Callable[[], None]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(what)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(self._live())
        except BaseException as error:  # noqa: BLE001 - what a call did to the loop ends the worker, not a thread unseen
            self._open_error = self._open_error or error
            _log.exception("the event loop of %s has ended", self._declaration.name)
        finally:
            self._ended = True
            self._opened.set()
            self._give_back(deque(self._tasks))
            self._give_back(self._work)

    def _give_back(self, slices: deque[S]) -> None:
        """Report slices that nothing runs any more; any thread."""
        while slices:
            with suppress(IndexError):  # the other thread has it
                slice_ = slices.popleft()
                error = FatalError(f"the event loop of {self._declaration.name} has ended")
                self._report(SliceOutcome(slice_, 0.0, Failure(None, error)))

    async def _live(self) -> None:
        self._loop, self._ends = asyncio.get_running_loop(), asyncio.Event()
        try:
            handler = self._declaration.make()
            await _finished(handler.open(self._context))
            self._call = guarded_call(self._declaration, handler)  # type: ignore[assignment]  # of an async handle
            self._effects = shared_effects_of(self._declaration, self._context)
        except BaseException as error:  # noqa: BLE001 - handed to the loop thread, which raises it
            self._open_error = error
            return
        finally:
            self._opened.set()
        self._beat()
        await self._ends.wait()
        self._beat_s = inf
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await _finished(handler.close())
        except Exception:  # noqa: BLE001 - the thread ends here, and what was handled is settled
            _log.exception("%s.close failed", self._declaration.name)
        finally:
            if self._effects is not None:
                self._effects.close()

    def _beat(self) -> None:
        if not self._ends.is_set():
            self._beat_s = self._monotonic_s()
            asyncio.get_running_loop().call_later(_BEAT_S, self._beat)

    def _begin(self) -> None:
        self._called = False  # before it looks, so that what comes after the look calls again
        while self._work:
            slice_ = self._work.popleft()
            task = asyncio.get_running_loop().create_task(self._runner.run_async(self._call, slice_, self._effects))
            self._tasks[slice_] = task
            task.add_done_callback(partial(self._done, slice_))

    def _done(self, slice_: S, task: asyncio.Task[SliceOutcome[S]]) -> None:
        del self._tasks[slice_]
        if task.cancelled():  # before its first step: nothing of it was tried
            self._report(SliceOutcome(slice_, 0.0))
        elif (error := task.exception()) is not None:  # a defect of ours must not look like a call that goes on
            self._report(SliceOutcome(slice_, 0.0, Failure(None, Defect(error))))
        else:
            self._report(task.result())

    def _cancel(self, slice_: S) -> None:
        if slice_ in self._tasks:
            self._tasks[slice_].cancel()


async def _finished(result: object) -> None:
    """Wait for what an `async def` returned; a plain method has done its work."""
    if inspect.isawaitable(result):
        await result


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return None
    made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return made
