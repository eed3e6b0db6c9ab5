"""What travels: the record that a handler sees, and the partition it came from.

A `Record` keeps the client's message private and reads from it on request; it decides nothing.
A record belongs to the thread that handles it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import repeat
from operator import methodcaller
from typing import ClassVar, Final, Generic, NamedTuple, Protocol, TypeVar, cast, overload

import msgspec

T = TypeVar("T")

Header = tuple[str, bytes | None]


class TopicPartition(NamedTuple):
    """A partition, as the key of everything that is kept per partition."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Origin(NamedTuple):
    """Where a record was first; where it was delivered from, unless it came back from a retry topic or was replayed."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Letter:
    """A record on its way to a topic. `partition` None lets the key decide, `timestamp_ms` 0 is the time of sending."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]
    timestamp_ms: int
    of: tuple[TopicPartition, int] | None = None  # partition and offset of the record that a dead letter is of


class Ending(enum.Enum):
    """All ways in which the handling of a record can end; `Worker` settles each in one place."""

    HANDLED = "handled"
    RETRIED = "retried"
    DEFERRED = "deferred"
    DEAD_LETTERED = "dead_lettered"
    SKIPPED = "skipped"
    EXPIRED = "expired"
    NOT_ADDRESSED = "not_addressed"
    STOPPED = "stopped"


class Message(Protocol):
    """A delivered record as the client gives it; `len()` is the size of the value in bytes."""

    def topic(self) -> str:
        """Topic that it was delivered from."""

    def partition(self) -> int:
        """Partition that it was delivered from."""

    def offset(self) -> int:
        """Offset in the partition."""

    def key(self) -> bytes | None:
        """Key as it is in the log."""

    def value(self) -> bytes | None:
        """Value as it is in the log."""

    def timestamp(self) -> tuple[int, int]:
        """Kind (0: none) and milliseconds since the Unix epoch."""

    def headers(self) -> list[Header] | None:
        """Headers; raises SystemError for a name that is not UTF-8, and must not be called again then."""

    def set_headers(self, headers: list[Header]) -> None:
        """Replace what `headers` returns."""

    def __len__(self) -> int: ...


class Headers(tuple[Header, ...]):
    """Headers in their order, duplicates kept.

    `readable` is false when the client could not read them (a header name that is not UTF-8);
    they are empty then.
    """

    __slots__ = ()
    readable: ClassVar[bool] = True

    def last(self, name: str) -> bytes | None:
        """Value of the last header called `name`; None if there is none (or its value is null)."""
        return next((value for key, value in reversed(self) if key == name), None)


class _UnreadableHeaders(Headers):
    __slots__ = ()
    readable = False


_NO_HEADERS = Headers()
# Not `message.headers()`: once the interpreter has specialised that call, it no longer checks for the error
# that came with the result, and the NULL pointers get out.
_ask_for_headers: Callable[[Message], list[Header] | None] = methodcaller("headers")
_UNREADABLE = _UnreadableHeaders()
# Put into the message after a failed read: reading such headers a second time crashes the process
# (confluent-kafka 2.16.1 hands out NULL pointers), so the message must never be asked again.
_UNREADABLE_MARK: list[Header] = []


def read_headers(message: Message) -> Headers:
    """Headers of `message`, safe to call again and again."""
    try:
        headers = _ask_for_headers(message)
    except SystemError:
        message.set_headers(_UNREADABLE_MARK)
        return _UNREADABLE
    if headers is _UNREADABLE_MARK:
        return _UNREADABLE
    return Headers(headers) if headers else _NO_HEADERS


class Returned:
    """A record that came back from a retry topic or was replayed: a `Message` that knows where it was first.

    `calls` were made before it was written there; it is due at `due_ms` of the wall clock. Its timestamp is the one
    that it had first. `replayed` says that a person has sent it again, `repaired` that its value was edited before.
    """

    __slots__ = ("_delivered", "_timestamp_ms", "calls", "due_ms", "origin", "repaired", "replayed")

    def __init__(
        self,
        delivered: Message,
        *,
        origin: Origin,
        timestamp_ms: int | None,
        calls: int,
        due_ms: int,
        replayed: bool = False,
        repaired: bool = False,
    ) -> None:
        self._delivered = delivered
        self._timestamp_ms = timestamp_ms
        self.origin = origin
        self.calls = calls
        self.due_ms = due_ms
        self.replayed = replayed
        self.repaired = repaired

    def topic(self) -> str:
        """The topic that it was delivered from."""
        return self._delivered.topic()

    def partition(self) -> int:
        """Partition of that topic."""
        return self._delivered.partition()

    def offset(self) -> int:
        """Offset there."""
        return self._delivered.offset()

    def key(self) -> bytes | None:
        """Key as it is in the log."""
        return self._delivered.key()

    def value(self) -> bytes | None:
        """Value as it is in the log."""
        return self._delivered.value()

    def timestamp(self) -> tuple[int, int]:
        """As `Message.timestamp`, of the record as it was first."""
        return (0, -1) if self._timestamp_ms is None else (1, self._timestamp_ms)

    def headers(self) -> list[Header] | None:
        """As `Message.headers`."""
        return _ask_for_headers(self._delivered)

    def set_headers(self, headers: list[Header]) -> None:
        """As `Message.set_headers`."""
        self._delivered.set_headers(headers)

    def __len__(self) -> int:
        return len(self._delivered)


def calls_before(message: Message) -> int:
    """Calls for a record that were made before it was delivered from here."""
    return message.calls if isinstance(message, Returned) else 0


def origin_of(message: Message) -> Origin:
    """Where a record was first."""
    if isinstance(message, Returned):
        return message.origin
    return Origin(message.topic(), message.partition(), message.offset())


def is_replayed(message: Message) -> bool:
    """Whether a person has sent a record again."""
    return isinstance(message, Returned) and message.replayed


def is_repaired(message: Message) -> bool:
    """Whether its value was edited before it was sent again."""
    return isinstance(message, Returned) and message.repaired


def timestamp_ms_of(message: Message) -> int | None:
    """Milliseconds since the Unix epoch; None if the producer gave none."""
    kind, timestamp_ms = message.timestamp()
    return timestamp_ms if kind and timestamp_ms >= 0 else None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Unread(enum.Enum):
    """Stands for what is read from the message when it is asked for."""

    UNREAD = enum.auto()


UNREAD: Final = _Unread.UNREAD


class Record(msgspec.Struct, Generic[T], eq=False):
    """One record, read-only. `value` and `key` are decoded by the handler's serdes.

    `attempt` is 1 on the first call and counts on where a record comes back from a retry topic.

    A Struct, because that is made in 70 ns, and an object by an `__init__` in 150.
    """

    _message: Message
    _attempt: int
    _value: T | _Unread = UNREAD
    _key: object = UNREAD
    _headers: Headers | None = None

    @property
    def topic(self) -> str:
        """Topic that it was delivered from."""
        return self._message.topic()

    @property
    def partition(self) -> int:
        """Partition that it was delivered from."""
        return self._message.partition()

    @property
    def offset(self) -> int:
        """Its offset in the partition."""
        return self._message.offset()

    @property
    def value(self) -> T:
        """Decoded value; None for a tombstone."""
        if self._value is UNREAD:
            self._value = cast("T", self._message.value())  # no serde: T is bytes | None
        return self._value

    @property
    def key(self) -> object:
        """Decoded key; bytes without a key serde, None for a null key."""
        if self._key is UNREAD:
            self._key = self._message.key()
        return self._key

    @property
    def attempt(self) -> int:
        """1 on the first call, 2 on the first retry."""
        return self._attempt + calls_before(self._message)

    @property
    def origin(self) -> Origin:
        """Where it was first: a retry topic has coordinates of its own."""
        return origin_of(self._message)

    @property
    def raw_value(self) -> bytes | None:
        """Value as it is in the log."""
        return self._message.value()

    @property
    def raw_key(self) -> bytes | None:
        """Key as it is in the log."""
        return self._message.key()

    @property
    def timestamp_ms(self) -> int | None:
        """Milliseconds since the Unix epoch; None if the producer gave none."""
        return timestamp_ms_of(self._message)

    @property
    def timestamp(self) -> datetime | None:
        """The same in UTC; None also where it lies beyond what datetime can hold."""
        timestamp_ms = self.timestamp_ms
        if timestamp_ms is None:
            return None
        try:
            return _EPOCH + timedelta(milliseconds=timestamp_ms)
        except OverflowError:
            return None

    @property
    def headers(self) -> Headers:
        """Headers in their order; read from the client at the first touch."""
        if self._headers is None:
            self._headers = read_headers(self._message)
        return self._headers

    def __repr__(self) -> str:
        return f"<Record {self.topic}[{self.partition}]@{self.offset} attempt {self.attempt}>"


class Records(Sequence[Record[T]]):
    """The records of one batch, immutable and in offset order per lane; made when touched.

    `values()` and `raw()` are the cheap ways through a batch: they make no `Record`.
    """

    __slots__ = ("_attempt", "_keys", "_messages", "_values")

    def __init__(
        self,
        messages: Sequence[Message],
        values: Sequence[T] | None,
        keys: Sequence[object] | None,
        attempt: int,
    ) -> None:
        self._messages = messages
        self._values = values
        self._keys = keys
        self._attempt = attempt

    def values(self) -> Sequence[T]:
        """Decoded values, in order."""
        if self._values is None:
            self._values = cast("list[T]", self.raw())  # no serde: T is bytes | None
        return self._values

    def raw(self) -> list[bytes | None]:
        """Values as they are in the log, in order."""
        return [message.value() for message in self._messages]

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Record[T]]:
        values = repeat(UNREAD) if self._values is None else self._values
        keys = repeat(UNREAD) if self._keys is None else self._keys
        return map(Record, self._messages, repeat(self._attempt), values, keys)

    @overload
    def __getitem__(self, index: int) -> Record[T]: ...
    @overload
    def __getitem__(self, index: slice) -> Records[T]: ...

    def __getitem__(self, index: int | slice) -> Record[T] | Records[T]:
        if isinstance(index, slice):
            return Records(
                self._messages[index],
                None if self._values is None else self._values[index],
                None if self._keys is None else self._keys[index],
                self._attempt,
            )
        value = UNREAD if self._values is None else self._values[index]
        key = UNREAD if self._keys is None else self._keys[index]
        return Record(self._messages[index], self._attempt, value, key)

    def only(self, indices: Sequence[int]) -> Records[T]:
        """Those at these indices."""
        return Records(
            [self._messages[index] for index in indices],
            None if self._values is None else [self._values[index] for index in indices],
            None if self._keys is None else [self._keys[index] for index in indices],
            self._attempt,
        )

    def __repr__(self) -> str:
        return f"<Records {len(self)} attempt {self._attempt}>"
