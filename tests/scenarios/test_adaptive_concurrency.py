"""Handlers that find out how many calls at once what they need can take."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, ClassVar

import pytest
from scenarios.oracle import violations
from scenarios.worlds import make_world, produce

from streamworker import Adaptive, ConfigurationError, DeadLetter, Handler, Ordering, Retry
from streamworker.config import FlowConfig
from streamworker.declaration import declaration
from streamworker.resilience.limits import AdaptiveLimit

if TYPE_CHECKING:
    from streamworker import Record
    from streamworker.testing.virtual_world import Member, VirtualWorld
    from streamworker.work import Slice

CALL_S, TIMEOUT_S = 0.02, 0.2


class Service:
    """Answers as many calls at once as it can; those beyond time out."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.member: Member | None = None
        self.doomed: set[int] = set()
        self.asked: list[int] = []

    def seconds(self, slice_: Slice) -> float:
        """How long a call takes that begins now."""
        assert self.member is not None
        running = [one.messages[0].offset() for one in self.member.worker.running]
        self.asked.append(len(running))
        offset = slice_.messages[0].offset()
        if len(running) - len(self.doomed.intersection(running)) > self.places:
            self.doomed.add(offset)
            return TIMEOUT_S
        self.doomed.discard(offset)
        return CALL_S

    def answer(self, offset: int) -> None:
        """What the call for the record at `offset` gets."""
        if offset in self.doomed:
            raise TimeoutError


SERVICE = Service(8)


class Steady(Handler[bytes]):
    topics: ClassVar[tuple[str, ...]] = ("in",)
    ordering = Ordering.UNORDERED
    concurrency = 32
    retry = Retry(attempts=1000, base_s=0.01, cap_s=0.01)
    dead_letter = DeadLetter("dlq")

    def handle(self, record: Record[bytes]) -> None:
        SERVICE.answer(record.offset)


class Adapting(Steady):
    adaptive = Adaptive()


def run(handler: type[Steady], records: int, places: int = 8) -> tuple[VirtualWorld, Member]:
    """Handle so many records one by one, as fast as the service lets them."""
    SERVICE.__init__(places)  # type: ignore[misc]  # handlers are made by the worker, so they find it here
    world = make_world(flow=FlowConfig(max_slice=1))
    produce(world, *[b"ok"] * records)
    SERVICE.member = world.start(handler, duration_s=SERVICE.seconds)
    return world, SERVICE.member


def failures(member: Member) -> int:
    return len(member.story.failures)


def test_a_handler_that_adapts_overloads_what_it_needs_far_less() -> None:
    steady_world, steady = run(Steady, 9000)
    steady_world.run_for(20.0)
    steady_done = sum(effect.ok for effect in steady_world.effects)
    steady_failed = failures(steady)

    world, member = run(Adapting, 9000)
    world.run_for(20.0)
    done, at_once = sum(effect.ok for effect in world.effects), SERVICE.asked[len(SERVICE.asked) // 10 :]

    print(f"32 threads: {steady_done} handled, {steady_failed} failed")
    print(f"adapting: {done} handled, {failures(member)} failed, {mean(at_once):.1f} at once")
    assert done > 0.9 * steady_done
    assert failures(member) < steady_failed / 4
    assert 7 <= mean(at_once) <= 10
    assert list(violations(world, "in", "dlq", ordered=False)) == []


def test_it_uses_all_threads_again_when_the_service_can_take_them() -> None:
    world, member = run(Adapting, 10_000)
    world.run_for(10.0)
    limited = member.worker.gatekeeper.limits()["Adapting"]

    SERVICE.places = 100
    world.run(lambda: member.worker.gatekeeper.limits()["Adapting"] == 32, timeout_s=20.0)

    assert limited <= 16


def test_a_limit_that_holds_nothing_back_does_not_grow() -> None:
    limit = AdaptiveLimit(Adaptive(), 10)
    for _ in range(10):
        limit.ended(0, TimeoutError())
    shrunk = limit.calls

    limit.saturated = False
    limit.ended(1000, None)
    quiet = limit.calls
    limit.saturated = True
    limit.ended(shrunk, None)

    assert (shrunk, quiet, limit.calls) == (3, 3, 4)


def test_it_keeps_within_its_bounds_and_bad_records_do_not_count() -> None:
    limit = AdaptiveLimit(Adaptive(least=2), 4)
    limit.saturated = True

    limit.ended(0, ValueError())
    limit.ended(100, None)
    most = limit.calls
    for _ in range(100):
        limit.ended(0, ConnectionError())

    assert (most, limit.calls) == (4, 2)


def test_the_least_must_not_be_more_than_there_are_threads() -> None:
    class Wrong(Adapting):
        concurrency = 2
        adaptive = Adaptive(least=3)

    with pytest.raises(ConfigurationError, match=r"Wrong.adaptive: expected least to be at most concurrency \(2\)"):
        declaration(Wrong)


@pytest.mark.parametrize("wrong", [{"least": 0}, {"backoff": 1.0}, {"backoff": 0.0}])
def test_what_never_adapts_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"^Adaptive\.\w+: expected"):
        Adaptive(**wrong)  # type: ignore[arg-type]  # on purpose
