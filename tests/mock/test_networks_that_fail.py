"""Networks that delay, lose, break and refuse: workers go on when they heal, and keep their promises meanwhile.

All records are sent before a fault, because the mock cluster writes a record twice whose acknowledgement was lost.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar

import pytest
from fleet.checker import Anomaly
from fleet.history import Owned
from fleet.in_process import Running, config
from fleet.proxied import ProxiedMock
from fleet.trial import Trial
from fleet.workers import let_pass, page
from servers.ports import free_port
from servers.proxy import FaultProxy
from sizes import SOAK

from streamworker import Handler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from streamworker import Record
    from streamworker.testing.mock_kafka import MockKafka

P = ParamSpec("P")
T = TypeVar("T")

PARTITIONS = 4
MAX_INFLIGHT = 40
OPTIONS = {
    "app.work_s": 0.05,
    # With small buffers a worker needs the network all the time.
    "kafka.queued_min_messages": 20,
    "flow.max_inflight": MAX_INFLIGHT,
    # As by default: a dead letter that is given up early waits ever longer to be tried again.
    "dead_letters.delivery_timeout_s": 15,
    "lifecycle.drain_timeout_s": 25,
    "http.enabled": "true",
}
# A member of a classic group that is expelled soon. From groups with the protocol `consumer` nobody is expelled here.
SESSION_S = 1
EXPELLED = {
    "kafka.group_protocol": "classic",
    "kafka.session_timeout_s": SESSION_S,
    "lifecycle.revoke_timeout_s": SESSION_S / 2,
}
CONSUMER_SESSION_MS, HEARTBEAT_MS = 90_000, 300
RESUMED_S, TAKEN_OVER_S, CONNECTED_S = 10.0, SESSION_S + 5.0, 5.0
# A commit whose answer is lost is sent again by the client, perhaps after a newer one; the worker then repeats that.
LATE_COMMIT = Anomaly.COMMIT_REGRESS


class Site:
    """Workers of one group on a proxied cluster, the group called as its topic."""

    def __init__(
        self, cluster: ProxiedMock, topic: str, folder: Path, *, total: int, options: Mapping[str, object] = {}
    ) -> None:
        own = folder / topic
        own.mkdir()
        self.trial = Trial(
            cluster.bootstrap_servers,
            topic,
            topic,
            own,
            partitions=PARTITIONS,
            total=total,
            deeds={"poison": 0.02},
            handler="fleet.apps:LedgerWithDeadLetters",
            letter_partitions=1,
            options={**OPTIONS, **options},
            sends_at_once=False,
        )
        self._ports: list[int] = []

    def __enter__(self) -> Self:
        self.trial.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.trial.__exit__()

    def start(self) -> subprocess.Popen[bytes]:
        """One more worker."""
        self._ports.append(free_port())
        return self.trial.fleet.start(**{"http.port": str(self._ports[-1])})

    def send(self) -> None:
        """Send all records once each worker owns partitions."""
        self.trial.wait_for_owners(len(self.trial.fleet.workers))
        self.trial.send()
        self.trial.workload.finish()

    def resumed_s(self, since_s: float) -> float:
        """Seconds until of each partition a record is committed whose call began since then."""
        left_s = since_s + RESUMED_S - time.monotonic()
        self.trial.fleet.wait(lambda: self._has_resumed(since_s), "work on each partition", left_s)
        return round(time.monotonic() - since_s, 1)

    def _has_resumed(self, since_s: float) -> bool:
        handled: dict[int, int] = {}
        for effect in self.trial.fleet.effects():
            if effect.began_s > since_s:
                handled.setdefault(effect.partition, effect.offset)
        committed, ends = self._committed(), self.trial.workload.ends()
        return all(
            committed.get(number, 0) == ends[number] or committed.get(number, 0) > handled.get(number, inf)
            for number in range(PARTITIONS)
        )

    def _committed(self) -> dict[int, int]:
        """As seen outside, or earlier by the workers: outside it may take longer to find the brokers again."""
        statuses = [json.loads(text) for code, text in (page(port, "status") for port in self._ports) if code]
        offsets = Counter(self.trial.watcher.committed())
        for one in [one for status in statuses for one in status["partitions"]]:
            offsets |= Counter({one["partition"]: one["committed_offset"] or 0})
        return offsets


def cluster_of(*topics: str, brokers: int = 1) -> ProxiedMock:
    shapes = dict.fromkeys(topics, PARTITIONS) | {f"{topic}.dlq": 1 for topic in topics}
    cluster = ProxiedMock(brokers, shapes)
    cluster.kafka.group_session_timeout(CONSUMER_SESSION_MS, HEARTBEAT_MS)
    return cluster


def _storm(proxy: FaultProxy) -> None:
    for _ in range(10):
        proxy.reset()
        let_pass(0.05)


# The row of the table, the fault, and for how many seconds it stays.
FAULTS: Mapping[str, tuple[str, Callable[[FaultProxy], None], float]] = {
    "round trips of 200 ms": ("F-36", lambda proxy: proxy.delay(0.1), 0.5),
    "round trips of 2 s": ("F-36", lambda proxy: proxy.delay(1.0), 2.5),
    "requests are lost": ("F-38", FaultProxy.drop_up, 0.7),
    "answers are lost": ("F-38", FaultProxy.drop_down, 0.7),
    "a storm of resets": ("F-39", _storm, 0.0),
    "connections are refused": ("F-39", FaultProxy.refuse, 3.0),
    "the server's end is gone": ("F-39", FaultProxy.half_open, 0.7),
    "answers are cut short": ("F-39", FaultProxy.truncate, 0.5),
    "1 kB/s": ("F-39", lambda proxy: proxy.slow(1000), 1.0),
}


@pytest.mark.timeout(120 * SOAK)
def test_connections_that_crawl_lose_and_break_repeat_nothing(tmp_path: Path, figures: Callable[..., None]) -> None:
    """F-36, F-38, F-39."""
    faults = list(FAULTS.items()) * SOAK

    with cluster_of("in") as cluster, Site(cluster, "in", tmp_path, total=200 * len(faults)) as site:
        site.start()
        site.send()
        for number, (what, (row, strike, seconds)) in enumerate(faults):
            site.trial.wait_for_progress((number + 0.1) / len(faults))
            site.trial.fleet.strike(what)
            strike(cluster.proxies[1])
            let_pass(seconds)
            cluster.proxies[1].heal()
            figures(row, what, resumed_s=site.resumed_s(time.monotonic()))
        verdict = site.trial.verdict()
        copies = Counter(site.trial.copies())

    assert verdict.broken(LATE_COMMIT) == []
    assert verdict.repeats == 0
    figures("F-39", "all of them", dead_letters=len(copies), copies=sum(copies.values()), **verdict.figures())


@pytest.mark.timeout(120 * SOAK)
def test_black_holes_are_outlived_by_members_and_by_those_that_are_expelled(
    tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-37. Those that are still members when it heals repeat nothing."""
    holes_s = (4, 10) if SOAK == 1 else (4, 10, 60)

    with cluster_of("expelled", "members") as cluster, ExitStack() as stack:
        members = stack.enter_context(Site(cluster, "members", tmp_path, total=800))
        expelled = stack.enter_context(Site(cluster, "expelled", tmp_path, total=800, options=EXPELLED))
        sites = (members, expelled)
        for site in sites:
            site.start()
        for site in sites:
            site.send()
        for number, hole_s in enumerate(holes_s):
            for site in sites:
                site.trial.wait_for_progress(0.1 + 0.8 * number / len(holes_s))
                site.trial.fleet.strike("black hole")
            cluster.proxies[1].black_hole()
            let_pass(hole_s)
            assert cluster.proxies[1].lossy_connections > 0
            cluster.proxies[1].heal()
            healed_s = time.monotonic()
            for site in sites:
                resumed_s = site.resumed_s(healed_s)
                figures("F-37", f"black hole of {hole_s} s, {site.trial.fleet.topic}", resumed_s=resumed_s)
        verdicts = [site.trial.verdict() for site in sites]

    assert [verdict.broken(LATE_COMMIT) for verdict in verdicts] == [[], []]
    assert verdicts[0].repeats == 0
    figures("F-37", "all of them, members", **verdicts[0].figures())
    figures("F-37", "all of them, expelled", **verdicts[1].figures())


class OtherHost:
    """A network of its own, whose only cable leads to this machine's loopback addresses.

    A thread lives in it, and with it all processes that the thread starts; it is gone when they are. Raises OSError or
    CalledProcessError where that is not allowed: it takes root, and the command `ip`.
    """

    def __init__(self) -> None:
        self._cable = f"sw{os.getpid()}"
        self._thread = ThreadPoolExecutor(1, "other-host")
        # From addresses that are set aside for benchmarks, RFC 2544; four belong to one cable.
        first = 4 * random.randrange(2**14)
        here, there = (f"198.18.{(first + one) // 256}.{(first + one) % 256}" for one in (1, 2))
        thread_id = self.run(_enter_new_network)
        _ip("link", "add", self._cable, "type", "veth", "peer", "eth0", "netns", str(thread_id))
        for run, name, address in ((_run_here, self._cable, here), (self.run, "eth0", there)):
            run(_ip, "address", "add", f"{address}/30", "dev", name)
            run(_ip, "link", "set", name, "up")
            run(_let_loopback_addresses_pass, name)
        self.run(_ip, "route", "add", "127.0.0.1", "via", here)

    def run(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do it there."""
        return self._thread.submit(act, *args, **kwargs).result()

    def cut_off(self) -> None:
        """Pull the cable: what is under way is lost, and nobody is told."""
        _ip("link", "set", self._cable, "down")

    def connect(self) -> None:
        """Put it back."""
        _ip("link", "set", self._cable, "up")

    def close(self) -> None:
        _ip("link", "delete", self._cable)
        self._thread.shutdown()


def _run_here(act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return act(*args, **kwargs)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _enter_new_network() -> int:
    """Let this thread have a network with no devices; returns the kernel's number of the thread."""
    clone_newnet = 0x40000000  # of <linux/sched.h>
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(clone_newnet):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET) failed")
    return threading.get_native_id()


def _let_loopback_addresses_pass(device: str) -> None:
    Path(f"/proc/sys/net/ipv4/conf/{device}/route_localnet").write_text("1")


@pytest.fixture
def other_host() -> Iterator[OtherHost]:
    try:
        host = OtherHost()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network of its own for a worker, which takes root and `ip`: {error}")
    yield host
    host.close()


def test_a_host_and_a_broker_that_are_cut_off_hold_up_nobody_else(
    other_host: OtherHost, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-3A. The host's partitions move and come back; the other broker's partitions go on."""
    with cluster_of("in", brokers=2) as cluster, Site(cluster, "in", tmp_path, total=1600, options=EXPELLED) as site:
        cluster.kafka.coordinator("in", 1)
        for number in range(PARTITIONS):
            cluster.kafka.leader("in", number, 1 + number % 2)
        near, far = site.start(), other_host.run(site.trial.fleet.start, **{"http.enabled": "false"})
        site.send()
        site.trial.wait_for_progress(0.05)

        site.trial.fleet.strike("host cut off", far)
        other_host.cut_off()
        taken_over_s = _owns_s(site.trial, near, PARTITIONS, TAKEN_OVER_S)
        other_host.connect()
        returned_s = _owns_s(site.trial, far, 1, RESUMED_S)

        site.trial.wait_for_progress(0.5)
        site.trial.fleet.strike("broker cut off")
        cluster.proxies[2].black_hole()
        _assert_goes_on(site.trial, {0, 2})
        cluster.proxies[2].heal()
        resumed_s = site.resumed_s(time.monotonic())
        verdict = site.trial.verdict()

    # Who is cut off finishes calls while others have its keys already, which nothing can prevent.
    assert verdict.broken(LATE_COMMIT, Anomaly.KEY_OVERLAP) == []
    figures("F-3A", "host cut off", taken_over_s=taken_over_s, returned_s=returned_s, **verdict.figures())
    figures("F-3A", "broker cut off", resumed_s=resumed_s)


def _owns_s(trial: Trial, worker: subprocess.Popen[bytes], partitions: int, within_s: float) -> float:
    """Seconds until so many partitions were assigned to the worker, those counted that it has had before."""
    began_s = time.monotonic()

    def owns() -> bool:
        owned: dict[int, str] = {}
        for one in trial.fleet.happenings():
            if isinstance(one, Owned) and one.pid == worker.pid:
                owned[one.partition] = one.what
        return sum(what == "assigned" for what in owned.values()) >= partitions

    trial.fleet.wait(owns, f"{partitions} partitions of worker {worker.pid}", within_s)
    return round(time.monotonic() - began_s, 1)


def _assert_goes_on(trial: Trial, partitions: set[int]) -> None:
    """More than what was in the buffers is handled of these, or at least half of what they still have."""
    before = len(trial.fleet.effects())
    left = sum(trial.workload.ends()[one] for one in partitions) - len(_handled(trial, partitions))
    assert left > MAX_INFLIGHT, "too little is left for this to show anything"

    def goes_on() -> bool:
        return len([one for one in trial.fleet.effects()[before:] if one.partition in partitions]) > min(100, left // 2)

    trial.fleet.wait(goes_on, f"work on partitions {partitions}", RESUMED_S)


def _handled(trial: Trial, partitions: set[int]) -> set[tuple[int, int]]:
    return {(one.partition, one.offset) for one in trial.fleet.effects() if one.partition in partitions}


def test_brokers_that_come_late_and_are_replaced_are_followed(
    mock_kafka: MockKafka, figures: Callable[..., None]
) -> None:
    """F-3B. At first one address has no name and the other no server; then others take that one's place, twice."""
    seen: list[tuple[int, int]] = []

    class Seen(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None:
            seen.append((record.partition, record.offset))

    def send_and_see(count: int, within_s: float = 20.0) -> None:
        handled = len(seen) + count
        for number in range(count):
            mock_kafka.produce_raw("in", number % 2, None, b"x")
        worker.wait(lambda: len(seen) == handled, f"{count} records", within_s)

    mock_kafka.create_topic("in", 2)
    mock_kafka.broker_down(1)
    servers = f"no-such-broker.invalid:9092,{mock_kafka.bootstrap_servers}"
    quick = {"reconnect.backoff.max.ms": "500", "topic.metadata.refresh.interval.ms": "500"}
    settings = config(servers, **{f"kafka__librdkafka__{name}": value for name, value in quick.items()})
    with Running(settings, Seen) as worker:
        worker.wait(lambda: "_ALL_BROKERS_DOWN" in str(worker.recorder.of("fault")), "no broker")
        mock_kafka.broker_up(1)
        began_s = time.monotonic()
        send_and_see(20, CONNECTED_S)
        figures("F-3B", "no broker at the start", connected_s=round(time.monotonic() - began_s, 1))
        for old, new in ((1, 2), (2, 3)):
            mock_kafka.add_broker(new)
            mock_kafka.coordinator("g", new)
            for number in (0, 1):
                mock_kafka.leader("in", number, new)
            send_and_see(20)
            mock_kafka.decommission_broker(old)
            began_s = time.monotonic()
            send_and_see(20, CONNECTED_S)
            figures("F-3B", f"broker {new} for broker {old}", resumed_s=round(time.monotonic() - began_s, 1))
        assert worker.stop() == 0

    assert sorted(seen) == [(number, offset) for number in (0, 1) for offset in range(50)]
    assert worker.recorder.of("commit_answered")[-1][1] is None
