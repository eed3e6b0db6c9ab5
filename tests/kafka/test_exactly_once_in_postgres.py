"""Each record has its effect once in PostgreSQL, and in the order of its key, whatever dies, halts or comes again."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from fleet.stored_once import broken, found, make
from fleet.trial import Trial
from fleet.workers import let_pass
from servers.postgres import HARD
from sizes import SOAK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers.kafka import SharedKafka
    from servers.postgres import Postgres

PARTITIONS = 4
MOVED_S = 7.5  # a member that is halted has lost its partitions


@pytest.fixture
def store(postgres: Postgres) -> str:
    """The URL of a database of the test's own, with the table `once` and what the sink needs."""
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS once WITH (FORCE)")
        admin.execute("CREATE DATABASE once")
        url = postgres.url.removesuffix("/postgres") + "/once"
        make(url)
    return url


@contextmanager
def storing(kafka: SharedKafka, folder: Path, url: str, handler: str, *, total: int, work_s: float) -> Iterator[Trial]:
    topic = kafka.topic("orders", partitions=PARTITIONS)
    kafka.dead_letters(topic)
    with Trial(
        kafka.bootstrap_servers,
        topic,
        kafka.group("orders"),
        folder,
        partitions=PARTITIONS,
        total=total,
        deeds={"flaky": 0.01, "poison": 0.003},
        handler=f"fleet.once:{handler}",
        letter_partitions=1,
        options={"sinks.store": url, "app.work_s": work_s, "app.pause_s": 0.01, "kafka.group_protocol": "classic"},
    ) as trial:
        yield trial


def judged(trial: Trial, url: str) -> list[str]:
    """What is broken once all is committed."""
    trial.come_to_rest()
    return broken(found(url), trial.workload.ends(), trial.copies())


def kill_one(trial: Trial) -> None:
    trial.fleet.kill(trial.draw.choice(trial.fleet.living()))
    trial.fleet.start()


@pytest.mark.timeout(120 * SOAK)
def test_each_record_is_there_once_whatever_is_killed_halted_or_changed(
    kafka: SharedKafka,
    postgres: Postgres,
    store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figures: Callable[..., None],
) -> None:
    """F-75. Two workers: one in turn is killed, one is halted until it is none any more, the server dies in between."""
    if postgres.program is None:
        pytest.skip("the server is somebody else's")
    kills = 6 * SOAK

    with storing(kafka, tmp_path, store, "StoreOnce", total=1200 * kills, work_s=0.006) as trial:
        fleet = trial.fleet
        zombie = fleet.start()
        fleet.start()
        trial.wait_for_progress(0.05)
        fleet.pause(zombie)
        let_pass(MOVED_S)
        fleet.resume(zombie)
        for kill in range(kills):
            trial.wait_for_progress(0.1 + 0.8 * (kill + trial.draw.random()) / kills)
            if kill % 4 == 2:
                postgres.program.end(HARD)
                postgres.program.restart()
            monkeypatch.setenv("STORE_LANES", str(trial.draw.randint(1, 12)))
            kill_one(trial)
        wrong = judged(trial, store)
        repeats = len(fleet.effects()) - len(found(store))

    assert wrong == []
    figures("F-75", "SIGKILL, a zombie and a dying PostgreSQL", kills=kills, calls_repeated=repeats, effects_repeated=0)


@pytest.mark.parametrize("handler", ["StoreOnceInOrder", "StoreOnceInProcesses", "StoreOnceAsync"])
def test_each_record_is_there_once_whatever_calls_the_handler(
    kafka: SharedKafka, store: str, tmp_path: Path, handler: str, figures: Callable[..., None]
) -> None:
    """F-75. The same with one lane per partition, with child processes and on event loops."""
    kills = 2 * SOAK

    with storing(kafka, tmp_path, store, handler, total=600 * kills, work_s=0.002) as trial:
        trial.fleet.start()
        trial.fleet.start()
        for kill in range(kills):
            trial.wait_for_progress((kill + trial.draw.random()) / (kills + 1))
            kill_one(trial)
        wrong = judged(trial, store)

    assert wrong == []
    figures("F-75", f"SIGKILL of workers, {handler}", kills=kills, effects_repeated=0)
