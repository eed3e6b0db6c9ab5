"""The door to Kafka's producer for dead letters.

Translates: librdkafka's errors to `ClientError`, its reports to one call each. Does not decide when a refused letter
is sent again (`writer.py`). Loop thread only; its callbacks run inside `poll` and `flush`.

The producer is an instance of its own, so that a sink's full queue or fatal error does not hold dead letters. Each
request carries one record (`batch.num.messages`): a broker refuses a whole batch for its size, and a letter must be
trimmed for its own size only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from streamworker.client_log import ClientLogger
from streamworker.errors import ClientError, ClientFatal, ConfigurationError
from streamworker.librdkafka import credentials, without_secrets

if TYPE_CHECKING:
    from confluent_kafka import Message

    from streamworker.clock import Clock
    from streamworker.record import Letter

Setting = str | int | float | bool
Done = Callable[[str | None], None]

PARTITIONS_VALID_S = 60.0  # how long a number of partitions is believed; it changes a few times in a topic's life
_STATISTICS_EACH_MS = 5_000  # of the queue, for metrics, which are looked at less often
_NO_SUCH_TOPIC = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"})
# After these the topic is asked for again: it may have changed, and the client keeps refusing an unauthorised
# topic without asking the broker until it sees new metadata.
_ABOUT_THE_TOPIC = _NO_SUCH_TOPIC | {"TOPIC_AUTHORIZATION_FAILED", "_UNKNOWN_PARTITION"}


class Queued(msgspec.Struct, frozen=True):
    """What the producer has and no broker has acknowledged, as its statistics name it: records, and their bytes."""

    msg_cnt: int = 0
    msg_size: int = 0


class KafkaOutbox:
    """An `Outbox` over a producer with `settings`, librdkafka's options (acks=all and idempotence among them).

    After a fatal error the producer is made anew, and what it had not acknowledged is reported as `_FATAL`,
    so that it is sent again: a repeat is possible, a loss is not.
    """

    def __init__(
        self,
        settings: Mapping[str, Setting],
        clock: Clock,
        make_producer: Callable[..., Producer] = Producer,
    ) -> None:
        self._settings = {**settings, "batch.num.messages": 1, "statistics.interval.ms": _STATISTICS_EACH_MS}
        self.queued = Queued()
        self._decode_statistics = msgspec.json.Decoder(Queued).decode
        self._clock = clock
        self._make_producer = make_producer
        self._producer = self._new_producer()
        self._fatal = False
        self._unanswered: dict[int, Done] = {}
        self._sent = 0
        self._raised: BaseException | None = None
        self._counts: dict[str, tuple[int, float]] = {}  # partitions of a topic, and when to ask again

    def send(self, letter: Letter, done: Done) -> None:
        """As `Outbox.send`; ClientFatal until the next `poll` if the producer is to be made anew."""
        number = self._sent = self._sent + 1
        self._unanswered[number] = done
        try:
            self._produce(letter, number)
        except BufferError:
            del self._unanswered[number]
            raise
        except KafkaException as error:
            del self._unanswered[number]
            raise self._translated(error, letter.topic) from error

    def poll(self) -> None:
        """As `Outbox.poll`; raises what a `done` raised, after all reports were served."""
        self._serve(0)
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def partitions(self, topic: str, timeout_s: float) -> int | None:
        """As `Outbox.partitions`; answers are kept for `PARTITIONS_VALID_S`.

        Where the cluster does not answer, the last answer stands in. Asking does not make a topic.
        """
        known = self._counts.get(topic)
        if known and self._clock.monotonic_s() < known[1]:
            return known[0]
        try:
            count = self._ask_partitions(topic, timeout_s)
        except ClientError:
            if known is None:
                raise
            count = known[0]
        if count is None:
            self._counts.pop(topic, None)
        else:
            self._counts[topic] = (count, self._clock.monotonic_s() + PARTITIONS_VALID_S)
        return count

    def flush(self, timeout_s: float) -> int:
        """As `Outbox.flush`; serves reports, and leaves what a `done` raised for the next `poll`."""
        # Not the client's own flush: that goes on calling Python after a fatal error has set an exception.
        deadline_s = self._clock.monotonic_s() + timeout_s
        while self._unanswered and (left_s := deadline_s - self._clock.monotonic_s()) > 0:
            self._serve(left_s)
        return len(self._unanswered)

    def take_credentials(self, username: str, password: str) -> None:
        """Show these to brokers from the next connection on."""
        self._settings |= credentials(username, password)
        self._producer.set_sasl_credentials(username, password)

    def _serve(self, timeout_s: float) -> None:
        try:
            self._producer.poll(timeout_s)
        except KafkaException as error:
            self._note(error)
        if self._fatal:
            self._renew()

    def _new_producer(self) -> Producer:
        try:
            return self._make_producer({**self._settings, "stats_cb": self._note_queue}, logger=ClientLogger())
        except KafkaException as error:
            reason = without_secrets(error.args[0].str(), self._settings)
            raise ConfigurationError(f"kafka.librdkafka: the producer refuses its settings: {reason}") from error

    def _note_queue(self, text: str) -> None:
        with contextlib.suppress(msgspec.DecodeError):  # raised inside `poll` it would cut the reports short
            self.queued = self._decode_statistics(text)

    def _produce(self, letter: Letter, number: int) -> None:
        self._producer.produce(
            letter.topic,
            value=letter.value,
            key=letter.key,
            partition=-1 if letter.partition is None else letter.partition,
            on_delivery=partial(self._report, number, letter.topic),
            timestamp=letter.timestamp_ms,
            headers=list(letter.headers),
        )

    def _report(self, number: int, topic: str, error: KafkaError | None, _message: Message) -> None:
        code = None if error is None else error.name()
        if code in _ABOUT_THE_TOPIC:
            self._ask_again(topic)
        self._answer(number, code)

    def _answer(self, number: int, code: str | None) -> None:
        """Hand on one report, at most once per letter; never raises, because an error here would cut `poll` short."""
        done = self._unanswered.pop(number, None)
        if done is None:
            return
        try:
            done(code)
        except BaseException as error:  # noqa: BLE001 - kept for the caller of poll, whatever it is
            self._raised = self._raised or error

    def _renew(self) -> None:
        """Make the producer anew; what the old one still has to report is served first."""
        old, self._producer, self._fatal = self._producer, self._new_producer(), False
        old.purge()
        with contextlib.suppress(KafkaException):  # the fatal error once more
            old.poll(0)
        for number in list(self._unanswered):
            self._answer(number, "_FATAL")

    def _note(self, error: KafkaException) -> None:
        if _cause(error).fatal():
            self._fatal = True
        else:
            self._raised = self._raised or ClientError(str(error), code=_cause(error).name())

    def _translated(self, error: KafkaException, topic: str) -> ClientError:
        cause = _cause(error)
        if cause.name() in _ABOUT_THE_TOPIC:
            self._ask_again(topic)
        if cause.fatal() or cause.name() == "_FATAL":
            self._fatal = True
            return ClientFatal(f"dead-letter topic {topic!r}: {cause.str()}", code=cause.name())
        return ClientError(
            f"dead-letter topic {topic!r}: {cause.str()}", code=cause.name(), retriable=cause.retriable()
        )

    def _ask_again(self, topic: str) -> None:
        if topic in self._counts:
            self._counts[topic] = (self._counts[topic][0], self._clock.monotonic_s())

    def _ask_partitions(self, topic: str, timeout_s: float) -> int | None:
        try:
            metadata = self._producer.list_topics(topic, timeout=timeout_s).topics[topic]
        except KafkaException as error:
            raise self._translated(error, topic) from error
        if metadata.error is None:
            return len(metadata.partitions)
        if metadata.error.name() in _NO_SUCH_TOPIC:
            return None
        raise ClientError(f"dead-letter topic {topic!r}: {metadata.error.str()}", code=metadata.error.name())


def _cause(error: KafkaException) -> KafkaError:
    cause = error.args[0]
    assert isinstance(cause, KafkaError), cause
    return cause
