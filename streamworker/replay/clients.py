"""The clients of a desk that its threads share: one that reads single letters and small topics, and two that write.

Decides nothing. Each is made when it is needed first, and kept; what takes long has clients of its own. Any thread; who
needs one waits for its turn.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from streamworker.librdkafka import producer_settings, topic_log_settings
from streamworker.replay.operation_log import write
from streamworker.replay.shipments import AuditWriter, KafkaSender
from streamworker.replay.topic_log import TopicLog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamworker.clock import Clock
    from streamworker.config import Config
    from streamworker.record import Letter
    from streamworker.replay.audit import Note


class Clients:
    """Of the cluster of `config`; `audit_key` signs the audit's entries, None: nothing does."""

    def __init__(self, config: Config, clock: Clock, *, audit_key: bytes | None, timeout_s: float) -> None:
        self._config = config
        self._clock = clock
        self._audit_key = audit_key
        self._timeout_s = timeout_s
        self._at_the_log = threading.Lock()  # the consumer, for as long as somebody reads with it
        self._at_the_pen = threading.Lock()  # both producers, while a record is written
        self._log: TopicLog | None = None
        self._audit: AuditWriter | None = None
        self._sender: KafkaSender | None = None

    def new_log(self, *, goes_on: bool = False) -> TopicLog:
        """A consumer of one's own; `goes_on` as of `TopicLog`."""
        return TopicLog(topic_log_settings(self._config.kafka), self._clock, goes_on=goes_on)

    @contextmanager
    def reading(self) -> Iterator[TopicLog]:
        """The consumer that all share."""
        with self._at_the_log:
            if self._log is None:
                self._log = self.new_log()
            yield self._log

    def note(self, note: Note) -> None:
        """Write it into the audit; raises ClientError unless it is there."""
        with self._at_the_pen:
            if self._audit is None:
                settings = producer_settings(self._config.kafka, self._config.dead_letters)
                self._audit = AuditWriter(settings, key=self._audit_key, clock=self._clock, timeout_s=self._timeout_s)
            self._audit.write(note)

    def send(self, letter: Letter) -> None:
        """Write a record of the topic of operations; raises ClientError unless it is there."""
        with self._at_the_pen:
            if self._sender is None:
                settings = producer_settings(self._config.kafka, self._config.dead_letters)
                self._sender = KafkaSender(settings, clock=self._clock, timeout_s=self._timeout_s)
            write(self._sender, letter)

    def close(self) -> None:
        """Let go of all. Idempotent."""
        with self._at_the_log:
            if self._log is not None:
                self._log.close()
                self._log = None
        with self._at_the_pen:
            for client in (self._audit, self._sender):
                if client is not None:
                    client.close()
            self._audit = self._sender = None
