"""Several handlers in a process, runs with an end, errors instead of records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaError
from fleet.in_process import Running, committed, config, read
from fleet.workers import Fleet, produce

from streamworker import BatchHandler, DeadLetter, Handler, PoisonError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from streamworker import Record, Records
    from streamworker.testing.mock_kafka import MockKafka


def test_handlers_of_one_process_keep_to_their_topics_and_their_dead_letters(mock_kafka: MockKafka) -> None:
    """Edge case 54: the one that fails all does not hold the other up."""
    servers = mock_kafka.bootstrap_servers
    for topic in ("a", "b", "a.dlq"):
        mock_kafka.create_topic(topic, 2)
    for topic in ("a", "b"):
        produce(servers, topic, [(None, topic)] * 20, 2)
    values: list[bytes | None] = []

    class A(Handler[bytes]):
        topics = ("a",)
        dead_letter = DeadLetter("a.dlq")

        def handle(self, record: Record[bytes]) -> None:
            raise PoisonError

    class B(BatchHandler[bytes]):
        topics = ("b",)

        def handle(self, records: Records[bytes]) -> None:
            values.extend(records.values())

    with Running(config(servers), A, B, until_end=True) as worker:
        assert worker.ended() == 0

    assert values == [b"b"] * 20
    assert [one.value() for one in read(servers, "a.dlq", 2, 20)] == [b"a"] * 20
    assert committed(servers, "g", "a", 2) == committed(servers, "g", "b", 2) == {0: 10, 1: 10}


def test_a_run_to_the_end_handles_what_is_there_and_ends_with_0(mock_kafka: MockKafka, tmp_path: Path) -> None:
    """Edge case 16: also a topic with an empty partition; run again it finds nothing to do."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 3)
    produce(servers, "in", [(None, "x")] * 100, 2)

    with Fleet(servers, "g", "in", tmp_path, handler="fleet.apps:LedgerInOrder") as fleet:
        codes = [fleet.start("--until-end").wait(20), fleet.start("--until-end").wait(20)]

    assert codes == [0, 0], fleet.logs()
    assert len(fleet.effects()) == 100
    assert committed(servers, "g", "in", 3) == {0: 50, 1: 50}


def test_a_run_of_so_many_records_takes_no_more(mock_kafka: MockKafka, tmp_path: Path) -> None:
    """Edge case 2: what was fetched beyond them is left to the next run."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 1)
    produce(servers, "in", [(None, "x")] * 100, 1)

    with Fleet(servers, "g", "in", tmp_path, handler="fleet.apps:LedgerInOrder") as fleet:
        code = fleet.start("--max-records", "7").wait(20)

    assert code == 0, fleet.logs()
    assert [line.offset for line in fleet.effects()] == list(range(7))
    assert committed(servers, "g", "in", 1) == {0: 7}


def test_errors_that_come_instead_of_records_are_never_handled(
    mock_kafka: MockKafka, figures: Callable[..., None]
) -> None:
    """F-35, F-49. Edge case 98: an error event carries its text where a record has its value."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 1)
    values: list[bytes] = []

    class Seen(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None:
            values.append(record.value)

    with Running(config(servers), Seen) as worker:
        produce(servers, "in", [(None, "x")] * 10, 1)
        worker.wait(lambda: len(values) == 10, "the first half")
        mock_kafka.push_errors("Fetch", KafkaError.TOPIC_AUTHORIZATION_FAILED)
        worker.wait(lambda: worker.recorder.of("stopped"), "stopped")
        produce(servers, "in", [(None, "x")] * 10, 1)
        worker.wait(lambda: len(values) == 20, "all records")
        worker.wait(lambda: committed(servers, "g", "in", 1) == {0: 20}, "all committed")
        assert worker.stop() == 0

    assert values == [b"x"] * 20
    assert "unauthorized" in str(worker.recorder.of("stopped"))
    figures("F-49", "errors instead of records", records=len(values), calls_with_an_error=0)
