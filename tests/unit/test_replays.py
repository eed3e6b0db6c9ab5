"""What a copy of a dead letter says of itself, what is believed of it, and what its signature holds for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker import ConfigurationError, DeadLetter, Handler, Retry, RetryTopic, TopicPartition
from streamworker.declaration import declaration
from streamworker.dlq.envelope import envelope
from streamworker.dlq.lineage import Lineage, lineage_of, number, origin_said
from streamworker.dlq.replays import Replay, ReplayKey, addressed_to, replayed, replayed_headers
from streamworker.dlq.retries import returned
from streamworker.dlq.routes import Routes, replay_topic
from streamworker.key_file import read_key
from streamworker.reason import Reason
from streamworker.record import Headers, Origin, calls_before, is_repaired, is_replayed, origin_of, timestamp_ms_of
from streamworker.testing.memory_broker import MemoryMessage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from streamworker.record import Header

KEY = ReplayKey(b"0123456789abcdef")
SHA256 = "0" * 64
REPLAY = Replay(
    group="billing",
    origin=Origin("orders", 2, 17),
    origin_timestamp_ms=1000,
    id="op-1:3:42",
    parent="orders.dlq/3/42",
    count=1,
)


class Orders(Handler[bytes]):
    topics = ("orders", "returns")
    retry = Retry(attempts=3, topics=(RetryTopic(delay_s=60),))
    dead_letter = DeadLetter("dlq")

    def handle(self, record: object) -> None: ...


def copy(
    replay: Replay = REPLAY,
    *,
    topic: str = "orders",
    own: Sequence[Header] = (),
    key: bytes | None = b"k",
    value: bytes | None = b"v",
    signed_by: ReplayKey | None = KEY,
) -> MemoryMessage:
    """A copy as it is written and then delivered."""
    headers = replayed_headers(own, replay, topic=topic, key=key, value=value, signed_by=signed_by)
    return MemoryMessage(TopicPartition(topic, 2), 99, key=key, value=value, headers=headers, timestamp_ms=5000)


def changed(message: MemoryMessage, **changes: object) -> MemoryMessage:
    """The same with another topic, key, value or headers."""
    parts: dict[str, object] = {
        "topic": message.topic(),
        "key": message.key(),
        "value": message.value(),
        "headers": message.headers() or (),
    }
    parts |= changes
    at = TopicPartition(str(parts.pop("topic")), message.partition())
    return MemoryMessage(at, message.offset(), timestamp_ms=5000, **parts)  # type: ignore[arg-type]  # by their names


topics = st.text("abc._-", min_size=1, max_size=249)
numbers = st.integers(0, 10**9)
replays = st.builds(
    Replay,
    group=st.text(max_size=60),
    origin=st.none() | st.builds(Origin, topics, numbers, st.integers(0, 10**18 - 1)),
    origin_timestamp_ms=st.none() | numbers,
    id=st.from_regex(r"[A-Za-z0-9._:-]{1,128}", fullmatch=True),
    parent=st.builds("{}/{}/{}".format, topics, numbers, numbers),
    count=st.integers(1, 10**6),
    repaired=st.none() | st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
)
own_headers = st.lists(st.tuples(st.text(max_size=20), st.none() | st.binary(max_size=20)), max_size=5)


@given(replays, own_headers, st.none() | st.binary(max_size=9), st.none() | st.binary(max_size=9))
def test_what_is_written_is_read_back(
    replay: Replay, own: list[Header], key: bytes | None, value: bytes | None
) -> None:
    message = copy(replay, own=own, key=key, value=value)

    headers = Headers(message.headers() or ())

    assert lineage_of(headers) == replay.lineage
    assert origin_said(headers) == replay.origin
    assert number(headers, "sw-origin-timestamp") == replay.origin_timestamp_ms
    assert addressed_to(message, KEY) == replay.group
    assert [one for one in headers if not one[0].startswith("sw-")] == [
        one for one in own if not one[0].startswith("sw-")
    ]


def test_the_records_own_headers_come_first_and_those_of_others_that_look_like_ours_go() -> None:
    message = copy(own=[("trace", b"7"), ("sw-replay-count", b"0"), ("trace", None)], signed_by=None)

    headers = message.headers() or []

    assert headers[:3] == [("trace", b"7"), ("trace", None), ("sw-version", b"1")]
    assert dict(headers[3:]) == {
        "sw-origin-topic": b"orders",
        "sw-origin-partition": b"2",
        "sw-origin-offset": b"17",
        "sw-origin-timestamp": b"1000",
        "sw-parent": b"orders.dlq/3/42",
        "sw-replay-id": b"op-1:3:42",
        "sw-replay-count": b"1",
        "sw-target-group": b"billing",
    }


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"id": "a b"}, "Replay.id"),
        ({"id": ""}, "Replay.id"),
        ({"parent": "orders.dlq/3"}, "Replay.parent"),
        ({"count": 0}, "Replay.count"),
        ({"repaired": "abc"}, "Replay.repaired"),
    ],
)
def test_what_nobody_would_read_back_is_refused(options: dict[str, str | int], complaint: str) -> None:
    said: dict[str, str | int] = {"id": "1", "parent": "d/0/0", "count": 1, **options}

    with pytest.raises(ValueError, match=complaint):
        Replay(group="g", origin=None, origin_timestamp_ms=None, **said)  # type: ignore[arg-type]  # on purpose


def test_a_replayed_record_is_the_one_it_was_first_and_begins_anew() -> None:
    message = copy(own=[("sw-attempts", b"7"), ("sw-due", b"99999999999999")])

    one = replayed(changed(message, headers=[*(message.headers() or ()), ("sw-attempts", b"7"), ("sw-due", b"9" * 14)]))

    assert origin_of(one) == Origin("orders", 2, 17)
    assert timestamp_ms_of(one) == 1000
    assert (calls_before(one), one.due_ms) == (0, 0)
    assert is_replayed(one)
    assert not is_repaired(one)


def test_a_record_in_a_replay_topic_that_says_nothing_is_one_of_its_own() -> None:
    one = replayed(MemoryMessage(TopicPartition("orders.replay.g", 1), 4, value=b"v"))

    assert origin_of(one) == Origin("orders.replay.g", 1, 4)


@pytest.mark.parametrize(
    "changes",
    [
        {"value": b"w"},
        {"value": None},
        {"key": b"l"},
        {"key": None},
        {"topic": "payments"},
    ],
)
def test_a_signature_holds_for_its_topic_key_and_value_only(changes: dict[str, object]) -> None:
    message = changed(copy(), **changes)

    assert addressed_to(message, KEY) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sw-target-group", b"other"),
        ("sw-origin-offset", b"18"),
        ("sw-parent", b"orders.dlq/3/43"),
        ("sw-replay-count", b"9"),
        ("sw-repaired", SHA256.encode()),
        ("sw-new", b""),
    ],
)
def test_a_signature_holds_for_all_of_our_headers_and_for_no_others(name: str, content: bytes) -> None:
    message = copy()
    headers = [one for one in message.headers() or () if one[0] != name]

    assert addressed_to(changed(message, headers=[*headers, (name, content)]), KEY) is None
    assert addressed_to(changed(message, headers=[("trace", b"8"), *(message.headers() or ())]), KEY) == "billing"


@pytest.mark.parametrize("signature", [None, b"", b"0" * 64, b"cut", b"\xff\x00", "ä".encode()])
def test_a_signature_that_is_none_is_not_believed(signature: bytes | None) -> None:
    message = copy(signed_by=None)
    claimed = changed(message, headers=[*(message.headers() or ()), ("sw-signature", signature)])

    assert addressed_to(message, KEY) is None
    assert addressed_to(claimed, KEY) is None


def test_a_cut_signature_and_one_by_another_key_are_not_believed() -> None:
    message = copy(signed_by=ReplayKey(b"another secret..."))
    headers = list(copy().headers() or ())
    name, signature = headers[-1]
    cut = changed(message, headers=[*headers[:-1], (name, (signature or b"")[:-1])])

    assert name == "sw-signature"
    assert addressed_to(message, KEY) is None
    assert addressed_to(cut, KEY) is None


def test_parts_of_a_signed_record_cannot_change_places() -> None:
    """What is signed is more than its parts one after the other."""
    signature = KEY.signature("t", b"ab", b"v", [("sw-a", b"b"), ("sw-c", b"")])

    assert signature != KEY.signature("ta", b"b", b"v", [("sw-a", b"b"), ("sw-c", b"")])
    assert signature != KEY.signature("t", b"ab", b"v", [("sw-ab", b""), ("sw-c", b"")])
    assert signature != KEY.signature("t", b"ab", b"v", [("sw-a", b"b"), ("sw-c", None)])


def test_nothing_shows_the_key() -> None:
    assert repr(KEY) == "<ReplayKey>"
    assert not hasattr(KEY, "__dict__")


def dead_letter_of(message: MemoryMessage) -> Headers:
    letter = envelope(
        replayed(message),
        topic="orders.dlq",
        group="billing",
        handler="Orders",
        reason=Reason.POISON,
        error=ValueError("no"),
        attempts=1,
        attempt_log=(),
        now_ms=1,
        max_bytes=10**6,
    )
    return Headers(next(letter.letters(1)).headers)


def test_what_fails_again_names_its_replay_and_its_parent() -> None:
    repaired = Replay(
        group="billing",
        origin=REPLAY.origin,
        origin_timestamp_ms=None,
        id="x",
        parent="d/0/1",
        count=2,
        repaired=SHA256,
    )
    headers = dead_letter_of(copy(repaired, signed_by=KEY))

    assert lineage_of(headers) == Lineage(parent="d/0/1", replay_id="x", count=2, repaired=SHA256)
    assert headers.last("sw-id") == b"billing/orders/2/17"
    assert (headers.last("sw-from-topic"), headers.last("sw-attempts")) == (b"orders", b"1")
    assert headers.last("sw-target-group") is None
    assert headers.last("sw-signature") is None


@pytest.mark.parametrize(
    "damage",
    [
        ("sw-parent", b"x" * 9000),
        ("sw-parent", b"\xff/1/2"),
        ("sw-replay-id", b"a\nb"),
        ("sw-replay-count", b"-1"),
        ("sw-replay-count", b"9" * 18),
        ("sw-repaired", b"\x1b]52"),
    ],
)
def test_what_cannot_be_read_of_a_lineage_is_not_carried_on(damage: tuple[str, bytes]) -> None:
    headers = dead_letter_of(changed(copy(), headers=[*(copy().headers() or ()), damage]))

    assert headers.last(damage[0]) is None
    assert headers.last("sw-origin-offset") == b"17"


def test_a_copy_in_a_retry_topic_stays_what_was_replayed() -> None:
    repaired = Replay(
        group="g", origin=None, origin_timestamp_ms=None, id="x", parent="d/0/1", count=1, repaired=SHA256
    )
    lineage = list(repaired.lineage.headers)

    one = returned(MemoryMessage(TopicPartition("orders.retry.g.1", 0), 0, headers=lineage))

    assert is_replayed(one)
    assert is_repaired(one)


@pytest.mark.parametrize(
    ("topic", "group", "name"),
    [
        ("orders", "billing", "orders.replay.billing"),
        ("orders", "team a/billing", "orders.replay.team_a_billing"),
    ],
)
def test_a_replay_topic_is_named_after_topic_and_group(topic: str, group: str, name: str) -> None:
    assert replay_topic(topic, group) == name


def test_names_that_are_too_long_are_cut_and_stay_apart() -> None:
    names = {replay_topic("t" * 240, f"group-{number}") for number in range(3)}

    assert len(names) == 3
    assert max(map(len, names)) == 249


def test_each_named_topic_with_dead_letters_has_a_replay_topic_whose_failures_begin_with_the_first_retry() -> None:
    routes = Routes([declaration(Orders)], "g")

    route = routes.of("returns.replay.g")

    assert [one.name for one in routes.replays] == ["orders.replay.g", "returns.replay.g"]
    assert route is not None
    assert (route.topic, route.is_replay, route.attempts, route.delay_s) == ("returns", True, 3, 0)
    following = routes.after(route.topic, route.level)
    assert following is not None
    assert following.name == "returns.retry.g.1"


@pytest.mark.parametrize(
    "options",
    [{"dead_letter": None}, {"dead_letter": DeadLetter("dlq", replay=False)}, {"topics": ("^orders.*",)}],
)
def test_without_dead_letters_or_for_a_pattern_there_is_no_replay_topic(options: dict[str, object]) -> None:
    kind = type("Some", (Orders,), {"retry": Retry(), **options})

    assert Routes([declaration(kind)], "g").all == []


@pytest.mark.parametrize(("topics", "letters"), [(("orders.replay.g",), "dlq"), (("other",), "returns.replay.g")])
def test_a_replay_topic_is_not_used_for_anything_else(topics: tuple[str, ...], letters: str) -> None:
    other = type("Other", (Orders,), {"topics": topics, "retry": Retry(), "dead_letter": DeadLetter(letters)})

    with pytest.raises(ConfigurationError, match=r"is the name of a replay topic, and cannot be used"):
        Routes([declaration(Orders), declaration(other)], "g")


def test_a_key_is_what_its_file_has_without_the_end_of_the_line(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"0123456789abcdef\n")

    assert read_key("replay.key_file", str(file)) == b"0123456789abcdef"


@pytest.mark.parametrize("content", [None, b"", b"too short\n", b"x" * 5000])
def test_a_file_without_a_key_is_refused_and_its_content_is_not_told(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigurationError) as refusal:
        read_key("replay.key_file", str(file))

    assert "replay.key_file" in str(refusal.value)
    assert "too short" not in str(refusal.value)
