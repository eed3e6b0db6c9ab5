"""Bugs that the harness must find, each planted by replacing one name in a running worker process.

A bug whose name is gone from the product cannot be planted, and says so.
"""

from __future__ import annotations

import os
import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from streamworker.dlq.writer import DeadLetterWriter
from streamworker.interfaces import Fetched, OffsetMark
from streamworker.offsets.tracker import OffsetTracker
from streamworker.partitions import Partitions
from streamworker.replay import shipments
from streamworker.replay.shipping import PartitionShipping
from streamworker.scheduling import scheduler
from streamworker.source.kafka import KafkaSource
from streamworker.transactions.transactor import KafkaTransactor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from confluent_kafka import KafkaError, Producer
    from confluent_kafka import TopicPartition as ClientPartition

    from streamworker.dlq.envelope import Envelope
    from streamworker.offsets.progress import Progress
    from streamworker.partition import Partition
    from streamworker.record import Letter, TopicPartition
    from streamworker.replay.shipments import KafkaSender
    from streamworker.replay.states import Target
    from streamworker.stages import HandlerStages
    from streamworker.transactions.transactor import Transaction

_MAP = re.compile(" d=[^ ]*")


def _commit_polled() -> None:
    """What was fetched counts as done."""
    _replace(OffsetTracker, "committable", property(lambda self: self.next_offset))
    right = OffsetTracker.progress
    _replace(
        OffsetTracker, "progress", lambda self: replace(right(self), offset=self.next_offset, done=(), attempts={})
    )


def _off_by_one_commit() -> None:
    """The record at the committed offset counts as done."""
    right = OffsetTracker.committable.fget
    assert right is not None
    _replace(OffsetTracker, "committable", property(lambda self: min(right(self) + 1, self.next_offset)))


def _no_key_order() -> None:
    """Records of a key go to any lane."""
    _replace(scheduler, "crc32", lambda _key: random.getrandbits(32))


def _drop_on_callback_error() -> None:
    """Client callbacks raise, which drops the records of the call, and the loop goes on."""
    fetch, note = KafkaSource.fetch, KafkaSource._on_commit

    def unguarded(_source: KafkaSource, callback: Callable[..., None]) -> Callable[..., None]:
        return callback

    def note_and_raise(source: KafkaSource, error: KafkaError | None, partitions: list[ClientPartition]) -> None:
        note(source, error, partitions)
        raise ValueError("a defect in what follows a commit")

    def go_on(source: KafkaSource, max_records: int, timeout_s: float) -> Fetched:
        try:
            return fetch(source, max_records, timeout_s)
        except ValueError:
            return Fetched([], [], [])

    _replace(KafkaSource, "_guarded", unguarded)
    _replace(KafkaSource, "_on_commit", note_and_raise)
    _replace(KafkaSource, "fetch", go_on)


def _commit_before_dlq_ack() -> None:
    """A dead letter counts as done when it is handed to the producer."""
    write = DeadLetterWriter.write

    def write_and_forget(writer: DeadLetterWriter, envelope: Envelope, on_done: Callable[[], None]) -> None:
        write(writer, envelope, lambda: None)
        on_done()

    _replace(DeadLetterWriter, "write", write_and_forget)


def _reuse_offset_after_revoke() -> None:
    """A partition that comes back goes on where this worker had got to in fetching."""
    own, end = Partitions.own, Partitions.end
    reached: dict[TopicPartition, int] = {}

    def remember(partitions: Partitions, keys: Sequence[TopicPartition]) -> None:
        for key in keys:
            partition = partitions.get(key)
            reached[key] = reached.get(key, 0) if partition is None else partition.tracker.next_offset
        end(partitions, keys)

    def reuse(
        partitions: Partitions,
        key: TopicPartition,
        *,
        handler: HandlerStages,
        start_offset: int | None,
        progress: Progress | None = None,
        topic_id: str = "",
    ) -> Partition:
        known = None if start_offset is None else max(start_offset, reached.get(key, 0))
        return own(partitions, key, handler=handler, start_offset=known, progress=progress, topic_id=topic_id)

    _replace(Partitions, "end", remember)
    _replace(Partitions, "own", reuse)


BUGS: Mapping[str, Callable[[], None]] = {
    "commit_polled": _commit_polled,
    "off_by_one_commit": _off_by_one_commit,
    "no_key_order": _no_key_order,
    "drop_on_callback_error": _drop_on_callback_error,
    "commit_before_dlq_ack": _commit_before_dlq_ack,
    "reuse_offset_after_revoke": _reuse_offset_after_revoke,
}


def _offsets_apart() -> None:
    """Outputs and offsets are committed one after the other."""
    right = KafkaTransactor._send_offsets

    def apart(transactor: KafkaTransactor, producer: Producer, transaction: Transaction, until_s: float) -> None:
        producer.commit_transaction(5)
        producer.begin_transaction()
        right(transactor, producer, transaction, until_s)

    _replace(KafkaTransactor, "_send_offsets", apart)


def _map_left_out() -> None:
    """Outputs go with a map of what is done beyond the offset, and the map is not committed."""
    right = KafkaTransactor._send_offsets

    def without_map(transactor: KafkaTransactor, producer: Producer, transaction: Transaction, until_s: float) -> None:
        marks = {key: OffsetMark(mark.offset, _MAP.sub("", mark.metadata)) for key, mark in transaction.marks.items()}
        right(transactor, producer, replace(transaction, marks=marks), until_s)

    _replace(KafkaTransactor, "_send_offsets", without_map)


# For workers that deliver by transactions; they are found by who reads what these have written.
TRANSACTION_BUGS: Mapping[str, Callable[[], None]] = {
    "offsets_apart": _offsets_apart,
    "map_left_out": _map_left_out,
}


def _marks_apart() -> None:
    """Dead letters are marked in a transaction of their own, after that of the copies."""
    right = PartitionShipping._write

    def apart(shipping: PartitionShipping, sender: KafkaSender, letters: Sequence[Letter]) -> Sequence[Target]:
        sender.commit()
        sender.begin()
        return right(shipping, sender, letters)

    _replace(PartitionShipping, "_write", apart)


def _aborted_marks_believed() -> None:
    """The states are read with what was never committed."""
    right = shipments.topic_log_settings
    _replace(shipments, "topic_log_settings", lambda kafka: {**right(kafka), "isolation.level": "read_uncommitted"})


def _nobody_fenced() -> None:
    """Each operator has a transactional id of his own."""
    right = shipments.transactional_settings
    _replace(
        shipments,
        "transactional_settings",
        lambda kafka, timeout_s, name: right(kafka, timeout_s, f"{name}-{os.getpid()}"),
    )


# For operators that send dead letters again.
SHIPPING_BUGS: Mapping[str, Callable[[], None]] = {
    "marks_apart": _marks_apart,
    "aborted_marks_believed": _aborted_marks_believed,
    "nobody_fenced": _nobody_fenced,
}


def plant(name: str) -> None:
    """Put the bug into this process."""
    {**BUGS, **TRANSACTION_BUGS, **SHIPPING_BUGS}[name]()


def _replace(owner: object, name: str, by: object) -> None:
    assert hasattr(owner, name), f"{owner} has no {name} any more: plant the bug elsewhere"
    setattr(owner, name, by)
