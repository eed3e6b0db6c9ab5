"""What every serde promises, over every serde that is shipped."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from streamworker.errors import ConfigurationError, DecodeError
from streamworker.serde import Avro, Bytes, Json, Text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from streamworker.interfaces import Serde

TOPIC = "orders"
SCHEMA = (
    '{"type": "record", "name": "Order", "fields": [{"name": "qty", "type": "int"}, {"name": "note", "type":'
    ' ["null", "string"], "default": null}]}'
)


class Order(msgspec.Struct):
    qty: int
    note: str | None = None


@dataclass(frozen=True)
class Case:
    """A serde with values that it takes and bytes that it refuses."""

    serde: Serde[object]
    values: Sequence[object]
    bad: Sequence[bytes]


def _case(kind: str, schema: Path) -> Case:
    orders: Sequence[object] = [Order(0), Order(-1, 'ü\n"]['), Order(2**31 - 1, "")]
    dicts: Sequence[object] = [{"qty": 0, "note": None}, {"qty": 7, "note": "x" * 1000}]
    url = "mock://contract"
    serde: object
    values: Sequence[object]
    match kind:
        case "json struct":
            serde, values, bad = Json(Order), orders, [b"", b"null", b'{"qty":"1"}', b"\xff", b'{"qty":1}x']
        case "json any":
            serde, values, bad = (
                Json(object),
                [*dicts, [1, [2.5]], "", None, True],
                [b"", b"{", b"NaN", b"\xef\xbb\xbf1"],
            )
        case "avro":
            serde, values, bad = Avro(schema), dicts, [b"", b"\x02", b"\x02\x04", b"\x02\x00\x00", b"\xff" * 20]
        case "avro struct":
            serde, values, bad = Avro(schema, into=Order), orders, [b"", b"\x02", b"\x02\x02\x02\xff"]
        case "registry":
            serde, values = Avro.registry(url=url, schema=schema, into=Order), orders
            bad = [b"", b"\0\0\0\0", b"\1\0\0\0\1\2\0", b"\0\0\0\0\x63\2\0", b"\0\0\0\0\1\2"]
        case "text":
            serde, values, bad = Text(), ["", "ü\0", "x" * 1000], [b"\xff", b"\xed\xa0\x80", b"a\xc3"]
        case _:
            serde, values, bad = Bytes(), [b"", b"\0\xff", b"x" * 1000], []
    return Case(cast("Serde[object]", serde), values, bad)


@pytest.fixture(params=["json struct", "json any", "avro", "avro struct", "registry", "text", "bytes"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    if request.param == "registry":
        pytest.importorskip("certifi", reason="the extra `registry` is not installed")
    schema = tmp_path / "order.avsc"
    schema.write_text(SCHEMA)
    return _case(request.param, schema)


def test_what_is_encoded_is_decoded_to_an_equal_value(case: Case) -> None:
    for value in case.values:
        data = case.serde.encode(value, TOPIC)

        assert case.serde.decode(data, TOPIC) == value


def test_bytes_that_do_not_fit_raise_a_decode_error_with_a_short_message(case: Case) -> None:
    case.serde.encode(case.values[0], TOPIC)

    for data in case.bad:
        with pytest.raises(DecodeError, match=r"^.{1,250}$") as caught:
            case.serde.decode(data, TOPIC)

        assert caught.value.part == "value"


def test_an_empty_record_is_a_decode_error_unless_it_is_a_value(case: Case) -> None:
    try:
        value = case.serde.decode(b"", TOPIC)
    except DecodeError:
        return

    assert case.serde.encode(value, TOPIC) == b""


def test_decoding_leaves_the_bytes_as_they_are_and_gives_the_same_again(case: Case) -> None:
    data = case.serde.encode(case.values[-1], TOPIC)
    copy = bytes(bytearray(data))

    first = case.serde.decode(data, TOPIC)
    second = case.serde.decode(data, TOPIC)

    assert data == copy
    assert first == second


def test_four_threads_may_use_it_at_once(case: Case) -> None:
    encoded = [(case.serde.encode(value, TOPIC), value) for value in case.values]

    def round_trips(turn: int) -> bool:
        for step in range(300):
            data, value = encoded[(turn + step) % len(encoded)]
            if case.serde.decode(data, TOPIC) != value or case.serde.encode(value, TOPIC) != data:
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(round_trips, range(4)))

    assert answers == [True] * 4


@pytest.mark.parametrize("kind", ["json any", "avro", "avro struct", "text"])
def test_a_value_that_does_not_fit_raises_a_value_error(kind: str, tmp_path: Path) -> None:
    schema = tmp_path / "order.avsc"
    schema.write_text(SCHEMA)
    unfit = {"json any": object(), "avro": {"qty": 1, "extra": 2}, "avro struct": Order(2**70), "text": "\ud800"}

    with pytest.raises(ValueError, match=r"fit|surrogates"):
        _case(kind, schema).serde.encode(unfit[kind], TOPIC)


def test_a_repr_names_the_kind_and_the_type(case: Case) -> None:
    assert repr(case.serde).split("(")[0] in {"Json", "Avro", "Avro.registry", "Text", "Bytes"}


def test_a_registry_serde_without_a_schema_says_how_to_encode() -> None:
    pytest.importorskip("certifi", reason="the extra `registry` is not installed")
    serde = Avro.registry(url="mock://contract")

    with pytest.raises(ConfigurationError, match="schema="):
        serde.encode({}, TOPIC)
