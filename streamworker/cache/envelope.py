"""What lies in Redis under a key: a fixed head, then the value in MessagePack. Pure.

    8 bytes  version       big-endian, first, so that a script reads it with one GETRANGE; 0: not known
    4        schema        of the value's type; another one is a miss, so that old and new workers run side by side
    1        flags         bit 0: there is no such thing
    8        expires_ms    Unix time from which it is not given out, in whichever process
    4        cost_ms       what loading it took: the dearer, the earlier it is refreshed
    rest     the value

Whoever can write to Redis can put anything there. So everything that cannot be read is a miss and never an error, and
nothing is unpickled: a pickle from there could run code in every worker.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from streamworker.errors import ConfigurationError

V = TypeVar("V")

# Numbers in the server's scripts are doubles, which count up to here without a gap.
MAX_VERSION = 2**53 - 1
# A larger value costs more to move than most loads, and holds up all other calls of the server.
MAX_BYTES = 1024 * 1024
_HEAD = struct.Struct(">QIBQI")
_NEGATIVE = 1
_MAX_COST_MS = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Envelope(Generic[V]):
    """A value and what goes with it; None for what does not exist."""

    value: V | None
    version: int  # 0: not known
    negative: bool
    expires_ms: int  # Unix time
    cost_ms: int


@dataclass(frozen=True, slots=True)
class Head:
    """What can be told of bytes without the type of the value."""

    version: int
    schema: int
    negative: bool
    expires_ms: int
    cost_ms: int
    payload: bytes


class Envelopes(Generic[V]):
    """Reads and writes the envelopes of one type. Any thread."""

    def __init__(self, type_: type[V], *, schema: int | None = None, max_bytes: int = MAX_BYTES) -> None:
        self.schema = schema_of(type_) if schema is None else schema
        self._max_bytes = max_bytes
        self._decoder = msgspec.msgpack.Decoder(type_)
        self._encoder = msgspec.msgpack.Encoder()

    def encode(self, envelope: Envelope[V]) -> bytes | None:
        """The bytes; None if they would be more than may be, or the value is none that can be written."""
        try:
            payload = b"" if envelope.negative else self._encoder.encode(envelope.value)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return None
        if len(payload) + _HEAD.size > self._max_bytes:
            return None
        cost_ms = min(max(envelope.cost_ms, 0), _MAX_COST_MS)
        flags = _NEGATIVE if envelope.negative else 0
        return _HEAD.pack(envelope.version, self.schema, flags, envelope.expires_ms, cost_ms) + payload

    def decode(self, data: bytes) -> Envelope[V] | None:
        """The envelope; None for what is none of this type."""
        found = _unpacked(data, self._max_bytes)
        if found is None or found[1] != self.schema:
            return None
        version, _, flags, expires_ms, cost_ms = found
        value: V | None = None
        if not flags:
            try:
                value = self._decoder.decode(memoryview(data)[_HEAD.size :])
            except Exception:  # noqa: BLE001 - the bytes may be anything, and a type may raise anything in __post_init__
                return None
        return Envelope(value, version, bool(flags), expires_ms, cost_ms)


def read_head(data: bytes, max_bytes: int = MAX_BYTES) -> Head | None:
    """What the head says; None if `data` is too short, too long, or cannot be an envelope."""
    found = _unpacked(data, max_bytes)
    if found is None:
        return None
    version, schema, flags, expires_ms, cost_ms = found
    return Head(version, schema, bool(flags), expires_ms, cost_ms, data[_HEAD.size :])


def _unpacked(data: bytes, max_bytes: int) -> tuple[int, int, int, int, int] | None:
    if not _HEAD.size <= len(data) <= max_bytes:
        return None
    found = _HEAD.unpack_from(data)
    version, _, flags, _, _ = found
    possible = not flags or (flags == _NEGATIVE and len(data) == _HEAD.size)
    return found if possible and version <= MAX_VERSION else None


def schema_of(type_: object) -> int:
    """A number that is another one for a type with other fields. Raises ConfigurationError for what has no schema."""
    try:
        described = msgspec.json.schema(type_)
    except (TypeError, RuntimeError) as error:
        raise ConfigurationError(
            f"cache: expected a type that msgspec can describe, got {type_!r} ({error}); give schema=… a number"
        ) from error
    return zlib.crc32(msgspec.json.encode(described, order="sorted"))
