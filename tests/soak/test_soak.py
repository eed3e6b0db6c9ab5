"""Hours of load on a real Kafka, with workers killed and the broker stopped again and again.

Not among the tests that run by default: `STREAMWORKER_SOAK_S=1800 python -m pytest tests/soak`. A line each ten
seconds says how it goes.
"""

from __future__ import annotations

import os
import random
import time
from array import array
from bisect import bisect_right
from statistics import quantiles
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # the package does not list what it exports
from fleet.workers import Fleet
from soak.stretches import LongRun
from soak.vitals import MIB, Vitals, growth, rss_slope_mib_per_h

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from servers.kafka import SharedKafka

SOAK_S = float(os.environ.get("STREAMWORKER_SOAK_S", "1800"))
STRETCH_S = 120.0
RATE = 1000  # records a second
PARTITIONS = 8
WORKERS = 3
KILL_EVERY_S, BOUNCE_EVERY_S, SAY_EVERY_S = 60.0, 600.0, 10.0
# Around a fault records wait for the others to notice; these bounds are for the time between.
BEFORE_FAULT_S, AFTER_FAULT_S = 5.0, 20.0
LAG_P99_S = 5.0
# What a process keeps is filled by then: only what it uses after that is judged. A slope needs an hour: in less, a
# single step of the allocator when the broker comes back is more than it.
WARM_S, SLOPE_S = 900.0, 3600.0
SLOPE_MIB_PER_H = 1.0
GROWTH_MIB = 1.0
# A connection more or less to a broker is no leak.
DESCRIPTORS, THREADS = 4, 2

OPTIONS = {
    "kafka.group_protocol": "classic",
    "kafka.session_timeout_s": 6,
    "kafka.max_poll_interval_s": 60,
    "kafka.librdkafka.reconnect.backoff.max.ms": 500,
    "dead_letters.delivery_timeout_s": 20,
    "lifecycle.drain_timeout_s": 25,
    "app.work_s": 0.002,
}


class Course:
    """Strikes when it is time, and notes how the oldest worker, which is never killed, is doing."""

    def __init__(self, run: LongRun, kafka: SharedKafka, draw: random.Random, say: Callable[[str], None]) -> None:
        self.kills = self.bounces = 0
        self.vitals: list[Vitals] = []
        self._run = run
        self._kafka = kafka
        self._draw = draw
        self._say = say
        self._began_s = time.monotonic()
        self.struck_s = [self._began_s]  # joining a group takes as long as losing a member
        self._due_s = {self._kill: KILL_EVERY_S, self._look: SAY_EVERY_S}
        if kafka.server.owned:
            self._due_s[self._bounce] = BOUNCE_EVERY_S
        self._every_s = dict(self._due_s)

    @property
    def up_s(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began_s

    def each_second(self) -> None:
        """Do what is due; fails if a worker has ended by itself."""
        fleet = self._run.fleet
        assert len(fleet.living()) == WORKERS, f"a worker has ended by itself\n{fleet.logs()[-6000:]}"
        for what, every_s in self._every_s.items():
            if self.up_s >= self._due_s[what]:
                self._due_s[what] += every_s
                what()

    def _kill(self) -> None:
        fleet = self._run.fleet
        self.struck_s.append(time.monotonic())
        fleet.kill(self._draw.choice(fleet.living()[1:]))
        fleet.start()
        self.kills += 1

    def _bounce(self) -> None:
        self.struck_s.append(time.monotonic())
        self._run.fleet.strike("broker stopped")
        self._kafka.server.restart()
        self.struck_s.append(time.monotonic())
        self.bounces += 1

    def _look(self) -> None:
        now = Vitals.of(self._run.fleet.living()[0].pid)
        self.vitals.append(now)
        self._say(
            f"{self.up_s:6.0f} s: {self._run.handled} calls ended well, {self.kills} kills, {self.bounces} bounces;"
            f" oldest worker {now.rss_bytes / MIB:.1f} MiB, {now.descriptors} descriptors, {now.threads} threads"
        )

    def warm_vitals(self) -> Sequence[Vitals]:
        """Readings after the warm-up, a quarter of a short run."""
        from_s = self._began_s + min(WARM_S, SOAK_S / 4)
        return [one for one in self.vitals if one.at_s >= from_s]

    def is_quiet(self, at_s: float) -> bool:
        """Whether no fault came shortly before or after."""
        latest = bisect_right(self.struck_s, at_s + BEFORE_FAULT_S)
        return latest == 0 or self.struck_s[latest - 1] < at_s - AFTER_FAULT_S


@pytest.fixture
def fleet(kafka: SharedKafka, tmp_path: Path) -> Iterator[Fleet]:
    """Workers on a topic of their own, which is gone after the test, with what they have written."""
    topic = kafka.topic("soak", partitions=PARTITIONS)
    letters = f"{topic}.dlq"
    kafka.admin.create_topics([NewTopic(letters, 1)])[letters].result(30)
    handler = "fleet.apps:LedgerWithDeadLetters"
    with Fleet(
        kafka.bootstrap_servers, kafka.group("soak"), topic, tmp_path, handler=handler, options=OPTIONS
    ) as workers:
        yield workers
    workers.ledger.unlink()
    kafka.admin.delete_topics([letters])[letters].result(30)


@pytest.mark.timeout(0)
def test_hours_of_load_and_faults_lose_nothing_and_leak_nothing(
    kafka: SharedKafka, fleet: Fleet, capsys: pytest.CaptureFixture[str], figures: Callable[..., None]
) -> None:
    """F-85."""
    assert SOAK_S >= 60, f"STREAMWORKER_SOAK_S: expected at least 60, for some time between faults, got {SOAK_S:g}"
    draw = random.Random(seed := random.randrange(2**32))
    repeats, waits_s = 0, array("d")

    def say(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    say(f"\nseed {seed}")
    for _ in range(WORKERS):
        fleet.start()
    with LongRun(fleet, partitions=PARTITIONS, rate=RATE, deeds={"flaky": 0.01, "poison": 0.001}) as run:
        course = Course(run, kafka, draw, say)
        while course.up_s < SOAK_S:
            stretch = run.stretch(min(STRETCH_S, SOAK_S - course.up_s), draw.randrange(2**32), course.each_second)
            assert stretch.verdict.broken() == [], f"seed {seed}"
            repeats += stretch.verdict.repeats
            waits_s.extend(wait_s for sent_s, wait_s in stretch.waits_s if course.is_quiet(sent_s))

    p99_s = quantiles(waits_s, n=100)[-1]
    warm = course.warm_vitals()
    is_long = warm[-1].at_s - warm[0].at_s >= SLOPE_S
    slope = rss_slope_mib_per_h(warm) if is_long else None
    more_mib = growth([one.rss_bytes for one in warm]) / MIB
    more_descriptors, more_threads = growth([one.descriptors for one in warm]), growth([one.threads for one in warm])
    figures(
        "F-85",
        f"{SOAK_S:g} s of {RATE} records/s",
        kills=course.kills,
        bounces=course.bounces,
        records=run.sent,
        repeats=repeats,
        lag_p99_s=round(p99_s, 3),
        more_mib=round(more_mib, 2),
        rss_mib_per_h="not judged" if slope is None else round(slope, 2),
        more_descriptors=more_descriptors,
        more_threads=more_threads,
        lost=0,
    )
    assert p99_s <= LAG_P99_S
    assert (more_descriptors <= DESCRIPTORS, more_threads <= THREADS) == (True, True)
    assert more_mib <= GROWTH_MIB
    assert slope is None or slope <= SLOPE_MIB_PER_H
