"""The short way for users: records in, what became of them out. In the thread of the test, in virtual time."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from streamworker.declaration import declarations, keys_topics
from streamworker.dlq.routes import Routes
from streamworker.record import Ending, TopicPartition
from streamworker.testing.virtual_world import VirtualWorld
from streamworker.worker import Bounds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.config import Config
    from streamworker.declaration import Declaration
    from streamworker.handler import BatchHandler, Handler
    from streamworker.record import Header
    from streamworker.testing.memory_broker import MemoryMessage
    from streamworker.testing.story import Effect
    from streamworker.testing.virtual_world import Member

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TestRecord:
    """A record to give to `run_handler`. `value` and `key` are bytes, or JSON is made of them."""

    __test__ = False  # not a test class, whatever its name

    value: object
    key: object = None
    headers: Sequence[Header] = ()
    topic: str | None = None
    partition: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetterCopy:
    """A dead letter that was written: the raw record and its headers as text."""

    key: bytes | None
    value: bytes | None
    headers: Mapping[str, str]

    @property
    def reason(self) -> str:
        """Why it is one."""
        return self.headers["sw-reason"]


@dataclass(frozen=True, slots=True)
class HandlerRun:
    """What became of the records; offsets are those of the test's partitions.

    `failures` has the offset and the error of each call that failed, in their order.
    """

    handled: Sequence[int]
    retried: Sequence[int]
    skipped: Sequence[int]
    dead_letters: Sequence[DeadLetterCopy]
    committed: Mapping[TopicPartition, int]
    stopped: Mapping[TopicPartition, str]
    effects: Sequence[Effect]
    failures: Sequence[tuple[int, BaseException]]
    seconds: float
    exit_code: int


def run_handler(
    handler: type[Handler[T]] | type[BatchHandler[T]],
    records: Sequence[TestRecord | bytes | None],
    *,
    config: Config | None = None,
    app: Mapping[str, object] | None = None,
    timeout_s: float = 30 * 86_400,
) -> HandlerRun:
    """Run `handler` on `records` until all have ended or stand still, without a broker and in virtual time.

    Retries and back-offs take place and cost no real time. What is not a TestRecord is a value. AssertionError if they
    have not ended after `timeout_s` of virtual time, as where something that the handler needs stays away.
    """
    declared = declarations([handler])[0]
    given = [one if isinstance(one, TestRecord) else TestRecord(one) for one in records]
    first_topic = declared.topics[0].lstrip("^")
    topics: dict[str, int] = defaultdict(lambda: 1)
    for one in given:
        topics[one.topic or first_topic] = max(topics[one.topic or first_topic], one.partition + 1)
    if declared.dead_letter is not None:
        topics[declared.dead_letter.topic] = max(topics.values(), default=1)
    topics.update(dict.fromkeys(keys_topics([declared]), 1))
    group = (config or VirtualWorld.CONFIG).kafka.group
    for route in Routes([declared], group).retries:
        topics[route.name] = topics[route.topic]
    world = VirtualWorld(topics, config=config)
    for one in given:
        world.broker.produce(
            one.topic or first_topic, one.partition, _bytes(one.value), key=_bytes(one.key), headers=one.headers
        )
    began_s = world.time.monotonic_s()
    member = world.start(handler, bounds=Bounds(until_end=True), app=app)
    world.run(lambda: member.worker.stopping is not None, timeout_s=timeout_s, what="the end of the records")
    seconds = world.time.monotonic_s() - began_s
    exit_code = world.stop(member)
    return _result(world, member, declared, seconds, exit_code)


def _result(world: VirtualWorld, member: Member, declared: Declaration, seconds: float, exit_code: int) -> HandlerRun:
    letters = world.broker.records(declared.dead_letter.topic) if declared.dead_letter else []
    keys = [key for topic in declared.topics for key in world.broker.partitions(topic.lstrip("^"))]
    failures = member.story.failures
    return HandlerRun(
        handled=[effect.offset for effect in world.effects if effect.ok],
        retried=[offset for _, offset, _, _, ending in failures if ending is Ending.RETRIED],
        skipped=[offset for _, offset, _, _, ending in failures if ending is Ending.SKIPPED],
        dead_letters=[_copy(letter) for letter in letters],
        committed={key: offset for key in keys if (offset := world.broker.committed(key)) is not None},
        stopped={key: reason for key, reason, _ in member.story.stops},
        effects=world.effects,
        failures=[(offset, error) for _, offset, error, _, _ in failures],
        seconds=seconds,
        exit_code=exit_code,
    )


def _copy(letter: MemoryMessage) -> DeadLetterCopy:
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in letter.headers() or ()}
    return DeadLetterCopy(letter.key(), letter.value(), headers)


def _bytes(given: object) -> bytes | None:
    if given is None or isinstance(given, bytes):
        return given
    return given.encode() if isinstance(given, str) else json.dumps(given).encode()
