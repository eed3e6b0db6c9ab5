"""Each record has its effect once in a file of SQLite, and in the order of its key, though workers are killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.stored_once import broken, found, make
from fleet.trial import Trial
from sizes import SOAK

from streamworker.testing import MockKafka

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

PARTITIONS = 4


def test_each_record_is_there_once_whatever_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Callable[..., None]
) -> None:
    """F-75. Two workers with other numbers of lanes each time share the file, and one of them is killed."""
    kills, url = 5 * SOAK, f"sqlite:///{tmp_path / 'store.db'}"
    make(url)
    options = {
        "kafka.group_protocol": "classic",
        "kafka.session_timeout_s": 1,
        "lifecycle.revoke_timeout_s": 0.5,
        "app.work_s": 0.002,
        "sinks.store": url,
    }

    with (
        MockKafka(topics={"in": PARTITIONS, "in.dlq": 2}) as kafka,
        Trial(
            kafka.bootstrap_servers,
            "in",
            "g",
            tmp_path,
            partitions=PARTITIONS,
            total=400 * kills,
            rate=400,
            deeds={"flaky": 0.02, "poison": 0.01},
            handler="fleet.once:StoreOnceInSqlite",
            letter_partitions=2,
            options=options,
        ) as trial,
    ):
        trial.fleet.start()
        trial.fleet.start()
        for kill in range(kills):
            trial.wait_for_progress((kill + 0.5 + 0.5 * trial.draw.random()) / (kills + 1))
            monkeypatch.setenv("STORE_LANES", str(trial.draw.randint(1, 12)))
            trial.fleet.kill(trial.draw.choice(trial.fleet.living()))
            trial.fleet.start()
        trial.come_to_rest()
        wrong = broken(found(url), trial.workload.ends(), trial.copies())

    assert wrong == []
    figures("F-75", "SIGKILL of workers, SQLite", kills=kills, effects_repeated=0)
