"""What a copying handler has left behind, as readers of committed records see it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

from confluent_kafka import Consumer, TopicPartition
from fleet.witness import source_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from confluent_kafka import Message

_TIMEOUT_S = 30.0

Place = tuple[int, int]  # partition and offset


class Reader:
    """Reads what is committed of a topic while it is written, as long as the `with` block lasts."""

    def __init__(self, bootstrap_servers: str, topic: str, partitions: int) -> None:
        self.found: list[Message] = []
        self._consumer = _reader_of(bootstrap_servers, topic, partitions)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(_TIMEOUT_S)
        self._consumer.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.found += [one for one in self._consumer.consume(1000, 0.1) if one.error() is None]


def committed_records(bootstrap_servers: str, topic: str, partitions: int) -> list[Message]:
    """All that is committed of a topic, those of a partition in their order."""
    reader = _reader_of(bootstrap_servers, topic, partitions)
    found: list[Message] = []
    ended: set[int | None] = set()
    until_s = time.monotonic() + _TIMEOUT_S
    try:
        while len(ended) < partitions:
            more = reader.consume(10_000, 0.2)
            assert time.monotonic() < until_s, f"{topic}: read {len(found)}, and not to the end"
            found += [one for one in more if one.error() is None]
            ended.update(one.partition() for one in more if one.error() is not None)
    finally:
        reader.close()
    return found


def places(records: Iterable[Message]) -> dict[int | None, list[int | None]]:
    """Offsets by partition, in the order in which they were read."""
    found: dict[int | None, list[int | None]] = {}
    for one in records:
        found.setdefault(one.partition(), []).append(one.offset())
    return found


def sources(copies: Iterable[Message]) -> Mapping[bytes | None, Sequence[Place]]:
    """By key, what each copy was made of, in the order of the copies; those of a key are in one partition."""
    found: dict[bytes | None, list[Place]] = {}
    for one in copies:
        partition, _, offset = (dict(one.headers() or [])["source"] or b"").partition(b"@")
        found.setdefault(one.key(), []).append((int(partition), int(offset)))
    return found


def given_up(letters: Iterable[Message]) -> list[Place]:
    """What each dead letter is a copy of."""
    return [source_of(dict(one.headers() or [])["sw-id"])[1:] for one in letters]


def _reader_of(bootstrap_servers: str, topic: str, partitions: int) -> Consumer:
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    reader.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    return reader
