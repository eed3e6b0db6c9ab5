"""Flights, enriched by way of caches and stored once, past a kill: `python examples/enrich/demo.py`.

Needs nothing but streamworker: without options it runs on librdkafka's mock cluster, into SQLite, with a cache in the
memory of one worker. With `--redis` there are two workers, which share what they know. Ends with what was found beside
what was sent; the exit code is 0 if all is right, 1 if a check failed.
"""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from brokers import Log, topics
from checks import judge, of_rows
from reference import Reference
from script import script
from workers import Fleet, Program, WorkerEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from script import Script

ROWS = 20_000
_KILL_IN_PART = 1
# For the join, for each part of the rows; several times what an idle machine needs.
_STEP_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.1
# How long it is waited for rows that are stored and not committed, before the kill.
_CATCH_S = 2.0


class Stage:
    """The workers, and what they are sent. Main thread."""

    def __init__(self, fleet: Fleet, log: Log, reference: Reference, flights: str, planes: str) -> None:
        self._fleet = fleet
        self._log = log
        self._reference = reference
        self._flights, self._planes = flights, planes

    def play(self, played: Script, workers: int) -> None:
        """All of it. Raises TimeoutError if a step is not through in time."""
        for _ in range(workers):
            victim = self._fleet.start()
        self._wait("the workers have partitions", lambda: all(one.owned for one in self._fleet.living))
        for number, part in enumerate(played.parts):
            self._log.send(part.flights)
            self._log.send(part.changes)
            print(f"part {number + 1}: {len(part.flights):,} flights, then {len(part.changes):,} changes of planes")
            if number == _KILL_IN_PART:
                left = self._left_uncommitted(len(part.flights) // 2)
                victim.kill()
                print(f"{victim.name} is killed; {left:,} rows were stored and not committed")
                self._fleet.start()
            self._wait("all changes of planes are handled", lambda: self._log.handled(self._planes))
        self._wait("all flights are handled", lambda: self._log.handled(self._flights))
        self._fleet.look()

    def _left_uncommitted(self, wanted: int) -> int:
        """Wait for a moment at which so many rows are stored and their records not committed; how many there are."""
        until_s = time.monotonic() + _CATCH_S
        left = 0
        while left < wanted and time.monotonic() < until_s:
            committed = self._log.committed(self._flights)
            ((stored,),) = self._reference.rows("SELECT count(*) FROM enriched")
            assert isinstance(stored, int)
            left = stored - committed  # or more: dead letters are committed, too
        return max(0, left)

    def _wait(self, what: str, reached: Callable[[], bool]) -> None:
        until_s = time.monotonic() + _STEP_TIMEOUT_S
        while True:
            self._fleet.look()
            if reached():
                return
            if time.monotonic() > until_s:
                raise TimeoutError(f"not within {_STEP_TIMEOUT_S:g} s: {what}")
            time.sleep(_LOOK_EVERY_S)


@contextmanager
def place(database: str | None, folder: Path, run: str) -> Iterator[str]:
    """The URL of a database for this run: a file, or a schema of its own that is gone afterwards."""
    if database is None:
        yield f"sqlite:///{folder / 'enrich.sqlite'}"
        return
    schema = f"demo_enrich_{run}"
    with closing(Reference(database)) as server:
        server.rows(f"CREATE SCHEMA {schema}")
        try:
            yield f"{database}{'&' if '?' in database else '?'}options=-csearch_path%3D{schema}"
        finally:
            server.rows(f"DROP SCHEMA {schema} CASCADE")


def run(arguments: argparse.Namespace) -> bool:
    """Everything; whether all checks passed."""
    played = script(arguments.rows)
    name = secrets.token_hex(3)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamworker-demo-")))
        database = stack.enter_context(place(arguments.database, folder, name))
        topics_ = stack.enter_context(topics(arguments.kafka, name))
        program = Program(topics_, folder, database, arguments.redis)
        program.make_tables()
        reference = stack.enter_context(closing(Reference(database)))
        reference.fill(played.airports, played.planes)
        log = stack.enter_context(closing(Log(topics_)))
        fleet = stack.enter_context(Fleet(program))
        print(f"{arguments.rows:,} flights to {topics_.flights} at {topics_.bootstrap_servers}")
        try:
            stage = Stage(fleet, log, reference, topics_.flights, topics_.planes)
            stage.play(played, workers=1 if arguments.redis is None else 2)
            codes = fleet.stop()
            stored, planes = of_rows(reference)
            checks = list(judge(played, stored, log.dead_letters(), planes, fleet.requests))
        except TimeoutError:
            print(*(f"the end of {one.name}'s log:\n{one.log_tail()}" for one in fleet.workers), sep="\n")
            raise
    print(f"\n{'':44} {'expected':>10} {'found':>10}", *checks, sep="\n")
    asked = sorted(fleet.requests.items())
    print("", *(f"{cache}, {level}, {result}: {keys:,}" for (cache, level, result), keys in asked), sep="\n")
    print(*(f"{worker} ended with {code}" for worker, code in codes.items()), sep="\n")
    return all(check.passed for check in checks) and not any(codes.values())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Flights, enriched by way of caches and stored once, past a kill.")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="a Kafka to use instead of the mock cluster")
    parser.add_argument("--database", metavar="URL", help="a PostgreSQL (postgresql://…) instead of a file of SQLite")
    parser.add_argument("--redis", metavar="URL", help="a Redis for the caches, and a second worker")
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of the file to send (%(default)s)")
    return parser.parse_args()


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def main() -> int:
    """Run; the exit code."""
    signal.signal(signal.SIGTERM, _end)
    began_s = time.monotonic()
    try:
        passed = run(_arguments())
    except (WorkerEnded, TimeoutError) as error:
        print(error)
        return 1
    print(f"{'all checks passed' if passed else 'A CHECK FAILED'} in {time.monotonic() - began_s:.0f} s")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
