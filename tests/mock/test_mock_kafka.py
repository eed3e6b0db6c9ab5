"""The mock cluster does what its methods say, to real clients, and ends with the process that made it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from streamworker.record import read_headers
from streamworker.testing.mock_kafka import MockKafka, MockKafkaError

if TYPE_CHECKING:
    from confluent_kafka import Message

TIMEOUT_S = 20.0

PARENT = """
from streamworker.testing.mock_kafka import MockKafka
kafka = MockKafka()
print(kafka.bootstrap_servers, flush=True)
input()
"""

MEMBER = """
import sys
from confluent_kafka import Consumer
consumer = Consumer({"bootstrap.servers": sys.argv[1], "group.id": "readers", "group.protocol": "consumer"})
consumer.subscribe(["in"], on_assign=lambda *_: print("assigned", flush=True))
while True:
    consumer.poll(1)
"""


def produce(kafka: MockKafka, topic: str, *values: bytes) -> list[KafkaError | None]:
    """Errors of the delivery reports, None for each record that was acknowledged."""
    reports: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 0, "log_level": 2})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: reports.append(error))
    assert producer.flush(TIMEOUT_S) == 0
    return reports


def consume(kafka: MockKafka, topic: str, count: int) -> list[Message]:
    """The first `count` records of partition 0."""
    settings = {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "readers", "auto.offset.reset": "earliest"}
    with closing(Consumer({**settings, "log_level": 2})) as consumer:
        consumer.assign([TopicPartition(topic, 0, 0)])
        return consumer.consume(count, TIMEOUT_S)


def commit(kafka: MockKafka, group: str, offset: int) -> list[TopicPartition]:
    settings = {"bootstrap.servers": kafka.bootstrap_servers, "group.id": group, "enable.auto.commit": False}
    with closing(Consumer({**settings, "log_level": 2})) as consumer:
        return consumer.commit(offsets=[TopicPartition("in", 0, offset)], asynchronous=False)


def leaders(kafka: MockKafka, topic: str) -> list[int]:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    found = admin.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    return [partition.leader for partition in found.partitions.values()]


def addresses(kafka: MockKafka) -> dict[int, str]:
    """Where clients are told that each broker is."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2})
    return {number: f"{one.host}:{one.port}" for number, one in admin.list_topics(timeout=TIMEOUT_S).brokers.items()}


def test_topics_have_the_partitions_that_were_asked_for() -> None:
    with MockKafka(topics={"in": 3}) as kafka:
        kafka.create_topic("out", 5)

        assert len(leaders(kafka, "in")) == 3
        assert len(leaders(kafka, "out")) == 5


def test_what_is_produced_is_consumed_in_order(mock_kafka: MockKafka) -> None:
    mock_kafka.create_topic("in", 1)

    reports = produce(mock_kafka, "in", b"a", b"b", b"c")

    assert reports == [None, None, None]
    assert [message.value() for message in consume(mock_kafka, "in", 3)] == [b"a", b"b", b"c"]


def test_brokers_listen_on_the_loopback_interface_only() -> None:
    with MockKafka(brokers=3) as kafka:
        hosts = {address.split(":")[0] for address in kafka.bootstrap_servers.split(",")}

    assert hosts == {"127.0.0.1"}


def test_a_pushed_error_answers_one_request_and_the_next_goes_through(mock_kafka: MockKafka) -> None:
    mock_kafka.create_topic("in", 1)
    mock_kafka.push_errors("OffsetCommit", KafkaError.TOPIC_AUTHORIZATION_FAILED)

    with pytest.raises(KafkaException) as refused:
        commit(mock_kafka, "committers", 7)
    (committed,) = commit(mock_kafka, "committers", 8)

    assert refused.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert committed.error is None
    assert committed.offset == 8


def test_a_topic_error_holds_until_it_is_taken_back(mock_kafka: MockKafka) -> None:
    mock_kafka.create_topic("in", 1)

    mock_kafka.topic_error("in", KafkaError.TOPIC_AUTHORIZATION_FAILED)
    (refused,) = produce(mock_kafka, "in", b"a")
    mock_kafka.topic_error("in", 0)
    (accepted,) = produce(mock_kafka, "in", b"b")

    assert refused is not None
    assert refused.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert accepted is None


def test_a_broker_that_is_down_refuses_connections_until_it_is_up(mock_kafka: MockKafka) -> None:
    mock_kafka.broker_down(1)
    with pytest.raises(ConnectionRefusedError):
        connect(mock_kafka.bootstrap_servers)

    mock_kafka.broker_up(1)

    connect(mock_kafka.bootstrap_servers).close()


def test_a_deleted_topic_is_made_anew_without_its_records(mock_kafka: MockKafka) -> None:
    mock_kafka.create_topic("in", 1)
    assert [mock_kafka.produce_raw("in", 0, None, value) for value in (b"a", b"b")] == [0, 1]

    mock_kafka.delete_topic("in")
    mock_kafka.create_topic("in", 2)

    assert len(leaders(mock_kafka, "in")) == 2
    assert mock_kafka.produce_raw("in", 0, None, b"c") == 0
    assert [message.value() for message in consume(mock_kafka, "in", 1)] == [b"c"]


def test_a_topic_that_is_not_there_cannot_be_deleted(mock_kafka: MockKafka) -> None:
    with pytest.raises(MockKafkaError, match=r"topic_delete\('in',\): UNKNOWN_TOPIC_OR_PART"):
        mock_kafka.delete_topic("in")


def test_clients_are_sent_to_the_address_that_a_broker_advertises() -> None:
    with MockKafka(brokers=2) as kafka:
        before = addresses(kafka)

        kafka.advertise(2, "localhost", 9)

        assert before == {1: f"127.0.0.1:{kafka.broker_port(1)}", 2: f"127.0.0.1:{kafka.broker_port(2)}"}
        assert addresses(kafka) == {**before, 2: "localhost:9"}
        connect(f"127.0.0.1:{kafka.broker_port(2)}").close()


def test_a_broker_that_is_not_there_has_no_port_and_no_address(mock_kafka: MockKafka) -> None:
    with pytest.raises(MockKafkaError, match="no port is known of broker 0, only of brokers 1 to 1"):
        mock_kafka.broker_port(0)
    with pytest.raises(MockKafkaError, match=r"no broker 2: there are \[1\]"):
        mock_kafka.advertise(2, "localhost", 9)


def test_brokers_come_and_go_and_partitions_have_leaders_among_those_that_are_there() -> None:
    with MockKafka(brokers=2, topics={"in": 4}) as kafka:
        kafka.add_broker(7)
        kafka.advertise(7, "localhost", 9)
        assert addresses(kafka)[7] == "localhost:9"

        kafka.decommission_broker(7)
        kafka.decommission_broker(1)

        assert addresses(kafka).keys() == {2}
        assert leaders(kafka, "in") == [2, 2, 2, 2]
        with pytest.raises(MockKafkaError, match=r"no broker 7: there are \[2\]"):
            kafka.advertise(7, "localhost", 9)


def test_a_broker_that_is_there_cannot_be_added_and_one_that_is_gone_cannot_go(mock_kafka: MockKafka) -> None:
    with pytest.raises(MockKafkaError, match="broker_add"):
        mock_kafka.add_broker(1)
    with pytest.raises(MockKafkaError, match="BROKER_NOT_AVAILABLE"):
        mock_kafka.decommission_broker(2)


def test_a_member_that_dies_is_replaced_after_the_session_timeout_that_was_set(mock_kafka: MockKafka) -> None:
    """The default is longer than this test waits."""
    mock_kafka.create_topic("in", 1)
    mock_kafka.group_session_timeout(1000, heartbeat_interval_ms=200)
    with subprocess.Popen(
        [sys.executable, "-c", MEMBER, mock_kafka.bootstrap_servers], stdout=subprocess.PIPE
    ) as member:
        assert member.stdout is not None
        assert member.stdout.readline() == b"assigned\n"
        member.kill()

    assert assigned_within(TIMEOUT_S, mock_kafka)


def test_leader_and_coordinator_move_where_they_are_told() -> None:
    with MockKafka(brokers=2) as kafka:
        kafka.create_topic("in", 1, replication=2)

        kafka.leader("in", 0, 2)
        kafka.coordinator("committers", 2)
        kafka.broker_down(1)

        assert leaders(kafka, "in") == [2]
        (committed,) = commit(kafka, "committers", 1)
        assert committed.error is None


def test_deleted_records_are_gone_from_the_head_of_the_partition(mock_kafka: MockKafka) -> None:
    mock_kafka.create_topic("in", 1)
    for value in (b"a", b"b", b"c"):
        mock_kafka.produce_raw("in", 0, None, value)

    mock_kafka.delete_records("in", 0, 2)

    (first,) = consume(mock_kafka, "in", 1)
    assert (first.offset(), first.value()) == (2, b"c")


@pytest.mark.parametrize(("key", "value"), [(None, None), (b"", b""), (b"\x00", b"\xff" * 1000)])
def test_a_raw_record_keeps_null_and_empty_apart(mock_kafka: MockKafka, key: bytes | None, value: bytes | None) -> None:
    mock_kafka.create_topic("in", 1)

    offset = mock_kafka.produce_raw("in", 0, key, value, [(b"name", b"x"), (b"name", None), (b"", b"")])

    (message,) = consume(mock_kafka, "in", 1)
    assert (message.offset(), message.key(), message.value()) == (offset, key, value)
    assert message.headers() == [("name", b"x"), ("name", None), ("", b"")]


def test_a_raw_header_name_need_not_be_utf_8_and_springs_the_trap_of_the_client_once(mock_kafka: MockKafka) -> None:
    """A second `headers()` on the bare message would crash this process."""
    mock_kafka.create_topic("in", 1)
    mock_kafka.produce_raw("in", 0, b"k", b"v", [(b"\xff\xfe", b"x")])
    mock_kafka.produce_raw("in", 0, b"k", b"v", [(b"\xff\xfe", b"x")])

    bare, guarded = consume(mock_kafka, "in", 2)

    with pytest.raises(SystemError):
        bare.headers()
    assert not read_headers(guarded).readable
    assert not read_headers(guarded).readable


def test_an_unknown_request_name_is_refused_with_the_nearest_one(mock_kafka: MockKafka) -> None:
    with pytest.raises(MockKafkaError, match="did you mean 'OffsetCommit'"):
        mock_kafka.push_errors("OffsetComit", 1)


def test_what_the_cluster_refuses_is_an_error_that_names_call_and_reason(mock_kafka: MockKafka) -> None:
    mock_kafka.create_topic("in", 1)

    with pytest.raises(MockKafkaError, match=r"topic_create\('in', 1, 1\): TOPIC_ALREADY_EXISTS"):
        mock_kafka.create_topic("in", 1)


def test_a_closed_cluster_says_so_and_may_be_closed_again() -> None:
    kafka = MockKafka()
    kafka.close()

    kafka.close()
    with pytest.raises(MockKafkaError, match="is closed"):
        kafka.create_topic("in", 1)


def test_a_cluster_whose_process_was_killed_says_so_and_can_be_closed() -> None:
    with MockKafka() as kafka:
        os.kill(kafka.pid, signal.SIGKILL)

        with pytest.raises(MockKafkaError, match="ended with code -9"):
            kafka.create_topic("in", 1)


def test_the_ports_are_closed_when_close_returns() -> None:
    with MockKafka() as kafka:
        address = kafka.bootstrap_servers

    with pytest.raises(ConnectionRefusedError):
        connect(address)


def test_the_cluster_ends_with_a_parent_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        address = parent.stdout.readline().strip()
        connect(address).close()

        parent.send_signal(signal.SIGKILL)

        assert refuses_connections_within(TIMEOUT_S, address)


def test_the_pytest_plugin_costs_no_import_of_the_client() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, streamworker.testing.fixtures; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )

    modules = loaded.stdout.split()
    assert "streamworker.testing.fixtures" in modules
    assert "confluent_kafka" not in modules
    assert "streamworker.testing.mock_kafka" not in modules


def connect(address: str) -> socket.socket:
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), TIMEOUT_S)


def assigned_within(timeout_s: float, kafka: MockKafka) -> bool:
    """Whether another member gets something in that time."""
    settings = {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "readers", "group.protocol": "consumer"}
    got: list[object] = []
    with closing(Consumer({**settings, "log_level": 2})) as consumer:
        consumer.subscribe(["in"], on_assign=lambda _consumer, partitions: got.extend(partitions))
        deadline_s = time.monotonic() + timeout_s
        while not got and time.monotonic() < deadline_s:
            consumer.poll(0.1)
    return bool(got)


def refuses_connections_within(timeout_s: float, address: str) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        try:
            connect(address).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            continue  # the kernel was closing the port at that moment
    return False
