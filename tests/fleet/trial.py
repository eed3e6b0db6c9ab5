"""A whole run: a producer, workers in processes of their own, a reader of commits outside, and the verdict.

with Trial(servers, "orders", "g", folder, partitions=4, total=3000, seed=7) as trial:
    trial.fleet.start()
    trial.wait_for_progress(0.3)
    trial.fleet.kill(trial.fleet.living()[0])
    ...
    verdict = trial.verdict()
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from confluent_kafka import Consumer, TopicPartition
from fleet.checker import check
from fleet.history import History, Owned
from fleet.witness import source_of
from fleet.workers import CommitWatcher, Fleet
from fleet.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fleet.checker import Verdict

_REST_S = 60.0
_READ_TIMEOUT_S = 10.0


class Trial:
    """Everything that one run has; faults go straight to `fleet`, or to the cluster by whoever made it.

    With dead letters the topic is the input's name and `.dlq`, with `letter_partitions` partitions.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        group: str,
        folder: Path,
        *,
        partitions: int = 4,
        total: int,
        rate: float = 1e9,
        keys: int = 50,
        deeds: Mapping[str, float] = {},
        handler: str = "fleet.apps:Ledger",
        options: Mapping[str, object] = {},
        letter_partitions: int = 0,
        seed: int | None = None,
        watch: str | None = None,
        workload_settings: Mapping[str, str | int] = {},
        sends_at_once: bool = True,
    ) -> None:
        self.seed = random.randrange(2**32) if seed is None else seed
        print(f"seed {self.seed}")
        self.draw = random.Random(self.seed)
        self._servers = watch or bootstrap_servers  # where the outside looks, if faults are on the way for the others
        self._topic = topic
        self._letter_partitions = letter_partitions
        self.fleet = Fleet(bootstrap_servers, group, topic, folder, handler=handler, options=options)
        self.workload = Workload(
            self._servers,
            topic,
            folder,
            partitions=partitions,
            total=total,
            rate=rate,
            keys=keys,
            deeds=deeds,
            seed=self.seed,
            settings=workload_settings,
        )
        self.watcher = CommitWatcher(self._servers, group, topic, partitions)
        self._sends_at_once = sends_at_once
        self._parts = ExitStack()

    def __enter__(self) -> Self:
        for part in (self.fleet, self.watcher):
            self._parts.enter_context(part)
        if self._sends_at_once:
            self.send()
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()

    def send(self) -> None:
        """Let the producer begin."""
        self._parts.enter_context(self.workload)

    def wait_for_owners(self, workers: int, timeout_s: float = _REST_S) -> None:
        """Until so many workers that live own partitions."""
        self.fleet.wait(lambda: len(self.owners()) >= workers, f"{workers} owners", timeout_s)

    def owners(self) -> set[int]:
        """The workers that live and own partitions, by their process ids."""
        owners: dict[int, int] = {}
        for one in self.fleet.happenings():
            if isinstance(one, Owned) and one.what == "assigned":
                owners[one.partition] = one.pid
        return set(owners.values()) & {worker.pid for worker in self.fleet.living()}

    def wait_for_progress(self, share: float, timeout_s: float = _REST_S) -> None:
        """Until so many calls ended well, as a share of all records."""
        aim = int(share * self.workload.total)
        self.fleet.wait(lambda: self._at_work() and len(self.fleet.effects()) >= aim, f"{aim} calls", timeout_s)

    def come_to_rest(self, timeout_s: float = _REST_S) -> None:
        """Until everything is sent and the group has committed to the end; fails with the logs if it does not."""
        self.workload.finish(timeout_s)
        ends = {partition: end for partition, end in self.workload.ends().items() if end}

        def is_at_rest() -> bool:
            return {one: self.watcher.committed().get(one, 0) for one in ends} == ends

        self.fleet.wait(is_at_rest, f"all committed: {ends}; now {self.watcher.committed()}", timeout_s)

    def _at_work(self) -> bool:
        assert self.fleet.living(), f"all workers have ended\n{self.fleet.logs()[-6000:]}"
        return True

    def verdict(self, timeout_s: float = _REST_S) -> Verdict:
        """Let it come to rest, and judge it."""
        self.come_to_rest(timeout_s)
        return self.verdict_now()

    def verdict_now(self) -> Verdict:
        """Judge it as it is."""
        happenings = [*self.workload.sent(), *self.fleet.happenings(), *self.watcher.seen]
        return check(History.of(happenings, self.workload.ends(), self.copies()))

    def copies(self) -> list[tuple[int, int]]:
        """The partition and offset of the source of each dead letter, as read from their topic."""
        if not self._letter_partitions:
            return []
        letters = [TopicPartition(f"{self._topic}.dlq", number, 0) for number in range(self._letter_partitions)]
        reader = Consumer(
            {
                "bootstrap.servers": self._servers,
                "group.id": "reader of dead letters",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        try:
            count = sum(reader.get_watermark_offsets(one, _READ_TIMEOUT_S)[1] for one in letters)
            reader.assign(letters)
            found = reader.consume(count, _READ_TIMEOUT_S) if count else []
        finally:
            reader.close()
        assert len(found) == count, f"read {len(found)} of {count} dead letters"
        return [source_of(dict(one.headers() or [])["sw-id"])[1:] for one in found]
