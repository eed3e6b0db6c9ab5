"""Reads that do without what is away: records go on and say so, and what is in force is switched while they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest
from scenarios.oracle import violations
from scenarios.services import Service
from scenarios.worlds import calls, handled, make_world, produce

from streamworker import Breaker, Config, ConfigurationError, Context, DeadLetter, Handler, Ordering, Read, Retry
from streamworker.config import KafkaConfig
from streamworker.resilience.fallback import Degradable, DegradingReader
from streamworker.testing.virtual_world import VirtualWorld

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker import Fallback, Reading, Record


class Places(Service):
    """Tells the place of a key, and keeps what handlers made of it."""

    error = TimeoutError

    def renew(self) -> None:
        super().renew()
        self.readings: list[Reading[str]] = []

    def find(self, key: bytes | None) -> str:
        self.call()
        return f"place of {key!r}"


PLACES = Places()


@pytest.fixture(autouse=True)
def places() -> Places:
    PLACES.renew()
    return PLACES


class Locating(Handler[bytes]):
    """Waits for the service unless the configuration says otherwise."""

    topics: ClassVar[Sequence[str]] = ("in",)
    ordering = Ordering.KEY
    concurrency = 4
    dead_letter = DeadLetter("dlq")
    retry = Retry(attempts=3, base_s=0.1, cap_s=1.0)
    dependencies = (Breaker("geo", jitter=0.0),)
    reads: ClassVar[Sequence[Read]] = (Read("place", ("fail_fast", "cached", "default"), dependency="geo"),)

    def open(self, context: Context) -> None:
        self.place = context.read("place", PLACES.find, default="nowhere")

    def handle(self, record: Record[bytes]) -> None:
        PLACES.readings.append(self.place(record.raw_key))


class Degrading(Locating):
    """Takes what it had, or a default."""

    reads = (Read("place", ("cached", "default"), dependency="geo", max_stale_s=60),)


def fill(world: VirtualWorld, keys: int) -> None:
    for number in range(keys):
        produce(world, b"x", key=b"key %d" % number)


def test_an_outage_is_worked_through_with_what_stands_in() -> None:
    """Edge case 81. Nothing waits, and the breaker spares the service all the same."""
    world = make_world()
    member = world.start(Degrading)
    fill(world, 10)
    world.run_to_end("in")
    PLACES.away = True
    for _ in range(3):  # the third time what was kept is too old
        fill(world, 40)
        world.run_to_end("in", timeout_s=3)
        world.run_for(30)

    assert member.story.degraded_reads == {("place", "cached"): 20, ("place", "default"): 100}
    # Those in flight when it went away, and a trial after 5, 10, 20 and 40 s if a record came then.
    assert PLACES.in_vain <= 3 + Locating.concurrency + 4
    degraded = [one for one in PLACES.readings if one.degraded]
    assert {headers for one in degraded for headers in one.headers} == {
        ("sw-degraded", b"place=cached"),
        ("sw-degraded", b"place=default"),
    }
    PLACES.away = False
    world.run_for(60)
    fill(world, 10)
    world.run_to_end("in")
    assert [one.degraded for one in PLACES.readings[-10:]] == [None] * 10
    assert len(world.broker.records("dlq")) == 0


def test_what_waits_goes_on_once_the_configuration_lets_it_do_without() -> None:
    world = make_world()
    member = world.start(Locating)
    PLACES.away = True
    fill(world, 50)
    world.run_for(3)
    waiting = list(handled(world))

    member.worker.switch({"place": "default"})
    world.run_to_end("in", timeout_s=2)

    assert waiting == []
    assert member.story.degraded_reads == {("place", "default"): 50}
    assert {effect.attempt for effect in world.effects} == {1}
    assert not list(violations(world, "in", "dlq"))


def test_a_switch_that_nobody_knows_leaves_all_as_it_is() -> None:
    world = make_world()
    member = world.start(Locating)
    PLACES.away = True
    fill(world, 5)
    world.run_for(2)
    called = len(calls(world))

    with pytest.raises(ConfigurationError, match=r"degradation\.plaze: no handler has such a read"):
        member.worker.switch({"plaze": "default"})
    world.run_for(1)

    assert len(calls(world)) == called
    assert not member.story.degraded_reads


def test_the_configuration_is_in_force_from_the_start() -> None:
    config = Config(kafka=KafkaConfig(group="test"), degradation={"place": "default"})
    world = VirtualWorld({"in": 1, "dlq": 1}, config=config)
    world.start(Locating)
    PLACES.away = True
    fill(world, 5)
    world.run_to_end("in", timeout_s=2)

    assert {one.value for one in PLACES.readings} == {"nowhere"}


def test_a_read_that_nobody_declares_is_refused_before_anything_starts() -> None:
    config = Config(kafka=KafkaConfig(group="test"), degradation={"plaze": "default"})
    world = VirtualWorld({"in": 1, "dlq": 1}, config=config)

    with pytest.raises(ConfigurationError, match="did you mean 'place'"):
        world.start(Locating)


def plant_defaults_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in for an answer is kept as one."""
    right = DegradingReader._stand_in

    def keep(self: DegradingReader[bytes, str], fallback: Fallback, key: bytes) -> Reading[str] | None:
        found = right(self, fallback, key)
        if found is not None:
            self._operation.answered(key, found.value)
        return found

    monkeypatch.setattr(DegradingReader, "_stand_in", keep)


def plant_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads degrade in silence."""
    monkeypatch.setattr(Degradable, "count", lambda _self, _fallback: None)


@pytest.mark.parametrize("plant", [plant_defaults_are_kept, plant_nothing_is_counted])
def test_a_planted_bug_turns_its_test_red(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """F-87."""
    plant(monkeypatch)

    with pytest.raises(AssertionError):
        test_an_outage_is_worked_through_with_what_stands_in()
