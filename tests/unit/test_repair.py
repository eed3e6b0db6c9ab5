"""Mending values: in which form, and what is refused."""

from __future__ import annotations

from types import ModuleType
from typing import cast

import msgspec
import pytest

from streamworker import Json
from streamworker.errors import ConfigurationError
from streamworker.repairs import repair, repair_called, repairs_in
from streamworker.replay.repair import NotRepaired, ValueForm, diff


class Order(msgspec.Struct):
    id: int
    status: str


UNTYPED = ValueForm("orders")
TYPED = ValueForm("orders", Json(Order))


def test_json_is_edited_with_line_ends_and_sent_as_it_was_written() -> None:
    text = UNTYPED.text(b'{"b":1,"a":[1,2]}')

    assert text == '{\n  "b": 1,\n  "a": [\n    1,\n    2\n  ]\n}'
    assert UNTYPED.edited(b'{"b":1}', ' {"b": 1.50}\n') == b'{"b": 1.50}'


def test_what_was_json_stays_json() -> None:
    with pytest.raises(NotRepaired, match="it is not JSON"):
        UNTYPED.edited(b'{"b":1}', '{"b":')

    assert UNTYPED.edited(b"not json", "still not\n") == b"still not\n"


def test_a_value_must_fit_the_type_of_the_handler() -> None:
    assert TYPED.edited(b'{"id":"x"}', '{"id":1,"status":"new"}') == b'{"id":1,"status":"new"}'
    with pytest.raises(NotRepaired, match=r"it does not fit: .*status"):
        TYPED.edited(b'{"id":"x"}', '{"id":1}')


def test_what_cannot_be_edited_says_why() -> None:
    with pytest.raises(NotRepaired, match="it has no value"):
        UNTYPED.text(None)
    with pytest.raises(NotRepaired, match="not text"):
        UNTYPED.text(b"\xff\xfe\x00")


def test_json_that_nests_deeper_than_anybody_reads_is_text() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000

    assert UNTYPED.text(deep) == deep.decode()


@repair("status-as-word")
def status_as_word(value: dict[str, object]) -> dict[str, object] | None:
    if isinstance(value["status"], str):
        return None
    return {**value, "status": {1: "new", 2: "paid"}[cast("int", value["status"])]}


def test_a_function_mends_what_it_can_and_leaves_the_rest() -> None:
    assert TYPED.mended(status_as_word, b'{"id":1,"status":2}') == b'{"id":1,"status":"paid"}'
    assert TYPED.mended(status_as_word, b'{"id":1,"status":"paid"}') is None


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b'{"id":1,"status":9}', "the repair raised KeyError: 9"),
        (b'{"id":"one","status":1}', "it does not fit"),
        (b"\xff", "its value cannot be read"),
        (None, "it has no value"),
    ],
)
def test_what_a_function_cannot_mend_is_left_with_the_reason(value: bytes | None, why: str) -> None:
    with pytest.raises(NotRepaired, match=why):
        TYPED.mended(status_as_word, value)


def test_repairs_are_found_by_name_and_a_wrong_name_leads_to_the_nearest() -> None:
    module = ModuleType("repairs")
    vars(module).update(one=status_as_word, again=status_as_word, other=len)

    known = repairs_in([module])

    assert repair_called("status-as-word", known) is status_as_word
    with pytest.raises(ConfigurationError, match="did you mean 'status-as-word'"):
        repair_called("status-as-words", known)


def test_two_repairs_of_one_name_are_refused() -> None:
    module = ModuleType("repairs")
    vars(module).update(one=status_as_word, other=repair("status-as-word")(lambda value: value))

    with pytest.raises(ConfigurationError, match="two repairs are called"):
        repairs_in([module])


def test_a_diff_shows_what_changed() -> None:
    assert diff('{\n "a": 1\n}', '{\n "a": 2\n}') == ["@@ -1,3 +1,3 @@", " {", '- "a": 1', '+ "a": 2', " }"]
    assert diff("same", "same") == []
