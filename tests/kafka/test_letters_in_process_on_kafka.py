"""Dead letters of a real Kafka that a command handles in its own process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import Producer
from fleet.history import Effect
from fleet.history import read as read_ledger
from fleet.in_process import config
from fleet.letter_states import states
from fleet.stored_once import broken, found, make
from fleet.workers import wait_for

from streamworker.replay.states import State, state_topic

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers.kafka import SharedKafka

PARTITIONS = 2
LETTERS = 1200
TIMEOUT_S = 60.0
_TESTS = Path(__file__).parents[1]


def write_letters(servers: str, topic: str, group: str) -> None:
    """Letters of records of `topic`, as a worker of `group` writes them."""
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 5})
    for number in range(LETTERS):
        partition, offset = number % PARTITIONS, number // PARTITIONS
        headers = {
            "sw-version": "1",
            "sw-id": f"{group}/{topic}/{partition}/{offset}",
            "sw-group": group,
            "sw-origin-topic": topic,
            "sw-origin-partition": str(partition),
            "sw-origin-offset": str(offset),
        }
        producer.produce(
            f"{topic}.dlq",
            b"fine",
            key=f"k{number % 7}".encode(),
            partition=partition,
            headers=[(name, text.encode()) for name, text in headers.items()],
        )
        producer.poll(0)
    assert producer.flush(TIMEOUT_S) == 0


class Command:
    """The process, begun."""

    def __init__(self, folder: Path, number: int, topic: str, *arguments: str) -> None:
        self._log = folder / f"process-{number}.log"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(_TESTS.parent), str(_TESTS)]),
            "LEDGER_TOPIC": topic,
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fleet.processing", *arguments],
                cwd=_TESTS,
                stdout=log,
                stderr=log,
                env=environment,
            )

    def end(self, by: signal.Signals) -> int:
        self._process.send_signal(by)
        return self.ended()

    def ended(self) -> int:
        return self._process.wait(TIMEOUT_S)

    @property
    def told(self) -> str:
        return self._log.read_text()

    def wait_for_rows(self, url: str, count: int) -> None:
        def there() -> bool:
            assert self._process.poll() is None, self.told
            return len(found(url)) >= count

        wait_for(there, lambda: f"{count} rows; {self.told}", TIMEOUT_S)


def test_each_letter_has_its_effect_once_in_a_sink_with_marks_whatever_ends_the_process(
    kafka: SharedKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-75. Killed twice, then asked to end, then let be: each is stored once, in order, and said to be handled."""
    topic, group, servers = kafka.topic("in"), kafka.group("processing"), kafka.bootstrap_servers
    letters, audit = kafka.topic_called(f"{topic}.dlq", PARTITIONS), kafka.topic("audit")
    kafka.topic_called(state_topic(letters), PARTITIONS, cleanup_policy="compact")
    url = f"sqlite:///{tmp_path}/store"
    make(url)
    write_letters(servers, topic, group)
    arguments = (servers, group, letters, str(PARTITIONS), audit, url)
    rows: list[int] = []

    for number, by in enumerate((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)):
        command = Command(tmp_path, number, topic, *arguments)
        command.wait_for_rows(url, len(found(url)) + 150)
        code = command.end(by)
        rows.append(len(found(url)))
        assert code == (3 if by is signal.SIGTERM else -by), command.told
    said_after_sigterm = list(states(config(servers, group), letters, PARTITIONS).values()).count(State.REPLAYED)
    last = Command(tmp_path, 3, topic, *arguments)
    code = last.ended()

    assert code == 0, last.told
    assert rows[-1] == said_after_sigterm < LETTERS
    ends = dict.fromkeys(range(PARTITIONS), LETTERS // PARTITIONS)
    assert broken(found(url), ends, []) == []
    assert set(states(config(servers, group), letters, PARTITIONS).values()) == {State.REPLAYED}
    calls = sum(isinstance(one, Effect) for one in read_ledger(tmp_path / "store.ledger"))
    figures("F-75", "SIGKILL of dlq process", kills=2, calls_repeated=calls - LETTERS, effects_repeated=0)
