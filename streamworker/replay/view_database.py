"""The file in which a view lies: SQLite in a folder of its own, thrown away when it is closed.

Decided here: that one thread writes while others read what was there before, and how long a question may take. Any
thread. It holds no truth, so nothing waits for the disk.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import threading
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from streamworker.errors import StreamworkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamworker.clock import Clock

_READERS = 4  # each has a page cache of 2 MB
_WRITER_CACHE_KB = 4_000
_STEPS = 20_000  # of SQLite's machine between two looks at the clock: about a millisecond
_FILE = "letters.sqlite"


class ViewError(StreamworkerError):
    """The view gives no answer: it would take too long, or its database cannot be read or written."""


class ViewDatabase:
    """With the tables of `schema`, in a folder within `folder`. `about` is what messages call it."""

    def __init__(self, about: str, schema: str, clock: Clock, *, folder: Path | None, answer_within_s: float) -> None:
        self._about = about
        self._monotonic_s = clock.monotonic_s
        self._answer_within_s = answer_within_s
        self._folder = Path(tempfile.mkdtemp(prefix="streamworker-letters-", dir=folder))
        self._lock = threading.Lock()  # the connection that writes, and what its users count beside it
        self._seats = threading.BoundedSemaphore(_READERS)
        try:
            self._writer = self._begin(schema)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def close(self) -> None:
        """Throw it away; idempotent. Questions that are not answered yet end with ViewError."""
        with self._lock:
            self._writer.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def writing(self, taken_back: Callable[[sqlite3.Connection], None]) -> Iterator[sqlite3.Connection]:
        """All or nothing of what is written within; one at a time.

        After nothing `taken_back` is called, with the database as it was. Raises ViewError.
        """
        with self._lock:
            try:
                self._writer.execute("BEGIN")
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException as error:
                with suppress(sqlite3.Error):  # a database that is closed, or out of order, has nothing to be told of
                    self._writer.rollback()
                    taken_back(self._writer)
                if isinstance(error, sqlite3.Error):
                    raise ViewError(f"the view of {self._about} cannot be written: {error}") from error
                raise

    @contextmanager
    def reading(self, within_s: float | None = None) -> Iterator[sqlite3.Connection]:
        """The database as it is at the first question within, which all must be answered in `within_s`.

        Raises ViewError.
        """
        if within_s is None:
            within_s = self._answer_within_s
        until_s = self._monotonic_s() + within_s
        if not self._seats.acquire(timeout=min(within_s, self._answer_within_s)):
            raise ViewError(f"the view of {self._about} has {_READERS} other questions to answer; ask again")
        try:
            with closing(self._connected()) as database:
                database.set_progress_handler(lambda: self._monotonic_s() > until_s, _STEPS)
                database.execute("PRAGMA query_only = ON")
                database.execute("BEGIN")
                yield database
        except sqlite3.Error as error:
            if self._monotonic_s() > until_s:
                raise ViewError(f"{self._about}: no answer within {within_s:g} s; ask for fewer letters") from error
            raise ViewError(f"the view of {self._about} cannot be read: {error}") from error
        finally:
            self._seats.release()

    def _begin(self, schema: str) -> sqlite3.Connection:
        database = self._connected()
        for option in ("journal_mode = WAL", "synchronous = OFF", f"cache_size = -{_WRITER_CACHE_KB}"):
            database.execute(f"PRAGMA {option}")
        database.executescript(schema)
        return database

    def _connected(self) -> sqlite3.Connection:
        # One thread at a time uses it: under the lock, or who has made it.
        return sqlite3.connect(self._folder / _FILE, isolation_level=None, check_same_thread=False)
