"""Where `execution = "inline"` makes its calls: on the loop thread itself, between two of its steps.

Nothing is handed over, so nobody waits for the interpreter's lock. What it costs is said at `Execution.INLINE`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Generic, TypeVar

from streamworker.errors import ConfigurationError
from streamworker.processing.executor import SliceRunner, guarded_call
from streamworker.work import Slice, SliceOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker.clock import Clock
    from streamworker.declaration import Declaration
    from streamworker.handler import AnyHandler, Context
    from streamworker.processing.executor import Call

S = TypeVar("S", bound=Slice)

_log = logging.getLogger(__name__)


class Inline(Generic[S]):
    """A `Pool` of one instance, whose slices are through when `submit` returns. Loop thread only."""

    def __init__(
        self,
        declaration: Declaration,
        context: Context,
        report: Callable[[SliceOutcome[S]], None],
        *,
        clock: Clock,
        max_record_bytes: int,
    ) -> None:
        self.last_s = 0.0
        self._declaration = declaration
        self._context = context
        self._report = report
        self._runner = SliceRunner(declaration, clock=clock, max_record_bytes=max_record_bytes, in_hand=context.in_hand)
        self._handler: AnyHandler | None = None
        self._call: Call

    def start(self) -> None:
        """Make and open the instance; raises what `open` raised."""
        handler = self._declaration.make()
        handler.open(self._context)
        if self._context.has_caches:
            raise ConfigurationError(
                f"{self._declaration.name}: a cache may wait for Redis or for what it loads, which"
                ' execution = "inline" is not for; leave execution at "thread"'
            )
        self._handler, self._call = handler, guarded_call(self._declaration, handler)

    def submit(self, slice_: S) -> None:
        """Run a slice."""
        self._report(self._runner.run(self._call, slice_))

    def widen(self) -> None:
        """No slice waits."""

    def replace(self, slice_: S) -> None:
        """No call runs while the loop looks for those that are over their time."""

    def stop(self) -> None:
        """Close the instance."""
        handler, self._handler = self._handler, None
        if handler is None:
            return
        try:
            handler.close()
        except Exception:  # noqa: BLE001 - what was handled is settled, and the worker goes on to its end
            _log.exception("%s.close failed", self._declaration.name)

    def stopped(self, until_s: float) -> bool:  # noqa: ARG002 - as of `Pool`
        """It is."""
        return True
