"""A simulated fleet whose handler stores what it handles in a sink that keeps marks, and what must hold of the sink.

The faults are those of `simulation.py`. Beside them writes fail, before or after their effect, the number of lanes
changes from worker to worker, and records expire. With `tests` on the path, `python -m scenarios.storing SEED` plays
the run of a seed.
"""

from __future__ import annotations

import random
import sys
import traceback
from collections import Counter, defaultdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from scenarios.oracle import given_up
from scenarios.schedule import Fault, Strike, draw_schedule
from scenarios.simulation import Simulation

from streamworker import BatchHandler, Handler, Ordering, PoisonError, TopicPartition
from streamworker.errors import RowFailed
from streamworker.testing import FakeSink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scenarios.schedule import Schedule
    from scenarios.weather import Weather

    from streamworker import Record, Records
    from streamworker.interfaces import Row, Written
    from streamworker.record import Message
    from streamworker.work import Place

    Line = tuple[TopicPartition, bytes | None]


def draw_storing(seed: int) -> Schedule:
    """The run of a seed, in a setting in which records can be stored and no partition waits for a person."""
    schedule = draw_schedule(seed)
    setting, draw = schedule.setting, random.Random(seed)
    over_s = max(strike.at_s for strike in schedule.strikes)
    more = [Strike(at_s=round(draw.uniform(0.0, over_s), 4), fault=Fault.CRASH, which=draw.randrange(12)) for _ in "ab"]
    more += [Strike(at_s=one.at_s, fault=Fault.JOIN) for one in more]
    if draw.random() < 0.5:
        more.append(Strike(at_s=0.0, fault=Fault.LETTERS_SLOW, for_s=over_s, amount=draw.choice([0.5, 5.0])))
    return msgspec.structs.replace(schedule, strikes=(*schedule.strikes, *more)).set(
        ordering=setting.ordering if setting.ordering is not Ordering.UNORDERED else Ordering.KEY,
        on_exhausted=setting.on_exhausted if setting.on_exhausted in ("dlq", "dlq_key") else "dlq",
        start="earliest",
        poison=draw.choice([0.0, 0.05]),
        undecodable=draw.choice([0.0, 0.0, 0.05]),
        max_inflight=draw.choice([20, 200]),
        concurrency=draw.choice([1, 4, 4]),
    )


def broken_promises(schedule: Schedule, kind: type[Storing] | None = None) -> list[str]:
    """What a run broke; a worker that crashed or stands still has broken one, too."""
    try:
        return (kind or Storing)(schedule).run()
    except Exception as error:  # noqa: BLE001 - the border to the engine that is judged
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return [f"crashed: {error!r} at {Path(frame.filename).name}:{frame.lineno}"]


class _Store(FakeSink):
    """Fails now and then, and remembers whom it has told that its effect was there, and was not."""

    def __init__(self, weather: Weather) -> None:
        super().__init__("store", marks=True)
        self._weather = weather
        self._trouble = weather.chance("sink") < 0.7
        self.denied: set[tuple[TopicPartition, int]] = set()

    def write(self, place: Place, rows: Sequence[Row]) -> Written:
        fate = self._weather.draw("write") if self._trouble and not self._weather.over else 1.0
        if fate < 0.05:
            raise ConnectionError("the store is away")
        if fate < 0.1:
            index = int(fate * 1e6) % len(rows)
            if self._weather.chance("row", place.partition, rows[index].offset) < 0.5:
                self.refuse(rows[index].offset, PoisonError("too long") if fate < 0.06 else ConnectionError("locked"))
        try:
            written = super().write(place, rows)
        except RowFailed as failed:
            self._told(place, rows, failed.written)
            raise
        finally:
            self._refusals.clear()
        self._told(place, rows, written)
        if 0.1 <= fate < 0.15:
            raise ConnectionError("the answer was lost")
        return written

    def _told(self, place: Place, rows: Sequence[Row], written: object) -> None:
        there = {(one.place.partition, one.row.offset) for one in self.effects}
        repeated = [(place.partition, rows[index].offset) for index in getattr(written, "repeated", ())]
        self.denied.update(one for one in repeated if one not in there)


class Storing(Simulation):
    """The simulation with a sink, judged by what is in it."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule)
        self.sink = _Store(self.weather)
        self._starts = count()
        self._max_age_s = 3.0 if self.weather.chance("expires") < 0.2 else None
        self._is_async = self.weather.chance("async") < 0.15

    def _start(self) -> None:
        chance, number = self.weather.chance, next(self._starts)
        lanes = 1 + int(6 * chance("lanes", number)) if chance("lanes change") < 0.7 else 4
        stores = _storing(self._handler, self.sink, self.weather, is_async=self._is_async)
        stores.max_age_s = self._max_age_s
        if self.setting.ordering is Ordering.KEY:
            stores.lanes = lanes
        self._handler, handler = stores, self._handler
        super()._start()
        self._handler = handler

    def _heal(self) -> None:
        """At times what was bad is good for the workers that come next, and the others die before they are through."""
        if self.weather.chance("mended") < 0.5:
            self.weather.mended = True
            for member in list(self.world.members):
                self.world.kill(member)
        super()._heal()

    def _judged(self) -> Iterator[str]:
        """Each record that came to no other end has one effect, in order, and no partition stopped for nothing."""
        places = [(effect.place.partition, effect.row.offset) for effect in self.sink.effects]
        lettered, given_up_ = given_up(self.world, self._terms())
        log = {(_of(one), one.offset()): one for one in (*self._deleted, *self.world.broker.records("in"))}
        yield from (f"twice: {place} has {times} effects" for place, times in Counter(places).items() if times > 1)
        missing = log.keys() - {*places, *lettered}
        if len(missing) > sum(records for member in self.world.ever for _, _, records, _ in member.story.expiries):
            yield f"lost: {sorted(missing)} have no effect"
        yield from (f"denied: {place} was told to be a repeat" for place in self.sink.denied - lettered)
        yield from self._disorder(given_up_)
        yield from self._rewinds()

    def _disorder(self, otherwise: set[tuple[TopicPartition, int]]) -> Iterator[str]:
        reached: defaultdict[Line, int] = defaultdict(lambda: -1)
        for effect in self.sink.effects:
            partition, row = effect.place.partition, effect.row
            whole = self.setting.ordering is Ordering.PARTITION
            if (partition, row.offset) in otherwise or (row.key is None and not whole):
                continue
            line = partition, None if whole else row.key
            if row.offset < reached[line]:
                yield f"disorder: {partition}@{row.offset} of {line} after {reached[line]}"
            reached[line] = max(reached[line], row.offset)

    def _rewinds(self) -> Iterator[str]:
        resent = {commit.partition for commit in self.world.broker.commits if commit.again}
        for member in self.world.ever:
            for partition, reason, detail in member.story.stops:
                if reason == "foreign_rewind" and partition not in resent:
                    yield f"rewind: {partition} {detail}"


def _of(message: Message) -> TopicPartition:
    return TopicPartition(message.topic(), message.partition())


def _storing(
    handler: type[Handler[bytes]] | type[BatchHandler[bytes]], into: FakeSink, weather: Weather, *, is_async: bool
) -> type[Handler[bytes]] | type[BatchHandler[bytes]]:
    if issubclass(handler, BatchHandler):

        class Many(handler):  # type: ignore[misc, valid-type]  # a class that is made
            sink = into

            def handle(self, records: Records[bytes]) -> object:
                super().handle(records)
                return [record.value for record in records]

        return Many

    class One(handler):  # type: ignore[misc, valid-type]  # a class that is made
        sink = into

        def handle(self, record: Record[bytes]) -> object:
            super().handle(record)
            return record.value

    class Awaited(handler):  # type: ignore[misc, valid-type]  # a class that is made
        sink = into

        async def handle(self, record: Record[bytes]) -> object:
            with self.guarded:
                weather.befall(record)
            return record.value

    return Awaited if is_async else One


if __name__ == "__main__":
    verdict = broken_promises(draw_storing(int(sys.argv[1])))
    print("\n".join(verdict) or "all promises are kept")
    sys.exit(bool(verdict))
