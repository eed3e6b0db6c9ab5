"""Keys, values and headers as people see them: what they are taken for, how much of them, and what is masked."""

from __future__ import annotations

import datetime as dt
import json
import re
import time
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.errors import ConfigurationError, DecodeError, DependencyUnavailable
from streamworker.record import Headers, Origin
from streamworker.replay.dead_record import DeadRecord, LetterId, Pointer
from streamworker.replay.desk import Decoded
from streamworker.replay.masking import How, Masking, MaskingRule, Part, masked, rule_of
from streamworker.replay.showing import Showing
from streamworker.serde import Avro, Bytes, Json, Text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from streamworker.record import Header

TOPICS = ("orders", "orders.dlq")
ALL = Showing(max_chars=None)


def masking(*rules: tuple[str, How] | str, part: Part = Part.VALUE, topics: str = "orders") -> Showing:
    made = [MaskingRule(topics, *((one,) if isinstance(one, str) else one), part=part) for one in rules]
    return Showing(masking=Masking(made), max_chars=None)


def shown(value: object, showing: Showing) -> object:
    """What is left of a document."""
    found = showing.show(json.dumps(value).encode(), TOPICS)
    assert found.kind == "json"
    return json.loads(found.text)


def letter(
    key: bytes | None = b"k", value: bytes | None = b"v", headers: Sequence[Header] = (), pointer: Pointer | None = None
) -> DeadRecord:
    return DeadRecord(
        topic="orders.dlq",
        id=LetterId(0, 1),
        written_ms=None,
        key=key,
        value=value,
        headers=Headers(headers),
        family="none",
        own_headers=Headers(headers),
        origin_topic="orders",
        pointer=pointer,
    )


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (None, "null", ""),
        (b"", "text", ""),
        (b"customer-17", "text", "customer-17"),
        ("grüß\ndich\t".encode(), "text", "grüß\ndich\t"),
        (b"17", "text", "17"),
        (b'{"b":1, "a": [ ]}', "json", '{\n  "b": 1,\n  "a": []\n}'),
        (b'[1.50,1e400,{"a":{}}]', "json", '[\n  1.50,\n  1e400,\n  {\n    "a": {}\n  }\n]'),
        (b'{"a":1,"a":2}', "json", '{\n  "a": 1,\n  "a": 2\n}'),
        pytest.param(b"[" * 900 + b"]" * 900, "json", "[" * 900 + "]" * 900, id="deep"),
        (b'{"a":NaN}', "text", '{"a":NaN}'),
        (b'{"a":1} x', "text", '{"a":1} x'),
        (b'{"a":"\xff"}', "hex", "7b226122 3a22ff22 7d"),
        (b"\0\0\0\0\0\0\0\7", "hex", "00000000 00000007"),
        (b"\x1b[31m", "hex", "1b5b3331 6d"),
    ],
)
def test_bytes_of_which_nothing_is_known_are_taken_for_what_they_look_like(
    data: bytes | None, kind: str, text: str
) -> None:
    found = ALL.show(data, TOPICS)

    assert (found.kind, found.text, found.size_bytes, found.cut) == (kind, text, len(data or b""), False)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_a_document_says_the_same_after_it_was_laid_out(value: object) -> None:
    found = ALL.show(json.dumps([value], ensure_ascii=False).encode("utf-8", "replace"), TOPICS)

    assert found.kind == "json"
    assert found.text == json.dumps([value], ensure_ascii=False, indent=2).encode("utf-8", "replace").decode()


@given(st.binary())
def test_any_bytes_can_be_shown_with_and_without_masks(data: bytes) -> None:
    assert ALL.show(data, TOPICS).size_bytes == len(data)
    assert Showing(max_chars=3).show(data, TOPICS).text == ALL.show(data, TOPICS).text[:3]
    assert masking("a").show(data, TOPICS).kind in {"json", "hidden"}


@pytest.mark.parametrize("showing", [Showing(), masking("a.b")], ids=["plain", "masked"])
@pytest.mark.parametrize(
    "data",
    [
        b"[" * 1_000_000,
        b"[" * 900 + b"1," * 400_000 + b"1" + b"]" * 900,
        b"[" * 60 + b"1," * 400_000 + b"1" + b"]" * 60,
        b'{"a":' * 150_000 + b"1" + b"}" * 150_000,
        b"[" + b"9" * 1_000_000 + b"]",
        b'{"a":"' + b"\\u0041" * 160_000 + b'"}',
        b"\xff" * 1_000_000,
        b"a" * 1_000_000,
    ],
    ids=["open", "deep and long", "long", "deep", "digits", "escapes", "bytes", "text"],
)
def test_the_beginning_of_a_huge_value_is_there_in_no_time(data: bytes, showing: Showing) -> None:
    """S2. A second is many times what it takes."""
    began_s = time.thread_time()

    found = Showing(masking=showing.masking).show(data, TOPICS)

    assert time.thread_time() - began_s < 1
    assert found.size_bytes == len(data)
    assert (len(found.text), found.cut) == ((0, False) if found.kind == "hidden" else (4_096, True))


def test_a_value_that_was_too_large_says_where_it_is() -> None:
    found = ALL.value(letter(value=None, pointer=Pointer("0" * 64, 5_000_000, Origin("orders", 3, 1042))))

    assert found == Decoded("null", "", 5_000_000, note="too large for the letter; it is in orders[3]@1042")


class Order(msgspec.Struct):
    qty: int


SCHEMA = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "qty", "type": "int"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "raw", "type": "bytes"},
    ],
}


@pytest.fixture
def avro(tmp_path: Path) -> Avro[object]:
    (tmp_path / "order.avsc").write_text(json.dumps(SCHEMA))
    return Avro(tmp_path / "order.avsc")


AT = dt.datetime(2026, 11, 28, 14, tzinfo=dt.UTC)


def test_avro_is_read_by_the_serde_of_the_handler(avro: Avro[object]) -> None:
    data = avro.encode({"qty": 17, "at": AT, "raw": b"\x01"}, "orders")

    found = ALL.value(letter(value=data), avro)

    assert found.kind == "avro"
    assert json.loads(found.text) == {"qty": 17, "at": "2026-11-28T14:00:00Z", "raw": "AQ=="}


def test_what_does_not_fit_the_handlers_type_is_shown_with_the_reason(avro: Avro[object]) -> None:
    wrong = ALL.value(letter(value=b'{"qty":"many"}'), Json(Order))
    bare = ALL.value(letter(value=b"\x80"), avro)

    assert (wrong.kind, wrong.text) == ("json", '{\n  "qty": "many"\n}')
    assert wrong.note == "$.qty: expected int, got str"
    assert (bare.kind, bare.text) == ("hex", "80")
    assert bare.note is not None


@pytest.mark.parametrize(
    ("serde", "data", "kind"),
    [
        (Json(Order), b'{"qty":1}', "json"),
        (Text(), b"abc", "text"),
        (Bytes(), b"\xff", "hex"),
        (Bytes(), b"[1]", "json"),
    ],
)
def test_plain_serdes_change_nothing_of_what_is_shown(
    serde: Json[Order] | Text | Bytes, data: bytes, kind: str
) -> None:
    assert ALL.value(letter(value=data), serde) == ALL.show(data, TOPICS)
    assert ALL.show(data, TOPICS).kind == kind


class Registry:
    """Stands for `Avro.registry`."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def decode(self, data: bytes, topic: str) -> object:
        self.asked.append(topic)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def encode(self, value: object, topic: str) -> bytes:
        raise NotImplementedError


FRAMED = b"\0\0\0\0\x11" + b"\x22\x02"


def test_a_value_that_names_a_schema_is_read_by_the_registry() -> None:
    registry = Registry({"qty": 17})

    found = Showing(registry=registry).value(letter(value=FRAMED))

    assert json.loads(found.text) == {"qty": 17}
    assert registry.asked == ["orders"]


def test_a_framed_value_is_avro_as_the_registry_knows_it(tmp_path: Path) -> None:
    """Written with the schema that it names: its fields are there by name."""
    (tmp_path / "order.avsc").write_text(json.dumps(SCHEMA))
    registry = Avro.registry(url="mock://shown", schema=tmp_path / "order.avsc")
    data = registry.encode({"qty": 17, "at": AT, "raw": b"\x01"}, "orders")

    found = Showing(registry=registry).value(letter(value=data))

    assert (found.kind, found.note, found.size_bytes) == ("avro", None, len(data))
    assert json.loads(found.text) == {"qty": 17, "at": "2026-11-28T14:00:00Z", "raw": "AQ=="}


def test_a_value_that_names_a_schema_says_which_where_no_registry_is_given() -> None:
    found = ALL.value(letter(value=FRAMED))

    assert (found.kind, found.text) == ("hex", "00000000 112202")
    assert found.note == "begins like a value with schema id 17; no registry is given"


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (
            DecodeError("schema id 17 is not registered under orders-value"),
            "schema id 17 is not registered under orders-value",
        ),
        (DependencyUnavailable("the registry answered 503"), "the registry answered 503"),
        (KeyError("secret of the payload"), "its serde raised KeyError"),
    ],
)
def test_a_registry_that_cannot_tell_leaves_digits_and_a_note(error: Exception, note: str) -> None:
    found = Showing(registry=Registry(error)).value(letter(value=FRAMED))

    assert (found.kind, found.note) == ("hex", note)


def test_what_a_serde_made_and_json_cannot_hold_is_shown_as_it_was() -> None:
    itself: list[object] = []
    itself.append(itself)

    found = ALL.value(letter(value=b"\xff"), Registry(itself))

    assert found.kind == "hex"
    assert found.note is not None


DOCUMENT = {
    "id": 7,
    "customer": {"name": "Ann", "email": "ann@x.org"},
    "items": [{"card": "4111-1111", "qty": 2}, {"card": None, "qty": 1}],
    "e.mail": "a b",
}


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        (("customer.email", How.REPLACE), {**DOCUMENT, "customer": {"name": "Ann", "email": "***"}}),
        (("customer.email", How.MASK), {**DOCUMENT, "customer": {"name": "Ann", "email": "***@*.***"}}),
        (("customer.email", How.REMOVE), {**DOCUMENT, "customer": {"name": "Ann"}}),
        (("customer", How.REMOVE), {name: value for name, value in DOCUMENT.items() if name != "customer"}),
        (("customer", How.REPLACE), {**DOCUMENT, "customer": "***"}),
        (("customer", How.MASK), {**DOCUMENT, "customer": {"name": "***", "email": "***@*.***"}}),
        (
            ("items[*].card", How.MASK),
            {**DOCUMENT, "items": [{"card": "****-****", "qty": 2}, {"card": None, "qty": 1}]},
        ),
        (("items[1]", How.REMOVE), {**DOCUMENT, "items": [{"card": "4111-1111", "qty": 2}]}),
        (("items[*]", How.REMOVE), {**DOCUMENT, "items": []}),
        (("**.qty", How.MASK), {**DOCUMENT, "items": [{"card": "4111-1111", "qty": "*"}, {"card": None, "qty": "*"}]}),
        (("**.email", How.REPLACE), {**DOCUMENT, "customer": {"name": "Ann", "email": "***"}}),
        (("*.name", How.REPLACE), {**DOCUMENT, "customer": {"name": "***", "email": "ann@x.org"}}),
        (('["e.mail"]', How.MASK), {**DOCUMENT, "e.mail": "* *"}),
        (("**.id", How.REPLACE), {**DOCUMENT, "id": "***"}),
        (("items.card", How.REMOVE), DOCUMENT),
        (("email", How.REMOVE), DOCUMENT),
    ],
)
def test_a_rule_takes_what_its_path_names_and_nothing_else(rule: tuple[str, How], left: object) -> None:
    assert shown(DOCUMENT, masking(rule)) == left


def test_the_strictest_of_several_rules_holds() -> None:
    rules = masking(("customer", How.MASK), ("customer.email", How.REMOVE), ("**.email", How.REPLACE))

    assert shown(DOCUMENT, rules) == {**DOCUMENT, "customer": {"name": "***"}}


def test_a_name_cannot_be_hidden_from_a_rule() -> None:
    """By writing it with escapes, or twice."""
    found = masking(("email", How.REMOVE)).show(b'{"\\u0065mail":"ann@x.org","a":1,"email":{"email":"b"}}', TOPICS)

    assert json.loads(found.text) == {"a": 1}
    assert "ann" not in found.text


@given(
    st.recursive(
        st.just("secret"), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner)
    )
)
def test_nothing_of_a_masked_field_is_left_however_it_is_nested(value: object) -> None:
    assert "secret" not in masking("**.a").show(json.dumps({"a": value}).encode(), TOPICS).text
    assert "secret" not in masking(("**.a", How.MASK)).show(json.dumps([{"a": value}]).encode(), TOPICS).text


@pytest.mark.parametrize("data", [b"ann@x.org", b"\xff\0", b'{"a":', b"17", b"[" * 70 + b"]" * 70])
def test_of_what_cannot_be_read_nothing_is_shown_where_there_is_a_rule(data: bytes) -> None:
    found = masking("customer.email").show(data, TOPICS)

    assert (found.kind, found.text, found.size_bytes) == ("hidden", "", len(data))


def test_masks_are_for_avro_too(avro: Avro[object]) -> None:
    data = avro.encode({"qty": 17, "at": AT, "raw": b"\x01"}, "orders")

    found = masking(("raw", How.REMOVE)).value(letter(value=data), avro)

    assert json.loads(found.text) == {"qty": 17, "at": "2026-11-28T14:00:00Z"}


@pytest.mark.parametrize(
    ("topics", "hidden"), [("orders", True), (".*\\.dlq", True), ("order", False), ("rders", False)]
)
def test_a_rule_is_for_topics_whose_whole_name_fits(topics: str, hidden: bool) -> None:
    """The topic where the record was first, or the one with its letter."""
    assert (masking("a", topics=topics).value(letter(value=b"text")).kind == "hidden") is hidden


def test_keys_and_headers_have_rules_of_their_own() -> None:
    one = letter(b'{"id":1}', b'{"id":1}', [("token", b"abc"), ("mail", b"a@b"), ("raw", b"\xff"), ("x", None)])
    rules = [MaskingRule("orders", "id", part=Part.KEY)]
    rules += [
        MaskingRule("orders", name, how, Part.HEADER) for name, how in (("token", How.REMOVE), ("mail", How.MASK))
    ]
    showing = Showing(masking=Masking([*rules, MaskingRule("orders", "raw", How.MASK, Part.HEADER)]))

    assert json.loads(showing.key(one).text) == {"id": "***"}
    assert json.loads(showing.value(one).text) == {"id": 1}
    assert [(name, shown.kind, shown.text) for name, shown in showing.headers(one)] == [
        ("mail", "text", "*@*"),
        ("raw", "text", "***"),
        ("x", "null", ""),
    ]


@pytest.mark.parametrize("path", ["", "a..b", "a b", "items[", "items[x]", ".a", "a.", "**", "a.**", '["a]'])
def test_a_path_that_cannot_be_meant_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="masking path"):
        MaskingRule("orders", path)


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="masking topics"):
        MaskingRule("(", "a")


@pytest.mark.parametrize(
    ("name", "how", "rule"),
    [
        ("customer.email", "mask", MaskingRule(".*", "customer.email", How.MASK)),
        ("**.password", "remove", MaskingRule(".*", "**.password", How.REMOVE)),
        ("header:authorization", "replace", MaskingRule(".*", "authorization", part=Part.HEADER)),
        ("orders.* key:id", "mask", MaskingRule("orders.*", "id", How.MASK, Part.KEY)),
    ],
)
def test_rules_are_written_in_the_configuration_as_a_path_and_what_becomes_of_it(
    name: str, how: str, rule: MaskingRule
) -> None:
    assert rule_of(name, how) == rule


@pytest.mark.parametrize(
    ("name", "how", "told"),
    [
        ("a", "delete", "expected mask, replace, remove, got 'delete'"),
        ("haeder:a", "mask", "'haeder' is no part of a record; did you mean 'header'?"),
        ("( a", "mask", "not a regular expression"),
        ("a..b", "mask", "cannot be read from '..b' on"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_where_it_is_read(name: str, how: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        rule_of(name, how)


@pytest.mark.parametrize(
    ("rules", "is_masked"),
    [(["a"], True), (["b.c"], True), (["b.d"], False), ([("a", How.REMOVE)], True), (["list[*].x"], True), ([], False)],
)
def test_it_is_said_whether_something_is_masked_so_that_nobody_edits_it(
    rules: list[tuple[str, How] | str], is_masked: bool
) -> None:
    value = json.dumps({"a": 1, "b": {"c": 2}, "list": [{"x": 3}]}).encode()

    assert masking(*rules).show(value, TOPICS).masked is is_masked
    assert masking(*rules).show(b"\xff", TOPICS).masked is bool(rules)


def test_what_is_behind_the_part_that_is_shown_counts_as_masked_where_there_are_rules() -> None:
    value = json.dumps({"long": "x" * 100, "a": 1}).encode()
    showing = Showing(masking=Masking([MaskingRule(".*", "a")]), max_chars=50)

    assert (showing.show(value, TOPICS).cut, showing.show(value, TOPICS).masked) == (True, True)
    assert not Showing(max_chars=50).show(value, TOPICS).masked


def test_masked_text_keeps_its_punctuation() -> None:
    assert masked("Ann Ö. <ann@x.org>") == "*** *. <***@*.***>"
    assert masked("हिन्दी") == "*" * 6
