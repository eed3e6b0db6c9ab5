"""What a dead letter holds: the record byte for byte, and headers that say where from and why."""

from __future__ import annotations

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

HEADERS = st.lists(st.tuples(st.text(max_size=12) | st.just("sw-id"), st.none() | st.binary(max_size=12)), max_size=8)


def message_of(
    key: bytes | None = b"k",
    value: bytes | None = b"v",
    headers: Sequence[Header] = (),
    timestamp: tuple[int, int] = (1, 1_700_000_000_000),
) -> Message:
    message = confluent_kafka.Message(
        topic="orders", partition=5, offset=1207, key=key, value=value, headers=list(headers), timestamp=timestamp
    )
    return cast("Message", message)  # the client's stubs allow for messages without coordinates


def enveloped(
    message: Message | None = None,
    error: BaseException | None = None,
    attempt_log: Sequence[Attempt] = (),
    group: str = "billing",
) -> Envelope:
    return envelope(
        message_of() if message is None else message,  # a message without a value is falsy
        topic="orders.dlq",
        group=group,
        handler="StoreOrders",
        reason=Reason.EXHAUSTED,
        error=error or ValueError("no such customer"),
        attempts=4,
        attempt_log=attempt_log,
        now_ms=1_800_000_000_000,
        max_bytes=1_000_000,
    )


def whole(dead_letter: Envelope, partition_count: int = 3) -> Letter:
    return next(dead_letter.letters(partition_count))


def ours(letter: Letter) -> dict[str, str]:
    """Read our headers the way a console would: text, each name once."""
    pairs = [(name, (value or b"").decode()) for name, value in letter.headers if name.startswith("sw-")]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@given(
    key=st.none() | st.binary(max_size=64),
    value=st.none() | st.binary(max_size=256),
    headers=HEADERS,
)
def test_key_value_and_headers_come_through_byte_for_byte(
    key: bytes | None, value: bytes | None, headers: list[Header]
) -> None:
    letter = whole(enveloped(message_of(key, value, headers)))

    assert (letter.key, letter.value) == (key, value)
    own = [header for header in headers if not header[0].startswith("sw-")]
    assert letter.headers[: len(own)] == own
    assert all(name.startswith("sw-") for name, _ in letter.headers[len(own) :])


def test_our_headers_say_where_from_and_why() -> None:
    letter = whole(enveloped())

    told = ours(letter)
    assert told.pop("sw-fingerprint").isalnum()
    assert told == {
        "sw-version": "1",
        "sw-id": "billing/orders/5/1207",
        "sw-group": "billing",
        "sw-handler": "StoreOrders",
        "sw-origin-topic": "orders",
        "sw-origin-partition": "5",
        "sw-origin-offset": "1207",
        "sw-origin-timestamp": "1700000000000",
        "sw-from-topic": "orders",
        "sw-from-partition": "5",
        "sw-from-offset": "1207",
        "sw-reason": "exhausted",
        "sw-exception": "ValueError",
        "sw-message": "no such customer",
        "sw-attempts": "4",
    }


def test_a_letter_is_dated_now_and_goes_to_the_source_partition_modulo_the_count() -> None:
    letter = whole(enveloped(), partition_count=3)

    assert letter.timestamp_ms == 1_800_000_000_000
    assert (letter.topic, letter.partition) == ("orders.dlq", 2)


@pytest.mark.parametrize("timestamp", [(0, 0), (1, -1)])
def test_a_record_without_a_timestamp_has_none_in_its_letter(timestamp: tuple[int, int]) -> None:
    assert "sw-origin-timestamp" not in ours(whole(enveloped(message_of(timestamp=timestamp))))


def test_headers_that_claim_to_be_ours_are_not_copied() -> None:
    forged = [("sw-attempts", b"999"), ("sw-origin-topic", b"other"), ("sw-replay-id", b"x"), ("trace", b"1")]

    letter = whole(enveloped(message_of(headers=forged)))

    told = ours(letter)
    assert told == ours(whole(enveloped()))
    assert letter.headers[0] == ("trace", b"1")


def test_headers_that_cannot_be_read_are_said_to_be() -> None:
    class Unreadable(confluent_kafka.Message):
        def headers(self) -> None:
            raise SystemError

    message = cast("Message", Unreadable(topic="orders", partition=5, offset=1207))

    letter = whole(enveloped(message))

    assert ours(letter)["sw-headers-unreadable"] == "1"
    assert ours(letter)["sw-id"] == "billing/orders/5/1207"


@given(text=st.text(min_size=200))
def test_the_message_is_cut_at_512_bytes_and_at_a_whole_character(text: str) -> None:
    letter = whole(enveloped(error=ValueError(text)))

    cut = ours(letter)["sw-message"]
    assert text.encode("utf-8", "backslashreplace").startswith(cut.encode())
    assert len(cut.encode()) <= 512
    assert len(cut.encode()) >= min(len(text.encode()), 512 - 3)


def test_ten_megabytes_of_error_stay_ten_megabytes_of_error() -> None:
    letter = whole(enveloped(error=ValueError("é" * 10_000_000)))

    assert sum(len(name) + len(value or b"") for name, value in letter.headers) < 1_200


def test_an_error_that_cannot_be_printed_is_still_a_dead_letter() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    letter = whole(enveloped(error=Unprintable()))

    assert ours(letter)["sw-message"] == "<no text: str() raised ZeroDivisionError>"
    assert ours(letter)["sw-exception"].endswith("Unprintable")


def test_text_that_is_not_unicode_is_escaped() -> None:
    letter = whole(enveloped(error=ValueError("file \udcff"), group="gr\udcffup"))

    assert ours(letter)["sw-message"] == r"file \udcff"
    assert ours(letter)["sw-group"] == r"gr\udcffup"


def test_the_attempt_log_has_the_last_ten() -> None:
    attempts = [Attempt.of(at_ms, OSError()) for at_ms in range(14)]

    letter = whole(enveloped(attempt_log=attempts))

    log = json.loads(ours(letter)["sw-attempt-log"])
    assert log == [{"at_ms": at_ms, "error": "OSError"} for at_ms in range(4, 14)]


def test_the_attempt_log_keeps_to_one_kibibyte_by_leaving_out_the_oldest() -> None:
    long_name = type("Error" + "r" * 300, (Exception,), {})
    attempts = [Attempt.of(at_ms, long_name()) for at_ms in range(10)]

    text = ours(whole(enveloped(attempt_log=attempts)))["sw-attempt-log"]

    assert len(text) <= 1024
    assert [attempt["at_ms"] for attempt in json.loads(text)] == [7, 8, 9]


SAME_MISTAKE = [
    ("order 17 is unknown", "order 4711 is unknown"),
    ("<Order object at 0x7f3a>", "<Order object at 0x7fbb>"),
    ("no row 123e4567-e89b-12d3-a456-426614174000", "no row 00000000-0000-4000-8000-00000000abcd"),
    ("can't read 'a.txt'", "can't read 'b.txt'"),
    ('field "qty": got "a"', 'field "qty": got "bb c"'),
    ("cannot decode b'abc'", "cannot decode b'x'"),
    ("commit 1a2b3c4d5e6f not found", "commit ff00ff00ff00ff not found"),
]


@pytest.mark.parametrize(("one", "other"), SAME_MISTAKE)
def test_the_same_mistake_in_another_record_has_the_same_fingerprint(one: str, other: str) -> None:
    prints = {ours(whole(enveloped(error=ValueError(text))))["sw-fingerprint"] for text in (one, other)}

    assert len(prints) == 1


def test_another_class_another_text_or_a_late_difference_has_another_fingerprint() -> None:
    errors = [ValueError("a"), KeyError("a"), ValueError("b"), ValueError("-" * 600 + "a"), ValueError("-" * 600 + "b")]

    prints = {ours(whole(enveloped(error=error)))["sw-fingerprint"] for error in errors}

    assert len(prints) == len(errors)
    assert all(len(fingerprint) == 8 and int(fingerprint, 16) >= 0 for fingerprint in prints)
