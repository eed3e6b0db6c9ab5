"""The producer of a run: a thread that sends numbered records and notes what became of each."""

from __future__ import annotations

import random
import threading
import time
import uuid
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Self

from confluent_kafka import Producer
from fleet.history import Journal, Sent, read
from fleet.workers import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from confluent_kafka import KafkaError, Message

_SEND_TIMEOUT_S = 60.0


class Workload:
    """Sends `total` records at `rate` a second, each key in order.

    The value of a record begins with what the handler is to make of it, see `fleet.apps`: `deeds` gives the share of
    each, the rest is just handled. One in twenty has no key.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        folder: Path,
        *,
        partitions: int,
        total: int,
        rate: float = 1e9,
        keys: int = 50,
        deeds: Mapping[str, float] = {},
        seed: int = 0,
        settings: Mapping[str, str | int] = {},
    ) -> None:
        self.total = total
        self._topic = topic
        self._partitions = partitions
        self._rate = rate
        self._keys = keys
        self._deeds = dict(deeds)
        self._draw = random.Random(seed)
        self._path = folder / "sent"
        self._journal = Journal(self._path)
        self._settings = {
            "bootstrap.servers": bootstrap_servers,
            "linger.ms": 5,
            "enable.idempotence": True,
            **settings,
        }
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workload", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(_SEND_TIMEOUT_S)
        self._journal.close()

    def stop(self) -> None:
        """Let the producer send no more than it has."""
        self._stopping.set()

    def sent(self) -> list[Sent]:
        """What is known of each record so far."""
        return [one for one in read(self._path) if isinstance(one, Sent)]

    def acknowledged(self) -> int:
        """How many records are in the log."""
        return sum(one.outcome == "ok" for one in self.sent())

    def finish(self, timeout_s: float = _SEND_TIMEOUT_S) -> None:
        """Wait until something is known of every record."""
        wait_for(lambda: not self._thread.is_alive(), lambda: f"{self.total} records sent", timeout_s)

    def ends(self) -> dict[int, int]:
        """The log's ends, given that nobody else writes to the topic."""
        ends = dict.fromkeys(range(self._partitions), 0)
        for one in self.sent():
            if one.outcome == "ok":
                ends[one.partition] = max(ends[one.partition], one.offset + 1)
        return ends

    def _run(self) -> None:
        producer = Producer(self._settings)
        run, began_s = uuid.uuid4().hex[:8], time.monotonic()
        numbers: dict[str | None, int] = {}
        for number in range(self.total):
            if self._stopping.wait(max(0.0, began_s + number / self._rate - time.monotonic())):
                break
            key = None if self._draw.random() < 0.05 else f"k{self._draw.randrange(self._keys)}"
            seq = numbers[key] = numbers.get(key, -1) + 1
            self._send(producer, f"{run}-{number}", key, seq)
            producer.poll(0)
        producer.flush(_SEND_TIMEOUT_S)

    def _send(self, producer: Producer, uid: str, key: str | None, seq: int) -> None:
        (deed,) = self._draw.choices(["", *self._deeds], [1 - sum(self._deeds.values()), *self._deeds.values()])
        value = f"{deed}:{uid}".encode()
        digest = sha256(value).hexdigest()[:16]
        producer.produce(
            self._topic,
            value,
            key=None if key is None else key.encode(),
            partition=self._draw.randrange(self._partitions) if key is None else sum(key.encode()) % self._partitions,
            headers={"uid": uid},
            on_delivery=partial(self._note, uid, key, seq, digest),
        )

    def _note(self, uid: str, key: str | None, seq: int, digest: str, error: KafkaError | None, at: Message) -> None:
        outcome, partition, offset = told(error, at)
        self._journal.write(Sent(uid, key, seq, digest, outcome, partition, offset, time.monotonic()))


def told(error: KafkaError | None, at: Message) -> tuple[str, int, int]:
    """What a delivery report says of a record: the outcome, and where it is; -1 where it may be anywhere, or nowhere.

    A record that an idempotent producer gave up may be in the log, and one that it sent twice is, at an offset that a
    broker which was killed meanwhile does not tell.
    """
    partition, offset = at.partition(), at.offset()
    if error is not None or partition is None or offset is None:
        return "info", -1, -1
    return "ok", partition, offset
