"""Dead letters whose topic is away, refuses, or gets far too many: nothing is lost and nothing is passed over."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaError, TopicPartition
from fleet.in_process import Running, committed, config, read
from fleet.trial import Trial
from fleet.workers import page, produce
from servers.ports import free_port
from sizes import SOAK

from streamworker import DeadLetter, Handler, PoisonError
from streamworker.testing import MockKafka

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from streamworker import Record

PARTITIONS = 4
TIMEOUT_S, REST_S = 10.0, 60.0 * SOAK
OPTIONS = {
    "kafka.group_protocol": "classic",
    "kafka.session_timeout_s": 1,
    "lifecycle.revoke_timeout_s": 0.5,
    "dead_letters.delivery_timeout_s": 1,
    "dead_letters.retry_min_s": 0.2,
    "dead_letters.retry_max_s": 1,
    "kafka.librdkafka.reconnect.backoff.max.ms": 500,
    "app.work_s": 0.002,
}
REFUSALS = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.POLICY_VIOLATION,
    KafkaError.INVALID_RECORD,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)


def trial_on(
    kafka: MockKafka, folder: Path, *, total: int, rate: float = 1e9, options: Mapping[str, object] = {}
) -> Trial:
    return Trial(
        kafka.bootstrap_servers,
        "in",
        "g",
        folder,
        partitions=PARTITIONS,
        total=total,
        rate=rate,
        deeds={"poison": 0.05, "failing": 0.02},
        handler="fleet.apps:LedgerWithDeadLetters",
        options={**OPTIONS, **options},
        letter_partitions=2,
    )


def test_while_the_brokers_of_the_dead_letter_topic_are_down_nothing_is_committed_past_a_letter(
    tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-60. Readiness is false meanwhile, and comes back by itself."""
    port = free_port()
    with MockKafka(brokers=2, topics={"in": PARTITIONS, "in.dlq": 2}) as kafka:
        for topic, partitions, broker in (("in", PARTITIONS, 1), ("in.dlq", 2, 2)):
            for partition in range(partitions):
                kafka.leader(topic, partition, broker)
        kafka.coordinator("g", 1)
        probed = {"http.enabled": "true", "http.port": port}
        with trial_on(kafka, tmp_path, total=1000 * SOAK, rate=200, options=probed) as trial:
            trial.fleet.start()
            trial.wait_for_progress(0.2)
            trial.fleet.strike("dead letters' broker down")
            kafka.broker_down(2)
            trial.fleet.wait(lambda: page(port, "health/ready")[0] == 503, "not ready")
            trial.workload.finish(REST_S)
            kafka.broker_up(2)
            up_s = time.monotonic()
            trial.fleet.wait(lambda: page(port, "health/ready")[0] == 200, "ready")
            ready_s = time.monotonic() - up_s
            trial.come_to_rest()
            rest_s = time.monotonic() - up_s
            verdict = trial.verdict()

    assert verdict.broken() == []
    assert ready_s <= 5
    figures(
        "F-60", "dead letters' broker down", ready_s=round(ready_s, 1), rest_s=round(rest_s, 1), **verdict.figures()
    )


def test_whatever_the_brokers_say_of_a_letter_it_is_written_in_the_end(
    tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-60. Refused for good, for a while, and with an error that ends the producer."""
    with (
        MockKafka(topics={"in": PARTITIONS, "in.dlq": 2}) as kafka,
        trial_on(kafka, tmp_path, total=600) as trial,
    ):
        trial.workload.finish()
        refusals = trial.draw.choices(REFUSALS, k=4 * SOAK) + list(REFUSALS)
        kafka.push_errors("Produce", *refusals)
        trial.fleet.start()
        verdict = trial.verdict(REST_S)

    assert verdict.broken() == []
    assert verdict.repeats == 0
    figures("F-60", "brokers refuse letters", refusals=len(refusals), **verdict.figures())


def test_crashes_between_the_acknowledgement_and_the_commit_write_a_letter_once_more_each(
    tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-61. The copies have one id, so that a reader can tell."""
    crashes = 3 * SOAK
    with (
        MockKafka(topics={"in": PARTITIONS, "in.dlq": 2}) as kafka,
        trial_on(kafka, tmp_path, total=400 * SOAK) as trial,
    ):
        for crash in range(crashes):
            worker = trial.fleet.start(crash_point=f"after_dlq_ack_before_mark:{1 + crash % 3}")
            assert worker.wait(20) == -9
        trial.fleet.start()
        verdict = trial.verdict()
        copies = copies_of(kafka)

    assert verdict.broken() == []
    assert max(copies.values()) <= 1 + crashes
    extra = sum(copies.values()) - len(copies)
    assert extra > 0, "no crash came between"
    figures("F-61", "SIGKILL after a letter is acknowledged", kills=crashes, extra_copies=extra, **verdict.figures())


def copies_of(kafka: MockKafka) -> Counter[str | bytes | None]:
    """How many copies the dead-letter topic has, by their id."""
    with closing(Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "reader"})) as reader:
        ends = [reader.get_watermark_offsets(TopicPartition("in.dlq", number), TIMEOUT_S)[1] for number in range(2)]
    return Counter(dict(one.headers() or [])["sw-id"] for one in read(kafka.bootstrap_servers, "in.dlq", 2, sum(ends)))


def test_a_deploy_that_fails_every_record_writes_no_more_letters_than_its_budget(
    mock_kafka: MockKafka, figures: Callable[..., None]
) -> None:
    """F-67. What is left over is handled by the next deploy."""
    servers, total, budget, token_s = mock_kafka.bootstrap_servers, 2000 * SOAK, 20, 0.5
    mock_kafka.create_topic("in", 2)
    mock_kafka.create_topic("in.dlq", 2)
    produce(servers, "in", [(None, "x")] * total, 2)
    settings = config(servers, dead_letters__budget=budget, dead_letters__seconds_per_token=token_s)
    handled: list[tuple[int, int]] = []

    class Good(Handler[bytes]):
        topics = ("in",)
        dead_letter = DeadLetter("in.dlq")

        def handle(self, record: Record[bytes]) -> None:
            handled.append((record.partition, record.offset))

    class Bad(Good):
        def handle(self, record: Record[bytes]) -> None:
            raise PoisonError

    with Running(settings, Bad) as bad:
        bad.wait(lambda: bad.recorder.of("assigned"), "assigned")
        began_s = time.monotonic()
        bad.wait(lambda: len(bad.recorder.of("dead_lettered")) > 2 * budget + 4, "more than a burst")
        assert bad.stop() == 3
        seconds = time.monotonic() - began_s
    letters = len(bad.recorder.of("dead_lettered"))
    with Running(settings, Good, until_end=True) as good:
        assert good.ended(REST_S) == 0

    assert {str(key) for key, reason in bad.recorder.of("paused") if reason == "dead_letter_budget"} == {
        "in[0]",
        "in[1]",
    }
    assert letters <= 2 * (budget + seconds / token_s + 1)
    assert len(set(handled)) == len(handled) == total - letters
    assert committed(servers, "g", "in", 2) == {0: total // 2, 1: total // 2}
    figures("F-67", "every record fails", records=total, letters=letters, within_s=round(seconds, 1), lost=0)
