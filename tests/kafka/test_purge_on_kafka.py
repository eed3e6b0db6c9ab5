"""`dlq purge` on a real Kafka: what it deletes, what it leaves, and what any tool sees of it."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # the package does not list what it exports

from streamworker.cli.main import main
from streamworker.clock import SystemClock
from streamworker.cluster import Cluster
from streamworker.config import Config, KafkaConfig
from streamworker.librdkafka import admin_settings, topic_log_settings
from streamworker.record import TopicPartition
from streamworker.replay.audit import TOPIC as AUDIT_TOPIC
from streamworker.replay.audit import Note, read
from streamworker.replay.audit_log import AuditLog
from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import Actor, Role
from streamworker.replay.mirror import mirror_group
from streamworker.replay.shipments import Shipments
from streamworker.replay.shipping import Chunk
from streamworker.replay.states import RESTORABLE, Disposition, State, digest, state_topic
from streamworker.replay.topic_log import TopicLog

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from click.testing import Result
    from servers.kafka import SharedKafka

TIMEOUT_S = 20.0
ANNA = Actor("anna@desk", Role.OPERATOR, "console", verified=True)


class Letters:
    """A dead-letter topic of two partitions with ten letters in each, whose values are their places."""

    def __init__(self, kafka: SharedKafka) -> None:
        self.topic = kafka.topic("letters.dlq", 2)
        kafka._create(state_topic(self.topic), 2, cleanup_policy="compact")
        self.config = Config(kafka=KafkaConfig(bootstrap_servers=kafka.bootstrap_servers))
        self.cluster = Cluster(admin_settings(self.config.kafka))
        self._kafka = kafka
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        for partition in (0, 1):
            for offset in range(10):
                producer.produce(self.topic, f"{partition}:{offset}".encode(), partition=partition)
        assert producer.flush(TIMEOUT_S) == 0

    def say(self, state: State, letters: Sequence[LetterId]) -> None:
        topic_id = self.cluster.topic_ids([self.topic], TIMEOUT_S)[self.topic]
        said = {
            letter: Disposition(
                state=state,
                op_id="op",
                actor=ANNA.name,
                at_ms=SystemClock.wall_ms(),
                topic_id=topic_id,
                payload_sha256=digest(str(letter).encode()),
            )
            for letter in letters
        }
        note = Note(at_ms=SystemClock.wall_ms(), actor=ANNA, what=state, topic=self.topic, detail={})
        expected = RESTORABLE if state is State.PENDING else frozenset({State.PENDING})
        shipments = Shipments(self.config, clock=SystemClock(), wait=lambda _s: False, audit_key=None)
        with closing(shipments):
            partition = TopicPartition(self.topic, letters[0].partition)
            shipped = shipments.of(partition).ship(
                Chunk(ids=letters, copies={}, dispositions=said, audit=note, expected=expected)
            )
        assert shipped.marked == set(letters)

    def purge(self, *options: str) -> Result:
        servers = self._kafka.bootstrap_servers
        return CliRunner().invoke(main, ["dlq", "purge", self.topic, *options, "--bootstrap-servers", servers])

    def starts(self) -> list[int]:
        partitions = [TopicPartition(self.topic, number) for number in (0, 1)]
        return [self.cluster.log_start_offsets(partitions, TIMEOUT_S)[one] for one in partitions]

    def lag(self) -> list[int]:
        """What any tool shows of the group that mirrors what is pending."""
        settings = {"bootstrap.servers": self._kafka.bootstrap_servers, "group.id": mirror_group(self.topic)}
        with closing(Consumer({**settings, "enable.auto.commit": False})) as consumer:
            found = consumer.committed([ClientPartition(self.topic, number) for number in (0, 1)], timeout=TIMEOUT_S)
        return [10 - one.offset for one in found]

    def states(self) -> dict[bytes | None, bytes | None]:
        """What is said after compaction."""
        last: dict[bytes | None, bytes | None] = {}
        with closing(TopicLog(topic_log_settings(self.config.kafka), SystemClock())) as log:
            for number in (0, 1):
                partition = TopicPartition(state_topic(self.topic), number)
                for batch in log.read({partition: log.bounds(partition, TIMEOUT_S)}, TIMEOUT_S):
                    last.update({message.key(): message.value() for message in batch})
        return {key: value for key, value in last.items() if value is not None}

    def audited(self) -> list[dict[str, object]]:
        partitions = self.cluster.partitions(AUDIT_TOPIC, TIMEOUT_S)
        with closing(TopicLog(topic_log_settings(self.config.kafka), SystemClock())) as log:
            audit = AuditLog(log, partitions, TIMEOUT_S)
            entries = [read(one.value) for one in audit.kept(audit.ranges())]
        return [one.detail for one in entries if one is not None and (one.topic, one.what) == (self.topic, "purge")]


@pytest.fixture
def letters(kafka: SharedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Letters]:
    monkeypatch.chdir(tmp_path)
    if AUDIT_TOPIC not in kafka.admin.list_topics(timeout=TIMEOUT_S).topics:
        kafka.admin.create_topics([NewTopic(AUDIT_TOPIC, 1)])[AUDIT_TOPIC].result(TIMEOUT_S)
    return Letters(kafka)


def ids(partition: int, *offsets: int) -> list[LetterId]:
    return [LetterId(partition, offset) for offset in offsets]


def test_handled_letters_are_deleted_up_to_the_first_that_is_open_and_only_when_it_is_meant(letters: Letters) -> None:
    letters.say(State.DISCARDED, ids(0, 0, 1, 2, 4, 5))
    letters.say(State.DISCARDED, ids(1, 1, 2))

    dry = letters.purge("--handled", "--json")
    untouched = letters.starts()
    done = letters.purge("--handled", "--yes", "--json")

    assert dry.exit_code == 0, dry.output
    assert done.exit_code == 0, done.output
    planned, deleted = json.loads(dry.stdout), json.loads(done.stdout)
    assert (planned["dry_run"], planned["handled"], planned["deleted"], untouched) == (True, 3, 0, [0, 0])
    assert (deleted["dry_run"], deleted["deleted"], deleted["states_taken_back"]) == (False, 3, 3)
    assert [one["first_open"] for one in deleted["partitions"]] == [3, 0]
    assert letters.starts() == [3, 0]
    assert letters.states().keys() == {b"0:4", b"0:5", b"1:1", b"1:2"}
    assert letters.lag() == [7, 10]
    assert letters.audited() == [
        {"before": {"0": 3}, "letters": 3},
        {"deleted": "0:0-2", "count": 3},
    ]


def test_a_letter_that_was_restored_stays(letters: Letters) -> None:
    letters.say(State.DISCARDED, ids(0, *range(10)))
    letters.say(State.PENDING, ids(0, 6))

    done = letters.purge("--handled", "--yes")

    assert done.exit_code == 0, done.output
    assert "6 letters" in done.stdout
    assert letters.starts() == [6, 0]


def test_where_all_are_handled_nothing_is_left_and_nothing_lags(letters: Letters) -> None:
    for partition in (0, 1):
        letters.say(State.DISCARDED, ids(partition, *range(10)))

    letters.purge("--handled", "--yes")
    again = letters.purge("--handled", "--yes", "--json")

    assert letters.starts() == [10, 10]
    assert letters.lag() == [0, 0]
    assert letters.states() == {}
    assert json.loads(again.stdout)["deleted"] == 0


def test_a_topic_that_is_no_dead_letter_topic_loses_nothing(kafka: SharedKafka, letters: Letters) -> None:
    source = kafka.topic("orders")
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(source, b"an order")
    assert producer.flush(TIMEOUT_S) == 0

    purged = CliRunner().invoke(
        main, ["dlq", "purge", source, "--handled", "--yes", "--bootstrap-servers", kafka.bootstrap_servers]
    )

    assert purged.exit_code == 0, purged.output
    partition = TopicPartition(source, 0)
    assert letters.cluster.log_start_offsets([partition], TIMEOUT_S) == {partition: 0}


def test_what_is_to_be_deleted_has_to_be_said_and_the_topic_has_to_be_there(letters: Letters) -> None:
    unsaid = letters.purge("--yes")
    letters.topic = f"{letters.topic[:-1]}x"
    missing = letters.purge("--handled")

    assert unsaid.exit_code == 2
    assert "--handled" in unsaid.output
    assert missing.exit_code == 2
    assert "did you mean" in missing.output
