"""Groups that read what is sent again although it is not meant for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from streamworker.cluster import GroupListing
from streamworker.interfaces import OffsetMark
from streamworker.record import TopicPartition
from streamworker.replay.other_groups import Reader, other_groups

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return 0


class Cluster:
    """Topics of two partitions; `reads` has the topics that each group has an offset of."""

    def __init__(
        self, states: Mapping[str, str] | None, reads: Mapping[str, Sequence[str]], *, whole: bool = True
    ) -> None:
        self.clock = Clock()
        self.takes_s = 0.0
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self._listing = None if states is None else GroupListing(states, whole)
        self._reads = reads

    def groups(self, timeout_s: float) -> GroupListing | None:
        del timeout_s
        return self._listing

    def partitions(self, topic: str, timeout_s: float) -> Sequence[TopicPartition]:
        del timeout_s
        return [TopicPartition(topic, number) for number in (0, 1)]

    def offsets_of_groups(
        self, groups: Sequence[str], partitions: Sequence[TopicPartition], timeout_s: float
    ) -> Mapping[str, Mapping[TopicPartition, OffsetMark]]:
        assert timeout_s > 0
        self.asked += groups
        self.clock.now_s += self.takes_s
        return {
            group: {one: OffsetMark(7, "") for one in partitions if one.topic in self._reads.get(group, ())}
            for group in groups
            if group not in self.silent
        }


def test_groups_with_offsets_of_a_target_are_found_but_for_those_that_are_meant() -> None:
    cluster = Cluster(
        {"shop": "STABLE", "billing": "STABLE", "archive": "EMPTY", "elsewhere": "STABLE"},
        {"shop": ["orders"], "billing": ["orders"], "archive": ["orders", "other"], "elsewhere": ["other"]},
    )

    found = other_groups(cluster, {"orders"}, {"shop"}, clock=cluster.clock, timeout_s=5.0)

    assert found.readers == {"orders": [Reader("billing", live=True), Reader("archive", live=False)]}
    [warning] = found.warnings()
    assert warning == (
        "2 other groups read orders: billing, archive (no members now); what is sent there reaches them, too, and only"
        " streamworkers pass over what is addressed to others"
    )
    assert "shop" not in cluster.asked


def test_a_target_that_nobody_else_reads_is_no_warning() -> None:
    cluster = Cluster({"shop": "STABLE", "billing": "STABLE"}, {"billing": ["orders"]})

    found = other_groups(cluster, {"orders.replay.shop"}, {"shop"}, clock=cluster.clock, timeout_s=5.0)

    assert list(found.warnings()) == []


def test_a_cluster_that_lists_no_groups_is_said_and_not_taken_for_one_without_groups() -> None:
    cluster = Cluster(None, {})

    found = other_groups(cluster, {"orders"}, (), clock=cluster.clock, timeout_s=5.0)

    assert not found.told
    assert list(found.warnings()) == [
        "which other groups read what is sent was not looked at: this cluster lists none to us"
    ]


def test_of_many_groups_five_are_named() -> None:
    names = [f"group-{number}" for number in range(8)]
    cluster = Cluster(dict.fromkeys(names, "STABLE"), dict.fromkeys(names, ("orders",)))

    [warning] = other_groups(cluster, {"orders"}, (), clock=cluster.clock, timeout_s=5.0).warnings()

    assert warning.startswith("8 other groups read orders: group-0, group-1, group-2, group-3, group-4 and 3 more;")


def test_groups_that_there_is_no_time_for_are_counted_and_those_with_members_come_first() -> None:
    states = {f"{number:03}": "STABLE" if number % 2 else "EMPTY" for number in range(120)}
    cluster = Cluster(states, {})
    cluster.takes_s = 6.0

    found = other_groups(cluster, {"orders"}, (), clock=cluster.clock, timeout_s=5.0)

    assert found.unanswered == 70
    assert {states[group] for group in cluster.asked} == {"STABLE"}
    assert list(found.warnings()) == [
        "whether 70 more groups read what is sent is not known: there was no answer in time"
    ]


@pytest.mark.parametrize("whole", [True, False])
def test_groups_that_give_no_answer_and_brokers_that_list_none_are_said(whole: bool) -> None:
    cluster = Cluster({"billing": "STABLE", "search": "STABLE"}, {"search": ["orders"]}, whole=whole)
    cluster.silent = {"billing"}

    found = other_groups(cluster, {"orders"}, (), clock=cluster.clock, timeout_s=5.0)

    assert found.unanswered == 1
    assert found.readers == {"orders": [Reader("search", live=True)]}
    assert len(list(found.warnings())) == (2 if whole else 3)
