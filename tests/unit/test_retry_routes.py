"""Names of retry topics, where a record goes next, and what is believed of one that comes back."""

from __future__ import annotations

import pytest

from streamworker import ConfigurationError, DeadLetter, Handler, Retry, RetryTopic, TopicPartition
from streamworker.declaration import declaration
from streamworker.dlq.retries import returned
from streamworker.dlq.routes import Routes, retry_topic
from streamworker.record import Origin, calls_before, origin_of, read_headers, timestamp_ms_of
from streamworker.testing.memory_broker import MemoryMessage

AT = TopicPartition("orders.retry.g.1", 3)
SAID: dict[str, bytes | None] = {
    "sw-origin-topic": b"orders",
    "sw-origin-partition": b"2",
    "sw-origin-offset": b"17",
    "sw-origin-timestamp": b"1000",
    "sw-attempts": b"4",
    "sw-due": b"61000",
}


class Orders(Handler[bytes]):
    topics = ("orders", "returns")
    retry = Retry(topics=(RetryTopic(delay_s=60), RetryTopic(delay_s=600, attempts=2)))
    dead_letter = DeadLetter("dlq")

    def handle(self, record: object) -> None: ...


def message(**said: bytes | None) -> MemoryMessage:
    headers = {**SAID, **{name.replace("_", "-"): value for name, value in said.items()}}
    return MemoryMessage(AT, 5, key=b"k", value=b"v", headers=list(headers.items()), timestamp_ms=9_999)


@pytest.mark.parametrize(
    ("topic", "group", "name"),
    [
        ("orders", "billing", "orders.retry.billing.2"),
        ("orders", "team a/billing", "orders.retry.team_a_billing.2"),
    ],
)
def test_a_retry_topic_is_named_after_topic_group_and_level(topic: str, group: str, name: str) -> None:
    assert retry_topic(topic, group, 2) == name


def test_names_that_are_too_long_are_cut_and_stay_apart() -> None:
    names = {retry_topic("t" * 240, f"group-{number}", level) for number in range(3) for level in (1, 2)}

    assert len(names) == 6
    assert max(map(len, names)) == 249


def test_each_topic_of_a_handler_has_retry_topics_of_its_own_in_the_order_of_their_levels() -> None:
    routes = Routes([declaration(Orders)], "g")

    first = routes.after("returns", 0)
    assert first is not None
    assert (first.name, first.topic, first.level, first.delay_s) == ("returns.retry.g.1", "returns", 1, 60)
    second = routes.after("returns", 1)
    assert second is not None
    assert (second.name, second.attempts) == ("returns.retry.g.2", 2)
    assert routes.after("returns", 2) is None
    assert routes.of("returns.retry.g.2") == second
    assert routes.of("returns") is None
    assert len(routes.retries) == 4


@pytest.mark.parametrize(("topics", "letters"), [(("orders.retry.g.1",), "dlq"), (("other",), "orders.retry.g.1")])
def test_a_retry_topic_is_not_used_for_anything_else(topics: tuple[str, ...], letters: str) -> None:
    class Other(Orders):
        retry = Retry()
        dead_letter = DeadLetter(letters)

    setattr(Other, "topics", topics)  # noqa: B010 - a class attribute that mypy holds to be of the base's type

    with pytest.raises(ConfigurationError, match=r"'orders\.retry\.g\.1' is the name of a retry topic"):
        Routes([declaration(Orders), declaration(Other)], "g")


def test_a_record_that_comes_back_knows_where_it_was_first_and_is_its_bytes() -> None:
    one = returned(message())

    assert origin_of(one) == Origin("orders", 2, 17)
    assert (one.topic(), one.partition(), one.offset()) == (*AT, 5)
    assert (one.key(), one.value(), len(one)) == (b"k", b"v", 1)
    assert timestamp_ms_of(one) == 1000
    assert (calls_before(one), one.due_ms) == (4, 61_000)
    assert read_headers(one).last("sw-due") == b"61000"


def test_a_record_that_had_no_timestamp_first_has_none_when_it_comes_back() -> None:
    assert timestamp_ms_of(returned(message(sw_origin_timestamp=None))) is None


@pytest.mark.parametrize("text", [b"", b"-1", b"1e3", b"soon", b"9" * 5000, b"\xff", None])
def test_a_number_that_is_none_is_not_believed(text: bytes | None) -> None:
    assert returned(message(sw_due=text)).due_ms == 0
    assert returned(message(sw_attempts=text)).calls == 0
    assert returned(message(sw_origin_offset=text)).origin == Origin(*AT, 5)


@pytest.mark.parametrize(
    ("options", "message_of_error"),
    [
        ({"delay_s": 0.5}, "RetryTopic.delay_s: expected at least 1, got 0.5"),
        ({"delay_s": 10**6}, "RetryTopic.delay_s: expected at most 604800, got 1000000"),
        ({"delay_s": 60, "attempts": 0}, "RetryTopic.attempts: expected at least 1, got 0"),
    ],
)
def test_a_retry_topic_that_cannot_work_is_refused(options: dict[str, float], message_of_error: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        RetryTopic(**options)  # type: ignore[arg-type]  # a float for attempts is among them

    assert str(refusal.value) == message_of_error


def test_topics_that_are_no_retry_topics_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"Retry\.topics: expected a tuple, \(RetryTopic\(delay_s=60\),\)"):
        Retry(topics=(60, 600))  # type: ignore[arg-type]
