"""Claims in Redis on workers that are killed: effects come once where their keys are known, and else nearly so."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fleet.billing import Billing
from fleet.trial import Trial
from sizes import SOAK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers.kafka import SharedKafka
    from servers.redis import Redis

PARTITIONS = 4
THREADS = 8
MOST_TOGETHER = 4  # of records whose claims are noted as done together: so many fit into a slice
WORKERS = 2
KILLS = SOAK  # of all workers at once


def killing(kafka: SharedKafka, redis: Redis, folder: Path, handler: str, **options: object) -> Trial:
    """A trial that has come to rest, in which workers were killed."""
    with Trial(
        kafka.bootstrap_servers,
        kafka.topic("bills", partitions=PARTITIONS),
        kafka.group("bills"),
        folder,
        partitions=PARTITIONS,
        total=1200 * KILLS,
        handler=f"fleet.claiming:{handler}",
        options={
            "kafka.group_protocol": "classic",
            "claims.redis": redis.url,
            "app.work_s": 0.01,
            "flow.sink_slice_s": 0.04,
            "commit.interval_s": 1.0,
            **options,
        },
    ) as trial:
        for _ in range(WORKERS):
            trial.fleet.start()
        for kill in range(KILLS):
            trial.wait_for_progress((kill + 0.3 + 0.6 * trial.draw.random()) / KILLS)
            for worker in trial.fleet.living():
                trial.fleet.kill(worker)
                trial.fleet.start()
        trial.come_to_rest()
    return trial


def places_of(trial: Trial) -> set[tuple[int, int]]:
    return {(partition, offset) for partition, end in trial.workload.ends().items() for offset in range(end)}


def test_a_server_that_knows_keys_bills_each_record_once(
    kafka: SharedKafka, redis: Redis, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-76. Requests are repeated, and have the key of the first."""
    with Billing() as billing:
        trial = killing(kafka, redis, tmp_path, "Bills", **{"sinks.billing": billing.url})
        effects = billing.effects()
        requests = len(billing.requests)

    assert sorted(effects) == sorted(f"/{partition}/{offset}" for partition, offset in places_of(trial))
    assert requests > len(effects)
    figures("F-76", "SIGKILL with claims and keys", kills=KILLS * WORKERS, requests=requests, effects_repeated=0)


def test_claims_alone_repeat_no_more_than_the_calls_that_a_kill_interrupts(
    kafka: SharedKafka, redis: Redis, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-76. Without claims all that was not committed would come again: hundreds here."""
    trial = killing(kafka, redis, tmp_path, "Claims")

    times = Counter((one.partition, one.offset) for one in trial.fleet.effects())
    repeats = sum(times.values()) - len(times)
    assert times.keys() == places_of(trial)
    assert repeats <= KILLS * WORKERS * THREADS * MOST_TOGETHER
    figures("F-76", "SIGKILL with claims alone", kills=KILLS * WORKERS, records=len(times), effects_repeated=repeats)
