"""What the tests on a real Kafka share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import NewTopic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers.kafka import SharedKafka

TIMEOUT_S = 30.0


@pytest.fixture
def dead_letters_of(kafka: SharedKafka) -> Iterator[Callable[..., str]]:
    """Names the dead-letter topic of a topic and, unless `make` is false, makes it; it is gone after the test."""
    names: list[str] = []

    def dead_letters(topic: str, *, make: bool = True, **settings: str) -> str:
        name = f"{topic}.dlq"
        names.append(name)
        if make:
            config = {key.replace("_", "."): value for key, value in settings.items()}
            kafka.admin.create_topics([NewTopic(name, 1, config=config)])[name].result(TIMEOUT_S)
        return name

    yield dead_letters
    if names:
        for deleted in kafka.admin.delete_topics(names).values():
            deleted.result(TIMEOUT_S)
