"""The topics beside a source topic that its handler reads, too: retry topics, and the one for replays.

A record whose attempts are used up is written to `<topic>.retry.<group>.<level>` and handled from there when it is due;
a dead letter that a person sends again, to `<topic>.replay.<group>`. Decided here: the names, and whose records come
there. What their headers are believed is in `retries.py` and `replays.py`. Pure, any thread.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.errors import ConfigurationError
from streamworker.options import MAX_TOPIC_CHARS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from streamworker.declaration import Declaration

_DIGEST_CHARS = 12
_REPLAYS = 0  # the level of a replay topic: what fails there goes to level 1 next


@dataclass(frozen=True, slots=True)
class Route:
    """A topic called `name`; `handler` is the number of the one whose records of `topic` come there."""

    name: str
    handler: int
    topic: str
    level: int  # of a retry topic from 1; 0 for replays
    delay_s: float
    attempts: int  # calls that are made there

    @property
    def is_replay(self) -> bool:
        """Whether people send records there."""
        return self.level == _REPLAYS

    @property
    def kind(self) -> str:
        """For people: what sort of topic it is."""
        return "replay topic" if self.is_replay else "retry topic"


class Routes:
    """All retry and replay topics of a process; raises ConfigurationError where one is in use for something else."""

    def __init__(self, declarations: Sequence[Declaration], group: str) -> None:
        routes = [
            route
            for number, declared in enumerate(declarations)
            for topic in declared.topics
            for route in _of_topic(topic, number, declared, group)
        ]
        self._by_name: Mapping[str, Route] = {one.name: one for one in routes}
        self._by_level = {(one.topic, one.level): one for one in routes}
        letters = [one.dead_letter for one in declarations if one.dead_letter is not None]
        used = {topic for one in declarations for topic in one.topics}
        used |= {topic for one in letters for topic in (one.topic, one.keys_topic) if topic is not None}
        for route in routes:
            if route.name in used:
                raise ConfigurationError(
                    f"{route.name!r} is the name of a {route.kind}, and cannot be used for anything else"
                )

    @property
    def all(self) -> Sequence[Route]:
        """Each of them."""
        return list(self._by_name.values())

    @property
    def retries(self) -> Sequence[Route]:
        """The retry topics."""
        return [one for one in self.all if not one.is_replay]

    @property
    def replays(self) -> Sequence[Route]:
        """The replay topics."""
        return [one for one in self.all if one.is_replay]

    def of(self, name: str) -> Route | None:
        """The topic of that name; None if it is none of ours."""
        return self._by_name.get(name)

    def after(self, topic: str, level: int) -> Route | None:
        """The retry topic where a record of `topic` goes after `level` (0: `topic` itself); None after the last."""
        return self._by_level.get((topic, level + 1))


def _of_topic(topic: str, number: int, declared: Declaration, group: str) -> Iterator[Route]:
    letter = declared.dead_letter
    if letter is not None and letter.replay and not topic.startswith("^"):  # which topics a pattern finds is not known
        yield Route(replay_topic(topic, group), number, topic, _REPLAYS, 0.0, declared.retry.attempts)
    for level, one in enumerate(declared.retry.topics, 1):
        yield Route(retry_topic(topic, group, level), number, topic, level, one.delay_s, one.attempts)


def retry_topic(topic: str, group: str, level: int) -> str:
    """The name of a retry topic; what a topic's name cannot hold is replaced, and a name that is too long is cut."""
    return _named(topic, group, f"{topic}.retry.{group}.{level}", f".{level}")


def replay_topic(topic: str, group: str) -> str:
    """The name of the topic for what of `topic` is sent to `group` again; likewise."""
    return _named(topic, group, f"{topic}.replay.{group}", ".replay")


def _named(topic: str, group: str, name: str, end: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    if len(name) <= MAX_TOPIC_CHARS:
        return name
    digest = hashlib.sha256(f"{topic}\n{group}".encode()).hexdigest()[:_DIGEST_CHARS]
    end = f".{digest}{end}"
    return name[: MAX_TOPIC_CHARS - len(end)] + end
