"""Commits that are refused, late or lost, and groups that change all the time."""

from __future__ import annotations

import json
import threading
import time
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaError
from fleet.checker import Anomaly
from fleet.history import Owned
from fleet.in_process import Running, committed, config
from fleet.proxied import ProxiedMock
from fleet.trial import Trial
from fleet.workers import let_pass, page, produce, terminate
from servers.ports import free_port
from sizes import SOAK

from streamworker import Handler
from streamworker.exit_code import ExitCode
from streamworker.interfaces import FaultKind
from streamworker.testing import MockKafka

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from streamworker import Record
    from streamworker.config import Config

PARTITIONS = 4
SESSION_S = 1
QUICK = {
    "kafka.group_protocol": "classic",
    "kafka.session_timeout_s": SESSION_S,
    "lifecycle.revoke_timeout_s": 0.5,
    "app.work_s": 0.002,
}
# With time to finish on a revocation, where nothing may be repeated.
ORDERLY = {**QUICK, "kafka.session_timeout_s": 6, "lifecycle.revoke_timeout_s": 3}
REFUSED_FOR_GOOD = ["TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED", "OFFSET_METADATA_TOO_LARGE"]
MAX_UNCOMMITTED = 50
# Of each partition one record is committed before commits are refused; then nothing beyond the bound is begun.
ONE_EACH = dict.fromkeys(range(PARTITIONS), 1)
MAY_BEGIN = PARTITIONS * (1 + MAX_UNCOMMITTED)
DELAY_S = 2 * SOAK
# What stalls for so long ends the process, the test run here: a loaded machine may hold it up for a second.
STALL_S = 3.0
REFUSALS = 90  # one each 0.05 s
MEMBERS = 6
UNRELEASED_INSTANCE_ID = 111


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    """A cluster for one run: what it keeps of a topic is little."""
    with MockKafka(topics={"in": PARTITIONS}) as cluster:
        yield cluster


def trial_on(servers: str, folder: Path, options: Mapping[str, object], total: int, rate: float = 400) -> Trial:
    return Trial(
        servers, "in", "g", folder, partitions=PARTITIONS, total=total, rate=rate, options=options, sends_at_once=False
    )


def test_commits_that_are_refused_for_a_moment_cost_nothing(
    kafka: MockKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-11."""
    refusals = {
        "REBALANCE_IN_PROGRESS": KafkaError.REBALANCE_IN_PROGRESS,
        "COORDINATOR_LOAD_IN_PROGRESS": KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        "NOT_COORDINATOR": KafkaError.NOT_COORDINATOR,
        "a closed connection": KafkaError._TRANSPORT,
    }
    mended_s = {}
    # By default the client waits longer from time to time, up to 10 s, which would be more than the session here.
    options = {**ORDERLY, "kafka.librdkafka.reconnect.backoff.max.ms": 500}

    with trial_on(kafka.bootstrap_servers, tmp_path, options, 1500, 250) as trial:
        trial.fleet.start()
        trial.send()
        trial.wait_for_progress(0.05)
        for name, code in refusals.items():
            trial.fleet.strike(name)
            kafka.push_errors("OffsetCommit", *[code] * 3)
            mended_s[name] = seconds_until_committed(trial)
        verdict = trial.verdict()

    assert verdict.broken() == []
    assert verdict.repeats == 0
    for name, seconds in mended_s.items():
        figures("F-11", f"three commits answered by {name}", mended_s=round(seconds, 1))
    figures("F-11", "all of these", **verdict.figures())


def test_a_member_that_its_coordinator_does_not_know_any_more_joins_again_and_repeats_what_it_must(
    kafka: MockKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-10."""
    mended_s = {}

    with trial_on(kafka.bootstrap_servers, tmp_path, QUICK, 1400) as trial:
        for _ in range(2):
            trial.fleet.start()
        trial.wait_for_owners(2)
        trial.send()
        trial.wait_for_progress(0.05)
        for name in ("ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID"):
            trial.fleet.strike(name)
            kafka.push_errors("OffsetCommit", getattr(KafkaError, name))
            mended_s[name] = seconds_until_committed(trial)
        verdict = trial.verdict()

        assert len(trial.fleet.living()) == 2
    assert verdict.broken() == []
    for name, seconds in mended_s.items():
        figures("F-10", f"a commit answered by {name}", mended_s=round(seconds, 1))
    figures("F-10", "both of these", **verdict.figures())


def seconds_until_committed(trial: Trial) -> float:
    """Until of each partition a record is committed whose call began from now on, or all is committed."""
    began_s = time.monotonic()

    def has_resumed() -> bool:
        first: dict[int, int] = {}
        for one in trial.fleet.effects():
            if one.began_s > began_s:
                first.setdefault(one.partition, one.offset)
        seen = trial.watcher.committed()
        at_rest = trial.workload.acknowledged() == trial.workload.total and seen == trial.workload.ends()
        return at_rest or all(seen.get(number, 0) > first.get(number, inf) for number in range(PARTITIONS))

    trial.fleet.wait(has_resumed, "commits")
    return time.monotonic() - began_s


@pytest.mark.parametrize("name", REFUSED_FOR_GOOD)
def test_while_commits_are_refused_no_more_is_begun_than_may_be_repeated(
    mock_kafka: MockKafka, name: str, figures: Callable[..., None]
) -> None:
    """F-12."""
    servers = mock_kafka.bootstrap_servers
    seen, handler = counting()
    settings = one_record_each(mock_kafka, http__enabled="false")

    with Running(settings, handler) as worker:
        refuse(mock_kafka, worker, name)
        worker.wait(lambda: len(seen) >= MAY_BEGIN, "all that may be begun")
        worker.wait(lambda: len(worker.recorder.of("commit_answered")) > 5, "refusals")
        begun = len(seen)
        offsets = committed(servers, "g", "in", PARTITIONS)
        assert worker.stop() == 0

    assert begun == MAY_BEGIN
    assert offsets == ONE_EACH
    figures("F-12", f"commits refused by {name}", begun=begun - PARTITIONS, bound=PARTITIONS * MAX_UNCOMMITTED)


def test_a_worker_whose_commits_are_refused_says_so_by_its_readiness(mock_kafka: MockKafka) -> None:
    """F-12."""
    seen, handler = counting()
    settings = one_record_each(mock_kafka, http__enabled="true", http__port=free_port())

    with Running(settings, handler) as worker:
        worker.wait(lambda: worker.page("health/ready")[0] == 200, "joined")
        refuse(mock_kafka, worker, REFUSED_FOR_GOOD[1])
        worker.wait(lambda: len(seen) == MAY_BEGIN, "all that may be begun")
        worker.wait(lambda: worker.page("health/ready")[0] == 503, "not ready", timeout_s=10)
        assert worker.page("health/live")[0] == 200
        assert worker.stop() == 0


def test_a_worker_that_waits_for_its_commits_is_not_taken_for_one_that_stalls(mock_kafka: MockKafka) -> None:
    """F-12. Else its consumer would be made anew, the second time the process would end, and all would be repeated."""
    seen, handler = counting()
    settings = one_record_each(mock_kafka, http__enabled="false", lifecycle__stall_timeout_s=STALL_S)

    with Running(settings, handler) as worker:
        refuse(mock_kafka, worker, REFUSED_FOR_GOOD[1])
        worker.wait(lambda: len(seen) == MAY_BEGIN, "all that may be begun")
        worker.wait(lambda: len(worker.recorder.of("commit_answered")) > REFUSALS, "refusals for longer than that")
        stalls = worker.recorder.of("stalled")
        worker.stop()

    assert stalls == []


def counting() -> tuple[list[tuple[int, int]], type[Handler[bytes]]]:
    """A handler, and the partition and offset of each of its calls."""
    seen: list[tuple[int, int]] = []

    class Counting(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None:
            seen.append((record.partition, record.offset))

    return seen, Counting


def refuse(kafka: MockKafka, worker: Running, name: str) -> None:
    """Once what there is was committed, refuse any commit, and let many records come."""
    worker.wait(lambda: committed(kafka.bootstrap_servers, "g", "in", PARTITIONS) == ONE_EACH, "the first commits")
    kafka.push_errors("OffsetCommit", *[getattr(KafkaError, name)] * 10_000)
    produce(kafka.bootstrap_servers, "in", [(None, "x")] * (4 * PARTITIONS * MAX_UNCOMMITTED), PARTITIONS)


def one_record_each(kafka: MockKafka, **options: object) -> Config:
    """Settings for a cluster with one record in each partition."""
    kafka.create_topic("in", PARTITIONS)
    produce(kafka.bootstrap_servers, "in", [(None, "x")] * PARTITIONS, PARTITIONS)
    return config(
        kafka.bootstrap_servers,
        "g",
        commit__max_uncommitted=MAX_UNCOMMITTED,
        commit__interval_s=0.05,
        commit__timeout_s=0.2,
        **options,
    )


def test_an_answer_that_is_late_or_lost_holds_nothing_up(tmp_path: Path, figures: Callable[..., None]) -> None:
    """F-13. The coordinator is a broker of its own: records come as ever."""
    silences_s: dict[str, float] = {}
    with (
        ProxiedMock(2, {"in": PARTITIONS}) as brokers,
        trial_on(brokers.bootstrap_servers, tmp_path, {**ORDERLY, "commit.timeout_s": 0.5}, 1600 * SOAK) as trial,
    ):
        for number in range(PARTITIONS):
            brokers.kafka.leader("in", number, 1)
        brokers.kafka.coordinator("g", 2)
        port = free_port()
        trial.fleet.start(**{"http.enabled": "true", "http.port": str(port)})
        trial.send()
        trial.wait_for_progress(0.05)

        trial.fleet.strike("late answers")
        brokers.kafka.broker_rtt(2, DELAY_S * 1000)
        silences_s["late"] = longest_silence_s(trial, port)
        brokers.kafka.broker_rtt(2, 0)
        seconds_until_committed(trial)
        trial.fleet.strike("lost answers")
        brokers.proxies[2].drop_down()
        silences_s["lost"] = longest_silence_s(trial, port)
        assert brokers.proxies[2].lossy_connections
        brokers.proxies[2].heal()
        verdict = trial.verdict()

        assert "commit unanswered" in trial.fleet.logs()
    assert verdict.broken() == []
    # A loop that waited for an answer would not poll for all of the delay.
    assert max(silences_s.values()) < DELAY_S / 2
    for name, seconds in silences_s.items():
        figures("F-13", f"{name} answers for {DELAY_S} s", poll_gap_s=round(seconds, 1))
    figures("F-13", "both of these", **verdict.figures())


def longest_silence_s(trial: Trial, port: int) -> float:
    """How long at most the loop has not polled, within the next seconds."""
    until_s = time.monotonic() + DELAY_S
    ages_s: list[float] = []

    def is_over() -> bool:
        ages_s.append(json.loads(page(port, "status")[1])["last_poll_age_s"])
        return time.monotonic() > until_s

    trial.fleet.wait(is_over, "the time")
    return max(ages_s)


@pytest.mark.parametrize(
    ("protocol", "request_name", "code", "ending"),
    [
        ("consumer", "ConsumerGroupHeartbeat", UNRELEASED_INSTANCE_ID, ExitCode.FENCED),
        ("consumer", "ConsumerGroupHeartbeat", KafkaError.GROUP_AUTHORIZATION_FAILED, ExitCode.FATAL),
    ],
)
def test_a_client_that_is_done_for_ends_the_worker(
    mock_kafka: MockKafka, protocol: str, request_name: str, code: int, ending: ExitCode
) -> None:
    """Else it would own its partitions for ever, and handle nothing: the client never joins again."""
    mock_kafka.create_topic("in", PARTITIONS)
    mock_kafka.group_session_timeout(6000, 200)
    _, handler = counting()

    with Running(config(mock_kafka.bootstrap_servers, kafka__group_protocol=protocol), handler) as worker:
        worker.wait(lambda: worker.recorder.of("assigned"), "assigned")
        mock_kafka.push_errors(request_name, *[code] * 100)
        assert worker.ended(5) == ending


def test_a_member_that_is_refused_at_its_start_makes_another_client_and_joins(mock_kafka: MockKafka) -> None:
    """Its predecessor has its instance id until that session has ended."""
    mock_kafka.create_topic("in", PARTITIONS)
    mock_kafka.push_errors("ConsumerGroupHeartbeat", UNRELEASED_INSTANCE_ID)
    _, handler = counting()

    with Running(config(mock_kafka.bootstrap_servers, kafka__group_protocol="consumer"), handler) as worker:
        worker.wait(lambda: worker.recorder.of("assigned"), "assigned")

        assert [fault.kind for (fault,) in worker.recorder.of("fault")] == [FaultKind.UNRELEASED]
        assert worker.stop() == ExitCode.OK


@pytest.mark.parametrize("protocol", ["classic", "consumer"][:SOAK])
def test_members_that_come_and_go_twice_a_second_lose_nothing_and_repeat_little(
    kafka: MockKafka, tmp_path: Path, protocol: str, figures: Callable[..., None]
) -> None:
    """F-16. Those that go have no time to finish what they run, as sessions are short."""
    storm_s = 15 * SOAK
    going: list[subprocess.Popen[bytes]] = []
    kafka.group_session_timeout(1000, 200)

    with trial_on(
        kafka.bootstrap_servers, tmp_path, {**QUICK, "kafka.group_protocol": protocol}, 150 * storm_s, 150
    ) as trial:
        trial.send()
        trial.fleet.strike("a storm")
        for _ in range(3):
            trial.fleet.start()
        trial.wait_for_progress(0.01)
        began_s = time.monotonic()
        for toggle in range(2 * storm_s):
            come_or_go(trial, going)
            let_pass(began_s + (toggle + 1) / 2 - time.monotonic())
        verdict = trial.verdict()
        ended_s = sorted(one.ended_s for one in trial.fleet.effects())
        lost = any(isinstance(one, Owned) and one.what == "lost" for one in trial.fleet.happenings())

    gap_s = max(later - earlier for earlier, later in pairwise(ended_s))
    # A member that its coordinator has given up runs the call in hand to its end, while another has begun.
    assert verdict.broken(*([Anomaly.KEY_OVERLAP] if lost else [])) == []
    assert verdict.repeats < 0.2 * verdict.records
    assert gap_s < 10
    figures(
        "F-16",
        f"a storm of {storm_s} s, {protocol}",
        joined=len(trial.fleet.workers),
        left=len(going),
        gap_s=round(gap_s, 1),
        **verdict.figures(),
    )


def come_or_go(trial: Trial, going: list[subprocess.Popen[bytes]]) -> None:
    """Start a member or tell one to go, of up to six; one that owns partitions always stays."""
    staying = [worker for worker in trial.fleet.living() if worker not in going]
    owners = trial.owners()
    free_to_go = [worker for worker in staying if worker.pid in owners]
    if len(free_to_go) > 1 and (len(staying) == MEMBERS or trial.draw.random() < 0.5):
        going.append(trial.draw.choice(free_to_go))
        trial.fleet.strike("told to go", going[-1])
        going[-1].terminate()
    elif len(staying) < MEMBERS:
        trial.fleet.start()


def test_a_hundred_calls_that_run_when_their_partitions_move_are_finished_and_not_repeated(
    mock_kafka: MockKafka, figures: Callable[..., None]
) -> None:
    """F-23."""
    servers, total = mock_kafka.bootstrap_servers, 6000
    ends = dict.fromkeys(range(PARTITIONS), total // PARTITIONS)
    mock_kafka.create_topic("in", PARTITIONS)
    mock_kafka.group_session_timeout(6000, 200)
    produce(servers, "in", [(None, "x")] * total, PARTITIONS)
    running: set[tuple[int, int]] = set()
    seen: list[tuple[int, int]] = []
    moved = threading.Event()

    class Hundred(Handler[bytes]):
        topics = ("in",)
        concurrency = 100
        ordering = "unordered"

        def handle(self, record: Record[bytes]) -> None:
            place = (record.partition, record.offset)
            running.add(place)
            moved.wait(0.4)
            running.discard(place)
            seen.append(place)

    with Running(config(servers), Hundred) as first:
        first.wait(lambda: len(running) == 100, "a hundred calls")
        first.wait(lambda: len({partition for partition, _ in seen}) == PARTITIONS, "calls of all partitions")
        with Running(config(servers), Hundred) as second:
            first.wait(lambda: first.recorder.of("revoked"), "partitions move")
            moved.set()
            second.wait(lambda: committed(servers, "g", "in", PARTITIONS) == ends, "all")
            assert second.stop() == 0
        assert first.stop() == 0

    (_, seconds) = first.recorder.of("revoked")[0]
    assert isinstance(seconds, float)
    assert 0.1 < seconds < 3
    assert len(seen) == len(set(seen)) == total
    figures("F-23", "a revocation with 100 calls of 0.4 s", revoked_s=round(seconds, 1), repeats=len(seen) - total)


def test_a_rolling_restart_of_four_workers_repeats_nothing(
    kafka: MockKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-24."""
    kafka.group_session_timeout(6000, 200)
    options = {**ORDERLY, "kafka.group_protocol": "consumer"}
    with trial_on(kafka.bootstrap_servers, tmp_path, options, 1800) as trial:
        old = [trial.fleet.start() for _ in range(4)]
        trial.wait_for_owners(4)
        trial.send()
        codes = []
        for number, worker in enumerate(old):
            trial.wait_for_progress((number + 1) / 6)
            trial.fleet.start()
            codes.append(terminate(worker))
        verdict = trial.verdict()

    assert codes == [0] * 4
    assert verdict.broken() == []
    assert verdict.repeats == 0
    figures("F-24", "rolling restart of four", stops=4, **verdict.figures())
