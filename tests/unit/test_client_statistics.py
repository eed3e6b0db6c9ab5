from __future__ import annotations

import json

import pytest

from streamworker.interfaces import BrokerStatistics
from streamworker.record import TopicPartition
from streamworker.source.statistics import StatisticsReader

GROUP = {"state": "up", "join_state": "steady", "rebalance_cnt": 3}


def broker(number: int, **fields: object) -> dict[str, object]:
    return {"name": f"b{number}:9092/{number}", "nodeid": number, "source": "learned", "rxidle": 1_000, **fields}


def text(brokers: dict[str, dict[str, object]] | None = None, at_s: float = 100.0, **fields: object) -> str:
    return json.dumps({"ts": int(at_s * 1e6), "cgrp": GROUP, "brokers": brokers or {}, **fields})


def rtt(answers: int, p50: int, p95: int, p99: int, total: int) -> dict[str, int]:
    """In microseconds."""
    return {"cnt": answers, "p50": p50, "p95": p95, "p99": p99, "sum": total, "max": p99}


def partition(**fields: object) -> dict[str, object]:
    return {"next_offset": 5, "fetch_state": "active", "fetchq_cnt": 0, "fetchq_size": 0, **fields}


def test_a_broker_is_called_by_its_number_and_the_coordinator_so() -> None:
    figures = broker(3, disconnects=2, txerrs=3, rxerrs=4, req_timeouts=5, rtt=rtt(10, 1_000, 2_000, 3_000, 12_000))
    coordinator = {**broker(3), "name": "GroupCoordinator", "source": "logical", "disconnects": 7}

    read = StatisticsReader(("steady",)).read(text({"b3:9092/3": figures, "GroupCoordinator": coordinator}), 100.0)

    assert read.client.brokers["3"] == BrokerStatistics(
        rtt_s={"0.5": 0.001, "0.95": 0.002, "0.99": 0.003},
        answers=10,
        answers_s=0.012,
        disconnects=2,
        tx_errors=3,
        rx_errors=4,
        request_timeouts=5,
    )
    assert read.client.brokers["coordinator"].disconnects == 7
    assert read.client.rebalances == 3


def test_an_address_that_is_only_configured_is_no_broker() -> None:
    bootstrap = {"name": "b:9092/bootstrap", "nodeid": -1, "source": "configured"}

    read = StatisticsReader(("steady",)).read(text({"b:9092/bootstrap": bootstrap, "b0": broker(0)}), 100.0)

    assert list(read.client.brokers) == ["0"]


def test_an_interval_without_answers_takes_no_time_away_and_answers_are_summed_up() -> None:
    reader = StatisticsReader(("steady",))

    for interval in (rtt(2, 10, 20, 30, 40), rtt(0, 0, 0, 0, 0), rtt(1, 50, 50, 50, 50), rtt(0, 0, 0, 0, 0)):
        read = reader.read(text({"b1": broker(1, rtt=interval)}), 100.0)

    told = read.client.brokers["1"]
    assert told.rtt_s == {"0.5": 50e-6, "0.95": 50e-6, "0.99": 50e-6}
    assert told.answers == 3
    assert told.answers_s == pytest.approx(90e-6)


def test_a_wait_that_a_quota_brought_is_told_for_a_minute() -> None:
    reader = StatisticsReader(("steady",))

    told = [
        reader.read(text({"b1": broker(1, throttle={"max": waited_ms})}, at_s), at_s).client.brokers["1"].throttle_s
        for at_s, waited_ms in ((100.0, 0), (101.0, 700), (102.0, 40), (160.0, 0), (162.0, 0))
    ]

    assert told == [0.0, 0.7, 0.7, 0.7, 0.0]


def test_a_cluster_that_makes_up_brokers_makes_no_more_figures_than_a_hundred() -> None:
    reader = StatisticsReader(("steady",))

    for first in (0, 5_000):
        made_up = {f"b{number}": broker(number) for number in range(first, first + 5_000)}
        read = reader.read(text({**made_up, "GroupCoordinator": broker(1)}), 100.0)

    assert list(read.client.brokers) == ["coordinator", *(str(number) for number in range(5_000, 5_100))]
    assert len(reader._kept) == 101


def test_partitions_that_are_not_fetched_any_more_have_nothing_in_the_queue() -> None:
    topics = {
        "orders": {
            "partitions": {
                "0": partition(next_offset=17, fetchq_cnt=3, fetchq_size=300),
                "1": partition(fetch_state="stopped", fetchq_cnt=9, fetchq_size=900),
                "2": partition(fetch_state="none", next_offset=-1001, fetchq_cnt=9),
                "-1": partition(fetchq_cnt=9, next_offset=8),
            }
        }
    }

    read = StatisticsReader(("steady",)).read(text(topics=topics, replyq=4), 100.0)

    assert (read.client.fetch_queue_records, read.client.fetch_queue_bytes) == (3, 300)
    assert read.client.reply_queue_ops == 4
    assert read.positions == {TopicPartition("orders", 0): 17, TopicPartition("orders", 1): 5}


def test_what_is_no_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match="truncated"):
        StatisticsReader(("steady",)).read("{", 100.0)
