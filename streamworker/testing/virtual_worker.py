"""Whole workers over a memory broker in virtual time.

`VirtualWorld` is what the project's own scenario tests and simulations are made of; `run_handler` is
the short way for users. Everything runs in the thread of the test.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from streamworker.config import Config, KafkaConfig
from streamworker.errors import BatchFailed
from streamworker.events import Listener, Listeners
from streamworker.handler import BatchHandler, Context, Handler, declarations
from streamworker.record import Ending, Record, Records, TopicPartition
from streamworker.testing.memory_broker import MemoryBroker, MemoryLog, MemoryOutbox, MemorySource
from streamworker.testing.virtual_executor import VirtualExecutor
from streamworker.testing.virtual_time import VirtualTime
from streamworker.worker import UNBOUNDED, Bounds, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker.handler import Call, Declaration
    from streamworker.interfaces import Fault
    from streamworker.record import Header
    from streamworker.scheduling.lanes import LaneSlice
    from streamworker.testing.memory_broker import MemoryMessage
    from streamworker.work import Slice

T = TypeVar("T")

_IMPATIENCE_S = 3600.0


@dataclass(frozen=True, slots=True)
class Effect:
    """One record that a handler was called with; `ok` says that the call was a success for it."""

    member: str
    partition: TopicPartition
    offset: int
    key: bytes | None
    attempt: int
    at_s: float
    ok: bool


@dataclass(slots=True)
class Story(Listener):
    """What one worker reported, in order."""

    endings: list[tuple[str, TopicPartition, Ending, int]] = field(default_factory=list)
    failures: list[tuple[TopicPartition, int, BaseException, int, Ending]] = field(default_factory=list)
    stops: list[tuple[TopicPartition, str, str]] = field(default_factory=list)
    mends: list[tuple[TopicPartition, str]] = field(default_factory=list)
    pauses: list[tuple[TopicPartition, str]] = field(default_factory=list)
    rebalances: list[tuple[str, tuple[TopicPartition, ...]]] = field(default_factory=list)
    refused_letters: list[tuple[TopicPartition, int, str, str]] = field(default_factory=list)
    commit_answers: list[tuple[int, str | None]] = field(default_factory=list)
    unanswered_commits: int = 0
    late_records: int = 0
    foreign: list[tuple[TopicPartition, int]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    exit: tuple[int, tuple[str, ...]] | None = None

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.rebalances.append(("assigned", tuple(partitions)))

    def revoked(self, partitions: Sequence[TopicPartition], seconds: float) -> None:
        self.rebalances.append(("revoked", tuple(partitions)))

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.rebalances.append(("lost", tuple(partitions)))

    def ended(self, handler: str, partition: TopicPartition, ending: Ending, records: int, seconds: float) -> None:
        self.endings.append((handler, partition, ending, records))

    def failed(
        self,
        handler: str,
        partition: TopicPartition,
        offset: int,
        error: BaseException,
        attempt: int,
        ending: Ending,
    ) -> None:
        self.failures.append((partition, offset, error, attempt, ending))

    def stopped(self, partition: TopicPartition, reason: str, detail: str, mends_itself: bool) -> None:
        self.stops.append((partition, reason, detail))

    def mended(self, partition: TopicPartition, reason: str) -> None:
        self.mends.append((partition, reason))

    def paused(self, partition: TopicPartition, reason: str) -> None:
        self.pauses.append((partition, reason))

    def dead_letter_refused(self, partition: TopicPartition, offset: int, topic: str, error: str) -> None:
        self.refused_letters.append((partition, offset, topic, error))

    def commit_answered(self, partitions: int, error: str | None, seconds: float) -> None:
        self.commit_answers.append((partitions, error))

    def commit_unanswered(self, partitions: int) -> None:
        self.unanswered_commits += partitions

    def late_outcome(self, handler: str, partition: TopicPartition, records: int) -> None:
        self.late_records += records

    def foreign_offset(self, partition: TopicPartition, offset: int) -> None:
        self.foreign.append((partition, offset))

    def fault(self, fault: Fault) -> None:
        self.faults.append(fault)

    def closed(self, exit_code: int, abandoned: Sequence[str]) -> None:
        self.exit = (exit_code, tuple(abandoned))

    def count(self, ending: Ending) -> int:
        """Records that ended so."""
        return sum(records for _, _, how, records in self.endings if how is ending)


@dataclass(slots=True)
class Member:
    """One worker of a world."""

    name: str
    worker: Worker
    source: MemorySource
    story: Story


class VirtualWorld:
    """A broker, its group, and workers that take turns."""

    def __init__(self, topics: Mapping[str, int], *, config: Config | None = None) -> None:
        self.time = VirtualTime()
        self.broker = MemoryBroker(self.time, topics)
        self.config = config or Config(kafka=KafkaConfig(group="test"))
        self.effects: list[Effect] = []
        self.members: list[Member] = []
        self.stories: list[Story] = []  # of all workers that ever were, also of those that are gone
        self._made = 0

    def start(
        self,
        *handlers: type[Handler[T]] | type[BatchHandler[T]],
        duration_s: Callable[[Slice], float] = lambda slice_: 0.001 * len(slice_.messages),
        eager: Callable[[], bool] = lambda: False,
        bounds: Bounds = UNBOUNDED,
        listeners: Sequence[Listener] = (),
        app: Mapping[str, object] | None = None,
        recorded: bool = True,
        observe: Callable[[Worker], None] = lambda _worker: None,
    ) -> Member:
        """Add a worker to the group and let it subscribe; `effects` is kept only if it is `recorded`."""
        self._made += 1
        name = f"worker-{self._made}"
        declared = list(declarations(handlers))
        if recorded:
            declared = [self._recorded(one, name) for one in declared]
        contexts = [Context(app=app or {}, group=self.config.kafka.group, handler=one.name) for one in declared]
        story = Story()
        self.stories.append(story)
        executor: VirtualExecutor[LaneSlice] = VirtualExecutor(
            declared,
            contexts,
            time=self.time,
            max_record_bytes=self.config.kafka.max_record_bytes,
            duration_s=duration_s,
            eager=eager,
        )
        sources: list[MemorySource] = []

        def source() -> MemorySource:
            sources.append(MemorySource(self.broker, name, end_of_partition=bounds.until_end))
            return sources[-1]

        worker = Worker(
            declarations=declared,
            config=self.config,
            source=source,
            executor=executor,
            outbox=MemoryOutbox(self.broker),
            log=MemoryLog(self.broker),
            clock=self.time,
            listener=Listeners([story, *listeners]),
            bounds=bounds,
            observe=observe,
        )
        member = Member(name, worker, sources[0], story)
        self.members.append(member)
        worker.begin()
        return member

    def run(self, until: Callable[[], bool], *, timeout_s: float = _IMPATIENCE_S, what: str = "the condition") -> None:
        """Let the workers take turns until `until()`; AssertionError after `timeout_s` of virtual time.

        `what` names in the error what was waited for.
        """
        deadline_s = self.time.monotonic_s() + timeout_s
        while not until():
            if self.time.monotonic_s() > deadline_s:
                raise AssertionError(f"{what} was not reached within {timeout_s:g} s of virtual time")
            for member in list(self.members):
                member.worker.step()
            if not self.members:
                self.time.wait(0.1, until)

    def run_for(self, seconds: float) -> None:
        """Let the workers take turns for a while."""
        until_s = self.time.monotonic_s() + seconds
        self.run(lambda: self.time.monotonic_s() >= until_s, timeout_s=seconds + 1)

    def run_to_end(self, *topics: str, timeout_s: float = _IMPATIENCE_S) -> None:
        """Run until the group has committed the end of every partition of these topics."""
        self.run(
            lambda: all(self.caught_up(key) for topic in topics for key in self.broker.partitions(topic)),
            timeout_s=timeout_s,
            what=f"the end of {', '.join(topics)}",
        )

    def caught_up(self, key: TopicPartition) -> bool:
        """Whether the group's offset is the end of the partition."""
        return (self.broker.committed(key) or 0) >= self.broker.end(key)

    def stop(self, member: Member) -> int:
        """SIGTERM: drain, commit, leave; returns the exit code."""
        member.worker.stop("test")
        self.members.remove(member)
        return member.worker.drain()

    def kill(self, member: Member) -> None:
        """SIGKILL: gone without a word, and the session with it."""
        self.members.remove(member)
        self.broker.crash(member.source)

    def _recorded(self, declared: Declaration, member: str) -> Declaration:
        def record(call: Call) -> Call:
            def recorded(argument: object) -> object:
                began_s = self.time.monotonic_s()
                records = list(argument) if isinstance(argument, Records) else [argument]
                good = 0
                try:
                    result = call(argument)
                    good = len(records)
                except BatchFailed as failed:
                    good = failed.index
                    raise
                else:
                    return result
                finally:
                    for index, one in enumerate(records):
                        self._note(member, one, began_s, ok=index < good)

            return recorded

        return replace(declared, middleware=(record, *declared.middleware))

    def _note(self, member: str, record: object, at_s: float, *, ok: bool) -> None:
        assert isinstance(record, Record)
        at = TopicPartition(record.topic, record.partition)
        self.effects.append(Effect(member, at, record.offset, record.raw_key, record.attempt, at_s, ok))


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
    """What became of the records; offsets are those of the test's partitions."""

    handled: Sequence[int]
    retried: Sequence[int]
    skipped: Sequence[int]
    dead_letters: Sequence[DeadLetterCopy]
    committed: Mapping[TopicPartition, int]
    stopped: Mapping[TopicPartition, str]
    effects: Sequence[Effect]
    seconds: float
    exit_code: int


def run_handler(
    handler: type[Handler[T]] | type[BatchHandler[T]],
    records: Sequence[TestRecord | bytes | None],
    *,
    config: Config | None = None,
    app: Mapping[str, object] | None = None,
) -> HandlerRun:
    """Run `handler` on `records` until all have ended or stand still, without a broker and in virtual time.

    Retries and back-offs take place and cost no real time. What is not a TestRecord is a value.
    """
    declared = declarations([handler])[0]
    given = [one if isinstance(one, TestRecord) else TestRecord(one) for one in records]
    first_topic = declared.topics[0].lstrip("^")
    topics: dict[str, int] = defaultdict(lambda: 1)
    for one in given:
        topics[one.topic or first_topic] = max(topics[one.topic or first_topic], one.partition + 1)
    if declared.dead_letter is not None:
        topics[declared.dead_letter.topic] = max(topics.values(), default=1)
    world = VirtualWorld(topics, config=config)
    for one in given:
        world.broker.produce(
            one.topic or first_topic, one.partition, _bytes(one.value), key=_bytes(one.key), headers=one.headers
        )
    began_s = world.time.monotonic_s()
    member = world.start(handler, bounds=Bounds(until_end=True), app=app)
    while member.worker.stopping is None:
        member.worker.step()
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
