"""Which records a process may have died of, and how they are told apart, without a process that dies."""

from __future__ import annotations

import pytest

from streamworker.offsets.progress import Progress, Suspect
from streamworker.offsets.suspects import Suspects
from streamworker.offsets.tracker import OffsetTracker

RECORDS = 200


def tracker_at(offset: int, delivered: int = 1000) -> OffsetTracker:
    tracker = OffsetTracker(offset)
    tracker.deliver(offset, delivered)
    return tracker


def suspects_of(
    *, first: int = 0, last: int = 0, deaths: int = 0, running: bool = True, end: int | None = 1000
) -> Suspects:
    """With an earlier owner that had named `first` to `last` after so many deaths, or nobody (0)."""
    named = Suspect(first, last, deaths) if deaths else None
    return Suspects(Progress(0, running=running, suspect=named), end=end, records=RECORDS)


def do(tracker: OffsetTracker, until: int) -> None:
    """All below `until` is done."""
    tracker.complete_run(tracker.committable, until - 1)


def test_after_one_death_the_open_records_go_in_groups_that_are_as_good_as_new() -> None:
    suspects, tracker = suspects_of(), tracker_at(0)

    groups = []
    while (group := suspects.next_group(tracker, alone_allowed=True)) is not None:
        assert suspects.in_work(tracker)
        assert suspects.next_group(tracker, alone_allowed=True) is None
        assert not suspects.alone
        groups.append(group)
        do(tracker, group.last + 1)

    assert suspects.deaths == 1
    assert groups == [Suspect(0, 63, 1), Suspect(64, 127, 1), Suspect(128, 191, 1), Suspect(192, 199, 1)]
    assert suspects.over(tracker)
    assert suspects.killer is None


def test_nothing_from_the_end_of_the_log_on_is_suspected() -> None:
    suspects, tracker = suspects_of(end=10), tracker_at(0)

    assert suspects.next_group(tracker, alone_allowed=True) == Suspect(0, 9, 1)
    assert not suspects.over(tracker)
    do(tracker, 10)
    assert suspects.next_group(tracker, alone_allowed=True) is None
    assert suspects.over(tracker)


def test_it_is_not_over_before_all_up_to_the_end_were_delivered() -> None:
    suspects, tracker = suspects_of(end=10), tracker_at(0, delivered=9)
    assert suspects.next_group(tracker, alone_allowed=True) == Suspect(0, 8, 1)

    do(tracker, 9)
    assert not suspects.over(tracker)
    tracker.deliver(9, 1)
    assert not suspects.over(tracker)
    do(tracker, 10)
    assert suspects.over(tracker)


def test_where_nobody_knows_the_end_so_many_records_are_suspected() -> None:
    suspects, tracker = suspects_of(end=None), tracker_at(0)

    while (group := suspects.next_group(tracker, alone_allowed=True)) is not None:
        do(tracker, group.last + 1)

    assert tracker.committable == RECORDS
    assert suspects.over(tracker)


def test_a_group_that_was_named_at_a_death_goes_record_by_record_and_the_next_together_again() -> None:
    suspects, tracker = suspects_of(first=5, last=7, deaths=1), tracker_at(3)

    groups = []
    for _ in range(5):
        group = suspects.next_group(tracker, alone_allowed=True)
        assert group is not None
        groups.append((group, suspects.alone))
        do(tracker, group.last + 1)

    assert suspects.deaths == 2
    assert groups == [
        (Suspect(3, 4, 1), False),
        (Suspect(5, 5, 2), True),
        (Suspect(6, 6, 2), True),
        (Suspect(7, 7, 2), True),
        (Suspect(8, 71, 1), False),
    ]


def test_a_record_that_must_go_alone_waits_for_its_turn_among_partitions() -> None:
    suspects, tracker = suspects_of(first=0, last=3, deaths=1), tracker_at(0)

    assert suspects.next_group(tracker, alone_allowed=False) is None
    assert suspects.group is None
    assert not suspects.in_work(tracker)
    assert suspects.next_group(tracker, alone_allowed=True) == Suspect(0, 0, 2)


@pytest.mark.parametrize(
    ("deaths", "last", "killer"),
    [(1, 4, None), (2, 4, 4), (3, 4, 4), (2, 5, None)],
    ids=["second death", "third death", "fourth", "third death of two"],
)
def test_a_record_that_was_named_alone_at_the_third_death_is_the_killer(
    deaths: int, last: int, killer: int | None
) -> None:
    assert suspects_of(first=4, last=last, deaths=deaths).killer == killer


def test_a_partition_that_was_given_back_has_seen_no_more_deaths() -> None:
    given_back = suspects_of(first=4, last=4, deaths=2, running=False)

    assert (given_back.deaths, given_back.killer) == (2, None)


def test_records_wait_until_their_group_is_known_to_be_named() -> None:
    suspects, tracker = suspects_of(end=10), tracker_at(0)
    assert suspects.limit(tracker) == 0

    tracker.suspect = group = suspects.next_group(tracker, alone_allowed=True)
    assert group is not None
    assert suspects.limit(tracker) == 0
    tracker.acknowledge(tracker.progress())
    assert suspects.limit(tracker) == 10

    do(tracker, 10)
    tracker.suspect = suspects.group = Suspect(10, 12, 1)
    assert suspects.limit(tracker) == 10


def test_what_is_left_to_the_next_owner() -> None:
    """Never one record: that would say that it was named alone."""
    tracker = tracker_at(0)
    assert suspects_of().unfinished(tracker) == Suspect(0, 1, 1)
    assert suspects_of(first=2, last=2, deaths=1).unfinished(tracker) == Suspect(0, 2, 2)
    assert suspects_of(first=0, last=0, deaths=1).unfinished(tracker) == Suspect(0, 1, 2)
    killer = suspects_of(first=2, last=2, deaths=2)
    assert killer.unfinished(tracker) == Suspect(2, 2, 3)

    do(tracker, 2)
    assert killer.unfinished(tracker) == Suspect(2, 2, 3)
    do(tracker, 3)
    assert killer.unfinished(tracker) == Suspect(3, 4, 1)


def test_a_group_is_in_work_until_its_last_record_is_done() -> None:
    suspects, tracker = suspects_of(end=10), tracker_at(0)
    suspects.next_group(tracker, alone_allowed=True)

    do(tracker, 9)
    assert suspects.in_work(tracker)
    do(tracker, 10)
    assert not suspects.in_work(tracker)


def test_it_is_not_over_while_one_record_may_still_be_suspected() -> None:
    suspects = Suspects(Progress(0, running=True), end=None, records=2)
    tracker = tracker_at(0, delivered=1)
    suspects.next_group(tracker, alone_allowed=True)
    do(tracker, 1)

    assert not suspects.over(tracker)
