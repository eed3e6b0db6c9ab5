"""A millisecond of work in Python, in the worker's child processes and by hand in the loop that polls."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from streamworker import Handler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confluent_kafka import Message

    from streamworker import Record

_ROUNDS = 12_000  # about a millisecond on the machine of the published results


def compute(value: bytes) -> int:
    """A checksum of the value, over and over."""
    total = 0
    for number in range(_ROUNDS):
        total = (total * 31 + value[number % len(value)]) % 65_521
    return total


def compute_by_hand(messages: list[Message]) -> None:
    """The same for each record of a fetch."""
    for message in messages:
        compute(message.value() or b"?")


class Computes(Handler[bytes]):
    """Computes in a process per core; in a module of its own, because child processes import it by name."""

    topics: ClassVar[Sequence[str]] = ("set-by-main",)
    execution = "process"
    concurrency = 2

    def handle(self, record: Record[bytes]) -> None:
        compute(record.value)
