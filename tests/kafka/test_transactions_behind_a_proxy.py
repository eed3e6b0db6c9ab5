"""Commits of transactions whose requests or answers are lost on the way to a Kafka."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Producer
from fleet.copies import committed_records
from servers.kafka import SharedKafka
from servers.proxy import FaultProxy

from streamworker.clock import SystemClock
from streamworker.cluster import Cluster
from streamworker.config import KafkaConfig
from streamworker.interfaces import OffsetMark
from streamworker.librdkafka import admin_settings, transactional_settings
from streamworker.record import Letter, TopicPartition
from streamworker.transactions.transactor import KafkaTransactor, Transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers.kafka_cluster import KafkaCluster

TRANSACTION_S = 3.0
TIMEOUT_S = 40.0


class Harmed:
    """A producer; what `lose` does is done to the proxy for as long as its next commit takes."""

    def __init__(self, proxy: FaultProxy, lose: list[Callable[[FaultProxy], None]], settings: object) -> None:
        self._producer = Producer(settings)
        self._proxy = proxy
        self._lose = lose

    def __getattr__(self, name: str) -> object:
        return getattr(self._producer, name)

    def __len__(self) -> int:
        return len(self._producer)

    def commit_transaction(self, timeout_s: float) -> None:
        if not self._lose:
            self._producer.commit_transaction(timeout_s)
            return
        self._lose.pop()(self._proxy)
        try:
            self._producer.commit_transaction(timeout_s)
        finally:
            self._proxy.heal()


@pytest.mark.parametrize("lose", [FaultProxy.drop_down, FaultProxy.drop_up, FaultProxy.reset])
def test_however_a_commit_ends_whose_answer_is_lost_its_outputs_are_there_once(
    behind_a_proxy: tuple[KafkaCluster, FaultProxy],
    lose: Callable[[FaultProxy], None],
    figures: Callable[..., None],
) -> None:
    """F-84. What came to nothing is sent again, as the worker does."""
    cluster, proxy = behind_a_proxy
    names = SharedKafka(cluster)
    topic, out, group = names.topic("in"), names.topic("out"), names.group("g")
    config = KafkaConfig(bootstrap_servers=cluster.bootstrap_servers, group=group, librdkafka={"log_level": 0})
    partition = TopicPartition(topic, 0)
    losses: list[Callable[[FaultProxy], None]] = []
    described = Cluster(admin_settings(config))
    transactor = KafkaTransactor(
        transactional_settings(config, TRANSACTION_S, f"sw-{group}"),
        committed=partial(described.stable_group_offsets, group),
        clock=SystemClock(),
        timeout_s=TRANSACTION_S,
        make_producer=lambda settings, **_: Harmed(proxy, losses, settings),  # type: ignore[arg-type, return-value]
    )

    def made(offset: int, membership: object) -> bool:
        """Whether the transaction of so many records was committed."""
        letters = [Letter(out, 0, b"k", b"%d" % offset, (), timestamp_ms=0)]
        marks = {partition: OffsetMark(offset, f"sw2 q={offset} @{offset} r")}
        transactor.submit(Transaction(letters, marks, membership))
        transactor.wait(TIMEOUT_S)
        ended = transactor.ended()
        assert ended is not None, "it has not ended"
        return ended.error is None

    with closing(Consumer({"bootstrap.servers": cluster.direct_servers, "group.id": group})) as member:
        membership = member.consumer_group_metadata()
        assert made(1, membership)
        losses.append(lose)
        told = made(2, membership)
        there = [one.value() for one in committed_records(cluster.direct_servers, out, 1)]
        again = told or made(2, membership)
        assert made(3, membership) or made(3, membership)  # the client may hang, see the transactor
        values = [one.value() for one in committed_records(cluster.direct_servers, out, 1)]
    transactor.close(TIMEOUT_S)

    assert losses == []
    assert told == (b"2" in there)
    assert again
    assert values == [b"1", b"2", b"3"]
    outcome = "committed" if told else "aborted"
    figures("F-84", f"a commit's answer or request is lost ({lose.__name__})", outcome=outcome, repeats=0, lost=0)
