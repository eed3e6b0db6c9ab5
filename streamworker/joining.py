"""What is said and done while the worker waits for its group: a start that takes long must not look hung.

A coordinator lets a new member wait until all others have come, or the session of one that is gone has ended; and
without a broker the client tries for ever. With the protocol `consumer` the coordinator refuses a member whose
`group.instance.id` another one still has, and the client is unusable then. The other one may be this worker's
predecessor, which was killed: decided here is for how long another client is made. Loop thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamworker.partitions import Partitions
    from streamworker.stages import Stages

# Groups that nobody else is in take about a second.
_SAID_AFTER_S = 5.0
_NO_BROKER_EACH_S = 30.0
# A predecessor that was killed is expelled when its session has ended; the rest is for the coordinator to see it.
_AGAIN_EACH_S, _BEYOND_SESSION_S = 5.0, 10.0


class Joining:
    """Looks whether the worker has joined, from when it subscribes until it has."""

    def __init__(self, stages: Stages, partitions: Partitions) -> None:
        self._servers = stages.config.kafka.bootstrap_servers
        self._patience_s = stages.config.kafka.session_timeout_s + _BEYOND_SESSION_S
        self._partitions = partitions
        self._source = stages.source
        self._clock = stages.clock
        self._listener = stages.listener
        self._since_s: float | None = None
        self._said = self._reached = False
        self._no_broker_at_s = 0.0
        self._refused_since_s: float | None = None
        self._again_at_s: float | None = None

    def subscribing(self) -> None:
        """The worker is about to join its group."""
        self._since_s = self._clock.monotonic_s()
        self._said = False
        self._no_broker_at_s = self._since_s + _NO_BROKER_EACH_S
        self._again_at_s = None

    def refused(self) -> bool:
        """Another member has the worker's instance id; whether it is waited for, because it may be gone.

        Not after the worker has joined: then somebody has been given its identity.
        """
        now_s = self._clock.monotonic_s()
        if self._since_s is None:
            return False
        if self._refused_since_s is None:
            self._refused_since_s = now_s
        if now_s - self._refused_since_s > self._patience_s:
            return False
        if self._again_at_s is None:
            self._again_at_s = now_s + _AGAIN_EACH_S
        return True

    @property
    def tries_again(self) -> bool:
        """Whether another client is to be made now, in place of one that was refused."""
        return self._again_at_s is not None and self._clock.monotonic_s() >= self._again_at_s

    def step(self) -> None:
        """Say that the worker waits, if it does."""
        if self._since_s is None:
            return
        membership = self._source().membership()
        if len(self._partitions) or (membership is not None and membership.joined):
            self._since_s = self._refused_since_s = None
            return
        self._reached = self._reached or (membership is not None and membership.reached)
        now_s = self._clock.monotonic_s()
        if not self._said and now_s - self._since_s >= _SAID_AFTER_S:
            self._said = True
            self._listener.waiting_for_group(now_s - self._since_s)
        if not self._reached and now_s >= self._no_broker_at_s:
            self._no_broker_at_s += _NO_BROKER_EACH_S
            self._listener.no_broker_reached(self._servers, now_s - self._since_s)
