"""Schemas that nobody meant well, and records of them: a registry hands out what anybody registered there.

A schema is parsed or there is a ConfigurationError; any bytes of a parsed one are a value or a DecodeError.
"""

from __future__ import annotations

import contextlib
import json

from fuzz.avro_records import FRAGMENTS
from fuzz.costs import bounded
from fuzz.pieces import Pieces, joined, pieces
from fuzz.target import target
from hypothesis import strategies as st

from streamworker.errors import ConfigurationError, DecodeError
from streamworker.serde.avro import ParsedSchema, parse
from streamworker.serde.schemas import MAX_IDLE, SchemaText

_MAX_DATA_BYTES = 2048
# For each byte a record can make that many values that take none, besides the one that takes it.
_TIMES = (MAX_IDLE + 2) * 256

_PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
_NAMES = st.sampled_from(("A", "B", "C", "n.A", "int", "")) | st.text(max_size=3)
_LOGICAL = ("decimal", "uuid", "date", "time-millis", "timestamp-micros", "local-timestamp-millis", "duration", "x", 5)
_SIZES = st.integers(-1, 20) | st.integers(-(2**70), 2**70) | st.just("4")


def _with_types(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    fields = st.lists(
        st.fixed_dictionaries({"name": _NAMES, "type": inner}, optional={"default": st.none() | st.integers()}),
        max_size=4,
    )
    return st.one_of(
        st.lists(inner, max_size=3),
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.fixed_dictionaries({"type": st.just("map"), "values": inner}),
        st.fixed_dictionaries({"type": st.sampled_from(("record", "error")), "name": _NAMES, "fields": fields}),
        st.fixed_dictionaries({"type": inner}),
    )


_LEAVES = st.one_of(
    st.sampled_from(_PRIMITIVES),
    _NAMES,
    st.fixed_dictionaries({"type": st.just("fixed"), "name": _NAMES, "size": _SIZES}),
    st.fixed_dictionaries({"type": st.just("enum"), "name": _NAMES, "symbols": st.lists(_NAMES, max_size=3)}),
    st.fixed_dictionaries(
        {"type": st.sampled_from(_PRIMITIVES), "logicalType": st.sampled_from(_LOGICAL)},
        optional={"precision": _SIZES, "scale": _SIZES},
    ),
    st.none() | st.integers() | st.booleans(),
)
_TREES = st.recursive(_LEAVES, _with_types, max_leaves=12)
_TEXTS = _TREES.map(json.dumps) | st.text(max_size=20)


def _check(case: tuple[str, Pieces]) -> None:
    text, pieces = case
    data = joined(pieces)[:_MAX_DATA_BYTES]
    with bounded(len(text)):
        schema = _parsed(text)
    if schema is not None:
        with bounded(len(data), times=_TIMES):
            _read_and_write(schema, data)


def _parsed(text: str) -> ParsedSchema | None:
    try:
        return parse(SchemaText(text, "any.avsc"))
    except ConfigurationError:
        return None


def _read_and_write(schema: ParsedSchema, data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        datum = schema.read(data)
        with contextlib.suppress(ValueError):  # a choice may not find the branch that it was read by
            schema.write(datum)


def _laughs(levels: int) -> str:
    """Each record holds the one before twice: no bytes, and 2 to the power of `levels` values."""
    records = [{"type": "record", "name": "R0", "fields": [{"name": "a", "type": "null"}]}]
    for level in range(1, levels):
        fields = [{"name": name, "type": f"R{level - 1}"} for name in "ab"]
        records.append({"type": "record", "name": f"R{level}", "fields": fields})
    return json.dumps(
        {"type": "record", "name": "T", "fields": [{"name": f"f{i}", "type": r} for i, r in enumerate(records)]}
    )


AVRO_SCHEMA = target(
    "avro-schema",
    st.tuples(_TEXTS, pieces(FRAGMENTS, st.just(b""))),
    _check,
    seeds=(
        (_laughs(20), []),
        ('{"type": "array", "items": "null"}', [(b"\xc0\xcf\x24\0", 1)]),
        ("[" * 5000, []),
        ('{"type": "array", "items": ' * 300 + '"int"' + "}" * 300, [(b"\2", 300)]),
    ),
)
