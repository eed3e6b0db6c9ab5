"""Right protocols of the cache leave nothing stale in any order, and each wrong one is seen to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from scenarios.cache_protocols import Faults, Fill, Keep, Level, Mend, Protocol, Write, explore
from sizes import SOAK

if TYPE_CHECKING:
    from collections.abc import Sequence

# One reader finds all that is to be found; a second one makes a search ten times longer.
READERS: Sequence[int] = (0,) if SOAK == 1 else (0, 1)
L1, L2 = frozenset({Level.L1}), frozenset({Level.L2})

# The sink tells no versions: what was written is deleted everywhere.
DELETING = Protocol(write=Write.DELETE_BOTH, fill=Fill.LEASED, writers_keep=Keep.NEVER, versions=False)
# It does: an older value that is there is replaced, and where there is none, none is put.
REPLACING = Protocol(write=Write.REPLACE_OLDER, fill=Fill.LEASED)
# A lease is taken before the row is written, and the value put if it is still held.
LEASING = Protocol(write=Write.SET_IF_LEASED, fill=Fill.LEASED)
RIGHT = {"deleting": DELETING, "replacing": REPLACING, "leasing": LEASING}

EVICTIONS = Faults(evictions_l2=1)
DISTURBED = {  # each at most so often, so an end with fewer is among them
    "evictions from memory": Faults(evictions_l1=1),
    "a dropped link": Faults(drops=1),
    "a crash and evictions": Faults(crashes=1, evictions_l2=1),
}
# The epoch needs a third worker: one that has heard of neither the death nor the bump.
TAKEN_OVER = Faults(outages=1, crashes=1)

UNVERSIONED = Protocol(
    write=Write.SET, fill=Fill.SET, readers_keep=Keep.ALWAYS, writers_keep=Keep.ALWAYS, versions=False
)
COMPARING = Protocol(write=Write.SET_NEWER, fill=Fill.SET_NEWER)
WRONG = {
    "delete, and readers set": (
        Protocol(write=Write.DELETE, fill=Fill.SET, writers_keep=Keep.NEVER, versions=False),
        Faults(),
        L1 | L2,
    ),
    "set, and readers set": (UNVERSIONED, Faults(), L1 | L2),
    "set, and readers set what is absent": (replace(UNVERSIONED, fill=Fill.SET_ABSENT), Faults(), L1 | L2),
    "versions are compared, but not in memory": (
        replace(COMPARING, readers_keep=Keep.ALWAYS, writers_keep=Keep.ALWAYS),
        Faults(),
        L1,
    ),
    "versions are compared, and Redis evicts": (COMPARING, EVICTIONS, L1 | L2),
    "readers compare versions without a lease": (replace(REPLACING, fill=Fill.SET_NEWER), EVICTIONS, L1 | L2),
    "writers keep their own by version alone": (replace(REPLACING, writers_keep=Keep.NEWER), Faults(), L1),
    "a writer's own value breaks no guard": (
        replace(REPLACING, own_guards_break=False),
        Faults(evictions_l1=1),
        L1,
    ),
    "flushed before the link is back": (replace(REPLACING, mend=Mend.FLUSH_THEN_SUBSCRIBE), Faults(drops=1), L1),
    "subscribed again in silence": (replace(REPLACING, mend=Mend.SUBSCRIBE), Faults(drops=1), L1),
    "a redelivery leaves the cache alone": (
        replace(DELETING, redelivery_invalidates=False),
        Faults(crashes=1),
        L1 | L2,
    ),
}
WRONG_AFTER_AN_OUTAGE = {
    "what Redis was not told is forgotten": (replace(REPLACING, dirty_set=False), L1 | L2),
    "who takes over begins no epoch": (replace(REPLACING, bump=False), L1 | L2),
    "the new epoch is not published": (replace(REPLACING, bump_is_published=False), L1),
    "scripts take any epoch": (replace(REPLACING, scripts_check_epoch=False), L1),
}


@pytest.mark.parametrize("protocol", RIGHT.values(), ids=RIGHT)
def test_nothing_stays_stale_under_a_right_protocol(protocol: Protocol) -> None:
    found = explore(protocol)

    assert found.stale == frozenset()
    assert found.worlds > 10_000


@pytest.mark.parametrize("faults", DISTURBED.values(), ids=DISTURBED)
@pytest.mark.parametrize("protocol", RIGHT.values(), ids=RIGHT)
def test_nothing_stays_stale_under_a_right_protocol_that_is_disturbed(protocol: Protocol, faults: Faults) -> None:
    found = explore(protocol, faults, readers=READERS)

    assert found.stale == frozenset()


@pytest.mark.parametrize("protocol", RIGHT.values(), ids=RIGHT)
def test_nothing_stays_stale_after_an_outage_of_redis(protocol: Protocol) -> None:
    writers, readers = ((0,), (0, 1)) if SOAK == 1 else ((0, 1), (0,))

    found = explore(protocol, Faults(outages=1), writers=writers, readers=readers)

    assert found.stale == frozenset()


@pytest.mark.parametrize("protocol", [DELETING, REPLACING] if SOAK == 1 else RIGHT.values())
def test_nothing_stays_stale_when_a_worker_dies_with_what_it_could_not_tell_redis(protocol: Protocol) -> None:
    found = explore(protocol, TAKEN_OVER, writers=(0,), readers=(2,))

    assert found.stale == frozenset()


@pytest.mark.parametrize(("protocol", "faults", "levels"), WRONG.values(), ids=WRONG)
def test_a_wrong_protocol_is_seen_to_leave_something_stale(
    protocol: Protocol, faults: Faults, levels: frozenset[Level]
) -> None:
    found = explore(protocol, faults, until=None if SOAK > 1 else levels)  # then nothing more is found, either

    assert found.stale == levels


@pytest.mark.parametrize(("protocol", "levels"), WRONG_AFTER_AN_OUTAGE.values(), ids=WRONG_AFTER_AN_OUTAGE)
def test_a_broken_rule_of_the_epoch_is_seen_to_leave_something_stale(
    protocol: Protocol, levels: frozenset[Level]
) -> None:
    found = explore(protocol, TAKEN_OVER, writers=(0,), readers=(2,), until=levels)

    assert found.stale == levels


def test_the_page_tells_of_every_wrong_protocol() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models" / "README.md").read_text("utf-8")

    assert [name for name in (*WRONG, *WRONG_AFTER_AN_OUTAGE) if f"| {name} |" not in page] == []
