"""Where the demo's topics are: on a mock cluster in a process of its own, or on a Kafka that somebody runs."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # not in its __all__

from streamworker.testing.mock_kafka import MockKafka

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTITIONS = 8
SHARED = {"streamworker.audit": 1, "streamworker.dlq.ops": 1}  # of all dead-letter topics of a cluster
_ADMIN_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one run, and the group that reads the flights."""

    bootstrap_servers: str
    flights: str
    dead_letters: str
    group: str

    @property
    def own(self) -> dict[str, int]:
        """All of them with their partitions; two are for what becomes of dead letters."""
        names = (self.flights, self.dead_letters, f"{self.dead_letters}.state")
        return {**dict.fromkeys(names, PARTITIONS), f"{self.flights}.replay.{self.group}": 1}


@contextmanager
def topics(kafka: str | None, run: str) -> Iterator[Topics]:
    """Topics named after `run`, on the brokers at `kafka` or, without that, on a mock cluster. Gone afterwards."""
    name = f"demo-flights-{run}"
    if kafka is None:
        made = Topics("", name, f"{name}.dlq", name)
        with MockKafka(topics={**made.own, **SHARED}) as mock:
            yield replace(made, bootstrap_servers=mock.bootstrap_servers)
        return
    made = Topics(kafka, name, f"{name}.dlq", name)
    admin = AdminClient({"bootstrap.servers": kafka})
    created = _create(admin, made)
    try:
        yield made
    finally:
        for deleted in admin.delete_topics(created).values():
            deleted.result(_ADMIN_TIMEOUT_S)


def _create(admin: AdminClient, made: Topics) -> list[str]:
    """The topics that were not there, which are now."""
    there = admin.list_topics(timeout=_ADMIN_TIMEOUT_S).topics
    wanted = {**made.own, **{name: count for name, count in SHARED.items() if name not in there}}
    for created in admin.create_topics([NewTopic(name, count) for name, count in wanted.items()]).values():
        created.result(_ADMIN_TIMEOUT_S)
    names = list(wanted)
    until_s = time.monotonic() + _ADMIN_TIMEOUT_S
    while not all(_has_leaders(admin, name, count) for name, count in wanted.items()):
        if time.monotonic() > until_s:
            raise TimeoutError(f"{', '.join(names)}: no leaders within {_ADMIN_TIMEOUT_S:g} s")
    return names


def _has_leaders(admin: AdminClient, name: str, partitions: int) -> bool:
    """Brokers learn of a topic a little after it was acknowledged."""
    found = admin.list_topics(name, timeout=_ADMIN_TIMEOUT_S).topics[name].partitions
    return len(found) == partitions and all(partition.leader >= 0 for partition in found.values())
