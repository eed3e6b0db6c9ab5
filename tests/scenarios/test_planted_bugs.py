"""The oracle finds planted bugs: a simulation that cannot fail proves nothing."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from scenarios.simulation import broken_promises

from streamworker import Ending
from streamworker.dlq.writer import DeadLetterWriter
from streamworker.offsets.tracker import OffsetTracker
from streamworker.scheduling import lanes
from streamworker.settlement import Settlement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pytest

    from streamworker.dlq.envelope import Envelope
    from streamworker.partition import Partition
    from streamworker.record import Message
    from streamworker.scheduling.lanes import LaneSlice
    from streamworker.work import Failure, SliceOutcome

_HANDFUL = 20


def found_as(*beginnings: str) -> bool:
    """Whether one of a handful of seeds breaks a promise with a sentence that begins like this."""
    return any(sentence.startswith(beginnings) for seed in range(1, 1 + _HANDFUL) for sentence in broken_promises(seed))


def test_committing_what_was_fetched_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OffsetTracker, "committable", property(lambda self: self.next_offset))

    assert found_as("unsafe")


def test_committing_one_too_far_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = vars(OffsetTracker)["committable"].fget
    monkeypatch.setattr(OffsetTracker, "committable", property(lambda self: sound(self) + 1))

    assert found_as("unsafe")


def test_spreading_a_key_over_lanes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = count()
    monkeypatch.setattr(lanes, "crc32", lambda _key: next(numbers))

    assert found_as("disorder")


def test_committing_before_the_dead_letter_is_acknowledged_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = DeadLetterWriter.write

    def write(self: DeadLetterWriter, envelope: Envelope, on_done: Callable[[], None]) -> None:
        on_done()
        sound(self, envelope, lambda: None)

    monkeypatch.setattr(DeadLetterWriter, "write", write)

    assert found_as("unsafe")


def test_accepting_the_outcome_of_an_ended_ownership_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = Settlement.settle

    def settle(self: Settlement, outcome: SliceOutcome[LaneSlice]) -> None:
        present = self._partitions.get(outcome.slice.ownership.partition)
        if present is not None:
            outcome.slice.ownership = present.ownership
        sound(self, outcome)

    monkeypatch.setattr(Settlement, "settle", settle)

    # What it marks as done in the present ownership was not delivered there: the books no longer add up.
    assert found_as("unsafe", "lost", "crashed")


def test_dropping_a_failed_record_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def drop(
        self: Settlement, partition: Partition, slice_: LaneSlice, failure: Failure, left: Sequence[Message]
    ) -> None:
        self._complete(partition, left, Ending.HANDLED, 0.0)
        self._stages.schedulers[slice_.handler].finish(slice_)

    monkeypatch.setattr(Settlement, "_settle_failure", drop)

    assert found_as("lost")
