"""The rights that processes need at the brokers, derived from what handlers declare: no more than these.

Decided here: which operations on what, for each kind of process. Topics come from where everything else takes them: the
declarations, `Routes`, and the names that stand beside a dead-letter topic. Read and Write include Describe, and an
idempotent producer needs nothing beside Write since Kafka 3.0. Nothing is asked of a cluster.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.assembly import own_topic
from streamworker.declaration import is_transactional, keys_topics
from streamworker.dlq.routes import Routes
from streamworker.librdkafka import READERS
from streamworker.replay.audit import TOPIC as AUDIT_TOPIC
from streamworker.replay.operations import TOPIC as OPERATIONS_TOPIC
from streamworker.replay.states import state_topic

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from streamworker.declaration import Declaration

EVERY = "*"
_READERS = "what consumers are named after that are no members, where kafka.group is not set"
# What stands for itself at the beginning of a pattern, and is not repeated.
_PLAIN = re.compile(r"(?:(?:[A-Za-z0-9_-]|\\\.)(?![*+?{]))*")


class Role(enum.StrEnum):
    """What a process is for."""

    WORKER = "worker"  # `streamworker run`
    REPLAY = "replay"  # `streamworker dlq` and `audit`
    CONSOLE = "console"
    LAG = "lag"  # `streamworker lag`


class Kind(enum.StrEnum):
    """What a right is about, in the words of `kafka-acls.sh`."""

    TOPIC = "topic"
    GROUP = "group"
    TRANSACTIONAL_ID = "transactional-id"


class Operation(enum.StrEnum):
    """What may be done, likewise."""

    READ = "Read"
    WRITE = "Write"
    DESCRIBE = "Describe"
    DESCRIBE_CONFIGS = "DescribeConfigs"


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """What a right is about; `prefixed`: all whose names begin like that."""

    kind: Kind
    name: str
    prefixed: bool = False


if TYPE_CHECKING:
    Needed = Iterator[tuple[Resource, Operation, str]]


@dataclass(frozen=True, slots=True)
class Right:
    """What may be done with a resource, and what for."""

    resource: Resource
    operations: tuple[Operation, ...]
    why: str


def rights(
    handlers: Sequence[Declaration], group: str, roles: Collection[Role], instance: str | None = None
) -> Sequence[Right]:
    """All that processes of `roles` need together, each resource once. `instance`: the group.instance.id of workers."""
    needed: list[tuple[Resource, Operation, str]] = []
    for role in Role:
        if role in roles:
            needed += _OF_ROLES[role](handlers, group, instance)
    found: dict[Resource, dict[Operation, str]] = {}
    for resource, operation, why in needed:
        found.setdefault(resource, {}).setdefault(operation, why)
    return [
        Right(resource, tuple(_least(operations)), "; ".join(dict.fromkeys(operations.values())))
        for resource, operations in sorted(found.items())
    ]


def _least(operations: Collection[Operation]) -> Iterator[Operation]:
    """Without what is included in another."""
    includes = {Operation.READ, Operation.WRITE} & set(operations)
    yield from (one for one in Operation if one in operations and not (one is Operation.DESCRIBE and includes))


def _topic(name: str) -> Resource:
    """Of a pattern, all that begins like it: more than it matches, because rights know no patterns."""
    if not name.startswith("^"):
        return Resource(Kind.TOPIC, name)
    pattern = name.removeprefix("^").removesuffix("$")
    begins = "" if _has_branches(pattern) else _PLAIN.match(pattern)[0]  # type: ignore[index]  # it may match nothing
    plain = begins.replace("\\.", ".")
    return Resource(Kind.TOPIC, plain, prefixed=begins != pattern) if plain else Resource(Kind.TOPIC, EVERY)


def _has_branches(pattern: str) -> bool:
    """Whether it may begin in several ways: a bar outside of all brackets."""
    depth = 0
    for one in re.sub(r"\\.", "", pattern):
        depth += (one in "([") - (one in ")]")
        if one == "|" and depth == 0:
            return True
    return False


def _worker(handlers: Sequence[Declaration], group: str, instance: str | None) -> Needed:
    yield Resource(Kind.GROUP, group), Operation.READ, "be a member, and commit"
    for handler in handlers:
        for topic in handler.topics:
            yield _topic(topic), Operation.READ, f"source of {handler.name}"
        if handler.dead_letter is not None:
            yield _topic(handler.dead_letter.topic), Operation.WRITE, f"dead letters of {handler.name}"
        written = own_topic(handler)
        if written is not None:
            yield _topic(written), Operation.WRITE, f"sink of {handler.name}"
    for topic in keys_topics(handlers):
        yield _topic(topic), Operation.READ, "parked keys"
        yield _topic(topic), Operation.WRITE, "parked keys"
    for route in Routes(handlers, group).all:
        yield _topic(route.name), Operation.READ, route.kind
        if not route.is_replay:
            yield _topic(route.name), Operation.WRITE, route.kind
    if is_transactional(handlers):
        name = f"sw-{group}-"
        resource = Resource(Kind.TRANSACTIONAL_ID, name if instance is None else name + instance, instance is None)
        yield resource, Operation.WRITE, "transactions of workers"


def _replay(handlers: Sequence[Declaration], group: str, _instance: str | None) -> Needed:
    yield Resource(Kind.GROUP, group), Operation.DESCRIBE, "how far it is, and who has it"
    yield Resource(Kind.GROUP, READERS), Operation.DESCRIBE, _READERS
    yield _topic(AUDIT_TOPIC), Operation.READ, "audit"
    yield _topic(AUDIT_TOPIC), Operation.WRITE, "audit"
    yield _topic(OPERATIONS_TOPIC), Operation.READ, "operations"
    yield _topic(OPERATIONS_TOPIC), Operation.WRITE, "operations"
    for handler in handlers:
        for topic in handler.topics:
            yield _topic(topic), Operation.READ, "values that a letter only points to, and newer records of its key"
    for letters in _letters(handlers):
        yield _topic(letters), Operation.READ, "dead letters"
        yield _topic(letters), Operation.DESCRIBE_CONFIGS, "how long they are kept"
        yield _topic(state_topic(letters)), Operation.READ, "what became of dead letters"
        yield _topic(state_topic(letters)), Operation.WRITE, "what became of dead letters"
        resource = Resource(Kind.TRANSACTIONAL_ID, f"sw-dlq-{letters}-", prefixed=True)
        yield resource, Operation.WRITE, "a letter is sent and marked as one"
    for topic in keys_topics(handlers):
        yield _topic(topic), Operation.READ, "release parked keys"
        yield _topic(topic), Operation.WRITE, "release parked keys"
    for route in Routes(handlers, group).replays:
        yield _topic(route.name), Operation.WRITE, "send dead letters again"


def _lag(handlers: Sequence[Declaration], group: str, _instance: str | None) -> Needed:
    yield Resource(Kind.GROUP, group), Operation.DESCRIBE, "its offsets and members"
    yield Resource(Kind.GROUP, READERS), Operation.DESCRIBE, _READERS
    topics = [topic for handler in handlers for topic in handler.topics]
    topics += [route.name for route in Routes(handlers, group).all]
    for topic in topics:
        yield _topic(topic), Operation.READ, "the age of the first record that is not handled"
        yield _topic(topic), Operation.DESCRIBE_CONFIGS, "how long records are kept"
    for letters in _letters(handlers):
        yield _topic(letters), Operation.READ, "dead letters"
        yield _topic(letters), Operation.DESCRIBE_CONFIGS, "how long they are kept"
        yield _topic(state_topic(letters)), Operation.READ, "what became of dead letters"


def _letters(handlers: Sequence[Declaration]) -> Sequence[str]:
    return sorted({one.dead_letter.topic for one in handlers if one.dead_letter is not None})


_OF_ROLES = {Role.WORKER: _worker, Role.REPLAY: _replay, Role.CONSOLE: _replay, Role.LAG: _lag}
