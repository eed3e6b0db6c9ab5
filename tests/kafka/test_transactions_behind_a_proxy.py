"""Commits of transactions whose requests or answers are lost on the way to a Kafka."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from secrets import token_hex
from threading import Event
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Producer
from fleet.copies import committed_records
from fleet.shipped import chunk_of
from fleet.workers import produce
from servers.kafka import SharedKafka
from servers.proxy import FaultProxy

from streamworker.clock import SystemClock
from streamworker.cluster import Cluster
from streamworker.config import KafkaConfig
from streamworker.interfaces import OffsetMark
from streamworker.librdkafka import admin_settings, topic_log_settings, transactional_settings
from streamworker.record import Letter, TopicPartition
from streamworker.replay.audit import Chain
from streamworker.replay.dead_record import LetterId
from streamworker.replay.shipments import KafkaSender, KafkaStateLog
from streamworker.replay.shipping import PartitionShipping
from streamworker.replay.topic_log import TopicLog
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


@pytest.mark.parametrize("lose", [FaultProxy.drop_down, FaultProxy.drop_up, FaultProxy.reset])
def test_dead_letters_whose_commit_has_lost_its_answer_are_sent_once(
    behind_a_proxy: tuple[KafkaCluster, FaultProxy],
    lose: Callable[[FaultProxy], None],
    figures: Callable[..., None],
) -> None:
    """F-65. The next producer finds out from the states how it ended, and sends what is not marked."""
    cluster, proxy = behind_a_proxy
    names = SharedKafka(cluster)
    letters, target, audit = names.dead_letters(names.topic("in")), names.topic("replays"), names.topic("audit")
    states, dead_letters = names.states(letters), TopicPartition(letters, 0)
    produce(cluster.direct_servers, letters, [(None, "x")] * 4, 1)
    config = KafkaConfig(bootstrap_servers=cluster.bootstrap_servers, librdkafka={"log_level": 0})
    losses: list[Callable[[FaultProxy], None]] = []
    log = TopicLog(topic_log_settings(config), SystemClock())
    shipping = PartitionShipping(
        dead_letters,
        make_sender=lambda _: KafkaSender(
            transactional_settings(config, TRANSACTION_S, f"sw-dlq-{letters}-0"),
            clock=SystemClock(),
            timeout_s=TRANSACTION_S,
            make_producer=lambda settings, **_: Harmed(proxy, losses, settings),  # type: ignore[arg-type, return-value]
        ),
        log=KafkaStateLog(dead_letters, lambda: log),
        make_chain=lambda: Chain(token_hex(4)),
        audit_topic=audit,
        clock=SystemClock(),
        wait=Event().wait,
        chance=lambda: 0.5,
    )
    one, two, three, four = (LetterId(0, offset) for offset in range(4))

    with closing(log), closing(shipping):
        shipping.ship(chunk_of([one], target, op_id="before", at_ms=SystemClock.wall_ms()))
        losses.append(lose)
        harmed = shipping.ship(chunk_of([two, three], target, at_ms=SystemClock.wall_ms()))
        after = shipping.ship(chunk_of([two, four], target, op_id="after", at_ms=SystemClock.wall_ms()))

    found = {topic: committed_records(cluster.direct_servers, topic, 1) for topic in (target, states)}
    assert losses == []
    assert harmed.marked == {two, three}
    assert after.marked == {four}
    assert [message.key() for message in found[target]] == [b"0:0", b"0:1", b"0:2", b"0:3"]
    assert [message.key() for message in found[states]] == [b"0:0", b"0:1", b"0:2", b"0:3"]
    figures("F-65", f"a commit's answer or request is lost ({lose.__name__})", repeats=0, lost=0)
