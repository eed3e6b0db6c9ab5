"""Several operators at the same letters, of whom any may die, lose an answer or be overtaken at any step.

Each letter is sent once per replay, and marked exactly if it was sent, whatever the order; and a rerun brings all to an
end. The same search finds each of the bugs that would break it.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

import pytest
from fleet.shipped import chunk_of, stood
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sizes import SOAK

from streamworker.errors import ClientError
from streamworker.record import Letter, TopicPartition
from streamworker.replay.audit import TOPIC as AUDIT
from streamworker.replay.audit import Kept
from streamworker.replay.dead_record import LetterId
from streamworker.replay.shipping import PartitionShipping
from streamworker.replay.states import AGAIN, ONLY_PENDING, RESTORABLE, SENT, Disposition, State, Target, state_topic
from streamworker.testing.memory_shipments import MemoryShipmentCluster, MemoryStateLog, Step, memory_shipping
from streamworker.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from fleet.shipped import Stood

    from streamworker.replay.shipping import Chunk, Sender, _Progress

LETTERS = TopicPartition("dlq", 0)
STATES = TopicPartition(state_topic("dlq"), 0)
TARGET = TopicPartition("replay", 0)
ALL = [LetterId(0, offset) for offset in range(5)]
OPERATORS = 3

chosen = st.lists(st.sampled_from(ALL), min_size=1, unique=True)
operators = st.integers(0, OPERATORS - 1)
WHAT = {
    "replay": (State.REPLAYED, ONLY_PENDING),
    "again": (State.REPLAYED, AGAIN),
    "repair": (State.REPAIRED, ONLY_PENDING),
    "discard": (State.DISCARDED, ONLY_PENDING),
    "restore": (State.PENDING, RESTORABLE),
}


class Died(BaseException):
    """The process is gone."""


class Operators(RuleBasedStateMachine):
    """Each rule is one chunk of one operator, in which up to two things go wrong."""

    forbids: str | None = None

    @initialize()
    def begin(self) -> None:
        self.clock = VirtualTime()
        self.cluster = MemoryShipmentCluster({"dlq": 1, STATES.topic: 1, TARGET.topic: 1, AUDIT: 1})
        self.cluster.forbids = self.forbids
        for _ in ALL:
            self.cluster.write(Letter(*LETTERS, None, b"v", (), 0))
        self.writers, self.ops = count(), count()
        self.operators = [self.starts() for _ in range(OPERATORS)]
        self.replays: set[bytes | None] = set()  # that somebody has asked for

    def starts(self) -> PartitionShipping:
        return memory_shipping(self.cluster, LETTERS, writer=f"w{next(self.writers)}", clock=self.clock)

    @rule(
        who=operators,
        letters=chosen,
        what=st.sampled_from(sorted(WHAT)),
        mishaps=st.dictionaries(st.integers(0, 11), st.sampled_from(["dies", "loses", "overtaken"]), max_size=2),
        other=operators,
        others=chosen,
    )
    def ships(
        self,
        who: int,
        letters: Sequence[LetterId],
        what: str,
        mishaps: Mapping[int, str],
        other: int,
        others: Sequence[LetterId],
    ) -> None:
        steps = count()

        def at(step: Step) -> None:
            match mishaps.get(next(steps)):
                case "dies":
                    raise Died
                case "loses":
                    raise ClientError("no answer", code="_TIMED_OUT")
                case "overtaken":
                    self.cluster.at, here = (lambda _: None), self.cluster.at
                    # Another operator, or another process of the same one.
                    by = self.operators[other] if other != who else self.starts()
                    by.ship(self.chunk("replay", others))
                    self.cluster.at = here

        self.cluster.at = at
        try:
            self.operators[who].ship(self.chunk(what, letters))
        except Died:
            self.operators[who] = self.starts()
        finally:
            self.cluster.at = lambda _: None

    def chunk(self, what: str, letters: Sequence[LetterId]) -> Chunk:
        state, expected = WHAT[what]
        number = next(self.ops)
        # The id of a replay says which one of the letter it is, so that two who mean the same one make it once.
        replay = f"again {number}" if what == "again" else "first"
        made = chunk_of(letters, TARGET.topic, op_id=f"op {number}", state=state, expected=expected, replay=replay)
        self.replays |= {f"{letter} {replay}".encode() for letter in made.copies}
        return made

    @invariant()
    def nothing_is_sent_twice_or_marked_alone(self) -> None:
        if hasattr(self, "cluster"):
            found = self.stands()
            assert found.anomalies() == {}
            assert found.copies.keys() <= self.replays
            assert found.sent_and_not_marked() == set()

    def teardown(self) -> None:
        """Whatever has happened, a rerun brings it to an end."""
        if hasattr(self, "cluster"):
            shipped = self.starts().ship(self.chunk("replay", ALL))
            found = self.stands()
            assert not shipped.failed
            assert found.anomalies() == {}
            assert found.pending(ALL) == []
            assert {one.state for one in found.states.values()} <= {*SENT, State.DISCARDED}

    def stands(self) -> Stood:
        entries = enumerate(self.cluster.read(TopicPartition(AUDIT, 0)))
        return stood(
            [one.headers for one in self.cluster.read(TARGET)],
            [(one.key, one.value) for one in self.cluster.read(STATES)],
            [Kept(0, at, one.value, one.headers) for at, one in entries],
        )


class WithoutTransactions(Operators):
    """Nothing is sent twice here either, but what was interrupted stays uncertain."""

    forbids = "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"

    @invariant()
    def nothing_is_sent_twice_or_marked_alone(self) -> None:
        if hasattr(self, "cluster"):
            found = self.stands()
            assert found.anomalies() == {}
            assert found.copies.keys() <= self.replays
            assert found.sent_and_not_marked() <= {
                str(letter).encode() for letter, one in found.states.items() if one.state is State.UNCERTAIN
            }

    def teardown(self) -> None:
        """Whatever has happened, a rerun leaves nothing that is neither done nor shown."""
        if hasattr(self, "cluster"):
            self.starts().ship(self.chunk("replay", ALL))
            found = self.stands()
            assert found.anomalies() == {}
            assert found.pending(ALL) == []


SEARCH = settings(
    max_examples=1000 * SOAK,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_each_letter_is_sent_once_and_marked_once_whatever_happens_to_whom() -> None:
    run_state_machine_as_test(Operators, settings=SEARCH)  # type: ignore[no-untyped-call]


def test_without_transactions_no_letter_is_sent_twice_and_what_was_interrupted_is_uncertain() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        WithoutTransactions, settings=settings(SEARCH, max_examples=300 * SOAK)
    )


def state_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks are written in a transaction of their own, after that of the copies."""
    right = PartitionShipping._write

    def apart(shipping: PartitionShipping, sender: Sender, letters: Sequence[Letter]) -> Sequence[Target]:
        sender.commit()
        sender.begin()
        return right(shipping, sender, letters)

    monkeypatch.setattr(PartitionShipping, "_write", apart)


def no_reading_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has read the states once believes them after another one had the partition, too."""
    right = PartitionShipping._read_on

    def once(shipping: PartitionShipping, progress: _Progress) -> None:
        if shipping._position is None:
            right(shipping, progress)

    monkeypatch.setattr(PartitionShipping, "_read_on", once)


def no_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The states are read before the others are fenced."""
    opened = PartitionShipping._opened

    def early(shipping: PartitionShipping, progress: _Progress) -> Sender:
        if shipping._sender is None:
            shipping._read_on(progress)
            with monkeypatch.context() as patched:
                patched.setattr(PartitionShipping, "_read_on", lambda *_: None)
                return opened(shipping, progress)
        return opened(shipping, progress)

    monkeypatch.setattr(PartitionShipping, "_opened", early)


def uncommitted_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks of aborted transactions are believed."""

    def all_that_is_there(log: MemoryStateLog, start: int, end: int) -> Iterable[tuple[bytes | None, bytes | None]]:
        stored = log._cluster._logs.get(STATES, [])[start:end]
        return [(one.letter.key, one.letter.value) for one in stored if one.letter is not None]

    monkeypatch.setattr(MemoryStateLog, "read", all_that_is_there)


def answers_taken_for_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error the chain goes on as if nothing was written."""

    @contextmanager
    def following(shipping: PartitionShipping, entry: Letter) -> Iterator[None]:
        yield
        shipping._chain = shipping._chain.after(entry)

    monkeypatch.setattr(PartitionShipping, "_following", following)


def sending_before_marking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without transactions nothing is marked before it is sent."""
    monkeypatch.setattr(PartitionShipping, "_claimed", lambda _, __, meant, ___: dict.fromkeys(meant, State.PENDING))


def no_look_at_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has marked letters sends them, whoever else has."""

    def claimed(
        shipping: PartitionShipping, sender: Sender, meant: Mapping[LetterId, Disposition], _: _Progress
    ) -> Mapping[LetterId, State]:
        shipping._write(sender, list(shipping._marks(meant)))
        return dict.fromkeys(meant, State.PENDING)

    monkeypatch.setattr(PartitionShipping, "_claimed", claimed)


def discarding_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not sent is not marked before, either."""
    right = PartitionShipping._claimed

    def claimed(
        shipping: PartitionShipping, sender: Sender, meant: Mapping[LetterId, Disposition], progress: _Progress
    ) -> Mapping[LetterId, State]:
        going = {letter: one for letter, one in meant.items() if letter in progress.chunk.copies}
        return {**dict.fromkeys(meant.keys() - going.keys(), State.PENDING), **right(shipping, sender, going, progress)}

    monkeypatch.setattr(PartitionShipping, "_claimed", claimed)


ONE_TRANSACTION = [state_apart, no_reading_on, no_fence, uncommitted_states, answers_taken_for_failures]
TWO_MARKS = [sending_before_marking, no_look_at_marks, discarding_at_once, answers_taken_for_failures]


@pytest.mark.parametrize(
    ("operators", "bug"),
    [*((Operators, bug) for bug in ONE_TRANSACTION), *((WithoutTransactions, bug) for bug in TWO_MARKS)],
)
def test_a_planted_bug_is_found(
    operators: type[Operators], bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)

    with pytest.raises(AssertionError):
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            operators, settings=settings(SEARCH, phases=[Phase.explicit, Phase.generate], derandomize=True)
        )
