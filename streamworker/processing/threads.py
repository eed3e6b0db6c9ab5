"""A pool of threads for a plain `def` handler.

Each thread makes, opens and closes an instance of its own. A slice goes to the thread that became
idle last, so that a fast handler keeps few threads warm and a slow one uses them all. The queue of slices and the
list of idle threads are everybody's, by operations that are atomic; threads own the slice in hand. Where an
instance lives is the pool's `open` to say: here it is the thread itself, in `processes.py` a child process that the
thread drives.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from streamworker.errors import Defect
from streamworker.processing.effects import effects_of
from streamworker.processing.executor import SliceRunner, guarded_call
from streamworker.work import Failure, Slice, SliceOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker.clock import Clock
    from streamworker.declaration import Declaration
    from streamworker.handler import AnyHandler, Context
    from streamworker.processing.effects import Effects
    from streamworker.processing.executor import Call


S = TypeVar("S", bound=Slice)

_log = logging.getLogger(__name__)

# A slice that takes less is over before a second thread would have begun.
_QUICK_S = 0.001
# What makes calls hang is likely to keep a new instance from being opened as well, for a while.
_OPEN_AGAIN_S = 5.0


class Instance(Protocol[S]):
    """An instance of the handler, open. All but `abandon` is for the thread that has opened it."""

    @property
    def run(self) -> Callable[[S], SliceOutcome[S]]:
        """Handles a slice's records in order until the first failure."""

    @property
    def gone(self) -> bool:
        """Whether it can run nothing more, so that another must be opened."""

    def abandon(self, slice_: S) -> None:
        """End the call for `slice_` if it is in progress and can be ended from outside. Loop thread."""

    def close(self) -> None:
        """After the last slice; raises what the handler's `close` raises."""


class ThreadPool(Generic[S]):
    """Threads that share one queue of slices; loop thread unless said otherwise.

    A thread is woken for each slice, unless the handler's last slice was quick and some thread is awake:
    that one takes it in turn. Waking a second one costs more than such a slice, because both then wait
    for the interpreter's lock. What is not begun one step later wakes as many threads as it needs.
    """

    def __init__(
        self,
        declaration: Declaration,
        context: Context,
        report: Callable[[SliceOutcome[S]], None],
        *,
        clock: Clock,
        max_record_bytes: int,
    ) -> None:
        self.declaration = declaration
        self.context = context
        self.runner = SliceRunner(declaration, clock=clock, max_record_bytes=max_record_bytes, in_hand=context.in_hand)
        self._monotonic_s = clock.monotonic_s
        self.report = report
        self.work: deque[S | None] = deque()
        self.last_s = inf
        self.threads = [_PoolThread[S](self, number) for number in range(declaration.concurrency)]
        self.idle: list[_PoolThread[S]] = []
        self.ends = threading.Event()
        self._replaced = 0

    def open(self) -> Instance[S]:
        """Make an instance and open it; raises what that raises. Called on the thread that is to run it."""
        handler = self.declaration.make()
        handler.open(self.context)
        effects = effects_of(self.declaration, self.context)
        return _OnThread(handler, self.runner, guarded_call(self.declaration, handler), effects)

    def start(self) -> None:
        """Start all threads; raises what an instance's `open` raised first."""
        for thread in self.threads:
            thread.start()
        for thread in self.threads:
            thread.raise_if_not_opened()

    def submit(self, slice_: S) -> None:
        """Hand over to an idle thread."""
        self.work.append(slice_)
        if self.last_s > _QUICK_S or len(self.idle) == len(self.threads):
            self._wake(1)

    def widen(self) -> None:
        """See to it that no slice waits while a thread is idle."""
        if self.work:
            self._wake(len(self.work))

    def replace(self, slice_: S) -> None:
        """Start another thread for the one that has `slice_` in hand, if its call has not ended meanwhile."""
        for thread in self.threads:
            if thread.in_hand is slice_:
                thread.leaves = True
                thread.abandon(slice_)
                self.threads.remove(thread)
                self._replaced += 1
                number = self.declaration.concurrency + self._replaced - 1
                self.threads.append(_PoolThread[S](self, number, patient=True))
                self.threads[-1].start()
                return

    def stop(self) -> None:
        """Let each thread close its instance and end."""
        self.ends.set()
        everyone = len(self.threads) + self._replaced
        self.work.extend([None] * everyone)
        self._wake(everyone)

    def stopped(self, until_s: float) -> bool:
        """Whether all threads have ended by then, but for those that were replaced: they are over their time."""
        return all(thread.joined(max(until_s - self._monotonic_s(), 0.0)) for thread in self.threads)

    def take(self, thread: _PoolThread[S]) -> S | None:
        """Wait for the next slice; None to end. Called on pool threads."""
        while True:
            try:
                return self.work.popleft()
            except IndexError:
                pass
            self.idle.append(thread)
            if self.work:
                self._wake(1)
            thread.sleep()

    def _wake(self, threads: int) -> None:
        """Wake the threads that became idle last, as far as there are some. Called on any thread."""
        for _ in range(threads):
            try:
                thread = self.idle.pop()
            except IndexError:
                return
            thread.wake()


class _OnThread(Generic[S]):
    """An `Instance` on the thread that has opened it."""

    gone = False

    def __init__(self, handler: AnyHandler, runner: SliceRunner, call: Call, effects: Effects | None) -> None:
        self._handler = handler
        self._effects = effects
        run = partial(runner.run, call)
        self.run: Callable[[S], SliceOutcome[S]] = run if effects is None else partial(run, effects=effects)

    def abandon(self, slice_: S) -> None:
        """No thread can be ended from outside."""

    def close(self) -> None:
        """As of `Instance`."""
        try:
            self._handler.close()
        finally:
            if self._effects is not None:
                self._effects.close()


class _PoolThread(Generic[S]):
    """With `patient`, it tries again until its instance can be opened; else the loop thread hears of it.

    In place of an instance that is gone it opens another, patiently. Its own thread writes `instance` and `in_hand`,
    the loop thread `leaves`; each reads the other's, single references that may be a moment old.
    """

    def __init__(self, pool: ThreadPool[S], number: int, *, patient: bool = False) -> None:
        self.pool = pool
        self.instance: Instance[S] | None = None
        self.in_hand: S | None = None
        self.leaves = False  # it has been replaced, and ends when its call does
        self._patient = patient
        self._asleep = threading.Lock()
        self._asleep.acquire()
        self.sleep: Callable[[], bool] = self._asleep.acquire
        self.wake: Callable[[], None] = self._asleep.release
        self._opened = threading.Event()
        self._open_error: BaseException | None = None
        # Daemon, because a call that never returns must not keep the process from exiting.
        self._thread = threading.Thread(target=self._run, name=f"pool-{pool.declaration.name}-{number}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def raise_if_not_opened(self) -> None:
        self._opened.wait()
        if self._open_error is not None:
            raise self._open_error

    def abandon(self, slice_: S) -> None:
        if self.instance is not None:
            self.instance.abandon(slice_)

    def joined(self, timeout_s: float) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (instance := self._open()) is not None:
            self.instance = instance
            self._serve(instance)
            try:
                instance.close()
            except Exception:  # noqa: BLE001 - the instance ends here, and what was handled is settled
                _log.exception("%s.close failed", self.pool.declaration.name)
            if self.leaves or not instance.gone or self.pool.ends.is_set():
                return
            self._patient = True

    def _serve(self, instance: Instance[S]) -> None:
        """Run slices until told to end, or until the instance is gone."""
        pool = self.pool
        run, report = instance.run, pool.report
        while not (self.leaves or instance.gone) and (slice_ := pool.take(self)) is not None:
            self.in_hand = slice_
            try:
                outcome = run(slice_)
            except BaseException as error:  # noqa: BLE001 - a defect of ours must not look like an idle thread
                outcome = SliceOutcome(slice_, 0.0, Failure(None, Defect(error)))
            report(outcome)
            self.in_hand = None
            del slice_, outcome  # an idle thread keeps no records alive

    def _open(self) -> Instance[S] | None:
        """An instance, ready; None if the thread has nothing to run."""
        pool = self.pool
        while True:
            try:
                return pool.open()
            except BaseException as error:  # noqa: BLE001 - handed to the loop thread, which raises it, or said
                if not self._patient or not isinstance(error, Exception):
                    self._open_error = error
                    return None
                _log.exception("%s.open failed in place of one that is gone, tried again", pool.declaration.name)
            finally:
                self._opened.set()
            if pool.ends.wait(_OPEN_AGAIN_S):
                return None
