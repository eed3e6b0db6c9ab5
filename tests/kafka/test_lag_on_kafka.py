"""How far groups are, as a real cluster tells it: of workers and of foreign consumers, running and stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer, TopicPartition
from fleet.in_process import Running, committed, config
from fleet.workers import produce, wait_for
from servers.ports import free_ports

from streamworker import DeadLetter, Handler, PoisonError
from streamworker import TopicPartition as Partition
from streamworker.cli.main import main
from streamworker.clock import SystemClock
from streamworker.cluster import Cluster
from streamworker.config import KafkaConfig
from streamworker.interfaces import OffsetMark
from streamworker.lag.group_watch import GroupWatch
from streamworker.lag.peeks import Peeks
from streamworker.lag.states import Rules, State
from streamworker.librdkafka import admin_settings, peek_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers.kafka import SharedKafka

    from streamworker import Record
    from streamworker.lag.group_lag import GroupLag

TIMEOUT_S = 20.0
AGE_S = 500


class Looks:
    """Looks at groups of a cluster; its time goes on as it is told, so that states need no patience."""

    def __init__(self, kafka: SharedKafka) -> None:
        settings = KafkaConfig(bootstrap_servers=kafka.bootstrap_servers)
        self.cluster = Cluster(admin_settings(settings))
        self.peeks = Peeks(peek_settings(settings), SystemClock())
        self.watch = GroupWatch(self.cluster, self.peeks, self, Rules(minimum_complete=0.5), looks=4, timeout_s=10.0)
        self.later_s = 0.0

    def monotonic_s(self) -> float:
        return time.monotonic() + self.later_s

    def wall_ms(self) -> int:
        return SystemClock.wall_ms()

    def look(self, group: str) -> GroupLag:
        """A look ten seconds after the one before."""
        self.later_s += 10
        [found] = self.watch.look([group])
        return found


@pytest.fixture(scope="module")
def _looks(kafka: SharedKafka) -> Iterator[Looks]:
    looks = Looks(kafka)
    with closing(looks.peeks):
        yield looks


@pytest.fixture
def looks(_looks: Looks) -> Looks:
    return _looks


def write(kafka: SharedKafka, topic: str, count: int, partitions: int, *, age_s: int = AGE_S) -> None:
    """So many records in each partition, all of one age."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    at_ms = SystemClock.wall_ms() - age_s * 1000
    for number in range(count * partitions):
        producer.produce(topic, b"x", partition=number % partitions, timestamp=at_ms)
    assert producer.flush(TIMEOUT_S) == 0


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_foreign_group_at_work_stopped_and_set_back(kafka: SharedKafka, looks: Looks, protocol: str) -> None:
    topic, group = kafka.topic("in", 3), kafka.group(protocol)
    write(kafka, topic, 10, 3)
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": group,
            "group.protocol": protocol,
            "client.id": "foreign",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])

    def joined() -> bool:
        consumer.poll(0.1)
        return len(consumer.assignment()) == 3

    wait_for(joined, lambda: f"an assignment, there is {consumer.assignment()}", 2 * TIMEOUT_S)
    consumer.commit(offsets=[TopicPartition(topic, 0, 10), TopicPartition(topic, 1, 4)], asynchronous=False)

    at_work = [looks.look(group) for _ in range(2)][-1]
    consumer.close()
    stopped = [looks.look(group) for _ in range(8)][-1]
    looks.cluster.set_group_offsets(group, {Partition(topic, 1): OffsetMark(2)}, TIMEOUT_S)
    set_back = looks.look(group)

    assert (at_work.status, at_work.members, at_work.unowned) == ("STABLE", 1, {topic: 0})
    assert [(one.lag, one.state) for one in at_work.partitions] == [(0, State.OK), (6, State.STALL), (None, None)]
    assert at_work.partitions[1].owner is not None
    assert at_work.partitions[1].owner.startswith("foreign (127.0.0.1")
    assert at_work.partitions[1].lag_s == pytest.approx(AGE_S, abs=20)
    assert (stopped.status, stopped.members, stopped.unowned) == ("EMPTY", 0, {topic: 3})
    assert [one.state for one in stopped.partitions] == [State.OK, State.STOP, None]
    assert (set_back.partitions[1].state, set_back.partitions[1].lag) == (State.REWIND, 8)


def test_a_worker_that_is_stuck_lags_truly_and_catches_up(kafka: SharedKafka, looks: Looks) -> None:
    topic, group = kafka.topic("in"), kafka.group("stuck")
    write(kafka, topic, 5, 1)
    goes_on = threading.Event()

    class Stuck(Handler[bytes]):
        topics = (topic,)

        def handle(self, record: Record[bytes]) -> None:
            assert record.offset == 0 or goes_on.wait(TIMEOUT_S)

    with Running(config(kafka.bootstrap_servers, group), Stuck) as worker:
        worker.wait(lambda: committed(kafka.bootstrap_servers, group, topic, 1) == {0: 1}, "a record")
        before = [looks.look(group) for _ in range(5)][-1].partitions[0]
        write(kafka, topic, 40, 1)
        after = looks.look(group).partitions[0]
        goes_on.set()
        worker.wait(lambda: committed(kafka.bootstrap_servers, group, topic, 1) == {0: 45}, "the rest")
        done = looks.look(group).partitions[0]

    assert (before.lag, before.state) == (4, State.STALL)
    assert (after.lag, after.state) == (44, State.STALL)
    assert (done.lag, done.lag_s, done.state) == (0, 0.0, State.OK)


def test_what_a_transaction_leaves_at_the_end_of_a_log_is_no_lag(kafka: SharedKafka, looks: Looks) -> None:
    """Its mark has an offset, and is no record that anybody could handle."""
    topic, group = kafka.topic("in"), kafka.group("marks")
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": group})
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    producer.produce(topic, b"x")
    producer.commit_transaction(TIMEOUT_S)
    partition = Partition(topic, 0)  # the mark is written after the answer
    wait_for(lambda: looks.cluster.bounds([partition], TIMEOUT_S) == {partition: (0, 2)}, lambda: "mark", TIMEOUT_S)
    looks.cluster.set_group_offsets(group, {partition: OffsetMark(1)}, TIMEOUT_S)

    [found] = looks.look(group).partitions

    assert (found.committed, found.end, found.lag, found.state) == (1, 2, 0, State.OK)


def test_records_that_are_deleted_unread_are_told_of_before_and_after(kafka: SharedKafka, looks: Looks) -> None:
    topic, group = kafka.topic("in", retention_ms=str((AGE_S + 100) * 1000)), kafka.group("late")
    write(kafka, topic, 10, 1)
    looks.cluster.set_group_offsets(group, {Partition(topic, 0): OffsetMark(3)}, TIMEOUT_S)

    [before] = looks.look(group).partitions
    looks.cluster.delete_records({Partition(topic, 0): 5}, TIMEOUT_S)
    [after] = looks.look(group).partitions

    assert before.data_loss_s == pytest.approx(100, abs=20)
    assert after.data_loss_s == 0


def streamworker(kafka: SharedKafka, *arguments: str) -> tuple[int, list[dict[str, object]]]:
    result = CliRunner().invoke(main, ["lag", *arguments, "--json", "--bootstrap-servers", kafka.bootstrap_servers])
    assert result.exit_code in (0, 3, 4), result.output
    return result.exit_code, json.loads(result.stdout)


def test_the_command_says_by_its_exit_code_how_a_group_is(kafka: SharedKafka, looks: Looks) -> None:
    topic, group = kafka.topic("in"), kafka.group("told")
    write(kafka, topic, 4, 1)
    looks.cluster.set_group_offsets(group, {Partition(topic, 0): OffsetMark(1)}, TIMEOUT_S)

    one_look = streamworker(kafka, group, "--once")
    three_looks = streamworker(kafka, group, "--interval-s", "0.1", "--topic", topic)
    allowed = streamworker(kafka, group, "--once", "--allowed-lag", "3")
    nobody = streamworker(kafka, kafka.group("nobody"), "--once")
    everybody = streamworker(kafka, "--all", "--once", "--topic", topic)

    assert (one_look[0], one_look[1][0]["state"]) == (3, "unknown")
    assert (three_looks[0], three_looks[1][0]["state"]) == (4, "stop")
    assert (allowed[0], allowed[1][0]["state"]) == (0, "ok")
    assert (nobody[0], nobody[1][0]["partitions"]) == (3, [])
    assert [one["group"] for one in everybody[1] if one["partitions"]] == [group]


def test_an_observer_serves_what_it_sees_of_groups_and_dead_letters_until_it_is_stopped(
    kafka: SharedKafka, dead_letters_of: Callable[..., str]
) -> None:
    topic, group = kafka.topic("in"), kafka.group("served")
    letters = dead_letters_of(topic, retention_ms="3600000")

    class Rejects(Handler[bytes]):
        topics = (topic,)
        dead_letter = DeadLetter(letters)

        def handle(self, record: Record[bytes]) -> None:
            raise PoisonError("no such customer")

    produce(kafka.bootstrap_servers, topic, [(None, "x")] * 3, 1)
    with Running(config(kafka.bootstrap_servers, group), Rejects, until_end=True) as worker:
        assert worker.ended() == 0
    write(kafka, topic, 2, 1)
    (port,) = free_ports(1)
    command = [
        sys.executable,
        "-m",
        "streamworker",
        "lag",
        group,
        "--serve",
        "--port",
        str(port),
        "--interval-s",
        "0.2",
    ]
    command += [
        "--dead-letters",
        letters,
        "--bootstrap-servers",
        kafka.bootstrap_servers,
        "--set",
        "http.host=127.0.0.1",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def page() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    labels = f'group="{group}",topic="{topic}"'
    wanted = [
        f"streamworker_group_lag_records{{{labels}}} 2.0",
        f'streamworker_consumer_lag_state{{group="{group}",partition="0",state="stop",topic="{topic}"}} 1.0',
        f"streamworker_group_unowned_partitions{{{labels}}} 1.0",
        f'streamworker_dlq_pending_records{{dlq_topic="{letters}"}} 3.0',
        f'streamworker_dlq_expiring_records{{dlq_topic="{letters}",window="24h"}} 3.0',
    ]
    try:
        wait_for(lambda: all(line in page() for line in wanted), page, TIMEOUT_S)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()

    assert process.returncode == 0
    changes = [line for line in said.splitlines() if "lag state changed" in line]
    assert len(changes) == 1, said
    assert '"state": "stop"' in changes[0]
