"""What an observer says, serves and exports of the groups that it looks at."""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamworker.errors import ClientError
from streamworker.lag.group_lag import GroupLag, PartitionLag
from streamworker.lag.observer import Observer
from streamworker.lag.observer_site import ObserverSite
from streamworker.lag.states import State
from streamworker.observability.catalogue import ObserverMetric
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from streamworker.lag.figures import Figures


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return round(self.now_s * 1000)


def part(number: int, lag: int | None, state: State | None, **others: float | None) -> PartitionLag:
    return PartitionLag(
        partition=TopicPartition("orders", number),
        committed=None if lag is None else 100 - lag,
        start=0,
        end=100,
        lag=lag,
        lag_s=others.get("lag_s"),
        data_loss_s=others.get("data_loss_s"),
        owner=None,
        state=state,
        reason="as it is",
    )


class Watch:
    """Gives what it is told to; as a `GroupWatch`."""

    def __init__(self, *parts: PartitionLag) -> None:
        self.groups: list[GroupLag] = [GroupLag("shop", "STABLE", 2, parts, {"orders": 1})]
        self.error: Exception | None = None
        self.looked = threading.Event()

    def look(self, groups: Collection[str]) -> Sequence[GroupLag]:
        assert list(groups) == ["shop"]
        self.looked.set()
        if self.error is not None:
            raise self.error
        return self.groups


class World:
    def __init__(self, *parts: PartitionLag, interval_s: float = 10.0) -> None:
        self.watch, self.clock = Watch(*parts), Clock()
        self.observer = Observer(self.watch, lambda: ["shop"], self.clock, interval_s=interval_s)  # type: ignore[arg-type]

    def samples(self, more: Figures | None = None) -> dict[str, float]:
        page = ObserverSite(self.observer, lambda: more or {}).get("/metrics")
        return {
            one.name.removeprefix("streamworker_") + str(sorted(one.labels.values())): one.value
            for family in text_string_to_metric_families(page.body.decode())
            for one in family.samples
        }


def test_metrics_have_sums_of_records_and_the_worst_of_all_else() -> None:
    world = World(
        part(0, 10, State.WARN, lag_s=3.0, data_loss_s=60.0),
        part(1, 5, State.OK, lag_s=9.0, data_loss_s=90.0),
        part(2, None, None),
    )
    world.observer.look()

    assert world.samples() == {
        "group_lag_records['orders', 'shop']": 15,
        "group_lag_seconds['orders', 'shop']": 9,
        "group_data_loss_seconds['orders', 'shop']": 60,
        "group_unowned_partitions['orders', 'shop']": 1,
        "group_members['shop']": 2,
        "consumer_lag_state['0', 'orders', 'shop', 'warn']": 1,
        "consumer_lag_state['1', 'ok', 'orders', 'shop']": 1,
        "lag_observed_timestamp_seconds[]": 1000,
    }


def test_what_is_not_known_has_no_sample() -> None:
    world = World(part(0, None, None))
    world.watch.groups = [GroupLag("shop", "UNKNOWN", None, error="not allowed")]
    world.observer.look()

    assert set(world.samples()) == {"lag_observed_timestamp_seconds[]"}


def test_figures_that_could_not_be_renewed_for_three_intervals_are_not_told_any_more() -> None:
    world = World(part(0, 10, State.OK))
    world.observer.look()
    world.watch.error = ClientError("no answer", code="_TIMED_OUT")

    world.clock.now_s += 30
    world.observer.look()
    still = world.samples()
    world.clock.now_s += 1
    gone = world.samples()

    assert still["group_lag_records['orders', 'shop']"] == 10
    assert gone == {"lag_observed_timestamp_seconds[]": 1000}


def test_figures_of_dead_letters_stand_beside_those_of_groups_and_may_be_missing() -> None:
    world = World(part(0, 10, State.OK))
    world.observer.look()

    with_them = world.samples({ObserverMetric.DLQ_PENDING: {("orders.dlq",): 3}})
    page = ObserverSite(world.observer, lambda: 1 / 0).get("/metrics")  # type: ignore[arg-type, return-value]

    assert with_them["dlq_pending_records['orders.dlq']"] == 3
    assert b"group_lag_records" in page.body


def test_a_change_of_state_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World(part(0, 10, None), part(1, 0, State.OK))
    caplog.set_level(logging.INFO)
    world.observer.look()
    world.watch.groups = [GroupLag("shop", "STABLE", 2, [part(0, 10, State.STALL), part(1, 0, State.OK)])]
    world.observer.look()
    world.observer.look()
    world.watch.groups = [GroupLag("shop", "STABLE", 2, [part(0, 0, State.OK), part(1, 0, State.OK)])]
    world.observer.look()

    said = [(one.levelname, one.partition, one.before, one.state) for one in caplog.records]  # type: ignore[attr-defined]
    assert said == [
        ("INFO", 1, "unknown", "ok"),
        ("WARNING", 0, "unknown", "stall"),
        ("INFO", 0, "stall", "ok"),
    ]


def test_a_group_that_cannot_be_looked_at_is_said_and_its_states_stay(caplog: pytest.LogCaptureFixture) -> None:
    world = World(part(0, 10, State.STALL))
    world.observer.look()
    caplog.clear()

    groups = world.watch.groups
    world.watch.groups = [GroupLag("shop", "UNKNOWN", None, error="not allowed")]
    world.observer.look()
    world.watch.groups = groups
    world.observer.look()

    assert [one.message for one in caplog.records] == ["a group cannot be looked at"]


@pytest.mark.parametrize(("probe", "before", "after", "late"), [
    ("live", 200, 200, 503),
    ("ready", 503, 200, 503),
    ("startup", 503, 200, 200),
])  # fmt: skip
def test_probes(probe: str, before: int, after: int, late: int) -> None:
    world = World(part(0, 10, State.OK))
    site = ObserverSite(world.observer)

    answers = [site.get(f"/health/{probe}").status]
    world.observer.look()
    answers.append(site.get(f"/health/{probe}").status)
    world.clock.now_s += 200
    answers.append(site.get(f"/health/{probe}").status)

    assert answers == [before, after, late]


def test_the_status_has_all_that_was_seen() -> None:
    world = World(part(0, 10, State.STALL, lag_s=3.00004))
    world.observer.look()

    [group] = json.loads(ObserverSite(world.observer).get("/status").body)["groups"]

    assert (group["group"], group["state"], group["members"]) == ("shop", "stall", 2)
    assert group["topics"] == [{"topic": "orders", "lag": 10, "lag_s": 3.0, "data_loss_s": None, "unowned": 1}]
    assert (group["partitions"][0]["reason"], group["partitions"][0]["lag_s"]) == ("as it is", 3.0)


def test_it_looks_again_and_again_whatever_is_raised_until_it_is_stopped() -> None:
    world = World(part(0, 10, State.OK), interval_s=0.001)
    world.watch.error = ZeroDivisionError("a bug")
    world.observer.start()
    assert world.watch.looked.wait(5.0)
    world.watch.looked.clear()
    assert world.watch.looked.wait(5.0)

    assert world.observer.stop()
    assert world.observer.stop()
