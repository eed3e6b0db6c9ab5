"""Records of JSON and of text that nobody meant well."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import uuid  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

import msgspec
from fuzz.decoding import CANARY, TOPIC, decoded
from fuzz.pieces import Pieces, joined, pieces
from fuzz.target import target
from hypothesis import strategies as st

from streamworker.errors import DecodeError
from streamworker.serde import Json, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.interfaces import AnySerde

# Objects with one field of the shortest name inside each other are the worst: 55 times were measured.
_TIMES = 64


class _Colour(enum.Enum):
    RED = "red"


class _Circle(msgspec.Struct, tag=True):
    radius: float


class _Square(msgspec.Struct, tag=True):
    side: int


class _Everything(msgspec.Struct):
    flag: bool = False
    count: int | None = None
    ratio: float = 0.0
    text: Annotated[str, msgspec.Meta(max_length=8, pattern="^[a-z]*$")] = ""
    at: dt.datetime | None = None
    day: dt.date | None = None
    hour: dt.time | None = None
    span: dt.timedelta | None = None
    id: uuid.UUID | None = None
    price: decimal.Decimal | None = None
    blob: bytes = b""
    colour: _Colour = _Colour.RED
    shape: _Circle | _Square | None = None
    word: Literal["a", "b", 1] = "a"
    tags: set[str] = set()
    pair: tuple[int, str] = (0, "")
    by_number: dict[int, float] = {}
    nested: list[_Everything] = []


class _Line(TypedDict):
    sku: str
    pieces: int


_TYPED: Sequence[AnySerde] = (Json(_Everything), Json(list[_Line]), Json(dict[str, decimal.Decimal]), Json(dt.datetime))
_ANYTHING: Json[object] = Json(object)

_FRAGMENTS = (
    *(b"[", b"]", b"{", b"}", b",", b":", b'"', b'\\"', b"\\\\", b"\\ud800", b"\\udc00", b"\\u0000", b"null", b"true"),
    *(
        b"[]",
        b"{}",
        b"[[",
        b"]]",
        b'{"a":',
        b'{"":{}},',
        b"[],",
        b'"",',
        b"0,",
        b"NaN",
        b"-Infinity",
        b"1e",
        b"9",
        b".",
    ),
    *(b"-0", b"0.1", b"1E400", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xff", b"\0", b" ", b"/**/", b'{"nested":['),
    f'"{CANARY}"'.encode(),
)
_WHOLE = (
    b'{"flag":true,"count":-1,"ratio":1e3,"text":"abc","at":"2026-01-31T10:20:30.5+01:00","day":"2026-01-31",'
    b'"hour":"10:20:30Z","span":"P1DT2H","id":"12345678-1234-5678-1234-567812345678","price":"1.50","blob":"AAEC",'
    b'"colour":"red","shape":{"type":"_Circle","radius":1},"word":1,"tags":["a"],"pair":[1,"x"],"by_number":{"1":2},'
    b'"nested":[{}]}'
)

_NAMES = st.sampled_from((*_Everything.__struct_fields__, "type", "radius", "sku", "pieces")) | st.text(max_size=4)
_NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(2**62, 2**66)
_TEXTS = (
    st.sampled_from((CANARY, "_Circle", "red")) | st.text(max_size=8) | st.datetimes().map(str) | st.uuids().map(str)
)
_FIELDS = st.sampled_from(_Everything.__struct_fields__)
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=20,
)
_DOCUMENTS = st.builds(
    lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only).encode(),
    _VALUES | st.dictionaries(_FIELDS, _VALUES, max_size=3),
    st.booleans(),
)


def _check_json(pieces: Pieces) -> None:
    data = joined(pieces)
    for serde in _TYPED:
        decoded(serde, data, times=_TIMES)
    value = decoded(_ANYTHING, data, times=_TIMES)
    if not isinstance(value, DecodeError):
        assert value == json.loads(data)
        assert _ANYTHING.decode(_ANYTHING.encode(value, TOPIC), TOPIC) == value


def _check_text(pieces: Pieces) -> None:
    data = joined(pieces)
    value = decoded(Text(), data, times=_TIMES)
    assert isinstance(value, DecodeError) or (isinstance(value, str) and Text().encode(value, TOPIC) == data)


JSON = target(
    "json",
    pieces(_FRAGMENTS, _DOCUMENTS),
    _check_json,
    seeds=(
        [(_WHOLE, 1)],
        *([(json.dumps({name: CANARY}).encode(), 1)] for name in _Everything.__struct_fields__),
        [(json.dumps({"shape": {"type": CANARY}}).encode(), 1)],
        [(b"[", 65536)],
        [(b'{"":', 5000), (b"1", 1), (b"}", 5000)],
        [(b"[", 1), (b'{"":{}},', 8000), (b"0]", 1)],
        [(b'{"nested":[', 500), (b"]}", 500)],
        [(b"1", 5000)],
        [(b"-1.", 1), (b"0", 60000), (b"1e-5", 1)],
    ),
)
TEXT = target(
    "text",
    pieces((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90", b"\xef\xbb\xbf", b"\0"), st.text().map(str.encode)),
    _check_text,
)
