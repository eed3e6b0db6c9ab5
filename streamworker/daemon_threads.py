"""Threads for calls of the user's and of drivers, which may hang.

The interpreter waits at its end for the threads of the standard library's pool, so one call that never returns would
keep a worker from ending. These end with the process. Standard library only.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


class DaemonThreads(Executor):
    """An executor of at most so many threads, each started when it is needed. Any thread may submit."""

    def __init__(self, most: int, *, name: str) -> None:
        self._most = most
        self._name = name
        self._work: deque[tuple[Callable[[], bool], Callable[[], None]]] = deque()  # how to cancel each, and to run it
        self._calls = threading.Semaphore(0)  # what a free thread waits in: one for each of the calls, or for its end
        self._lock = threading.Lock()  # protects the calls and the three below from two that submit at once
        self._threads: list[threading.Thread] = []
        self._free = 0  # threads that wait, less the calls that wait for one
        self._closed = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """As of `Executor`; raises RuntimeError after `shutdown`."""
        future: Future[R] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it is for who asks the future
                future.set_exception(error)

        with self._lock:
            if self._closed:
                raise RuntimeError(f"{self._name} is shut down")
            self._work.append((future.cancel, run))
            self._calls.release()
            self._free -= 1
            if self._free < 0 and len(self._threads) < self._most:
                thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                self._threads.append(thread)
                self._free += 1
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT002 - as of `Executor`
        """As of `Executor`. Idempotent."""
        with self._lock:
            self._closed = True
            while cancel_futures and self._work:
                cancel, _ = self._work.popleft()
                cancel()
            self._calls.release(len(self._threads) or 1)
        for thread in self._threads if wait else ():
            thread.join()

    def _serve(self) -> None:
        while (run := self._next()) is not None:
            run()
            del run  # an idle thread keeps nothing alive
            with self._lock:
                self._free += 1

    def _next(self) -> Callable[[], None] | None:
        """Wait for a call; None to end."""
        self._calls.acquire()
        with self._lock:
            return self._work.popleft()[1] if self._work else None
