"""What is left out when a dead letter is too large, and what a pointer says."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, cast

import confluent_kafka
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.dlq.envelope import Attempt, Envelope, envelope
from streamworker.reason import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.record import Header, Letter, Message

FACTS_BYTES = 700  # more than our headers take without the details, less than with those of `enveloped`


def enveloped(
    max_bytes: int,
    *,
    key: bytes | None = b"k",
    value: bytes | None = b"v",
    headers: Sequence[Header] = (),
    reason: str = "poison",
) -> Envelope:
    message = confluent_kafka.Message(
        topic="orders", partition=5, offset=1207, key=key, value=value, headers=list(headers)
    )
    return envelope(
        cast("Message", message),  # the client's stubs allow for messages without coordinates
        topic="orders.dlq",
        group="billing",
        handler="StoreOrders",
        reason=reason,
        error=ValueError("m" * 512),
        attempts=1,
        attempt_log=[Attempt(1, "ValueError")],
        now_ms=1,
        max_bytes=max_bytes,
    )


def first(dead_letter: Envelope) -> Letter:
    return next(dead_letter.letters(1))


def last_value(letter: Letter, name: str) -> str | None:
    return next((str(value, "utf-8") for key, value in reversed(letter.headers) if key == name and value), None)


def size_in_the_log(letter: Letter) -> int:
    """The record as format v2 writes it, lengths at their longest: computed apart from the product's estimate."""
    headers = sum(5 + len(name.encode()) + 5 + len(value or b"") for name, value in letter.headers)
    return 61 + 36 + len(letter.key or b"") + len(letter.value or b"") + headers


def test_a_letter_that_fits_is_whole() -> None:
    letter = first(enveloped(1_000_000, headers=[("trace", b"1")]))

    assert last_value(letter, "sw-trimmed") is None
    assert last_value(letter, "sw-message") == "m" * 512


@pytest.mark.parametrize(
    ("max_bytes", "trimmed"),
    [
        (3_000, None),
        (2_000, "details"),
        (1_500, "details,headers"),
        (900, "details,headers,value"),
        (100, "details,headers,value,key"),
    ],
)
def test_details_go_first_then_the_headers_then_the_value_then_the_key(max_bytes: int, trimmed: str | None) -> None:
    letter = first(enveloped(max_bytes, value=b"v" * 600, headers=[("h", b"x" * 500)]))

    assert last_value(letter, "sw-trimmed") == trimmed


def test_the_value_is_kept_where_leaving_out_headers_is_enough() -> None:
    headers = [("h", b"x" * 1_000)] * 50

    letter = first(enveloped(10_000, value=b"v" * 5_000, headers=headers))

    assert (letter.key, letter.value) == (b"k", b"v" * 5_000)
    assert last_value(letter, "h") is None


def test_a_pointer_says_where_the_value_is_and_how_to_know_it() -> None:
    value = b"v" * 5_000

    letter = first(enveloped(4_000, value=value))

    assert (letter.key, letter.value) == (b"k", None)
    assert json.loads(last_value(letter, "sw-pointer") or "") == {
        "sha256": hashlib.sha256(value).hexdigest(),
        "size": 5_000,
        "topic": "orders",
        "partition": 5,
        "offset": 1207,
    }


def test_a_pointer_has_room_for_the_details() -> None:
    letter = first(enveloped(4_000, value=b"v" * 5_000))

    assert last_value(letter, "sw-message") == "m" * 512


def test_a_skip_is_a_pointer_however_small_the_record() -> None:
    letters = list(enveloped(1_000_000, reason=Reason.SKIPPED).letters(1))

    assert all(letter.value is None and last_value(letter, "sw-pointer") for letter in letters)
    assert last_value(letters[0], "sw-reason") == "skipped"
    assert letters[0].key == b"k"


def test_a_pointer_to_a_tombstone_tells_it_from_an_empty_value() -> None:
    tombstone = first(enveloped(1_000_000, value=None, reason=Reason.SKIPPED))
    empty = first(enveloped(1_000_000, value=b"", reason=Reason.SKIPPED))

    assert json.loads(last_value(tombstone, "sw-pointer") or "")["size"] is None
    assert json.loads(last_value(empty, "sw-pointer") or "")["size"] == 0


def test_where_nothing_fits_the_barest_pointer_is_what_there_is() -> None:
    letters = list(enveloped(1, key=b"k" * 100, value=b"v" * 100).letters(1))

    assert len(letters) == 1
    assert (letters[0].key, letters[0].value) == (None, None)


@given(
    max_bytes=st.integers(FACTS_BYTES, 20_000),
    key_bytes=st.none() | st.integers(0, 5_000),
    value_bytes=st.none() | st.integers(0, 20_000),
    header_bytes=st.lists(st.integers(0, 5_000), max_size=4),
)
def test_forms_fit_and_each_is_smaller_than_the_one_before(
    max_bytes: int, key_bytes: int | None, value_bytes: int | None, header_bytes: list[int]
) -> None:
    dead_letter = enveloped(
        max_bytes,
        key=None if key_bytes is None else b"k" * key_bytes,
        value=None if value_bytes is None else b"v" * value_bytes,
        headers=[("h", b"x" * size) for size in header_bytes],
    )

    letters = list(dead_letter.letters(1))

    sizes = [size_in_the_log(letter) for letter in letters]
    assert sizes == sorted(set(sizes), reverse=True)
    assert len(sizes) == 1 or sizes[0] <= max_bytes
    assert all(last_value(letter, "sw-id") == "billing/orders/5/1207" for letter in letters)


def test_the_forms_can_be_asked_for_again() -> None:
    dead_letter = enveloped(1_000_000, value=b"v" * 5_000)

    assert list(dead_letter.letters(1)) == list(dead_letter.letters(1))
