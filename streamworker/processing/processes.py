"""A pool of child processes for a plain `def` handler that computes.

Each pool thread drives one child: it hands a whole slice over, waits for the answer and reports it. Order, epochs and
room are the loop's business, as with threads. Children are interpreters of their own and never forks, which would
copy the client and the threads of the worker in the middle of what they do. What happens in a child is in
`streamworker/child.py`.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing import Pipe
from operator import attrgetter
from typing import TYPE_CHECKING, Generic, TypeVar

from streamworker.errors import CallKilled, ConfigurationError
from streamworker.processing.handover import Answer, Setup, answer_of, bytes_of_slice, error_of
from streamworker.processing.slate import Slate, new_file
from streamworker.processing.threads import ThreadPool
from streamworker.work import Failure, Slice, SliceOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker.clock import Clock
    from streamworker.config import ClaimConfig, LogConfig
    from streamworker.declaration import Declaration
    from streamworker.handler import Context
    from streamworker.processing.threads import Instance

S = TypeVar("S", bound=Slice)

# The worker's path comes first, because the package itself may be found by nothing else.
_PROGRAM = "import sys; sys.path[:] = sys.argv[4:]; from streamworker.child import main; main()"
_END = b""  # ends a child: no slice is as short
_DYING_S = 1.0  # a child that has closed its connection is gone within milliseconds
_log = logging.getLogger(__name__)


class ProcessPool(ThreadPool[S]):
    """Threads that drive a child process each.

    Raises ConfigurationError for a handler that a child cannot import, and for an [app] table that cannot be pickled.
    """

    def __init__(
        self,
        declaration: Declaration,
        context: Context,
        report: Callable[[SliceOutcome[S]], None],
        *,
        clock: Clock,
        max_record_bytes: int,
        log: LogConfig | None = None,
        claims: ClaimConfig | None = None,
    ) -> None:
        super().__init__(declaration, context, report, clock=clock, max_record_bytes=max_record_bytes)
        self._clock = clock
        self._setup = _setup(declaration, context, max_record_bytes, log, claims)
        self._children: list[_Child[S]] = []  # those that live; pool threads add and remove theirs

    def open(self) -> Instance[S]:
        """Start a child and wait until its instance is open; raises what that raises. Called on pool threads."""
        child = _Child[S](self.declaration, self._clock, ended=self._children.remove)
        self._children.append(child)
        child.open(self._setup)
        return child

    def catch_up(self) -> None:
        """Tell children what has changed for their slices, and see how far they are."""
        for child in tuple(self._children):
            child.catch_up()

    def stopped(self, until_s: float) -> bool:
        """Whether all have ended by then; those that have not are killed, because nobody waits for their calls."""
        if super().stopped(until_s):
            return True
        for child in tuple(self._children):
            child.kill()
        return False


class _Child(Generic[S]):
    """An `Instance` in a process of its own, from its start on.

    Driven by one pool thread; the loop thread calls `catch_up`, `abandon` and `kill`. The lock protects which slice is
    in hand, and the slice's counters, from both at once.
    """

    def __init__(self, declaration: Declaration, clock: Clock, *, ended: Callable[[_Child[S]], None]) -> None:
        self.gone = False
        self._declaration = declaration
        # What such a slice came to counts when its outcome is there, and not before.
        self._counts_at_end = any((declaration.batch, declaration.sink, declaration.idempotency))
        self._is_batch = declaration.batch is not None
        self._monotonic_s = clock.monotonic_s
        self._ended = ended
        self._lock = threading.Lock()
        self._slice: S | None = None
        self._connection, theirs = Pipe()
        file = new_file()
        try:
            self._slate = Slate(file)
            self._process = _started(declaration.name, theirs.fileno(), file)
        finally:
            theirs.close()
            os.close(file)

    def open(self, setup: bytes) -> None:
        """Let it make and open an instance; raises what that raises, and ends with it."""
        try:
            self._ask_to_open(setup)
        except BaseException:
            self.kill()
            self.close()
            raise

    def run(self, slice_: S) -> SliceOutcome[S]:
        """As of `SliceRunner`. If the child dies, the record that it was at has failed, or the batch."""
        began_s = self._monotonic_s()
        if began_s >= slice_.ownership.lease.until_s:
            return SliceOutcome(slice_, 0.0)
        if self._process.poll() is not None:
            _log.warning("%s; another is started", self._died("between two calls"))
            return SliceOutcome(slice_, 0.0)
        data = bytes_of_slice(slice_)
        self._take(slice_, began_s)
        try:
            self._connection.send_bytes(data)
            data = self._connection.recv_bytes()
        except (EOFError, OSError):
            answer = self._left_behind(began_s)
        else:
            answer = answer_of(data)
        self._put_down(slice_, answer)
        return SliceOutcome(slice_, answer.seconds, answer.failure)

    def catch_up(self) -> None:
        """Tell it what has changed for the slice in hand, and let the slice know how far it is. Loop thread."""
        with self._lock:
            slice_ = self._slice
            if slice_ is None:
                return
            self._slate.tell(slice_)
            called = self._slate.called
            if called != slice_.called:
                slice_.called = called
                slice_.done = 0 if self._counts_at_end else called[0]

    def abandon(self, slice_: S) -> None:
        """End the child if it is still at `slice_`. Loop thread."""
        with self._lock:
            if self._slice is slice_:
                self.kill()

    def kill(self) -> None:
        """End it at once; any thread."""
        self._process.kill()

    def close(self) -> None:
        """Let it close its instance, and wait for its end."""
        with suppress(OSError):
            self._connection.send_bytes(_END)
        self._process.wait()
        self._connection.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._ended(self)

    def _ask_to_open(self, setup: bytes) -> None:
        try:
            self._connection.send_bytes(setup)
            answer = self._connection.recv_bytes()
        except (EOFError, OSError):
            raise self._died("before its instance was open") from None
        error = error_of(answer)
        if error is not None:
            raise error

    def _take(self, slice_: S, now_s: float) -> None:
        with self._lock:
            self._slice = slice_
            slice_.started_s = now_s
            slice_.called = (0, now_s)
            self._slate.begin(0, now_s)
            self._slate.tell(slice_)

    def _put_down(self, slice_: S, answer: Answer) -> None:
        with self._lock:
            self._slice = None
            slice_.rejected.extend(answer.rejected)  # first: else the loop could take these for handled
            slice_.outputs = answer.outputs
            slice_.done = answer.done
            slice_.started_s = None

    def _left_behind(self, began_s: float) -> Answer:
        """What became of the slice of a child that has died: what its last call came after is done."""
        error = self._died("during the call")
        index, _ = self._slate.called
        failure = Failure(None, error) if self._is_batch else Failure(index, error)
        return Answer(0 if self._counts_at_end else index, self._monotonic_s() - began_s, [], failure)

    def _died(self, when: str) -> CallKilled:
        self.gone = True
        try:
            code = self._process.wait(_DYING_S)
        except subprocess.TimeoutExpired:  # it has closed what it should not
            self.kill()
            code = self._process.wait()
        return CallKilled(
            f"the child process of {self._declaration.name} died {when}: {_in_words(code)}", exit_code=code
        )


def _started(name: str, connection: int, slate: int) -> subprocess.Popen[bytes]:
    """A child that has these descriptors. Its standard input ends with the worker, and it with that.

    Signals that are sent to all processes of the worker at once are blocked at first: one that came before the child
    can ignore it would end it. The environment is the worker's; options of the interpreter's command line stay behind.
    """
    command = [sys.executable, "-c", _PROGRAM, name, str(connection), str(slate), *map(str, sys.path)]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(connection, slate))  # noqa: S603 - it is ours
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_words(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def _setup(
    declaration: Declaration,
    context: Context,
    max_record_bytes: int,
    log: LogConfig | None,
    claims: ClaimConfig | None,
) -> bytes:
    kind = declaration.make
    module, qualified_name = kind.__module__, kind.__qualname__
    try:
        found = attrgetter(qualified_name)(sys.modules[module])
    except (KeyError, AttributeError):
        found = None
    if module == "__main__" or found is not kind:
        raise ConfigurationError(
            f"{declaration.name}.execution: a child process imports the handler by its name, and"
            f" {module}.{qualified_name} is none to import it by; put the class at the top of a module of its own"
        )
    setup = Setup(
        module=module,
        qualified_name=qualified_name,
        app=context.app,
        sinks=dict(context.sinks),
        producer=dict(context.producer_settings),
        claims=claims,
        group=context.group,
        max_record_bytes=max_record_bytes,
        log=log,
    )
    try:
        return setup.to_bytes()
    except Exception as error:  # whatever the classes of its values raise
        raise ConfigurationError(
            f"{declaration.name}.execution: the [app] table goes to child processes by pickle, and cannot be pickled:"
            f" {error}"
        ) from error
