"""A PostgreSQL that is stopped hard and a Redis that hangs, under the load of workers that write to them."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from fleet.recorder import Recorder
from fleet.stored import calls_between, keys, make_table, rows
from fleet.trial import Trial
from fleet.workers import let_pass, page
from servers.ports import free_port
from servers.postgres import HARD

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers.kafka import SharedKafka
    from servers.postgres import Postgres
    from servers.redis import Redis

PARTITIONS = 4
WORKERS = 2
IN_FLIGHT = 8 + 2  # of a worker when it goes: two more begin before the third of them has failed
RATE = 200
OUTAGE_S = 30
# The breakers of `fleet.sinks` try every 5 s, up to a fifth sooner.
TRIALS = int(OUTAGE_S / (0.8 * 5))
SLOW_EVERY_S = 10
REST_S = 60.0


class Outage:
    """Workers that write to one server, and what is seen of them while it is away."""

    def __init__(
        self, kafka: SharedKafka, folder: Path, sink: str, url: str, *, workers: int = WORKERS, **load: float
    ) -> None:
        self.sink = sink
        self.topic = kafka.topic(sink, PARTITIONS)
        self.ports = [free_port() for _ in range(workers)]
        folder.mkdir()
        kafka.dead_letters(self.topic)
        self.trial = Trial(
            kafka.bootstrap_servers,
            self.topic,
            kafka.group(sink),
            folder,
            partitions=PARTITIONS,
            handler=f"fleet.sinks:StoreIn{sink.capitalize()}",
            letter_partitions=1,
            options={"app.sink": url, "http.enabled": "true"},
            sends_at_once=False,
            **load,
        )
        self.answers: list[tuple[int, list[str]]] = []

    def start(self) -> None:
        for port in self.ports:
            self.trial.fleet.start(**{"http.port": port})
        self.trial.wait_for_owners(len(self.ports))

    def put_under_load(self) -> None:
        """Send, and return when it flows and something is about to happen."""
        self.trial.send()
        self.trial.wait_for_progress(2 * RATE / self.trial.workload.total)
        self.trial.fleet.strike("outage")

    def look(self) -> None:
        """Ask each worker whether it is ready, and what is degraded."""
        for code, text in (page(port, "health/ready") for port in self.ports):
            self.answers.append((code, json.loads(text)["degraded"]))

    def calls(self, since_s: float, until_s: float) -> int:
        return calls_between(self.trial.fleet.ledger, since_s, until_s)


def look_for(seconds: int, *outages: Outage) -> None:
    """Look at the workers each second."""
    for _ in range(seconds):
        let_pass(1)
        for one in outages:
            one.look()


@pytest.mark.timeout(200)
def test_servers_that_are_away_for_half_a_minute_cost_no_record_and_are_hardly_called(
    kafka: SharedKafka,
    postgres: Postgres,
    redis: Redis,
    tmp_path: Path,
    figures: Callable[..., None],
    recording: Path,
) -> None:
    """F-62. P15. Under load, and with one record in ten seconds, whose failures are too far apart for a share."""
    if postgres.program is None or redis.program is None:
        pytest.skip("a server was given, so it is not stopped")
    make_table(postgres.url)
    total = RATE * (OUTAGE_S + 6)
    stopped = Outage(kafka, tmp_path / "stopped", "postgres", postgres.url, total=total, rate=RATE)
    hangs = Outage(kafka, tmp_path / "hangs", "redis", redis.url, total=total, rate=RATE)
    few = OUTAGE_S // SLOW_EVERY_S
    slow = Outage(kafka, tmp_path / "slow", "postgres", postgres.url, workers=1, total=few, rate=1 / SLOW_EVERY_S)
    everywhere = (stopped, hangs, slow)

    with ExitStack() as trials:
        for one in everywhere:
            trials.enter_context(one.trial)
            one.start()
        recorder = trials.enter_context(Recorder(stopped.ports))
        stopped.put_under_load()
        hangs.put_under_load()
        postgres.program.end(HARD)
        redis.program.halt()
        recorder.away, gone_s = True, time.monotonic()
        slow.trial.send()
        look_for(OUTAGE_S, stopped, hangs)
        recorder.away, back_s = False, time.monotonic()
        redis.program.resume()
        postgres.program.restart()
        verdicts = [one.trial.verdict(REST_S) for one in everywhere]
        rest_s = time.monotonic() - back_s
        letters = [one.trial.copies() for one in everywhere]
        stopped.trial.fleet.wait(lambda: recorder.lag() == 0, "no lag is told of")
    recorder.write(recording)

    assert letters == [[], [], []]
    assert [verdict.broken() for verdict in verdicts] == [[], [], []]
    for one in (stopped, hangs):
        assert {code for code, _ in one.answers} == {200}
        degraded = {text for _, texts in one.answers for text in texts}
        assert degraded <= {f"breaker {one.sink}: open", f"breaker {one.sink}: half_open"}
        assert all(len(texts) == 1 for _, texts in one.answers)
    for one in everywhere:
        assert one.calls(gone_s, back_s) <= len(one.ports) * (IN_FLIGHT + TRIALS)
    assert rows(postgres.url, stopped.topic) == total
    assert rows(postgres.url, slow.topic) == few
    assert keys(redis.url, hangs.topic) == total
    assert max(sample.lag for sample in recorder.samples if sample.away) >= RATE * OUTAGE_S / WORKERS / 2
    what = ("PostgreSQL stopped hard", "Redis halted", "PostgreSQL stopped hard, a record in 10 s")
    for fault, one, verdict in zip(what, everywhere, verdicts, strict=True):
        calls = one.calls(gone_s, back_s)
        figures("F-62", f"{fault}, for {OUTAGE_S} s", calls=calls, dead_letters=0, **verdict.figures())
    figures("F-62", "all of them at rest", after_s=round(rest_s))
