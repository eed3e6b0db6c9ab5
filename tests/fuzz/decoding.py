"""What holds for the bytes of any record and any serde: they become a value or a DecodeError, and nothing else happens.

The cost is in proportion to the size, and the error is short and does not repeat what the record held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz.costs import bounded

from streamworker.errors import DecodeError

if TYPE_CHECKING:
    from streamworker.interfaces import AnySerde

TOPIC = "orders"
CANARY = "canary-7f3a"  # stands for a value of the payload
_MAX_MESSAGE_CHARS = 250


def decoded(serde: AnySerde, data: bytes, *, times: int) -> object:
    """The value, or the DecodeError; it may take `times` the size of `data`."""
    with bounded(len(data), times=times):
        value = _attempt(serde, data)
    if isinstance(value, DecodeError):
        assert len(str(value)) <= _MAX_MESSAGE_CHARS, str(value)
        assert CANARY not in str(value), str(value)
    return value


def _attempt(serde: AnySerde, data: bytes) -> object:
    try:
        return serde.decode(data, TOPIC)
    except DecodeError as error:
        return error
