"""Running a plan: order, chunks, pace, the canary, and how it stops."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from streamworker.errors import ClientError
from streamworker.record import Headers, Origin
from streamworker.replay.audit import Note
from streamworker.replay.copies import Maker
from streamworker.replay.dead_record import DeadRecord, LetterId
from streamworker.replay.desk import Action, Actor, Operation, OperationState, Outcome, Plan, Rates, Request, Role
from streamworker.replay.filters import Filter
from streamworker.replay.plans import Candidate, make_plan
from streamworker.replay.read_ahead import ReadAhead
from streamworker.replay.repair import ValueForm
from streamworker.replay.runs import CHUNK, Part, Run, Surroundings
from streamworker.replay.shipping import Chunk, Shipped
from streamworker.replay.states import Disposition, State, Target
from streamworker.replay.targets import Targets
from streamworker.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

TARGETS = Targets({"orders": 4, "orders.replay.shop": 4}, groups=["shop"])
REPLAY = Request(topic="orders.dlq", action=Action.REPLAY, filter=Filter())
ANNA = Actor("anna", Role.ADMIN, "cli", verified=False)
AT_ONCE = Rates(records_per_s=None, canary=0)


def letter(place: LetterId, value: bytes | None = b"{}") -> DeadRecord:
    return DeadRecord(
        topic="orders.dlq",
        id=place,
        written_ms=1,
        key=b"k",
        value=value,
        headers=Headers(),
        family="streamworker",
        own_headers=Headers([("mine", b"1")]),
        origin=Origin("orders", place.partition, place.offset),
        group="shop",
        handler="StoreOrders",
        reason="poison",
        sw_id=f"shop/orders/{place}",
    )


def candidate(place: LetterId, sw_id: str | None = None) -> Candidate:
    found = letter(place)
    return Candidate(
        place, State.PENDING, "poison", "StoreOrders", "shop", found.origin, sw_id or found.sw_id, None, 0, 2, None
    )


@dataclass
class World:
    """A cluster in which all is sent, and what came of it."""

    clock: VirtualTime = field(default_factory=VirtualTime)
    gone: set[LetterId] = field(default_factory=set)
    returned: set[LetterId] = field(default_factory=set)
    taken: set[LetterId] = field(default_factory=set)  # somebody else was first
    handled: bool = True
    otherwise: Outcome = Outcome.WAITING
    chunks: list[Chunk] = field(default_factory=list)
    sent_at_s: list[float] = field(default_factory=list)
    said_by_run: list[Operation] = field(default_factory=list)
    ask: Callable[[], OperationState | None] = lambda: None
    fails: ClientError | None = None
    transactions: bool = True
    ahead: ReadAhead[Part] = field(default_factory=ReadAhead)
    while_shipping: Callable[[], object] = lambda: None
    while_reading: Callable[[], object] = lambda: None
    read_here: list[LetterId] = field(default_factory=list)
    unreadable: set[LetterId] = field(default_factory=set)
    refused: set[LetterId] = field(default_factory=set)  # by brokers
    done_before: set[LetterId] = field(default_factory=set)  # by the operation that is resumed

    def read(self, ids: Sequence[LetterId]) -> Iterator[DeadRecord]:
        for one in ids:
            if one in self.unreadable:
                raise ClientError("no broker", code="_TRANSPORT")
            if one not in self.gone:
                self.read_here.append(one)
                self.while_reading()
                yield letter(one)

    def said(self, letter: LetterId) -> Disposition | None:
        return (
            Disposition(state=State.REPLAYED, op_id="op", actor="anna", at_ms=0) if letter in self.done_before else None
        )

    def ship(self, chunk: Chunk) -> Shipped:
        if self.fails is not None:
            raise self.fails
        self.chunks.append(chunk)
        self.sent_at_s.append(self.clock.monotonic_s())
        self.while_shipping()
        sent = {
            one: Target(copy.topic, copy.partition or 0, one.offset)
            for one, copy in chunk.copies.items()
            if one not in self.taken | self.refused
        }
        dropped = dict.fromkeys(self.taken & set(chunk.ids), State.DISCARDED)
        failed = dict.fromkeys(self.refused & set(chunk.ids), "too large")
        marked = frozenset(chunk.ids) - self.taken - self.refused
        return Shipped(marked, sent, dropped, failed, frozenset(), exactly_once=self.transactions)

    def idle(self) -> None: ...

    def close(self) -> None: ...

    def look(self, sent: Mapping[LetterId, Target]) -> Mapping[LetterId, Outcome]:
        other = Outcome.HANDLED if self.handled else self.otherwise
        return {one: Outcome.RETURNED if one in self.returned else other for one in sent}

    def wait(self, seconds: float) -> bool:
        self.clock.wait(seconds, lambda: False)
        return False

    @property
    def shipped(self) -> list[LetterId]:
        return [one for chunk in self.chunks for one in chunk.ids]

    def run(self, plan: Plan, rates: Rates = AT_ONCE) -> Run:
        operation = Operation(
            id="op",
            plan_sha256=plan.sha256,
            topic="orders.dlq",
            action=plan.request.action,
            actor="anna",
            filter_text="",
            state=OperationState.RUNNING,
            matched=len(plan.ids),
            done=0,
            skipped=0,
            failed=0,
            returned=0,
            started_ms=0,
            ended_ms=None,
            message=None,
            per_second=0.0,
        )
        maker = Maker(
            request=plan.request,
            op_id="op",
            actor="anna",
            topic_id="t",
            targets=TARGETS,
            key=None,
            form=lambda one: ValueForm("orders"),
            repairs={},
        )
        around = Surroundings(
            letters=self,
            shipping=lambda partition: self,
            outcomes=self,
            clock=self.clock,
            wait=self.wait,
            asked=lambda: self.ask(),
            tell=self.said_by_run.append,
            note=lambda: Note(at_ms=0, actor=ANNA, what="replay", detail={}),
            ahead=self.ahead,
        )
        run = Run(plan, operation, maker, rates, around, resumed=bool(self.done_before))
        run.run()
        return run


def ids(*counts: int) -> list[LetterId]:
    """So many letters of partition 0, 1, …"""
    return [LetterId(partition, offset) for partition, count in enumerate(counts) for offset in range(count)]


def plan_of(letters: Sequence[LetterId], request: Request = REPLAY, same: Sequence[LetterId] = ()) -> Plan:
    found = [candidate(one, "same" if one in same else None) for one in letters]
    return make_plan(request, found, TARGETS, 0, ends={})


def test_all_letters_are_sent_in_order_in_chunks_of_one_partition() -> None:
    world = World()

    run = world.run(plan_of(ids(CHUNK + 200, 3)))

    assert world.shipped == ids(CHUNK + 200, 3)
    assert [len(chunk.ids) for chunk in world.chunks] == [CHUNK, 200, 3]
    assert (run.operation.state, run.operation.done) == (OperationState.DONE, CHUNK + 203)


def test_a_copy_says_whose_it_is_and_where_it_came_from() -> None:
    world = World()

    world.run(plan_of(ids(1)))

    [copy] = world.chunks[0].copies.values()
    headers = dict(copy.headers)
    assert (copy.topic, copy.partition, copy.key, copy.value) == ("orders.replay.shop", 0, b"k", b"{}")
    assert headers["mine"] == b"1"
    assert headers["sw-parent"] == b"orders.dlq/0/0"
    assert headers["sw-replay-count"] == b"1"
    assert headers["sw-target-group"] == b"shop"
    [said] = world.chunks[0].dispositions.values()
    assert (said.state, said.replay_id) == (State.REPLAYED, headers["sw-replay-id"].decode())


def test_duplicates_are_marked_behind_the_letter_they_are_of() -> None:
    world = World()
    letters = ids(3)

    world.run(plan_of(letters, same=[letters[0], letters[2]]))

    said = world.chunks[0].dispositions
    assert world.shipped == letters
    assert list(world.chunks[0].copies) == letters[:2]
    assert (said[letters[2]].state, said[letters[2]].of) == (State.DUPLICATE, "0:0")


def test_a_duplicate_of_what_could_not_be_sent_is_left_alone() -> None:
    letters = ids(2)
    world = World(gone={letters[0]})

    run = world.run(plan_of(letters, same=letters))

    assert world.chunks == []
    assert run.failures[letters[0]] == "it is not there any more"
    assert "0:0" in run.failures[letters[1]]


def test_a_letter_that_is_gone_is_counted_and_the_others_go_on() -> None:
    world = World(gone={LetterId(0, 1)})

    run = world.run(plan_of(ids(3)))

    assert world.shipped == [LetterId(0, 0), LetterId(0, 2)]
    assert (run.operation.done, run.operation.failed) == (2, 1)
    assert run.operation.state is OperationState.DONE


def test_a_run_is_no_faster_than_was_said() -> None:
    world = World()

    world.run(plan_of(ids(100)), Rates(records_per_s=10, canary=0))

    elapsed_s = world.clock.monotonic_s() - world.sent_at_s[0]
    assert [len(chunk.ids) for chunk in world.chunks] == [10] * 10
    assert 8 <= elapsed_s <= 11


def test_bytes_have_a_pace_of_their_own() -> None:
    world = World()

    world.run(plan_of(ids(2 * CHUNK)), Rates(records_per_s=None, bytes_per_s=100, canary=0))

    assert world.sent_at_s[1] - world.sent_at_s[0] >= 8


def test_the_first_are_waited_for_and_then_the_rest_goes() -> None:
    world = World()

    run = world.run(plan_of(ids(50)), Rates(records_per_s=None, canary=20))

    assert [len(chunk.ids) for chunk in world.chunks] == [20, 30]
    assert run.operation.state is OperationState.DONE


def test_a_run_ends_when_too_many_of_the_first_come_back() -> None:
    world = World(returned={LetterId(0, 1), LetterId(0, 3), LetterId(0, 5)})

    run = world.run(plan_of(ids(50)), Rates(records_per_s=None, canary=20))

    assert len(world.shipped) == 20
    assert (run.operation.state, run.operation.returned) == (OperationState.ABORTED, 3)
    assert "3 of the first 20 came back" in (run.operation.message or "")


def test_the_first_are_waited_for_though_somebody_else_took_one_of_them() -> None:
    world = World(taken={LetterId(0, 0)}, returned=set(ids(20)))

    run = world.run(plan_of(ids(600)), Rates(records_per_s=None, canary=20))

    assert world.shipped == ids(20)
    assert run.operation.state is OperationState.ABORTED


def test_a_run_pauses_when_nobody_handles_the_first() -> None:
    world = World(handled=False)

    run = world.run(plan_of(ids(50)), Rates(records_per_s=None, canary=20))

    assert len(world.shipped) == 20
    assert run.operation.state is OperationState.PAUSED
    assert "20 of the first 20 were not handled" in (run.operation.message or "")
    assert run.operation.ended_ms is None


def test_a_run_pauses_and_says_why_when_nobody_can_tell_what_became_of_the_first() -> None:
    world = World(handled=False, otherwise=Outcome.UNKNOWN)

    run = world.run(plan_of(ids(50)), Rates(records_per_s=None, canary=20))

    assert run.operation.state is OperationState.PAUSED
    assert "no group is known" in (run.operation.message or "")


def test_a_few_letters_have_no_canary() -> None:
    world = World(handled=False)

    run = world.run(plan_of(ids(20)), Rates(records_per_s=None, canary=20))

    assert run.operation.state is OperationState.DONE


def test_a_run_stops_between_chunks_when_it_is_asked_to() -> None:
    world = World()
    world.ask = lambda: OperationState.PAUSED if world.chunks else None

    run = world.run(plan_of(ids(CHUNK + 200)))

    assert len(world.shipped) == CHUNK
    assert run.operation.state is OperationState.PAUSED


def test_a_cluster_that_does_not_answer_fails_the_run_and_says_why() -> None:
    world = World(fails=ClientError("no broker", code="_TRANSPORT"))

    run = world.run(plan_of(ids(1)))

    assert (run.operation.state, run.operation.message) == (OperationState.FAILED, "no broker")


def test_it_is_said_that_without_transactions_something_may_be_there_twice() -> None:
    run = World(transactions=False).run(plan_of(ids(1)))

    assert (run.operation.state, run.operation.done) == (OperationState.DONE, 1)
    assert "may be there twice" in (run.operation.message or "")


def test_what_sends_nothing_has_no_copies() -> None:
    world = World()
    request = replace(REPLAY, action=Action.DISCARD, reason_code="test-data", note="from the load test")

    world.run(plan_of(ids(2), request))

    [chunk] = world.chunks
    assert chunk.copies == {}
    assert {one.state for one in chunk.dispositions.values()} == {State.DISCARDED}
    assert {one.reason_code for one in chunk.dispositions.values()} == {"test-data"}


def test_a_repair_sends_another_value_and_keeps_the_hash_of_both() -> None:
    world = World()
    request = Request(topic="orders.dlq", action=Action.REPAIR, ids=ids(1), edited='{"id": 1}')

    world.run(plan_of(ids(1), request))

    [copy] = world.chunks[0].copies.values()
    [said] = world.chunks[0].dispositions.values()
    assert copy.value == b'{"id": 1}'
    assert said.state is State.REPAIRED
    assert dict(copy.headers)["sw-repaired"] == (said.edited_sha256 or "").encode()


def test_the_next_letters_are_read_while_others_are_shipped() -> None:
    world = World()
    read: list[int] = []

    def steps() -> None:
        while world.ahead.step():
            pass
        read.append(len(world.read_here))

    world.while_shipping = steps
    world.run(plan_of(ids(3 * CHUNK)))

    assert read == [2 * CHUNK, 3 * CHUNK, 3 * CHUNK]
    assert world.shipped == ids(3 * CHUNK)


def test_none_is_read_ahead_of_what_became_of_the_first() -> None:
    world = World(returned=set(ids(20)))
    world.while_shipping = world.ahead.step

    run = world.run(plan_of(ids(600)), Rates(records_per_s=None, canary=20))

    assert world.read_here == ids(20)
    assert run.operation.state is OperationState.ABORTED


def test_what_was_shipped_stays_done_though_the_next_could_not_be_read_meanwhile() -> None:
    world = World(unreadable={LetterId(0, CHUNK)})
    world.while_shipping = lambda: [world.ahead.step() for _ in range(3)]

    run = world.run(plan_of(ids(2 * CHUNK)))

    assert world.shipped == ids(CHUNK)
    assert (run.operation.done, run.operation.failed) == (CHUNK, 0)
    assert (run.operation.state, run.operation.message) == (OperationState.FAILED, "no broker")


def test_a_duplicate_of_what_was_refused_is_left_alone_though_it_was_read_before() -> None:
    letters = ids(CHUNK + 1)
    world = World(refused={letters[0]})

    def steps() -> None:
        while world.ahead.step():
            pass

    world.while_shipping = steps
    run = world.run(plan_of(letters, same=[letters[0], letters[-1]]))

    assert world.shipped == letters[:-1]
    assert run.failures == {letters[0]: "too large", letters[-1]: "0:0, which it is a duplicate of, was left alone"}
    assert (run.operation.done, run.operation.failed) == (CHUNK - 1, 2)


def test_what_was_done_before_a_run_was_resumed_counts_and_is_not_done_again() -> None:
    world = World(done_before=set(ids(CHUNK)) | {LetterId(0, CHUNK + 2)})

    run = world.run(plan_of(ids(CHUNK + 3)))

    assert world.shipped == [LetterId(0, CHUNK), LetterId(0, CHUNK + 1)]
    assert (run.operation.done, run.operation.state) == (CHUNK + 3, OperationState.DONE)


def test_letters_that_take_long_are_read_one_by_one_between_looks_at_what_is_waited_for() -> None:
    world = World()
    read: list[int] = []

    def steps() -> None:
        while world.ahead.step():
            read.append(len(world.read_here) - CHUNK)

    world.while_shipping = steps
    world.while_reading = lambda: world.clock.wait(1.0, lambda: False)
    world.run(plan_of(ids(CHUNK + 3)))

    assert read == [1, 2, 3, 3, 3]
