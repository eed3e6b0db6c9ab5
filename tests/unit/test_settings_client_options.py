"""What the clients are told, and which of the user's options reach which of them."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer

from streamworker.cli.settings import load
from streamworker.config import DeadLetterConfig, GroupProtocol, KafkaConfig
from streamworker.errors import ConfigurationError
from streamworker.librdkafka import (
    admin_settings,
    cautions,
    consumer_settings,
    producer_settings,
    sink_settings,
    topic_log_settings,
    transactional_settings,
)


def kafka(**options: str | float | bool) -> KafkaConfig:
    return KafkaConfig(group="orders", librdkafka={name.replace("_", "."): value for name, value in options.items()})


REFUSED = [
    ("plugin.library.paths", "/tmp/x.so", "foreign code"),
    ("sasl.kerberos.kinit.cmd", "sh", "shell"),
    ("ssl.engine.location", "/x", "foreign code"),
    ("ssl.providers", "legacy", "foreign code"),
    ("test.mock.num.brokers", 3, "simulated"),
    ("enable.ssl.certificate.verification", False, "prove who they are"),
    ("enable.ssl.certificate.verification", "FALSE", "prove who they are"),
    ("enable.ssl.certificate.verification", "0", "prove who they are"),
    ("ssl.endpoint.identification.algorithm", "None", "prove who they are"),
    ("enable.auto.commit", True, "commit.interval_s"),
    ("enable.auto.offset.store", True, "committed"),
    ("auto.offset.reset", "latest", "kafka.start"),
    ("group.id", "x", "kafka.group"),
    ("bootstrap.servers", "x", "kafka.bootstrap_servers"),
    ("metadata.broker.list", "x", "kafka.bootstrap_servers"),
    ("partition.assignment.strategy", "range", "kafka.group_protocol"),
    ("group.protocol", "consumer", "kafka.group_protocol"),
    ("session.timeout.ms", 1, "kafka.session_timeout_s"),
    ("max.poll.interval.ms", 1, "kafka.max_poll_interval_s"),
    ("isolation.level", "read_uncommitted", "committed records"),
    ("statistics.interval.ms", 0, "statistics"),
    ("queued.min.messages", 1, "kafka.queued_min_messages"),
    ("delivery.timeout.ms", 1, "dead_letters.delivery_timeout_s"),
    ("acks", 0, "in-sync"),
    ("error_cb", "x", "callbacks"),
    ("on_commit", "x", "callbacks"),
]


@pytest.mark.parametrize("prefix", ["", "consumer.", "producer."])
@pytest.mark.parametrize(("name", "value", "reason"), REFUSED)
def test_an_option_that_is_dangerous_or_ours_is_refused_with_what_to_use(
    prefix: str, name: str, value: str | float | bool, reason: str
) -> None:
    options = KafkaConfig(librdkafka={prefix + name: value})

    for settings in (
        lambda: consumer_settings(options, end_of_partition=False),
        lambda: producer_settings(options, DeadLetterConfig()),
        lambda: admin_settings(options),
        lambda: load(files=[], environ={}, overrides=[f"kafka.librdkafka.{prefix}{name}={value}"]),
    ):
        with pytest.raises(ConfigurationError, match=reason):
            settings()


def test_verification_may_be_switched_on_explicitly() -> None:
    options = kafka(enable_ssl_certificate_verification="true", ssl_endpoint_identification_algorithm="https")

    assert admin_settings(options)["enable.ssl.certificate.verification"] == "true"


def test_the_consumer_leaves_offsets_to_us() -> None:
    settings = consumer_settings(kafka(), end_of_partition=True)

    assert settings["group.id"] == "orders"
    assert settings["enable.auto.commit"] is False
    assert settings["enable.auto.offset.store"] is False
    assert settings["auto.offset.reset"] == "error"
    assert settings["isolation.level"] == "read_committed"
    assert settings["allow.auto.create.topics"] is False
    assert settings["enable.partition.eof"] is True


def test_what_people_read_of_topics_is_committed_and_belongs_to_no_group() -> None:
    settings = topic_log_settings(KafkaConfig(librdkafka={"fetch.wait.max.ms": 200, "consumer.fetch.min.bytes": 2}))

    assert settings["isolation.level"] == "read_committed"
    assert settings["enable.auto.commit"] is False
    assert settings["enable.partition.eof"] is True
    assert (settings["fetch.wait.max.ms"], settings["fetch.min.bytes"]) == (200, 2)


@pytest.mark.parametrize(("session_s", "lease_s", "every_ms"), [(45.0, None, 1000), (6.0, None, 500), (6.0, 1.5, 250)])
def test_statistics_come_six_times_a_lease_and_each_second_at_least(
    session_s: float, lease_s: float | None, every_ms: int
) -> None:
    settings = consumer_settings(KafkaConfig(session_timeout_s=session_s, lease_s=lease_s), end_of_partition=False)

    assert settings["statistics.interval.ms"] == every_ms


@pytest.mark.parametrize(("session_s", "heartbeat_ms"), [(45.0, 3000), (6.0, 1500)])
def test_a_classic_member_beats_twice_a_lease_and_every_three_seconds_at_least(
    session_s: float, heartbeat_ms: int
) -> None:
    settings = consumer_settings(KafkaConfig(session_timeout_s=session_s), end_of_partition=False)

    assert settings["partition.assignment.strategy"] == "cooperative-sticky"
    assert settings["session.timeout.ms"] == session_s * 1000
    assert settings["heartbeat.interval.ms"] == heartbeat_ms


def test_a_member_of_the_new_protocol_is_not_given_what_the_client_refuses() -> None:
    settings = consumer_settings(KafkaConfig(group_protocol=GroupProtocol.CONSUMER), end_of_partition=False)

    assert settings["group.protocol"] == "consumer"
    assert not {"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"} & settings.keys()


def test_the_producer_waits_for_all_replicas_and_writes_once() -> None:
    settings = producer_settings(kafka(), DeadLetterConfig(delivery_timeout_s=9.0))

    assert settings["enable.idempotence"] is True
    assert settings["acks"] == "all"
    assert settings["delivery.timeout.ms"] == 9000


def test_the_producer_takes_what_the_largest_record_needs() -> None:
    settings = producer_settings(KafkaConfig(max_record_bytes=8_000_000), DeadLetterConfig())

    assert int(settings["message.max.bytes"]) > 8_000_000


def test_a_sinks_producer_is_as_that_of_dead_letters_and_puts_keys_where_javas_clients_do() -> None:
    settings = sink_settings(KafkaConfig(max_record_bytes=100_000_000), DeadLetterConfig())

    assert producer_settings(KafkaConfig(max_record_bytes=100_000_000), DeadLetterConfig()).items() <= settings.items()
    assert settings["partitioner"] == "murmur2_random"
    assert int(settings["queue.buffering.max.kbytes"]) * 1024 >= 2 * int(settings["message.max.bytes"])


def test_a_sinks_producer_takes_a_users_options() -> None:
    assert sink_settings(kafka(partitioner="consistent"), DeadLetterConfig())["partitioner"] == "consistent"


def test_a_users_option_reaches_the_clients_that_know_it() -> None:
    options = kafka(security_protocol="ssl", fetch_min_bytes=7, linger_ms=50)

    consumer = consumer_settings(options, end_of_partition=False)
    producer = producer_settings(options, DeadLetterConfig())
    admin = admin_settings(options)

    assert {one["security.protocol"] for one in (consumer, producer, admin)} == {"ssl"}
    assert consumer["fetch.min.bytes"] == 7
    assert producer["linger.ms"] == 50
    assert "linger.ms" not in consumer
    assert not {"fetch.min.bytes", "linger.ms"} & admin.keys()
    assert "fetch.min.bytes" not in producer


def test_a_prefix_picks_one_client_and_wins_over_the_general_name() -> None:
    options = KafkaConfig(librdkafka={"consumer.client.rack": "b", "client.rack": "a", "producer.linger.ms": 9})

    assert consumer_settings(options, end_of_partition=False)["client.rack"] == "b"
    assert producer_settings(options, DeadLetterConfig())["client.rack"] == "a"
    assert admin_settings(options)["client.rack"] == "a"
    assert not any(name.startswith(("consumer.", "producer.")) for name in admin_settings(options))


@pytest.mark.parametrize("timeout_s", [1.0, 15.0])
def test_the_client_takes_the_settings_of_transactions_of_any_length(timeout_s: float) -> None:
    """It refuses to wait for an answer longer than a transaction may take."""
    settings = transactional_settings(kafka(), timeout_s, "sw-g-1")

    Producer({**settings, "log_level": 0})

    assert settings["transaction.timeout.ms"] == timeout_s * 1000


def test_the_debug_log_is_allowed_with_a_caution() -> None:
    options = kafka(debug="cgrp")

    assert admin_settings(options)["debug"] == "cgrp"
    assert len(cautions(options)) == 1
    assert cautions(kafka()) == []
