"""What is read of dead letters: ours, those of other systems, and damaged ones."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, cast

import confluent_kafka
import msgspec
import pytest
from foreign_letters import FOREIGN_LETTERS, ForeignLetter
from hypothesis import example, given
from hypothesis import strategies as st

from streamworker.dlq.envelope import Attempt, envelope
from streamworker.dlq.replays import Replay, replayed, replayed_headers
from streamworker.reason import Reason
from streamworker.record import Origin
from streamworker.replay.dead_record import DeadRecord, LetterId, Pointer
from streamworker.replay.families import read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.record import Header, Letter, Message

OWN: tuple[Header, ...] = (("tenant", b"acme"), ("trace", None), ("tenant", b"other"))
ORIGIN = Origin("orders", 5, 1207)


def message_of(
    headers: Sequence[Header], key: bytes | None = b"k", value: bytes | None = b"v", topic: str = "orders.dlq"
) -> Message:
    message = confluent_kafka.Message(
        topic=topic,
        partition=2,
        offset=17,
        key=key,
        value=value,
        headers=list(headers),
        timestamp=(1, 1_800_000_000_000),
    )
    return cast("Message", message)  # the client's stubs allow for messages without coordinates


def our_letter(value: bytes = b"v", max_bytes: int = 1_000_000, record: Message | None = None) -> Letter:
    """The largest form of it that fits."""
    made = confluent_kafka.Message(
        topic="orders",
        partition=5,
        offset=1207,
        key=b"k",
        value=value,
        headers=list(OWN),
        timestamp=(1, 1_700_000_000_000),
    )
    written = envelope(
        cast("Message", made) if record is None else record,
        topic="orders.dlq",
        group="billing",
        handler="StoreOrders",
        reason=Reason.EXHAUSTED,
        error=ValueError("no customer 17"),
        attempts=4,
        attempt_log=[Attempt(1_799_999_999_000, "OSError"), Attempt(1_799_999_999_500, "ValueError")],
        now_ms=1_800_000_000_000,
        max_bytes=max_bytes,
    )
    return next(written.letters(3))


def read_ours(letter: Letter, *added: Header) -> DeadRecord:
    return read("orders.dlq", message_of([*letter.headers, *added], letter.key, letter.value))


def test_our_letters_say_all_that_was_written() -> None:
    letter = our_letter()

    found = read_ours(letter)

    assert found == DeadRecord(
        topic="orders.dlq",
        id=LetterId(2, 17),
        written_ms=1_800_000_000_000,
        key=b"k",
        value=b"v",
        headers=found.headers,
        family="streamworker",
        own_headers=found.own_headers,
        origin=ORIGIN,
        origin_topic="orders",
        origin_timestamp_ms=1_700_000_000_000,
        delivered=ORIGIN,
        group="billing",
        handler="StoreOrders",
        reason="exhausted",
        exception="ValueError",
        message="no customer 17",
        fingerprint=found.fingerprint,
        attempts=4,
        attempt_log=(Attempt(1_799_999_999_000, "OSError"), Attempt(1_799_999_999_500, "ValueError")),
        sw_id="billing/orders/5/1207",
    )
    assert list(found.headers) == list(letter.headers)
    assert found.own_headers == OWN
    assert dict(letter.headers)["sw-fingerprint"] == (found.fingerprint or "").encode()


def test_a_letter_that_came_back_says_what_it_came_of() -> None:
    found = read_ours(
        our_letter(),
        ("sw-parent", b"orders.dlq/2/9"),
        ("sw-replay-id", b"7f"),
        ("sw-replay-count", b"2"),
        ("sw-repaired", b"0f" * 32),
        ("sw-parked-behind", b"1206"),
        ("sw-headers-unreadable", b"1"),
    )

    assert (found.parent, found.replay_id, found.replay_count) == ("orders.dlq/2/9", "7f", 2)
    assert (found.repaired_sha256, found.parked_behind) == ("0f" * 32, 1206)
    assert found.headers_lost
    assert found.damaged == ()


def test_what_a_replay_says_of_itself_comes_back_with_the_letter_of_its_failure() -> None:
    first = read_ours(our_letter())
    assert first.origin is not None
    assert first.group is not None
    sent = Replay(
        group=first.group,
        origin=first.origin,
        origin_timestamp_ms=first.origin_timestamp_ms,
        id="7f",
        parent=first.place,
        count=first.replay_count + 1,
        repaired="0f" * 32,
    )
    topic = "orders.dlq.replay.billing"
    headers = replayed_headers(first.own_headers, sent, topic=topic, key=first.key, value=b"mended")
    copy = replayed(message_of(headers, first.key, b"mended", topic))

    found = read_ours(our_letter(record=copy))

    assert (found.origin, found.delivered) == (ORIGIN, Origin(topic, 2, 17))
    assert (found.parent, found.replay_id, found.replay_count) == ("orders.dlq/2/17", "7f", 1)
    assert (found.repaired_sha256, found.sw_id) == ("0f" * 32, first.sw_id)
    assert (found.own_headers, found.value, found.damaged) == (OWN, b"mended", ())


def test_a_letter_without_its_value_points_to_the_record() -> None:
    found = read_ours(our_letter(value=b"v" * 2_000, max_bytes=1_500))

    assert found.value is None
    assert found.trimmed == ("headers", "value")
    assert found.pointer == Pointer(hashlib.sha256(b"v" * 2_000).hexdigest(), 2_000, ORIGIN)
    assert found.own_headers == ()


def test_what_somebody_put_behind_our_headers_the_record_had_not() -> None:
    """Agents that trace add theirs to whatever is produced."""
    found = read_ours(our_letter(), ("traceparent", b"00-1"))

    assert found.family == "streamworker"
    assert found.own_headers == OWN


def test_headers_that_look_like_ours_are_never_the_records_own() -> None:
    """Whoever sends them on to a replay topic would have them believed there."""
    forged: list[Header] = [("sw-signature", b"forged"), ("tenant", b"acme")]

    ours = read("orders.dlq", message_of([*forged, *our_letter().headers]))
    theirs = read("their.dlq", message_of([*forged, ("__dlq.errors.topic", b"orders")]))

    assert ours.own_headers == (("tenant", b"acme"), *OWN)
    assert theirs.own_headers == (("tenant", b"acme"),)


@pytest.mark.parametrize("written", FOREIGN_LETTERS, ids=lambda one: one.name)
def test_letters_of_other_systems_say_what_these_wrote(written: ForeignLetter) -> None:
    found = read("their.dlq", message_of(written.headers, written.key, written.value, "their.dlq"))

    said = {name: value for name, value in msgspec.structs.asdict(found).items() if name in _TOLD}
    origin = written.told.get("origin")
    topic = origin.topic if isinstance(origin, Origin) else None
    assert said == {**dict.fromkeys(_TOLD), "origin_topic": topic, "damaged": (), **written.told, "key": found.key}
    assert (found.family, found.own_headers) == (written.family, tuple(written.own))
    assert found.key == written.told.get("key", written.key)
    assert (found.topic, found.id, found.value) == ("their.dlq", LetterId(2, 17), written.value)


_TOLD = (
    "origin",
    "origin_topic",
    "origin_timestamp_ms",
    "delivered",
    "group",
    "handler",
    "reason",
    "exception",
    "message",
    "stacktrace",
    "attempts",
    "damaged",
    "key",
)


def test_the_same_mistake_has_the_same_fingerprint_whoever_wrote_it_down() -> None:
    """Class and text make it, without what differs from record to record."""
    theirs = read(
        "their.dlq",
        message_of(
            [
                ("__connect.errors.exception.class.name", b"ValueError"),
                ("__connect.errors.exception.message", b"no customer 4"),
            ]
        ),
    )

    assert theirs.fingerprint == read_ours(our_letter()).fingerprint
    assert read("their.dlq", message_of([("tenant", b"acme")])).fingerprint is None


@pytest.mark.parametrize(
    ("header", "value", "field"),
    [
        ("sw-origin-offset", b"-4", "origin"),
        ("sw-origin-offset", b"9223372036854775808", "origin"),
        ("sw-origin-offset", "٣".encode(), "origin"),
        ("sw-origin-offset", b"9" * 100_000, "origin"),
        ("sw-origin-partition", b"2147483648", "origin"),
        ("sw-origin-partition", b"", "origin"),
        ("sw-origin-topic", b"../etc", "origin"),
        ("sw-origin-topic", b"..", "origin_topic"),
        ("sw-origin-topic", b"a" * 250, "origin_topic"),
        ("sw-from-topic", None, "delivered"),
        ("sw-origin-timestamp", b"1.5", "origin_timestamp_ms"),
        ("sw-group", b"\xff", "group"),
        ("sw-group", b"g" * 2_000, "group"),
        ("sw-handler", None, "handler"),
        ("sw-attempts", b"four", "attempts"),
        ("sw-id", b"x" * 2_000, "sw_id"),
        ("sw-pointer", b"[" * 10_000, "pointer"),
        ("sw-pointer", b'{"x":' + b"[" * 10_000, "pointer"),
        ("sw-pointer", b'{"topic":"orders","partition":-1,"offset":1,"sha256":null,"size":null}', "pointer"),
        ("sw-pointer", b'{"topic":"\\ud800","partition":1,"offset":1,"sha256":null,"size":null}', "pointer"),
        ("sw-pointer", b'{"topic":"orders","partition":1,"offset":1,"sha256":"F00","size":9}', "pointer"),
        ("sw-parent", b"\xff", "parent"),
        ("sw-parent", b"orders.dlq/2", "parent"),
        ("sw-replay-id", b"", "replay_id"),
        ("sw-replay-id", b"<b>", "replay_id"),
        ("sw-repaired", b"0F" * 32, "repaired_sha256"),
        ("sw-parked-behind", b"-1", "parked_behind"),
    ],
)
def test_what_cannot_be_read_of_ours_is_named_and_not_believed(header: str, value: bytes | None, field: str) -> None:
    found = read_ours(our_letter(), (header, value))

    assert getattr(found, field) is None
    assert found.damaged == (header,)
    assert found.sw_id == ("billing/orders/5/1207" if header != "sw-id" else None)


@pytest.mark.parametrize(
    "value",
    [
        b"[",
        b'{"at_ms":1}',
        b'[{"at_ms":"1","error":"E"}]',
        b"[" * 10_000,
        b'[{"x":' + b"[" * 10_000,
        b" " * 20_000,
        None,
    ],
)
def test_a_damaged_log_of_attempts_is_named_and_empty(value: bytes | None) -> None:
    found = read_ours(our_letter(), ("sw-attempt-log", value))

    assert (found.attempt_log, found.damaged) == ((), ("sw-attempt-log",))


def test_a_text_that_is_not_utf8_is_shown_as_far_as_it_is() -> None:
    found = read_ours(our_letter(), ("sw-message", b"no \xff stock"))

    assert (found.message, found.damaged) == ("no \ufffd stock", ("sw-message",))
    assert read_ours(our_letter(), ("sw-message", "no \ufffd stock".encode())).damaged == ()


def test_a_letter_of_a_later_version_says_so() -> None:
    found = read_ours(our_letter(), ("sw-version", b"2"))

    assert found.damaged == ("sw-version",)


@pytest.mark.parametrize("value", [b"\x00\x07", b"\xff\xff\xff\xff", b"7", b"", None, b"\0" * 5])
def test_a_binary_number_of_another_length_or_below_zero_is_damaged(value: bytes | None) -> None:
    headers = [("kafka_dlt-original-topic", b"orders"), ("kafka_dlt-original-partition", value)]

    found = read("their.dlq", message_of([*headers, ("kafka_dlt-original-offset", b"\0" * 8)]))

    assert found.origin is None
    assert found.origin_topic == "orders"
    assert found.damaged == ("kafka_dlt-original-partition",)


def test_texts_are_cut_that_are_larger_than_anybody_reads() -> None:
    headers = [
        ("__connect.errors.exception.message", "ü".encode() * 400_000),
        ("__connect.errors.exception.stacktrace", b"s" * 900_000),
    ]

    found = read("their.dlq", message_of(headers))

    assert (found.message, found.stacktrace) == ("ü" * 4_096, "s" * 65_536)
    assert found.damaged == ()


def test_a_letter_with_as_many_headers_as_a_record_can_have_is_read_in_moments() -> None:
    message = message_of([(f"x{number}", b"") for number in range(40_000)])
    began_s = time.thread_time()

    found = read("their.dlq", message)

    assert time.thread_time() - began_s < 0.5  # a tenth of it is usual
    assert len(found.own_headers) == 40_000


class Unreadable:
    """A message of which the client cannot read the headers."""

    def __init__(self) -> None:
        self._message = message_of([])
        self.set_headers = self._message.set_headers
        self.topic, self.partition, self.offset = self._message.topic, self._message.partition, self._message.offset
        self.key, self.value, self.timestamp = self._message.key, self._message.value, self._message.timestamp

    def headers(self) -> list[Header] | None:
        raise SystemError("a header's name is not UTF-8")

    def __len__(self) -> int:
        return len(self._message)


def test_a_letter_whose_headers_the_client_cannot_read_is_a_letter_all_the_same() -> None:
    found = read("their.dlq", Unreadable())

    assert (found.family, found.damaged, found.value) == ("none", ("*",), b"v")


NAMES = sorted(
    {name for letter in FOREIGN_LETTERS for name, _ in letter.headers} | {name for name, _ in our_letter().headers}
)
NAMES += [
    "sw-parent",
    "sw-replay-id",
    "sw-replay-count",
    "sw-repaired",
    "sw-parked-behind",
    "sw-pointer",
    "sw-trimmed",
    "source_key",
    "original_key",
]
VALUES = (
    st.none() | st.binary(max_size=40) | st.sampled_from([b"", b"-1", b"7", b"\0\0\0\7", b"[" * 5_000, b"9" * 50_000])
)


@given(headers=st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=9), VALUES), max_size=60))
def test_no_headers_stop_a_letter_from_being_read(headers: list[Header]) -> None:
    """Damage is told of headers that are there, and what the record had is among what there is."""
    message = message_of(headers)
    began_s = time.thread_time()

    found = read("their.dlq", message)

    assert time.thread_time() - began_s < 0.05
    assert set(found.damaged) <= {name for name, _ in headers}
    assert set(found.own_headers) <= set(headers)
    assert not any(name.startswith("sw-") for name, _ in found.own_headers)
    assert read("their.dlq", message) == found


@example(changed={"sw-group": b""}, left_out=set())
@example(changed={"sw-attempts": b"1000001"}, left_out=set())
@given(
    changed=st.dictionaries(
        st.sampled_from([name for name, _ in our_letter().headers]),
        VALUES | st.integers(0, 2**70).map(lambda n: b"%d" % n),
    ),
    left_out=st.sets(st.sampled_from([name for name, _ in our_letter().headers]), max_size=1),
)
def test_letters_are_read_alike_with_and_without_what_is_rare(
    changed: dict[str, bytes | None], left_out: set[str]
) -> None:
    """Those that have what nearly all have are read in a quicker way."""
    headers = [(name, changed.get(name, value)) for name, value in our_letter().headers if name not in left_out]
    rare: list[Header] = [*headers, ("sw-replay-count", b"0")]

    quick, slow = read("orders.dlq", message_of(headers)), read("orders.dlq", message_of(rare))

    assert msgspec.structs.replace(slow, headers=quick.headers) == quick
