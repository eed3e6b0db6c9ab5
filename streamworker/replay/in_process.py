"""Puts together what handles dead letters in the process of a command: an ordinary worker, outside of its group.

Decided here: what of a handler is otherwise than in a worker of the group. Its letters come from `letter_source.py`,
and what fails is told instead of written: it stays pending. A handler that reads several topics has a worker for the
letters of each, one after the other, because its serdes may go by the topic. The thread that calls `run`.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from streamworker.assembly import caches_of
from streamworker.errors import ConfigurationError
from streamworker.events import Listener
from streamworker.exit_code import ExitCode
from streamworker.idempotency.provision import claimer_of
from streamworker.options import DeadLetter, Delivery, Execution, OnExhausted
from streamworker.processing.pools import Pools
from streamworker.record import Headers, TopicPartition
from streamworker.replay.dead_record import LetterId
from streamworker.replay.letter_marks import LANES, LetterSink
from streamworker.replay.letter_source import Account, LetterSource
from streamworker.resilience.provision import Provision
from streamworker.work import InHand
from streamworker.worker import Bounds, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from streamworker.clock import Clock
    from streamworker.config import Config
    from streamworker.declaration import Declaration
    from streamworker.interfaces import Executor, Log
    from streamworker.record import Letter
    from streamworker.replay.dead_record import DeadRecord
    from streamworker.replay.letter_source import Delivered, Letters
    from streamworker.resilience.breaker import CircuitBreaker
    from streamworker.resilience.fallback import Degradation
    from streamworker.scheduling.lane import LaneSlice

# So many letters of a partition are handled again at most where a crash comes before their states.
_MOST_UNSAID = 1000


@dataclass(frozen=True, slots=True)
class Engine:
    """What runs the calls of one handler."""

    executor: Executor[LaneSlice]
    breakers: Mapping[str, CircuitBreaker]
    degradation: Degradation


class Engines(Protocol):
    """Makes what runs the calls of a handler, for as long as the context lasts."""

    def __call__(self, declared: Declaration) -> AbstractContextManager[Engine]:
        """Raises ConfigurationError for what cannot work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What it needs of the world. `note` as of `LetterSource`; `wait` waits for some seconds, or less."""

    letters: Letters
    note: Callable[[Sequence[Delivered]], Mapping[LetterId, str]]
    log: Log
    engines: Engines
    clock: Clock
    wait: Callable[[float], object]
    tell: Callable[[str], None]  # what people should know meanwhile
    progress: Callable[[int], None]  # of how many letters it is known what became of them


class InProcess:
    """Handles the letters `ids` of `dead_letters`, which come in order of partition and offset.

    `topic_id` is that of the dead-letter topic, None where the cluster does not tell. Raises ConfigurationError for a
    handler that cannot run so.
    """

    def __init__(
        self,
        config: Config,
        declared: Declaration,
        dead_letters: str,
        ids: Sequence[LetterId],
        around: Around,
        *,
        topic_id: str | None,
    ) -> None:
        refuse(declared)
        self.account = Account()
        self._handler = declared
        self._fitted = fitted(declared, dead_letters, topic_id)
        self._config = replace(
            config,
            commit=replace(config.commit, max_uncommitted=min(config.commit.max_uncommitted, _MOST_UNSAID)),
            # What fails is written nowhere, so there is nothing to keep it from.
            dead_letters=replace(config.dead_letters, budget=max(len(ids), 1)),
        )
        self._dead_letters = dead_letters
        self._ids = ids
        self._around = around
        self._worker: Worker | None = None
        self._asked_to_stop: str | None = None

    def stop(self, reason: str) -> None:
        """End after the records in hand; only sets a flag, as of `Worker.stop`."""
        self._asked_to_stop = reason
        if self._worker is not None:
            self._worker.stop(reason)

    def run(self) -> ExitCode:
        """Handle them; what is not handled stays pending. Raises what opening the handler raises."""
        left, topic = self._ids, self._first_topic()
        while left and self._asked_to_stop is None:
            code = self._run(topic, left)
            if code not in (ExitCode.OK, ExitCode.PARTIAL):
                return code
            elsewhere, self.account.elsewhere = self.account.elsewhere, {}
            left = sorted(elsewhere)
            topic = elsewhere[left[0]] if left else topic
        return ExitCode.OK if self.account.handled == len(self._ids) else ExitCode.PARTIAL

    def _first_topic(self) -> str:
        """Where the first letter was first."""
        for letter in self._around.letters.read(self._ids[:1]):
            if letter.origin is not None:
                return letter.origin.topic
        return self._handler.topics[0]

    def _run(self, topic: str, ids: Sequence[LetterId]) -> ExitCode:
        around, account = self._around, self.account
        with around.engines(self._fitted) as engine:
            worker = Worker(
                declarations=[self._fitted],
                config=self._config,
                source=lambda: LetterSource(
                    self._dead_letters,
                    ids,
                    topic=topic,
                    letters=around.letters,
                    refused=self._refused,
                    done=lambda key, offset: _is_done(worker, key, offset),
                    note=around.note,
                    give_up=self.stop,
                    account=account,
                    wait=around.wait,
                    clock=around.clock,
                ),
                executor=engine.executor,
                outbox=_Untaken(account),
                log=around.log,
                key_log=None,
                clock=around.clock,
                listener=_Telling(around.tell),
                breakers=engine.breakers,
                degradation=engine.degradation,
                bounds=Bounds(until_end=True),
                observe=partial(self._observe, topic),
            )
            self._worker = worker
            if self._asked_to_stop is not None:  # it came while the worker was made
                worker.stop(self._asked_to_stop)
            return ExitCode(worker.run())

    def _observe(self, topic: str, worker: Worker) -> None:
        for one in worker.partitions:
            one.ownership.topic = topic
        self._around.progress(self.account.ended)

    def _refused(self, letter: DeadRecord) -> str | None:
        """Why a letter is not for this handler; None if it is."""
        group = self._config.kafka.group
        if letter.group not in (None, group):
            return f"it is of group {letter.group!r}, and this is {group!r}"
        if letter.origin is not None and not self._handler.subscribes_to(letter.origin.topic):
            return f"it was first in {letter.origin.topic!r}, which {self._handler.name} does not read"
        return None


def refuse(declared: Declaration) -> None:
    """Raise ConfigurationError for a handler whose letters cannot be handled outside of its group."""
    if declared.delivery is Delivery.TRANSACTIONAL:
        raise ConfigurationError(
            f"{declared.name}.delivery: what it writes is part of the commits of its group, and there are none here;"
            f" send its dead letters to the group with `streamworker dlq replay`"
        )
    letter = declared.dead_letter
    if letter is not None and letter.on_exhausted is OnExhausted.DLQ_KEY:
        raise ConfigurationError(
            f"{declared.name}.dead_letter: its letters take their key along, and only its group knows which keys are"
            f" parked; send them to the group with `streamworker dlq replay`"
        )


def fitted(declared: Declaration, dead_letters: str, topic_id: str | None) -> Declaration:
    """The same for letters of a dead-letter topic: in this process, and with nowhere to go but back."""
    found = replace(
        declared,
        topics=(dead_letters,),
        dead_letter=DeadLetter(dead_letters, replay=False),
        retry=replace(declared.retry, topics=()),
        execution=Execution.THREAD if declared.execution is Execution.PROCESS else declared.execution,
    )
    if declared.sink is None or not declared.sink.keeps_marks:
        return found
    return replace(found, sink=LetterSink(declared.sink, topic_id), lanes=LANES)


@contextmanager
def engine_of(config: Config, clock: Clock, declared: Declaration) -> Iterator[Engine]:
    """As of `Engines`: with the threads, claims and caches that it has in a worker."""
    in_hand = InHand("in_hand", default=None)
    caches = caches_of(config, in_hand, clock)
    claimer = claimer_of(declared, config.claims, config.kafka.group, clock)
    provision = Provision(
        [declared], config=config, clock=clock, claimer=lambda _declared: claimer, caches=caches, in_hand=in_hand
    )
    pools: Pools[LaneSlice] = Pools(
        [declared], provision.contexts, clock=clock, max_record_bytes=config.kafka.max_record_bytes
    )
    try:
        yield Engine(pools, provision.breakers, provision.degradation)
    finally:
        caches.close()


def _is_done(worker: Worker, key: TopicPartition, offset: int) -> bool:
    """Whether a record is done that was delivered; a fetch may have brought it and the worker not taken it yet."""
    partition = worker.partitions.get(key)
    return partition is not None and offset < partition.tracker.next_offset and partition.tracker.is_done(offset)


class _Untaken:
    """An `Outbox` that writes nothing: what would be a dead letter again is noted, and stays what it is."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._reports: list[Callable[[str | None], None]] = []

    def send(self, letter: Letter, done: Callable[[str | None], None]) -> None:
        """As of `Outbox`; acknowledged with the next `poll`."""
        assert letter.of is not None
        key, offset = letter.of
        self._account.failures[LetterId(key.partition, offset)] = _why(Headers(letter.headers))
        self._reports.append(done)

    def poll(self) -> None:
        """As of `Outbox`."""
        reports, self._reports = self._reports, []
        for done in reports:
            done(None)

    def partitions(self, topic: str, timeout_s: float) -> int | None:  # noqa: ARG002 - there is no topic behind it
        """As of `Outbox`."""
        return 1

    def flush(self, timeout_s: float) -> int:  # noqa: ARG002 - nothing is on its way
        """As of `Outbox`."""
        self.poll()
        return 0


def _why(headers: Headers) -> str:
    """What a letter would have said."""
    reason, error, message = (
        (headers.last(name) or b"").decode("utf-8", "replace") for name in ("sw-reason", "sw-exception", "sw-message")
    )
    return f"{reason}: {error}: {message}" if message else f"{reason}: {error}"


class _Telling(Listener):
    """Says what people have to know while they wait."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._refusals: set[str] = set()  # each is told once

    def breaker_changed(self, breaker: str, before: str, after: str, reason: str) -> None:  # noqa: ARG002 - as of `Listener`
        """As of `Listener`."""
        self._tell(f"breaker {breaker}: {after} ({reason})")

    def stopped(self, partition: TopicPartition, reason: str, detail: str, mends_itself: bool) -> None:
        """As of `Listener`."""
        follows = "it is tried again" if mends_itself else "the rest goes on"
        self._tell(f"{partition} stands still: {reason}: {detail}; {follows}")

    def commit_answered(self, partitions: int, error: str | None, seconds: float) -> None:  # noqa: ARG002 - as of `Listener`
        """As of `Listener`."""
        if error is not None and error not in self._refusals:
            self._refusals.add(error)
            self._tell(f"the states of what was handled cannot be written: {error}; it is tried again")
