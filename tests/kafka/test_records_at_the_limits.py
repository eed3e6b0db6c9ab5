"""Records as large as the broker takes, and with times that it sets itself or would not set."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from confluent_kafka import Producer
from fleet.in_process import Running, committed, config, read

from streamworker import DeadLetter, Handler, PoisonError

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers.kafka import SharedKafka

    from streamworker import Record

# What a broker takes unless told otherwise: message.max.bytes, batch and record overhead included.
LIMIT_BYTES = 1_048_588
OVERHEAD_BYTES = 100
ANY_TIME_MS = str(2**63 - 1)
YEAR_9999_MS = 253_402_300_799_000


def test_a_record_as_large_as_the_broker_takes_is_dead_lettered_as_far_as_it_fits(
    kafka: SharedKafka, dead_letters_of: Callable[..., str], figures: Callable[..., None]
) -> None:
    """F-55. With our headers it is too large: its own headers are left out first, then the value."""
    servers, group, topic = kafka.bootstrap_servers, kafka.group("limit"), kafka.topic("in")
    letters_topic = dead_letters_of(topic)
    producer = Producer({"bootstrap.servers": servers, "message.max.bytes": 2 * LIMIT_BYTES, "batch.num.messages": 1})
    largest, wide, small = b"l" * (LIMIT_BYTES - OVERHEAD_BYTES), b"w" * (LIMIT_BYTES - 50_000), b"s"
    for value, own in ((largest, []), (wide, [("h", b"x" * (50_000 - 2 * OVERHEAD_BYTES))]), (small, [])):
        producer.produce(topic, value, key=b"k", headers=list(own))
    assert producer.flush(30) == 0

    class Poison(Handler[bytes]):
        topics = (topic,)
        dead_letter = DeadLetter(letters_topic)

        def handle(self, record: Record[bytes]) -> None:
            raise PoisonError

    with Running(config(servers, group), Poison, max_records=3) as worker:
        assert worker.ended() == 0

    letters = {dict(one.headers() or [])["sw-origin-offset"]: one for one in read(servers, letters_topic, 1, 3)}
    headers = {offset: dict(one.headers() or []) for offset, one in letters.items()}
    assert worker.recorder.of("stopped") == []
    assert committed(servers, group, topic, 1) == {0: 3}
    assert [letters[offset].value() for offset in (b"0", b"1", b"2")] == [None, wide, small]
    assert json.loads(headers[b"0"]["sw-pointer"] or b"")["size"] == len(largest)
    assert [headers[offset].get("sw-trimmed") for offset in (b"1", b"2")] == [b"details,headers", None]
    figures("F-55", "records as large as the broker takes", records=3, pointers=1, lost=0)


def test_times_that_the_broker_sets_or_that_are_none_harm_nobody(
    kafka: SharedKafka, figures: Callable[..., None]
) -> None:
    """F-57. The time of appending is as good as any; what is beyond the calendar is None."""
    servers, group, began_ms = kafka.bootstrap_servers, kafka.group("times"), time.time() * 1000
    given = kafka.topic(
        "given",
        retention_ms="-1",
        message_timestamp_before_max_ms=ANY_TIME_MS,
        message_timestamp_after_max_ms=ANY_TIME_MS,
    )
    appended = kafka.topic("appended", message_timestamp_type="LogAppendTime")
    times_ms = [-1, YEAR_9999_MS, 2**63 - 1]
    producer = Producer({"bootstrap.servers": servers})
    for topic in (given, appended):
        for timestamp_ms in times_ms:
            producer.produce(topic, b"x", timestamp=timestamp_ms)
    assert producer.flush(30) == 0
    seen: dict[tuple[str, int], tuple[int | None, bool]] = {}

    class Looks(Handler[bytes]):
        topics = (given, appended)

        def handle(self, record: Record[bytes]) -> None:
            seen[record.topic, record.offset] = record.timestamp_ms, record.timestamp is not None

    with Running(config(servers, group), Looks, max_records=6) as worker:
        assert worker.ended() == 0

    assert [seen[given, offset] for offset in range(3)] == [(None, False), (YEAR_9999_MS, True), (2**63 - 1, False)]
    assert all(seen[appended, offset][1] for offset in range(3))
    assert all(
        began_ms - 60_000 <= (seen[appended, offset][0] or 0) <= time.time() * 1000 + 60_000 for offset in range(3)
    )
    figures("F-57", "timestamps on Kafka: none, beyond the calendar, of the broker", records=6, lost=0)
