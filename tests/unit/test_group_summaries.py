"""Consumer groups for people: what brokers and workers say of them, and what is said to be missing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from streamworker.cluster import GroupState, TopicShape
from streamworker.errors import ClientError
from streamworker.interfaces import OffsetMark
from streamworker.observability.status import (
    LifeState,
    PartitionStatus,
    PauseStatus,
    StopStatus,
    WorkerStatus,
    as_json,
)
from streamworker.offsets.codec import encode
from streamworker.offsets.progress import Progress
from streamworker.reason import Reason
from streamworker.record import TopicPartition
from streamworker.replay.group_summaries import NOT_CONFIGURED, summaries
from streamworker.replay.worker_pages import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.replay.desk import GroupSummary

ORDERS, RETURNS = TopicPartition("orders", 0), TopicPartition("orders", 1)
BOTH = {ORDERS: "shop-1 (10.0.0.1)", RETURNS: "shop-2 (10.0.0.2)"}


class Cluster:
    """A topic of two partitions with a hundred records each, and a group that has committed 90 of the first."""

    def __init__(
        self, state: GroupState | None = None, marks: Mapping[TopicPartition, OffsetMark | None] | None = None
    ) -> None:
        self.refuses: str | None = None
        self._state = state
        self._marks = {ORDERS: OffsetMark(90, "")} if marks is None else marks

    def group_state(self, group: str, timeout_s: float) -> GroupState | None:
        del group, timeout_s
        return self._state

    def group_offsets(
        self, group: str, partitions: Sequence[TopicPartition] | None, timeout_s: float
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        del group, partitions, timeout_s
        if self.refuses is not None:
            raise ClientError("not allowed", code=self.refuses)
        return self._marks

    def topics(self, timeout_s: float) -> Mapping[str, TopicShape]:
        del timeout_s
        return {"orders": TopicShape(2, 1)}

    def end_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> Mapping[TopicPartition, int]:
        del timeout_s
        assert all(one in (ORDERS, RETURNS) for one in partitions)
        return dict.fromkeys(partitions, 100)

    def log_start_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> Mapping[TopicPartition, int]:
        del timeout_s
        return dict.fromkeys(partitions, 40)


class Workers:
    def __init__(self, *answers: Answer, configured: bool = True) -> None:
        self.configured = configured
        self._answers = answers

    def ask(self, timeout_s: float) -> Sequence[Answer]:
        del timeout_s
        assert self.configured
        return self._answers


def status(*partitions: PartitionStatus, group: str = "shop", breakers: Mapping[str, str] | None = None) -> object:
    """What a worker's page says, as whoever reads it gets it."""
    found = WorkerStatus(
        state=LifeState.RUNNING,
        group=group,
        handlers=("StoreOrders",),
        protocol="classic",
        started_s=0.0,
        now_s=60.0,
        partitions=partitions,
        breakers=breakers or {},
    )
    return json.loads(json.dumps(as_json(found, 60.0)))


def said(content: object) -> Answer:
    return Answer("http://10.0.0.1:8080", content)


def shop(cluster: Cluster, workers: Workers) -> GroupSummary:
    [found] = summaries(["shop"], cluster, workers, 5.0)
    return found


def paused(*pauses: str, stopped: Reason | None = None, of: TopicPartition = ORDERS) -> PartitionStatus:
    stop = None if stopped is None else StopStatus(stopped, "at 7", mends_itself=False, since_s=1.0)
    reasons = tuple(PauseStatus(one, 1.0, "open for 5 s" if one == "breaker" else "") for one in pauses)
    return PartitionStatus(topic=of.topic, partition=of.partition, epoch=1, pauses=reasons, stopped=stop)


def test_lag_and_owners_are_the_brokers_word() -> None:
    found = shop(Cluster(GroupState("STABLE", 2, BOTH)), Workers(configured=False))

    assert (found.group, found.state, found.members) == ("shop", "STABLE", 2)
    assert [(one.topic, one.partition, one.committed, one.end, one.lag, one.owner) for one in found.partitions] == [
        ("orders", 0, 90, 100, 10, "shop-1 (10.0.0.1)"),
        ("orders", 1, None, 100, 60, "shop-2 (10.0.0.2)"),
    ]
    assert found.missing == NOT_CONFIGURED


def test_what_is_done_beyond_the_committed_offset_is_no_lag() -> None:
    metadata = encode(1, Progress(90, done=((92, 94), (97, 97)))).text

    found = shop(Cluster(GroupState("STABLE", 1), {ORDERS: OffsetMark(90, metadata)}), Workers(configured=False))

    assert found.partitions[0].lag == 6


def test_offsets_of_topics_that_are_gone_are_left_out() -> None:
    marks = {
        ORDERS: OffsetMark(90, ""),
        TopicPartition("gone", 0): OffsetMark(1, ""),
        TopicPartition("orders", 7): None,
    }

    found = shop(Cluster(GroupState("EMPTY", 0), marks), Workers(configured=False))

    assert [(one.topic, one.partition) for one in found.partitions] == [("orders", 0)]


def test_pauses_and_breakers_are_the_workers_word() -> None:
    first = status(paused("breaker", "backpressure"), breakers={"postgres": "half_open", "http": "closed"})
    second = status(
        paused(stopped=Reason.OFFSET_OUT_OF_RANGE, of=RETURNS), breakers={"postgres": "open", "http": "closed"}
    )

    found = shop(Cluster(GroupState("STABLE", 2, BOTH)), Workers(said(first), said(second)))

    assert [one.paused for one in found.partitions] == [
        ["breaker: open for 5 s", "backpressure"],
        ["stopped, offset_out_of_range: at 7"],
    ]
    assert found.breakers == {"http": "closed", "postgres": "open"}
    assert found.missing is None


def test_of_a_breakers_states_the_worst_is_shown_and_one_that_is_not_known_is_no_good_news() -> None:
    answers = [said(status(breakers={"http": state})) for state in ("closed", "breaking", "open")]

    assert shop(Cluster(GroupState("STABLE", 3)), Workers(*answers[::2])).breakers == {"http": "open"}
    assert shop(Cluster(GroupState("STABLE", 3)), Workers(*answers)).breakers == {"http": "breaking"}


def test_a_supervisor_says_what_its_workers_say_and_those_that_are_away_say_nothing() -> None:
    children = [{"worker": 0, "status": status(paused("lease"))}, {"worker": 1, "status": None}]

    found = shop(
        Cluster(GroupState("STABLE", 1, {ORDERS: "shop-1 (10.0.0.1)"})),
        Workers(said({"processes": 2, "workers": children})),
    )

    assert found.partitions[0].paused == ["lease"]
    assert found.missing is None


def test_what_workers_of_other_groups_say_is_not_of_this_one() -> None:
    other = status(paused("backpressure"), group="billing", breakers={"http": "open"})

    found = shop(Cluster(GroupState("STABLE", 1, {ORDERS: "shop-1 (10.0.0.1)"})), Workers(said(other)))

    assert (found.partitions[0].paused, found.breakers) == ((), {})
    assert found.missing == "what holds one partition is not known: no worker that answered has them"


def test_workers_that_say_nothing_are_named_and_so_is_what_is_not_known_then() -> None:
    silent = [Answer(f"http://10.0.0.{number}:8080", None, "no answer in time") for number in range(5)]

    found = shop(Cluster(GroupState("STABLE", 2, BOTH)), Workers(*silent))

    assert found.missing == (
        "no answer of http://10.0.0.0:8080 (no answer in time), http://10.0.0.1:8080 (no answer in time),"
        " http://10.0.0.2:8080 (no answer in time) and 2 more; what holds 2 partitions is not known: no worker that"
        " answered has them"
    )


@pytest.mark.parametrize(
    "content", [None, [], "worker", {"group": 7}, {"workers": 7}, {"group": "shop", "partitions": [{"topic": 1}]}]
)
def test_an_answer_that_is_no_workers_is_said_and_not_believed(content: object) -> None:
    found = shop(Cluster(GroupState("EMPTY", 0)), Workers(said(content)))

    assert found.missing is not None
    assert "its answer is not that of a worker" in found.missing


def test_what_the_cluster_does_not_tell_is_said() -> None:
    cluster = Cluster(None)
    cluster.refuses = "GROUP_AUTHORIZATION_FAILED"

    found = shop(cluster, Workers())

    assert (found.state, found.partitions) == ("UNKNOWN", [])
    assert found.missing == ("the cluster does not tell whether it has members; its offsets are not known: not allowed")
