"""Handlers in child processes under a real worker: what dies takes nothing with it but its own call."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from fleet.computing import ObeysTwice
from fleet.in_process import Running, committed, config, read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from streamworker.testing.mock_kafka import MockKafka

KEYS = 10


def begun(ledger: Path) -> list[tuple[int, int]]:
    """Process and offset of each call, in the order in which they began."""
    lines = (line.split(" ") for line in ledger.read_text("utf-8").splitlines())
    return [(int(process), int(offset)) for process, offset, word, *_ in lines if word == "begins"]


def keys_in_order(ledger: Path) -> bool:
    """Whether no call of a key began after one of a later record of it."""
    offsets: dict[int, list[int]] = {}
    for _, offset in begun(ledger):
        offsets.setdefault(offset % KEYS, []).append(offset)
    return all(one == sorted(one) for one in offsets.values())


def release(worker: Running, fifo: Path, before: Callable[[], None] = lambda: None) -> None:
    """Wait until a child waits at `fifo`, do something, and let it go on if it lives."""
    opened: list[int] = []

    def reached() -> bool:
        with suppress(OSError):  # ENXIO while nobody waits there
            opened.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        return bool(opened)

    worker.wait(reached, "a child waits")
    before()
    os.close(opened[0])


def test_a_child_that_is_killed_loses_its_call_and_nothing_else(mock_kafka: MockKafka, tmp_path: Path) -> None:
    mock_kafka.create_topic("dlq", 1)
    servers, ledger, fifo = mock_kafka.bootstrap_servers, tmp_path / "ledger", tmp_path / "fifo"
    os.mkfifo(fifo)
    for number in range(200):
        order = f"wait {fifo}" if number == 57 else "fine"
        mock_kafka.produce_raw("in", 0, b"%d" % (number % KEYS), order.encode())

    def kill_the_one_that_waits() -> None:
        os.kill(next(process for process, offset in begun(ledger) if offset == 57), signal.SIGKILL)

    with Running(config(servers, app__ledger=ledger), ObeysTwice) as worker:
        release(worker, fifo, before=kill_the_one_that_waits)
        worker.wait(lambda: worker.recorder.of("failed"), "seen")
        release(worker, fifo)
        worker.wait(lambda: committed(servers, "g", "in", 1) == {0: 200}, "committed")
        assert worker.stop() == 0

    assert Counter(offset for _, offset in begun(ledger)) == Counter([*range(200), 57])
    assert keys_in_order(ledger)


def test_a_record_that_kills_its_child_each_time_is_dead_lettered_and_the_others_are_handled_once(
    mock_kafka: MockKafka, tmp_path: Path
) -> None:
    mock_kafka.create_topic("dlq", 1)
    servers, ledger = mock_kafka.bootstrap_servers, tmp_path / "ledger"
    for number in range(100):
        order = f"signal {signal.SIGSEGV.value}" if number == 57 else "fine"
        mock_kafka.produce_raw("in", 0, b"%d" % (number % KEYS), order.encode())

    with Running(config(servers, app__ledger=ledger), ObeysTwice) as worker:
        worker.wait(lambda: committed(servers, "g", "in", 1) == {0: 100}, "committed")
        assert worker.stop() == 0

    (letter,) = read(servers, "dlq", 1, 1)
    told = dict(letter.headers() or [])
    assert (told["sw-reason"], told["sw-attempts"], told["sw-origin-offset"]) == (b"killed_worker", b"3", b"57")
    assert Counter(offset for _, offset in begun(ledger)) == Counter([*range(100), 57, 57])
    assert keys_in_order(ledger)
