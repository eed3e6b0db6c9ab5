"""Logs that lose records, are made anew, refuse to be read or change their leader under a worker at work."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError
from fleet.in_process import Running, committed, config
from fleet.proxied import ProxiedMock
from fleet.trial import Trial
from fleet.workers import let_pass, produce
from servers.ports import free_port
from servers.proxy_process import DAMAGEABLE
from sizes import SOAK

from streamworker import Handler, TopicPartition
from streamworker.cluster import Cluster
from streamworker.config import KafkaConfig
from streamworker.interfaces import OffsetMark
from streamworker.librdkafka import admin_settings
from streamworker.testing import MockKafka

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from streamworker import Record

PARTITIONS = 4
QUICK_REFRESH = {"kafka__librdkafka__topic.metadata.refresh.interval.ms": "500"}
QUICK_FETCH = {"kafka__librdkafka__fetch.wait.max.ms": "100", "kafka__librdkafka__fetch.error.backoff.ms": "100"}
LEADERLESS_S = 5
SESSION_MS, HEARTBEAT_MS = 30_000, 300  # nobody is expelled, and who joins soon has partitions
STOPPED_S = RESUMED_S = 5.0
DETECTED_S = 10.0
# Errors of a fetch after which the client finds out by itself where to go on.
PASSING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
)


def test_records_that_retention_takes_from_a_slow_worker_stop_their_partition(
    mock_kafka: MockKafka, figures: Callable[..., None]
) -> None:
    """F-31. What it has in hand is handled and committed, and nothing beyond the gap."""
    servers, may_go_on = mock_kafka.bootstrap_servers, threading.Event()
    seen: list[int] = []

    class Slow(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None:
            may_go_on.wait()
            seen.append(record.offset)

    mock_kafka.create_topic("in", 1)
    produce(servers, "in", [(None, "x")] * 20, 1)
    settings = config(servers, flow__max_inflight=4, flow__pause_after_s=0)
    with Running(settings, Slow) as worker:
        worker.wait(lambda: worker.recorder.of("paused"), "fetched what it may")
        mock_kafka.delete_records("in", 0, 15)
        began_s = time.monotonic()
        may_go_on.set()
        worker.wait(lambda: worker.recorder.of("stopped"), "stopped", STOPPED_S)
        figures("F-31", "retention overtakes a slow worker", stopped_s=round(time.monotonic() - began_s, 1))
        worker.wait(lambda: committed(servers, "g", "in", 1) == {0: len(seen)}, "committed")
        assert worker.stop() == 0

    ((partition, reason, detail, mends_itself),) = worker.recorder.of("stopped")
    assert (str(partition), reason, mends_itself) == ("in[0]", "offset_out_of_range", False), detail
    assert seen == list(range(len(seen)))


def test_a_topic_made_anew_under_a_worker_stops_it(mock_kafka: MockKafka, figures: Callable[..., None]) -> None:
    """F-32. The group is at 50 and the new log ends at 10: none of it is read unasked."""
    servers = mock_kafka.bootstrap_servers
    values: list[bytes] = []

    class Seen(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None:
            values.append(record.value)

    mock_kafka.create_topic("in", 1)
    produce(servers, "in", [(None, "old")] * 50, 1)
    with Running(config(servers, **QUICK_REFRESH, **QUICK_FETCH), Seen) as worker:
        worker.wait(lambda: committed(servers, "g", "in", 1) == {0: 50}, "committed")
        began_s = time.monotonic()
        mock_kafka.delete_topic("in")
        mock_kafka.create_topic("in", 1)
        produce(servers, "in", [(None, "new")] * 10, 1)
        worker.wait(lambda: worker.recorder.of("stopped"), "stopped", STOPPED_S)
        figures("F-32", "topic made anew", stopped_s=round(time.monotonic() - began_s, 1))
        assert worker.stop() == 0

    ((_, reason, *_),) = worker.recorder.of("stopped")
    assert reason == "offset_out_of_range"
    assert values == [b"old"] * 50


def test_leaders_that_move_and_go_away_cost_no_record(tmp_path: Path, figures: Callable[..., None]) -> None:
    """F-34. A storm of moves, then 5 s with a leader that is down; no ownership ends by it, so nothing is repeated."""
    living, down = (1, 2), 3

    with MockKafka(brokers=3, topics={"in": PARTITIONS}) as kafka, trial_on(kafka, tmp_path) as trial:

        def move(partition: int, *brokers: int) -> None:
            kafka.leader("in", partition, trial.draw.choice(brokers))

        trial.wait_for_progress(0.05)
        trial.fleet.strike("leaders move")
        for _ in range(20 * SOAK):
            move(trial.draw.randrange(PARTITIONS), *living, down)
            let_pass(0.05)
        trial.fleet.strike("leaders are down")
        kafka.broker_down(down)
        for partition in range(PARTITIONS):
            move(partition, down)
        let_pass(LEADERLESS_S)
        for partition in range(PARTITIONS):
            move(partition, *living)
        figures("F-34", f"leaders down for {LEADERLESS_S} s", resumed_s=_resumed_s(trial))
        verdict = trial.verdict()

    assert verdict.broken() == []
    assert verdict.repeats == 0
    figures("F-34", "moves, then leaders down", **verdict.figures())


@contextmanager
def trial_on(kafka: MockKafka, folder: Path) -> Iterator[Trial]:
    """A worker that keeps up with a producer; its coordinator stays."""
    kafka.coordinator("g", 1)
    kafka.group_session_timeout(SESSION_MS, HEARTBEAT_MS)
    with Trial(
        kafka.bootstrap_servers,
        "in",
        "g",
        folder,
        partitions=PARTITIONS,
        total=600 * SOAK,
        rate=100,
        options={"app.work_s": 0.01},
        sends_at_once=False,
    ) as trial:
        trial.fleet.start()
        trial.wait_for_owners(1)
        trial.send()
        yield trial


def _resumed_s(trial: Trial) -> float:
    """Seconds until a record of each partition is handled that is begun from now; nothing is in the buffers."""
    began_s = time.monotonic()

    def all_resumed() -> bool:
        return len({one.partition for one in trial.fleet.effects() if one.began_s > began_s}) == PARTITIONS

    trial.fleet.wait(all_resumed, "work on each partition", RESUMED_S)
    return round(time.monotonic() - began_s, 1)


def test_errors_of_a_fetch_pass_unseen_or_stop_the_partition_in_the_open(
    mock_kafka: MockKafka, figures: Callable[..., None]
) -> None:
    """F-35. What the client mends is not even reported, a refusal mends itself, a damaged batch waits for a person."""
    servers = mock_kafka.bootstrap_servers
    seen: list[int] = []

    class Seen(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None:
            seen.append(record.offset)

    mock_kafka.create_topic("in", 1)
    settings = config(servers, http__enabled="true", http__port=free_port(), **QUICK_FETCH)
    with Running(settings, Seen) as worker:
        worker.wait(lambda: worker.recorder.of("assigned"), "assigned")
        mock_kafka.push_errors("Fetch", *PASSING)
        produce(servers, "in", [(None, "x")] * 10, 1)
        worker.wait(lambda: len(seen) == 10, "passed")
        assert worker.recorder.of("fault") == worker.recorder.of("stopped") == []

        mock_kafka.push_errors("Fetch", KafkaError.TOPIC_AUTHORIZATION_FAILED)
        worker.wait(lambda: '"none_stopped": false' in worker.page("health/ready")[1], "not ready")
        produce(servers, "in", [(None, "x")] * 10, 1)
        worker.wait(lambda: len(seen) == 20, "mended")
        worker.wait(lambda: worker.page("health/ready")[0] == 200, "ready")

        mock_kafka.push_errors("Fetch", *[KafkaError.INVALID_MSG] * 3)
        worker.wait(lambda: worker.page("health/ready")[0] == 503, "not ready")
        produce(servers, "in", [(None, "x")] * 10, 1)
        worker.wait(lambda: committed(servers, "g", "in", 1) == {0: 20}, "committed")
        assert worker.stop() == 0

    assert [(reason, mends) for _, reason, _, mends in worker.recorder.of("stopped")] == [
        ("unauthorized", True),
        ("unreadable_batch", False),
    ]
    assert seen == list(range(20))
    figures("F-35", "errors of a fetch", passed_unseen=len(PASSING), records=len(seen), repeats=0)


def test_a_batch_with_a_wrong_checksum_stops_its_partition_until_an_operator_goes_past_it(
    figures: Callable[..., None],
) -> None:
    """F-51. P10. A byte of it changes on each way from the broker; nothing but its offset set by hand passes it."""
    seen: list[tuple[int, int]] = []

    class Seen(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None:
            seen.append((record.partition, record.offset))

    with ProxiedMock(topics={"in": 2}) as mock:
        for value in (b"fine", b"fine", DAMAGEABLE, b"fine"):
            mock.kafka.produce_raw("in", 0, None, value)
            mock.kafka.produce_raw("in", 1, None, b"fine")
        mock.proxies[1].damage()
        servers = mock.bootstrap_servers
        with Running(config(servers), Seen) as worker:
            began_s = time.monotonic()
            worker.wait(lambda: worker.recorder.of("stopped"), "stopped", DETECTED_S)
            detected_s = round(time.monotonic() - began_s, 1)
            worker.wait(lambda: committed(servers, "g", "in", 2) == {0: 2, 1: 4}, "committed")
            assert worker.stop() == 0
        before = sorted(seen)
        cluster = Cluster(admin_settings(KafkaConfig(bootstrap_servers=servers)))
        # In a group of its own: the mock lets nobody set the offsets of one that had members.
        behind = {TopicPartition("in", 0): OffsetMark(3), TopicPartition("in", 1): OffsetMark(4)}
        (answer, _) = cluster.set_group_offsets("past it", behind, DETECTED_S)
        with Running(config(servers, "past it"), Seen) as again:
            again.wait(lambda: committed(servers, "past it", "in", 2)[0] == 4, "past it")
            assert again.stop() == 0

    assert answer.error is None
    ((_, reason, detail, mends_itself),) = worker.recorder.of("stopped")
    assert (reason, mends_itself) == ("unreadable_batch", False)
    assert detail.startswith("offset 2: _BAD_MSG")
    assert before == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3)]
    assert seen[len(before) :] == [(0, 3)]
    figures("F-51", "a wrong checksum", records=len(seen), repeats=0, detected_s=detected_s)
