"""Handlers in real child processes. One takes a third of a second to start, so most tests share one."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from fleet.computing import (
    CannotOpen,
    DiesOpening,
    Obeys,
    ObeysInBatches,
    ObeysTwice,
    OpensAtTheThirdTry,
    Refused,
)

from streamworker import Breaker, Context, Handler, Read, Record, TopicPartition
from streamworker.clock import SystemClock
from streamworker.config import LogConfig
from streamworker.declaration import declaration, declarations
from streamworker.errors import CallKilled, ConfigurationError, FatalError
from streamworker.processing import threads
from streamworker.processing.pools import Pools
from streamworker.testing.memory_broker import MemoryMessage
from streamworker.work import Ownership, Slice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamworker import BatchHandler
    from streamworker.work import SliceOutcome

    AnyHandlerClass = type[Handler[str]] | type[BatchHandler[str]]

AT = TopicPartition("in", 0)
PATIENCE_S = 20.0


class Running:
    """A pool of child processes at work, and what they note."""

    def __init__(self, handler: AnyHandlerClass, folder: Path, **app: object) -> None:
        self.ledger, self.fifo = folder / "ledger", folder / "fifo"
        if not self.fifo.exists():
            os.mkfifo(self.fifo)
        context = Context(app={"ledger": str(self.ledger), **app}, group="g", handler=handler.__name__)
        self.pools: Pools[Slice] = Pools(
            declarations([handler]), [context], clock=SystemClock(), max_record_bytes=1000, log=LogConfig()
        )

    def __enter__(self) -> Self:
        self.pools.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.pools.stop(PATIENCE_S)

    def run(self, *orders: str) -> SliceOutcome[Slice]:
        """The outcome of a slice."""
        self.pools.submit(slice_of(*orders))
        return self.outcome()

    def outcome(self) -> SliceOutcome[Slice]:
        (outcome,) = self.pools.collect(PATIENCE_S)
        return outcome

    def released(self) -> int:
        """Let a child go on that waits at the fifo, once it is there; returns the descriptor to close then."""
        return os.open(self.fifo, os.O_WRONLY)

    @property
    def lines(self) -> list[tuple[int, int, str]]:
        """Process, offset and word of each note."""
        found = (line.split(" ", 2) for line in self.ledger.read_text("utf-8").splitlines())
        return [(int(process), int(offset), word) for process, offset, word in found]

    @property
    def process(self) -> int:
        """That of the last note."""
        return self.lines[-1][0]


def slice_of(*orders: str) -> Slice:
    messages = [MemoryMessage(AT, offset, value=order.encode()) for offset, order in enumerate(orders)]
    slice_ = Slice(0, Ownership(AT, 1), messages, 1)
    slice_.watched = False  # as for a fast handler: a child looks before each record all the same
    return slice_


def failed(outcome: SliceOutcome[Slice]) -> tuple[int, int | None, type[BaseException]]:
    assert outcome.failure is not None
    return outcome.slice.done, outcome.failure.index, type(outcome.failure.error)


def killed(outcome: SliceOutcome[Slice]) -> CallKilled:
    assert outcome.failure is not None
    assert isinstance(outcome.failure.error, CallKilled)
    return outcome.failure.error


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A pool of one child for the tests of this module."""
    with Running(Obeys, tmp_path_factory.mktemp("running")) as running:
        yield running
    assert running.lines[-1][1:] == (-1, "closes")


def test_records_are_decoded_and_handled_in_another_process_in_order(running: Running) -> None:
    before = len(running.lines)

    outcome = running.run("one", "two")

    assert (outcome.slice.done, outcome.failure, outcome.slice.rejected) == (2, None, [])
    lines = running.lines[before:]
    assert [line[1:] for line in lines] == [(0, "begins 1"), (0, "ends"), (1, "begins 1"), (1, "ends")]
    assert os.getpid() not in {process for process, _, _ in lines}
    assert (-1, "opens g Obeys own") in [line[1:] for line in running.lines]


def test_a_failure_ends_its_slice_and_is_what_the_handler_raised(running: Running) -> None:
    outcome = running.run("fine", "refuse", "fine")

    assert failed(outcome) == (1, 1, Refused)
    assert outcome.failure is not None
    error = outcome.failure.error
    assert isinstance(error, Refused)
    assert (error.code, str(error), type(error.__cause__)) == (7, "refuse was refused", LookupError)
    assert failed(running.run("fatal")) == (0, 0, FatalError)


def test_what_is_rejected_is_told_before_anything_else_begins(running: Running) -> None:
    """If a later record killed the process, the worker would take it for handled."""
    process = running.process

    outcome = running.run("fine", "undecodable", "exit 3")

    assert (outcome.slice.done, outcome.failure) == (2, None)
    assert [(index, str(error)) for index, error in outcome.slice.rejected] == [(1, "not of in")]
    assert running.process == process


def test_the_worker_sees_which_call_is_in_progress_and_the_child_what_was_said_meanwhile(running: Running) -> None:
    slice_ = slice_of("fine", f"due {running.fifo}", "fine", "fine")
    before_s = time.monotonic()

    running.pools.submit(slice_)
    fifo = running.released()
    assert list(running.pools.collect(0)) == []
    seen = slice_.done, slice_.called
    slice_.ownership.closing, slice_.ownership.closes_at, slice_.ownership.ends_s = True, 3, 12.5
    assert list(running.pools.collect(0)) == []
    os.close(fifo)
    outcome = running.outcome()

    done, called = seen
    assert called is not None
    assert (done, called[0]) == (1, 1)
    assert before_s < called[1] < time.monotonic()
    assert (outcome.slice.done, outcome.failure) == (3, None)
    assert (1, "ends 12.5") in [line[1:] for line in running.lines]


def test_nothing_more_of_a_slice_begins_that_was_given_up_or_whose_lease_has_run_out(running: Running) -> None:
    for changed in ("given_up", "lease"):
        slice_ = slice_of(f"wait {running.fifo}", "fine")
        running.pools.submit(slice_)
        fifo = running.released()
        if changed == "lease":
            slice_.ownership.lease.until_s = time.monotonic()
        else:
            slice_.given_up = True
        assert list(running.pools.collect(0)) == []
        os.close(fifo)

        outcome = running.outcome()
        assert (outcome.slice.done, outcome.failure) == (1, None), changed


def test_signals_are_left_to_the_worker(running: Running) -> None:
    process = running.process
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process, number)

    assert running.run("fine").failure is None
    assert running.process == process


@pytest.mark.parametrize(
    ("order", "exit_code", "said"), [("exit 3", 3, "exit code 3"), (f"signal {signal.SIGSEGV}", -11, "SIGSEGV")]
)
def test_a_record_that_ends_the_process_has_failed_and_what_came_before_it_is_done(
    running: Running, order: str, exit_code: int, said: str
) -> None:
    process = running.process

    outcome = running.run("fine", "fine", order, "fine")

    assert failed(outcome) == (2, 2, CallKilled)
    assert killed(outcome).exit_code == exit_code
    assert str(killed(outcome)) == f"the child process of Obeys died during the call: {said}"
    assert running.run("fine").failure is None
    assert running.process != process


def test_a_process_that_dies_between_calls_is_nobodys_fault(running: Running) -> None:
    process = running.process
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)

    outcome = running.run("fine")

    assert (outcome.slice.done, outcome.failure) == (0, None)
    assert running.run("fine").slice.done == 1


def test_a_call_over_its_time_ends_with_its_process(running: Running) -> None:
    slice_ = slice_of("fine", f"wait {running.fifo}")
    running.pools.submit(slice_)
    fifo = running.released()
    process = running.process

    running.pools.replace(slice_)
    late = running.outcome()
    os.close(fifo)

    assert failed(late) == (1, 1, CallKilled)
    assert running.run("fine").slice.done == 1
    assert running.process != process


def test_what_is_not_over_at_the_end_is_killed(tmp_path: Path) -> None:
    running = Running(ObeysTwice, tmp_path)
    running.pools.start()
    running.pools.submit(slice_of(f"wait {running.fifo}"))
    fifo = running.released()

    assert not running.pools.stop(0.0)
    assert failed(running.outcome()) == (0, 0, CallKilled)
    os.close(fifo)
    assert running.pools.stop(PATIENCE_S)


def test_a_batch_whose_process_dies_has_failed_as_a_whole_and_children_log_as_the_worker_does(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Running(ObeysInBatches, tmp_path) as running:
        assert failed(running.run("fine", "exit 0")) == (0, None, CallKilled)
        outcome = running.run("fine", "say hello")

    assert (outcome.slice.done, outcome.failure) == (2, None)
    (line,) = capfd.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["event"], said["level"], said["logger"]) == ("hello", "warning", "app")


def test_one_that_cannot_be_opened_in_place_of_another_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threads, "_OPEN_AGAIN_S", 0.01)
    with Running(OpensAtTheThirdTry, tmp_path) as running:
        assert failed(running.run("exit 0")) == (0, 0, CallKilled)
        outcome = running.run("fine")

    assert (outcome.slice.done, outcome.failure) == (1, None)
    assert [one.message for one in caplog.records] == [
        "OpensAtTheThirdTry.open failed in place of one that is gone, tried again"
    ]


def test_what_open_raises_is_raised_at_the_start(tmp_path: Path) -> None:
    running = Running(CannotOpen, tmp_path)

    with pytest.raises(ConnectionRefusedError, match="no database"):
        running.pools.start()
    assert running.pools.stop(PATIENCE_S)


def test_a_process_that_dies_before_it_is_open_is_an_error_of_the_start(tmp_path: Path) -> None:
    running = Running(DiesOpening, tmp_path)

    with pytest.raises(CallKilled, match="the child process of DiesOpening died before its instance was open: SIGKILL"):
        running.pools.start()
    assert running.pools.stop(PATIENCE_S)


_WORKER = """
import sys
from pathlib import Path
from unit.test_process_pools import Obeys, Running, slice_of
with Running(Obeys, Path(sys.argv[1])) as running:
    running.run(f"wait {running.fifo}")
"""


def test_children_end_with_a_worker_that_is_killed_in_the_middle_of_a_call_too(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER, tmp_path], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    )
    fifo = os.open(tmp_path / "fifo", os.O_WRONLY)

    worker.kill()
    worker.wait(PATIENCE_S)

    waits = select.poll()
    waits.register(fifo, select.POLLERR)  # nobody reads it any more
    assert waits.poll(PATIENCE_S * 1000)
    os.close(fifo)


def test_a_handler_that_a_child_cannot_import_is_refused(tmp_path: Path) -> None:
    class Local(Obeys):
        """Nobody else can have it."""

    with pytest.raises(ConfigurationError, match=r"Local\.execution: .*<locals>\.Local is none to import it by; put"):
        Running(Local, tmp_path)


def test_a_handler_of_the_script_that_runs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a child, `__main__` is another module."""
    monkeypatch.setattr(Obeys, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Obeys", Obeys, raising=False)

    with pytest.raises(ConfigurationError, match=r"__main__\.Obeys is none"):
        Running(Obeys, tmp_path)


def test_an_app_table_that_cannot_be_pickled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"Obeys\.execution: the \[app\] table goes to child processes"):
        Running(Obeys, tmp_path, odd=lambda: None)


def test_what_cannot_work_across_processes_is_refused_with_the_way_out() -> None:
    class Awaits(Obeys):
        async def handle(self, record: Record[str]) -> None: ...

    class Needs(Obeys):
        dependencies = (Breaker("geo"),)

    class Reads(Obeys):
        reads = (Read("geo", ("skip",), dependency="geo"),)

    class Odd(Obeys):
        execution = "proces"

    with pytest.raises(ConfigurationError, match=r"Awaits\.execution: .*make handle a plain def"):
        declaration(Awaits)
    with pytest.raises(ConfigurationError, match=r"Needs\.dependencies: .*the handler's own breaker"):
        declaration(Needs)
    with pytest.raises(ConfigurationError, match=r"Reads\.reads: .*leave execution at"):
        declaration(Reads)
    with pytest.raises(ConfigurationError, match=r"Odd\.execution: got 'proces'; did you mean 'process'"):
        declaration(Odd)
