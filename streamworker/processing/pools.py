"""The executor of a process: a pool for each handler, of threads, child processes, tasks or nothing but the loop.

Outcomes of all pools come back through one queue. Loop thread only, but for `_report`.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from streamworker.errors import ConfigurationError
from streamworker.frames import where_raised
from streamworker.observability.redaction import error_text
from streamworker.options import Execution
from streamworker.processing.event_loops import EventLoop
from streamworker.processing.inline import Inline
from streamworker.processing.processes import ProcessPool
from streamworker.processing.threads import ThreadPool
from streamworker.work import Slice, SliceOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.config import ClaimConfig, LogConfig
    from streamworker.declaration import Declaration
    from streamworker.handler import Context

_log = logging.getLogger(__name__)

S = TypeVar("S", bound=Slice)
S_contra = TypeVar("S_contra", bound=Slice, contravariant=True)


class Pool(Protocol[S_contra]):
    """What runs the slices of one handler. Loop thread only."""

    last_s: float  # what the handler's last slice took

    def start(self) -> None:
        """Make and open the instances; raises what `open` raised first."""

    def submit(self, slice_: S_contra) -> None:
        """Run a slice; never blocks."""

    def widen(self) -> None:
        """See to it that no slice waits while something could run it."""

    def replace(self, slice_: S_contra) -> None:
        """Make up for what has `slice_` in hand, whose call has run out of time."""

    def stop(self) -> None:
        """Run nothing more, and close the instances."""

    def stopped(self, until_s: float) -> bool:
        """Whether all is closed by that monotonic time."""


class Pools(Generic[S]):
    """An `Executor` over the handlers of this process; `log` and `claims` are for its child processes."""

    def __init__(
        self,
        declarations: Sequence[Declaration],
        contexts: Sequence[Context],
        *,
        clock: Clock,
        max_record_bytes: int,
        log: LogConfig | None = None,
        claims: ClaimConfig | None = None,
    ) -> None:
        self._outcomes: deque[SliceOutcome[S]] = deque()
        # Not a SimpleQueue with a timeout: in CPython 3.11 and 3.12 a signal that comes while the main
        # thread waits in it can make it wait for ever.
        self._arrived = threading.Event()
        self._monotonic_s = clock.monotonic_s
        self._event_loops: dict[str, EventLoop[S]] = {}
        self._process_pools: list[ProcessPool[S]] = []
        self._pools: list[Pool[S]] = []
        self._names = [declaration.name for declaration in declarations]
        for declaration, context in zip(declarations, contexts, strict=True):
            make: Callable[..., Pool[S]] = EventLoop[S] if declaration.is_async else ThreadPool[S]
            if declaration.execution is Execution.PROCESS:
                make = partial(ProcessPool[S], log=log, claims=claims)
            elif declaration.execution is Execution.INLINE:
                make = Inline[S]
            pool = make(declaration, context, self._report, clock=clock, max_record_bytes=max_record_bytes)
            self._pools.append(pool)
            if isinstance(pool, EventLoop):
                self._event_loops[declaration.name] = pool
            elif isinstance(pool, ProcessPool):
                self._process_pools.append(pool)

    def start(self) -> None:
        """Make and open all instances; raises what `open` raised first, and logs it but for a ConfigurationError."""
        for name, pool in zip(self._names, self._pools, strict=True):
            try:
                pool.start()
            except ConfigurationError:
                raise
            except Exception as error:
                self._log_unopened(name, error)
                raise

    @staticmethod
    def _log_unopened(handler: str, error: Exception) -> None:
        """Without the traceback, which goes on with the error."""
        fields = {"handler": handler, "error_type": type(error).__name__, "error": error_text(error)}
        _log.error("open failed", extra={**fields, "at": where_raised(error)})

    def submit(self, slice_: S) -> None:
        """Hand over to the handler's pool."""
        self._pools[slice_.handler_number].submit(slice_)

    def replace(self, slice_: S) -> None:
        """Make up for what has `slice_` in hand, which ends when its call does."""
        self._pools[slice_.handler_number].replace(slice_)

    def collect(self, timeout_s: float) -> Sequence[SliceOutcome[S]]:
        """Outcomes that are there; waits up to `timeout_s` for the first."""
        for pool in self._pools:
            pool.widen()
        if not self._outcomes and timeout_s > 0:
            self._arrived.wait(timeout_s)
        self._arrived.clear()
        for processes in self._process_pools:  # last, so that what looks at slices next sees them as they are
            processes.catch_up()
        collected: list[SliceOutcome[S]] = []
        while self._outcomes:
            outcome = self._outcomes.popleft()
            self._pools[outcome.slice.handler_number].last_s = outcome.seconds
            collected.append(outcome)
        return collected

    def blocked(self) -> Mapping[str, float]:
        """For how many seconds the event loop of each async handler has not come round."""
        return {name: loop.blocked_s() for name, loop in self._event_loops.items()}

    def stop(self, timeout_s: float) -> bool:
        """Let the instances be closed; false if some were not after `timeout_s`."""
        for pool in self._pools:
            pool.stop()
        until_s = self._monotonic_s() + timeout_s
        return all(pool.stopped(until_s) for pool in self._pools)

    def _report(self, outcome: SliceOutcome[S]) -> None:
        """Take an outcome; called on pool threads."""
        self._outcomes.append(outcome)
        self._arrived.set()
