"""An export of what a filter chooses on a real Kafka, and the values that come back of it."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

from confluent_kafka import Producer

from streamworker.clock import SystemClock
from streamworker.config import KafkaConfig
from streamworker.librdkafka import topic_log_settings
from streamworker.replay import families
from streamworker.replay.exports import Exporter, import_lines
from streamworker.replay.filters import parse
from streamworker.replay.letter_reader import LetterReader
from streamworker.replay.letter_stream import letters
from streamworker.replay.showing import Showing
from streamworker.replay.states import digest
from streamworker.replay.topic_log import TopicLog
from streamworker.replay.view import View
from streamworker.replay.view_builder import ViewBuilder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers.kafka import SharedKafka

TIMEOUT_S = 20.0
LARGE = b'{"large": "' + b"x" * 5000 + b'"}'


def exported(kafka: SharedKafka, topic: str, text: str, folder: Path) -> Iterator[bytes]:
    clock = SystemClock()
    settings = topic_log_settings(KafkaConfig(bootstrap_servers=kafka.bootstrap_servers))
    exporter = Exporter(Showing(max_chars=None), lambda _: None, as_text=True)
    with closing(TopicLog(settings, clock)) as log, closing(View(topic, clock, folder=folder)) as view:
        builder = ViewBuilder(view, log, families.read, partitions=2, state_partitions=0, timeout_s=TIMEOUT_S)
        while builder.step():
            pass
        reader = LetterReader(log, topic, families.read, TIMEOUT_S)
        for letter, row in letters(view, reader, parse(text, clock.wall_ms())):
            yield exporter.line(letter, row.state)


def test_an_export_has_whole_values_and_comes_back_as_edits(kafka: SharedKafka, tmp_path: Path) -> None:
    source, topic = kafka.topic("orders"), kafka.topic("orders.dlq", 2)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(source, LARGE)
    for partition in (0, 1):
        for number in range(600):
            reason = b"poison" if number % 100 == 0 else b"exhausted"
            producer.produce(
                topic, b"%d" % number, partition=partition, headers=[("sw-version", b"1"), ("sw-reason", reason)]
            )
    pointer = {"sha256": digest(LARGE), "size": len(LARGE), "topic": source, "partition": 0, "offset": 0}
    headers = [("sw-version", b"1"), ("sw-reason", b"poison"), ("sw-pointer", json.dumps(pointer).encode())]
    producer.produce(topic, None, partition=1, headers=headers)
    assert producer.flush(TIMEOUT_S) == 0

    lines = list(exported(kafka, topic, "reason:poison", tmp_path))
    found = [json.loads(line) for line in lines]
    mended = json.dumps({**found[-1], "text": '{"large": ""}'}).encode()
    imported = import_lines([*lines[:-1], mended], topic)

    assert [one["id"] for one in found] == [
        *(f"{partition}:{number * 100}" for partition in (0, 1) for number in range(6)),
        "1:600",
    ]
    assert (found[1]["text"], found[-1]["text"]) == ("100", LARGE.decode())
    assert (list(map(str, imported.ids)), imported.unchanged) == (["1:600"], 12)
    assert imported.edits[imported.ids[0]].sha256 == digest(LARGE)
