"""One seeded run of a small fleet under random faults.

`python -m scenarios.simulation SEED` (with `tests` on the path) replays one and prints what it broke. A
seed gives the same run in every process: nothing here may depend on the order of a set.
"""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING

from scenarios.oracle import violations

from streamworker import Batch, BatchFailed, BatchHandler, DeadLetter, Handler, Ordering, PoisonError, Retry
from streamworker.config import CommitConfig, Config, FlowConfig, KafkaConfig, LifecycleConfig
from streamworker.testing.virtual_worker import Member, VirtualWorld

if TYPE_CHECKING:
    from streamworker.record import Record, Records

PARTITIONS = 3


def broken_promises(seed: int) -> list[str]:
    """What the run of `seed` broke; a worker that crashed or stands still has broken one, too."""
    try:
        return Simulation(seed).run()
    except Exception as error:  # noqa: BLE001 - the border to the engine that is judged
        return [f"crashed: {error!r}"]


class Simulation:
    """A world drawn from a seed: handler, ordering, traffic and faults."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        random.seed(seed)  # tenacity's jitter draws from the module
        draw = self.random
        self.ordering = draw.choice(list(Ordering))
        self.has_batches = draw.random() < 0.4
        config = Config(
            kafka=KafkaConfig(group="sim"),
            commit=CommitConfig(interval_s=draw.choice([0.05, 0.3, 1.0]), max_uncommitted=draw.choice([8, 64, 16_384])),
            flow=FlowConfig(
                max_inflight=draw.choice([20, 200, 10_000]), pause_after_s=0.1, max_slice=draw.choice([1, 7, 500])
            ),
            lifecycle=LifecycleConfig(revoke_timeout_s=draw.choice([0.0, 0.05, 3.0]), drain_timeout_s=20.0),
        )
        self.world = VirtualWorld({"in": PARTITIONS, "dlq": 2}, config=config)
        self.produced = 0
        self.total = draw.choice([40, 150, 300])
        self._slow = draw.choice([0.0005, 0.01, 0.2])

    def run(self) -> list[str]:
        """Play it; returns the promises that were broken."""
        draw = self.random
        self._start()
        while self.produced < self.total:
            self._produce(draw.randrange(1, 30))
            self.world.run_for(draw.choice([0.01, 0.1, 1.0]))
            self._strike()
        self._heal()
        self.world.run_to_end("in")
        codes = [self.world.stop(member) for member in list(self.world.members)]
        ordered = self.ordering is not Ordering.UNORDERED
        broken = list(violations(self.world, "in", "dlq", ordered=ordered, batches=self.has_batches))
        return broken + [f"exit code {code}" for code in codes if code != 0]

    def _start(self) -> Member:
        draw = self.random
        return self.world.start(
            self._handler(),
            duration_s=lambda slice_: self._slow * len(slice_.messages) * draw.uniform(0.1, 2.0),
            eager=lambda: draw.random() < 0.3,
        )

    def _handler(self) -> type[Handler[bytes]] | type[BatchHandler[bytes]]:
        draw, ordering = self.random, self.ordering
        poison_rate, flaky_rate = draw.choice([0.0, 0.05]), draw.choice([0.0, 0.1, 0.3])
        patience = Retry(attempts=draw.choice([1, 3]), base_s=0.05, cap_s=draw.choice([0.1, 2.0]))

        def fate(record: Record[bytes]) -> None:
            if record.offset % 100 < 100 * poison_rate:
                raise PoisonError("bad record")
            if draw.random() < flaky_rate:
                raise ConnectionError("flaky")

        class One(Handler[bytes]):
            topics = ("in",)
            concurrency = 4
            dead_letter = DeadLetter("dlq")
            retry = patience

            def handle(self, record: Record[bytes]) -> None:
                fate(record)

        class Many(BatchHandler[bytes]):
            topics = ("in",)
            concurrency = 4
            dead_letter = DeadLetter("dlq")
            retry = patience
            batch = Batch(max_records=draw.choice([1, 5, 50]), max_wait_s=draw.choice([0.0, 0.2]))

            def handle(self, records: Records[bytes]) -> None:
                for index, record in enumerate(records):
                    try:
                        fate(record)
                    except (PoisonError, ConnectionError) as error:
                        if draw.random() < 0.5:
                            raise
                        raise BatchFailed(index, error) from error

        chosen: type[Handler[bytes]] | type[BatchHandler[bytes]] = Many if self.has_batches else One
        chosen.ordering = ordering
        return chosen

    def _produce(self, count: int) -> None:
        draw = self.random
        for _ in range(count):
            key = None if draw.random() < 0.1 else f"k{draw.randrange(12)}".encode()
            partition = draw.randrange(PARTITIONS) if key is None else key[1] % PARTITIONS
            gap = draw.choice([0, 0, 0, 0, 1, 50])
            self.world.broker.produce("in", partition, b"x" * draw.randrange(20), key=key, gap=gap)
            self.produced += 1

    def _strike(self) -> None:
        draw, world = self.random, self.world
        match draw.randrange(14):
            case 0 if len(world.members) < 4:
                self._start()
            case 1 if len(world.members) > 1:
                world.stop(draw.choice(world.members))
            case 2:
                world.kill(draw.choice(world.members))
                self._start()
            case 3:
                world.broker.expel(draw.choice(world.members).source)
            case 4:
                world.broker.commit_error = lambda _key: "REBALANCE_IN_PROGRESS" if draw.random() < 0.5 else None
            case 5:
                world.broker.commit_latency_s = draw.choice([0.001, 0.5, 5.0])
            case 6:
                world.broker.produce_error = lambda _topic: "_MSG_TIMED_OUT" if draw.random() < 0.5 else None
            case 7:
                world.broker.offsets_error = lambda: "STALE_MEMBER_EPOCH" if draw.random() < 0.5 else None
            case 8:
                world.broker.coordinator_up = False
            case _:
                self._heal()

    def _heal(self) -> None:
        broker = self.world.broker
        broker.commit_error = lambda _key: None
        broker.produce_error = lambda _topic: None
        broker.offsets_error = lambda: None
        broker.coordinator_up = True
        broker.commit_latency_s = 0.002


if __name__ == "__main__":
    for sentence in broken_promises(int(sys.argv[1])):
        sys.stdout.write(f"{sentence}\n")
