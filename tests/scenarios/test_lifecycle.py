"""Start, stop, bounds, and what the client reports instead of records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scenarios.oracle import violations
from scenarios.worlds import (
    IN,
    OTHER,
    Obedient,
    ObedientBatches,
    calls,
    commits,
    handled,
    letters_from,
    make_world,
    produce,
    steady,
)

from streamworker import Batch, Context, Handler, Ordering, Record, Retry, TopicPartition
from streamworker.config import DeadLetterConfig, LifecycleConfig
from streamworker.errors import Misuse
from streamworker.events import EVENTS, Listener
from streamworker.interfaces import Fault, FaultKind
from streamworker.worker import Bounds

if TYPE_CHECKING:
    from streamworker.testing.virtual_world import VirtualWorld

_PLENTY = 1_000


def took_s(world: VirtualWorld, began_s: float) -> float:
    return world.time.monotonic_s() - began_s


def test_a_stop_finishes_what_runs_commits_it_and_exits_with_0() -> None:
    """Edge case 93. Nothing new is started meanwhile, and the successor repeats nothing."""
    world = make_world()
    produce(world, *[b"fine"] * 20)
    member = world.start(Obedient, duration_s=steady(1))
    world.run_for(3.5)
    before = len(calls(world))

    exit_code = world.stop(member)
    during = len(calls(world)) - before
    world.start(Obedient)
    world.run_to_end("in")

    assert exit_code == 0
    assert during <= 1
    assert calls(world) == list(range(20))


def test_a_stop_gives_up_what_outlasts_the_drain_and_says_what_it_was() -> None:
    """Edge case 93. Exit code 3 within the drain timeout and five seconds; the record is repeated, not lost."""
    world = make_world()
    produce(world, b"fine", b"slow")
    durations = iter([0.01, 600.0])
    member = world.start(Obedient, duration_s=lambda _slice: next(durations), eager=lambda: True)
    world.run_for(1)
    began_s = world.time.monotonic_s()

    exit_code = world.stop(member)

    assert exit_code == 3
    assert member.story.exit == (3, ("Obedient in[0]@1",))
    assert 25 <= took_s(world, began_s) <= 30
    assert world.broker.committed(IN) == 1


@pytest.mark.parametrize("drain_timeout_s", [0.3, 0.5])
def test_a_drain_of_less_than_a_second_still_collects_what_has_ended(drain_timeout_s: float) -> None:
    """Edge case 93."""
    world = make_world(
        lifecycle=LifecycleConfig(drain_timeout_s=drain_timeout_s),
        dead_letters=DeadLetterConfig(delivery_timeout_s=0.1),
    )
    produce(world, b"fine")
    member = world.start(Obedient, duration_s=steady(0.2), eager=lambda: True)
    world.run_for(0.05)

    assert world.stop(member) == 0
    assert world.broker.committed(IN) == 1


@pytest.mark.parametrize("trouble", ["back-off", "no coordinator", "refused letters", "offsets unknown", "rebalance"])
def test_a_stop_in_the_middle_of_trouble_ends_in_time(trouble: str) -> None:
    """Edge case 94. Promise 5: drain timeout and five seconds, whatever else goes on."""
    world = make_world(2)

    class Patient(Obedient):
        retry = Retry(attempts=1000, wait=lambda _state: 600.0)

    if trouble == "offsets unknown":
        world.broker.offsets_error = lambda: "STALE_MEMBER_EPOCH"
    if trouble == "refused letters":
        world.broker.produce_error = lambda _topic: "_MSG_TIMED_OUT"
    produce(world, b"poison" if trouble == "refused letters" else b"broken", b"fine")
    member = world.start(Patient)
    world.run_for(5)
    if trouble == "no coordinator":
        world.broker.coordinator_up = False
    if trouble == "rebalance":
        world.start(Patient)
        world.broker.commit_error = lambda _key: "REBALANCE_IN_PROGRESS"
    began_s = world.time.monotonic_s()

    exit_code = world.stop(member)

    assert exit_code == (3 if trouble == "refused letters" else 0)
    assert took_s(world, began_s) <= 30
    assert letters_from(world) == []


def test_who_has_nothing_left_to_save_waits_for_no_rebalance() -> None:
    """Edge case 94. Behind a request to join, a commit is answered only when the whole group has joined."""
    world = make_world()
    produce(world, b"fine")
    member = world.start(Obedient)
    world.run_to_end("in")
    world.run_for(5)
    world.broker.commit_error = lambda _key: "REBALANCE_IN_PROGRESS"
    began_s = world.time.monotonic_s()

    exit_code = world.stop(member)

    assert exit_code == 0
    assert took_s(world, began_s) < 0.5


def test_a_stop_while_the_group_rejoins_saves_what_is_done() -> None:
    """On Kafka a rolling restart repeated it: the coordinator takes no commit until the whole group has joined."""
    world = make_world()
    produce(world, b"fine")
    member = world.start(Obedient)
    world.run_to_end("in")
    world.broker.commit_error = lambda _key: "REBALANCE_IN_PROGRESS"
    produce(world, b"fine", b"fine")
    world.run(lambda: len(handled(world)) == 3, what="all handled")
    world.time.call_in(8, lambda: setattr(world.broker, "commit_error", lambda _key: None))

    exit_code = world.stop(member)

    assert exit_code == 0
    assert world.broker.committed(IN) == 3


def test_an_unexpected_base_exception_of_a_handler_ends_the_worker() -> None:
    """Edge case 95. A thread that died silently would look like an idle one."""
    world = make_world()

    class Unheard(BaseException):
        pass

    class Dying(Obedient):
        def handle(self, record: Record[bytes]) -> None:
            raise Unheard

    produce(world, b"fine")
    member = world.start(Dying)
    world.run(lambda: member.worker.stopping is not None, timeout_s=1)

    assert world.stop(member) == 1
    assert not world.broker.committed(IN)


def test_error_events_between_records_are_not_mistaken_for_records() -> None:
    """Edge case 98. Each is reported on its own; the records of the same fetch are handled."""
    world = make_world()
    member = world.start(Obedient)
    world.run_for(1)
    passing = [Fault(FaultKind.PASSING, None, None, f"_TRANSPORT: broker {number} down") for number in range(3)]
    for fault in passing:
        member.source.report(fault)
    produce(world, b"fine", b"fine")

    world.run_to_end("in")

    assert member.story.faults == passing
    assert handled(world) == [0, 1]


def test_a_poll_that_came_too_late_costs_the_ownership_and_nothing_else() -> None:
    """Edge case 99. Fenced, rejoined by the next poll, delivered again from the group's offset."""
    world = make_world()
    produce(world, *[b"fine"] * 10)
    member = world.start(Obedient, duration_s=steady(0.3))
    world.run_for(1.2)
    committed = world.broker.committed(IN) or 0

    member.source.report(Fault(FaultKind.MAX_POLL_EXCEEDED, None, None, "_MAX_POLL_EXCEEDED"))
    world.broker.expel(member.source)
    world.run_to_end("in")

    assert member.worker.exit_code is None
    assert min(calls(world)[calls(world).index(committed) + 1 :]) >= committed
    assert not list(violations(world, "in", "dlq"))


def test_a_topic_that_does_not_exist_yet_is_waited_for() -> None:
    """Edge case 100."""
    world = make_world()

    class Early(Obedient):
        topics = ("later",)

    member = world.start(Early)
    member.source.report(Fault(FaultKind.UNKNOWN_TOPIC, TopicPartition("later", 0), None, "UNKNOWN_TOPIC_OR_PART"))
    world.run_for(60)

    world.broker.add_partitions("later", 1)
    world.broker.produce("later", 0, b"fine")
    world.run_to_end("later", timeout_s=5)

    assert [effect.partition.topic for effect in world.effects] == ["later"]


def test_a_topic_that_is_deleted_under_way_is_let_go_without_a_busy_loop() -> None:
    """Edge case 100. The commit for it is refused; the other topic does not notice."""
    world = make_world()
    world.broker.add_partitions("doomed", 1)

    class Both(Obedient):
        topics = ("in", "doomed")

    for _ in range(10):
        world.broker.produce("doomed", 0, b"fine")
    member = world.start(Both, duration_s=steady(0.05))
    world.run_for(0.2)

    world.broker.delete_topic("doomed")
    produce(world, *[b"fine"] * 5)
    world.run_to_end("in")
    steps, until_s = 0, world.time.monotonic_s() + 60
    while world.time.monotonic_s() < until_s:
        member.worker.step()
        steps += 1

    assert ("revoked", (TopicPartition("doomed", 0),)) in member.story.rebalances
    assert handled(world) == list(range(5))
    assert steps < 60 * 50


def test_a_fenced_member_ends_with_an_exit_code_of_its_own() -> None:
    """Edge case 97. Another process has its instance id; going on would make two owners."""
    world = make_world()
    member = world.start(Obedient)
    world.run_for(1)

    member.source.report(Fault(FaultKind.FENCED, None, None, "_FENCED"))
    world.run(lambda: member.worker.stopping is not None, timeout_s=1)

    assert world.stop(member) == 6


def test_a_bounded_run_ends_at_the_end_of_all_partitions() -> None:
    """Edge case 93. Retries and dead letters included."""
    world = make_world(2)
    produce(world, b"fine", b"flaky:2", b"poison")
    produce(world, b"fine", partition=1)
    member = world.start(Obedient, bounds=Bounds(until_end=True))

    world.run(lambda: member.worker.stopping is not None, timeout_s=60)

    assert world.stop(member) == 0
    assert world.caught_up(IN)
    assert world.caught_up(OTHER)


def test_a_bounded_run_on_empty_topics_ends() -> None:
    """Edge case 93."""
    world = make_world(2)
    member = world.start(Obedient, bounds=Bounds(until_end=True))

    world.run(lambda: member.worker.stopping is not None, timeout_s=5)

    assert world.stop(member) == 0


def test_a_run_bounded_by_records_handles_exactly_so_many() -> None:
    """Edge case 93."""
    world = make_world()
    produce(world, *[b"fine"] * 100)
    member = world.start(Obedient, bounds=Bounds(max_records=7))

    world.run(lambda: member.worker.stopping is not None, timeout_s=5)

    assert world.stop(member) == 0
    assert calls(world) == list(range(7))
    assert world.broker.committed(IN) == 7


@pytest.mark.parametrize("kind", ["record", "batch"])
def test_a_run_bounded_by_less_than_a_batch_ends(kind: str) -> None:
    """Edge case 53. The batch that would wait for more goes out when its time is over."""
    world = make_world()
    patient = type("Patient", (ObedientBatches,), {"batch": Batch(max_records=50, max_wait_s=2)})
    produce(world, *[b"fine"] * 100)
    member = world.start(patient if kind == "batch" else type("Single", (Obedient,), {}), bounds=Bounds(max_records=7))

    world.run(lambda: member.worker.stopping is not None, timeout_s=5)

    assert world.stop(member) == 0
    assert calls(world) == list(range(7))


def test_a_bounded_run_with_a_partition_that_stands_still_ends_and_says_so() -> None:
    """Edge case 93. Exit code 3; the other partition is done."""
    world = make_world(2)
    kind = type("Bare", (Obedient,), {"dead_letter": None})
    produce(world, b"fine", b"poison", b"fine")
    produce(world, *[b"fine"] * 5, partition=1)
    member = world.start(kind, bounds=Bounds(until_end=True))

    world.run(lambda: member.worker.stopping is not None, timeout_s=60)

    assert world.stop(member) == 3
    assert world.broker.committed(IN) == 1
    assert world.caught_up(OTHER)


def test_a_handler_that_cannot_open_keeps_its_worker_from_joining() -> None:
    """Edge case 93. The error comes out at the start, before any partition is taken from another."""
    world = make_world()

    class Closed(Handler[bytes]):
        topics = ("in",)

        def open(self, context: Context) -> None:
            raise OSError(f"no database for {context.group}")

        def handle(self, record: Record[bytes]) -> None:
            """Handle everything."""

    produce(world, b"fine")
    with pytest.raises(OSError, match="no database for test"):
        world.start(Closed)
    world.members.clear()
    world.start(Obedient)
    world.run_to_end("in", timeout_s=5)

    assert [effect.member for effect in world.effects] == ["worker-2"]


def test_a_handler_is_opened_with_the_applications_table_and_closed_at_the_end() -> None:
    """Edge case 93."""
    world = make_world()
    life: list[object] = []

    class Living(Obedient):
        def open(self, context: Context) -> None:
            life.append(context.app["colour"])

        def handle(self, record: Record[bytes]) -> None:
            life.append(record.offset)

        def close(self) -> None:
            life.append("closed")

    produce(world, b"fine")
    member = world.start(Living, app={"colour": "blue"})
    world.run_to_end("in")
    world.stop(member)

    assert life == ["blue", 0, "closed"]


def test_listeners_that_raise_at_everything_harm_nobody() -> None:
    """Edge case 22. Neither the worker nor the listener after them."""
    world = make_world()

    def complain(*_args: object) -> None:
        raise RuntimeError("listener")

    rude = type("Rude", (Listener,), dict.fromkeys(EVENTS, complain))
    told: list[str] = []
    polite = type("Polite", (Listener,), {"closed": lambda self, code, abandoned: told.append("closed")})
    produce(world, b"fine", b"flaky:1", b"poison", b"fine")
    member = world.start(Obedient, listeners=[rude(), polite()])
    world.run_to_end("in")

    assert world.stop(member) == 0
    assert told == ["closed"]
    assert letters_from(world) == [b"poison"]


def test_without_faults_each_record_is_handled_exactly_once() -> None:
    """Edge case 1. Promise 4: no crash, no loss, no failed commit, hence no repeat, in any order."""
    for ordering in Ordering:
        world = make_world(3)
        for partition in range(3):
            produce(world, *[b"fine"] * 100, partition=partition, key=b"key")
        kind = type("Ordered", (Obedient,), {"ordering": ordering})

        member = world.start(kind)
        world.run_to_end("in")
        world.stop(member)

        for partition in range(3):
            assert sorted(calls(world, TopicPartition("in", partition))) == list(range(100))


def test_a_crash_repeats_no_more_than_the_bound() -> None:
    """Edge case 1. Promise 3 and 4: killed again and again at moments of its own."""
    world = make_world()
    produce(world, *[b"fine"] * _PLENTY)
    for seconds in (0.3, 0.7, 1.1, 0.2):
        member = world.start(Obedient, eager=lambda: True)
        world.run_for(seconds)
        committed = world.broker.committed(IN) or 0
        repeated_at_most = max(handled(world)) + 1 - committed
        world.kill(member)
        assert repeated_at_most <= world.config.commit.max_uncommitted
    world.start(Obedient)
    world.run_to_end("in")

    assert not list(violations(world, "in", "dlq"))
    assert commits(world)[-1] == _PLENTY


def test_a_worker_that_has_run_says_that_it_runs_once() -> None:
    world = make_world()
    member = world.start(Obedient)
    world.stop(member)

    with pytest.raises(Misuse, match="a worker runs once; make another"):
        member.worker.run()
