"""The door to the producers that send dead letters again and mark them, and what opens them for each partition.

Decided here: which errors are a letter's fault; what follows from them is said in `shipping.py`. A producer is made for
one partition of one dead-letter topic (`sw-dlq-TOPIC-PARTITION`), and never used again after an error that it does not
recover from by an abort, because a late request of the old transaction could meet the next one. One thread at a time.
"""

from __future__ import annotations

import contextlib
import random
import secrets
from functools import partial
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, Producer

from streamworker.client_log import ClientLogger
from streamworker.errors import ClientError, ConfigurationError
from streamworker.librdkafka import (
    sink_settings,
    topic_log_settings,
    transactional_settings,
    without_secrets,
)
from streamworker.record import TopicPartition
from streamworker.replay.audit import TOPIC as AUDIT_TOPIC
from streamworker.replay.audit import Chain
from streamworker.replay.shipping import PartitionShipping, insist_on
from streamworker.replay.states import Target, state_topic
from streamworker.replay.topic_log import TopicLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from confluent_kafka import Message

    from streamworker.clock import Clock
    from streamworker.config import Config
    from streamworker.record import Letter
    from streamworker.replay.audit import Note
    from streamworker.replay.shipping import Sender, Shipping

Setting = str | int | float | bool

_CALL_S = 5.0  # of one call of the client, which is made again while there is time
_POLL_S = 0.05
_ASK_S = 10.0  # for a question
_MOCK_CLUSTER = "mockCluster"  # how the client's own names itself (rdkafka_mock.c)
_KNOWN_S = 60.0  # how long a topic is believed to be there
# What is said of a letter and means all of them: its transaction, its request, or brokers that do not answer.
_NO_FAULT_OF_ITS = frozenset(
    {
        "INVALID_PRODUCER_EPOCH",
        "INVALID_PRODUCER_ID_MAPPING",
        "INVALID_TXN_STATE",
        "NOT_ENOUGH_REPLICAS",
        "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        "OUT_OF_ORDER_SEQUENCE_NUMBER",
        "PRODUCER_FENCED",
        "REQUEST_TIMED_OUT",
        "UNKNOWN_PRODUCER_ID",
        "_FATAL",
        "_FENCED",
        "_INVALID_DIFFERENT_RECORD",
        "_MSG_TIMED_OUT",
        "_PURGE_INFLIGHT",
        "_PURGE_QUEUE",
        "_STATE",
        "_TIMED_OUT",
        "_TRANSPORT",
    }
)


class KafkaSender:
    """A `Sender` over a producer with `settings`, which have a transactional id if it is to make transactions.

    While it waits for answers it calls `meanwhile`, which does a bit of other work, or tells that there is none.
    """

    def __init__(
        self,
        settings: Mapping[str, Setting],
        *,
        clock: Clock,
        timeout_s: float,
        make_producer: Callable[..., Producer] = Producer,
        meanwhile: Callable[[], bool] = lambda: False,
    ) -> None:
        self._monotonic_s = clock.monotonic_s
        self._timeout_s = timeout_s
        self._meanwhile = meanwhile
        self._transactional = "transactional.id" in settings
        self._known: dict[str, float] = {}  # topics that are there, and until when that is believed
        try:
            self._producer = make_producer(dict(settings), logger=ClientLogger())
        except KafkaException as error:
            reason = without_secrets(error.args[0].str(), settings)
            raise ConfigurationError(f"kafka.librdkafka: the producer refuses its settings: {reason}") from error

    def open(self) -> None:
        """As of `Sender`."""
        if self._transactional:
            self._insist(self._refuse_a_mock_cluster)
            self._insist(lambda: self._producer.init_transactions(_CALL_S))

    def _refuse_a_mock_cluster(self) -> None:
        """It takes transactions, but fences nobody, hides nothing that was aborted, and its marks have no checksum."""
        cluster = self._producer.list_topics(timeout=_CALL_S)
        if (cluster.cluster_id or "").startswith(_MOCK_CLUSTER):
            raise ClientError("a mock cluster has no transactions to rely on", code="_UNSUPPORTED_FEATURE")

    def unknown(self, topics: Iterable[str]) -> Mapping[str, str]:
        """As of `Sender`; a topic that is there is asked for once a minute."""
        found = {}
        for topic in topics:
            if self._known.get(topic, 0.0) <= self._monotonic_s():
                code = self._trouble_with(topic)
                if code is not None:
                    found[topic] = code
                else:
                    self._known[topic] = self._monotonic_s() + _KNOWN_S
        return found

    def begin(self) -> None:
        """As of `Sender`."""
        if self._transactional:
            self._insist(self._producer.begin_transaction)

    def send(self, letters: Sequence[Letter]) -> Sequence[Target | str | None]:
        """As of `Sender`."""
        answers: list[Target | str | None] = [None] * len(letters)
        errors: list[str] = []

        def answered(index: int, error: KafkaError | None, message: Message) -> None:
            if error is None:
                answers[index] = Target(letters[index].topic, message.partition() or 0, message.offset())
            else:
                noted(index, error.name())

        def noted(index: int, code: str) -> None:
            errors.append(code)
            if code not in _NO_FAULT_OF_ITS:
                answers[index] = code

        for index, letter in enumerate(letters):
            try:
                self._hand_over(letter, partial(answered, index))
            except KafkaException as error:
                noted(index, error.args[0].name())
                if self._transactional:
                    break
        self._flush(errors)
        if self._transactional and (errors or None in answers):
            return self._blamed(answers, errors)
        return answers

    def commit(self) -> None:
        """As of `Sender`."""
        if self._transactional:
            self._insist(lambda: self._producer.commit_transaction(_CALL_S))

    def abort(self) -> None:
        """As of `Sender`."""
        if self._transactional:
            self._insist(lambda: self._producer.abort_transaction(_CALL_S))

    def close(self) -> None:
        """As of `Sender`. What it has begun is ended by who opens the next one, or by the brokers in time."""
        with contextlib.suppress(KafkaException):  # of a fatal error that is known
            self._producer.purge()
            self._producer.poll(0)

    def _hand_over(self, letter: Letter, answered: Callable[[KafkaError | None, Message], None]) -> None:
        until_s = self._monotonic_s() + self._timeout_s
        while True:
            try:
                self._producer.produce(
                    letter.topic,
                    value=letter.value,
                    key=letter.key,
                    partition=-1 if letter.partition is None else letter.partition,
                    on_delivery=answered,
                    timestamp=letter.timestamp_ms,
                    headers=list(letter.headers),
                )
            except BufferError:
                if self._monotonic_s() > until_s:
                    raise KafkaException(KafkaError(KafkaError._QUEUE_FULL)) from None  # noqa: SLF001 - the client's public code
                self._producer.poll(_POLL_S)
            else:
                return

    def _flush(self, errors: Sequence[str]) -> None:
        """Wait for all answers, in a transaction until the first that is an error."""
        until_s = self._monotonic_s() + self._timeout_s
        with contextlib.suppress(KafkaException):  # a fatal error; the answers say so, too
            while len(self._producer) and self._monotonic_s() < until_s:
                self._producer.poll(0 if self._meanwhile() else _POLL_S)
                if errors and self._transactional:
                    return

    def _blamed(self, answers: list[Target | str | None], errors: Sequence[str]) -> list[Target | str | None]:
        """Whose fault it is that the transaction cannot go on; raises if it is no letter's."""
        if any(isinstance(one, str) for one in answers):
            return answers
        code = errors[0] if errors else "_TIMED_OUT"
        if code in ("_PURGE_QUEUE", "_PURGE_INFLIGHT"):
            code = self._why_purged()
        if code in _NO_FAULT_OF_ITS:
            raise ClientError(f"the transaction cannot go on: {code}", code=code, retriable=True)
        return [code] * len(answers)

    def _why_purged(self) -> str:
        """The client has thrown the letters away, because the transaction cannot be committed; only this says why."""
        try:
            self._producer.commit_transaction(_CALL_S)
        except KafkaException as error:
            return str(error.args[0].name())
        raise ClientError("a transaction was committed that had lost its letters", code="_INCONSISTENT")

    def _trouble_with(self, topic: str) -> str | None:
        try:
            metadata = self._producer.list_topics(topic, timeout=_ASK_S).topics[topic]
        except KafkaException as error:
            raise _client_error(error) from error
        return None if metadata.error is None else metadata.error.name()

    def _insist(self, call: Callable[[], None]) -> None:
        """Make a call again while the client says that this is what it takes, and there is time."""
        until_s = self._monotonic_s() + self._timeout_s
        while True:
            try:
                call()
            except KafkaException as error:
                if not (error.args[0].retriable() and self._monotonic_s() < until_s):
                    raise _client_error(error) from error
            else:
                return


class KafkaStateLog:
    """A `StateLog` of one partition, over a consumer of which `log` is asked for each look."""

    def __init__(self, dead_letters: TopicPartition, log: Callable[[], TopicLog]) -> None:
        self._letters = dead_letters
        self._states = TopicPartition(state_topic(dead_letters.topic), dead_letters.partition)
        self._log = log

    def bounds(self) -> tuple[int, int]:
        """As of `StateLog`."""
        return self._log().bounds(self._states, _ASK_S)

    def read(self, start: int, end: int) -> Iterator[tuple[bytes | None, bytes | None]]:
        """As of `StateLog`."""
        for batch in self._log().read({self._states: (start, end)}, _ASK_S):
            for message in batch:
                yield message.key(), message.value()

    def letters(self) -> tuple[int, int]:
        """As of `StateLog`."""
        return self._log().bounds(self._letters, _ASK_S)


class AuditWriter:
    """Writes what is to be said in the audit without sending or marking anything: plans, logins, what was refused.

    Over a producer with `settings`. One thread at a time.
    """

    def __init__(
        self,
        settings: Mapping[str, Setting],
        *,
        key: bytes | None,
        clock: Clock,
        timeout_s: float = _ASK_S,
        topic: str = AUDIT_TOPIC,
        make_producer: Callable[..., Producer] = Producer,
    ) -> None:
        self._key = key
        self._topic = topic
        self._chain = _new_chain(key)
        self._make_sender = partial(
            KafkaSender, settings, clock=clock, timeout_s=timeout_s, make_producer=make_producer
        )
        self._sender = self._make_sender()

    def write(self, note: Note) -> None:
        """Write it, and wait until the brokers have it; raises ClientError if they have not, or may not have."""
        insist_on([self._topic], self._sender)
        letter = self._chain.letter(note, self._topic)
        [answer] = self._sender.send([letter])
        if isinstance(answer, Target):
            self._chain = self._chain.after(letter)
            return
        # It may be there all the same, so the next one does not follow it.
        self.close()
        self._chain, self._sender = _new_chain(self._key), self._make_sender()
        raise ClientError(f"{self._topic}: {answer or 'no answer'}", code=answer or "_TIMED_OUT")

    def close(self) -> None:
        """Let go of it. Idempotent."""
        self._sender.close()


class Shipments:
    """The shippings of dead-letter topics, each with a producer of its own while it is used, and one consumer for all.

    `wait` as of `PartitionShipping`, `meanwhile` as of `KafkaSender`; `audit_key` is what `audit.key_file` has. What it
    gives out belongs to the thread that asked, and so does the rest.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock,
        wait: Callable[[float], bool],
        audit_key: bytes | None,
        audit_topic: str = AUDIT_TOPIC,
        meanwhile: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config = config
        self._clock = clock
        self._wait = wait
        self._audit_key = audit_key
        self._audit_topic = audit_topic
        self._meanwhile = meanwhile
        self._shippings: dict[TopicPartition, PartitionShipping] = {}
        self._log: TopicLog | None = None

    def of(self, dead_letters: TopicPartition) -> Shipping:
        """That of one partition; opened when it is first used."""
        found = self._shippings.get(dead_letters)
        if found is None:
            found = self._shippings[dead_letters] = PartitionShipping(
                dead_letters,
                make_sender=partial(self._sender, dead_letters),
                log=KafkaStateLog(dead_letters, self._opened_log),
                make_chain=partial(_new_chain, self._audit_key),
                audit_topic=self._audit_topic,
                clock=self._clock,
                wait=self._wait,
                chance=random.random,
            )
        return found

    def idle(self) -> None:
        """As of `Shipping`, for all of them."""
        for shipping in self._shippings.values():
            shipping.idle()

    def close(self) -> None:
        """Let go of all. Idempotent."""
        for shipping in self._shippings.values():
            shipping.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _sender(self, dead_letters: TopicPartition, transactional: bool) -> Sender:
        kafka, timeout_s = self._config.kafka, self._config.transactions.timeout_s
        if transactional:
            settings = transactional_settings(kafka, timeout_s, f"sw-dlq-{dead_letters.topic}-{dead_letters.partition}")
        else:
            settings = sink_settings(kafka, self._config.dead_letters)
        return KafkaSender(settings, clock=self._clock, timeout_s=timeout_s, meanwhile=self._meanwhile)

    def _opened_log(self) -> TopicLog:
        """A new consumer may wait for most of a second until it knows who leads its first partition."""
        if self._log is None:
            self._log = TopicLog(topic_log_settings(self._config.kafka), self._clock)
        return self._log


def _new_chain(key: bytes | None) -> Chain:
    return Chain(secrets.token_hex(8), key)


def _client_error(error: KafkaException) -> ClientError:
    cause: KafkaError = error.args[0]
    return ClientError(cause.str(), code=cause.name(), retriable=cause.retriable())
