"""Real workers on a real Kafka handle what is sent again, and only those that it is for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from fleet.in_process import Running, committed, config, read
from fleet.workers import produce

from streamworker import DeadLetter, Handler, PoisonError
from streamworker.dlq.replays import Replay, ReplayKey, replayed_headers
from streamworker.record import Origin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers.kafka import SharedKafka

    from streamworker import Record

TIMEOUT_S = 30.0
SECRET = b"0123456789abcdef"
QUICK_REFRESH = {"kafka__librdkafka__topic.metadata.refresh.interval.ms": 500}


def handler(topic: str, seen: list[tuple[object, ...]], letters: str) -> type[Handler[bytes]]:
    """Notes where each record is from and was first; refuses `poison`."""

    class Seeing(Handler[bytes]):
        topics = (topic,)
        dead_letter = DeadLetter(letters)

        def handle(self, record: Record[bytes]) -> None:
            if record.value == b"poison":
                raise PoisonError("never")
            seen.append((record.topic, record.value, tuple(record.origin)))

    return Seeing


def send(servers: str, to: str, value: bytes, said: Replay, signed_by: ReplayKey | None = None) -> None:
    """Write a copy as the desk does: in a transaction."""
    producer = Producer({"bootstrap.servers": servers, "transactional.id": f"desk-{to}-{said.group}"})
    headers = replayed_headers([("trace", b"7")], said, topic=to, key=b"k", value=value, signed_by=signed_by)
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    producer.produce(to, value, b"k", headers=headers)
    producer.commit_transaction(TIMEOUT_S)


def replay_of(topic: str, group: str, offset: int) -> Replay:
    return Replay(
        group=group,
        origin=Origin(topic, 0, offset),
        origin_timestamp_ms=1,
        id=f"op:0:{offset}",
        parent=f"{topic}.dlq/0/{offset}",
        count=1,
    )


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_worker_handles_what_is_sent_to_its_replay_topic_and_what_fails_again_names_its_parent(
    kafka: SharedKafka, protocol: str
) -> None:
    topic, group, servers = kafka.topic("in"), kafka.group("replays"), kafka.bootstrap_servers
    letters, replays = kafka.dead_letters(topic), kafka.replays(topic, group)
    seen: list[tuple[object, ...]] = []
    produce(servers, topic, [("k", "poison")], 1)

    with Running(config(servers, group, kafka__group_protocol=protocol), handler(topic, seen, letters)) as worker:
        worker.wait(lambda: worker.recorder.of("dead_lettered"), "the first letter")
        send(servers, replays, b"mended", replay_of(topic, group, 0))
        send(servers, replays, b"poison", replay_of(topic, group, 1))
        worker.wait(lambda: len(worker.recorder.of("dead_lettered")) == 2, "the second letter")
        worker.wait(lambda: committed(servers, group, replays, 1).get(0, 0) > 2, "the commit")
        assert worker.stop() == 0

    first, second = (dict(one.headers() or []) for one in read(servers, letters, 1, 2))
    assert seen == [(replays, b"mended", (topic, 0, 0))]
    assert "sw-parent" not in first
    assert (second["sw-parent"], second["sw-replay-id"]) == (f"{topic}.dlq/0/1".encode(), b"op:0:1")
    assert (second["sw-replay-count"], second["trace"]) == (b"1", b"7")


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_replay_topic_that_is_missing_is_said_once_and_read_once_it_comes(
    kafka: SharedKafka, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    topic, group, servers = kafka.topic("in"), kafka.group("replays-later"), kafka.bootstrap_servers
    letters = kafka.dead_letters(topic)
    seen: list[tuple[object, ...]] = []
    settings = config(servers, group, kafka__group_protocol=protocol, **QUICK_REFRESH)
    caplog.set_level(logging.WARNING)

    with Running(settings, handler(topic, seen, letters)) as worker:
        produce(servers, topic, [("k", "fine")], 1)
        worker.wait(lambda: len(seen) == 1, "the first record")
        replays = kafka.replays(topic, group)
        send(servers, replays, b"again", replay_of(topic, group, 0))
        worker.wait(lambda: len(seen) == 2, "the replay", TIMEOUT_S)
        assert worker.stop() == 0

    assert seen[1] == (replays, b"again", (topic, 0, 0))
    assert [one for one in worker.recorder.of("fault") if replays in str(one)] == []
    assert [one.getMessage() for one in caplog.records if "replay topic" in one.getMessage()] == [
        "no replay topic: dead letters cannot be sent back to this group; it is waited for"
    ]


def test_of_two_groups_on_one_source_topic_only_the_one_that_a_signed_replay_is_for_handles_it(
    kafka: SharedKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-59: and a forged one is a record like any other, for both."""
    topic, servers = kafka.topic("in"), kafka.bootstrap_servers
    letters = kafka.dead_letters(topic)
    groups = [kafka.group(hint) for hint in ("billing", "shipping")]
    (tmp_path / "key").write_bytes(SECRET + b"\n")
    send(servers, topic, b"addressed", replay_of(topic, groups[0], 40), ReplayKey(SECRET))
    send(servers, topic, b"forged", replay_of(topic, groups[0], 41), ReplayKey(b"somebody else's!"))
    handled: dict[str, list[tuple[object, ...]]] = {}

    for group in groups:
        seen = handled[group] = []
        settings = config(servers, group, replay__key_file=str(tmp_path / "key"))
        with Running(settings, handler(topic, seen, letters), until_end=True) as worker:
            assert worker.ended() == 0

    forged = (topic, b"forged", (topic, 0, 2))  # a marker of the first transaction stands between
    assert handled[groups[0]] == [(topic, b"addressed", (topic, 0, 40)), forged]
    assert handled[groups[1]] == [forged]
    figures("F-59", "signed replays on a source topic", groups=2, handled=1, forged_and_believed=0)
