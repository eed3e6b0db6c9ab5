"""Whether it is proven that this worker is a member of its group, and what follows when it is not.

A coordinator that has not heard a member for the session timeout gives its partitions to others. The member
may not know: it was stopped, or it is cut off from the coordinator alone and goes on fetching. So
calls are started only while the last proof is younger than the lease, which is shorter than the session.

Proof is what the coordinator can have answered to a member only: the time at which a commit was sent that it took, and
the time at which the client heard it last, if the client says that it has joined. To subscribe counts as well,
because no session can be older than that. An assignment does not: the client may have kept it for a while.

Loop thread only, but for the `Lease`, which pool threads read.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from streamworker.partitions import Partitions
    from streamworker.stages import Stages

# The loop takes a step at least each 0.1 s, and may have to wait for its turn.
_STEP_S = 0.5
# What was on its way to a process that stood still is read within this after it goes on.
_READ_LATE_S = 0.25


class LeaseKeeper:
    """Renews the lease, and holds all partitions while it has run out."""

    def __init__(
        self,
        stages: Stages,
        partitions: Partitions,
    ) -> None:
        kafka = stages.config.kafka
        self._lease = stages.assignment.lease
        self._committer = stages.committer
        self._partitions = partitions
        self._source = stages.source
        self._running = stages.running
        self._lease_s = kafka.membership_lease_s
        self._session_s = kafka.session_timeout_s
        # An unnoticed stop makes a proof look younger by its length, and the session must last that much longer.
        self._standstill_s = max(_STEP_S, min(self._lease_s / 4, kafka.session_timeout_s - self._lease_s))
        self._clock = stages.clock
        self._listener = stages.listener
        self._proven_s = self._looked_s = self._heard_from_s = -inf
        self._expired_s: float | None = None
        self._unproven = True  # since it subscribed, which alone stands for a proof
        self._first_owned_s: float | None = None
        self._said = False

    @property
    def expired(self) -> bool:
        """Whether what the worker owns stands still, for want of a proof."""
        return self._expired_s is not None

    def subscribing(self) -> None:
        """The worker is about to join its group."""
        self._proven_s = self._looked_s = self._clock.monotonic_s()
        self._unproven, self._first_owned_s = True, None
        self._prolong()

    def step(self) -> None:
        """Renew the lease by what is known now; hold what is owned if that is too old, else let it go on."""
        now_s = self._clock.monotonic_s()
        self._take_proof(max(self._committer.proven_s or -inf, self._heard_s(now_s)), now_s)
        self._prolong()
        if now_s < self._lease.until_s:
            if self._expired_s is not None:
                self._renew(self._expired_s, now_s)
        elif self.expired or len(self._partitions):
            self._expire(now_s)

    def _take_proof(self, proven_s: float, now_s: float) -> None:
        if proven_s > self._proven_s:
            self._proven_s, self._unproven = proven_s, False
        if self._first_owned_s is None and len(self._partitions):
            self._first_owned_s = now_s

    def _prolong(self) -> None:
        self._lease.until_s = self._proven_s + self._lease_s
        self._lease.lost_s = self._proven_s + self._session_s

    def _heard_s(self, now_s: float) -> float:
        """When the coordinator was heard, as far as that proves anything.

        An answer from before the process was stopped is read when it goes on, and looks as if it had just been given.
        """
        if now_s - self._looked_s > self._standstill_s:
            self._heard_from_s = now_s + _READ_LATE_S
        self._looked_s = now_s
        membership = self._source().membership()
        if membership is None or membership.proven_s is None or membership.proven_s < self._heard_from_s:
            return -inf
        return membership.proven_s

    def _expire(self, now_s: float) -> None:
        if self._expired_s is None:
            self._expired_s = now_s
            for slice_ in self._running:
                slice_.watched = True
        if not self._said and not self._awaits_first_proof(now_s):
            self._said = True
            self._listener.lease_expired(now_s - self._proven_s)
        for partition in self._partitions:
            self._partitions.hold(partition, PauseReason.LEASE)

    def _awaits_first_proof(self, now_s: float) -> bool:
        """Whether it has only just joined, after waiting for longer than a lease: then nothing has run out."""
        return self._unproven and self._first_owned_s is not None and now_s - self._first_owned_s < self._lease_s

    def _renew(self, expired_s: float, now_s: float) -> None:
        self._expired_s = None
        for partition in self._partitions:
            self._partitions.release(partition, PauseReason.LEASE)
        if self._said:
            self._said = False
            self._listener.lease_renewed(now_s - expired_s)
