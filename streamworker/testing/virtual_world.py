"""Whole workers over a memory broker in virtual time, for scenario tests and simulations.

Everything runs in the thread of the test.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from streamworker.cache.caches import Caches
from streamworker.config import Config, KafkaConfig
from streamworker.declaration import declarations, is_transactional, keys_topics
from streamworker.errors import BatchFailed
from streamworker.events import Listener, Listeners
from streamworker.idempotency.provision import slice_claims
from streamworker.idempotency.watchdog import LeaseExtender
from streamworker.options import KeptIn
from streamworker.record import Record, Records, TopicPartition
from streamworker.resilience.provision import Provision
from streamworker.scheduling.lane import LaneSlice
from streamworker.testing.memory_broker import MemoryBroker
from streamworker.testing.memory_claims import MemoryClaims, VirtualRounds
from streamworker.testing.memory_clients import MemoryKeyLog, MemoryLog, MemoryOutbox
from streamworker.testing.memory_source import MemorySource
from streamworker.testing.memory_transactor import MemoryTransactor
from streamworker.testing.story import Effect, Story, Turn
from streamworker.testing.virtual_executor import VirtualExecutor
from streamworker.testing.virtual_time import VirtualTime
from streamworker.work import SliceOutcome
from streamworker.worker import UNBOUNDED, Bounds, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from streamworker.declaration import Declaration
    from streamworker.dlq.replays import ReplayKey
    from streamworker.handler import BatchHandler, Call, Context, Handler
    from streamworker.idempotency.claims import Claim
    from streamworker.idempotency.slices import SliceClaims
    from streamworker.interfaces import CacheTruth
    from streamworker.work import Slice

T = TypeVar("T")

_IMPATIENCE_S = 3600.0
_KILLED = -9  # what a process says that SIGKILL ended
_MOST_ROUNDS = 100_000  # in which no time passes: far more than there are records


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
    extenders: Sequence[LeaseExtender[Claim]] = ()  # of what its handlers have claimed
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
        self.claims = MemoryClaims(self.time)
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
        caches: CacheTruth | None = None,
        replay_key: ReplayKey | None = None,
        observe: Callable[[Worker], None] = lambda _worker: None,
    ) -> Member:
        """Add a worker to the group and let it subscribe; `effects` is kept only if it is `recorded`."""
        name = f"worker-{len(self.ever) + 1}"
        declared = list(declarations(handlers))
        if recorded:
            declared = [self._recorded(one, name, lambda: threads.turn) for one in declared]
        config = self.config if app is None else replace(self.config, app=app)
        extenders: list[LeaseExtender[Claim]] = []
        provision = Provision(
            declared,
            config=config,
            clock=self.time,
            claimer=lambda one: self._claimer(one, extenders),
            caches=Caches(replace(config.cache, redis=None), app=config.kafka.group, clock=self.time),
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
            caches=caches,
            transactor=MemoryTransactor(self.broker) if is_transactional(declared) else None,
            replay_key=replay_key,
            bounds=bounds,
            observe=observe,
        )
        member = Member(name, worker, sources[0], story, threads, sources, extenders)
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
        for extender in member.extenders:
            extender.close()
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

    def _claimer(self, declared: Declaration, extenders: list[LeaseExtender[Claim]]) -> SliceClaims | None:
        """Claims in the world's memory; what extends them is added to `extenders`."""
        idempotency = declared.idempotency
        if idempotency is None or idempotency.kept_in is KeptIn.SINK:
            return None
        extenders.append(
            LeaseExtender(
                self.claims.extend,
                name="claims",
                lease_s=self.claims.lease_s,
                clock=self.time,
                rounds=lambda step, _name: VirtualRounds(self.time, step),
            )
        )
        return slice_claims(declared, idempotency, self.claims, extenders[-1], self.time)

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
