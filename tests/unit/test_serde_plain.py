from __future__ import annotations

import pytest

from streamworker.errors import DecodeError
from streamworker.serde import Bytes, Text


def test_bytes_are_handed_over_without_a_copy_and_say_that_decoding_can_be_left_out() -> None:
    data = b"\xff" * 100

    assert Bytes().decode(data, "t") is data
    assert Bytes.passthrough


def test_text_that_is_not_utf_8_names_the_byte_and_not_the_content() -> None:
    with pytest.raises(DecodeError, match=r"^not UTF-8: invalid start byte at byte 6 of 7$"):
        Text().decode(b"secret\xff", "t")
