"""Workers that are told to stop at odd moments, stand still, or do not get from the machine what they need."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import pytest
from fleet.checker import Anomaly
from fleet.history import Effect, Owned, Struck, read
from fleet.in_process import Running, committed, config
from fleet.trial import Trial
from fleet.workers import Fleet, let_pass, page, terminate
from servers.ports import free_port
from sizes import SOAK

from streamworker import Handler
from streamworker.testing import MockKafka

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from streamworker import Record

PARTITIONS = 4
MIB = 1024 * 1024
OPTIONS = {"kafka.group_protocol": "consumer", "app.work_s": 0.002}
SESSION_MS, HEARTBEAT_MS = 2000, 300
COORDINATOR = 2
THREADS = 8  # of the handler
STALL_S = 3.0
SLICE_S, AWAKE_S = 0.005, 0.05  # what may begin after a stop; how late a thread that goes on gets its turn


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    """A cluster for one run: what it keeps of a topic is little."""
    with MockKafka(topics={"in": PARTITIONS}) as cluster:
        cluster.group_session_timeout(SESSION_MS, HEARTBEAT_MS)
        yield cluster


def trial_on(
    kafka: MockKafka,
    folder: Path,
    total: int,
    *,
    rate: float = 400,
    sends_at_once: bool = True,
    options: Mapping[str, object] = {},
) -> Trial:
    return Trial(
        kafka.bootstrap_servers,
        "in",
        "g",
        folder,
        partitions=PARTITIONS,
        total=total,
        rate=rate,
        options={**OPTIONS, **options},
        sends_at_once=sends_at_once,
    )


# What a worker has said when the signal comes: nothing, that it listens, that it joins, that it has joined.
MOMENTS = ["", "SIGTERM and SIGINT stop this worker", '"started"', '"assigned"']


def test_a_signal_at_any_moment_of_a_start_or_a_rebalance_is_heeded(
    kafka: MockKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-04. One worker stays; others come, and get one signal or two before, while or after they join."""
    tries = (len(MOMENTS) + 1) * SOAK
    endings = []

    with trial_on(kafka, tmp_path, total=400 * tries) as trial:
        trial.fleet.start()
        trial.wait_for_progress(0.02)
        for number in range(tries):
            worker = trial.fleet.start()
            log = tmp_path / f"worker-{number + 2}.log"
            moment = MOMENTS[number] if number < len(MOMENTS) else trial.draw.choice(MOMENTS)
            trial.fleet.wait(partial(has_said, log, moment), moment)
            trial.fleet.strike("signal", worker)
            endings.append(ended_by_signals(worker, trial.draw.choice([1, 2])))
        verdict = trial.verdict()

    # Before it listens, a signal does to it what it does to any Python process.
    assert {code for code, _ in endings} <= {0, -signal.SIGTERM, 128 + signal.SIGTERM}, endings
    assert max(seconds for _, seconds in endings) < 4 + 5  # the drain, and what leaving the group may take
    assert verdict.broken() == []
    codes = Counter(code for code, _ in endings)
    figures("F-04", "SIGTERM while it starts", exit_codes=dict(codes), **verdict.figures())


def has_said(log: Path, text: str) -> bool:
    return text in log.read_text()


def ended_by_signals(worker: subprocess.Popen[bytes], times: int) -> tuple[int, float]:
    """Exit code, and seconds from the last signal to the end."""
    for _ in range(times):
        worker.terminate()
        signalled_s = time.monotonic()
    return worker.wait(20), time.monotonic() - signalled_s


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_worker_that_was_stopped_for_longer_than_its_session_starts_no_call_when_it_goes_on(
    kafka: MockKafka, tmp_path: Path, protocol: str, figures: Callable[..., None]
) -> None:
    """F-05. Others have its partitions; it works again when it has been given some."""
    pauses = SOAK
    options = {
        "kafka.group_protocol": protocol,
        "kafka.session_timeout_s": SESSION_MS / 1000,
        "lifecycle.revoke_timeout_s": 1,
        # The buffers are full of what it could begin with.
        "app.work_s": 0.02,
    }
    kafka.add_broker(COORDINATOR)
    put_coordinator_elsewhere(kafka)

    with trial_on(kafka, tmp_path, total=1600 * pauses, rate=inf, options=options, sends_at_once=False) as trial:
        workers = [trial.fleet.start(), trial.fleet.start()]
        trial.wait_for_owners(2)
        trial.send()
        for pause in range(pauses):
            trial.wait_for_progress((pause + 0.1 + 0.3 * trial.draw.random()) / pauses)
            trial.wait_for_owners(2)
            stopped, other = trial.draw.sample(workers, 2)
            held = owned_by(trial, stopped)
            trial.fleet.pause(stopped)
            wait_for_work(trial, other, held)
            # So that it takes a while until it hears that it has lost them.
            kafka.broker_rtt(COORDINATOR, 500)
            trial.fleet.resume(stopped)
            trial.wait_for_owners(2)
            kafka.broker_rtt(COORDINATOR, 0)
        verdict = trial.verdict()
        zombies = calls_after_resuming(trial)

        assert len(trial.fleet.living()) == 2
    # A thread may have been about to begin a call when the process was stopped.
    assert len(zombies) <= THREADS * pauses, zombies
    assert max(zombies, default=0.0) < SLICE_S + AWAKE_S
    # The calls that it was stopped in go on, and are committed: the cluster, unlike Kafka, takes that from it.
    assert verdict.broken(Anomaly.KEY_OVERLAP, Anomaly.FOREIGN_EFFECT, Anomaly.COMMIT_REGRESS) == []
    figures("F-05", f"SIGSTOP past the session, {protocol}", foreign_calls=len(zombies), **verdict.figures())


def put_coordinator_elsewhere(kafka: MockKafka, group: str = "g", topic: str = "in") -> None:
    """Let the second broker coordinate the group, and the first lead all partitions."""
    kafka.coordinator(group, COORDINATOR)
    for number in range(PARTITIONS):
        kafka.leader(topic, number, 1)


def calls_after_resuming(trial: Trial) -> list[float]:
    """Seconds from a worker's going on to the beginnings of its calls in partitions that it was not given since."""
    happenings = trial.fleet.happenings()
    struck = [one for one in happenings if isinstance(one, Struck) and one.what == "resume"]
    found = []
    for resumed in struck:
        for partition in range(PARTITIONS):
            given = [
                one.at_s
                for one in happenings
                if isinstance(one, Owned)
                and (one.pid, one.partition, one.what) == (resumed.pid, partition, "assigned")
                and one.at_s > resumed.at_s
            ]
            found += [
                one.began_s - resumed.at_s
                for one in happenings
                if isinstance(one, Effect)
                and (one.pid, one.partition) == (resumed.pid, partition)
                and resumed.at_s < one.began_s < min(given, default=inf)
            ]
    return found


def owned_by(trial: Trial, worker: subprocess.Popen[bytes]) -> set[int]:
    """Partitions that were given to it last."""
    given = [one for one in trial.fleet.happenings() if isinstance(one, Owned) and one.what == "assigned"]
    owners = {one.partition: one.pid for one in given}
    return {number for number, pid in owners.items() if pid == worker.pid}


def wait_for_work(trial: Trial, worker: subprocess.Popen[bytes], partitions: set[int]) -> None:
    """Until it has handled something of each of these."""

    def has_worked() -> bool:
        return partitions <= {one.partition for one in trial.fleet.effects() if one.pid == worker.pid}

    trial.fleet.wait(has_worked, f"work on {partitions} by {worker.pid}")


def test_all_workers_killed_at_once_lose_nothing(
    kafka: MockKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-06. For a while nobody is there, and the group is forgotten but for its offsets."""
    with trial_on(kafka, tmp_path, total=1200) as trial:
        for _ in range(3):
            trial.fleet.start()
        trial.wait_for_progress(0.2 + 0.2 * trial.draw.random())
        for worker in trial.fleet.living():
            trial.fleet.kill(worker)
        struck_s = time.monotonic()
        trial.workload.finish()
        for _ in range(3):
            trial.fleet.start()
        verdict = trial.verdict(30)
        rest_s = time.monotonic() - struck_s

    assert verdict.broken() == []
    figures("F-06", "SIGKILL of all workers at once", rest_s=round(rest_s, 1), **verdict.figures())


def test_a_record_whose_call_never_returns_is_handled_after_a_restart(
    mock_kafka: MockKafka, figures: Callable[..., None]
) -> None:
    """F-09. Until then other keys go on, and nothing is committed past it."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 2)
    mock_kafka.produce_raw("in", 0, b"stuck", b"first")
    for number in range(20):
        mock_kafka.produce_raw("in", number % 2, b"other", b"x")
    mock_kafka.produce_raw("in", 0, b"stuck", b"second")
    released = threading.Event()
    seen: list[tuple[int, int]] = []

    class Stuck(Handler[bytes]):
        topics = ("in",)
        concurrency = 4
        ordering = "key"

        def handle(self, record: Record[bytes]) -> None:
            if record.offset == 0 and record.partition == 0:
                released.wait()
            seen.append((record.partition, record.offset))

    settings = config(
        servers,
        # A loop that does not come round for so long ends the process, and that is the test run's here.
        lifecycle__stall_timeout_s=STALL_S,
        lifecycle__drain_timeout_s=0.2,
        dead_letters__delivery_timeout_s=0.1,
    )
    began_s = time.monotonic()
    with Running(settings, Stuck) as worker:
        worker.wait(lambda: worker.recorder.of("stalled"), "told")
        told_s = time.monotonic() - began_s
        worker.wait(lambda: len(seen) == 20, "the other key")
        assert worker.stop() == 3
    offsets = committed(servers, "g", "in", 2)
    handled = sorted(seen)
    released.set()
    with Running(settings, Stuck) as worker:
        worker.wait(lambda: committed(servers, "g", "in", 2) == {0: 12, 1: 10}, "all committed")
        assert worker.stop() == 0

    assert offsets == {1: 10}
    assert handled == [(0, offset) for offset in range(1, 11)] + [(1, offset) for offset in range(10)]
    assert {(0, 0), (0, 11)} <= set(seen)
    figures("F-09", "a call that never returns", stall_timeout_s=STALL_S, told_s=round(told_s, 1))


# Makes a log that is longer at the start than a short run's ledger at its end: a bound can be set that only it reaches.
TALKATIVE = {"log.level": "DEBUG", "kafka.librdkafka.debug": "conf,cgrp,broker,metadata,feature"}


def test_a_full_disk_under_the_log_stops_nobody(kafka: MockKafka, tmp_path: Path, figures: Callable[..., None]) -> None:
    """F-0A."""
    with trial_on(kafka, tmp_path, total=300, options=TALKATIVE, sends_at_once=False) as trial:
        worker = trial.fleet.start()
        bound = fill_log(trial.fleet, worker)
        trial.send()
        verdict = trial.verdict()

        assert trial.fleet.ledger.stat().st_size < bound
        assert terminate(worker) == 0
        assert '"draining"' not in trial.fleet.logs()
    assert verdict.broken() == []
    assert verdict.repeats == 0
    figures("F-0A", "full disk under the log", **verdict.figures())


def test_a_stall_that_cannot_be_reported_to_a_full_disk_ends_nobody(kafka: MockKafka, tmp_path: Path) -> None:
    """F-0A. A call that is slow is its own business, whether or not the stacks of all threads can be written."""
    options = {**OPTIONS, **TALKATIVE, "lifecycle.stall_timeout_s": 1}

    with Fleet(kafka.bootstrap_servers, "g", "in", tmp_path, options=options) as fleet:
        worker = fleet.start()
        fill_log(fleet, worker)
        kafka.produce_raw("in", 0, b"k", b"slow2.5")
        fleet.wait(lambda: worker.poll() is not None or len(fleet.effects()) == 1, "the end of the call")

        assert worker.poll() is None
        assert terminate(worker) == 0
    assert committed(kafka.bootstrap_servers, "g", "in", PARTITIONS) == {0: 1}


def fill_log(fleet: Fleet, worker: subprocess.Popen[bytes]) -> int:
    """Let no file of the only worker, which joins, become longer than its log is now; returns that length."""
    fleet.wait(lambda: '"assigned"' in fleet.logs(), "assigned")
    bound = len(fleet.logs().encode())
    limit(worker, resource.RLIMIT_FSIZE, bound)
    return bound


def test_while_the_disk_under_a_handler_is_full_nothing_is_committed_past_what_it_could_not_do(
    kafka: MockKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-0A. Its file is grown beyond the bound; the worker stays, and another one does the rest."""
    own = tmp_path / "own"
    with trial_on(kafka, tmp_path, total=1000, options={"app.ledger": own}) as trial:
        worker = trial.fleet.start()
        limit(worker, resource.RLIMIT_FSIZE, MIB)
        trial.fleet.wait(lambda: len(read(own)) >= 300, "work")
        trial.fleet.strike("disk full", worker)
        os.truncate(own, 2 * MIB)
        trial.fleet.wait(lambda: trial.fleet.logs().count('"partition stopped"') == PARTITIONS, "all stopped")
        assert worker.poll() is None
        assert terminate(worker) == 0

        with trial.fleet.ledger.open("ab") as ledger:
            ledger.write(own.read_bytes().partition(b"\0")[0])
        trial.fleet.start(**{"app.ledger": str(trial.fleet.ledger)})
        verdict = trial.verdict()

    assert verdict.broken() == []
    figures("F-0A", "full disk under a handler", **verdict.figures())


def test_a_worker_that_may_open_too_few_files_says_so_and_ends(
    kafka: MockKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-0B. With 64 it works as ever."""
    with trial_on(kafka, tmp_path, total=500) as trial:
        starved = trial.fleet.start()
        limit(starved, resource.RLIMIT_NOFILE, 20)
        began_s = time.monotonic()
        code = starved.wait(10)
        seconds = time.monotonic() - began_s
        said = trial.fleet.logs()
        limit(trial.fleet.start(), resource.RLIMIT_NOFILE, 64)
        verdict = trial.verdict()

    assert code == 1
    assert "Too many open files" in said
    assert verdict.broken() == []
    assert verdict.repeats == 0
    figures("F-0B", "20 open files, then 64", end_s=round(seconds, 1), **verdict.figures())


def limit(worker: subprocess.Popen[bytes], what: int, most: int) -> None:
    resource.prlimit(worker.pid, what, (most, most))


SESSION_S, LEASE_S, OUTAGE_S = 6, 2, 8


def test_without_a_coordinator_no_call_begins_once_the_lease_has_run_out(
    tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-20. The leaders go on delivering. A worker of each protocol, in groups and topics that are called like it."""
    protocols = ("classic", "consumer")
    with MockKafka(2, dict.fromkeys(protocols, PARTITIONS)) as kafka, ExitStack() as stack:
        kafka.group_session_timeout(SESSION_S * 1000, HEARTBEAT_MS)
        ports = {protocol: free_port() for protocol in protocols}
        trials = {protocol: lone_trial(kafka, protocol, tmp_path, ports[protocol], stack) for protocol in protocols}
        for trial in trials.values():
            trial.fleet.start()
            trial.wait_for_owners(1)
        for trial in trials.values():
            trial.send()
            trial.wait_for_progress(0.05)
        kafka.broker_down(COORDINATOR)
        down_s = time.monotonic()
        for protocol, trial in trials.items():
            trial.fleet.strike("no coordinator")
            trial.fleet.wait(partial(is_degraded, ports[protocol]), "paused and degraded")
        let_pass(down_s + OUTAGE_S - time.monotonic())
        last_s = {name: max(one.began_s for one in trial.fleet.effects()) - down_s for name, trial in trials.items()}
        kafka.broker_up(COORDINATOR)
        up_s = time.monotonic()
        resumed_s = {name: first_call_s(trial, up_s) - up_s for name, trial in trials.items()}
        verdicts = {name: trial.verdict() for name, trial in trials.items()}

        assert [len(trial.fleet.living()) for trial in trials.values()] == [1, 1]
    assert min(last_s.values()) > LEASE_S / 2  # it had work until then
    assert max(last_s.values()) < LEASE_S + SLICE_S + AWAKE_S
    assert max(resumed_s.values()) < SESSION_S + 5
    for name, verdict in verdicts.items():
        assert verdict.broken() == []
        figures(
            "F-20",
            f"no coordinator for {OUTAGE_S} s, lease {LEASE_S} s, {name}",
            last_call_s=round(last_s[name], 2),
            resumed_s=round(resumed_s[name], 1),
            **verdict.figures(),
        )


def lone_trial(kafka: MockKafka, protocol: str, folder: Path, port: int, stack: ExitStack) -> Trial:
    """A trial of one worker whose group has another coordinator than its partitions have leaders."""
    put_coordinator_elsewhere(kafka, protocol, protocol)
    own = folder / protocol
    own.mkdir()
    options = {
        "kafka.group_protocol": protocol,
        "kafka.session_timeout_s": SESSION_S,
        "kafka.lease_s": LEASE_S,
        "kafka.librdkafka.reconnect.backoff.max.ms": 500,
        "app.work_s": 0.02,
        "http.enabled": "true",
        "http.port": port,
    }
    trial = Trial(
        kafka.bootstrap_servers,
        protocol,
        protocol,
        own,
        partitions=PARTITIONS,
        total=1400,
        rate=inf,
        options=options,
        sends_at_once=False,
    )
    return stack.enter_context(trial)


def is_degraded(port: int) -> bool:
    status = json.loads(page(port, "status")[1])
    paused = [[pause["reason"] for pause in one["pauses"]] for one in status["partitions"]]
    return status["degraded"] == ["membership of the group is not proven"] and paused == [["lease"]] * PARTITIONS


def first_call_s(trial: Trial, since_s: float) -> float:
    """When a call began since then, for the first time."""

    def calls() -> list[float]:
        return [one.began_s for one in trial.fleet.effects() if one.began_s > since_s]

    trial.fleet.wait(lambda: bool(calls()), "a call", SESSION_S + 5)
    return min(calls())
