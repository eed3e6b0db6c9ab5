"""What crosses between a worker and its child processes, as bytes: how a child begins, slices, and what became of them.

By pickle, and only ever between a process and one that it has started itself. A record of 1 KiB costs 0.2 µs on either
side; msgpack costs the same, and cannot carry exceptions. Pure; any thread.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from streamworker.processing.portable_errors import PortableError
from streamworker.record import Origin, Returned, TopicPartition, read_headers, timestamp_ms_of
from streamworker.work import Failure, Ownership, Slice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.config import ClaimConfig, LogConfig
    from streamworker.interfaces import ClientOption
    from streamworker.record import Header, Letter, Message
    from streamworker.work import SliceOutcome

_PROTOCOL = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a child process begins with. The handler is imported there, by its module and its name in it."""

    module: str
    qualified_name: str
    app: Mapping[str, object]
    sinks: Mapping[str, str]
    producer: Mapping[str, ClientOption]
    claims: ClaimConfig | None  # None where nothing is claimed
    group: str
    max_record_bytes: int
    log: LogConfig | None  # None leaves logging alone

    def to_bytes(self) -> bytes:
        """For the child; raises what an [app] table raises that cannot be pickled."""
        return pickle.dumps(self, _PROTOCOL)

    @staticmethod
    def of(data: bytes) -> Setup:
        """The setup of which these are the bytes."""
        setup: Setup = pickle.loads(data)
        return setup


class _Sent(NamedTuple):
    """A record on its way; `headers` are None where the client could not read them."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: tuple[int, int]
    headers: tuple[Header, ...] | None
    came_back: tuple[Origin, int, int, bool, bool] | None  # of a `Returned`: origin, calls, due_ms, replayed, repaired


class Delivered:
    """A `Message` in a child process."""

    __slots__ = ("_at", "_headers", "_sent")

    def __init__(self, at: TopicPartition, sent: _Sent) -> None:
        self._at = at
        self._sent = sent
        self._headers: list[Header] | None = None if sent.headers is None else list(sent.headers)

    def topic(self) -> str:
        """Topic that it was delivered from."""
        return self._at.topic

    def partition(self) -> int:
        """Partition that it was delivered from."""
        return self._at.partition

    def offset(self) -> int:
        """Offset in the partition."""
        return self._sent.offset

    def key(self) -> bytes | None:
        """Key as it is in the log."""
        return self._sent.key

    def value(self) -> bytes | None:
        """Value as it is in the log."""
        return self._sent.value

    def timestamp(self) -> tuple[int, int]:
        """Kind and milliseconds since the Unix epoch."""
        return self._sent.timestamp

    def headers(self) -> list[Header] | None:
        """Headers; raises SystemError where the client did, until it is marked."""
        if self._headers is None:
            raise SystemError("the client could not read these headers")
        return self._headers

    def set_headers(self, headers: list[Header]) -> None:
        """Replace what `headers` returns."""
        self._headers = headers

    def __len__(self) -> int:
        return len(self._sent.value or b"")


def bytes_of_slice(slice_: Slice) -> bytes:
    """A slice for a child, as it is now; what holds while it runs is on the slate."""
    ownership = slice_.ownership
    sent = [tuple(_sent(message)) for message in slice_.messages]
    about = (*ownership.partition, ownership.epoch, ownership.topic, slice_.attempt, slice_.largest_bytes)
    return pickle.dumps((about, slice_.place, sent), _PROTOCOL)


def slice_of(data: bytes) -> Slice:
    """The slice of which these are the bytes; its lease and its ownership are told by the slate."""
    (topic, partition, epoch, first_topic, attempt, largest_bytes), place, sent = pickle.loads(data)
    ownership = Ownership(TopicPartition(topic, partition), epoch)
    ownership.topic = first_topic
    slice_ = Slice(0, ownership, [_message(ownership.partition, _Sent(*one)) for one in sent], attempt)
    slice_.largest_bytes = largest_bytes
    slice_.place = place
    return slice_


def _sent(message: Message) -> _Sent:
    headers = read_headers(message)
    came_back = None
    if isinstance(message, Returned):
        came_back = (message.origin, message.calls, message.due_ms, message.replayed, message.repaired)
    return _Sent(
        message.offset(),
        message.key(),
        message.value(),
        message.timestamp(),
        tuple(headers) if headers.readable else None,
        came_back,
    )


def _message(at: TopicPartition, sent: _Sent) -> Message:
    delivered = Delivered(at, sent)
    if sent.came_back is None:
        return delivered
    origin, calls, due_ms, replayed, repaired = sent.came_back
    return Returned(
        delivered,
        origin=Origin(*origin),
        timestamp_ms=timestamp_ms_of(delivered),
        calls=calls,
        due_ms=due_ms,
        replayed=replayed,
        repaired=repaired,
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a slice in a child."""

    done: int
    seconds: float
    rejected: list[tuple[int, BaseException]]
    failure: Failure | None
    outputs: dict[int, Sequence[Letter]] | None = None


def bytes_of_outcome(outcome: SliceOutcome[Slice]) -> bytes:
    """An outcome for the worker."""
    slice_, failure = outcome.slice, outcome.failure
    rejected = [(index, PortableError.of(error)) for index, error in slice_.rejected]
    failed = None if failure is None else (failure.index, PortableError.of(failure.error))
    return pickle.dumps((slice_.done, outcome.seconds, rejected, failed, slice_.outputs), _PROTOCOL)


def answer_of(data: bytes) -> Answer:
    """The answer of which these are the bytes."""
    done, seconds, rejected, failed, outputs = pickle.loads(data)
    failure = None if failed is None else Failure(failed[0], failed[1].error())
    return Answer(done, seconds, [(index, portable.error()) for index, portable in rejected], failure, outputs)


def bytes_of_error(error: BaseException | None) -> bytes:
    """What `open` raised, for the worker; None if all is well."""
    return pickle.dumps(None if error is None else PortableError.of(error), _PROTOCOL)


def error_of(data: bytes) -> BaseException | None:
    """What was raised, None if all is well."""
    portable: PortableError | None = pickle.loads(data)
    return None if portable is None else portable.error()
