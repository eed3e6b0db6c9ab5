"""What happens when partitions come and go.

Runs on the loop thread inside a fetch or the close, where nothing may be fetched. Assigned: find
where to start, begin an ownership. Revoked: start nothing more, finish and commit what is in hand within the
time, end the ownership. Lost: the broker has given the partition away already, so only end it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

from streamworker.errors import ClientError
from streamworker.interfaces import Start
from streamworker.offsets.policy import StartKind, StartPolicy, parse_start, plan_starts
from streamworker.reason import Reason
from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker.closing import Closing
    from streamworker.interfaces import CacheTruth, Log, OffsetMark
    from streamworker.offsets.policy import StartPlan
    from streamworker.parking import Parking
    from streamworker.partition import Partition
    from streamworker.partitions import Partitions
    from streamworker.quarantine import Quarantine
    from streamworker.record import TopicPartition
    from streamworker.stages import HandlerStages, Stages
    from streamworker.unread import Unread

# How long the assignment waits for answers to all its questions before it goes on without them.
_OFFSETS_TIMEOUT_S = 5.0
# Then they are asked again each second, and the first that is not answered within this ends it.
_ASK_AGAIN_S, _ASK_TIMEOUT_S = 1.0, 0.5
# The commit's share of the revoke timeout.
_COMMIT_SHARE_S = 2.0
# Statistics come each second and heartbeats every three (KIP-848: five by the broker's default): a coordinator
# that was not heard for longer than both is not waited for, because a synchronous commit has no timeout.
_COORDINATOR_SILENCE_S = 6.5

_EARLIEST = StartPolicy(StartKind.EARLIEST)


@dataclass(frozen=True, slots=True)
class _Patience:
    """How long questions are waited for: all of them until a monotonic time, each no longer than `each_s`."""

    until_s: float
    each_s: float = inf


class Rebalancing:
    """The `Rebalance` of a worker.

    `step` lets the worker settle for at most the time given, without fetching.
    """

    def __init__(
        self,
        stages: Stages,
        partitions: Partitions,
        closing: Closing,
        *,
        quarantine: Quarantine,
        parking: Parking,
        unread: Unread,
        log: Log,
        caches: CacheTruth | None,
        step: Callable[[float], None],
    ) -> None:
        self._source = stages.source
        self._log = log
        self._caches = caches
        self._quarantine = quarantine
        self._parking = parking
        self._unread = unread
        self._handlers = stages.handlers
        self._routes = stages.routes
        self._ledger = stages.ledger
        self._committer = stages.committer
        self._partitions = partitions
        self._config = stages.config
        self._clock = stages.clock
        self._listener = stages.listener
        self._closing = closing
        self._step = step
        self._policy = parse_start(stages.config.kafka.start)
        self._ask_at_s = 0.0
        self.draining = False  # set once: what is assigned from then on is neither asked about nor fetched

    def assigned(self, keys: Sequence[TopicPartition]) -> Mapping[TopicPartition, Start]:
        """Begin ownerships and say where they start."""
        began_s = self._clock.monotonic_s()
        plans = {} if self.draining else self._plans(keys, _Patience(began_s + _OFFSETS_TIMEOUT_S))
        starts = {key: self._begin(key, plans.get(key)) for key in keys}
        if keys:
            self._listener.assigned(keys)
        return starts

    def revoked(self, keys: Sequence[TopicPartition]) -> None:
        """Finish and commit what is in hand, then end the ownerships."""
        began_s = self._clock.monotonic_s()
        until_s = began_s + self._config.lifecycle.revoke_timeout_s
        finish_until_s = max(until_s - _COMMIT_SHARE_S, began_s)
        self._closing.close(keys)
        self._partitions.end_by(keys, finish_until_s)
        while self._closing.in_hand(keys) and self._clock.monotonic_s() < finish_until_s:
            self._step(finish_until_s - self._clock.monotonic_s())
        self._closing.abandon(keys)
        self.commit(keys, until_s)
        self._partitions.end(keys)
        if keys:
            self._listener.revoked(keys, self._clock.monotonic_s() - began_s)

    def lost(self, keys: Sequence[TopicPartition]) -> None:
        """End the ownerships; there is nothing to be committed any more."""
        self._partitions.end(keys)
        if keys:
            self._listener.lost(keys)

    def commit(self, keys: Sequence[TopicPartition], until_s: float) -> None:
        """The last commit of an ownership: waited for only while the coordinator answers."""
        self._partitions.give_back(keys)
        if self._coordinator_answers():
            self._committer.commit_now(keys, until_s=until_s, meanwhile=self._step)
        else:
            self._committer.send_last(keys)

    def ask_again(self, now_s: float) -> None:
        """Ask for the offsets of partitions that were assigned without them; at most once a second."""
        unknown = [partition for partition in self._partitions if not partition.positioned]
        if not unknown or now_s < self._ask_at_s:
            return
        self._ask_at_s = now_s + _ASK_AGAIN_S
        plans = self._plans(
            [partition.key for partition in unknown], _Patience(now_s + _OFFSETS_TIMEOUT_S, _ASK_TIMEOUT_S)
        )
        for partition in unknown:
            plan = plans.get(partition.key)
            if plan is not None:
                self._locate(partition, plan)

    def _locate(self, partition: Partition, plan: StartPlan) -> None:
        try:
            self._source().seek(partition.key, plan.offset)
        except ClientError:
            return  # the client has not begun with it yet; it is asked about again
        self._partitions.position(partition, plan.offset, plan.progress, plan.topic_id)
        self._use(partition, plan)
        self._partitions.release(partition, PauseReason.OFFSETS_UNKNOWN)

    def _begin(self, key: TopicPartition, plan: StartPlan | None) -> Start:
        route = self._routes.of(key.topic)
        handler = self._handler_of(key.topic) if route is None else self._handlers[route.handler]
        if plan is None:
            partition = self._partitions.own(key, handler=handler, start_offset=None)
            self._partitions.hold(partition, PauseReason.OFFSETS_UNKNOWN)
        else:
            partition = self._partitions.own(
                key, handler=handler, start_offset=plan.offset, progress=plan.progress, topic_id=plan.topic_id
            )
            self._use(partition, plan)
        self._parking.begin(partition)
        return Start(partition.start_offset, self._ledger.own(key))

    def _handler_of(self, topic: str) -> HandlerStages:
        return next(one for one in self._handlers if one.declared.subscribes_to(topic))

    def _use(self, partition: Partition, plan: StartPlan) -> None:
        partition.foreign = plan.foreign or plan.progress is None or plan.progress.rewound
        if self._caches is not None and plan.progress is not None and plan.progress.untold:
            self._caches.distrust()
        if plan.foreign:
            self._listener.foreign_offset(partition.key, plan.offset)
        if plan.other_topic:
            detail = f"offset {plan.offset} was committed for another topic of this name, which was deleted since"
            self._partitions.stop(partition, Reason.TOPIC_MADE_ANEW, detail, mends_itself=False)
        self._quarantine.begin(partition, plan.progress, plan.end)
        self._unread.begin(partition, plan.progress, plan.end)

    def _plans(self, keys: Sequence[TopicPartition], patience: _Patience) -> Mapping[TopicPartition, StartPlan]:
        """Plans with their offsets resolved; empty if the cluster does not say in time."""
        if not keys:
            return {}
        try:
            committed = self._committed_of_topics(keys, patience)
            retried = [key for key in keys if self._routes.of(key.topic) is not None]
            # Whatever is in a retry or replay topic is there because it is still to be handled.
            plans = {**plan_starts(keys, committed, self._policy), **plan_starts(retried, committed, _EARLIEST)}
            plans = dict(self._resolved(plans, patience))
        except ClientError:
            return {}
        return self._with_topic_ids(self._with_ends(plans, patience), patience)

    def _with_topic_ids(
        self, plans: Mapping[TopicPartition, StartPlan], patience: _Patience
    ) -> Mapping[TopicPartition, StartPlan]:
        """The plans, with what tells their topics from others of the same name; without where nobody says it."""
        topics = sorted({key.topic for key in plans})
        if not topics:
            return plans
        try:
            ids = self._log.topic_ids(topics, min(_ASK_TIMEOUT_S, self._left_s(patience)))
        except ClientError:
            return plans
        return {key: replace(plan, topic_id=ids.get(key.topic, "")) for key, plan in plans.items()}

    def _with_ends(
        self, plans: Mapping[TopicPartition, StartPlan], patience: _Patience
    ) -> Mapping[TopicPartition, StartPlan]:
        """The plans, with the end of the log where a worker has died; it is done without where nobody knows it."""
        concerned = (self._quarantine.concerns, self._unread.concerns)
        suspected = [key for key, plan in plans.items() if any(concerns(plan.progress) for concerns in concerned)]
        if not suspected:
            return plans
        try:
            ends = self._log.end_offsets(suspected, min(_ASK_TIMEOUT_S, self._left_s(patience)))
        except ClientError:
            return plans
        return {key: replace(plan, end=ends.get(key)) for key, plan in plans.items()}

    def _left_s(self, patience: _Patience) -> float:
        """What is left for another question; raises ClientError without any."""
        left_s = patience.until_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise ClientError("the time for an assignment is up", code="_TIMED_OUT")
        return min(left_s, patience.each_s)

    def _committed_of_topics(
        self, keys: Sequence[TopicPartition], patience: _Patience
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        committed = dict(self._source().committed(keys, self._left_s(patience)))
        unknown = {key.topic for key, mark in committed.items() if mark is None}
        # A retry or replay topic begins at its beginning, whatever was committed of its other partitions.
        for topic in [one for one in unknown if self._routes.of(one) is None]:
            siblings = [one for one in self._log.partitions(topic, self._left_s(patience)) if one not in committed]
            if siblings:
                committed.update(self._source().committed(siblings, self._left_s(patience)))
        return committed

    def _resolved(
        self, plans: Mapping[TopicPartition, StartPlan], patience: _Patience
    ) -> Mapping[TopicPartition, StartPlan]:
        chosen = [key for key, plan in plans.items() if plan.kind in (StartKind.LATEST, StartKind.TIMESTAMP)]
        if not chosen:
            return plans
        if self._policy.kind is StartKind.LATEST:
            offsets = self._log.end_offsets(chosen, self._left_s(patience))
        else:
            offsets = self._log.offsets_at(chosen, self._policy.timestamp_ms, self._left_s(patience))
        found = {key: plans[key].at(offset) for key, offset in offsets.items() if key in chosen}
        return {key: plan for key, plan in plans.items() if key not in chosen} | found

    def _coordinator_answers(self) -> bool:
        membership = self._source().membership()
        if membership is None:
            return True
        silence_s = self._clock.monotonic_s() - membership.heard_s + membership.coordinator_idle_s
        return silence_s <= _COORDINATOR_SILENCE_S
