"""Targets that fail on purpose, each in its way: they show that a campaign would notice."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from fuzz.target import target
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fuzz.target import Target


def _raise(number: int) -> None:
    assert number < 1000, "too large"


def _crash(number: int) -> None:
    if number > 1000:
        os.kill(os.getpid(), signal.SIGSEGV)


def _hang(number: int) -> None:
    while number > 1000:
        """For ever."""


_NUMBERS = st.integers(0, 100_000)
TARGETS: Mapping[str, Target] = {
    one.name: one
    for one in (
        target("raises", _NUMBERS, _raise),
        target("crashes", _NUMBERS, _crash),
        target("hangs", _NUMBERS, _hang),
        target("is-well", _NUMBERS, lambda _number: None),
    )
}
