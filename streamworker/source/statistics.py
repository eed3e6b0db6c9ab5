"""What the client's statistics say of the group, of brokers and of its queues, in our own terms.

Decided here: which brokers are told of, and for how long a figure stands in for one that an interval did not bring.
Standard library and msgspec only; the loop thread owns the reader.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from streamworker.interfaces import BrokerStatistics, ClientStatistics, Membership
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

# librdkafka's name of the connection over which a member speaks to its coordinator, whichever broker that is.
_COORDINATOR = "GroupCoordinator"
# Clusters have tens of brokers. Each is nine series, so even one that is announced anew all the time stays bounded.
_MAX_BROKERS = 100
# Whoever looks at a gauge does so each 15 to 60 s, and an interval is a second.
_REMEMBERED_S = 60.0
_UNFETCHED = frozenset({"none", "stopped"})  # what the client keeps of partitions that have gone


class _Window(msgspec.Struct):
    """Of one interval; in microseconds for `rtt`, in milliseconds for `throttle`."""

    max: int = 0
    sum: int = 0
    cnt: int = 0
    p50: int = 0
    p95: int = 0
    p99: int = 0


class _Group(msgspec.Struct):
    state: str = ""
    join_state: str = ""
    rebalance_cnt: int = 0


class _Broker(msgspec.Struct):
    nodeid: int = -1  # -1 of an address that was only configured
    rxidle: int = -1  # microseconds since the last byte came; -1 before the first
    disconnects: int = 0
    txerrs: int = 0
    rxerrs: int = 0
    req_timeouts: int = 0
    rtt: _Window = msgspec.field(default_factory=_Window)
    throttle: _Window = msgspec.field(default_factory=_Window)


class _Partition(msgspec.Struct):
    next_offset: int = -1
    fetch_state: str = ""
    fetchq_cnt: int = 0
    fetchq_size: int = 0


class _Topic(msgspec.Struct):
    partitions: dict[int, _Partition] = msgspec.field(default_factory=dict)


class _Statistics(msgspec.Struct):
    ts: int = 0  # the client's monotonic clock, in microseconds
    replyq: int = 0
    cgrp: _Group = msgspec.field(default_factory=_Group)
    brokers: dict[str, _Broker] = msgspec.field(default_factory=dict)
    topics: dict[str, _Topic] = msgspec.field(default_factory=dict)


@dataclass(slots=True)
class _Kept:
    """Of one broker, from interval to interval."""

    rtt_s: Mapping[str, float] = field(default_factory=dict)
    answers: int = 0
    answers_s: float = 0.0
    throttle_s: float = 0.0
    throttled_at_s: float = 0.0

    def take(self, broker: _Broker, now_s: float) -> None:
        """One more interval."""
        rtt = broker.rtt
        if rtt.cnt:
            self.rtt_s = {"0.5": rtt.p50 / 1e6, "0.95": rtt.p95 / 1e6, "0.99": rtt.p99 / 1e6}
            self.answers += rtt.cnt
            self.answers_s += rtt.sum / 1e6
        throttle_s = broker.throttle.max / 1e3
        if throttle_s >= self.throttle_s or now_s - self.throttled_at_s > _REMEMBERED_S:
            self.throttle_s, self.throttled_at_s = throttle_s, now_s


@dataclass(frozen=True, slots=True)
class Reading:
    """One text of statistics; `positions` are the next offsets to be fetched."""

    membership: Membership
    positions: Mapping[TopicPartition, int]
    client: ClientStatistics


class StatisticsReader:
    """Reads one text after the other; a member has joined in one of `joined_states`."""

    def __init__(self, joined_states: Collection[str]) -> None:
        self._joined_states = joined_states
        self._decode = msgspec.json.Decoder(_Statistics).decode
        self._kept: dict[str, _Kept] = {}

    def read(self, text: str, now_s: float) -> Reading:
        """What `text` says at the monotonic time `now_s`; raises ValueError for what are no statistics."""
        statistics = self._decode(text)
        # They may have waited in the client's queue while the process was stopped. Where the client's clock is not this
        # one (it is the wall clock on macOS) it is far ahead.
        heard_s = min(now_s, statistics.ts / 1e6)
        partitions = dict(_partitions(statistics))
        fetched = [one for one in partitions.values() if one.fetch_state not in _UNFETCHED]
        return Reading(
            self._membership(statistics, heard_s),
            {key: one.next_offset for key, one in partitions.items() if one.next_offset >= 0},
            ClientStatistics(
                brokers=self._brokers(statistics, heard_s),
                fetch_queue_records=sum(one.fetchq_cnt for one in fetched),
                fetch_queue_bytes=sum(one.fetchq_size for one in fetched),
                reply_queue_ops=statistics.replyq,
                rebalances=statistics.cgrp.rebalance_cnt,
            ),
        )

    def _membership(self, statistics: _Statistics, heard_s: float) -> Membership:
        coordinator, group = statistics.brokers.get(_COORDINATOR), statistics.cgrp
        idle_s = coordinator.rxidle / 1e6 if coordinator else -1.0
        is_member = group.state == "up" and group.join_state == "steady"
        return Membership(
            joined=group.state == "up" and group.join_state in self._joined_states,
            state=f"{group.state}/{group.join_state}",
            coordinator_idle_s=max(idle_s, 0.0),
            heard_s=heard_s,
            proven_s=heard_s - idle_s if is_member and idle_s >= 0 else None,
            reached=any(broker.rxidle >= 0 for broker in statistics.brokers.values()),
        )

    def _brokers(self, statistics: _Statistics, now_s: float) -> Mapping[str, BrokerStatistics]:
        known = dict(_named(statistics.brokers))
        self._kept = {name: self._kept.get(name) or _Kept() for name in known}
        for name, kept in self._kept.items():
            kept.take(known[name], now_s)
        return {name: _told(known[name], kept) for name, kept in self._kept.items()}


def _partitions(statistics: _Statistics) -> Iterator[tuple[TopicPartition, _Partition]]:
    """Without the client's own: of a topic's partitions it counts one as number -1, for what has none yet."""
    for topic, found in statistics.topics.items():
        for number, one in found.partitions.items():
            if number >= 0:
                yield TopicPartition(topic, number), one


def _named(brokers: Mapping[str, _Broker]) -> Iterator[tuple[str, _Broker]]:
    """By what they are called in metrics. Without addresses that only stand in the configuration."""
    coordinator = brokers.get(_COORDINATOR)
    if coordinator is not None:
        yield "coordinator", coordinator
    learned = [one for name, one in brokers.items() if name != _COORDINATOR and one.nodeid >= 0]
    for one in sorted(learned, key=lambda one: one.nodeid)[:_MAX_BROKERS]:
        yield str(one.nodeid), one


def _told(broker: _Broker, kept: _Kept) -> BrokerStatistics:
    return BrokerStatistics(
        rtt_s=kept.rtt_s,
        answers=kept.answers,
        answers_s=kept.answers_s,
        throttle_s=kept.throttle_s,
        disconnects=broker.disconnects,
        tx_errors=broker.txerrs,
        rx_errors=broker.rxerrs,
        request_timeouts=broker.req_timeouts,
    )
