"""JSON by msgspec, checked against a type while it is decoded.

msgspec is strict: no NaN, no byte-order mark, no invalid UTF-8 or lone surrogate, no integer beyond
what it can hold, nothing after the document. Of a duplicate key the last one wins. Decided here: how
deep a document may nest. Any thread: msgspec's coders keep no state between calls.
"""

from __future__ import annotations

import sys
from itertools import accumulate, count
from operator import sub
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec
from msgspec.inspect import AnyType, CustomType, Field, RawType, Type, type_info

from streamworker.errors import ConfigurationError, DecodeError
from streamworker.serde.reasons import brief, mismatch, uncapitalised

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")

_MARKS = bytes.maketrans(b"{}", b"[]")
_OTHER_BYTES = bytes(set(range(256)) - set(b'[]{}"'))
_ANYTHING = (AnyType, CustomType, RawType)
_PEELS = 3  # rounds after which an ordinary document has no brackets left


class Json(Generic[T]):
    """JSON of the type `kind`: a msgspec Struct, a dataclass, a TypedDict, a plain or a generic type.

    `Json(object)` takes any document. A value that nests deeper than `max_depth` levels is refused:
    msgspec itself gives up only at about a thousand, and what walks the value may be less patient.
    Most types cannot hold such a value, and then nothing is checked.
    """

    def __init__(self, kind: type[T], /, *, max_depth: int = 64) -> None:
        if max_depth < 1:
            raise ConfigurationError(f"Json max_depth: expected a whole number from 1, got {max_depth}")
        self.kind = kind
        self._max_depth = max_depth
        self._encode = msgspec.json.Encoder().encode
        try:
            self._decode = msgspec.json.Decoder(kind).decode
            bounded = _bounds_depth(type_info(kind), max_depth)
        except (TypeError, NameError) as error:
            raise ConfigurationError(f"Json({kind!r}): msgspec cannot decode this type: {error}") from error
        # Each level takes a bracket at either end, so that a shorter document cannot nest too deep.
        self._suspicious_bytes = sys.maxsize if bounded else 2 * (max_depth + 1)

    def decode(self, data: bytes, topic: str) -> T:  # noqa: ARG002 - Serde's signature
        """The value; raises DecodeError with the path to what does not fit."""
        try:
            value = self._decode(data)
        except msgspec.ValidationError as error:
            raise DecodeError(mismatch(error)) from error
        except UnicodeDecodeError as error:
            raise DecodeError(f"not JSON: a string is not UTF-8: {error.reason}") from error
        except (msgspec.DecodeError, RecursionError) as error:
            reason = str(error).removeprefix("JSON is malformed: ")
            raise DecodeError(brief(f"not JSON: {uncapitalised(reason)}; {len(data)} bytes")) from error
        if len(data) >= self._suspicious_bytes and nests_deeper(data, self._max_depth):
            raise DecodeError(f"JSON nests deeper than {self._max_depth} levels")
        return value

    def decode_all(self, data: Sequence[bytes], topic: str) -> Sequence[T]:
        """The values, in order; raises if one does not fit."""
        if self._suspicious_bytes < sys.maxsize and max(map(len, data), default=0) >= self._suspicious_bytes:
            return [self.decode(one, topic) for one in data]
        return list(map(self._decode, data))

    def encode(self, value: T, topic: str) -> bytes:  # noqa: ARG002 - Serde's signature
        """The bytes; raises ValueError for what JSON cannot hold. NaN and the infinities become null."""
        try:
            return self._encode(value)
        except (TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{type(value).__name__} does not fit into JSON: {error}") from error

    def __repr__(self) -> str:
        return f"Json({getattr(self.kind, '__name__', self.kind)})"


def _bounds_depth(info: Type | Field, levels: int) -> bool:
    """Whether no value of the type can nest deeper than `levels`; false for types that hold themselves."""
    if levels < 0 or isinstance(info, _ANYTHING):
        return False
    return all(_bounds_depth(part, levels - 1) for part in _parts(info))


def _parts(info: Type | Field) -> Iterator[Type | Field]:
    for name in info.__struct_fields__:
        attribute = getattr(info, name)
        for part in attribute if isinstance(attribute, tuple) else (attribute,):
            if isinstance(part, Type | Field):
                yield part


def nests_deeper(data: bytes, levels: int) -> bool:
    """Whether `data`, well-formed JSON, has more than `levels` brackets open somewhere.

    Counting decides nearly always. Otherwise the brackets outside strings are looked at by what C
    does in bulk; a loop in Python would cost more than the decoding.
    """
    if data.count(b"[") + data.count(b"{") <= levels:
        return False
    brackets = _outside_strings(data)
    for _ in range(min(_PEELS, levels)):
        if b"[" * (levels + 1) in brackets:
            return True
        brackets = brackets.replace(b"[]", b"")
        levels -= 1
    return _deepest(brackets) > levels


def _outside_strings(data: bytes) -> bytes:
    """The brackets of `data` that are not in a string, all of them square."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")  # what is left of " opens or closes a string
    return b"".join(data.translate(_MARKS, _OTHER_BYTES).split(b'"')[::2])


def _deepest(brackets: bytes) -> int:
    opened = accumulate(map(len, brackets.split(b"]")))  # how many before the first, the second … closing one
    deepest: int = max(map(sub, opened, count()))
    return deepest
