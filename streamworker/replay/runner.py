"""The operations of this process: each runs on a thread and with clients of its own, and others hear how far it is.

Decided here: how often is told, and that a run which does not end by itself is said to have failed. What a run does is
`runs.py`'s. Any thread.
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from streamworker.errors import ClientError
from streamworker.record import TopicPartition
from streamworker.replay import families
from streamworker.replay.audit import Note
from streamworker.replay.desk import OperationState
from streamworker.replay.group_outcomes import GroupOutcomes
from streamworker.replay.letter_reader import LetterReader
from streamworker.replay.operation_log import OperationLog
from streamworker.replay.operations import Logged, letter_of
from streamworker.replay.read_ahead import ReadAhead
from streamworker.replay.runs import Part, Run, Surroundings
from streamworker.replay.shipments import Shipments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.cluster import Cluster
    from streamworker.config import Config
    from streamworker.replay.clients import Clients
    from streamworker.replay.copies import Maker
    from streamworker.replay.dead_record import DeadRecord, LetterId
    from streamworker.replay.desk import Actor, Operation, Plan, Rates
    from streamworker.replay.group_outcomes import Addressee
    from streamworker.replay.shipping import Shipping
    from streamworker.replay.states import Disposition, Target
    from streamworker.replay.view import View

_TOLD_S = 2.0  # between two records of how far an operation is
_ASKED_S = 1.0  # between two looks for what is asked of it
_ENDS_S = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What is to be run, and for whom; `view` is that of the plan's topic."""

    actor: Actor
    plan: Plan
    maker: Maker
    rates: Rates
    view: View
    addressee: Callable[[LetterId, Target], Addressee]
    resumed: bool = False


@dataclass(slots=True)
class _Running:
    operation: Operation
    thread: threading.Thread | None = None
    told_s: float | None = None


class Runner:
    """Begins operations, and knows how far those are that run here."""

    def __init__(
        self,
        config: Config,
        cluster: Cluster,
        clients: Clients,
        clock: Clock,
        *,
        audit_key: bytes | None,
        timeout_s: float,
    ) -> None:
        self._config = config
        self._cluster = cluster
        self._clients = clients
        self._clock = clock
        self._audit_key = audit_key
        self._timeout_s = timeout_s
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()  # the operations
        self._ending = threading.Event()

    def begin(self, errand: Errand, operation: Operation) -> None:
        """Raises ClientError if the cluster cannot be told of it; then nothing was begun."""
        running = _Running(operation)
        self._tell(running, errand.plan, operation)
        running.thread = threading.Thread(
            target=self._work, args=(errand, running), name="streamworker-replay", daemon=True
        )
        with self._lock:
            self._running[operation.id] = running
        running.thread.start()

    def of(self, op_id: str) -> Operation | None:
        """How far it is; None for one of another process."""
        with self._lock:
            running = self._running.get(op_id)
        return None if running is None else running.operation

    @property
    def all(self) -> Mapping[str, Operation]:
        """By id."""
        with self._lock:
            return {op_id: running.operation for op_id, running in self._running.items()}

    def close(self) -> None:
        """Have all pause after the chunk in hand, and wait for that. Idempotent."""
        self._ending.set()
        with self._lock:
            threads = [running.thread for running in self._running.values() if running.thread is not None]
        for thread in threads:
            thread.join(_ENDS_S)

    def _work(self, errand: Errand, running: _Running) -> None:
        """On the thread of the run."""
        plan, begun = errand.plan, running.operation
        topic = plan.request.topic
        try:
            with ExitStack() as stack:
                letters = stack.enter_context(closing(self._clients.new_log(goes_on=True)))
                children, asked = (stack.enter_context(closing(self._clients.new_log())) for _ in range(2))
                ahead = ReadAhead[Part]()
                shipments = Shipments(
                    self._config,
                    clock=self._clock,
                    wait=self._ending.wait,
                    audit_key=self._audit_key,
                    meanwhile=ahead.step,
                )
                stack.enter_context(closing(shipments))
                operations = OperationLog(self._cluster, asked, self._timeout_s)
                outcomes = GroupOutcomes(
                    self._cluster,
                    children,
                    topic,
                    errand.addressee,
                    since_ms=begun.started_ms,
                    timeout_s=self._timeout_s,
                )
                if errand.rates.canary:
                    outcomes.begin()
                around = Surroundings(
                    letters=_Letters(LetterReader(letters, topic, families.read, self._timeout_s), errand.view),
                    shipping=lambda partition: _shipping(shipments, TopicPartition(topic, partition)),
                    outcomes=outcomes,
                    clock=self._clock,
                    wait=self._ending.wait,
                    asked=_Questions(begun.id, operations, self._clock, self._ending).asked,
                    tell=partial(self._tell, running, plan),
                    note=partial(self._note, errand, begun),
                    ahead=ahead,
                )
                Run(plan, begun, errand.maker, errand.rates, around, resumed=errand.resumed).run()
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits for the operation has to hear of it
            _log.exception("operation %s", begun.id)
            failed = replace(
                running.operation,
                state=OperationState.FAILED,
                message=f"{type(error).__name__}: {error}",
                ended_ms=self._clock.wall_ms(),
            )
            try:
                self._tell(running, plan, failed)
            except ClientError:
                running.operation = failed  # nobody else knows, so it is kept here
                return
        with self._lock:  # the log says how it ended, and hears of it when somebody ends a paused one for good
            del self._running[begun.id]

    def _tell(self, running: _Running, plan: Plan, operation: Operation) -> None:
        """Let others know how far it is, now and then; always when it has ended."""
        now_s = self._clock.monotonic_s()
        ended = operation.state is not OperationState.RUNNING
        if ended or running.told_s is None or now_s - running.told_s >= _TOLD_S:
            running.told_s = now_s
            self._clients.send(letter_of(Logged.of(operation, plan.request, plan.ends), self._clock.wall_ms()))
        running.operation = operation

    def _note(self, errand: Errand, operation: Operation) -> Note:
        request = errand.plan.request
        said = {"plan": operation.plan_sha256, "filter": operation.filter_text, "reason": request.reason_code}
        return Note(
            at_ms=self._clock.wall_ms(),
            actor=errand.actor,
            what=operation.action,
            topic=operation.topic,
            op_id=operation.id,
            detail={name: text for name, text in said.items() if text},
        )


def _shipping(shipments: Shipments, partition: TopicPartition) -> Shipping:
    """Of the partition that is at hand; those that were are let go of in time."""
    shipments.idle()
    return shipments.of(partition)


@dataclass(frozen=True, slots=True)
class _Letters:
    """What a run reads: letters from the topic, what was said of them from the view."""

    reader: LetterReader
    view: View

    def read(self, ids: Sequence[LetterId]) -> Iterator[DeadRecord]:
        return self.reader.read(ids)

    def said(self, letter: LetterId) -> Disposition | None:
        row = self.view.row(letter)
        return None if row is None else row.disposition


class _Questions:
    """What others ask of a run, looked for once a second; when the process ends it is asked to pause."""

    def __init__(self, op_id: str, log: OperationLog, clock: Clock, ending: threading.Event) -> None:
        self._op_id = op_id
        self._log = log
        self._monotonic_s = clock.monotonic_s
        self._ending = ending
        self._looked_s: float | None = None

    def asked(self) -> OperationState | None:
        """Whether it shall pause or abort."""
        if self._ending.is_set():
            return OperationState.PAUSED
        now_s = self._monotonic_s()
        if self._looked_s is None or now_s - self._looked_s >= _ASKED_S:
            self._looked_s = now_s
            self._log.read()
        return self._log.known.asked(self._op_id)
