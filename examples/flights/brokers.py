"""Where the demo's topics are: on a mock cluster in a process of its own, or on a Kafka that somebody runs."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # not in its __all__

from streamworker.testing.mock_kafka import MockKafka

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTITIONS = 8
_ADMIN_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Topics:
    """The two topics of one run, and the group that reads the first."""

    bootstrap_servers: str
    flights: str
    dead_letters: str
    group: str


@contextmanager
def topics(kafka: str | None, run: str) -> Iterator[Topics]:
    """Topics named after `run`, on the brokers at `kafka` or, without that, on a mock cluster. Gone afterwards."""
    name = f"demo-flights-{run}"
    if kafka is None:
        with MockKafka(topics={name: PARTITIONS, f"{name}.dlq": PARTITIONS}) as mock:
            yield Topics(mock.bootstrap_servers, name, f"{name}.dlq", name)
        return
    made = Topics(kafka, name, f"{name}.dlq", name)
    admin = AdminClient({"bootstrap.servers": kafka})
    _create(admin, made)
    try:
        yield made
    finally:
        for deleted in admin.delete_topics([made.flights, made.dead_letters]).values():
            deleted.result(_ADMIN_TIMEOUT_S)


def _create(admin: AdminClient, made: Topics) -> None:
    names = [made.flights, made.dead_letters]
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
