"""Notes in the ledger what a worker process does: ownerships, offsets sent, dead letters acknowledged.

Wraps the doors to the client, so that what is noted is what left the process and not what it says of itself.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from fleet.history import Commit, Letter, Owned

from streamworker.dlq.outbox import KafkaOutbox
from streamworker.events import Listener
from streamworker.source.kafka import KafkaSource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fleet.history import Journal

    from streamworker.interfaces import OffsetMark
    from streamworker.record import Letter as SentLetter
    from streamworker.record import TopicPartition


class Witness(Listener):
    """Listens for ownerships; `install` puts it at the doors as well."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._pid = os.getpid()

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self._note("assigned", partitions)

    def revoked(self, partitions: Sequence[TopicPartition], seconds: float) -> None:
        self._note("revoked", partitions)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._note("lost", partitions)

    def install(self) -> None:
        """Wrap what commits and what sends dead letters, for the whole process."""
        for name in ("commit", "commit_now"):
            setattr(KafkaSource, name, self._noting_commits(getattr(KafkaSource, name)))
        send = KafkaOutbox.send

        def noting_send(outbox: KafkaOutbox, letter: SentLetter, done: Callable[[str | None], None]) -> None:
            send(outbox, letter, lambda error: self._letter_answered(letter, done, error))

        KafkaOutbox.send = noting_send  # type: ignore[method-assign]

    def _noting_commits(self, commit: Callable[..., object]) -> Callable[..., object]:
        def noting_commit(source: KafkaSource, marks: Mapping[TopicPartition, OffsetMark]) -> object:
            now_s = time.monotonic()
            for key, mark in marks.items():
                self._journal.write(Commit(self._pid, *key, mark.offset, now_s))
            return commit(source, marks)

        return noting_commit

    def _letter_answered(self, letter: SentLetter, done: Callable[[str | None], None], error: str | None) -> None:
        if error is None:
            topic, partition, offset = source_of(dict(letter.headers)["sw-id"])
            self._journal.write(Letter(self._pid, topic, partition, offset, time.monotonic()))
        done(error)

    def _note(self, what: str, partitions: Sequence[TopicPartition]) -> None:
        for one in partitions:
            self._journal.write(Owned(self._pid, what, *one, time.monotonic()))


def source_of(letter_id: bytes | None) -> tuple[str, int, int]:
    """Topic, partition and offset of the record that a dead letter is a copy of, by its `sw-id`."""
    assert letter_id is not None
    topic, partition, offset = letter_id.decode().rsplit("/", 3)[1:]
    return topic, int(partition), int(offset)
