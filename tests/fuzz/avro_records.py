"""Records of Avro that nobody meant well, bare and with the id of a schema in front."""

from __future__ import annotations

import datetime as dt
import decimal
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from fuzz.decoding import TOPIC, decoded
from fuzz.pieces import Pieces, joined, pieces
from fuzz.target import target
from hypothesis import strategies as st

from streamworker.errors import DependencyUnavailable
from streamworker.serde import Avro
from streamworker.serde.avro import FramedAvro, ParsedSchema, parse
from streamworker.serde.lookup import SchemaLookup
from streamworker.serde.schemas import SchemaText, load

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from streamworker.interfaces import AnySerde

# A record of one field that takes one byte becomes a dict: 192 times were measured.
TIMES = 256

_FILE = Path(__file__).with_name("everything.avsc")
_LEAN = SchemaText(
    """{"type": "record", "name": "fuzz.Everything", "fields": [
        {"name": "count", "type": "double"},
        {"name": "text", "type": ["null", "bytes", "string"]},
        {"name": "added", "type": {"type": "map", "values": "int"}, "default": {"a": 1}},
        {"name": "grid", "type": {"type": "array", "items": {"type": "array", "items": "long"}}}]}""",
    "lean.avsc",
)
_REGISTERED = (
    load(_FILE),
    _LEAN,
    SchemaText(
        '{"type": "array", "items": {"type": "record", "name": "A", "fields": [{"name": "a", "type": "int"}]}}', "3"
    ),
    SchemaText('["null", "boolean", {"type": "map", "values": {"type": "array", "items": "string"}}]', "4"),
    SchemaText('{"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 9}', "5"),
    SchemaText('{"type": "array", "items": "null"}', "6"),
    SchemaText("{", "7"),
)
_ELSEWHERE_ID = 4
AWAY_ID = 99


class _Line(msgspec.Struct):
    sku: str
    pieces: int


class _Part(msgspec.Struct):
    """Of the record of `everything.avsc`."""

    flag: bool
    text: str
    at: dt.datetime
    price: decimal.Decimal
    lines: list[_Line]


class _Registry:
    """A `SchemaStore` that has `_REGISTERED` under the ids from 1; also a clock in which each look is a second later.

    So the limit on calls is never met, and refusals are forgotten.
    """

    origin = "the registry"

    def __init__(self) -> None:
        self._now_s = 0.0

    def monotonic_s(self) -> float:
        self._now_s += 1.0
        return self._now_s

    def wall_ms(self) -> int:
        return 0

    def fetch(self, schema_id: int) -> SchemaText | None:
        if schema_id == AWAY_ID:
            raise DependencyUnavailable("away")
        return _REGISTERED[schema_id - 1] if 0 < schema_id <= len(_REGISTERED) else None

    def subjects(self, schema_id: int) -> Collection[str]:
        return ["payments-value" if schema_id == _ELSEWHERE_ID else f"{TOPIC}-value"]

    def version(self, subject: str, version: int) -> SchemaText | None:
        return None

    def id_under(self, subject: str, schema: SchemaText) -> int | None:
        return 1

    def register(self, subject: str, schema: SchemaText) -> int:
        return 1


def _lookup() -> SchemaLookup[ParsedSchema]:
    registry = _Registry()
    return SchemaLookup(registry, parse, subjects=("{topic}-value",), clock=registry)


_BARE: Sequence[AnySerde] = (Avro(_FILE), Avro(_FILE, into=_Part))
_FRAMED: Sequence[AnySerde] = (
    FramedAvro(_lookup()),
    FramedAvro(_lookup(), schema=_LEAN),
    FramedAvro(_lookup(), schema=load(_FILE), into=_Part),
)

_DAYS = st.dates()
_MOMENTS = st.datetimes(timezones=st.just(dt.UTC))
_LINES = st.fixed_dictionaries({"sku": st.text(max_size=4), "pieces": st.integers(-(2**63), 2**63 - 1)})
_VALUES = st.fixed_dictionaries(
    {
        "flag": st.booleans(),
        "count": st.integers(-(2**31), 2**31 - 1),
        "total": st.integers(-(2**63), 2**63 - 1),
        "ratio": st.floats(width=32),
        "share": st.floats(),
        "blob": st.binary(max_size=8),
        "text": st.text(max_size=8),
        "note": st.none() | st.text(max_size=8),
        "digest": st.binary(min_size=4, max_size=4),
        "colour": st.sampled_from(("RED", "GREEN")),
        "day": _DAYS,
        "hour": st.times(),
        "moment": st.times(),
        "at": _MOMENTS,
        "exactly_at": _MOMENTS,
        "local": st.datetimes(),
        "id": st.uuids(),
        "price": st.decimals(-9_999_999, 9_999_999, places=2),
        "rate": st.integers(-(10**17), 10**17).map(decimal.Decimal),
        "lines": st.lists(_LINES, max_size=3),
        "tags": st.dictionaries(st.text(max_size=3), st.none() | st.floats() | _LINES, max_size=3),
        "grid": st.lists(st.lists(st.integers(-9, 9), max_size=3), max_size=3),
    }
)
_DOCUMENTS = _VALUES.map(lambda value: Avro(_FILE).encode(value, TOPIC))
_LONGEST = b"\xfe" + b"\xff" * 8 + b"\x01"  # 2^63 - 1
FRAGMENTS = (
    *(b"\0", b"\1", b"\2", b"\3", b"\x04", b"\x10", b"\x7f", b"\x80", b"\xff", _LONGEST, b"\x01" + _LONGEST),
    *(b"\x80\x80\x80\x01", b"\xfe\xff\xff\xff\x0f", b"\xff\xff\x03", b"\x02a", b"\x04\xff\xff", b"\0\0\xc0\x7f"),
)


def _check_bare(pieces: Pieces) -> None:
    data = joined(pieces)
    for serde in _BARE:
        decoded(serde, data, times=TIMES)


def _check_framed(case: tuple[int, Pieces]) -> None:
    schema_id, pieces = case
    data = struct.pack(">bI", 0, schema_id) + joined(pieces)
    for serde in _FRAMED:
        try:
            decoded(serde, data, times=TIMES)
        except DependencyUnavailable:
            assert schema_id == AWAY_ID


def _check_frame(pieces: Pieces) -> None:
    """The frame too is anybody's."""
    data = joined(pieces)
    for serde in _FRAMED:
        decoded(serde, data, times=TIMES)


_IDS = st.integers(0, len(_REGISTERED) + 1) | st.integers(0, 2**32 - 1)
_DATA = pieces(FRAGMENTS, _DOCUMENTS)

BARE = target(
    "avro",
    _DATA,
    _check_bare,
    seeds=([], [(b"\0", 65536)], [(_LONGEST, 1)], [(b"\xff", 65536)]),
)
FRAMED = target(
    "avro-framed",
    st.tuples(_IDS, _DATA),
    _check_framed,
    seeds=(
        (1, [(b"", 1)]),
        (3, [(b"\xf0\xff\x07", 1), (b"\2", 65528), (b"\0", 1)]),
        (5, [(b"\xf0\xfe\x0f", 1), (b"\x7f", 131_000)]),  # a decimal of 131 000 bytes
        (6, [(b"\xc0\xcf\x24\0", 1)]),
        (AWAY_ID, []),
    ),
)
