"""The door to Kafka's producer for sinks: what is handed over is acknowledged within a time, or it is said why not.

Decided here: when a producer is made anew, and whose fault a refused batch is. Not decided: what follows for a record
(`kafka.py`). Any thread hands over and waits; a thread of its own serves the client's reports, because no writer may be
held up by another one's, and none polls while it calls a handler.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, Producer

from streamworker.client_log import ClientLogger
from streamworker.clock import SystemClock
from streamworker.errors import ConfigurationError
from streamworker.librdkafka import credentials, without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from confluent_kafka import Message

    from streamworker.clock import Clock
    from streamworker.interfaces import ClientOption
    from streamworker.record import Letter

_POLL_S = 0.2  # each poll ends with the first report; this is how late the thread sees that it is to end
_ROOM_S = 0.1  # that a full queue is waited for before it is tried again
_END_S = 5.0  # that the last reports of a producer may take, which is asked for them no longer then
_GRACE_S = 2.0  # beyond the delivery timeout, for the client to say that it is over: it looks once a second
_METADATA_S = 1.0
# Of these a broker refuses a whole batch, whichever record of it is at fault.
_OF_A_RECORD = frozenset({"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_RECORD", "_INVALID_DIFFERENT_RECORD"})
# After these the client refuses the topic by itself until it sees new metadata.
_ABOUT_THE_TOPIC = frozenset(
    {"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "TOPIC_AUTHORIZATION_FAILED"}
)
_UNANSWERED = "_TIMED_OUT"
_PURGED = "_PURGE_QUEUE"
_FATAL = "_FATAL"


@dataclass(frozen=True, slots=True)
class Undelivered:
    """The first letter of a write that was not acknowledged; those before it were.

    `code` is librdkafka's name of the error. `of_the_letter` says that nothing else can be to blame.
    """

    index: int
    code: str
    detail: str
    of_the_letter: bool = False


class Deliveries:
    """Delivers letters to one cluster over producers with `settings`, which all writers of a process share.

    They are made with the first write, and anew after a fatal error: what they had not acknowledged is undelivered
    then. `settings` are librdkafka's options, acks=all and idempotence among them.
    """

    def __init__(
        self,
        settings: Mapping[str, ClientOption],
        clock: Clock | None = None,
        make_producer: Callable[..., Producer] = Producer,
    ) -> None:
        self.settings = settings
        self._clock = clock or SystemClock()
        self._make_producer = make_producer
        self._lock = threading.Lock()  # protects the count and the lines from writers that begin or end at once
        self._writers = 0
        self._lines: dict[bool, _Line] = {}  # by whether each request carries one letter only
        self.patience_s = float(settings["delivery.timeout.ms"]) / 1000 + _GRACE_S

    def join(self) -> None:
        """One more writer."""
        with self._lock:
            self._writers += 1

    def leave(self) -> None:
        """One writer less; the last one ends the producers. What is still in their queues is thrown away."""
        with self._lock:
            self._writers -= 1
            lines = [] if self._writers else list(self._lines.values())
            if lines:
                self._lines = {}
        for line in lines:
            line.end()
        for line in lines:
            line.ended(_END_S + _POLL_S)

    def deliver(self, letters: Sequence[Letter], timeout_s: float) -> Undelivered | None:
        """Wait until all in-sync replicas have `letters`; else which was the first that they may not have.

        A batch that is refused for one of its records goes once more, letter by letter, to find out which. Later ones
        of the same partition go again too, even if they were acknowledged: else it would come after them. Raises
        ConfigurationError for settings that the client refuses.
        """
        deadline_s = self._clock.monotonic_s() + timeout_s
        failed = self._handed_over(letters, 0, deadline_s)
        if failed is None or failed.of_the_letter or failed.code not in _OF_A_RECORD:
            return failed
        for index in range(failed.index, len(letters)):
            failed = self._handed_over(letters[: index + 1], index, deadline_s, alone=True)
            if failed is not None:
                return replace(failed, of_the_letter=failed.code in _OF_A_RECORD)
        return None

    def _handed_over(
        self, letters: Sequence[Letter], start: int, deadline_s: float, *, alone: bool = False
    ) -> Undelivered | None:
        """Those from `start` on, and again what another writer has thrown out of the queue."""
        while True:
            failed = self._tried(letters, start, deadline_s, alone)
            if failed is None or failed.code != _PURGED or self._clock.monotonic_s() >= deadline_s:
                return failed
            start = failed.index

    def _tried(self, letters: Sequence[Letter], start: int, deadline_s: float, alone: bool) -> Undelivered | None:
        line = self._line(alone)
        write = _Write(len(letters), start)
        refused = self._hand_over(line, write, letters, deadline_s)
        if not write.wait(max(deadline_s - self._clock.monotonic_s(), 0.0)):
            line.purge_queue()
        failed = write.first_failed(refused)
        if failed is not None and failed.code in _ABOUT_THE_TOPIC:
            line.look_again(letters[failed.index].topic)
        return failed

    def _hand_over(
        self, line: _Line, write: _Write, letters: Sequence[Letter], deadline_s: float
    ) -> Undelivered | None:
        """Give all to the client; returns which it refused at once, and those after that are not given to it."""
        refused = None
        index = write.start
        while index < len(letters) and refused is None:
            try:
                line.produce(letters[index], partial(write.report, index))
                index += 1
            except BufferError:
                left_s = deadline_s - self._clock.monotonic_s()
                if left_s > 0:
                    line.wait_for_room(min(left_s, _ROOM_S))
                else:
                    refused = Undelivered(index, "_QUEUE_FULL", "no room in the producer's queue")
            except KafkaException as error:
                cause = error.args[0]
                refused = Undelivered(index, cause.name(), cause.str(), cause.name() in _OF_A_RECORD)
        write.expect(index)
        return refused

    def _line(self, alone: bool) -> _Line:
        """The present line, made now if there is none or if the last one is broken."""
        with self._lock:
            line = self._lines.get(alone)
            if line is None or line.broken:
                settings = {**self.settings, "batch.num.messages": 1, "linger.ms": 0} if alone else self.settings
                line = self._lines[alone] = _Line(settings, self._clock, self._make_producer)
            return line

    def take_credentials(self, username: str, password: str) -> None:
        """Show these to brokers from the next connection on. Any thread."""
        with self._lock:
            self.settings = {**self.settings, **credentials(username, password)}
            for line in self._lines.values():
                line.take_credentials(username, password)


class _Write:
    """What became of the letters from `start` on. The thread that serves reports notes it, the writer waits for all."""

    def __init__(self, count: int, start: int) -> None:
        self.start = start
        self._answers: list[KafkaError | str | None] = [_UNANSWERED] * count
        self._reported = start
        self._expected: int | None = None
        self._answered = threading.Event()

    def report(self, index: int, error: KafkaError | None, _message: Message) -> None:
        """Note what the client says of one letter; must not raise, because the client would drop other reports."""
        self._answers[index] = error
        self._reported += 1
        if self._reported == self._expected:
            self._answered.set()

    def expect(self, count: int) -> None:
        """Up to letter `count` there is to be a report. Either this or `report` sees the last, whichever is second."""
        self._expected = count
        if self._reported == count:
            self._answered.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the reports; whether they have all come."""
        return self._answered.wait(timeout_s)

    def first_failed(self, refused: Undelivered | None) -> Undelivered | None:
        """The first letter that was not acknowledged; `refused` is the one that the client did not even take."""
        end = len(self._answers) if refused is None else refused.index
        for index in range(self.start, end):
            answer = self._answers[index]
            if isinstance(answer, str):
                return Undelivered(index, answer, "no answer within the time that the write had")
            if answer is not None:
                return Undelivered(index, answer.name(), answer.str())
        return refused


class _Line:
    """A producer, and the thread that serves its reports until it is to end or is `broken` by a fatal error."""

    def __init__(
        self, settings: Mapping[str, ClientOption], clock: Clock, make_producer: Callable[..., Producer]
    ) -> None:
        self.broken = False
        self._ending = False
        self._clock = clock
        self._room = threading.Event()
        try:
            self._producer = make_producer({**settings, "error_cb": self._note}, logger=ClientLogger())
        except KafkaException as error:
            reason = without_secrets(error.args[0].str(), settings)
            raise ConfigurationError(f"KafkaSink: the producer refuses its settings: {reason}") from error
        self._thread = threading.Thread(target=self._serve, name="streamworker-deliveries", daemon=True)
        self._thread.start()

    def produce(self, letter: Letter, report: Callable[[KafkaError | None, Message], None]) -> None:
        """Hand over; raises BufferError when there is no room, KafkaException when the letter is refused at once."""
        try:
            self._producer.produce(
                letter.topic,
                value=letter.value,
                key=letter.key,
                partition=-1 if letter.partition is None else letter.partition,
                on_delivery=report,
                timestamp=letter.timestamp_ms,
                headers=list(letter.headers),
            )
        except KafkaException as error:
            self._note(error.args[0])
            raise

    def take_credentials(self, username: str, password: str) -> None:
        """Show these to brokers from the next connection on."""
        self._producer.set_sasl_credentials(username, password)

    def wait_for_room(self, timeout_s: float) -> None:
        """Wait until reports were served, which make room."""
        self._room.clear()
        self._room.wait(timeout_s)

    def purge_queue(self) -> None:
        """Throw away what is not under way yet: it would be written when others may own its partition.

        What is under way stays, so the order within the producer does, too.
        """
        self._producer.purge(in_flight=False, blocking=False)

    def look_again(self, topic: str) -> None:
        """Ask the cluster about `topic`, because the client believes what it was told before."""
        with suppress(KafkaException):
            self._producer.list_topics(topic, timeout=_METADATA_S)

    def end(self) -> None:
        """Throw away what is in the queue, and let the thread end."""
        self._ending = True

    def ended(self, timeout_s: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout_s)

    def _serve(self) -> None:
        while not (self.broken or self._ending):
            self._poll()
        self._producer.purge()
        until_s = self._clock.monotonic_s() + _END_S
        while len(self._producer) and self._clock.monotonic_s() < until_s:
            self._poll()

    def _poll(self) -> None:
        with suppress(KafkaException):  # of a fatal error, which `_note` has seen
            if self._producer.poll(_POLL_S):
                self._room.set()

    def _note(self, error: KafkaError) -> None:
        if error.fatal() or error.name() == _FATAL:
            self.broken = True
