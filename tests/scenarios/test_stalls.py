"""What stands still is seen, said once, and mended or ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from scenarios.worlds import IN, OTHER, Obedient, calls, handled, make_world, produce

from streamworker import Rate
from streamworker.config import LifecycleConfig
from streamworker.declaration import declaration
from streamworker.events import Listener
from streamworker.exit_code import ExitCode
from streamworker.observability.lag import LagWatch
from streamworker.observability.memory import MemoryWatch
from streamworker.observability.status import Board, LifeState, QuarantineStatus
from streamworker.observability.watchdog import Watchdog
from streamworker.observer import Observer, first_status
from streamworker.offsets import codec
from streamworker.offsets.progress import Progress, Suspect
from streamworker.testing.memory_clients import MemoryLog

if TYPE_CHECKING:
    from streamworker.testing.virtual_world import Member, VirtualWorld
    from streamworker.work import Slice
    from streamworker.worker import Worker

STALL_S = 5.0
LIFECYCLE = LifecycleConfig(stall_timeout_s=STALL_S)


@dataclass
class Watched(Listener):
    """A worker under the eyes of a real observer, whose lag figures are always fresh."""

    world: VirtualWorld
    stalls: list[str] = field(default_factory=list)
    dumps: list[str] = field(default_factory=list)
    memory: MemoryWatch | None = None
    told: list[str] = field(default_factory=list)  # of memory

    def __post_init__(self) -> None:
        world = self.world
        self.board = Board(first_status([declaration(Obedient)], world.config, world.time))
        self.lag = LagWatch(MemoryLog(world.broker), world.time)
        self._observer = Observer(
            board=self.board,
            lag=self.lag,
            watchdog=Watchdog(clock=world.time, stall_timeout_s=STALL_S, die=lambda _code: None),
            clock=world.time,
            listener=self,
            memory=self.memory,
            note=self.dumps.append,
        )

    def observe(self, worker: Worker) -> None:
        self.lag.refresh()
        self._observer(worker)

    def stalled(self, what: str, detail: str) -> None:
        self.stalls.append(what)

    def memory_high(self, resident_bytes: int, limit_bytes: int) -> None:
        self.told.append("high")

    def memory_settled(self, resident_bytes: int, seconds: float) -> None:
        self.told.append("settled")

    def start(self, handler: type[Obedient] = Obedient, *, call_s: float = 0.001) -> Member:
        def duration_s(slice_: Slice) -> float:
            return call_s if slice_.messages[0].value() == b"slow" else 0.001

        return self.world.start(handler, observe=self.observe, duration_s=duration_s)


class Rare(Obedient):
    """Less often than what counts as a stall."""

    rate = Rate(1 / (3 * STALL_S), burst=1)


def test_records_that_wait_for_the_rate_of_their_handler_are_no_stall() -> None:
    watched = Watched(make_world(lifecycle=LIFECYCLE))
    for _ in range(4):
        watched.world.broker.produce("in", 0, b"fine")
    watched.start(Rare)

    watched.world.run_to_end("in", timeout_s=10 * STALL_S)

    assert watched.stalls == []


def test_a_client_that_delivers_nothing_is_made_anew_and_goes_on() -> None:
    """Edge case 32: paused at the client and in nobody's ledger, as after a bug of the client."""
    watched = Watched(make_world(lifecycle=LIFECYCLE))
    member = watched.start()
    watched.world.run_for(1)
    member.source.paused.add(IN)
    watched.world.broker.produce("in", 0, b"fine")

    watched.world.run_to_end("in", timeout_s=STALL_S + 3)

    assert watched.stalls == ["client"]
    assert len(watched.dumps) == 1
    assert member.worker.source is not member.source


def test_a_client_that_stalls_again_ends_the_worker() -> None:
    watched = Watched(make_world(lifecycle=LIFECYCLE))
    member = watched.start()
    watched.world.run_for(1)

    for _ in range(2):
        watched.world.broker.produce("in", 0, b"fine")
        stalled_source = member.worker.source
        stalled_source.paused.add(IN)  # type: ignore[attr-defined]
        watched.world.run(
            lambda source=stalled_source: member.worker.source is not source or member.worker.stopping is not None,
            timeout_s=STALL_S + 3,
        )
        watched.world.run_for(1)

    assert member.worker.stopping is not None
    assert watched.world.stop(member) == ExitCode.STALL


def test_a_call_that_takes_too_long_is_said_once_and_left_alone() -> None:
    watched = Watched(make_world(lifecycle=LIFECYCLE))
    member = watched.start(call_s=3 * STALL_S)
    watched.world.broker.produce("in", 0, b"slow")

    watched.world.run_to_end("in", timeout_s=4 * STALL_S)

    assert watched.stalls == ["handler"]
    assert member.worker.stopping is None


def test_a_call_past_the_handlers_time_limit_ends_the_worker() -> None:
    lifecycle = LifecycleConfig(stall_timeout_s=STALL_S, handler_timeout_s=STALL_S, drain_timeout_s=20)
    watched = Watched(make_world(lifecycle=lifecycle))
    member = watched.start(call_s=1000)
    watched.world.broker.produce("in", 0, b"slow")

    watched.world.run(lambda: member.worker.stopping is not None, timeout_s=STALL_S + 2)

    assert watched.stalls == ["handler_timeout"]
    assert watched.world.stop(member) == ExitCode.STALL


@pytest.mark.parametrize("left", [Progress(0), Progress(0, running=True, owner="0")], ids=["given back", "died"])
def test_who_waits_for_the_coordinator_to_take_its_first_commit_does_not_stall(left: Progress) -> None:
    """Nothing is begun before; made anew, the consumer would wait just so."""
    watched = Watched(make_world(lifecycle=LIFECYCLE))
    watched.world.broker.set_committed(IN, 0, codec.encode(1, left).text)
    watched.world.broker.commit_error = lambda _key: "COORDINATOR_LOAD_IN_PROGRESS"
    watched.start()
    watched.world.broker.produce("in", 0, b"fine")

    watched.world.run_for(4 * STALL_S)

    assert watched.stalls == []
    assert watched.world.effects == []


def test_status_shows_what_is_suspected_of_having_killed_a_worker() -> None:
    watched = Watched(make_world(lifecycle=LIFECYCLE))
    left = Progress(0, running=True, owner="0", suspect=Suspect(0, 5, 1))
    watched.world.broker.set_committed(IN, 0, codec.encode(1, left).text)
    for _ in range(3):
        watched.world.broker.produce("in", 0, b"slow")
    watched.start(call_s=2.0)

    watched.world.run_for(3.0)
    during = watched.board.latest().partitions[0].quarantine
    watched.world.run_for(10.0)

    assert during == QuarantineStatus(2, 1, 1)
    assert watched.board.latest().partitions[0].quarantine is None


def test_a_quiet_topic_is_no_stall() -> None:
    watched = Watched(make_world(lifecycle=LIFECYCLE))
    watched.start()
    watched.world.broker.produce("in", 0, b"fine")

    watched.world.run_for(4 * STALL_S)

    assert watched.stalls == []


def test_offsets_that_cannot_be_read_yet_are_no_stall() -> None:
    watched = Watched(make_world(lifecycle=LIFECYCLE))
    watched.world.broker.offsets_error = lambda: "_TIMED_OUT"
    watched.start()
    watched.world.broker.produce("in", 0, b"fine")

    watched.world.run_for(4 * STALL_S)

    assert watched.stalls == []


def test_the_status_tells_of_lag_pauses_and_what_runs() -> None:
    watched = Watched(make_world(lifecycle=LIFECYCLE))
    watched.start(call_s=60)
    watched.world.broker.produce("in", 0, b"slow")
    watched.world.broker.produce("in", 0, b"fine")

    watched.world.run_for(2)

    status = watched.board.latest()
    assert status.state is LifeState.RUNNING
    assert [(one.topic, one.partition, one.lag_records) for one in status.partitions] == [("in", 0, 2)]
    assert [(one.handler, one.offset) for one in status.running] == [("Obedient", 0)]
    assert status.inflight_records == 2


def test_a_worker_whose_lease_has_run_out_is_degraded_and_not_stalled() -> None:
    world = make_world(lifecycle=LIFECYCLE)
    watched = Watched(world)
    watched.start()
    world.run(lambda: watched.board.latest().joined)
    world.broker.coordinator_up = False
    world.run_for(11)
    world.broker.produce("in", 0, b"fine")

    world.run_for(4 * STALL_S)
    status = watched.board.latest()

    assert watched.stalls == []
    assert status.degraded == ("membership of the group is not proven",)
    assert [pause.reason for pause in status.partitions[0].pauses] == ["lease"]


def test_too_much_memory_stops_the_fetching_and_not_what_was_fetched() -> None:
    """F-50. P11: it falls when what is in hand has ended, then fetching goes on."""
    resident = [50]
    watched = Watched(make_world(2), memory=MemoryWatch(limit_bytes=100, patience_s=30, read=lambda: resident[0]))
    world, member = watched.world, watched.start(call_s=2)
    produce(world, b"slow", b"fine")
    produce(world, b"fine", partition=1)
    world.run_for(1)

    resident[0] = 101
    world.run_for(5)
    produce(world, b"fine", b"fine")
    world.run_for(5)
    high, handled_while_high, paused = watched.board.latest(), handled(world), set(member.source.paused)
    resident[0] = 95
    world.run_for(1)
    still_high = list(watched.told)
    resident[0] = 90
    world.run_to_end("in")

    assert high.degraded == ("memory: 101 bytes of 100",)
    assert {pause.reason for one in high.partitions for pause in one.pauses} == {"memory"}
    assert paused == {IN, OTHER}
    assert handled_while_high == [0, 1]
    assert still_high == ["high"]
    assert watched.told == ["high", "settled"]
    assert handled(world) == [0, 1, 2, 3]


def test_memory_that_stays_too_high_ends_the_worker_in_order() -> None:
    """F-50. What is done is committed, and the next process repeats nothing."""
    resident = [101]
    memory = MemoryWatch(limit_bytes=100, patience_s=30, read=lambda: resident[0])
    watched = Watched(make_world(), memory=memory)
    world, member = watched.world, watched.start(call_s=20)
    produce(world, b"slow", b"fine")

    world.run(lambda: member.worker.stopping is not None, timeout_s=32)
    code = world.stop(member)
    resident[0] = 50
    world.start(Obedient)
    world.run_to_end("in")

    assert code == ExitCode.MEMORY
    assert calls(world) == [0, 1]


def test_what_makes_memory_high_whenever_it_is_fetched_is_let_through() -> None:
    """F-50. A batch of 0.3 MB that grows to 300 MB was begun again and again, and dropped by each pause."""
    resident = [50]
    watched = Watched(make_world(), memory=MemoryWatch(limit_bytes=100, patience_s=30, read=lambda: resident[0]))
    world, member = watched.world, watched.start()
    world.broker.leaderless = {IN}  # as long as the client unpacks it nothing is delivered
    produce(world, b"large")
    world.run_for(1)

    paused = []
    for _ in range(2):
        resident[0] = 300
        world.run_for(1)
        paused.append(IN in member.source.paused)
        if paused[-1]:
            resident[0] = 50
            world.run_for(1)
    world.broker.leaderless = set()
    world.run_to_end("in", timeout_s=5)

    assert paused == [True, False]
    assert watched.told == ["high", "settled", "high"]


def test_partitions_that_come_while_memory_is_high_are_not_fetched() -> None:
    watched = Watched(make_world(2), memory=MemoryWatch(limit_bytes=100, patience_s=1e9, read=lambda: 101))
    world, member = watched.world, watched.start()
    other = world.start(Obedient)
    world.run_for(5)
    world.kill(other)
    world.run(lambda: len(member.worker.partitions) == 2)
    world.run_for(1)

    produce(world, b"fine")
    produce(world, b"fine", partition=1)
    world.run_for(10)

    assert calls(world) == []
    assert watched.stalls == []
