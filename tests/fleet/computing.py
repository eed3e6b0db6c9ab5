"""Handlers for child processes, which import them by name, and what tests say to them: each record's value is an order.

What they did stands in the file that the [app] table names as `ledger`, a line per call: process, offset, a word.
"""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from streamworker import BatchHandler, Breaker, DeadLetter, DecodeError, Handler, KafkaSink, Ordering, Retry
from streamworker.errors import FatalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker import Context, Record, Records


class Refused(Exception):
    """An error whose `__init__` wants other arguments than it keeps, which pickle alone cannot bring back."""

    def __init__(self, order: str, *, code: int) -> None:
        super().__init__(f"{order} was refused")
        self.code = code


class Strict:
    """A serde that takes all but `undecodable`."""

    def decode(self, data: bytes, topic: str) -> str:
        if data == b"undecodable":
            raise DecodeError(f"not of {topic}")
        return data.decode()

    def encode(self, value: str, topic: str) -> bytes:
        return value.encode()


def obey(order: str) -> None:
    """`exit N`, `signal N`, `refuse`, `fatal`, `say WORD`, `wait FIFO` or `due FIFO` for its writer; all else is fine.

    Who obeyed `due` notes its deadline then.
    """
    word, _, rest = order.partition(" ")
    match word:
        case "exit":
            os._exit(int(rest))
        case "signal":
            os.kill(os.getpid(), int(rest))
        case "refuse":
            raise Refused(order, code=7) from LookupError("the reason")
        case "say":
            logging.getLogger("app").warning(rest)
        case "wait" | "due":
            Path(rest).read_bytes()
        case "fatal":
            raise FatalError("no sense in going on")


class Obeys(Handler[str]):
    """Obeys in a child process, one record at a time."""

    topics: ClassVar[Sequence[str]] = ("in",)
    value = Strict()
    ordering = Ordering.KEY
    execution = "process"
    concurrency = 1
    lanes = 4
    retry = Retry(attempts=3, base_s=0.01, cap_s=0.01)
    breaker = Breaker("own")
    dead_letter = DeadLetter("dlq")

    def open(self, context: Context) -> None:
        self.context = context
        self.note(None, f"opens {context.group} {context.handler} {context.dependency('own').name}")

    def handle(self, record: Record[str]) -> None:
        self.note(record.offset, f"begins {record.attempt}")
        obey(record.value)
        self.note(record.offset, f"ends {self.context.deadline_s():g}" if "due" in record.value else "ends")

    def close(self) -> None:
        self.note(None, "closes")

    def note(self, offset: int | None, word: str) -> None:
        with Path(str(self.context.app["ledger"])).open("a", encoding="utf-8") as ledger:
            ledger.write(f"{os.getpid()} {-1 if offset is None else offset} {word}\n")


class ObeysTwice(Obeys):
    """The same in two processes."""

    concurrency = 2


class ObeysInBatches(BatchHandler[str]):
    """Obeys a batch, and does not say which of its records it failed at."""

    topics: ClassVar[Sequence[str]] = ("in",)
    value = Strict()
    execution = "process"
    concurrency = 1
    dead_letter = DeadLetter("dlq")

    def handle(self, records: Records[str]) -> None:
        for order in records.values():
            obey(order)


class CannotOpen(Obeys):
    """It is not ready."""

    def open(self, context: Context) -> None:
        raise ConnectionRefusedError("no database")


class OpensAtTheThirdTry(Obeys):
    """The first process opens, and of those in its place the second."""

    def open(self, context: Context) -> None:
        super().open(context)
        if Path(str(context.app["ledger"])).read_text("utf-8").count("opens") == 2:
            os._exit(1)


class DiesOpening(Obeys):
    """It is less than ready."""

    def open(self, context: Context) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class CopiesInAChild(Handler[bytes]):
    """What it reads goes to `out`."""

    topics = ("in",)
    ordering = Ordering.KEY
    execution = "process"
    concurrency = 2
    sink = KafkaSink("out")
    dead_letter = DeadLetter("dlq")

    def handle(self, record: Record[bytes]) -> bytes:
        return record.value
