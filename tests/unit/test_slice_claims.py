"""Claims of a slice are kept while its calls go on, and let go of when they are through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.idempotency.slices import SliceClaims
from streamworker.idempotency.watchdog import LeaseExtender
from streamworker.options import OnUnavailable
from streamworker.record import Record, TopicPartition
from streamworker.testing import VirtualTime
from streamworker.testing.memory_broker import MemoryMessage
from streamworker.testing.memory_claims import MemoryClaims, VirtualRounds
from streamworker.work import Ownership, Slice

if TYPE_CHECKING:
    from collections.abc import Callable

AT = TopicPartition("t", 0)


class Rig:
    """Claims of a handler in virtual time, and of anybody else."""

    def __init__(self, *, on_unavailable: OnUnavailable = OnUnavailable.PROCESS) -> None:
        self.time = VirtualTime()
        self.kept = MemoryClaims(self.time, lease_s=30.0)
        extender = LeaseExtender(
            self.kept.extend,
            name="h",
            lease_s=30.0,
            clock=self.time,
            rounds=lambda step, _name: VirtualRounds(self.time, step),
        )
        self.slices = SliceClaims(
            self.kept, extender, handler="h", chosen=None, on_unavailable=on_unavailable, clock=self.time
        )

    def others(self, claim_id: str) -> str:
        """What somebody else is answered."""
        return type(self.kept.claim([self.kept.make(claim_id)])[0]).__name__


def slice_of(records: int) -> tuple[Slice, Callable[[int], Record[object]]]:
    messages = [MemoryMessage(AT, index, key=None, value=b"v") for index in range(records)]
    return Slice(0, Ownership(AT, 1), messages, 1), lambda index: Record(messages[index], 1)


def test_claims_outlive_their_lease_while_the_calls_go_on_and_then_what_is_left_is_given_up() -> None:
    rig = Rig()
    claimed = rig.slices.claim(*slice_of(3))

    rig.time.wait(100, lambda: False)
    during = [rig.others(f"t:0:{offset}") for offset in range(3)]
    claimed.conclude([0, 1])

    assert during == ["Busy", "Busy", "Busy"]
    assert [rig.others(f"t:0:{offset}") for offset in range(3)] == ["Done", "Done", "Granted"]
    assert rig.slices.counts == {
        "granted": 3,
        "done": 0,
        "busy": 0,
        "unavailable": 0,
        "lost": 0,
        "incomplete": 0,
    }


def test_what_could_not_be_concluded_ends_with_its_lease() -> None:
    rig = Rig()
    claimed = rig.slices.claim(*slice_of(1))
    rig.kept.away = True

    claimed.conclude([0])

    rig.kept.away = False
    before = rig.others("t:0:0")
    rig.time.wait(40, lambda: False)
    assert (before, rig.others("t:0:0")) == ("Busy", "Granted")
    assert rig.slices.counts["incomplete"] == 1


def test_a_claim_that_was_lost_on_the_way_is_counted() -> None:
    rig = Rig()
    claimed = rig.slices.claim(*slice_of(1))
    rig.kept.forget()

    claimed.conclude([0])

    assert rig.slices.counts["lost"] == 1


def test_claims_answer_what_is_done_and_the_first_that_is_busy() -> None:
    rig = Rig()
    done = rig.kept.make("t:0:1")
    rig.kept.claim([done, rig.kept.make("t:0:2")])
    rig.kept.complete([(done, b"")])

    claimed = rig.slices.claim(*slice_of(4))

    assert claimed.handled == {1}
    assert claimed.refused is not None
    assert (claimed.refused[0], str(claimed.refused[1])) == (2, "t:0:2 is claimed; it is asked for again in 30.0 s")
    assert [claimed.id_of(index) for index in range(4)] == ["t:0:0", None, None, "t:0:3"]
