"""Flights through two worker processes, past a locked database and a kill: `python examples/flights/demo.py`.

Needs nothing but streamworker: without `--kafka` the brokers are librdkafka's mock cluster. Ends with a table of the
run beside its source; the exit code is 0 if nothing was lost, 1 if a check failed.
"""

from __future__ import annotations

import argparse
import enum
import secrets
import signal
import sys
import tempfile
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from brokers import topics
from checks import Outage, carriers_table, checks_table, judge
from letters import instructions, serve
from rich.console import Console
from sender import Sender
from store import FlightStore, locked
from view import Scene, view
from workers import Fleet, WorkerEnded

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from brokers import Topics
    from view import Show
    from workers import Look

ROWS = 50_000
ROWS_PER_S = 3_500
# For the join, for each part of the rows; several times what an idle machine needs.
_STEP_TIMEOUT_S = 60.0
_OUTAGE_S = 5.0
# Of a worker: four calls in progress, two that begin before the third of them fails, trials after 0.5, 1 and 2 s.
_CALLS_PER_OUTAGE = 4 + 2 + 4
_LOOK_EVERY_S = 0.25
_RATE_OVER_LOOKS = 8
_PLAIN_WIDTH = 100


class Stay(enum.Enum):
    """What is there after the demo."""

    NO = "nothing"
    YES = "brokers and a worker"
    WITH_CONSOLE = "and a console"


class Interrupted(Exception):
    """The demo was told to end by signal `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{signal.Signals(number).name}: the workers are ended")
        self.number = number


class Interruption:
    """Notes SIGINT and SIGTERM; they are acted on in `pause` only, since an exception anywhere might leave a child."""

    def __init__(self) -> None:
        self._number: int | None = None
        signal.signal(signal.SIGINT, self._note)
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._number = number

    def pause(self, seconds: float) -> None:
        """Let time pass; raises Interrupted."""
        time.sleep(seconds)
        if self._number is not None:
            raise Interrupted(self._number)


class Stage:
    """The workers, what is sent to them, and how far they are. Main thread."""

    def __init__(self, fleet: Fleet, sender: Sender, show: Show, interruption: Interruption) -> None:
        self.fleet = fleet
        self.sender = sender
        self.outage: Outage | None = None
        self._show = show
        self._began_s = time.monotonic()
        self._next: dict[int, int] = {}  # lowest offset that is not done, by partition
        self._committed: dict[int, int] = {}
        self._looks: dict[str, Look] = {}
        self._history: deque[tuple[float, int]] = deque(maxlen=_RATE_OVER_LOOKS)
        self._interruption = interruption

    @property
    def done(self) -> int:
        """Records that are done, whichever way they ended."""
        return sum(self._next.values())

    @property
    def committed(self) -> int:
        """Records that will not be handled again."""
        return sum(self._committed.values())

    @property
    def lag(self) -> int:
        """Records that brokers have and that are not done."""
        return sum(self.sender.ends.copy().values()) - self.done

    @property
    def shared(self) -> bool:
        """Whether each worker that lives owns partitions."""
        return all(self._looks[worker.name].owned for worker in self.fleet.workers if not worker.killed)

    @property
    def failed_calls(self) -> int:
        """Calls that failed because of the database."""
        return sum(one.failed_calls for one in self._looks.values())

    @property
    def held_back(self) -> int:
        """Workers whose breaker is not closed."""
        return sum(one.breaker in ("open", "half_open") for one in self._looks.values())

    def look(self) -> None:
        """Ask all workers, show what they say, and let a moment pass; raises Interrupted."""
        self._looks = {worker.name: worker.look() for worker in self.fleet.workers}
        for one in self._looks.values():
            for partition, offsets in one.owned.items():
                self._next[partition] = max(self._next.get(partition, 0), offsets.next_offset or 0)
                self._committed[partition] = max(self._committed.get(partition, 0), offsets.committed_offset or 0)
        now_s = time.monotonic()
        self._history.append((now_s, self.done))
        self._show(Scene(now_s - self._began_s, self.sender.sent, max(0, self.lag), self._rate(), self._looks))
        self._interruption.pause(_LOOK_EVERY_S)

    def _rate(self) -> float:
        (first_s, first), (last_s, last) = self._history[0], self._history[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0

    def wait_until(self, reached: Callable[[], bool]) -> bool:
        """Look until it is reached; false if it is not in time."""
        until_s = time.monotonic() + _STEP_TIMEOUT_S
        while time.monotonic() < until_s:
            self.look()
            if self.sender.error is not None:
                raise self.sender.error
            if reached():
                return True
        return False


def run(kafka: str | None, rows: int, rows_per_s: float, console: Console, *, stay: Stay) -> bool:
    """Everything; whether all checks passed."""
    interruption = Interruption()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamworker-demo-")))
        database = folder / "flights.sqlite"
        FlightStore.create(database)
        places = stack.enter_context(topics(kafka, secrets.token_hex(3)))
        fleet = stack.enter_context(Fleet(places, folder))
        sender = stack.enter_context(Sender(places, rows=rows, rows_per_s=rows_per_s))
        console.print(f"{rows} flights to {places.flights} at {places.bootstrap_servers}")
        with view(console) as show:
            stage = Stage(fleet, sender, show, interruption)
            in_time = _perform(stage, database, rows, console)
        exit_codes = fleet.stop()
        verdict = judge(topics=places, database=database, rows=rows, outage=stage.outage, exit_codes=exit_codes)
        if not verdict.passed:
            _print_logs(fleet, console)
        console.print(carriers_table(verdict))
        console.print(checks_table(verdict))
        if not in_time:
            console.print(f"a step of the demo was not through within {_STEP_TIMEOUT_S:g} s")
        _leave_letters(places, fleet, interruption, console, stay=stay)
    return verdict.passed and in_time


def _leave_letters(places: Topics, fleet: Fleet, interruption: Interruption, console: Console, *, stay: Stay) -> None:
    """Say how to work on the dead letters of the run; if that is wanted, brokers and a worker stay until a signal."""
    console.print("\nShow, repair and replay its dead letters:")
    for line in instructions(places):
        console.print(f"  {line}", markup=False, soft_wrap=True)
    if stay is Stay.NO:
        console.print("The brokers end with the demo; with --stay they and a worker stay until Ctrl-C.")
        return
    fleet.start()
    served = serve(places) if stay is Stay.WITH_CONSOLE else None
    console.print("The brokers and a worker stay until Ctrl-C.")
    try:
        while True:
            interruption.pause(_LOOK_EVERY_S)
    except Interrupted:
        pass
    finally:
        if served is not None:
            served.terminate()
            served.wait()
        fleet.stop()


def _perform(stage: Stage, database: Path, rows: int, console: Console) -> bool:
    """Start two workers, send, lock the database for a while, kill a worker, start another.

    Whether all came to its end in time.
    """
    for _ in range(2):
        victim = stage.fleet.start()
        console.print(f"{victim.name} is process {victim.pid}")
    if not stage.wait_until(lambda: stage.shared):  # otherwise the kill might hit one that has nothing to do
        return False
    stage.sender.start()
    if not stage.wait_until(lambda: stage.done >= rows // 4):
        return False
    console.print(f"the database is locked for {_OUTAGE_S:g} s")
    _lock(stage, database)
    if not stage.wait_until(lambda: stage.done >= rows // 2):
        return False
    victim.kill()
    replacement = stage.fleet.start()
    console.print(f"{victim.name} is killed; {replacement.name} is process {replacement.pid}")
    return stage.wait_until(lambda: stage.committed >= rows and stage.shared)


def _lock(stage: Stage, database: Path) -> None:
    """Let nobody write to the database for a while."""
    failed_before = stage.failed_calls
    with locked(database):
        until_s = time.monotonic() + _OUTAGE_S
        stage.wait_until(lambda: time.monotonic() >= until_s)
        waiting, held_back = stage.lag, stage.held_back
    stage.look()  # what failed last is counted by now
    stage.outage = Outage(
        seconds=_OUTAGE_S,
        waiting=waiting,
        held_back=held_back,
        failed_calls=stage.failed_calls - failed_before,
        allowed_calls=_CALLS_PER_OUTAGE * len(stage.fleet.workers),
    )


def _print_logs(fleet: Fleet, console: Console) -> None:
    for worker in fleet.workers:
        console.print(f"the end of {worker.name}'s log:\n{worker.log_tail()}", markup=False, soft_wrap=True)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text}")
    return number


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Flights through two workers, past a locked database and a kill.")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="a Kafka to use instead of the mock cluster")
    parser.add_argument(
        "--rows", type=_positive, default=ROWS, help="rows of the file to send (default: all %(default)s)"
    )
    parser.add_argument("--stay", action="store_true", help="keep brokers and a worker until Ctrl-C")
    parser.add_argument("--console", action="store_true", help="the same, and serve a console over the dead letters")
    parser.add_argument("--rate", type=_positive, default=ROWS_PER_S, help="rows to send per second (%(default)s)")
    return parser.parse_args()


def main() -> int:
    """Run; the exit code."""
    arguments = _arguments()
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PLAIN_WIDTH)
    began_s = time.monotonic()
    try:
        stay = Stay.WITH_CONSOLE if arguments.console else Stay.YES if arguments.stay else Stay.NO
        passed = run(arguments.kafka or None, min(arguments.rows, ROWS), float(arguments.rate), console, stay=stay)
    except (WorkerEnded, TimeoutError) as error:
        console.print(str(error), markup=False)
        return 1
    except Interrupted as interrupted:
        console.print(str(interrupted))
        return 128 + interrupted.number
    console.print(f"{'all checks passed' if passed else 'A CHECK FAILED'} in {time.monotonic() - began_s:.0f} s")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
