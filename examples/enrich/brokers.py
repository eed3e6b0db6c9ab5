"""Where the demo's topics are: on a mock cluster in a process of its own, or on a Kafka that somebody runs."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # not in its __all__

from streamworker.testing.mock_kafka import MockKafka

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from model import Flight, PlaneChange

PARTITIONS = 4
_ADMIN_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Topics:
    """The three topics of one run; the group that reads the first two has the name of the first."""

    bootstrap_servers: str
    flights: str
    planes: str
    dead_letters: str

    @property
    def group(self) -> str:
        """The group of the workers."""
        return self.flights


@contextmanager
def topics(kafka: str | None, run: str) -> Iterator[Topics]:
    """Topics named after `run`, on the brokers at `kafka` or, without that, on a mock cluster. Gone afterwards."""
    name = f"demo-enrich-{run}"
    names = [name, f"{name}.planes", f"{name}.dlq"]
    if kafka is None:
        with MockKafka(topics=dict.fromkeys(names, PARTITIONS)) as mock:
            yield Topics(mock.bootstrap_servers, *names)
        return
    admin = AdminClient({"bootstrap.servers": kafka})
    _create(admin, names)
    try:
        yield Topics(kafka, *names)
    finally:
        for deleted in admin.delete_topics(names).values():
            deleted.result(_ADMIN_TIMEOUT_S)


def _create(admin: AdminClient, names: Sequence[str]) -> None:
    for created in admin.create_topics([NewTopic(name, PARTITIONS) for name in names]).values():
        created.result(_ADMIN_TIMEOUT_S)
    until_s = time.monotonic() + _ADMIN_TIMEOUT_S
    while not all(_has_leaders(admin, name) for name in names):
        if time.monotonic() > until_s:
            raise TimeoutError(f"{', '.join(names)}: no leaders within {_ADMIN_TIMEOUT_S:g} s")


def _has_leaders(admin: AdminClient, name: str) -> bool:
    """Brokers learn of a topic a little after it was acknowledged."""
    found = admin.list_topics(name, timeout=_ADMIN_TIMEOUT_S).topics[name].partitions
    return len(found) == PARTITIONS and all(partition.leader >= 0 for partition in found.values())


class Log:
    """Writes to the topics, and knows how far the group is. Main thread."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        client = {"bootstrap.servers": topics.bootstrap_servers, "log_level": 2}
        self._producer = Producer({**client, "enable.idempotence": True})
        self._consumer = Consumer({**client, "group.id": topics.group})

    def send(self, sent: Sequence[Flight | PlaneChange]) -> None:
        """Send all of them, keyed by the plane; returns when the brokers have them."""
        for one in sent:
            topic = self._topics.flights if hasattr(one, "flight") else self._topics.planes
            key = None if one.tailnum is None else one.tailnum.encode()
            self._producer.produce(topic, msgspec.json.encode(one), key)
            self._producer.poll(0)
        if self._producer.flush(_ADMIN_TIMEOUT_S):
            raise TimeoutError(f"{self._topics.bootstrap_servers} did not take all records")

    def handled(self, topic: str) -> bool:
        """Whether the group has committed all that the topic has, so that none of it is handled again."""
        for one in self._committed(topic):
            _, end = self._consumer.get_watermark_offsets(one, timeout=_ADMIN_TIMEOUT_S)
            if max(one.offset, 0) < end:
                return False
        return True

    def committed(self, topic: str) -> int:
        """How many records of the topic the group has committed."""
        return sum(max(one.offset, 0) for one in self._committed(topic))

    def dead_letters(self) -> set[tuple[int, str]]:
        """Each flight that is in the dead-letter topic, by its number, and why."""
        found: set[tuple[int, str]] = set()
        partitions = [TopicPartition(self._topics.dead_letters, number, 0) for number in range(PARTITIONS)]
        marks = [self._consumer.get_watermark_offsets(one, timeout=_ADMIN_TIMEOUT_S) for one in partitions]
        self._consumer.assign(partitions)
        for _ in range(sum(high for _, high in marks)):
            message = self._consumer.poll(_ADMIN_TIMEOUT_S)
            if message is None or message.error() is not None:
                raise TimeoutError(f"{self._topics.dead_letters} was not read to its end")
            why = dict(message.headers() or ())["sw-message"]
            number = msgspec.json.decode(message.value() or b"", type=dict[str, object])["id"]
            assert isinstance(number, int)
            found.add((number, why.decode() if isinstance(why, bytes) else str(why)))
        return found

    def _committed(self, topic: str) -> Sequence[TopicPartition]:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        return self._consumer.committed(partitions, timeout=_ADMIN_TIMEOUT_S)

    def close(self) -> None:
        """Leave the brokers."""
        self._consumer.close()
