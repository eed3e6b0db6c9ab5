"""What a peer is asked to do and how it answers: arguments in, one line of JSON out.

The standard library only, so that it works in each peer's environment.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FETCH_QUEUE_BACKOFF_MS = 10  # librdkafka's default of 1000 would dominate every peer that is built on it
PREFETCH_RECORDS = 100_000  # librdkafka's default, said because arroyo has its own
COMMIT_EVERY_S = 1.0
_STDOUT = 1  # not `sys.stdout`, which some peers redirect into their logs


@dataclass(frozen=True, slots=True)
class Task:
    """One run of a peer: its arguments, in this order."""

    row: str
    bootstrap_servers: str
    topic: str
    group: str
    seconds: float  # from the first record on
    records: int  # all that the topic has

    @classmethod
    def asked(cls) -> Task:
        """What this process was started for."""
        row, bootstrap_servers, topic, group, seconds, records = sys.argv[1:]
        return cls(row, bootstrap_servers, topic, group, float(seconds), int(records))

    def arguments(self) -> list[str]:
        """What starts a process for it."""
        return [str(one) for one in astuple(self)]


def stopwatch(task: Task) -> Callable[[], None]:
    """What is to be called after each record, from any thread, and costs little.

    When the time is up or the last record is handled it prints the figures and ends the process, since not every
    peer can be stopped from within its handler.
    """
    numbers = itertools.count(1)  # the next one is had without a lock, as the interpreter's own holds
    ending = threading.Lock()  # taken once, by the timer or by the last record, and never given back
    began_s = began_cpu_s = 0.0

    def handled() -> None:
        number = next(numbers)
        if number == 1:
            begin()
        elif number == task.records:
            end(number)

    def begin() -> None:
        nonlocal began_s, began_cpu_s
        timer = threading.Timer(task.seconds, lambda: end(next(numbers) - 1))
        timer.daemon = True
        timer.start()
        began_s, began_cpu_s = time.perf_counter(), time.process_time()

    def end(number: int) -> None:
        seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        if ending.acquire(blocking=False):
            figures = {"rate": (number - 1) / seconds, "cpu_us": 1e6 * cpu_s / number}
            os.write(_STDOUT, f"\n{json.dumps(figures)}\n".encode())
            os._exit(0)

    return handled
