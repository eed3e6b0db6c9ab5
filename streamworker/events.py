"""All that the engine reports, in one list: metrics, logs, `/status` and tests hang from it.

Every event is called on the loop thread, after the fact, for a slice or a partition and never per
record. A listener must not block; what it raises is logged once per event and harms nobody.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker.interfaces import Fault
    from streamworker.record import Ending, TopicPartition


class Listener:
    """Empty methods to override. All are called on the loop thread and must not block."""

    def started(self, handlers: Sequence[str], group: str) -> None:
        """The worker is about to join its group."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Ownership of these began."""

    def revoked(self, partitions: Sequence[TopicPartition], seconds: float) -> None:
        """Ownership of these ended in order; finishing and committing took `seconds`."""

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Ownership of these ended without our doing; nothing could be committed."""

    def fetched(self, partition: TopicPartition, records: int, size_bytes: int) -> None:
        """A fetch brought records of `partition`; `size_bytes` is that of their values."""

    def ended(self, handler: str, partition: TopicPartition, ending: Ending, records: int, seconds: float) -> None:
        """`records` records ended in one way; `seconds` is the slice's time in the handler."""

    def latency(self, topic: str, seconds: float) -> None:
        """A record that was first in `topic` has ended so long after its timestamp.

        Told of one of those that end in one step of the loop, the lowest of its slice. Not of what comes again, was
        never called for, has no timestamp, or was sent again by a person.
        """

    def failed(
        self, handler: str, partition: TopicPartition, offset: int, error: BaseException, attempt: int, ending: Ending
    ) -> None:
        """A call failed, and how that was settled; `offset` is the record at fault, or the batch's first."""

    def expired(self, partition: TopicPartition, offset: int, records: int, age_s: float) -> None:
        """So many records, `offset` the first, ended without a call: older than `max_age_s`, the oldest `age_s`."""

    def deferred(self, partition: TopicPartition, topic: str, reason: str) -> None:
        """The retry `topic` has acknowledged a record of `partition`, which comes back from there."""

    def dead_lettered(self, partition: TopicPartition, topic: str, reason: str) -> None:
        """The dead-letter `topic` has acknowledged a record of `partition`."""

    def dead_letter_refused(self, partition: TopicPartition, offset: int, topic: str, error: str) -> None:
        """The dead-letter topic did not take a record; its partition is stopped and it is tried again."""

    def key_parked(self, partition: TopicPartition, offset: int) -> None:
        """The key of the record at `offset` is parked: later records of it follow it to the dead letters."""

    def key_released(self, partition: TopicPartition, offset: int) -> None:
        """The key that was parked at `offset` is released: records of it are handled again."""

    def stopped(self, partition: TopicPartition, reason: str, detail: str, mends_itself: bool) -> None:
        """The partition is stopped; the rest goes on."""

    def mended(self, partition: TopicPartition, reason: str) -> None:
        """The partition goes on."""

    def paused(self, partition: TopicPartition, reason: str) -> None:
        """A reason to pause came up."""

    def resumed(self, partition: TopicPartition, reason: str, seconds: float) -> None:
        """A reason to pause went away after `seconds`."""

    def head_too_old(
        self, partition: TopicPartition, offset: int, age_s: float, attempts: int, records_behind: int
    ) -> None:
        """The lowest open record of a partition is open for too long; `records_behind` are done and not committed."""

    def waiting_for_group(self, seconds: float) -> None:
        """The worker has subscribed so many `seconds` ago and has not joined yet; told once."""

    def no_broker_reached(self, servers: str, seconds: float) -> None:
        """None of the brokers at `servers` has ever answered, for so many `seconds`; told each 30 s."""

    def lease_expired(self, silent_s: float) -> None:
        """Membership was proven `silent_s` ago for the last time: no call is started and nothing is fetched."""

    def lease_renewed(self, seconds: float) -> None:
        """Membership is proven again, after `seconds`; what the worker owns goes on."""

    def breaker_changed(self, breaker: str, before: str, after: str, reason: str) -> None:
        """The breaker of a dependency went from one of closed, open and half_open to another."""

    def bulkhead_full(self, dependency: str, calls: int) -> None:
        """So many guarded calls of a dependency were not made, because enough were in progress."""

    def degraded(self, operation: str, fallback: str, reads: int) -> None:
        """So many reads of `operation` were given what stands in for an answer."""

    def commit_answered(self, partitions: int, error: str | None, seconds: float) -> None:
        """The coordinator answered for so many partitions (`error` None), or refused them."""

    def commit_unanswered(self, partitions: int) -> None:
        """No answer within the commit timeout; the same or a higher offset is sent again."""

    def foreign_offset(self, partition: TopicPartition, offset: int) -> None:
        """The group's offset was not written by streamworker; accepted."""

    def remembered(self, partition: TopicPartition, records: int) -> None:
        """So many of the records that a fetch brought were done by an earlier ownership: not handled again."""

    def suspected(self, partition: TopicPartition, deaths: int) -> None:
        """The earlier owner died, as `deaths - 1` before it: what it can have had in work goes in small groups."""

    def acquitted(self, partition: TopicPartition) -> None:
        """All that was suspected has ended; the partition goes on as ever."""

    def progress_cut(self, partition: TopicPartition, needed_bytes: int) -> None:
        """What is done beyond the committed offset takes more bytes than fit beside it: a crash repeats it."""

    def late_outcome(self, handler: str, partition: TopicPartition, records: int) -> None:
        """A slice came back after its ownership ended; dropped, the new owner handles it."""

    def throttled(self, handler: str, seconds: float) -> None:
        """Records waited so long for the handler's rate; with one per key, each key's waiting counts."""

    def retries_postponed(self, handler: str, retries: int) -> None:
        """The handler's budget for retries was spent: so many that were due wait on."""

    def written_off(self, handler: str, partition: TopicPartition, offset: int, seconds: float) -> None:
        """A call runs for longer than its handler's timeout: it has failed, and its thread or process is replaced."""

    def came_back_late(self, handler: str, partition: TopicPartition, seconds: float) -> None:
        """A call that was written off has ended after `seconds`; what it brought is dropped."""

    def fault(self, fault: Fault) -> None:
        """The client reported an error event."""

    def stalled(self, what: str, detail: str) -> None:
        """Something does not move: `client`, `handler`, `handler_timeout`, `loop` or `event_loop`."""

    def memory_high(self, resident_bytes: int, limit_bytes: int) -> None:
        """The process has more memory than it may: nothing is fetched, what was fetched is handled."""

    def memory_settled(self, resident_bytes: int, seconds: float) -> None:
        """The process has less memory than it may again, after `seconds`; fetching goes on."""

    def draining(self, reason: str) -> None:
        """No more fetching; what runs is finished."""

    def closed(self, exit_code: int, abandoned: Sequence[str]) -> None:
        """The end; `abandoned` lists the calls that did not finish."""


class Listeners(Listener):
    """Several listeners as one; an error in one of them reaches neither the others nor the worker."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._complained: set[str] = set()
        for event in EVENTS:
            empty = getattr(Listener, event)
            calls = [getattr(one, event) for one in listeners]
            heard = [call for call in calls if getattr(call, "__func__", None) is not empty]
            setattr(self, event, self._fan_out(heard))

    def _fan_out(self, calls: Sequence[Callable[..., None]]) -> Callable[..., None]:
        def report(*args: object) -> None:
            for call in calls:
                try:
                    call(*args)
                except Exception as error:  # noqa: BLE001 - the border to code that observes
                    self._complain(call, error)

        return report

    def _complain(self, call: Callable[..., None], error: Exception) -> None:
        culprit = getattr(call, "__qualname__", repr(call))
        if culprit not in self._complained:
            self._complained.add(culprit)
            with suppress(Exception):  # a log handler that raises: there is nobody left to tell
                logging.getLogger(__name__).error("listener %s failed; said once", culprit, exc_info=error)


EVENTS = tuple(name for name in vars(Listener) if not name.startswith("_"))
