"""Dead letters as lines of a file: what they say, what is masked, and what an edited line comes to."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import TYPE_CHECKING

import msgspec
import pytest
from dead_letters import NOW_MS, TOPIC, letter
from hypothesis import given
from hypothesis import strategies as st

from streamworker.errors import ConfigurationError
from streamworker.record import Origin
from streamworker.replay.dead_record import LetterId, Pointer
from streamworker.replay.exports import Exporter, import_lines
from streamworker.replay.masking import How, Masking, MaskingRule, Part
from streamworker.replay.repair import NotRepaired
from streamworker.replay.showing import Showing
from streamworker.replay.states import State, digest

if TYPE_CHECKING:
    from streamworker.replay.dead_record import DeadRecord


def exporter(*rules: MaskingRule, as_text: bool = False) -> Exporter:
    return Exporter(Showing(masking=Masking(rules), max_chars=None), lambda _: None, as_text=as_text)


def exported(one: DeadRecord, *rules: MaskingRule, as_text: bool = False) -> dict[str, object]:
    line = exporter(*rules, as_text=as_text).line(one, State.PENDING)
    assert line.endswith(b"\n")
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def plain(text: object) -> bytes:
    return base64.b64decode(str(text), validate=True)


def edited(one: DeadRecord, value: bytes | None, /, **changes: object) -> bytes:
    """The exported line with another value."""
    shown = None if value is None else base64.b64encode(value).decode()
    return json.dumps({**exported(one), "value": shown, **changes}).encode()


def test_a_line_says_what_the_letter_says_with_bytes_as_base64() -> None:
    one = letter(
        3, 1042, key=b"\xff\x00", value=b'{"qty":"a"}', group="shop", reason="poison", own_headers=(("trace", b"\x80"),)
    )

    found = exported(one)

    assert found == {
        "topic": TOPIC,
        "id": "3:1042",
        "state": "pending",
        "written_ms": NOW_MS,
        "family": "streamworker",
        "origin": {"topic": "orders", "partition": 3, "offset": 1042},
        "group": "shop",
        "reason": "poison",
        "headers": [["trace", "gA=="]],
        "key": "/wA=",
        "value": "eyJxdHkiOiJhIn0=",
        "sha256": digest(one.value),
    }


def test_values_that_are_text_are_text_where_that_is_asked_for() -> None:
    readable = exported(letter(value="größer".encode()), as_text=True)
    other = exported(letter(value=b"\xff"), as_text=True)

    assert (readable["text"], "value" in readable) == ("größer", False)
    assert (other["value"], "text" in other) == ("/w==", False)


def test_what_is_masked_on_screens_is_masked_in_the_file_and_its_hash_is_not_there() -> None:
    one = letter(key=b'{"id":7}', value=b'{"pin":"1234","qty":1}', own_headers=(("auth", b"s3cret"), ("trace", b"t")))
    rules = (
        MaskingRule("orders", "pin"),
        MaskingRule("orders", "id", part=Part.KEY),
        MaskingRule("orders", "auth", part=Part.HEADER),
    )

    found = exported(msgspec.structs.replace(one, origin_topic="orders"), *rules)

    assert found["masked"] == ["key", "value", "headers"]
    assert json.loads(plain(found["value"])) == {"pin": "***", "qty": 1}
    assert json.loads(plain(found["key"])) == {"id": "***"}
    assert found["headers"] == [["auth", base64.b64encode(b"***").decode()], ["trace", "dA=="]]
    assert "sha256" not in found


def test_a_header_that_is_removed_is_not_in_the_file() -> None:
    one = letter(own_headers=(("auth", b"s3cret"),))

    found = exported(one, MaskingRule(TOPIC, "auth", How.REMOVE, Part.HEADER))

    assert ("headers" in found, found["masked"]) == (False, ["headers"])


def test_what_cannot_be_read_and_has_a_mask_is_hidden_whole() -> None:
    found = exported(letter(value=b"no document: 1234"), MaskingRule(TOPIC, "pin"))

    assert (found["value"], found["masked"]) == ("", ["value"])


def test_a_file_as_it_was_exported_has_no_edits() -> None:
    letters = [letter(0, 1, value=b"one"), letter(0, 2, value=None), letter(1, 0, value="zwölf".encode())]

    for as_text in (False, True):
        lines = [exporter(as_text=as_text).line(one, State.PENDING) for one in letters]
        imported = import_lines([*lines, b"\n"], TOPIC)

        assert (imported.edits, imported.unchanged) == ({}, 3)


def test_an_edited_value_is_for_the_letter_that_it_was_exported_of() -> None:
    one = letter(0, 7, value=b"before")

    imported = import_lines([edited(one, b"after")], TOPIC)

    assert imported.ids == [LetterId(0, 7)]
    assert imported.value_for(one) == b"after"
    assert import_lines([edited(one, None, text="ä")], TOPIC).value_for(one) == "ä".encode()


def test_a_letter_with_another_value_than_was_exported_is_left_alone() -> None:
    imported = import_lines([edited(letter(0, 7, value=b"before"), b"after")], TOPIC)

    with pytest.raises(NotRepaired, match="another SHA-256"):
        imported.value_for(letter(0, 7, value=b"changed meanwhile"))
    with pytest.raises(NotRepaired, match="no value for it"):
        imported.value_for(letter(0, 8, value=b"before"))


def test_nothing_but_the_value_of_a_line_counts() -> None:
    """A file comes from anywhere: it may not say where a copy goes, nor what is known of the letter."""
    one = letter(0, 7, value=b"before")

    lines = [
        edited(one, b"after", group="evil", headers=[["sw-target-group", "ZXZpbA=="]], origin=None, state="replayed")
    ]
    imported = import_lines(lines, TOPIC)

    assert imported.edits == import_lines([edited(one, b"after")], TOPIC).edits


def test_a_plan_knows_a_file_by_what_was_edited_in_it() -> None:
    one, two = letter(0, 1, value=b"one"), letter(0, 2, value=b"two")

    def name(*lines: bytes) -> str:
        return import_lines(lines, TOPIC).name

    assert name(edited(one, b"1"), edited(two, b"2")) == name(edited(two, b"2"), edited(one, b"1"))
    assert len({name(edited(one, b"1")), name(edited(one, b"2")), name(edited(two, b"1"))}) == 3


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"topic": "other.dlq"}, "line 1: it is of 'other.dlq', not of 'orders.dlq'"),
        ({"v": 2}, "line 1: expected version 1, got 2"),
        ({"id": "7"}, "line 1: expected a dead letter as PARTITION:OFFSET"),
        ({"value": "no base64!"}, "line 1: its value is no base64"),
        ({"text": "too"}, "line 1: expected its value in `value` or in `text`, not in both"),
        ({"value": None}, "line 1: an edited value cannot be nothing"),
        ({"masked": ["value"]}, "line 1: something of its value was masked"),
        ({"id": 7}, r"line 1: expected a line of `streamworker dlq export`.*`\$.id`"),
    ],
)
def test_a_line_that_cannot_be_meant_is_refused(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        import_lines([edited(letter(), b"after", **changes)], TOPIC)


def test_a_letter_is_edited_once() -> None:
    with pytest.raises(ConfigurationError, match="line 3: there was a line for 0:0 before"):
        import_lines([edited(letter(), b"1"), b"", edited(letter(), b"2")], TOPIC)


def test_a_value_that_was_not_there_cannot_be_edited() -> None:
    gone = letter(value=None, pointer=Pointer("ab" * 32, 9_000_000, Origin("orders", 0, 5)))

    assert exported(gone)["value_at"] == {"topic": "orders", "partition": 0, "offset": 5}
    with pytest.raises(ConfigurationError, match="its value was not there when it was exported"):
        import_lines([edited(gone, b"after")], TOPIC)


@given(
    values=st.lists(st.none() | st.binary(max_size=20) | st.text(max_size=10).map(str.encode), max_size=5),
    as_text=st.booleans(),
)
def test_what_is_exported_and_not_edited_is_unchanged_whatever_its_bytes(
    values: list[bytes | None], as_text: bool
) -> None:
    letters = [letter(0, offset, value=value, key=value) for offset, value in enumerate(values)]

    lines = [exporter(as_text=as_text).line(one, State.PENDING) for one in letters]

    assert import_lines(lines, TOPIC).edits == {}


@given(
    line=st.binary(max_size=60)
    | st.dictionaries(
        st.sampled_from(["v", "topic", "id", "state", "value", "text"]), st.none() | st.integers() | st.text(max_size=5)
    ).map(lambda one: json.dumps(one).encode())
)
def test_no_line_is_more_than_refused(line: bytes) -> None:
    with pytest.raises(ConfigurationError, match=r"^line 1: ") if line.strip() else contextlib.nullcontext():
        import_lines([line], TOPIC)
