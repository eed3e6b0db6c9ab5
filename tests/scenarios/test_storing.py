"""Whole fleets with a sink that keeps marks: under random faults each record has its effect once and in key order."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest
from scenarios.storing import broken_promises, draw_storing
from scenarios.worlds import Obedient, make_world, produce

from streamworker import Retry
from streamworker.config import CommitConfig, DeadLetterConfig
from streamworker.places import Places
from streamworker.processing import effects
from streamworker.testing import FakeSink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker import Record
    from streamworker.partition import Partition
    from streamworker.scheduling.lane import LaneSlice
    from streamworker.work import Place

_SEEDS = 110


@pytest.mark.parametrize("storing", range(1, 1 + _SEEDS))
def test_each_record_has_its_effect_once_and_in_order_whatever_strikes(storing: int) -> None:
    broken = broken_promises(draw_storing(storing))

    assert not broken, "\n".join([*broken[:5], f"replay: PYTHONPATH=.:tests python -m scenarios.storing {storing}"])


def _without(leaves_out: str) -> Callable[[Partition, LaneSlice], list[int]]:
    """`Places._open_below` that forgets something."""

    def open_below(partition: Partition, slice_: LaneSlice) -> list[int]:
        last = slice_.messages[-1].offset()
        letters = [] if leaves_out == "letters" else [one for one in partition.leaving if one < last]
        waiting = [] if leaves_out == "waiting" else slice_.lane.open_below(last)
        return sorted({*waiting, *letters})

    return open_below


@pytest.mark.parametrize(("leaves_out", "seeds"), [("letters", range(1, 41)), ("waiting", range(1, 11))])
def test_an_open_record_that_a_write_is_not_told_of_is_found(
    monkeypatch: pytest.MonkeyPatch, leaves_out: str, seeds: Sequence[int]
) -> None:
    monkeypatch.setattr(Places, "_open_below", staticmethod(_without(leaves_out)))

    assert any("denied" in str(broken_promises(draw_storing(seed))) for seed in seeds)


def test_a_rejected_record_that_a_write_is_not_told_of_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "replace", lambda place, **_: place)

    assert any("denied" in str(broken_promises(draw_storing(seed))) for seed in range(48, 61))


@pytest.mark.parametrize("upto", ["next_offset", "committable"])
def test_a_place_that_says_too_much_is_done_is_found(monkeypatch: pytest.MonkeyPatch, upto: str) -> None:
    sound = Places.of

    def of(self: Places, slice_: LaneSlice) -> Place:
        tracker = self._partitions[slice_.ownership.partition].tracker
        return replace(sound(self, slice_), done_below=getattr(tracker, upto))

    monkeypatch.setattr(Places, "of", of)

    assert any("rewind" in str(broken_promises(draw_storing(seed))) for seed in range(1, 11))


def test_lanes_that_are_miscounted_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = Places.of
    monkeypatch.setattr(Places, "of", lambda self, slice_: replace(sound(self, slice_), lanes=4))

    assert any("twice" in str(broken_promises(draw_storing(seed))) for seed in range(1, 11))


def test_so_many_open_records_that_hardly_more_fits_beside_the_offset_cost_no_effect() -> None:
    """Each is a hole of its lane's mark, and what is done beyond the offset may be unknown after a crash."""
    sink, chance = FakeSink(marks=True), Random(1)
    world = make_world(
        commit=CommitConfig(max_uncommitted=100_000),
        dead_letters=DeadLetterConfig(budget=10_000, seconds_per_token=0.01),
    )
    bad = {number for number in range(4_000) if chance.random() < 0.35}
    for number in range(4_000):
        produce(world, b"broken" if number in bad else b"%d" % number, key=b"%d" % number)

    class Stores(Obedient):
        retry = Retry(attempts=2, base_s=20.0, cap_s=40.0)
        ordering = "key"
        concurrency, lanes = 16, 64

        def handle(self, record: Record[bytes]) -> object:
            super().handle(record)
            return record.value

    Stores.sink = sink
    first = world.start(Stores)
    world.run_for(15)
    before = len(sink.values)
    world.kill(first)
    world.start(Stores)
    world.run_to_end("in")

    assert before > 1_000
    assert len(sink.values) == len(set(sink.values)) == 4_000 - len(bad)
