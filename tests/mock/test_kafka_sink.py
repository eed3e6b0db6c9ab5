"""A KafkaSink against librdkafka's mock cluster: what is acknowledged, refused, thrown away, and in which order."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaError, Producer
from fleet.computing import CopiesInAChild
from fleet.in_process import Running, committed, config, read
from fleet.workers import wait_for

from streamworker import BatchHandler, ConfigurationError, DeadLetter, Handler, KafkaRecord, KafkaSink, PoisonError
from streamworker.config import DeadLetterConfig, KafkaConfig
from streamworker.errors import RowFailed
from streamworker.handler import Context
from streamworker.interfaces import Row, Written
from streamworker.librdkafka import sink_settings
from streamworker.record import Origin, TopicPartition
from streamworker.resilience.verdict import is_of_a_dependency
from streamworker.sinks.deliveries import Deliveries, Undelivered
from streamworker.sinks.kafka import KafkaUnavailable, KafkaWriter
from streamworker.testing.mock_kafka import MockKafka
from streamworker.work import Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from streamworker.interfaces import ClientOption
    from streamworker.record import Record, Records

THREAD = "streamworker-deliveries"
OUT = KafkaSink("out")
PLACE = Place(group="g", partition=TopicPartition("in", 0), lanes=1, lane=0, owner="o", done_below=0)


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with MockKafka(topics={"out": 1}) as cluster:
        yield cluster
    assert threads() == []


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == THREAD]


def settings(kafka: MockKafka, timeout_s: float = 10.0, **options: ClientOption) -> dict[str, ClientOption]:
    made = sink_settings(
        KafkaConfig(bootstrap_servers=kafka.bootstrap_servers), DeadLetterConfig(delivery_timeout_s=timeout_s)
    )
    return {**made, **{name.replace("_", "."): value for name, value in options.items()}}


def context(producer: Mapping[str, ClientOption], **sinks: str) -> Context:
    return Context(app={}, group="g", handler="Copy", sinks=sinks, producer=producer)


@contextmanager
def writer(
    producer: Mapping[str, ClientOption], sink: KafkaSink = OUT, *, left_s: float | None = None
) -> Iterator[KafkaWriter]:
    class Hurried(Context):
        def deadline_s(self) -> float:
            return super().deadline_s() if left_s is None else time.monotonic() + left_s

    made = sink.writer(Hurried(app={}, group="g", handler="Copy", producer=producer))
    try:
        yield made
    finally:
        made.close()


def row(offset: int, *values: object, key: bytes | None = b"k") -> Row:
    return Row(offset=offset, origin=Origin("in", 0, offset), key=key, values=values)


def rows(count: int, start: int = 0) -> list[Row]:
    return [row(offset, b"%d" % offset) for offset in range(start, start + count)]


def values(kafka: MockKafka, count: int, topic: str = "out") -> list[bytes | None]:
    return [one.value() for one in read(kafka.bootstrap_servers, topic, 1, count)]


def failure(of: KafkaWriter, written: Sequence[Row]) -> RowFailed:
    with pytest.raises(RowFailed) as raised:
        of.write(PLACE, written)
    return raised.value


def test_what_is_written_is_there_in_order_with_keys_headers_and_the_time(kafka: MockKafka) -> None:
    before_ms = time.time_ns() // 1_000_000

    with writer(settings(kafka)) as sink:
        written = sink.write(
            PLACE, [row(0, b"a", b"b"), row(1, KafkaRecord(b"c", key=b"x", headers={"h": b"1"})), row(2)]
        )

    assert written == Written()
    messages = read(kafka.bootstrap_servers, "out", 1, 3)
    assert [(one.key(), one.value()) for one in messages] == [(b"k", b"a"), (b"k", b"b"), (b"x", b"c")]
    assert messages[2].headers() == [("h", b"1")]
    assert all(before_ms <= one.timestamp()[1] < before_ms + 60_000 for one in messages)


def test_rows_without_values_need_no_producer(kafka: MockKafka) -> None:
    with writer(settings(kafka)) as sink:
        assert sink.write(PLACE, [row(0), row(1)]) == Written()

        assert threads() == []


def test_writers_of_a_handler_share_a_producer_which_ends_with_the_last(kafka: MockKafka) -> None:
    shared = context(settings(kafka))
    one, other = KafkaSink("out").writer(shared), KafkaSink("out").writer(shared)

    one.write(PLACE, rows(1))
    other.write(PLACE, rows(1))
    found = len(threads())
    one.close()
    one.close()
    left = len(threads())
    other.write(PLACE, rows(1))
    other.close()

    assert (found, left, len(threads())) == (1, 1, 0)


@pytest.mark.parametrize("code", [KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.NOT_LEADER_FOR_PARTITION])
def test_what_passes_by_itself_is_no_failure(kafka: MockKafka, code: int) -> None:
    kafka.push_errors("Produce", code)

    with writer(settings(kafka)) as sink:
        sink.write(PLACE, rows(10))

    assert values(kafka, 10) == [b"%d" % number for number in range(10)]


def test_a_value_of_which_no_record_can_be_made_fails_its_row_and_those_before_it_are_there(kafka: MockKafka) -> None:
    with writer(settings(kafka)) as sink:
        failed = failure(sink, [*rows(2), row(2, "text"), row(3, b"3")])

    assert (failed.index, type(failed.cause)) == (2, PoisonError)
    assert values(kafka, 2) == [b"0", b"1"]


def test_a_record_that_is_too_large_for_the_client_fails_its_row(kafka: MockKafka) -> None:
    large = b"x" * 2_000_000

    with writer(settings(kafka, message_max_bytes=1_000_000)) as sink:
        failed = failure(sink, [*rows(2), row(2, b"fits", large), row(3, b"3")])

    assert (failed.index, type(failed.cause)) == (2, PoisonError)
    assert str(failed.cause) == (
        "KafkaSink('out'): 'out' has not taken a record: Unable to produce message: Broker: Message size too large"
        " (MSG_SIZE_TOO_LARGE); 2000001 bytes of key and value"
    )
    assert values(kafka, 3) == [b"0", b"1", b"fits"]


@pytest.mark.parametrize("code", [KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD])
def test_a_batch_that_a_broker_refuses_goes_once_more_record_by_record(kafka: MockKafka, code: int) -> None:
    kafka.push_errors("Produce", code, 0, 0, code)

    with writer(settings(kafka)) as sink:
        failed = failure(sink, rows(5))

    assert (failed.index, type(failed.cause)) == (2, PoisonError)
    assert values(kafka, 2) == [b"0", b"1"]


def test_records_that_go_once_more_have_a_producer_that_sends_each_by_itself_whoever_else_writes(
    kafka: MockKafka,
) -> None:
    made: list[object] = []

    def make_producer(options: dict[str, ClientOption], **more: object) -> Producer:
        made.append(options.get("batch.num.messages"))
        return Producer(options, **more)

    shared = Deliveries(settings(kafka), make_producer=make_producer)
    shared.join()
    kafka.push_errors("Produce", KafkaError.MSG_SIZE_TOO_LARGE)

    failed = shared.deliver([letter for one in rows(5) for letter in OUT.encoder(context({}))(one)], 10)
    shared.leave()

    assert failed is None
    assert made == [None, 1]


def test_a_batch_that_is_refused_for_nobodys_fault_is_written(kafka: MockKafka) -> None:
    kafka.push_errors("Produce", KafkaError.MSG_SIZE_TOO_LARGE)

    with writer(settings(kafka)) as sink:
        sink.write(PLACE, rows(5))

    assert values(kafka, 5) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(
    "code",
    [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.POLICY_VIOLATION],
)
def test_what_is_no_records_fault_is_the_clusters_and_breakers_count_it(kafka: MockKafka, code: int) -> None:
    kafka.push_errors("Produce", code)

    with writer(settings(kafka)) as sink:
        failed = failure(sink, rows(3))
        sink.write(PLACE, rows(3))

    assert (failed.index, type(failed.cause)) == (0, KafkaUnavailable)
    assert is_of_a_dependency(failed.cause, None)


def test_a_topic_that_is_not_there_is_the_clusters_fault_and_is_written_to_once_it_is(kafka: MockKafka) -> None:
    options = settings(kafka, **{"topic.metadata.propagation.max.ms": 100})

    with writer(options, KafkaSink("late")) as sink:
        failed = failure(sink, rows(1))
        kafka.create_topic("late", 1)
        wait_for(lambda: _is_written(sink, rows(1)), lambda: "written to the new topic", 20)

    assert type(failed.cause) is KafkaUnavailable
    assert "UNKNOWN_TOPIC" in str(failed.cause)
    assert values(kafka, 1, "late") == [b"0"]


def _is_written(sink: KafkaWriter, written: Sequence[Row]) -> bool:
    try:
        sink.write(PLACE, written)
    except RowFailed:
        return False
    return True


def test_a_broker_that_is_away_is_waited_for_until_the_delivery_timeout_and_written_to_when_it_is_back(
    kafka: MockKafka,
) -> None:
    with writer(settings(kafka, timeout_s=4.0)) as sink:
        sink.write(PLACE, rows(1))
        kafka.broker_down(1)
        failed = failure(sink, rows(3, start=1))
        kafka.broker_up(1)
        wait_for(lambda: _is_written(sink, rows(3, start=1)), lambda: "written to the broker that is back", 20)

    assert (failed.index, type(failed.cause)) == (0, KafkaUnavailable)
    assert "_MSG_TIMED_OUT" in str(failed.cause)
    assert values(kafka, 4)[-3:] == [b"1", b"2", b"3"]


def test_a_write_takes_no_longer_than_the_call_has_left(kafka: MockKafka) -> None:
    kafka.broker_down(1)
    began_s = time.monotonic()

    with writer(settings(kafka), left_s=0.3) as hurried:
        failed = failure(hurried, rows(3))

        assert time.monotonic() - began_s < 5.0
    assert type(failed.cause) is KafkaUnavailable


def test_a_write_that_has_run_out_of_time_leaves_nothing_to_be_written_later(kafka: MockKafka) -> None:
    shared = Deliveries(settings(kafka))
    letters = [letter for one in rows(5) for letter in OUT.encoder(context({}))(one)]
    shared.join()
    assert shared.deliver(letters[:1], 10) is None
    kafka.broker_down(1)
    hurried = shared.deliver(letters[1:4], 0.3)
    kafka.broker_up(1)

    later = shared.deliver(letters[4:], 20)
    shared.leave()

    assert hurried is not None
    assert later is None
    assert values(kafka, 2) == [b"0", b"4"]


def test_what_a_hurried_writer_throws_out_of_the_queue_another_one_hands_over_again(kafka: MockKafka) -> None:
    shared = Deliveries(settings(kafka))
    letters = [letter for one in rows(20) for letter in OUT.encoder(context({}))(one)]
    shared.join()
    assert shared.deliver(letters[:1], 10) is None
    kafka.broker_down(1)
    found: list[object] = []
    patient = threading.Thread(target=lambda: found.append(shared.deliver(letters[1:], 10)), name="patient")
    patient.start()

    hurried = shared.deliver(letters[:1], 0.3)
    kafka.broker_up(1)
    patient.join(20)
    shared.leave()

    assert hurried is not None
    assert hurried.code == "_TIMED_OUT"
    assert found == [None]
    assert values(kafka, 20) == [b"%d" % number for number in range(20)]


def test_a_full_queue_is_waited_for(kafka: MockKafka) -> None:
    with writer(settings(kafka, queue_buffering_max_messages=3)) as sink:
        sink.write(PLACE, rows(50))

    assert values(kafka, 50) == [b"%d" % number for number in range(50)]


def test_a_queue_that_stays_full_is_waited_for_no_longer_than_the_write_has_time(kafka: MockKafka) -> None:
    shared = Deliveries(settings(kafka, queue_buffering_max_messages=2))
    letters = [letter for one in rows(3) for letter in OUT.encoder(context({}))(one)]
    shared.join()
    assert shared.deliver(letters[:1], 10) is None
    kafka.broker_down(1)

    failed = shared.deliver(letters, 0.3)

    assert failed == Undelivered(0, "_TIMED_OUT", "no answer within the time that the write had")
    kafka.broker_up(1)
    assert shared.deliver(letters, 20) is None
    shared.leave()


def test_after_a_fatal_error_the_next_write_has_a_new_producer(kafka: MockKafka) -> None:
    with writer(settings(kafka)) as sink:
        sink.write(PLACE, rows(1))
        kafka.push_errors("Produce", KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
        failed = failure(sink, rows(3, start=1))
        wait_for(lambda: _is_written(sink, rows(3, start=1)), lambda: "written by a new producer", 20)

    assert type(failed.cause) is KafkaUnavailable
    assert values(kafka, 4)[-3:] == [b"1", b"2", b"3"]


def test_closing_while_the_broker_is_away_ends_soon(kafka: MockKafka) -> None:
    with writer(settings(kafka, timeout_s=10.0), left_s=0.2) as sink:
        failure_before_it_was_ever_reached(sink, kafka)
        began_s = time.monotonic()

    assert time.monotonic() - began_s < 6.0


def failure_before_it_was_ever_reached(sink: KafkaWriter, kafka: MockKafka) -> None:
    kafka.broker_down(1)
    assert type(failure(sink, rows(1)).cause) is KafkaUnavailable


def test_settings_that_the_client_refuses_are_named_without_secrets(kafka: MockKafka) -> None:
    options = {**settings(kafka), "sasl.password": "hunter2", "compression.type": "hunter2"}

    with (
        writer(options) as sink,
        pytest.raises(ConfigurationError, match="the producer refuses its settings") as raised,
    ):
        sink.write(PLACE, rows(1))

    assert "hunter2" not in str(raised.value)


def test_another_cluster_is_written_to_by_its_name(kafka: MockKafka) -> None:
    with MockKafka(topics={"copies": 1}) as other:
        known = context(settings(kafka), other=f"kafka://{other.bootstrap_servers}?client.id=copier")
        sink = KafkaSink("copies", connection="other").writer(known)
        sink.write(PLACE, rows(2))
        sink.close()

        assert values(other, 2, "copies") == [b"0", b"1"]


class ByKey(Handler[bytes]):
    topics = ("in",)
    ordering = "key"
    concurrency = 16
    sink = KafkaSink("out")
    dead_letter = DeadLetter("dlq")

    def handle(self, record: Record[bytes]) -> bytes:
        return record.value


class InBatches(BatchHandler[bytes]):
    topics = ("in",)
    sink = KafkaSink("out")
    dead_letter = DeadLetter("dlq")

    def handle(self, records: Records[bytes]) -> list[bytes]:
        return list(records.values())


class Awaited(Handler[bytes]):
    topics = ("in",)
    ordering = "key"
    sink = KafkaSink("out")
    dead_letter = DeadLetter("dlq")

    async def handle(self, record: Record[bytes]) -> bytes:
        return record.value


def sent(kafka: MockKafka, count: int, keys: int) -> None:
    kafka.create_topic("in", 4)
    kafka.create_topic("dlq", 1)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(count):
        producer.produce("in", b"%d" % number, key=b"%d" % (number % keys), partition=number % keys % 4)
        producer.poll(0)
    assert producer.flush(20) == 0


def by_key(kafka: MockKafka, count: int) -> dict[bytes | None, list[int]]:
    found: dict[bytes | None, list[int]] = {}
    for one in read(kafka.bootstrap_servers, "out", 1, count):
        found.setdefault(one.key(), []).append(int(one.value() or b""))
    return found


@pytest.mark.parametrize("handler", [ByKey, InBatches, Awaited])
def test_a_worker_copies_a_topic_in_the_order_of_each_key(
    kafka: MockKafka, handler: type[Handler[bytes]] | type[BatchHandler[bytes]]
) -> None:
    sent(kafka, 10_000, keys=100)

    with Running(config(kafka.bootstrap_servers), handler, until_end=True) as worker:
        assert worker.ended(60) == 0

    assert by_key(kafka, 10_000) == {b"%d" % key: list(range(key, 10_000, 100)) for key in range(100)}
    assert sum(committed(kafka.bootstrap_servers, "g", "in", 4).values()) == 10_000


def test_a_record_that_the_topic_does_not_take_is_a_dead_letter_and_the_others_are_copied(kafka: MockKafka) -> None:
    sent(kafka, 200, keys=10)

    class Inflates(ByKey):
        def handle(self, record: Record[bytes]) -> bytes:
            return b"x" * 100_000_000 if record.value == b"57" else record.value

    with Running(config(kafka.bootstrap_servers), Inflates) as worker:
        worker.wait(lambda: sum(committed(kafka.bootstrap_servers, "g", "in", 4).values()) == 200, "all are done")

    (letter,) = read(kafka.bootstrap_servers, "dlq", 1, 1)
    assert (letter.value(), dict(letter.headers() or [])["sw-reason"]) == (b"57", b"poison")
    expected = {b"%d" % key: [number for number in range(key, 200, 10) if number != 57] for key in range(10)}
    assert by_key(kafka, 199) == expected


def test_a_sink_whose_topic_the_handler_reads_is_refused(kafka: MockKafka) -> None:
    class Snake(ByKey):
        topics = ("^o.*",)

    with pytest.raises(ConfigurationError, match=r"Snake.sink: 'out' is also one of its topics"):
        Running(config(kafka.bootstrap_servers), Snake).__enter__().ended()


def test_a_worker_whose_sink_has_no_topic_does_not_start(kafka: MockKafka) -> None:
    kafka.create_topic("in", 1)
    kafka.create_topic("dlq", 1)

    class Typo(ByKey):
        sink = KafkaSink("otu")

    with pytest.raises(ConfigurationError, match=r"Typo.sink: there is no topic 'otu'; make it first"):
        Running(config(kafka.bootstrap_servers), Typo).__enter__().ended()


def test_a_handler_in_child_processes_copies_as_well_and_its_producers_end_with_them(kafka: MockKafka) -> None:
    sent(kafka, 2_000, keys=20)

    with Running(config(kafka.bootstrap_servers), CopiesInAChild, until_end=True) as worker:
        assert worker.ended(60) == 0
        assert threads() == []

    assert by_key(kafka, 2_000) == {b"%d" % key: list(range(key, 2_000, 20)) for key in range(20)}
