"""Parks keys, so that later records of a key follow its dead letter, and learns which are.

A dead letter that is acknowledged parks its key by a note (`dlq/key_notes.py`). The record is done once that note comes
back with all others': only what stands in the topic counts, so whoever owns the partition next knows the same. After an
assignment nothing is handed over until all notes are read that were there by then. Loop thread only.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.dlq.key_notes import PARTITION, Note, NoteLetter, ParkedKey, ParkedKeys, read_note
from streamworker.errors import ClientError
from streamworker.record import TopicPartition
from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker.interfaces import KeyLog, Log
    from streamworker.partition import Partition
    from streamworker.partitions import Partitions
    from streamworker.record import Message
    from streamworker.stages import Stages
    from streamworker.work import Ownership

# The end of the notes is asked for with this patience, and again after a while if nobody answers.
_ASK_TIMEOUT_S, _ASK_AGAIN_S = 0.5, 1.0
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Reading:
    """A partition that waits until the notes of `topic` are read to `end`, None until that is known."""

    partition: Partition
    topic: str
    end: int | None = None


@dataclass(frozen=True, slots=True)
class _Written:
    """A record whose note was written and has not come back."""

    partition: Partition
    offset: int
    then: Callable[[], None]


class Parking:
    """The parked keys of the group; without a `key_log` no handler of the process parks any."""

    def __init__(
        self,
        stages: Stages,
        partitions: Partitions,
        *,
        key_log: KeyLog | None,
        log: Log,
    ) -> None:
        self._key_log = key_log
        self._partitions = partitions
        self._writer = stages.writer
        self._log = log
        self._group = stages.config.kafka.group
        self._clock = stages.clock
        self._listener = stages.listener
        self._keys = ParkedKeys(self._group)
        self._reading: dict[Ownership, _Reading] = {}
        self._written: dict[ParkedKey, _Written] = {}
        self._ask_at_s = 0.0

    @property
    def waits(self) -> bool:
        """Whether a note is to come back soon."""
        return bool(self._reading or self._written)

    def begin(self, partition: Partition) -> None:
        """Hand nothing of an assigned partition over before it is known which of its keys are parked."""
        topic = self._topic_of(partition)
        if topic is not None:
            partition.parked = self._keys.of(partition.key)
            self._reading[partition.ownership] = _Reading(partition, topic)
            self._partitions.hold(partition, PauseReason.PARKED_KEYS_UNREAD)

    def park(self, partition: Partition, message: Message, then: Callable[[], None]) -> None:
        """Park the key of a record whose dead letter is acknowledged; `then` is called once it is, in a later `step`.

        Not if the ownership has ended by then.
        """
        topic, key = self._topic_of(partition), message.key()
        assert topic is not None
        assert key is not None
        note = Note(ParkedKey(self._group, partition.key, key), message.offset())
        self._written[note.parked] = _Written(partition, message.offset(), then)
        letter = NoteLetter(topic, partition.key, message.offset(), note, self._clock.wall_ms())
        self._writer.write(letter, lambda: None)

    def step(self) -> None:
        """Read what has come, and let go on what has waited for it."""
        if self._key_log is None:
            return
        for key, value in self._key_log.poll():
            note = read_note(key, value)
            if note is None:
                _log.warning("a record beside the dead letters is no note of a parked key: %r", key)
            else:
                self._take(note)
        if self._written:
            self._written = {key: one for key, one in self._written.items() if not one.partition.ownership.ended}
        if self._reading:
            self._let_go(self._key_log)

    def _take(self, note: Note) -> None:
        before = self._keys.take(note)
        if note.first is None and before is not None and self._partitions.get(note.parked.partition) is not None:
            self._listener.key_released(note.parked.partition, before)
        written = self._written.get(note.parked)
        if written is not None and written.offset == note.first and not written.partition.ownership.ended:
            del self._written[note.parked]
            written.partition.parking.discard(note.parked.key)
            self._listener.key_parked(note.parked.partition, written.offset)
            written.then()

    def _let_go(self, key_log: KeyLog) -> None:
        self._ask_ends()
        for ownership, one in list(self._reading.items()):
            if ownership.ended:
                del self._reading[ownership]
            elif one.end is not None and key_log.reached(one.topic) >= one.end:
                del self._reading[ownership]
                self._partitions.release(one.partition, PauseReason.PARKED_KEYS_UNREAD)

    def _ask_ends(self) -> None:
        """Find out up to where the notes are that an earlier owner wrote before it gave the partition up."""
        unknown = [one for one in self._reading.values() if one.end is None]
        now_s = self._clock.monotonic_s()
        if not unknown or now_s < self._ask_at_s:
            return
        asked = {one.topic: TopicPartition(one.topic, PARTITION) for one in unknown}
        try:
            ends = self._log.end_offsets(list(asked.values()), _ASK_TIMEOUT_S)
        except ClientError:
            self._ask_at_s = now_s + _ASK_AGAIN_S
            return
        for one in unknown:
            one.end = ends.get(asked[one.topic])

    def _topic_of(self, partition: Partition) -> str | None:
        letter = partition.handler.declared.dead_letter
        return None if letter is None else letter.keys_topic
