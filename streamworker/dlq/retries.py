"""Retry topics: their names, whose records come there, and what a record that comes back says of itself.

A record whose attempts are used up is written to `<topic>.retry.<group>.<level>` and handled from there when it is due.
Decided here: the names, and that our headers are believed on these topics and nowhere else. Not decided here: when a
record is given up (`resilience/verdict.py`), and how long one waits that is not due (`delays.py`). Pure, any thread.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.errors import ConfigurationError
from streamworker.options import MAX_TOPIC_CHARS
from streamworker.record import Origin, Returned, read_headers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.declaration import Declaration
    from streamworker.record import Headers, Message

_DIGEST_CHARS = 12


@dataclass(frozen=True, slots=True)
class RetryRoute:
    """A retry topic called `name`; `handler` is the number of the one whose records of `topic` come there."""

    name: str
    handler: int
    topic: str
    level: int  # from 1
    delay_s: float
    attempts: int  # calls that are made there


class RetryRoutes:
    """All retry topics of a process; raises ConfigurationError where one is in use for something else."""

    def __init__(self, declarations: Sequence[Declaration], group: str) -> None:
        routes = [
            RetryRoute(retry_topic(topic, group, level), number, topic, level, one.delay_s, one.attempts)
            for number, declared in enumerate(declarations)
            for topic in declared.topics
            for level, one in enumerate(declared.retry.topics, 1)
        ]
        self._by_name: Mapping[str, RetryRoute] = {one.name: one for one in routes}
        self._by_level = {(one.topic, one.level): one for one in routes}
        used = {topic for one in declarations for topic in one.topics}
        used |= {one.dead_letter.topic for one in declarations if one.dead_letter is not None}
        for name in self._by_name.keys() & used:
            raise ConfigurationError(f"{name!r} is the name of a retry topic, and cannot be used for anything else")

    @property
    def all(self) -> Sequence[RetryRoute]:
        """Each retry topic."""
        return list(self._by_name.values())

    def of(self, name: str) -> RetryRoute | None:
        """The retry topic of that name; None if it is none of ours."""
        return self._by_name.get(name)

    def after(self, topic: str, level: int) -> RetryRoute | None:
        """Where a record of `topic` goes after `level` (0: `topic` itself); None after the last."""
        return self._by_level.get((topic, level + 1))


def retry_topic(topic: str, group: str, level: int) -> str:
    """The name of a retry topic; what a topic's name cannot hold is replaced, and a name that is too long is cut."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{topic}.retry.{group}.{level}")
    if len(name) <= MAX_TOPIC_CHARS:
        return name
    digest = hashlib.sha256(f"{topic}\n{group}".encode()).hexdigest()[:_DIGEST_CHARS]
    end = f".{digest}.{level}"
    return name[: MAX_TOPIC_CHARS - len(end)] + end


def returned(message: Message) -> Returned:
    """A record of a retry topic of ours, with what its headers say of it.

    Where they say nothing that can be read it is a record of its own, due at once.
    """
    headers = read_headers(message)
    topic = headers.last("sw-origin-topic")
    partition, offset = _number(headers, "sw-origin-partition"), _number(headers, "sw-origin-offset")
    if topic is None or partition is None or offset is None:
        origin = Origin(message.topic(), message.partition(), message.offset())
    else:
        origin = Origin(topic.decode("utf-8", "replace"), partition, offset)
    timestamp_ms = _number(headers, "sw-origin-timestamp")
    return Returned(
        message,
        origin=origin,
        timestamp_ms=timestamp_ms,
        calls=_number(headers, "sw-attempts") or 0,
        due_ms=_number(headers, "sw-due") or 0,
    )


def _number(headers: Headers, name: str) -> int | None:
    text = headers.last(name)
    return int(text) if text is not None and re.fullmatch(rb"[0-9]{1,18}", text) else None
