"""The thread that makes transactions, and the door to the producer that it makes them with.

One transaction is in hand at a time: begin, the outputs, the offsets, commit. How it ended is always known when it is
told, though the coordinator may not have said so: after an error that leaves it open the producer is made anew, which
ends the transaction one way or the other, and the offsets that the group then has tell which. A producer is never used
again after such an error, because a late request of the old transaction could meet the next one.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as ClientPartition

from streamworker.client_log import ClientLogger
from streamworker.errors import ClientError, ConfigurationError
from streamworker.librdkafka import credentials, without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.interfaces import OffsetMark
    from streamworker.record import Letter, TopicPartition

Setting = str | int | float | bool

_CALL_S = 5.0  # of one call of the client, which is made again while there is time
_HANGS_S = _CALL_S + 1.0
_POLL_S = 0.05
_AGAIN_S = 1.0  # between two tries to find out how a transaction ended
_FENCED_AGAIN_S = 60.0  # two that fence each other would do so for ever
_FENCED = frozenset({"_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH"})
# What is said of an output and means its transaction, or brokers that do not answer.
_OF_THE_TRANSACTION = _FENCED | {
    "_FATAL",
    "_MSG_TIMED_OUT",
    "_PURGE_INFLIGHT",
    "_PURGE_QUEUE",
    "_STATE",
    "_TIMED_OUT",
    "INVALID_PRODUCER_ID_MAPPING",
    "INVALID_TXN_STATE",
    "NOT_ENOUGH_REPLICAS",
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
    "OUT_OF_ORDER_SEQUENCE_NUMBER",
    "REQUEST_TIMED_OUT",
    "UNKNOWN_PRODUCER_ID",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Transaction:
    """What is to be committed at once. `membership` is the client's, of the moment at which the marks were made."""

    outputs: Sequence[Letter]
    marks: Mapping[TopicPartition, OffsetMark]
    membership: object


@dataclass(frozen=True, slots=True)
class Ended:
    """How a transaction ended: committed if `error` is None, else nothing of it is there.

    `refused` is the index of an output that the brokers do not take. With `fenced` somebody else uses the same id.
    """

    transaction: Transaction
    error: str | None = None
    refused: int | None = None
    fenced: bool = False


class Transactor(Protocol):
    """Makes one transaction at a time. Loop thread only; nothing blocks but `wait` and `close`."""

    def submit(self, transaction: Transaction) -> None:
        """Make it; the one before has been told of."""

    def ended(self) -> Ended | None:
        """The one that has ended since, told once."""

    def wait(self, timeout_s: float) -> None:
        """Until the one in hand has ended, or the time is over."""

    def close(self, timeout_s: float) -> None:
        """Make no more, and abort what is open. Idempotent."""


class KafkaTransactor:
    """A `Transactor` over producers with `settings`, which have the transactional id.

    `committed` asks for the group's offsets and waits for those of open transactions; it may raise ClientError.
    """

    def __init__(
        self,
        settings: Mapping[str, Setting],
        *,
        committed: Callable[[Sequence[TopicPartition], float], Mapping[TopicPartition, OffsetMark | None]],
        clock: Clock,
        timeout_s: float,
        make_producer: Callable[..., Producer] = Producer,
    ) -> None:
        self._settings = dict(settings)
        self._committed = committed
        self._monotonic_s = clock.monotonic_s
        self._timeout_s = timeout_s
        self._make_producer = make_producer
        self._producer: Producer | None = self._new_producer()
        self._is_ready = False  # its transactions can begin
        self._work: deque[Transaction] = deque()
        self._ended: deque[Ended] = deque()
        self._wake = threading.Event()
        self._told = threading.Event()
        self._stopping = threading.Event()
        self._fenced_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="streamworker-transactor", daemon=True)
        self._thread.start()

    def take_credentials(self, username: str, password: str) -> None:
        """Show these to brokers from the next connection on. Loop thread."""
        self._settings = {**self._settings, **credentials(username, password)}
        producer = (
            self._producer
        )  # the thread that makes transactions may drop it meanwhile, and goes by the settings then
        if producer is not None:
            producer.set_sasl_credentials(username, password)

    def submit(self, transaction: Transaction) -> None:
        """As of `Transactor`."""
        self._told.clear()
        self._work.append(transaction)
        self._wake.set()

    def ended(self) -> Ended | None:
        """As of `Transactor`."""
        return self._ended.popleft() if self._ended else None

    def wait(self, timeout_s: float) -> None:
        """As of `Transactor`."""
        self._told.wait(timeout_s)

    def close(self, timeout_s: float) -> None:
        """As of `Transactor`."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        self._begin_early()
        while not self._stopping.is_set():
            self._wake.wait()
            self._wake.clear()
            while self._work and not self._stopping.is_set():
                self._ended.append(self._made(self._work.popleft()))
                self._told.set()
                if not self._is_ready:
                    self._begin_early()

    def _begin_early(self) -> None:
        """End at once what a predecessor of the same id has left open: it keeps others from reading on."""
        try:
            self._ready(self._monotonic_s() + self._timeout_s)
        except KafkaException:
            self._drop_producer()  # the next transaction tries it again, and tells

    def _made(self, transaction: Transaction) -> Ended:
        until_s = self._monotonic_s() + self._timeout_s
        refusal: list[tuple[int, str]] = []
        commits = False
        try:
            producer = self._ready(until_s)
            producer.begin_transaction()
            self._produce(producer, transaction, refusal, until_s)
            self._send_offsets(producer, transaction, until_s)
            commits = True
            self._commit(producer, until_s)
        except KafkaException as error:
            return self._failed(transaction, error.args[0], refusal, commits=commits)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not leave the loop waiting
            _log.exception("a transaction failed outside of the client")
            return self._failed(transaction, KafkaError(KafkaError._FAIL, str(error)), refusal, commits=commits)  # noqa: SLF001 - the client's public code
        return Ended(transaction)

    def _ready(self, until_s: float) -> Producer:
        """A producer between two transactions."""
        producer = self._new_producer() if self._producer is None else self._producer
        self._producer = producer
        if not self._is_ready:
            self._insist(lambda: producer.init_transactions(_CALL_S), until_s)
            self._is_ready = True
        return producer

    def _new_producer(self) -> Producer:
        try:
            return self._make_producer(dict(self._settings), logger=ClientLogger())
        except KafkaException as error:
            reason = without_secrets(error.args[0].str(), self._settings)
            raise ConfigurationError(f"kafka.librdkafka: the producer refuses its settings: {reason}") from error

    def _produce(
        self, producer: Producer, transaction: Transaction, refusal: list[tuple[int, str]], until_s: float
    ) -> None:
        """Hand all over and wait for the answers; the first that is refused ends the transaction."""

        def answered(index: int, error: KafkaError | None, _message: object) -> None:
            if error is not None:
                refusal.append((index, error.name()))

        for index, letter in enumerate(transaction.outputs):
            while True:
                try:
                    producer.produce(
                        letter.topic,
                        value=letter.value,
                        key=letter.key,
                        partition=-1 if letter.partition is None else letter.partition,
                        on_delivery=partial(answered, index),
                        timestamp=letter.timestamp_ms,
                        headers=list(letter.headers),
                    )
                    break
                except BufferError:
                    producer.poll(_POLL_S)
                except KafkaException as error:
                    refusal.append((index, error.args[0].name()))
                    raise
        while len(producer) and not refusal and self._monotonic_s() < until_s and not self._stopping.is_set():
            producer.poll(_POLL_S)
        if refusal:
            if refusal[0][1] in _OF_THE_TRANSACTION:
                self._send_offsets(producer, transaction, until_s)  # only this says why
            raise KafkaException(KafkaError(KafkaError._FAIL, refusal[0][1]))  # noqa: SLF001 - the client's public code

    def _send_offsets(self, producer: Producer, transaction: Transaction, until_s: float) -> None:
        """Make the offsets part of the transaction.

        The call may hang for good while the group's coordinator moves, whatever time it is given
        (https://github.com/confluentinc/librdkafka/issues/5456): then it is left behind with its producer.
        """
        offsets = [ClientPartition(*one, mark.offset, mark.metadata) for one, mark in transaction.marks.items()]

        def send() -> None:
            producer.send_offsets_to_transaction(offsets, transaction.membership, _CALL_S)

        def watched() -> None:
            if not _Call(send).ended(_HANGS_S):
                self._drop_producer()
                raise KafkaException(KafkaError(KafkaError._FAIL, "the client hangs"))  # noqa: SLF001 - the client's public code

        self._insist(watched, until_s)

    def _commit(self, producer: Producer, until_s: float) -> None:
        self._insist(lambda: producer.commit_transaction(_CALL_S), until_s)

    def _insist(self, call: Callable[[], None], until_s: float) -> None:
        """Make a call again while the client says that this is what it takes, and there is time."""
        while True:
            try:
                call()
            except KafkaException as error:
                left = self._monotonic_s() < until_s and not self._stopping.is_set()
                if not (error.args[0].retriable() and left):
                    raise
            else:
                return

    def _failed(
        self, transaction: Transaction, error: KafkaError, refusal: Sequence[tuple[int, str]], *, commits: bool
    ) -> Ended:
        """End the transaction for certain, and say how."""
        index, code = _blamed(error, refusal)
        begun = self._is_ready
        if not commits and not error.fatal() and self._aborted():
            if index is not None or not begun:
                self._drop_producer()  # it believes for minutes what it was told of a topic
            if not begun:
                self._stopping.wait(_AGAIN_S)  # the same is asked for again at once
            return Ended(transaction, code, index)
        self._drop_producer()
        fenced = self._fences(code)
        while commits and not self._stopping.is_set():
            try:
                self._ready(self._monotonic_s() + self._timeout_s)
                if self._is_there(transaction):
                    return Ended(transaction)
                break
            except (KafkaException, ClientError) as raised:
                self._drop_producer()
                _log.warning("how a transaction ended is not known yet: %s", raised)
                self._stopping.wait(_AGAIN_S)
        return Ended(transaction, code, index, fenced=fenced)

    def _drop_producer(self) -> None:
        self._producer, self._is_ready = None, False

    def _aborted(self) -> bool:
        producer = self._producer
        if producer is None or not self._is_ready:
            return True
        try:
            self._insist(lambda: producer.abort_transaction(_CALL_S), self._monotonic_s() + self._timeout_s)
        except KafkaException:
            return False
        return True

    def _is_there(self, transaction: Transaction) -> bool:
        """Whether it was committed: then the group has one of its marks, each of which has a number of its own."""
        found = self._committed(list(transaction.marks), _CALL_S)
        return any(found.get(partition) == mark for partition, mark in transaction.marks.items())

    def _fences(self, code: str) -> bool:
        """Whether this is the second time in a while that somebody else has taken the id."""
        if code not in _FENCED:
            return False
        before_s, self._fenced_s = self._fenced_s, self._monotonic_s()
        return before_s is not None and self._fenced_s - before_s < _FENCED_AGAIN_S


class _Call:
    """A call of the client on a thread of its own, which is left behind if it does not come back."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._raised: KafkaException | None = None
        self._back = threading.Event()
        threading.Thread(target=self._run, name="streamworker-transaction-offsets", daemon=True).start()

    def ended(self, timeout_s: float) -> bool:
        """Wait for it, and raise what it raised; false if it is not back in time."""
        if not self._back.wait(timeout_s):
            return False
        if self._raised is not None:
            raise self._raised
        return True

    def _run(self) -> None:
        try:
            self._call()
        except KafkaException as error:
            self._raised = error
        finally:
            self._back.set()


def _blamed(error: KafkaError, refusal: Sequence[tuple[int, str]]) -> tuple[int | None, str]:
    """The output that is to blame for a transaction that failed, None if it is no output's fault; and the code."""
    index, code = refusal[0] if refusal else (None, error.name())
    if code in _OF_THE_TRANSACTION and error.name() != "_FAIL":
        code = error.name()
    return (None if code in _OF_THE_TRANSACTION else index), code
