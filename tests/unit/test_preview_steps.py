"""What is said of a letter before it is sent."""

from __future__ import annotations

import pytest

from streamworker import ConfigurationError, Handler, Record
from streamworker.declaration import declaration
from streamworker.options import Preview
from streamworker.replay.previews import Sample, Tried, complete, decoding, steps
from streamworker.serde import Json


class Plain(Handler[dict[str, int]]):
    """Has no preview."""

    topics = ("orders",)
    value = Json(dict[str, int])

    def handle(self, record: Record[dict[str, int]]) -> None:
        """Nothing."""


class Tells(Plain):
    """Has a method."""

    def preview(self, record: Record[dict[str, int]]) -> str:
        return repr(record)


class Tried_(Plain):  # noqa: N801 - apart from what came of it
    """Is tried as it is."""

    preview = "handle"


def sample(value: bytes | None) -> Sample:
    """A record of the handlers' topic."""
    return Sample(topic="orders", partition=0, offset=1, key=None, value=value, headers=(), timestamp_ms=None)


def test_a_class_declares_a_method_or_that_handle_is_tried_or_nothing() -> None:
    declared = [declaration(one).preview for one in (Plain, Tells, Tried_)]

    assert declared == [None, Preview.METHOD, Preview.HANDLE]


@pytest.mark.parametrize("wrong", ["method", "handel", 7, True])
def test_another_preview_is_refused(wrong: object) -> None:
    handler = type("Wrong", (Plain,), {"preview": wrong})

    with pytest.raises(ConfigurationError, match=r'Wrong.preview: expected a method, .* or "handle", got'):
        declaration(handler)


def test_a_preview_that_takes_no_record_is_refused() -> None:
    handler = type("Wrong", (Plain,), {"preview": lambda self: repr(self)})

    with pytest.raises(ConfigurationError, match=r"Wrong.preview: found .*, write preview\(self, record\)"):
        declaration(handler)


def test_without_a_handler_the_schema_is_unknown() -> None:
    decoded = decoding(None, sample(b"{}"))

    assert [(one.name, one.passed) for one in steps(None, decoded, None, hidden=False)] == [("decode", None)]
    assert decoded.told.startswith("schema unknown, sent as it is")


def test_a_value_that_fits_is_said_with_its_type() -> None:
    found = steps(
        declaration(Tells),
        decoding(declaration(Tells), sample(b'{"a": 1}')),
        Tried(passed=True, told="ok"),
        hidden=False,
    )

    assert [(one.name, one.passed) for one in found] == [("decode", True), ("preview", True), ("handle", None)]
    assert found[0].text == "it fits the type of Tells: dict"


def test_a_value_that_does_not_fit_is_not_tried_further() -> None:
    declared = declaration(Tried_)

    found = steps(declared, decoding(declared, sample(b'{"a": "x"}')), None, hidden=False)

    assert [(one.name, one.passed) for one in found] == [("decode", False), ("preview", None), ("handle", None)]
    assert "expected" in found[0].text.lower()
    assert found[2].text == "not tried: it does not fit its type"


def test_what_may_hold_parts_of_a_masked_value_is_left_out() -> None:
    declared = declaration(Tells)

    found = steps(
        declared,
        Tried(passed=False, told="unfit", shown="card 4711"),
        Tried(passed=True, told="it says", shown="card 4711"),
        hidden=True,
    )

    assert not [one for one in found if "4711" in one.text]
    assert found[1].text == "it says: not shown, because some of its value is masked"


def test_a_child_that_ends_early_leaves_one_failure_and_the_rest_untried() -> None:
    found = complete(b'{"passed":true,"told":"ok","shown":""}\n{"passed":tr', 3, "killed")

    assert [(one.passed, one.told) for one in found][:2] == [(True, "ok"), (False, "killed")]
    assert found[2].passed is None
