"""A partition whose records go to a database: parked, tried again, crashed, taken over, in more or fewer lanes.

What may happen is drawn by chance, from a seed. After each step no record has had its effect twice, none is committed
without it, and those of a key are in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from servers.stores import place, row

from streamworker.sinks.marks import lane_of

if TYPE_CHECKING:
    from random import Random

    from streamworker.interfaces import Row
    from streamworker.work import Place

KEYS: Sequence[bytes | None] = (b"a", b"b", b"c", b"d", b"e", None)
Effects = Callable[[], Sequence[int]]


@dataclass
class Worker:
    """An owner of the partition: what was delivered to it, and what of it is done or waits for another try."""

    owner: str
    lanes: int
    committed: int
    delivered: int
    done: set[int] = field(default_factory=set)
    held: set[int] = field(default_factory=set)

    def lane(self, keys: Sequence[bytes | None], lane: int) -> list[int]:
        """Records of a lane that are not done, in order."""
        found = range(self.committed, self.delivered)
        return [one for one in found if one not in self.done and lane_of(keys[one], one, self.lanes) == lane]

    def blocked(self, keys: Sequence[bytes | None], offset: int) -> bool:
        """Whether an earlier record of its key is held."""
        return keys[offset] is not None and any(one < offset and keys[one] == keys[offset] for one in self.held)


class Partition:
    """One partition, its owner, and one from before that still runs. `chance` decides what happens next."""

    def __init__(self, chance: Random, apply: Callable[[Place, Sequence[Row]], bool], effects: Effects) -> None:
        self.chance = chance
        self.apply = apply  # false if the partition is another's
        self.effects = effects
        self.log = chance.choices(KEYS, k=80)
        self.committed = 0
        self.owners = 0
        self.given_up: set[int] = set()
        self.now = self.assign()
        self.zombie: Worker | None = None

    def assign(self) -> Worker:
        self.owners += 1
        return Worker(f"owner {self.owners}", self.chance.randint(1, 4), self.committed, self.committed)

    def step(self) -> None:
        match self.chance.choices(range(6), weights=(60, 15, 3, 10, 8, 4))[0]:
            case 0:
                self.now.delivered = min(len(self.log), self.now.delivered + self.chance.randint(0, 3))
                self.handle_some(self.now, fails=self.chance.random() < 0.3)
            case 1:
                self.try_a_held_record_again()
            case 2:
                self.give_a_held_record_up()
            case 3:
                self.commit()
            case 4 if self.zombie is not None:
                self.handle_some(self.zombie, fails=False)
            case 5:
                self.zombie = self.now if self.chance.random() < 0.7 else None
                self.now = self.assign()
        self.check()

    def handle_some(self, worker: Worker, *, fails: bool) -> None:
        """A run from the front of a lane, the last of which may fail and is then held."""
        waiting = [one for one in worker.lane(self.log, self.chance.randrange(worker.lanes)) if one not in worker.held]
        run = [one for one in waiting if not worker.blocked(self.log, one)][: self.chance.randint(1, 5)]
        failed = {run.pop()} if run and fails else set()
        if not run or self.write(worker, run):
            worker.held |= failed

    def a_held_record(self) -> int | None:
        ready = sorted(one for one in self.now.held if not self.now.blocked(self.log, one))
        return self.chance.choice(ready) if ready else None

    def try_a_held_record_again(self) -> None:
        offset = self.a_held_record()
        if offset is not None:
            self.write(self.now, [offset])

    def give_a_held_record_up(self) -> None:
        offset = self.a_held_record()
        if offset is not None:
            self.now.held.discard(offset)
            self.now.done.add(offset)
            self.given_up.add(offset)

    def commit(self) -> None:
        worker = self.now
        open_ = [one for one in range(worker.committed, worker.delivered) if one not in worker.done]
        self.committed = worker.committed = min(open_, default=worker.delivered)
        worker.done = {one for one in worker.done if one >= worker.committed}

    def write(self, worker: Worker, run: list[int]) -> bool:
        """False if the worker does not hear that all is written, which happens now and then though it is."""
        lane = lane_of(self.log[run[0]], run[0], worker.lanes)
        open_ = tuple(one for one in worker.lane(self.log, lane) if one < run[-1] and one not in run)
        where = place(worker.owner, lanes=worker.lanes, lane=lane, done_below=worker.committed, open_below=open_)
        rows = [row(one, {"id": one}, key=self.log[one]) for one in run]
        if not self.apply(where, rows) or self.chance.random() < 0.15:
            return False
        worker.done.update(run)
        worker.held.difference_update(run)
        return True

    def run(self, steps: int) -> None:
        """So many steps, and then what is left without a failure."""
        for _ in range(steps):
            self.step()
        while self.committed < len(self.log):
            self.now.delivered = len(self.log)
            self.try_a_held_record_again()
            self.handle_some(self.now, fails=False)
            self.commit()
        self.check()

    def check(self) -> None:
        effects = self.effects()
        assert len(set(effects)) == len(effects), "a second effect"
        assert set(range(self.committed)) <= set(effects) | self.given_up, "committed without an effect"
        for key in KEYS[:-1]:
            of_key = [one for one in effects if self.log[one] == key and one not in self.given_up]
            assert of_key == sorted(of_key), "out of order"
