"""The pause ledger beside a client that believes what it was told last."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sizes import SOAK

from streamworker.record import TopicPartition
from streamworker.source.flow import PauseLedger, PauseReason

PARTITIONS = [TopicPartition("t", number) for number in range(2)]
# So few that what was put up is often what is taken away.
REASONS = [PauseReason.BACKPRESSURE, PauseReason.STOPPED]
ANY_PARTITION, ANY_REASON = st.sampled_from(PARTITIONS), st.sampled_from(REASONS)


class LedgerMachine(RuleBasedStateMachine):
    """Reasons come and go while partitions do, and the client's flag outlives an ownership."""

    @initialize()
    def begin(self) -> None:
        self.ledger = PauseLedger()
        self.now_s = 0.0
        self.owned: set[TopicPartition] = set()
        self.wanted: dict[TopicPartition, dict[PauseReason, float]] = {one: {} for one in PARTITIONS}
        self.client_paused: set[TopicPartition] = set()
        self.own(PARTITIONS[0])

    @rule(partition=ANY_PARTITION, tell=st.booleans())
    def come_or_go(self, partition: TopicPartition, *, tell: bool) -> None:
        if partition in self.owned:
            self.ledger.disown([partition])
            self.owned.remove(partition)
            self.wanted[partition].clear()
        else:
            self.own(partition)
        if tell:
            self.tell_the_client()

    def own(self, partition: TopicPartition) -> None:
        paused = self.ledger.own(partition)
        assert paused == bool(self.wanted[partition])
        self.owned.add(partition)
        (self.client_paused.add if paused else self.client_paused.discard)(partition)

    @rule(partition=ANY_PARTITION, reason=ANY_REASON, tell=st.booleans())
    def put_or_take(self, partition: TopicPartition, reason: PauseReason, *, tell: bool) -> None:
        self.now_s += 1
        since_s = self.wanted[partition].pop(reason, None)
        if since_s is None:
            assert self.ledger.take(partition, reason) is None
            assert self.ledger.put(partition, reason, self.now_s)
            self.wanted[partition][reason] = self.now_s
        else:
            assert not self.ledger.put(partition, reason, self.now_s)
            assert self.ledger.take(partition, reason) == since_s
        if tell:
            self.tell_the_client()

    def tell_the_client(self) -> None:
        change = self.ledger.changes()

        assert set(change.pause) <= self.owned - self.client_paused, "told what it knows, or of a foreign partition"
        assert set(change.resume) <= self.owned & self.client_paused, "told what it knows, or of a foreign partition"
        self.client_paused.update(change.pause)
        self.client_paused.difference_update(change.resume)
        for partition in self.owned:
            assert (partition in self.client_paused) == bool(self.wanted[partition])
        again = self.ledger.changes()
        assert not again.pause, "told twice"
        assert not again.resume, "told twice"

    @invariant()
    def reasons_are_those_of_the_model(self) -> None:
        for partition in PARTITIONS:
            assert self.ledger.reasons(partition) == self.wanted[partition]
            assert self.ledger.paused(partition) == bool(self.wanted[partition])


TestPauseLedger = LedgerMachine.TestCase
TestPauseLedger.settings = settings(max_examples=100 * SOAK, stateful_step_count=40)


def test_a_reason_that_comes_and_goes_between_two_calls_is_not_told() -> None:
    ledger, partition = PauseLedger(), PARTITIONS[0]
    ledger.own(partition)

    for moment in range(1000):
        ledger.put(partition, PauseReason.BACKPRESSURE, moment)
        ledger.take(partition, PauseReason.BACKPRESSURE)

    change = ledger.changes()
    assert (list(change.pause), list(change.resume)) == ([], [])
