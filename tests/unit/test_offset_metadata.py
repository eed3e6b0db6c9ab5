"""The text beside a committed offset."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamworker.offsets import codec


@given(st.integers(0, 10**18 - 1))
def test_the_number_of_a_commit_request_comes_back(request_number: int) -> None:
    text = codec.encode(request_number)

    assert codec.decode(text) == request_number
    assert len(text.encode()) <= codec.MAX_METADATA_BYTES


@given(st.text())
@example("")
@example("sw1 q=")
@example("sw1 q=1 ")
@example(" sw1 q=1")
@example("sw1 q=-1")
@example("sw1 q=1\n")
@example("sw2 q=1")
@example("sw1 q=" + "9" * 5000)
@example("lithops")
def test_what_others_wrote_is_not_ours(text: str) -> None:
    number = codec.decode(text)

    assert number is None or int(text.removeprefix("sw1 q=")) == number


@pytest.mark.parametrize(
    "text", ["", "sw1 q=", "sw1 q=1 ", "SW1 Q=1", "sw1 q=-1", "sw1 q=1\n", "sw2 q=1", "sw1 q=" + "9" * 19]
)
def test_a_near_miss_is_not_ours(text: str) -> None:
    assert codec.decode(text) is None
