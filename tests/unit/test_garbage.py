"""When the interpreter looks for garbage."""

from __future__ import annotations

import gc

import pytest

from streamworker.garbage import seldom_collected


def test_what_is_there_is_not_looked_at_and_what_comes_seldom() -> None:
    with seldom_collected():
        inside = gc.get_threshold()[0], gc.get_freeze_count() > 0

    assert inside == (50_000, True)


def test_afterwards_all_is_as_it_was_also_after_an_error() -> None:
    before = gc.get_threshold()

    with pytest.raises(ValueError, match="some"), seldom_collected():
        raise ValueError("some")

    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)
