"""One run of a small fleet under a schedule of faults, and its verdict.

With `tests` on the path, `python -m scenarios.simulation SEED` plays the schedule of a seed: it prints the schedule as
JSON on standard output and the verdict on standard error. `--schedule FILE` plays one that was printed before, and
made shorter by hand. A schedule gives the same run in every process: nothing here may depend on the order of a set.
"""

from __future__ import annotations

import argparse
import random
import sys
import traceback
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from scenarios.oracle import Terms, broken
from scenarios.schedule import Fault, draw_schedule, parse_schedule
from scenarios.weather import COMMIT_TIMEOUT_S, LETTER_PAUSE_S, Weather

from streamworker import (
    Batch,
    BatchFailed,
    BatchHandler,
    Breaker,
    CircuitOpen,
    Context,
    DeadLetter,
    DecodeError,
    DependencyUnavailable,
    Handler,
    PoisonError,
    Retry,
    Rule,
)
from streamworker.config import CommitConfig, Config, DeadLetterConfig, FlowConfig, KafkaConfig, LifecycleConfig
from streamworker.exit_code import ExitCode
from streamworker.interfaces import Fault as Report
from streamworker.interfaces import FaultKind
from streamworker.offsets import codec
from streamworker.offsets.suspects import FATAL_DEATHS
from streamworker.testing.virtual_world import VirtualWorld

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scenarios.schedule import Schedule, Setting, Strike

    from streamworker.record import Record, Records, TopicPartition
    from streamworker.testing.memory_broker import MemoryMessage
    from streamworker.testing.virtual_world import Member

# So long after the last fault everything is committed. The longest pause is that of a partition whose owners seem to
# have died of fetching it.
_RECOVERY_S = 300.0
_MOST_MEMBERS, _MOST_PARTITIONS = 4, 8
_LONGEST_WAIT_S = 0.03  # of a member that has nothing to do, so that the others' turn comes
_LONGEST_WAY_BACK_S = 0.2  # of the note that a key is parked
_COMMIT_SHARE_S = 2.0  # of the revoke timeout
_DRAIN_TIMEOUT_S = 20.0
_UNDECODABLE = b"!"
_MANY = 10_000  # dead letters: what follows a parked key may be nearly all


def broken_promises(schedule: Schedule) -> list[str]:
    """What a run broke; a worker that crashed or stands still has broken one, too."""
    try:
        return Simulation(schedule).run()
    except Exception as error:  # noqa: BLE001 - the border to the engine that is judged
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return [f"crashed: {error!r} at {Path(frame.filename).name}:{frame.lineno}"]


class Simulation:
    """A schedule and the world that it plays in."""

    def __init__(self, schedule: Schedule) -> None:
        random.seed(schedule.seed)  # tenacity's jitter draws from the module
        self.setting = schedule.setting
        self.world = VirtualWorld(
            {"in": self.setting.partitions, "dlq": 2, "dlq.keys": 1},
            config=_config(self.setting),
            shortest_wait_s=self.setting.shortest_wait_s,
        )
        self.weather = Weather(schedule, self.world.time.monotonic_s(), self.world.time.monotonic_s)
        self.weather.link(self.world.broker)
        self.world.broker.longest_wait_s = _LONGEST_WAIT_S
        self.world.broker.notes_latency_s = _LONGEST_WAY_BACK_S * self.weather.chance("notes")
        self._handler = _handler(self.setting, self.weather)
        self._produced = 0
        self._deleted: list[MemoryMessage] = []
        self._leavers: list[tuple[Member, bool]] = []  # whether another comes for it
        self._unlucky: set[str] = set()  # names of the workers whose consumers died
        self._exits: list[str] = []

    def run(self) -> list[str]:
        """Play it; returns the promises that were broken."""
        for _ in range(self.setting.members):
            self._start()
        for spell in self.weather.spells:
            self.world.time.call_at(spell.from_s, partial(self._strike, spell.strike))
            self.world.time.call_at(spell.until_s, partial(self.weather.turn, self.world.broker))
        self._let_time_pass(self.weather.over_s)
        self._heal()
        stuck = list(self._stuck())
        for member in list(self.world.members):
            self._stop(member, expected=(0,))
        return [*stuck, *self._exits, *self._judged()]

    def _judged(self) -> Iterator[str]:
        return broken(self.world, self._terms(), deleted=self._deleted)

    def _terms(self) -> Terms:
        setting = self.setting
        return Terms(
            topic="in",
            dead_letters="dlq" if setting.on_exhausted else None,
            keys="dlq.keys" if setting.on_exhausted == "dlq_key" else None,
            ordering=setting.ordering,
            attempts=setting.attempts,
            largest_batch=setting.batch_records,
            max_uncommitted=setting.max_uncommitted,
            finish_s=max(setting.revoke_timeout_s - _COMMIT_SHARE_S, 0.0),
            drain_timeout_s=_DRAIN_TIMEOUT_S,
            undecodable=_UNDECODABLE,
            starts_late=setting.start == "latest",
            # What a worker cannot finish while its breaker is open is repeated, though nothing has failed.
            calm=None if setting.breaker else self.weather.calm,
            spared=frozenset(
                {"DependencyUnavailable", *(("ConnectionError", "CircuitOpen") if setting.breaker else ())}
            ),
        )

    def _strike(self, strike: Strike) -> None:
        """Let happen what happens once; what lasts is the weather's."""
        self.weather.turn(self.world.broker)
        match strike.fault:
            case Fault.PRODUCE:
                self._produce(int(strike.amount))
            case Fault.JOIN if len(self.world.members) < _MOST_MEMBERS:
                self._start()
            case Fault.GROW | Fault.DELETE_RECORDS | Fault.UNAUTHORIZED:
                self._strike_topic(strike)
            case Fault.LEAVE | Fault.RESTART | Fault.CRASH | Fault.EXPEL | Fault.CONSUMER_DIES if self.world.members:
                self._strike_member(strike, self.world.members[strike.which % len(self.world.members)])

    def _strike_topic(self, strike: Strike) -> None:
        keys = self.world.broker.partitions("in")
        key = keys[strike.which % len(keys)]
        match strike.fault:
            case Fault.GROW if len(keys) < _MOST_PARTITIONS:
                self.world.broker.add_partitions("in", len(keys) + 1)
            case Fault.DELETE_RECORDS:
                self._delete_committed(key)
            case Fault.UNAUTHORIZED:
                self._refuse(key)

    def _strike_member(self, strike: Strike, member: Member) -> None:
        match strike.fault:
            case Fault.CRASH:
                self.world.kill(member)
            case Fault.EXPEL:
                self.world.broker.expel(member.sources[-1])
            case Fault.CONSUMER_DIES:
                if member.name not in self._unlucky:  # the second time the worker would end
                    self._unlucky.add(member.name)
                    member.source.report(Report(FaultKind.FATAL, None, None, "unusable"))
            case _:
                # It drains when its turn comes, not in the midst of another's.
                self._leavers.append((member, strike.fault is Fault.RESTART))

    def _produce(self, records: int) -> None:
        chance, partitions = self.weather.chance, len(self.world.broker.partitions("in"))
        for number in range(self._produced, self._produced + records):
            key = f"k{int(12 * chance('key', number))}".encode() if chance("keyed", number) < 0.9 else None
            where = crc32(key or number.to_bytes(8)) % partitions
            gap = int(51 * max(0.0, chance("gap", number) - 0.7) / 0.3)
            value = _UNDECODABLE if chance("undecodable", number) < self.setting.undecodable else None
            size = int(21 * chance("size", number))
            self.world.broker.produce("in", where, value or b"x" * size or None, key=key, gap=gap)
        self._produced += records

    def _delete_committed(self, key: TopicPartition) -> None:
        """As retention does that never overtakes the group."""
        broker, before = self.world.broker, self.world.broker.committed(key) or 0
        if before > broker.low(key):
            records = [record for record in broker.records("in") if record.partition() == key.partition]
            self._deleted += [record for record in records if record.offset() < before]
            broker.delete_records(key, before)

    def _refuse(self, key: TopicPartition) -> None:
        for member in self.world.members:
            position = member.sources[-1].positions().get(key)
            if position is not None:
                member.sources[-1].report(Report(FaultKind.UNAUTHORIZED, key, position, "not authorized"))

    def _start(self) -> None:
        weather, eager = self.weather, self.setting.eager
        self.world.start(self._handler, duration_s=weather.duration_s, eager=lambda: weather.draw("eager") < eager)

    def _stop(self, member: Member, *, expected: Sequence[int]) -> None:
        code = self.world.stop(member)
        if code == ExitCode.FATAL and member.name in self._unlucky:
            return  # its consumer died while it drained
        if code not in expected:
            self._exits.append(f"exit: {member.name} ended with {code}, expected one of {expected}")

    def _let_time_pass(self, until_s: float) -> None:
        """Let the fleet work; whoever was told to leave does so between the turns of the others."""
        time = self.world.time
        while self._leavers or time.monotonic_s() <= until_s:
            self.world.run(lambda: bool(self._leavers) or time.monotonic_s() > until_s)
            leavers, self._leavers = self._leavers, []
            for member, another_comes in leavers:
                if member in self.world.members:
                    self._stop(member, expected=(0, 3, -9))
                    if another_comes:
                        self._start()

    def _heal(self) -> None:
        """No fault lasts any more; what waits for a person gets one."""
        if self.setting.on_exhausted not in ("dlq", "dlq_key"):
            self.weather.mended = True
            for member in list(self.world.members):
                self._stop(member, expected=(0, 3))
            self._acquit()
        if not self.world.members:
            self._start()

    def _acquit(self) -> None:
        """Let an operator set the offsets of partitions that wait because workers died of a record, as it seems."""
        broker = self.world.broker
        for key in broker.partitions("in"):
            mark = broker.group_offset(key)
            read = None if mark is None else codec.decode(mark.metadata, mark.offset)
            left = None if read is None else read.progress
            if left is not None and left.suspect is not None and left.suspect.deaths + left.running >= FATAL_DEATHS:
                broker.set_committed(key, left.offset)

    def _stuck(self) -> Iterator[str]:
        """Partitions that are not committed to their end in time."""
        broker, until_s = self.world.broker, self.world.time.monotonic_s() + _RECOVERY_S
        keys = broker.partitions("in")
        self.world.run(lambda: all(map(self.world.caught_up, keys)) or self.world.time.monotonic_s() > until_s)
        for key in keys:
            if not self.world.caught_up(key):
                yield f"stuck: {key} is committed to {broker.committed(key)} of {broker.end(key)}"


class _Marked:
    """A serde that knows which records nobody can decode, as long as nobody has mended it."""

    def __init__(self, weather: Weather) -> None:
        self._weather = weather

    def decode(self, data: bytes, topic: str) -> bytes:
        if data == _UNDECODABLE and not self._weather.mended:
            raise DecodeError("marked as undecodable")
        return data

    def encode(self, value: bytes, topic: str) -> bytes:
        return value


def _handler(setting: Setting, weather: Weather) -> type[Handler[bytes]] | type[BatchHandler[bytes]]:
    letters = DeadLetter("dlq", on_exhausted=setting.on_exhausted) if setting.on_exhausted else None
    patience = Retry(attempts=setting.attempts, base_s=0.05, cap_s=setting.retry_cap_s)
    rules = Breaker("db", open_s=0.5, max_open_s=4.0)
    of_calls = setting.breaker and weather.chance("breaker of calls") < 0.5
    guard = rules if setting.breaker and not of_calls else None
    guards = (rules,) if of_calls else ()
    to_skip = (Rule.skip(LookupError),) if letters else ()

    class One(Handler[bytes]):
        topics = ("in",)
        concurrency = setting.concurrency
        value = _Marked(weather)
        ordering = setting.ordering
        dead_letter = letters
        rules = to_skip
        retry = patience
        breaker = guard
        dependencies = guards

        def open(self, context: Context) -> None:
            self.guarded = context.dependency("db") if of_calls else nullcontext()

        def handle(self, record: Record[bytes]) -> None:
            with self.guarded:
                weather.befall(record)

    class Many(BatchHandler[bytes]):
        topics = ("in",)
        concurrency = setting.concurrency
        value = _Marked(weather)
        ordering = setting.ordering
        dead_letter = letters
        rules = to_skip
        retry = patience
        breaker = guard
        dependencies = guards
        batch = Batch(max_records=max(setting.batch_records, 1), max_wait_s=setting.batch_wait_s)

        def open(self, context: Context) -> None:
            self.guarded = context.dependency("db") if of_calls else nullcontext()

        def handle(self, records: Records[bytes]) -> None:
            for index, record in enumerate(records):
                try:
                    with self.guarded:
                        weather.befall(record)
                except (PoisonError, LookupError, ConnectionError, DependencyUnavailable, CircuitOpen) as error:
                    how = weather.chance("how", record.partition, record.offset)
                    if how < 0.5:
                        raise
                    raise BatchFailed(index if how < 0.95 else len(records), error) from error

    return Many if setting.batch_records else One


def _config(setting: Setting) -> Config:
    return Config(
        kafka=KafkaConfig(group="sim", start=setting.start),
        commit=CommitConfig(
            interval_s=setting.commit_interval_s, timeout_s=COMMIT_TIMEOUT_S, max_uncommitted=setting.max_uncommitted
        ),
        flow=FlowConfig(max_inflight=setting.max_inflight, pause_after_s=0.1, max_slice=setting.max_slice),
        lifecycle=LifecycleConfig(revoke_timeout_s=setting.revoke_timeout_s, drain_timeout_s=_DRAIN_TIMEOUT_S),
        dead_letters=DeadLetterConfig(
            budget=_MANY if setting.on_exhausted == "dlq_key" else setting.letter_budget,
            seconds_per_token=0.5,
            max_unacknowledged=setting.max_unacknowledged_letters,
            retry_max_s=LETTER_PAUSE_S,
        ),
    )


def main(arguments: Sequence[str]) -> int:
    """Play what the command line says; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="scenarios.simulation")
    parser.add_argument("seed", type=int, nargs="?", help="play the schedule of this seed")
    parser.add_argument("--schedule", type=Path, metavar="FILE", help="play the schedule in this file")
    options = parser.parse_args(arguments)
    if (options.seed is None) == (options.schedule is None):
        parser.error("expected a seed or --schedule FILE")
    given = options.schedule
    schedule = draw_schedule(options.seed) if given is None else parse_schedule(given.read_text("utf-8"))
    sys.stdout.write(schedule.text())
    sys.stdout.flush()
    verdict = broken_promises(schedule) or ["all promises are kept"]
    sys.stderr.write("".join(f"{sentence}\n" for sentence in verdict))
    return int(verdict != ["all promises are kept"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
