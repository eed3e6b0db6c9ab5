"""Which record waits for which, how often a record is tried, and what its failure means for others."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from scenarios.oracle import violations
from scenarios.worlds import (
    IN,
    OTHER,
    Obedient,
    calls,
    commits,
    handled,
    headers_of,
    letters_from,
    make_world,
    produce,
    steady,
)

from streamworker import DeadLetter, FatalError, Ordering, PoisonError, RetryableError, Rule
from streamworker.options import Retry

if TYPE_CHECKING:
    from streamworker import Record
    from streamworker.handler import Call


class ByKey(Obedient):
    ordering = Ordering.KEY


def test_calls_of_a_key_start_in_offset_order_with_all_their_retries() -> None:
    """Edge case 38. Every other record fails once or twice."""
    world = make_world()
    for number in range(200):
        produce(world, b"flaky:%d" % (number % 3), key=b"key %d" % (number % 5))

    world.start(ByKey)
    world.run_to_end("in")

    assert not list(violations(world, "in", "dlq"))
    for key in {effect.key for effect in world.effects}:
        offsets = [effect.offset for effect in world.effects if effect.key == key]
        assert all(earlier <= later for earlier, later in pairwise(offsets))


def test_a_retry_delays_only_its_own_key() -> None:
    """Edge case 39. The others are handled long before it is due."""
    world = make_world()

    class Patient(ByKey):
        retry = Retry(attempts=4, wait=lambda _state: 60.0)

    produce(world, b"flaky:1", b"fine", key=b"slow")
    produce(world, *[b"fine"] * 50, key=b"quick")

    world.start(Patient)
    world.run(lambda: len(handled(world)) == 50, timeout_s=5)
    world.run_to_end("in")

    assert handled(world)[-2:] == [0, 1]


def test_a_retry_delays_its_partition_and_no_other() -> None:
    """Edge case 39. With order by partition."""
    world = make_world(2)

    class Patient(Obedient):
        retry = Retry(attempts=4, wait=lambda _state: 60.0)

    produce(world, b"flaky:1", b"fine")
    produce(world, *[b"fine"] * 50, partition=1)

    world.start(Patient)
    world.run(lambda: len(handled(world, OTHER)) == 50, timeout_s=5)
    waiting = calls(world, IN)
    world.run_to_end("in")

    assert waiting == [0]
    assert calls(world, IN) == [0, 0, 1]


def test_nobody_waits_for_a_retry_without_order() -> None:
    """Edge case 39."""
    world = make_world()

    class Patient(Obedient):
        ordering = Ordering.UNORDERED
        retry = Retry(attempts=4, wait=lambda _state: 60.0)

    produce(world, b"flaky:1", *[b"fine"] * 50, key=b"same")

    world.start(Patient)
    world.run(lambda: len(handled(world)) == 50, timeout_s=5)


@pytest.mark.parametrize("ordering", list(Ordering))
def test_two_failing_records_of_a_partition_both_reach_the_dead_letters(ordering: Ordering) -> None:
    """Edge case 40. Neither is skipped in the other's shadow."""
    world = make_world()
    produce(world, b"broken", key=b"a")
    produce(world, b"fine", key=b"b")
    produce(world, b"broken", key=b"c")
    kind = type("Ordered", (Obedient,), {"ordering": ordering})

    world.start(kind)
    world.run_to_end("in")

    assert letters_from(world) == [b"broken", b"broken"]
    assert {headers_of(world, number)["sw-origin-offset"] for number in (0, 1)} == {"0", "2"}


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_a_record_is_called_exactly_as_often_as_configured(attempts: int) -> None:
    """Edge case 41. Not once more, and others are not called again for it."""
    world = make_world()
    produce(world, *[b"fine"] * 5, b"broken", b"broken", b"broken", *[b"fine"] * 5)
    kind = type("Counted", (Obedient,), {"retry": Retry(attempts=attempts)})

    world.start(kind)
    world.run_to_end("in")

    assert len(calls(world)) == 10 + 3 * attempts
    assert [effect.attempt for effect in world.effects if effect.offset == 5] == list(range(1, attempts + 1))
    assert headers_of(world, 0)["sw-attempts"] == str(attempts)


def test_a_back_off_never_fires_early_and_hardly_late() -> None:
    """Edge case 43. Several retries of different length at once."""
    world = make_world()

    class Patient(ByKey):
        retry = Retry(attempts=4, wait=lambda state: 3.0 * state.attempt_number)

    for number in range(20):
        produce(world, b"flaky:3", key=b"%d" % number)

    world.start(Patient)
    world.run_to_end("in")

    for offset in range(20):
        starts = [effect.at_s for effect in world.effects if effect.offset == offset]
        waits = [later - earlier for earlier, later in pairwise(starts)]
        assert all(due <= wait < due + 0.5 for due, wait in zip((3, 6, 9), waits, strict=True))


def test_a_server_that_says_when_to_come_back_is_obeyed() -> None:
    """Edge case 43."""
    world = make_world()

    class Throttled(Obedient):
        def handle(self, record: Record[bytes]) -> None:
            if record.attempt == 1:
                raise RetryableError("429", retry_after_s=42)

    produce(world, b"fine")
    world.start(Throttled)
    world.run_to_end("in")

    first, second = world.effects
    assert 42 <= second.at_s - first.at_s < 43


def test_the_first_record_of_a_partition_may_fail() -> None:
    """Edge case 44. Nothing is done yet that a commit could name."""
    world = make_world()
    produce(world, b"broken", b"flaky:2")

    world.start(Obedient)
    world.run_to_end("in")

    assert handled(world) == [1]
    assert letters_from(world) == [b"broken"]


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "as a cause"])
def test_a_poisonous_record_is_called_once(*, wrapped: bool) -> None:
    """Edge case 45. Also when the application wraps its errors."""
    world = make_world()

    class Wrapping(Obedient):
        def handle(self, record: Record[bytes]) -> None:
            if wrapped:
                raise RuntimeError("while storing") from PoisonError("no such customer")
            raise PoisonError("no such customer")

    produce(world, b"fine")
    world.start(Wrapping)
    world.run_to_end("in")

    assert calls(world) == [0]
    assert headers_of(world, 0)["sw-reason"] == "poison"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_the_end_of_a_process_is_no_records_fault(error: BaseException) -> None:
    """Edge case 46. No dead letter, no commit past it, whatever the rules say; the worker stops."""
    world = make_world()

    class Dying(Obedient):
        rules = (Rule.dead_letter(BaseException), Rule.skip(BaseException))

        def handle(self, record: Record[bytes]) -> None:
            if record.value == b"deadly":
                raise error

    produce(world, b"fine", b"deadly", b"fine")
    member = world.start(Dying)
    world.run(lambda: member.worker.stopping is not None)
    exit_code = world.stop(member)

    assert exit_code == 1
    assert letters_from(world) == []
    assert commits(world)[-1] == 1


def test_a_retry_that_succeeds_says_nothing_of_other_records() -> None:
    """Edge case 48. Each record has a count of its own."""
    world = make_world()
    produce(world, b"flaky:3", key=b"a")
    produce(world, b"broken", key=b"b")
    produce(world, b"flaky:3", key=b"c")

    world.start(ByKey)
    world.run_to_end("in")

    attempts = [[one.attempt for one in world.effects if one.offset == offset] for offset in range(3)]
    assert attempts == [[1, 2, 3, 4]] * 3
    assert letters_from(world) == [b"broken"]


def test_successes_elsewhere_do_not_prolong_a_failing_record() -> None:
    """Edge case 49. A healthy partition with a steady flow beside a failing one."""
    world = make_world(2)
    produce(world, b"broken")
    produce(world, *[b"fine"] * 2000, partition=1)

    world.start(Obedient)
    world.run_to_end("in")

    assert calls(world, IN) == [0, 0, 0, 0]


def test_a_record_that_is_to_block_keeps_its_partition_waiting_for_a_person() -> None:
    """Edge case 39. Its partition stands still after the last attempt, the others go on, nothing is dead-lettered."""
    world = make_world(2)

    class Blocking(Obedient):
        dead_letter = DeadLetter("dlq", on_exhausted="block")

    produce(world, b"fine", b"broken", b"fine")
    produce(world, *[b"fine"] * 5, partition=1)
    member = world.start(Blocking)
    world.run(lambda: bool(member.story.stops))
    world.run_for(3600)

    assert calls(world, IN) == [0, 1, 1, 1, 1]
    assert [(key, reason) for key, reason, _ in member.story.stops] == [(IN, "blocked")]
    assert letters_from(world) == []
    assert commits(world, IN)[-1] == 1
    assert world.caught_up(OTHER)


def test_a_blocked_record_is_tried_anew_by_whoever_owns_it_next() -> None:
    """Edge case 26. A restart after the mistake was mended is all it takes."""
    world = make_world()

    class Blocking(Obedient):
        dead_letter = DeadLetter("dlq", on_exhausted="block")

    class Mended(Blocking):
        def handle(self, record: Record[bytes]) -> None:
            """Handle everything."""

    produce(world, b"broken", b"fine")
    member = world.start(Blocking)
    world.run(lambda: bool(member.story.stops))
    exit_code = world.stop(member)

    world.start(Mended)
    world.run_to_end("in")

    assert exit_code == 0
    assert handled(world) == [0, 1]


def test_a_failure_without_dead_letters_stops_its_partition() -> None:
    """Edge case 40. There is nowhere to put the record, and it may not be skipped."""
    world = make_world(2)

    class Bare(Obedient):
        dead_letter = None

    produce(world, b"broken", b"fine")
    produce(world, b"fine", partition=1)
    member = world.start(Bare)
    world.run(lambda: bool(member.story.stops))
    world.run_for(60)

    assert member.story.stops[0][1] == "no_dead_letter"
    assert not world.broker.committed(IN)
    assert world.caught_up(OTHER)


def test_the_first_rule_that_matches_decides_and_predicates_may_look_inside() -> None:
    """Edge case 45. A class, a predicate, a predicate that itself fails, and a skip with its audit record."""
    world = make_world()

    def is_gone(error: BaseException) -> bool:
        return "gone" in str(error)

    def careless(error: BaseException) -> bool:
        return bool(error.args[7])

    class Ruled(Obedient):
        rules = (
            Rule.stop(careless),
            Rule.skip(is_gone),
            Rule.dead_letter((KeyError, LookupError)),
            Rule.retry(PoisonError),
        )

        def handle(self, record: Record[bytes]) -> None:
            match record.value:
                case b"gone":
                    raise ValueError("customer is gone")
                case b"missing":
                    raise KeyError("customer")
                case b"poison":
                    raise PoisonError("tried again all the same")

    produce(world, b"gone", b"missing", b"poison", b"fine")
    world.start(Ruled)
    world.run_to_end("in")

    reasons = [headers_of(world, number)["sw-reason"] for number in range(3)]
    assert reasons == ["skipped", "rule", "exhausted"]
    assert calls(world) == [0, 1, 2, 2, 2, 2, 3]
    assert letters_from(world)[0] is None


def test_a_rule_can_stop_the_worker() -> None:
    """Edge case 93. The record is neither done nor dead-lettered."""
    world = make_world()

    class Strict(Obedient):
        rules = (Rule.stop(ConnectionError),)

    produce(world, b"fine", b"broken", b"fine")
    member = world.start(Strict)
    world.run(lambda: member.worker.stopping is not None)

    assert world.stop(member) == 1
    assert world.broker.committed(IN) == 1


def test_a_fatal_error_stops_the_worker_after_committing_what_is_done() -> None:
    """Edge case 93. Exit code 1; what other partitions were doing is finished."""
    world = make_world(2)

    class Fatal(Obedient):
        def handle(self, record: Record[bytes]) -> None:
            if record.value == b"fatal":
                raise FatalError("no database of that name")

    produce(world, b"fine", b"fatal", b"fine")
    produce(world, *[b"fine"] * 10, partition=1)
    member = world.start(Fatal, duration_s=steady(0.05))
    world.run(lambda: member.worker.stopping is not None)

    assert world.stop(member) == 1
    assert world.broker.committed(IN) == 1
    assert calls(world, IN) == [0, 1]
    assert not [one for one in handled(world, OTHER) if one >= (world.broker.committed(OTHER) or 0)]


def test_middleware_wraps_the_call_the_first_outermost() -> None:
    """Edge case 38. Per record, retries included."""
    world = make_world()
    seen: list[str] = []

    def noting(name: str) -> object:
        def wrap(call: Call) -> Call:
            def noted(argument: object) -> object:
                seen.append(f"{name} in")
                try:
                    return call(argument)
                finally:
                    seen.append(f"{name} out")

            return noted

        return wrap

    kind = type("Wrapped", (Obedient,), {"middleware": (noting("outer"), noting("inner"))})
    produce(world, b"flaky:1")
    world.start(kind)
    world.run_to_end("in")

    assert seen == ["outer in", "inner in", "inner out", "outer out"] * 2


def test_null_keys_wait_for_nobody_when_order_is_by_key() -> None:
    """Edge case 39. A failing record without a key holds no other one."""
    world = make_world()

    class Patient(ByKey):
        retry = Retry(attempts=4, wait=lambda _state: 60.0)

    produce(world, b"flaky:1", *[b"fine"] * 30)
    world.start(Patient)

    world.run(lambda: len(handled(world)) == 30, timeout_s=5)
