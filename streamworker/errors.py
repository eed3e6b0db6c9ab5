"""What can go wrong, and what each type says to do.

    StreamworkerError
    ├── ConfigurationError      the application cannot start like this            exit code 2
    ├── HandlerSignal           raised by handlers to say how a record ends
    │   ├── RetryableError      hand it to me again after the back-off
    │   │   └── LockBusy        somebody else has the lock
    │   ├── PoisonError         never again: to the dead letters
    │   │   └── TransitionRefused   what the record is about may not go from its state to that one
    │   ├── Defer               to the next retry topic, no attempt is spent
    │   ├── FatalError          stop the worker: drain, commit what is done       exit code 1
    │   └── BatchFailed         record `index` of this batch failed with `cause`
    ├── DecodeError             bytes that are not what the serde expects: poison
    ├── CallCancelled           the call of an async handler was cancelled: tried again
    ├── CallKilled              the child process of a call died with it: tried again
    ├── HandlerTimeout          a call ran for longer than the handler's `timeout_s`: tried again
    ├── KeyParked               an earlier record of its key is a dead letter, and it follows
    ├── HeadOfLine              a record held the commits of its partition back for too long: to the dead letters
    ├── DependencyUnavailable   what decoding needs is away (a registry): wait, spend no attempt
    ├── WorkerKilled            the process died each time that this record was in work: to the dead letters
    ├── RowFailed               row `index` of a write failed with `cause`, which the rules judge
    ├── OwnershipLost           another owner of the partition writes to the sink: wait, spend no attempt
    ├── ForeignRewind           records come again from before what the sink has applied: the partition stops
    ├── CircuitOpen             a guarded call is not made now: wait, spend no attempt
    ├── BulkheadFull            a guarded call is not made now, there are enough: wait, spend no attempt
    ├── ClaimBusy               somebody else has claimed the record: it waits for the end of the lease
    ├── ClaimsUnavailable       who keeps claims cannot be asked: handled without, or it waits
    ├── LockUnavailable         who keeps a lock cannot be asked: tried again
    ├── LockLost                the lock was somebody else's before its holder was through: tried again
    ├── ClientError             the Kafka client gave up on something, translated at its door
    │   └── ClientFatal         the client instance is unusable                   exit code 1
    ├── Misuse                  a call from the wrong thread, process or state
    └── Defect                  streamworker itself failed where no handler was to blame   exit code 1

Standard library only.
"""

from __future__ import annotations

import difflib
import traceback
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class StreamworkerError(Exception):
    """Base of everything that streamworker raises on purpose."""


class ConfigurationError(StreamworkerError):
    """The application cannot start like this; the message says what was found and what would do."""


class HandlerSignal(StreamworkerError):
    """Base of what a handler raises to say how a record ends."""


class RetryableError(HandlerSignal):
    """The record is good and the moment is not: hand it over again after the back-off.

    `retry_after_s` overrides the back-off once, for servers that say how long to wait.
    """

    def __init__(self, *args: object, retry_after_s: float | None = None) -> None:
        super().__init__(*args)
        self.retry_after_s = retry_after_s


class LockBusy(RetryableError):
    """Somebody else has the lock, and had it for as long as was waited; raised by `Lock.held`."""


class PoisonError(HandlerSignal):
    """The record itself is at fault: it goes to the dead letters without another try."""


class TransitionRefused(PoisonError):
    """What the record is about is in state `old`, and `new` may not follow; raised by `Transitions.check`.

    `old` is None for what does not exist yet.
    """

    def __init__(self, message: str, *, old: str | None, new: str) -> None:
        super().__init__(message)
        self.old = old
        self.new = new


class Defer(HandlerSignal):
    """Not now and not soon: the record goes to the next retry topic, or round the last one, and no attempt is spent.

    To a handler without retry topics it is as a `RetryableError`.
    """


class FatalError(HandlerSignal):
    """The application is at fault: drain, commit what is done, exit with code 1."""


class BatchFailed(HandlerSignal):
    """The record at `index` of the batch failed with `cause`; what came before it is done.

    The rules judge `cause`. Raised by `BatchHandler.handle`.
    """

    def __init__(self, index: int, cause: BaseException) -> None:
        super().__init__(f"record {index} of the batch failed: {cause!r}")
        self.index = index
        self.cause = cause


class DecodeError(StreamworkerError):
    """Bytes that the serde cannot read. `part` says whether they were the key or the value."""

    def __init__(self, message: str, *, part: str = "value") -> None:
        super().__init__(message)
        self.part = part


class HandlerTimeout(StreamworkerError, TimeoutError):
    """A call ran for longer than its handler's `timeout_s`; never raised, and breakers count it as any timeout."""


class CallCancelled(StreamworkerError):
    """The call of an `async def` handler was cancelled; it has failed, and the record is tried again."""


class CallKilled(StreamworkerError):
    """The child process that a call was in has died: a crash in native code, out of memory, `os._exit`; never raised.

    The record is tried again. When its attempts are used up it goes to the dead letters with the reason
    `killed_worker`. `exit_code` is that of the process; -n says that signal n has ended it.
    """

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class HeadOfLine(StreamworkerError):
    """A record held the commits of its partition back for too long, see `lifecycle.max_head_age_s`; never raised."""


class KeyParked(StreamworkerError):
    """The record at offset `first` of the same key is a dead letter, and this one follows it; never raised."""

    def __init__(self, first: int) -> None:
        super().__init__(f"the record at offset {first} of the same key is a dead letter")
        self.first = first


class Defect(StreamworkerError):
    """streamworker itself failed with `error`, outside of the handler's call; never raised.

    It stops the worker whatever the handler's rules say, and what was in work is handled again. Its notes have the
    traceback: a reference to the error would keep the records in hand alive.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"a defect of streamworker, please report it: {error!r}")
        self.add_note("".join(traceback.format_exception(error)))


class DependencyUnavailable(StreamworkerError):
    """Something that decoding needs cannot be reached; the record waits and no attempt is spent."""


class WorkerKilled(StreamworkerError):
    """The process died `deaths` times with this record in work, at last with no other beside it."""

    def __init__(self, deaths: int) -> None:
        super().__init__(f"the process died {deaths} times while this record was in work")
        self.deaths = deaths


class RowFailed(StreamworkerError):
    """The row at `index` of a write failed with `cause`; those before it are durable, and `written` tells of them.

    The row and what follows it had no effect.
    """

    def __init__(self, index: int, cause: BaseException, written: object = None) -> None:
        super().__init__(f"row {index} of the write failed: {cause!r}")
        self.index = index
        self.cause = cause
        self.written = written


class OwnershipLost(StreamworkerError):
    """Another owner of the partition has taken over at the sink; the write had no effect."""


class ForeignRewind(StreamworkerError):
    """Records come again from far before what the sink has applied, as after a reset of the group's offsets."""


class CircuitOpen(StreamworkerError):
    """The call is not made, because the dependency `name` is away; in `retry_in_s` seconds it may be.

    Raised by `Context.dependency`. A record whose handler lets it through waits, and no attempt is spent.
    """

    def __init__(self, name: str, retry_in_s: float) -> None:
        super().__init__(f"{name} is away; it is tried again in {retry_in_s:.1f} s")
        self.name = name
        self.retry_in_s = retry_in_s


class BulkheadFull(StreamworkerError):
    """The call is not made, because as many of the dependency `name` as may be are in progress.

    Raised by `Context.dependency`. A record whose handler lets it through waits, and no attempt is spent.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"as many calls of {name} as may be are in progress")
        self.name = name


class ClaimBusy(StreamworkerError):
    """Somebody else handles what has the record's id, or died of it; the record waits `retry_in_s`. Never raised."""

    def __init__(self, claim_id: str, retry_in_s: float) -> None:
        super().__init__(f"{claim_id} is claimed; it is asked for again in {retry_in_s:.1f} s")
        self.retry_in_s = retry_in_s


class ClaimsUnavailable(StreamworkerError, ConnectionError):
    """Who keeps the claims of a handler cannot be asked; `Idempotency.on_unavailable` says what follows."""


class LockUnavailable(StreamworkerError, ConnectionError):
    """Who keeps a lock cannot be asked. It is not known whether the lock is held; breakers count it."""


class LockLost(StreamworkerError):
    """The lock `name` is not its holder's any more: it could not be extended in time, or somebody else has it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the lock {name} is not held any more")
        self.name = name


class ClientError(StreamworkerError):
    """The Kafka client reported `code` (librdkafka's name of it, for instance `_TRANSPORT`)."""

    def __init__(self, message: str, *, code: str, retriable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retriable = retriable


class ClientFatal(ClientError):
    """The client instance is unusable and must be made anew."""


class Misuse(StreamworkerError):
    """A call from the wrong thread, process or state."""


def nearest(word: str, known: Iterable[str]) -> str:
    """End of an error message for a wrong `word`: the nearest known one, else the list of them."""
    options = sorted(known)
    close = closest(word, options)
    return f"known: {', '.join(options)}" if close is None else f"did you mean {close!r}?"


def closest(word: str, known: Iterable[str], likeness: float = 0.5) -> str | None:
    """The known one that `word` is most like, by at least `likeness` of 1; capitals make no difference."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for one in sorted(known):
        spellings[one.casefold()].append(one)
    close = difflib.get_close_matches(word.casefold(), spellings, n=1, cutoff=likeness)
    return difflib.get_close_matches(word, spellings[close[0]], n=1, cutoff=0)[0] if close else None
