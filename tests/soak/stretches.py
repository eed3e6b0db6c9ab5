"""A run of hours on one fleet, sent and judged in stretches: what is kept does not grow with the run.

A stretch sends its records, comes to rest and is judged on its own. Ownerships and faults are kept for those that
follow; calls, commits and dead letters are not. Offsets and the workers themselves go on from stretch to stretch.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

import msgspec
from confluent_kafka import Consumer, TopicPartition
from fleet.checker import check
from fleet.history import Effect, Happening, History, Owned, Struck
from fleet.witness import source_of
from fleet.workers import CommitWatcher, Fleet
from fleet.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from fleet.checker import Verdict

_REST_S = 120.0
_TICK_S = 1.0
_READ_TIMEOUT_S = 30.0
_decode = msgspec.json.Decoder(Happening).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What came out of one: `waits_s` has for each record when it was sent and how long it waited for its call."""

    verdict: Verdict
    waits_s: Sequence[tuple[float, float]]


class LongRun:
    """Stretches of `rate` records a second; the dead-letter topic is the topic's name and `.dlq`, of one partition."""

    def __init__(self, fleet: Fleet, *, partitions: int, rate: int, deeds: Mapping[str, float]) -> None:
        self.fleet = fleet
        self.sent = self.handled = 0
        self._partitions = partitions
        self._rate = rate
        self._deeds = deeds
        self._watcher = CommitWatcher(fleet.bootstrap_servers, fleet.group, fleet.topic, partitions)
        self._stretches = 0
        self._read_bytes = self._letters = 0
        self._happenings: list[Happening] = []
        self._ends: dict[int, int] = {}
        fleet.ledger.touch()

    def __enter__(self) -> Self:
        self._watcher.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._watcher.__exit__(*error)

    def stretch(self, seconds: float, seed: int, each_second: Callable[[], None]) -> Stretch:
        """Send for so long, with `each_second` called meanwhile; then come to rest and judge."""
        self._stretches += 1
        folder = self.fleet.folder / f"stretch-{self._stretches}"
        folder.mkdir()
        with self._workload(folder, round(seconds * self._rate), seed) as workload:
            pause, until_s = threading.Event(), time.monotonic() + seconds
            while time.monotonic() < until_s:
                pause.wait(_TICK_S)
                self._read_ledger()
                each_second()
            workload.finish(_REST_S)
            self._ends |= {partition: end for partition, end in workload.ends().items() if end}
            self.fleet.wait(self._is_at_rest, f"all committed: {self._ends}", _REST_S)
        self._read_ledger()
        judged = self._judge(workload)
        (folder / "sent").unlink()
        return judged

    def _workload(self, folder: Path, total: int, seed: int) -> Workload:
        return Workload(
            self.fleet.bootstrap_servers,
            self.fleet.topic,
            folder,
            partitions=self._partitions,
            total=total,
            rate=self._rate,
            keys=500,
            deeds=self._deeds,
            seed=seed,
            settings={"reconnect.backoff.max.ms": 500},
        )

    def _is_at_rest(self) -> bool:
        committed = self._watcher.committed()
        return {partition: committed.get(partition) for partition in self._ends} == self._ends

    def _read_ledger(self) -> None:
        """Take what was written since; the part of a line at the end is left for the next time."""
        with self.fleet.ledger.open("rb") as ledger:
            ledger.seek(self._read_bytes)
            lines = ledger.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        self._read_bytes += sum(map(len, whole))
        fresh = [_decode(line) for line in whole]
        self.handled += sum(isinstance(one, Effect) for one in fresh)
        self._happenings += fresh

    def _judge(self, workload: Workload) -> Stretch:
        sent, seen = workload.sent(), list(self._watcher.seen)
        self.sent += len(sent)
        verdict = check(History.of([*sent, *self._happenings, *seen], self._ends, self._copies()))
        called_s: dict[str | None, float] = {}
        for one in self._happenings:
            if isinstance(one, Effect):
                called_s.setdefault(one.uid, one.began_s)
        self._happenings = [one for one in self._happenings if isinstance(one, Owned | Struck)]
        self._watcher.seen = self._watcher.seen[-self._partitions :]
        return Stretch(
            verdict=verdict,
            waits_s=[(one.at_s, called_s[one.uid] - one.at_s) for one in sent if one.uid in called_s],
        )

    def _copies(self) -> list[tuple[int, int]]:
        """Where the records came from whose dead letters are new."""
        place = partial(TopicPartition, f"{self.fleet.topic}.dlq", 0)
        settings = {"bootstrap.servers": self.fleet.bootstrap_servers, "group.id": "reader of dead letters"}
        with closing(Consumer({**settings, "enable.auto.commit": False})) as reader:
            end = reader.get_watermark_offsets(place(), _READ_TIMEOUT_S)[1]
            reader.assign([place(self._letters)])
            fresh = reader.consume(end - self._letters, _READ_TIMEOUT_S) if end > self._letters else []
        assert len(fresh) == end - self._letters, f"read {len(fresh)} of {end - self._letters} dead letters"
        self._letters = end
        return [source_of(dict(one.headers() or [])["sw-id"])[1:] for one in fresh]
