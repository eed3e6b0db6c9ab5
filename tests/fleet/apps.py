"""Handlers that real worker processes run in tests; each call leaves a line in the ledger."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import threading
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.crash_points import reached
from fleet.history import Effect, Journal

from streamworker import Breaker, DeadLetter, Handler, PoisonError, Read, Retry, RetryableError

if TYPE_CHECKING:
    from streamworker import Context, Record


_LIMIT_BYTES = 512 * 1024 * 1024


class Ledger(Handler[bytes]):
    """Writes one line per call to the file `app.ledger`: one `write`, which survives SIGKILL."""

    topics = (os.environ["LEDGER_TOPIC"],)
    concurrency = 8
    ordering = "key"
    retry = Retry(attempts=3, base_s=0.02, cap_s=0.1)

    def open(self, context: Context) -> None:
        self._journal = Journal(Path(str(context.app["ledger"])))
        self._work_s = float(str(context.app.get("work_s", 0)))
        self._idle = threading.Event()

    def handle(self, record: Record[bytes]) -> None:
        began_s = time.monotonic()
        reached("before_handler")
        value = record.value.decode()
        if value.startswith("slow"):
            self._idle.wait(float(value[4:]))
        elif self._work_s:
            self._idle.wait(self._work_s)
        if value.startswith("poison"):
            raise PoisonError(value)
        if value.startswith("later"):
            raise RetryableError(value, retry_after_s=float(value[5:]))
        if value.startswith("failing") or (value.startswith("flaky") and record.attempt < 3):
            raise ConnectionError(value)
        reached("mid_handler")
        uid = record.headers.last("uid")
        self._journal.write(
            Effect(
                pid=os.getpid(),
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                key=None if record.raw_key is None else record.raw_key.decode(),
                uid=None if uid is None else uid.decode(),
                digest=sha256(record.value).hexdigest()[:16],
                attempt=record.attempt,
                began_s=began_s,
                ended_s=time.monotonic(),
            )
        )
        reached("after_effect_before_mark")

    def close(self) -> None:
        self._journal.close()


class LedgerWithDeadLetters(Ledger):
    dead_letter = DeadLetter(os.environ["LEDGER_TOPIC"] + ".dlq")


class LedgerWithKillers(LedgerWithDeadLetters):
    """Ends its process at the record `app.killer` (partition@offset), in the way of `app.kill`."""

    def open(self, context: Context) -> None:
        super().open(context)
        self._killer = str(context.app["killer"])
        self._kill = {
            "exit": lambda: os._exit(1),
            "segfault": lambda: ctypes.string_at(0),
            "allocate": self._allocate,
        }[str(context.app["kill"])]

    def handle(self, record: Record[bytes]) -> None:
        if f"{record.partition}@{record.offset}" == self._killer:
            self._kill()
        super().handle(record)

    @staticmethod
    def _allocate() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (_LIMIT_BYTES, _LIMIT_BYTES))
        bytearray(2 * _LIMIT_BYTES)


class LedgerWithDependency(LedgerWithDeadLetters):
    """Connects to the port `app.dependency` for each record; the file `refused` has a line for each time it cannot."""

    breaker = Breaker("dependency", open_s=0.5, max_open_s=2.0)

    def open(self, context: Context) -> None:
        super().open(context)
        self._port = int(str(context.app["dependency"]))
        self._refused = Path(str(context.app["ledger"])).with_name("refused")

    def handle(self, record: Record[bytes]) -> None:
        self._connect()
        super().handle(record)

    def _connect(self) -> None:
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            with self._refused.open("a") as lines:
                lines.write(f"{os.getpid()}\n")
            raise


class LedgerWithSingleCalls(LedgerWithDependency):
    """The same with the breaker around the connection only."""

    breaker = None
    dependencies = (Breaker("dependency", open_s=0.5, max_open_s=2.0),)

    def open(self, context: Context) -> None:
        super().open(context)
        self._guard = context.dependency("dependency")

    def handle(self, record: Record[bytes]) -> None:
        with self._guard:
            self._connect()
        Ledger.handle(self, record)


class LedgerWithRead(Ledger):
    """Asks somebody who never answers where each record belongs."""

    dependencies = (Breaker("places", open_s=60.0),)
    reads = (Read("place", ("fail_fast", "skip"), dependency="places"),)

    def open(self, context: Context) -> None:
        super().open(context)
        self._place = context.read("place", self._find)

    @staticmethod
    def _find(key: bytes | None) -> str:
        raise ConnectionError(f"nobody knows the place of {key!r}")

    def handle(self, record: Record[bytes]) -> None:
        self._place(record.raw_key)
        super().handle(record)


class LedgerThatHogs(Ledger):
    """Lets no other thread run for as long as the file `hog` says, once: whoever takes the file away."""

    def open(self, context: Context) -> None:
        super().open(context)
        self._hog = Path(str(context.app["ledger"])).with_name("hog")

    def handle(self, record: Record[bytes]) -> None:
        with suppress(FileNotFoundError):
            taken = self._hog.rename(self._hog.with_name(f"hogged-{os.getpid()}"))
            ctypes.PyDLL(None).sleep(int(taken.read_text()))  # unlike a CDLL it keeps the interpreter's lock
        super().handle(record)


class HeaderReader(LedgerWithDeadLetters):
    """Looks at the headers of every record, and again."""

    ordering = "partition"

    def handle(self, record: Record[bytes]) -> None:
        for _ in range(2):
            dict(record.headers)
        super().handle(record)


class LedgerInOrder(Ledger):
    """One record at a time per partition: what is done has no gaps, so that a stop in order repeats nothing."""

    ordering = "partition"
