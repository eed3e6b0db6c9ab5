"""Members that the group puts out, or that find another coordinator: they come back, or end where they must."""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaError
from fleet.checker import Anomaly
from fleet.history import Owned
from fleet.in_process import Running, committed, config
from fleet.trial import Trial
from fleet.workers import Fleet, let_pass, produce
from sizes import SOAK

from streamworker import Handler
from streamworker.exit_code import ExitCode
from streamworker.testing import MockKafka

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from streamworker import Record

PARTITIONS = 4
HEARTBEAT_MS = 200
REJOINED_S, FENCED_S = 5.0, 10.0
SESSION_S = 6.0
# A rebalance of the classic protocol waits out the session of a member that went on to another coordinator, and a
# second worker may join in the midst of one such wait.
RECOVERED_S = 2 * SESSION_S + REJOINED_S
PROTOCOLS = ["classic", "consumer"]
FENCED_MEMBER_EPOCH, STALE_MEMBER_EPOCH = 110, 113


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    """A cluster for one run: what it keeps of a topic is little."""
    with MockKafka(brokers=3, topics={"in": PARTITIONS}) as cluster:
        cluster.group_session_timeout(round(SESSION_S * 1000), HEARTBEAT_MS)
        for number in range(PARTITIONS):
            cluster.leader("in", number, 1)
        yield cluster


def trial_on(kafka: MockKafka, folder: Path, protocol: str, total: int, **kind: object) -> Trial:
    options: Mapping[str, object] = {"kafka.group_protocol": protocol, **kind.pop("options", {})}  # type: ignore[dict-item]
    return Trial(
        kafka.bootstrap_servers,
        "in",
        "g",
        folder,
        partitions=PARTITIONS,
        total=total,
        options=options,
        sends_at_once=False,
        **kind,  # type: ignore[arg-type]
    )


HOG_S, POLL_INTERVAL_S = 5, 2


@pytest.mark.parametrize("protocol", PROTOCOLS[:SOAK])
def test_a_handler_that_lets_no_other_thread_run_costs_its_partitions_and_no_record(
    kafka: MockKafka, tmp_path: Path, protocol: str, figures: Callable[..., None]
) -> None:
    """F-19. The loop cannot poll, the client leaves the group, and the worker comes back by itself."""
    options = {
        "kafka.session_timeout_s": POLL_INTERVAL_S,
        "kafka.max_poll_interval_s": POLL_INTERVAL_S,
        "lifecycle.revoke_timeout_s": POLL_INTERVAL_S / 2,
        "app.work_s": 0.01,
    }

    with trial_on(
        kafka, tmp_path, protocol, 1000 * SOAK, rate=200, options=options, handler="fleet.apps:LedgerThatHogs"
    ) as trial:
        trial.fleet.start()
        trial.fleet.start()
        trial.wait_for_owners(2)
        trial.send()
        trial.wait_for_progress(0.1)
        trial.fleet.strike("lock held")
        (tmp_path / "hog.written").write_text(str(HOG_S))
        (tmp_path / "hog.written").rename(tmp_path / "hog")
        trial.fleet.wait(lambda: any(tmp_path.glob("hogged-*")), "the lock is held")
        over_s = time.monotonic() + HOG_S
        (hog,) = (int(path.name.partition("-")[2]) for path in tmp_path.glob("hogged-*"))
        let_pass(HOG_S)
        trial.fleet.wait(lambda: assigned_s(trial, hog, over_s) < inf, "it joins again", RECOVERED_S)
        rejoined_s = assigned_s(trial, hog, over_s) - over_s
        verdict = trial.verdict()

        assert len(trial.fleet.living()) == 2
        assert trial.fleet.logs().count('"max_poll_exceeded"') == 1
    # The call in hand goes on while another worker has its record already.
    assert verdict.broken(Anomaly.KEY_OVERLAP, Anomaly.FOREIGN_EFFECT) == []
    figures(
        "F-19",
        f"a handler holds the interpreter for {HOG_S} s, {protocol}",
        rejoined_s=round(rejoined_s, 1),
        **verdict.figures(),
    )


def assigned_s(trial: Trial, pid: int, since_s: float) -> float:
    """When a worker was given a partition for the first time since then."""
    given = [one for one in trial.fleet.happenings() if isinstance(one, Owned) and one.what == "assigned"]
    return min((one.at_s for one in given if one.pid == pid and one.at_s > since_s), default=inf)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_coordinator_that_moves_again_and_again_costs_no_record(
    kafka: MockKafka, tmp_path: Path, protocol: str, figures: Callable[..., None]
) -> None:
    """F-21. While commits are under way, and while a second worker joins."""
    moves = 16 * SOAK

    with trial_on(kafka, tmp_path, protocol, 900 * SOAK, rate=180, options={"app.work_s": 0.005}) as trial:
        trial.fleet.start()
        trial.wait_for_owners(1)
        trial.send()
        trial.wait_for_progress(0.05)
        trial.fleet.strike("coordinator moves")
        for move in range(moves):
            if move == moves // 4:
                trial.fleet.start()
            kafka.coordinator("g", 2 + move % 2)
            let_pass(0.25)
        moved_s = time.monotonic()
        trial.wait_for_owners(2, RECOVERED_S)
        recovered_s = time.monotonic() - moved_s
        verdict = trial.verdict()

        assert len(trial.fleet.living()) == 2
    # The client sends a commit again that found no coordinator; it may land after a newer one. And a mock cluster whose
    # coordinator moves while a member joins may give it what its owner has not given back yet.
    doubled = [Anomaly.KEY_OVERLAP] if protocol == "consumer" else []
    assert verdict.broken(Anomaly.COMMIT_REGRESS, *doubled) == []
    figures(
        "F-21",
        f"the coordinator moves {moves} times, {protocol}",
        recovered_s=round(recovered_s, 1),
        **verdict.figures(),
    )


@pytest.mark.parametrize("instance", ["one", ""])
def test_a_classic_member_that_is_fenced_ends_with_the_code_for_it(
    kafka: MockKafka, tmp_path: Path, instance: str, figures: Callable[..., None]
) -> None:
    """F-22. Also where the client does not come back from leaving, which happens without an instance id."""
    options = {"kafka.group_protocol": "classic"}
    if instance:
        options["kafka.librdkafka.group.instance.id"] = instance

    with Fleet(kafka.bootstrap_servers, "g", "in", tmp_path, options=options) as fleet:
        worker = fleet.start()
        fleet.wait(lambda: '"assigned"' in fleet.logs(), "assigned")
        kafka.push_errors("Heartbeat", *[KafkaError.FENCED_INSTANCE_ID] * 10)
        fenced_s = time.monotonic()
        code = worker.wait(FENCED_S)

    assert code == ExitCode.FENCED
    figures("F-22", f"told that it is fenced, id {instance!r}", ended_s=round(time.monotonic() - fenced_s, 1))


@pytest.mark.parametrize(
    ("request_name", "code"),
    [
        ("ConsumerGroupHeartbeat", FENCED_MEMBER_EPOCH),
        ("ConsumerGroupHeartbeat", KafkaError.UNKNOWN_MEMBER_ID),
        ("OffsetFetch", STALE_MEMBER_EPOCH),
    ],
)
def test_a_member_whose_epoch_is_refused_goes_on_at_the_committed_offset(
    kafka: MockKafka, request_name: str, code: int, figures: Callable[..., None]
) -> None:
    """F-14. It joins anew; neither is a record left out, nor one repeated that was committed."""
    servers = kafka.bootstrap_servers
    seen: list[tuple[int, int]] = []

    class Seen(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None:
            seen.append((record.partition, record.offset))

    with Running(config(servers), Seen) as worker:
        produce(servers, "in", [(None, "x")] * 200, PARTITIONS)
        worker.wait(lambda: committed(servers, "g", "in", PARTITIONS) == dict.fromkeys(range(PARTITIONS), 50), "half")
        if request_name == "OffsetFetch":  # asked by who is assigned something
            assert worker.stop() == 0
            kafka.push_errors(request_name, code, code)
    refused_s = time.monotonic()
    with Running(config(servers), Seen) as worker:
        worker.wait(lambda: worker.recorder.of("assigned"), "assigned")
        if request_name != "OffsetFetch":
            kafka.push_errors(request_name, code)
            refused_s = time.monotonic()
            worker.wait(lambda: worker.recorder.of("lost"), "lost")
        produce(servers, "in", [(None, "x")] * 200, PARTITIONS)
        ends = dict.fromkeys(range(PARTITIONS), 100)
        worker.wait(lambda: committed(servers, "g", "in", PARTITIONS) == ends, "all committed")
        recovered_s = time.monotonic() - refused_s
        assert worker.stop() == 0

    assert sorted(seen) == [(number, offset) for number in range(PARTITIONS) for offset in range(100)]
    figures("F-14", f"{request_name} refused by {code}", recovered_s=round(recovered_s, 1))
