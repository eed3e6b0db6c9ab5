"""What a handler would make of a repaired value: each step in words, and a child process that cannot do harm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import previewed
import pytest
from memory_desk import dead

from streamworker.declaration import declaration
from streamworker.replay.preview import steps_of

if TYPE_CHECKING:
    from streamworker.replay.desk import Step

GOOD = b'{"order": 7, "currency": "EUR"}'
BAD = b'{"order": 7, "currency": "XXX"}'


def last(handler: type[previewed.Plain], value: bytes | None = GOOD, timeout_s: float = 30) -> Step:
    return steps_of(declaration(handler), dead(0, 1), value, timeout_s=timeout_s)[-1]


def test_a_value_that_does_not_fit_its_type_is_not_tried_further() -> None:
    (step,) = steps_of(declaration(previewed.Says), dead(0, 1), b'{"order": "7", "currency": "EUR"}')

    assert (step.name, step.passed) == ("decode", False)
    assert "order" in step.text


def test_a_handler_that_says_nothing_of_previews_is_not_called() -> None:
    decoded, step = steps_of(declaration(previewed.Plain), dead(0, 1), GOOD)

    assert (decoded.passed, decoded.text) == (True, "Order(order=7, currency='EUR')")
    assert (step.passed, step.text) == (None, "Plain says nothing of previews")


def test_a_method_of_the_handler_tells_what_it_would_do() -> None:
    step = last(previewed.Says)

    assert (step.name, step.passed, step.text) == ("preview", True, "would book 7 for b'acme' of orders")


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (previewed.Fails, "ValueError: no rate for EUR"),
        (previewed.Dies, "it ended without an answer, code 7"),
        (previewed.Fills, "MemoryError"),
    ],
)
def test_a_method_that_fails_dies_or_fills_the_memory_is_said_to(handler: type[previewed.Plain], text: str) -> None:
    step = last(handler)

    assert (step.name, step.passed) == ("preview", False)
    assert step.text.startswith(text)


def test_a_method_that_hangs_is_ended() -> None:
    step = last(previewed.Hangs, timeout_s=1)

    assert (step.passed, step.text) == (False, "it did not end within 1 s")


def test_the_child_knows_no_variable_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMWORKER_SECRET", "s3cret")

    assert "SECRET" not in last(previewed.Spies).text


def test_a_handler_is_tried_whole_with_what_it_writes_kept_in_memory() -> None:
    step = last(previewed.Stores)

    assert (step.name, step.passed, step.text) == ("handle", True, "handled; it would write {'id': 7}")


def test_a_handler_that_would_fail_again_says_why() -> None:
    step = last(previewed.Stores, BAD)

    assert (step.passed, step.text) == (False, "ValueError: no rate for XXX")


def test_a_tombstone_is_tried_too() -> None:
    assert steps_of(declaration(previewed.Plain), dead(0, 1), None)[0].text == "null"
