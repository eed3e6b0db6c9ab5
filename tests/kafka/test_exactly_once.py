"""Exactly once from Kafka to Kafka: readers of what is committed see each output once, whatever dies."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # the package does not list what it exports
from fleet import crash_points
from fleet.copies import Reader, committed_records, given_up, places, sources
from fleet.history import Effect, Owned
from fleet.in_process import Running, config
from fleet.trial import Trial
from fleet.workers import Fleet, let_pass, produce, terminate
from servers.kafka import SharedKafka
from sizes import SOAK

from streamworker import Batch, BatchHandler, DeadLetter, KafkaSink, Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from confluent_kafka import Message
    from fleet.copies import Place
    from servers.kafka_cluster import KafkaCluster

    from streamworker import Records

PARTITIONS = 3
RATE = 300
MORE_THAN_ENOUGH = 1_000_000
TIMEOUT_S = 30.0
# A transaction that its worker did not live to end is aborted after this, and its partitions go on.
OPTIONS = {"transactions.timeout_s": 2, "app.work_s": 0.002}

# With the protocol `consumer` a session lasts as long as the brokers say.
SESSIONS = {
    "classic": {
        "kafka.group_protocol": "classic",
        "kafka.session_timeout_s": 4,
        "lifecycle.revoke_timeout_s": 2,
    },
    "consumer": {"kafka.group_protocol": "consumer"},
}


@dataclass(slots=True)
class Copied:
    """What a run has left: what was written, its copies, and its dead letters."""

    written: set[Place]
    by_key: Mapping[bytes | None, list[Place]]
    letters: list[Place]
    seen: Mapping[int | None, list[int | None]]  # by who read while it was written
    there: Mapping[int | None, list[int | None]]  # by who read afterwards

    @property
    def copies(self) -> list[Place]:
        return [place for places_ in self.by_key.values() for place in places_]

    def anomalies(self) -> dict[str, int]:
        """What a reader must never see, with how many there are."""
        found = {
            "copied twice": sum((Counter(self.copies) - Counter(set(self.copies))).values()),
            "given up twice": sum((Counter(self.letters) - Counter(set(self.letters))).values()),
            "copied and given up": len(set(self.copies) & set(self.letters)),
            "lost": len(self.written - set(self.copies) - set(self.letters)),
            "out of order": sum(found_ != sorted(found_) for key, found_ in self.by_key.items() if key is not None),
            "seen otherwise": int(self.seen != self.there),
        }
        return {what: count for what, count in found.items() if count}


class Copying:
    """A trial that copies by transactions, with a reader of the copies beside it."""

    def __init__(self, trial: Trial, reader: Reader, servers: str) -> None:
        self.trial = trial
        self._reader = reader
        self._servers = servers

    def seen(self) -> list[Message]:
        """What the reader has read so far."""
        return list(self._reader.found)

    def copied(self, timeout_s: float = 60.0) -> Copied:
        """Send no more, wait until all is copied, and read it."""
        trial = self.trial
        trial.workload.stop()
        trial.come_to_rest(timeout_s)
        topic = trial.fleet.topic
        copies = committed_records(self._servers, f"{topic}.copies", PARTITIONS)
        letters = committed_records(self._servers, f"{topic}.dlq", 1)
        trial.fleet.wait(lambda: len(self._reader.found) >= len(copies), "the reader has read all")
        return Copied(
            written={(one.partition, one.offset) for one in trial.workload.sent() if one.outcome == "ok"},
            by_key={key: list(found) for key, found in sources(copies).items()},
            letters=given_up(letters),
            seen=places(self._reader.found),
            there=places(copies),
        )


@contextmanager
def copying(kafka: SharedKafka, folder: Path, **options: object) -> Iterator[Copying]:
    topic = kafka.topic("in", partitions=PARTITIONS)
    copies, letters = f"{topic}.copies", f"{topic}.dlq"
    made = kafka.admin.create_topics([NewTopic(copies, PARTITIONS), NewTopic(letters, 1)])
    for one in made.values():
        one.result(TIMEOUT_S)
    with (
        Trial(
            kafka.bootstrap_servers,
            topic,
            kafka.group("copier"),
            folder,
            partitions=PARTITIONS,
            total=MORE_THAN_ENOUGH,
            rate=RATE,
            deeds={"poison": 0.01, "flaky": 0.01},
            handler="fleet.transacting:Transacts",
            options={**OPTIONS, **options},
        ) as trial,
        Reader(kafka.bootstrap_servers, copies, PARTITIONS) as reader,
    ):
        yield Copying(trial, reader, kafka.bootstrap_servers)
    for one in kafka.admin.delete_topics([copies, letters]).values():
        one.result(TIMEOUT_S)


@pytest.mark.timeout(180 * SOAK)
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_sigkill_at_any_instant_and_at_each_step_of_a_transaction_costs_and_repeats_nothing(
    kafka: SharedKafka, tmp_path: Path, protocol: str, figures: Callable[..., None]
) -> None:
    """F-80. And F-02 for the crash points of transactions."""
    kills, points = 2 * SOAK, list(crash_points.TRANSACTION) * SOAK
    if protocol == "consumer":
        points = points[1::2]  # a session lasts longer there

    with copying(kafka, tmp_path, **SESSIONS[protocol]) as run:
        fleet, draw = run.trial.fleet, run.trial.draw
        fleet.start()
        for point in points:
            victim = fleet.start(crash_point=f"{point}:{draw.randrange(1, 10)}")
            fleet.wait(lambda one=victim: one.poll() is not None, f"{point} is reached")
            assert victim.returncode == -SIGKILL
        fleet.start()
        for _ in range(kills):
            before = len(fleet.effects())
            aim = before + draw.randrange(100, 500)
            fleet.wait(lambda aim=aim: len(fleet.effects()) >= aim, "work goes on")
            fleet.kill(draw.choice(fleet.living()))
            fleet.start()
        copied = run.copied()

    assert copied.anomalies() == {}
    figures(
        "F-80",
        f"SIGKILL of workers with transactions, {protocol}",
        kills=kills + len(points),
        copies=len(copied.copies),
        dead_letters=len(copied.letters),
        repeats=0,
    )


@pytest.mark.parametrize(("bug", "point"), [("offsets_apart", "txn_offsets_sent"), ("map_left_out", "txn_committed")])
def test_a_planted_bug_is_seen_by_who_reads(kafka: SharedKafka, tmp_path: Path, bug: str, point: str) -> None:
    # So slow that at any commit some records are done and others before them are not.
    with copying(kafka, tmp_path, **SESSIONS["classic"], **{"app.work_s": 0.04}) as run:
        fleet = run.trial.fleet
        victim = fleet.start(planted=bug, crash_point=f"{point}:15")
        fleet.wait(lambda: victim.poll() is not None, "it is killed")
        fleet.start()
        copied = run.copied()

    assert copied.anomalies().get("copied twice")


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_workers_that_come_and_leave_in_order_repeat_no_call_and_nobody_waits_for_long(
    kafka: SharedKafka, tmp_path: Path, protocol: str, figures: Callable[..., None]
) -> None:
    with copying(kafka, tmp_path, **{"kafka.group_protocol": protocol}) as run:
        fleet, codes = run.trial.fleet, []
        fleet.start()
        run.trial.wait_for_owners(1)
        for _ in range(2 * SOAK):
            newer = fleet.start()
            fleet.wait(lambda pid=newer.pid: pid in run.trial.owners(), "the newer one owns partitions")
            let_pass(0.5)
            codes.append(terminate(fleet.living()[0]))
            let_pass(0.5)
        copied = run.copied()
        calls = Counter((one.partition, one.offset) for one in fleet.effects())
        waited_s = longest_wait_s(fleet.effects())

    assert copied.anomalies() == {}
    assert codes == [0] * 2 * SOAK
    assert set(calls.values()) == {1}
    assert waited_s < 6
    figures(
        "F-80", f"workers with transactions come and leave, {protocol}", stops=len(codes), waited_s=round(waited_s, 1)
    )


def longest_wait_s(effects: Iterable[Effect]) -> float:
    """Of a partition, between two calls."""
    ended_s: dict[int, float] = {}
    longest_s = 0.0
    for one in sorted(effects, key=lambda effect: effect.ended_s):
        longest_s = max(longest_s, one.ended_s - ended_s.get(one.partition, one.ended_s))
        ended_s[one.partition] = one.ended_s
    return longest_s


@pytest.mark.parametrize("point", ["txn_produced", "txn_offsets_sent"][-SOAK:])
def test_who_was_stopped_in_a_transaction_for_too_long_is_fenced_and_goes_on(
    kafka: SharedKafka, tmp_path: Path, point: str, figures: Callable[..., None]
) -> None:
    """F-83. Its partitions have another owner, and the brokers have aborted its transaction."""
    with copying(kafka, tmp_path, **SESSIONS["classic"]) as run:
        fleet = run.trial.fleet
        zombie = fleet.start(crash_point=f"{point}:5:{crash_points.STOPPED}")
        fleet.wait(lambda: is_stopped(zombie.pid), "it is stopped")
        other = fleet.start()
        fleet.wait(lambda: other.pid in run.trial.owners(), "another one has taken over")
        known = len(fleet.effects())
        fleet.wait(lambda: len(fleet.effects()) > known + 500, "it goes on")
        fleet.resume(zombie)
        fleet.wait(lambda: owners_now(fleet) == {zombie.pid, other.pid}, "both are at work")
        let_pass(1.0)
        copied = run.copied()
        codes = [one.poll() for one in (zombie, other)]

    assert copied.anomalies() == {}
    assert codes == [None, None]
    figures("F-83", f"stopped at {point} past the transaction's time", copies=len(copied.copies), repeats=0)


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def owners_now(fleet: Fleet) -> set[int]:
    """Who was given each partition last."""
    owners = {one.partition: one.pid for one in fleet.happenings() if isinstance(one, Owned) and one.what == "assigned"}
    return set(owners.values())


def test_a_process_that_comes_back_under_its_name_ends_the_transaction_that_it_left_open_at_once(
    kafka: SharedKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    named = {**SESSIONS["classic"], "kafka.session_timeout_s": 45, "kafka.max_poll_interval_s": 45}
    named |= {"kafka.librdkafka.group.instance.id": "one", "transactions.timeout_s": 120}
    with copying(kafka, tmp_path, **named) as run:
        fleet = run.trial.fleet
        victim = fleet.start(crash_point="txn_offsets_sent:5")
        fleet.wait(lambda: victim.poll() is not None, "it is killed")
        known, began_s = len(fleet.effects()), time.monotonic()
        fleet.start()
        fleet.wait(lambda: len(fleet.effects()) > known, "it goes on")
        resumed_s = time.monotonic() - began_s
        copied = run.copied()

    assert copied.anomalies() == {}
    assert resumed_s < 10
    figures("F-80", "SIGKILL in a transaction, back under its name", resumed_s=round(resumed_s, 1))


def test_of_a_batch_that_fails_in_the_middle_all_but_the_failing_record_is_there_once(
    kafka: SharedKafka, figures: Callable[..., None]
) -> None:
    """F-82. The batch is taken apart until the record is alone, and its neighbours are handled several times."""
    topic, out = kafka.topic("in", partitions=1), kafka.topic("out", partitions=1)
    letters = kafka.dead_letters(topic)
    calls: Counter[bytes] = Counter()

    class Batches(BatchHandler[bytes]):
        topics = (topic,)
        delivery = "transactional"
        sink = KafkaSink(out)
        batch = Batch(max_records=50, max_wait_s=0.1)
        retry = Retry(attempts=2, base_s=0.02, cap_s=0.05)
        dead_letter = DeadLetter(letters)

        def handle(self, records: Records[bytes]) -> object:
            returned: list[object] = []
            for value in records.values():
                calls[value] += 1
                if value == b"broken":
                    raise ConnectionError("nobody there")
                returned.append([value, value + b" again"])
            return returned

    values = [b"broken" if number == 120 else b"%d" % number for number in range(200)]
    produce(kafka.bootstrap_servers, topic, [("k", value.decode()) for value in values], 1)
    with Running(config(kafka.bootstrap_servers, kafka.group("batches")), Batches, max_records=len(values)) as worker:
        assert worker.ended() == 0

    copies = [one.value() for one in committed_records(kafka.bootstrap_servers, out, 1)]
    wanted = [copy for value in values if value != b"broken" for copy in (value, value + b" again")]
    given = [one.value() for one in committed_records(kafka.bootstrap_servers, letters, 1)]
    assert sorted(map(str, copies)) == sorted(map(str, wanted))
    assert given == [b"broken"]
    assert max(calls.values()) > 1
    figures("F-82", "a batch that fails in the middle", copies=len(copies), dead_letters=1, repeats=0)


@pytest.mark.timeout(180 * SOAK)
def test_brokers_that_are_killed_amid_transactions_cost_and_repeat_nothing(
    three_nodes: KafkaCluster, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-81. Of three brokers two, one after the other, each with coordinators of groups and of transactions."""
    names, resumed_s = SharedKafka(three_nodes), 0.0
    with copying(names, tmp_path, **SESSIONS["consumer"], **{"transactions.timeout_s": 5}) as run:
        fleet = run.trial.fleet
        for _ in range(2):
            fleet.start()
        run.trial.wait_for_owners(2)
        for node in three_nodes.nodes[:2] * SOAK:
            three_nodes.make_whole()
            seen = run.seen()
            began_s, known = time.monotonic(), furthest(seen)

            def go_on(since: int = len(seen), known: Mapping[int, int] = known) -> bool:
                reached = furthest(run.seen()[since:])
                return all(reached[one] > known[one] + 100 for one in range(PARTITIONS))

            node.kill()
            fleet.wait(go_on, "copies of each partition go on", 60.0)
            resumed_s = max(resumed_s, time.monotonic() - began_s)
        three_nodes.make_whole()
        copied = run.copied()
        living = len(fleet.living())

    assert copied.anomalies() == {}
    assert living == 2
    figures("F-81", "brokers killed", kills=2 * SOAK, copies=len(copied.copies), resumed_s=round(resumed_s, 1))


def furthest(copies: Iterable[Message]) -> dict[int, int]:
    """By partition, the highest offset that there is a copy of."""
    found = dict.fromkeys(range(PARTITIONS), -1)
    for places_ in sources(copies).values():
        for partition, offset in places_:
            found[partition] = max(found[partition], offset)
    return found
