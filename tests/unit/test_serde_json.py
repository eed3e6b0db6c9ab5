from __future__ import annotations

import enum
import json
import time
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.errors import ConfigurationError, DecodeError
from streamworker.serde import Json
from streamworker.serde.json import nests_deeper

MIB = 2**20


class Colour(enum.Enum):
    RED = "red"


class Line(msgspec.Struct):
    sku: str
    pieces: int


class Order(msgspec.Struct):
    qty: int
    lines: list[Line] = []
    colour: Colour = Colour.RED


class Untagged(msgspec.Struct):
    either: Order | Line


class Tree(msgspec.Struct):
    branches: list[Tree] = []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"qty": "a"}', "$.qty: expected int, got str"),
        (b'{"qty": true}', "$.qty: expected int, got bool"),
        (b'{"qty": 1.0}', "$.qty: expected int, got float"),
        (b'{"qty": 1, "lines": [{"sku": "x", "pieces": null}]}', "$.lines[0].pieces: expected int, got null"),
        (b"{}", "$: object missing required field qty"),
        (b"null", "$: expected object, got null"),
        (b"17", "$: expected object, got int"),
        (b"", "not JSON: input data was truncated; 0 bytes"),
        (b'{"qty": 1} 2', "not JSON: trailing characters (byte 12); 12 bytes"),
    ],
)
def test_the_message_names_the_place_and_what_was_expected(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        Json(Order).decode(data, "t")

    assert str(caught.value) == message


def test_the_message_does_not_repeat_what_the_payload_held() -> None:
    with pytest.raises(DecodeError) as caught:
        Json(Order).decode(b'{"qty": 1, "colour": "secret"}', "t")

    assert str(caught.value) == "$.colour: invalid enum value"


NASTY = {
    "depth 100 k": b"[" * 100_000,
    "depth 100 k, closed": b"[" * 100_000 + b"]" * 100_000,
    "objects 100 k deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "depth 900": b"[" * 900 + b"]" * 900,
    "depth 65, hidden by strings": b'["]",' * 64 + b"[0]" + b"]" * 64,
    "an integer of 5 000 digits": b"1" * 5000,
    "an integer of 1 M digits": b"1" * 1_000_000,
    "a number beyond a double": b"1e999",
    "NaN": b"NaN",
    "Infinity": b"[-Infinity]",
    "a lone surrogate, escaped": b'"\\ud800"',
    "a lone surrogate, encoded": b'"\xed\xa0\x80"',
    "a byte-order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"qty": 1}'.encode("utf-16"),
    "invalid UTF-8": b'"\xff"',
    "a string without an end": b'"' + b"a" * MIB,
    "escapes without an end": b'"' + b'\\"' * (MIB // 2),
    "a control character": b'"\n"',
    "nothing": b"",
    "zeros": b"\0" * 1000,
}


@pytest.mark.parametrize("name", NASTY)
def test_nasty_bytes_are_a_decode_error_at_little_cost(name: str) -> None:
    serde = Json(object)
    data = NASTY[name]

    begin_s = time.process_time()
    with pytest.raises(DecodeError):
        serde.decode(data, "t")
    cpu_s = time.process_time() - begin_s

    assert cpu_s < 0.05
    assert _peak_bytes(serde, data) <= 20 * len(data) + 10 * MIB


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a string of 10 MB", b'"' + b"a" * 10_000_000 + b'"'),
        ("a megabyte of brackets in a string", b'["' + b"[{" * (MIB // 2) + b'"]'),
        ("a megabyte of empty strings", b"[" + b",".join([b'""'] * (MIB // 3)) + b"]"),
        ("escapes only", b'"' + b"\\\\" * (MIB // 2) + b'"'),
    ],
)
def test_large_documents_are_decoded_at_little_cost(name: str, data: bytes) -> None:
    serde = Json(object)

    begin_s = time.process_time()
    value = serde.decode(data, "t")
    cpu_s = time.process_time() - begin_s

    assert value == json.loads(data)
    assert cpu_s < 0.05
    assert _peak_bytes(serde, data) <= 20 * len(data) + 10 * MIB


def _peak_bytes(serde: Json[object], data: bytes) -> int:
    tracemalloc.start()
    try:
        serde.decode(data, "t")
    except DecodeError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_of_a_duplicate_key_the_last_one_wins() -> None:
    assert Json(Order).decode(b'{"qty": 1, "qty": 2}', "t") == Order(2)


@pytest.mark.parametrize("max_depth", [1, 2, 3, 4, 5, 64])
def test_a_value_may_be_as_deep_as_allowed_and_no_deeper(max_depth: int) -> None:
    serde = Json(object, max_depth=max_depth)
    siblings = b",[]" * 40

    deepest = b"[" * (max_depth - 1) + b"[]" + (siblings if max_depth > 1 else b"") + b"]" * (max_depth - 1)
    too_deep = b"[" * max_depth + b"[]" + siblings + b"]" * max_depth

    assert serde.decode(deepest, "t") is not None
    with pytest.raises(DecodeError, match=f"deeper than {max_depth} levels"):
        serde.decode(too_deep, "t")


def test_a_type_that_holds_itself_is_limited_too() -> None:
    data = b'{"branches":[' * 40 + b"]}" * 40

    with pytest.raises(DecodeError, match="deeper than 64 levels"):
        Json(Tree).decode(data, "t")


def _depth(value: object) -> int:
    match value:
        case list():
            return 1 + max(map(_depth, value), default=0)
        case dict():
            return 1 + max(map(_depth, value.values()), default=0)
        case _:
            return 0


TRICKY = st.text(alphabet='[]{}"\\,:aü\n', max_size=8)
DOCUMENTS = st.recursive(
    TRICKY | st.none() | st.integers(-9, 9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TRICKY, inner, max_size=4),
    max_leaves=60,
)


@given(DOCUMENTS, st.integers(1, 8), st.booleans())
def test_depth_is_found_whatever_the_strings_hold(document: object, levels: int, ascii_only: bool) -> None:
    data = json.dumps(document, ensure_ascii=ascii_only).encode()

    assert nests_deeper(data, levels) == (_depth(document) > levels)


@given(st.binary(max_size=300) | st.text(alphabet='[]{}",:\\u0d8e1.-tn ', max_size=300).map(str.encode))
def test_any_bytes_give_a_value_or_a_decode_error(data: bytes) -> None:
    for serde in (Json(object), Json(Order), Json(dict[str, int])):
        try:
            serde.decode(data, "t")
        except DecodeError as error:
            assert len(str(error)) <= 200  # noqa: PT017 - most bytes are no JSON, a few are


def test_what_python_would_accept_and_json_forbids_is_encoded_as_null() -> None:
    assert Json(list[float]).encode([float("nan")], "t") == b"[null]"


def test_a_type_that_msgspec_cannot_decode_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="cannot decode this type"):
        Json(Untagged)
    with pytest.raises(ConfigurationError, match="max_depth"):
        Json(Order, max_depth=0)
