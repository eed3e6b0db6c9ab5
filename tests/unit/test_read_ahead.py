"""What is made ahead while something else is waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from streamworker.replay.read_ahead import ReadAhead

if TYPE_CHECKING:
    from collections.abc import Iterator


def reading(*items: str | None) -> ReadAhead[str]:
    ahead = ReadAhead[str]()
    ahead.begin(iter(items))
    return ahead


def test_items_come_in_their_order_without_the_rests_between_them() -> None:
    ahead = reading(None, "a", None, None, "b")

    assert [ahead.take(), ahead.take(), ahead.take(), ahead.take()] == ["a", "b", None, None]


def test_one_item_is_made_ahead_and_no_more() -> None:
    ahead = reading(None, "a", "b")

    steps = [ahead.step() for _ in range(4)]

    assert steps == [True, True, False, False]
    assert ahead.take() == "a"
    assert ahead.step()


def test_nothing_is_made_ahead_while_it_is_held() -> None:
    made: list[str] = []
    ahead = ReadAhead[str]()

    def items() -> Iterator[str]:
        made.append("a")
        yield "a"

    ahead.begin(items())
    ahead.held = True
    stepped = ahead.step()
    before = list(made)
    ahead.held = False

    assert (stepped, before) == (False, [])
    assert ahead.take() == "a"


def test_an_error_is_raised_to_who_takes_and_to_nobody_else() -> None:
    def items() -> Iterator[str | None]:
        yield None
        raise ValueError("broken")

    ahead = ReadAhead[str]()
    ahead.begin(items())
    steps = [ahead.step() for _ in range(3)]

    with pytest.raises(ValueError, match="broken"):
        ahead.take()
    assert steps == [True, True, False]


def test_without_anything_to_read_there_is_nothing_to_do() -> None:
    ahead = ReadAhead[str]()

    assert not ahead.step()
    assert ahead.take() is None
