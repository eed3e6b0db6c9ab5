"""Dead letters that the broker finds too large are trimmed until it takes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from confluent_kafka import Producer
from fleet.in_process import Running, committed, config, read

from streamworker import DeadLetter, Handler, PoisonError

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers.kafka import SharedKafka

    from streamworker import Record

LIMIT_BYTES = 2000


def test_headers_go_first_then_the_value_and_the_neighbours_stay_whole(
    kafka: SharedKafka, dead_letters_of: Callable[..., str]
) -> None:
    """F-55. Edge cases 56, 59: the partition does not stand still for it."""
    servers, group = kafka.bootstrap_servers, kafka.group("large")
    topic = kafka.topic("in")
    letters_topic = dead_letters_of(topic, max_message_bytes=str(LIMIT_BYTES))
    producer = Producer({"bootstrap.servers": servers})
    small, wide, large = (b"s", [("h", b"x")]), (b"w" * 900, [("h", b"x" * 900)]), (b"l" * 5000, [("h", b"x")])
    for value, headers in (small, wide, large, small):
        producer.produce(topic, value, key=b"k", headers=headers)
    assert producer.flush(30) == 0

    class Poison(Handler[bytes]):
        topics = (topic,)
        dead_letter = DeadLetter(letters_topic)

        def handle(self, record: Record[bytes]) -> None:
            raise PoisonError("p" * 5000)

    with Running(config(servers, group), Poison, until_end=True) as worker:
        assert worker.ended() == 0

    letters = {dict(one.headers() or [])["sw-origin-offset"]: one for one in read(servers, letters_topic, 1, 4)}
    headers = {offset: dict(one.headers() or []) for offset, one in letters.items()}
    assert worker.recorder.of("stopped") == []
    assert committed(servers, group, topic, 1) == {0: 4}
    assert all(one.key() == b"k" for one in letters.values())
    assert [letters[offset].value() for offset in (b"0", b"1", b"3")] == [b"s", b"w" * 900, b"s"]
    assert "sw-trimmed" not in headers[b"0"]
    assert b"headers" in (headers[b"1"]["sw-trimmed"] or b"")
    assert letters[b"2"].value() is None
    assert json.loads(headers[b"2"]["sw-pointer"] or b"")["size"] == 5000
