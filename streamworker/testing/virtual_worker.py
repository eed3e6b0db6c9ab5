"""Whole workers over a memory broker in virtual time.

`VirtualWorld` is what the project's own scenario tests and simulations are made of; `run_handler` is
the short way for users. Everything runs in the thread of the test.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from streamworker.config import Config, KafkaConfig
from streamworker.dlq.retries import RetryRoutes
from streamworker.errors import BatchFailed
from streamworker.events import Listener, Listeners
from streamworker.handler import BatchHandler, Context, Handler, declarations, keys_topics
from streamworker.record import Ending, Record, Records, TopicPartition
from streamworker.resilience.provision import Provision
from streamworker.scheduling.lanes import LaneSlice
from streamworker.testing.memory_broker import MemoryBroker, MemoryKeyLog, MemoryLog, MemoryOutbox, MemorySource
from streamworker.testing.virtual_executor import VirtualExecutor
from streamworker.testing.virtual_time import VirtualTime
from streamworker.work import SliceOutcome
from streamworker.worker import UNBOUNDED, Bounds, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from streamworker.handler import Call, Declaration
    from streamworker.interfaces import Fault
    from streamworker.record import Header, Message
    from streamworker.testing.memory_broker import MemoryMessage, Tenure
    from streamworker.work import Slice

T = TypeVar("T")

_IMPATIENCE_S = 3600.0
_KILLED = -9  # what a process says that SIGKILL ended
_MOST_ROUNDS = 100_000  # in which no time passes: far more than there are records


@dataclass(frozen=True, slots=True)
class Effect:
    """One record that a handler was called with; `ok` says that the call was a success for it.

    `blamed` is the class of the error where the record was at fault, or may have been: a batch that failed at one
    record says nothing of those behind it. The records of a batch have the same `call`. `turn` is the number of
    the slice in `VirtualWorld.turns`.
    """

    member: str
    partition: TopicPartition
    offset: int
    key: bytes | None
    attempt: int
    at_s: float
    ok: bool
    blamed: str
    call: int
    turn: int


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """A slice in the hands of one of a worker's threads; `until_s` comes only if the process is still there."""

    member: str
    tenure: Tenure
    messages: Sequence[Message]
    from_s: float
    until_s: float


@dataclass(slots=True)
class Story(Listener):
    """What one worker reported, in order."""

    endings: list[tuple[str, TopicPartition, Ending, int]] = field(default_factory=list)
    failures: list[tuple[TopicPartition, int, BaseException, int, Ending]] = field(default_factory=list)
    stops: list[tuple[TopicPartition, str, str]] = field(default_factory=list)
    mends: list[tuple[TopicPartition, str]] = field(default_factory=list)
    pauses: list[tuple[TopicPartition, str]] = field(default_factory=list)
    rebalances: list[tuple[str, tuple[TopicPartition, ...]]] = field(default_factory=list)
    expiries: list[tuple[TopicPartition, int, int, float]] = field(default_factory=list)
    deferrals: list[tuple[TopicPartition, str, str]] = field(default_factory=list)
    old_heads: list[tuple[TopicPartition, int, float, int, int]] = field(default_factory=list)
    leases: list[tuple[str, float]] = field(default_factory=list)
    breaker_changes: list[tuple[str, str, str, str]] = field(default_factory=list)
    degraded_reads: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused_letters: list[tuple[TopicPartition, int, str, str]] = field(default_factory=list)
    commit_answers: list[tuple[int, str | None]] = field(default_factory=list)
    unanswered_commits: int = 0
    late_records: int = 0
    full_bulkheads: Counter[str] = field(default_factory=Counter)
    throttled_s: float = 0.0
    postponed_retries: int = 0
    write_offs: list[tuple[TopicPartition, int]] = field(default_factory=list)
    late_calls: int = 0
    remembered_records: int = 0
    cut_commits: int = 0
    keys: list[tuple[str, TopicPartition, int]] = field(default_factory=list)
    suspicions: list[tuple[TopicPartition, int]] = field(default_factory=list)
    acquittals: list[TopicPartition] = field(default_factory=list)
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

    def expired(self, partition: TopicPartition, offset: int, records: int, age_s: float) -> None:
        self.expiries.append((partition, offset, records, age_s))

    def deferred(self, partition: TopicPartition, topic: str, reason: str) -> None:
        self.deferrals.append((partition, topic, reason))

    def head_too_old(
        self, partition: TopicPartition, offset: int, age_s: float, attempts: int, records_behind: int
    ) -> None:
        self.old_heads.append((partition, offset, age_s, attempts, records_behind))

    def lease_expired(self, silent_s: float) -> None:
        self.leases.append(("expired", silent_s))

    def lease_renewed(self, seconds: float) -> None:
        self.leases.append(("renewed", seconds))

    def breaker_changed(self, breaker: str, before: str, after: str, reason: str) -> None:
        self.breaker_changes.append((breaker, before, after, reason))

    def bulkhead_full(self, dependency: str, calls: int) -> None:
        self.full_bulkheads[dependency] += calls

    def degraded(self, operation: str, fallback: str, reads: int) -> None:
        self.degraded_reads[operation, fallback] += reads

    def dead_letter_refused(self, partition: TopicPartition, offset: int, topic: str, error: str) -> None:
        self.refused_letters.append((partition, offset, topic, error))

    def key_parked(self, partition: TopicPartition, offset: int) -> None:
        self.keys.append(("parked", partition, offset))

    def key_released(self, partition: TopicPartition, offset: int) -> None:
        self.keys.append(("released", partition, offset))

    def commit_answered(self, partitions: int, error: str | None, seconds: float) -> None:
        self.commit_answers.append((partitions, error))

    def commit_unanswered(self, partitions: int) -> None:
        self.unanswered_commits += partitions

    def late_outcome(self, handler: str, partition: TopicPartition, records: int) -> None:
        self.late_records += records

    def throttled(self, handler: str, seconds: float) -> None:
        self.throttled_s += seconds

    def retries_postponed(self, handler: str, retries: int) -> None:
        self.postponed_retries += retries

    def written_off(self, handler: str, partition: TopicPartition, offset: int, seconds: float) -> None:
        self.write_offs.append((partition, offset))

    def came_back_late(self, handler: str, partition: TopicPartition, seconds: float) -> None:
        self.late_calls += 1

    def remembered(self, partition: TopicPartition, records: int) -> None:
        self.remembered_records += records

    def suspected(self, partition: TopicPartition, deaths: int) -> None:
        self.suspicions.append((partition, deaths))

    def acquitted(self, partition: TopicPartition) -> None:
        self.acquittals.append(partition)

    def progress_cut(self, partition: TopicPartition, needed_bytes: int) -> None:
        self.cut_commits += 1

    def foreign_offset(self, partition: TopicPartition, offset: int) -> None:
        self.foreign.append((partition, offset))

    def fault(self, fault: Fault) -> None:
        self.faults.append(fault)

    def closed(self, exit_code: int, abandoned: Sequence[str]) -> None:
        self.exit = (exit_code, tuple(abandoned))

    def count(self, ending: Ending) -> int:
        """Records that ended so."""
        return sum(records for _, _, how, records in self.endings if how is ending)


class Threads(VirtualExecutor[LaneSlice]):
    """The threads of one process: they say whose turn it is, and end with it."""

    turn = -1  # number of the slice whose records are being handled
    ended = False

    def __init__(
        self,
        declarations: Sequence[Declaration],
        contexts: Sequence[Context],
        *,
        time: VirtualTime,
        max_record_bytes: int,
        duration_s: Callable[[Slice], float],
        eager: Callable[[], bool],
        begin_turn: Callable[[Slice, float], int],
        shortest_wait_s: float,
    ) -> None:
        super().__init__(
            declarations,
            contexts,
            time=time,
            max_record_bytes=max_record_bytes,
            duration_s=self._begun,
            eager=eager,
        )
        self._seconds = duration_s
        self._begin_turn = begin_turn
        self._shortest_wait_s = shortest_wait_s
        self._turns: dict[Slice, int] = {}

    def collect(self, timeout_s: float) -> Sequence[SliceOutcome[LaneSlice]]:
        """As of every executor."""
        return super().collect(max(timeout_s, self._shortest_wait_s) if timeout_s > 0 else timeout_s)

    def _begun(self, slice_: Slice) -> float:
        seconds = self._seconds(slice_)
        self._turns[slice_] = self._begin_turn(slice_, seconds)
        return seconds

    def _run(self, slice_: LaneSlice, seconds: float) -> SliceOutcome[LaneSlice]:
        self.turn = self._turns.pop(slice_)
        return SliceOutcome(slice_, seconds) if self.ended else super()._run(slice_, seconds)


@dataclass(slots=True)
class Member:
    """One worker of a world."""

    name: str
    worker: Worker
    source: MemorySource
    story: Story
    threads: Threads
    sources: Sequence[MemorySource]  # more than the one if the worker has made its consumer anew
    asked_to_stop_s: float | None = None
    gone_s: float | None = None  # when the process ended


class _Killed(BaseException):
    """The end of the process whose turn it is, wherever it is."""


class VirtualWorld:
    """A broker, its group, and workers that take turns.

    Where a worker would wait a moment for its threads it waits `shortest_wait_s` at least: long calls then cost fewer
    turns, and what is due comes later by as much.
    """

    CONFIG = Config(kafka=KafkaConfig(group="test"))

    def __init__(
        self, topics: Mapping[str, int], *, config: Config | None = None, shortest_wait_s: float = 0.0
    ) -> None:
        self.time = VirtualTime()
        self.broker = MemoryBroker(self.time, topics)
        self.config = config or self.CONFIG
        self.effects: list[Effect] = []
        self.turns: list[Turn] = []
        self.members: list[Member] = []
        self.ever: list[Member] = []  # also those that are gone
        self._shortest_wait_s = shortest_wait_s
        self._at_work: Member | None = None
        self._calls = 0

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
        name = f"worker-{len(self.ever) + 1}"
        declared = list(declarations(handlers))
        if recorded:
            declared = [self._recorded(one, name, lambda: threads.turn) for one in declared]
        provision = Provision(
            declared,
            app=app or {},
            group=self.config.kafka.group,
            degradation=self.config.degradation,
            clock=self.time,
        )
        story = Story()
        threads = Threads(
            declared,
            provision.contexts,
            time=self.time,
            max_record_bytes=self.config.kafka.max_record_bytes,
            duration_s=duration_s,
            eager=eager,
            begin_turn=partial(self._begin_turn, name) if recorded else lambda _slice, _seconds: -1,
            shortest_wait_s=self._shortest_wait_s,
        )
        sources: list[MemorySource] = []

        def source() -> MemorySource:
            sources.append(MemorySource(self.broker, name, end_of_partition=bounds.until_end))
            return sources[-1]

        worker = Worker(
            declarations=declared,
            config=self.config,
            source=source,
            executor=threads,
            outbox=MemoryOutbox(self.broker),
            log=MemoryLog(self.broker),
            key_log=MemoryKeyLog(self.broker, keys_topics(declared)),
            clock=self.time,
            listener=Listeners([story, *listeners]),
            breakers=provision.breakers,
            degradation=provision.degradation,
            bounds=bounds,
            observe=observe,
        )
        member = Member(name, worker, sources[0], story, threads, sources)
        self.members.append(member)
        self.ever.append(member)
        worker.begin()
        return member

    def run(self, until: Callable[[], bool], *, timeout_s: float = _IMPATIENCE_S, what: str = "the condition") -> None:
        """Let the workers take turns until `until()`; AssertionError after `timeout_s` of virtual time.

        Also if the workers turn and turn and nobody waits. `what` names in the error what was waited for.
        """
        moved_s, rounds = self.time.monotonic_s(), 0
        deadline_s = moved_s + timeout_s
        while not until():
            rounds = rounds + 1 if moved_s == self.time.monotonic_s() else 0
            moved_s = self.time.monotonic_s()
            if rounds > _MOST_ROUNDS:
                raise AssertionError(f"{what} was not reached in {_MOST_ROUNDS} rounds in which no time passed")
            if moved_s > deadline_s:
                raise AssertionError(f"{what} was not reached within {timeout_s:g} s of virtual time")
            for member in list(self.members):
                if member in self.members:
                    self._let_work(member, member.worker.step)
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
        """SIGTERM: drain, commit, leave; returns the exit code, -9 if it is killed before it is through."""
        member.asked_to_stop_s = self.time.monotonic_s()
        member.worker.stop("test")
        exit_code = self._let_work(member, member.worker.drain)
        if exit_code is None:
            return _KILLED
        self.members.remove(member)
        self._end(member)
        return exit_code

    def kill(self, member: Member) -> None:
        """SIGKILL: gone without a word, and the session with it.

        May be called while time passes, and then ends a member in the middle of what it does.
        """
        self.members.remove(member)
        self.broker.crash(member.sources[-1])
        self._end(member)
        if member is self._at_work:
            raise _Killed

    def _let_work(self, member: Member, work: Callable[[], T]) -> T | None:
        """Let a member do something; None if it is killed meanwhile."""
        self._at_work = member
        try:
            return work()
        except _Killed:
            return None
        finally:
            self._at_work = None

    def _end(self, member: Member) -> None:
        """The calls of a process end with it."""
        member.threads.ended = True
        member.gone_s = self.time.monotonic_s()

    def _begin_turn(self, member: str, slice_: Slice, seconds: float) -> int:
        now_s = self.time.monotonic_s()
        tenure = self.broker.latest_tenure(member, slice_.ownership.partition)
        self.turns.append(Turn(member, tenure, slice_.messages, now_s, now_s + seconds))
        return len(self.turns) - 1

    def _recorded(self, declared: Declaration, member: str, turn: Callable[[], int]) -> Declaration:
        def record(call: Call) -> Call:
            def recorded(argument: object) -> object:
                with self._noted(member, argument, turn):
                    return call(argument)

            async def awaited(argument: object) -> object:
                with self._noted(member, argument, turn):
                    return await call(argument)  # type: ignore[misc]  # of an async handle

            return awaited if declared.is_async else recorded

        return replace(declared, middleware=(record, *declared.middleware))

    @contextmanager
    def _noted(self, member: str, argument: object, turn: Callable[[], int]) -> Iterator[None]:
        """Note the call that is made inside."""
        records = list(argument) if isinstance(argument, Records) else [argument]
        good, to_blame, error = 0, range(len(records)), ""
        try:
            yield
            good = len(records)
        except BatchFailed as failed:
            error = type(failed.cause).__name__
            if 0 <= failed.index < len(records):
                good, to_blame = failed.index, range(failed.index, failed.index + 1)
            raise
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            self._calls += 1
            for index, one in enumerate(records):
                blamed = error if index in to_blame else ""
                self._note(member, one, turn(), ok=index < good, blamed=blamed)

    def _note(self, member: str, record: object, turn: int, *, ok: bool, blamed: str) -> None:
        assert isinstance(record, Record)
        self.effects.append(
            Effect(
                member=member,
                partition=TopicPartition(record.topic, record.partition),
                offset=record.offset,
                key=record.raw_key,
                attempt=record.attempt,
                at_s=self.time.monotonic_s(),
                ok=ok,
                blamed=blamed,
                call=self._calls,
                turn=turn,
            )
        )


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
    topics.update(dict.fromkeys(keys_topics([declared]), 1))
    group = (config or VirtualWorld.CONFIG).kafka.group
    for route in RetryRoutes([declared], group).all:
        topics[route.name] = topics[route.topic]
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
