"""A child process that computes for a worker: what `execution = "process"` puts a handler's instance into.

It imports the handler, opens one instance and handles one slice after the other, with the code that threads use. Before
each record it says which one it is at, and looks whether it may begin. It ends when it is told to or when the worker
does, however that ends; signals are the worker's business. `processing/processes.py` is the other side.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from importlib import import_module
from multiprocessing.connection import Connection
from operator import attrgetter
from typing import TYPE_CHECKING

from streamworker.clock import SystemClock
from streamworker.declaration import declaration
from streamworker.errors import ConfigurationError
from streamworker.handler import Context
from streamworker.idempotency.provision import claimer_of
from streamworker.observability import logs
from streamworker.processing.effects import effects_of
from streamworker.processing.executor import SliceRunner, guarded_call
from streamworker.processing.handover import Setup, bytes_of_error, bytes_of_outcome, slice_of
from streamworker.processing.slate import Slate
from streamworker.resilience.guard import guards_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamworker.clock import Clock
    from streamworker.declaration import Declaration
    from streamworker.handler import AnyHandler
    from streamworker.interfaces import Claimer, ClientOption, Dependency
    from streamworker.work import Slice, SliceOutcome

_STANDARD_INPUT = 0
_log = logging.getLogger(__name__)


def main() -> None:
    """Serve the worker that has started this process, over the two descriptors that the command line names."""
    connection, slate = Connection(int(sys.argv[2])), Slate(int(sys.argv[3]))
    del sys.argv[1:]  # it is none of the application's
    _leave_signals_to_the_worker()
    threading.Thread(target=_end_with_the_worker, name="streamworker-parent", daemon=True).start()
    try:
        instance = _Instance(Setup.of(connection.recv_bytes()), slate)
    except BaseException as error:  # noqa: BLE001 - handed to the worker, which raises it
        connection.send_bytes(bytes_of_error(error))
        return
    connection.send_bytes(bytes_of_error(None))
    while data := connection.recv_bytes():
        connection.send_bytes(bytes_of_outcome(instance.run(slice_of(data))))
    instance.close()


def _leave_signals_to_the_worker() -> None:
    """Also those that came since the start, when they were blocked."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))


def _end_with_the_worker() -> None:
    """Leave in the middle of a call, too: others take over what the worker had, and would call at the same time."""
    os.read(_STANDARD_INPUT, 1)  # nothing ever comes but the end
    os._exit(1)


class _Instance:
    """The handler's instance, open; raises what opening it raises, and ConfigurationError if it cannot be imported."""

    def __init__(self, setup: Setup, slate: Slate) -> None:
        if setup.log is not None:
            logs.configure(setup.log, sys.stderr)
        self._slate = slate
        self._declared = declaration(_imported(setup))
        clock = SystemClock()
        context = _ToldContext(
            slate,
            app=setup.app,
            group=setup.group,
            handler=self._declared.name,
            dependencies=guards_of(self._declared, {}, clock),
            sinks=setup.sinks,
            producer=setup.producer,
            claimer=None if setup.claims is None else claimer_of(self._declared, setup.claims, setup.group, clock),
            timeout_s=self._declared.timeout_s,
        )
        self._handler: AnyHandler = self._declared.make()
        self._handler.open(context)
        self._call = guarded_call(self._declared, self._handler)
        self._effects = effects_of(self._declared, context)
        self._runner = _ToldRunner(slate, self._declared, context, clock, setup.max_record_bytes)

    def run(self, slice_: Slice) -> SliceOutcome[Slice]:
        """Handle a slice."""
        self._slate.heed(slice_)
        return self._runner.run(self._call, slice_, self._effects)

    def close(self) -> None:
        """Close the instance."""
        try:
            self._handler.close()
        except Exception:  # noqa: BLE001 - the process ends here, and what was handled is settled
            _log.exception("%s.close failed", self._declared.name)
        if self._effects is not None:
            self._effects.close()


def _imported(setup: Setup) -> type:
    try:
        found: type = attrgetter(setup.qualified_name)(import_module(setup.module))
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"{setup.qualified_name}.execution: a child process cannot import {setup.module}: {error}"
        ) from error
    return found


class _ToldContext(Context):
    """A context whose deadline is by what the worker said last."""

    def __init__(
        self,
        slate: Slate,
        *,
        app: Mapping[str, object],
        group: str,
        handler: str,
        dependencies: Mapping[str, Dependency],
        sinks: Mapping[str, str],
        producer: Mapping[str, ClientOption],
        claimer: Claimer | None,
        timeout_s: float | None,
    ) -> None:
        super().__init__(
            app=app,
            group=group,
            handler=handler,
            dependencies=dependencies,
            sinks=sinks,
            producer=producer,
            claimer=claimer,
            timeout_s=timeout_s,
        )
        self._slate = slate

    def deadline_s(self) -> float:
        """As of `Context`."""
        slice_ = self.in_hand.get()
        if slice_ is not None:
            self._slate.heed(slice_)
        return super().deadline_s()


class _ToldRunner(SliceRunner):
    """Says before each record which one it is, and looks whether it may still begin."""

    def __init__(
        self, slate: Slate, declared: Declaration, context: Context, clock: Clock, max_record_bytes: int
    ) -> None:
        super().__init__(declared, clock=clock, max_record_bytes=max_record_bytes, in_hand=context.in_hand)
        self._slate = slate

    def _may_start(self, slice_: Slice, index: int) -> bool:
        # What was rejected is told before anything else begins: if that killed the process, the worker would take
        # what came before for handled.
        if slice_.rejected:
            return False
        self._slate.begin(index, self._monotonic_s())
        self._slate.heed(slice_)
        return super()._may_start(slice_, index)
