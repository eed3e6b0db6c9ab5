"""Brokers that die, stop and come back while workers run, leaders that move, and logs that are cut back."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # the package does not list what it exports
from fleet.checker import Anomaly, check
from fleet.history import Effect, History
from fleet.in_process import Running, committed, config
from fleet.trial import Trial
from fleet.workers import let_pass
from msgspec.structs import replace
from servers.kafka import SharedKafka
from sizes import SOAK

from streamworker import Handler
from streamworker.record import TopicPartition as StoppedPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from fleet.checker import Verdict
    from fleet.history import Happening
    from servers.kafka_cluster import KafkaCluster

    from streamworker import Record

PROTOCOLS = ("classic", "consumer")
PARTITIONS = 4
RATE = 80  # records a second: enough that each partition has something to do at any time …
MORE_THAN_ENOUGH = 1_000_000  # … until the last fault is over
OUTAGE_S = min(60, 10 * (SOAK - 1))  # beside what the nodes need to start, which is several seconds
TIMEOUT_S = 30.0


@pytest.mark.timeout(300 * SOAK)
def test_brokers_that_die_stop_or_hand_over_cost_no_record(
    three_nodes: KafkaCluster, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """Faults F-30 and F-34."""
    resumed_s: dict[str, float] = {}
    with _at_work(three_nodes, tmp_path) as trials:
        for what, (strike, within_s) in list(FAULTS.items()) * SOAK:
            for trial in trials:
                trial.fleet.strike(what)
            strike(three_nodes, trials)
            resumed_s[what] = max(_resume(trials, within_s), resumed_s.get(what, 0.0))
            three_nodes.make_whole()

        verdicts = _assert_nothing_is_broken(trials)
    for protocol, verdict in zip(PROTOCOLS, verdicts, strict=True):
        figures("F-30", f"three brokers, {protocol}", **verdict.figures())
    for what, seconds in resumed_s.items():
        figures("F-30", f"three brokers, {what}", resumed_s=round(seconds, 1))


def _move_leaders(cluster: KafkaCluster, trials: Sequence[Trial]) -> None:
    cluster.move_leaders("__consumer_offsets", *(trial.fleet.topic for trial in trials))


def _kill_a_leader(cluster: KafkaCluster, trials: Sequence[Trial]) -> None:
    """It stays away until the others have taken over."""
    cluster.node(cluster.leaders(trials[0].fleet.topic)[0]).kill()


def _kill_the_coordinator(cluster: KafkaCluster, trials: Sequence[Trial]) -> None:
    """It is started again at once, as by a supervisor."""
    node = cluster.node(cluster.coordinator(trials[0].fleet.group))
    node.kill()
    node.start()


def _restart_one_after_the_other(cluster: KafkaCluster, _: Sequence[Trial]) -> None:
    for node in cluster.nodes:
        node.stop()
        cluster.make_whole()


def _kill_all(cluster: KafkaCluster, _: Sequence[Trial]) -> None:
    cluster.kill()
    let_pass(OUTAGE_S)
    cluster.start()


# What is done, and within how many seconds from then on each partition must have moved on.
FAULTS = {
    "leaders moved": (_move_leaders, 60.0),
    "leader killed": (_kill_a_leader, 60.0),
    "coordinator killed": (_kill_the_coordinator, 60.0),
    **({"rolling restart": (_restart_one_after_the_other, 60.0)} if SOAK > 1 else {}),
    "all brokers killed": (_kill_all, 60.0),
}


@contextmanager
def _at_work(cluster: KafkaCluster, folder: Path) -> Iterator[Sequence[Trial]]:
    """Two workers of each protocol at work on a whole cluster, each protocol with a topic of its own."""
    cluster.make_whole()
    names = SharedKafka(cluster)
    with ExitStack() as stack:
        trials = [stack.enter_context(_trial(names, one, folder)) for one in PROTOCOLS]
        for trial in trials * 2:
            trial.fleet.start()
        for trial in trials:
            trial.wait_for_owners(2)
        yield trials


def _trial(names: SharedKafka, protocol: str, folder: Path) -> Trial:
    own = folder / protocol
    own.mkdir()
    return Trial(
        names.bootstrap_servers,
        names.topic(protocol, partitions=PARTITIONS),
        names.group(protocol),
        own,
        partitions=PARTITIONS,
        total=MORE_THAN_ENOUGH,
        rate=RATE,
        options={"kafka.group_protocol": protocol, "app.work_s": 0.01},
    )


def _resume(trials: Sequence[Trial], within_s: float) -> float:
    """Seconds until of each partition a record is handled and committed whose call began from now on."""
    began_s = time.monotonic()
    for trial in trials:
        left_s = began_s + within_s - time.monotonic()
        trial.fleet.wait(partial(_has_resumed, trial, began_s), "work on each partition", left_s)
    return time.monotonic() - began_s


def _has_resumed(trial: Trial, since_s: float) -> bool:
    handled: dict[int, int] = {}
    for effect in trial.fleet.effects():
        if effect.began_s > since_s:
            handled.setdefault(effect.partition, effect.offset)
    reached = trial.watcher.committed()
    return all(reached.get(number, 0) > handled.get(number, inf) for number in range(PARTITIONS))


def _assert_nothing_is_broken(trials: Sequence[Trial]) -> Sequence[Verdict]:
    for trial in trials:
        trial.workload.stop()
        trial.come_to_rest()
    verdicts = [_verdict(trial) for trial in trials]
    # The client sends a commit again that found no coordinator; it may land after a newer one.
    assert [verdict.broken(Anomaly.COMMIT_REGRESS) for verdict in verdicts] == [[], []]
    assert [len(trial.fleet.living()) for trial in trials] == [2, 2]
    assert not [line for trial in trials for line in trial.fleet.logs().splitlines() if "stalled" in line]
    return verdicts


def _verdict(trial: Trial) -> Verdict:
    """Judged with what the producer wrote twice, which happens when all brokers are killed, as records of their own."""
    sent = {one.uid: one for one in trial.workload.sent()}
    places = {(one.partition, one.offset) for one in sent.values()}
    happenings: list[Happening] = [*sent.values(), *trial.watcher.seen]
    for one in trial.fleet.happenings():
        original = sent.get(one.uid or "") if isinstance(one, Effect) else None
        if isinstance(one, Effect) and original and (one.partition, one.offset) not in places:
            uid = f"{original.uid} at {one.offset}"
            happenings.append(replace(original, uid=uid, offset=one.offset))
            happenings.append(replace(one, uid=uid))
        else:
            happenings.append(one)
    return check(History.of(happenings, trial.workload.ends()))


@dataclass(frozen=True, slots=True)
class Seen:
    """What a worker did with the partitions SHORT and LONG, and where its group stood when it ended."""

    handled: Mapping[int, Sequence[int]]
    stopped: Mapping[int, tuple[str, str]]  # reason and detail
    committed: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class CutBack:
    """A worker whose log was cut back under it, and one that was started after it."""

    during: Seen
    after: Seen


# Records of each partition that both replicas have, and that are lost; the group has committed them all.
KEPT, LOST = 10, 20
# The new logs end before the group's offset, and beyond it.
SHORT, LONG = 0, 1
WRITTEN_AFTER = {SHORT: 5, LONG: 50}
BOTH = (SHORT, LONG)


@pytest.fixture(scope="module")
def cut_back(three_nodes: KafkaCluster) -> CutBack:
    """Fault F-33: a replica that was frozen leads, and those that had more records are gone."""
    three_nodes.make_whole()
    servers, group = three_nodes.bootstrap_servers, SharedKafka(three_nodes).group("cut.back")
    coordinator = three_nodes.coordinator(group)
    leader, follower = [node for node in three_nodes.nodes if node.number != coordinator]
    topic = _topic_for_unclean_elections(three_nodes, [leader.number, follower.number])

    with _noting(servers, group, topic) as (worker, handled):
        _write(servers, topic, dict.fromkeys(BOTH, KEPT))
        worker.wait(lambda: committed(servers, group, topic, 2) == dict.fromkeys(BOTH, KEPT), "committed")
        follower.pause()
        three_nodes.wait_until(
            lambda: three_nodes.in_sync(topic) == dict.fromkeys(BOTH, (leader.number,)), "left behind"
        )
        _write(servers, topic, dict.fromkeys(BOTH, LOST))
        worker.wait(lambda: committed(servers, group, topic, 2) == dict.fromkeys(BOTH, KEPT + LOST), "committed")
        leader.kill()
        follower.resume()
        three_nodes.wait_until(lambda: three_nodes.leaders(topic) == dict.fromkeys(BOTH, follower.number), "elected")
        _write(servers, topic, WRITTEN_AFTER)
        worker.wait(lambda: all(one in _stopped(worker) or len(handled[one]) > KEPT + LOST for one in BOTH), "reacted")
    during = Seen(handled, _stopped(worker), committed(servers, group, topic, 2))
    with _noting(servers, group, topic) as (worker, handled):
        worker.wait(lambda: all(one in _stopped(worker) or handled[one] for one in BOTH), "reacted")
    after = Seen(handled, _stopped(worker), committed(servers, group, topic, 2))

    assert _ends(servers, topic) == {one: KEPT + WRITTEN_AFTER[one] for one in BOTH}, "nothing was lost"
    return CutBack(during, after)


@contextmanager
def _noting(servers: str, group: str, topic: str) -> Iterator[tuple[Running, Mapping[int, Sequence[int]]]]:
    """A worker at work, and the offsets that it handles by partition."""
    handled: dict[int, list[int]] = {one: [] for one in BOTH}

    class Noting(Handler[bytes]):
        topics = (topic,)

        def handle(self, record: Record[bytes]) -> None:
            handled[record.partition].append(record.offset)

    with Running(config(servers, group), Noting) as worker:
        yield worker, handled


def _stopped(worker: Running) -> dict[int, tuple[str, str]]:
    """Why partitions are stopped: reason and detail."""
    return {
        partition.partition: (str(reason), str(detail))
        for partition, reason, detail, _ in worker.recorder.of("stopped")
        if isinstance(partition, StoppedPartition)
    }


def _topic_for_unclean_elections(cluster: KafkaCluster, replicas: list[int]) -> str:
    name = "cut.back"
    settings = {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}
    topic = NewTopic(name, len(BOTH), replica_assignment=[replicas] * len(BOTH), config=settings)
    cluster.admin.create_topics([topic])[name].result(TIMEOUT_S)
    cluster.make_whole()
    return name


def _write(servers: str, topic: str, counts: Mapping[int, int]) -> None:
    producer = Producer({"bootstrap.servers": servers})
    for partition, records in counts.items():
        for _ in range(records):
            producer.produce(topic, b"x", partition=partition)
    assert producer.flush(TIMEOUT_S) == 0


def _ends(servers: str, topic: str) -> dict[int, int]:
    reader = Consumer({"bootstrap.servers": servers, "group.id": "reader"})
    try:
        return {one: reader.get_watermark_offsets(TopicPartition(topic, one), TIMEOUT_S)[1] for one in BOTH}
    finally:
        reader.close()


def test_a_worker_whose_log_is_cut_back_stops_the_partitions_and_goes_no_further(
    cut_back: CutBack, figures: Callable[..., None]
) -> None:
    assert ["truncation" in detail for _, detail in cut_back.during.stopped.values()] == [True, True]
    assert cut_back.during.handled == {one: list(range(KEPT + LOST)) for one in BOTH}
    assert cut_back.during.committed == dict.fromkeys(BOTH, KEPT + LOST)
    figures("F-33", "a log cut back by an unclean election", partitions=len(BOTH), stopped=len(cut_back.during.stopped))


def test_a_log_that_is_cut_back_is_the_reason_that_a_partition_stops_for(cut_back: CutBack) -> None:
    assert [reason for reason, _ in cut_back.during.stopped.values()] == ["log_truncated", "log_truncated"]


def test_a_worker_that_starts_when_the_group_is_past_the_end_stops_the_partition(cut_back: CutBack) -> None:
    assert cut_back.after.stopped[SHORT][0] == "offset_out_of_range"
    assert cut_back.after.handled[SHORT] == []
    assert cut_back.after.committed[SHORT] == KEPT + LOST
