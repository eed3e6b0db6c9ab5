"""What the three probes say of a status. Pure.

*Startup* passes once the loop has polled; an assignment is not asked for, since a standby may never
get one. *Live* fails when only a new process can help, never because something outside is away: a
restart would not mend that and would unsettle the group. *Ready* fails when the worker does not do
its work, which holds up a rollout; what is merely impaired is `degraded` and passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.observability.stall import stalls
from streamworker.observability.status import LifeState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamworker.config import Config
    from streamworker.observability.status import PartitionStatus, WorkerStatus

# Join states in which a member may stay for any length of time: it has joined, or there is no
# coordinator to join at. All others last no longer than one rebalance.
_LASTING_JOIN_STATES = frozenset({"steady", "init", "wait-metadata", ""})
# A rebalance may take one poll interval of the slowest member; twice that is nobody's rebalance.
_REBALANCES = 2
# Pauses that mean that the partition does not do its work; backpressure and draining are not among them.
_PAUSES_LIKE_STOPS = frozenset(
    {"stopped", "offsets_unknown", "dead_letter_budget", "parked_keys_unread", "parked_keys_full"}
)

# For which commits may be refused: a rebalance, or a coordinator that moves, takes less.
_REFUSED_FOR_S = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds."""

    poll_age_s: float
    frozen_join_s: float
    stall_timeout_s: float
    handler_timeout_s: float | None

    @classmethod
    def of(cls, config: Config) -> Limits:
        """The limits that follow from the configuration."""
        return cls(
            poll_age_s=config.kafka.max_poll_interval_s,
            frozen_join_s=_REBALANCES * config.kafka.max_poll_interval_s,
            stall_timeout_s=config.lifecycle.stall_timeout_s,
            handler_timeout_s=config.lifecycle.handler_timeout_s,
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a probe: passed if all `checks` are true, whatever is `degraded`."""

    checks: Mapping[str, bool]
    degraded: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the probe passes."""
        return all(self.checks.values())


def startup(status: WorkerStatus) -> Verdict:
    """Whether the worker has come up."""
    return Verdict({"polled": status.last_poll_s is not None}, status.degraded)


def live(status: WorkerStatus, now_s: float, limits: Limits) -> Verdict:
    """Whether the process should go on as it is."""
    return Verdict(
        {
            "polling": _polling(status, now_s, limits),
            "calls_in_time": _calls_in_time(status, limits),
            "client_usable": status.fatal is None,
            "group_moves": not _join_frozen(status, now_s, limits),
        },
        status.degraded,
    )


def ready(status: WorkerStatus, now_s: float, limits: Limits) -> Verdict:
    """Whether the worker does its work."""
    found = stalls(status, now_s, stall_timeout_s=limits.stall_timeout_s, handler_timeout_s=limits.handler_timeout_s)
    slow = tuple(str(stall) for stall in found if stall.kind.degrades)
    return Verdict(
        {
            "started": status.state is not LifeState.STARTING and status.last_poll_s is not None,
            "not_draining": status.state not in (LifeState.DRAINING, LifeState.CLOSED),
            "joined": status.joined,
            "commits_taken": _commits_taken(status, now_s),
            "none_stopped": not any(_is_stopped(one) for one in status.partitions),
            "none_stalled": all(stall.kind.degrades for stall in found),
        },
        (*status.degraded, *slow),
    )


def _commits_taken(status: WorkerStatus, now_s: float) -> bool:
    since_s = status.commits_refused_since_s
    return since_s is None or now_s - since_s <= _REFUSED_FOR_S


def _polling(status: WorkerStatus, now_s: float, limits: Limits) -> bool:
    if status.state is LifeState.CLOSED:
        return True  # leaving the group has its own deadline
    last_s = status.started_s if status.last_poll_s is None else status.last_poll_s
    return now_s - last_s <= limits.poll_age_s


def _calls_in_time(status: WorkerStatus, limits: Limits) -> bool:
    limit_s = limits.handler_timeout_s
    return limit_s is None or all(running.seconds <= limit_s for running in status.running)


def _join_frozen(status: WorkerStatus, now_s: float, limits: Limits) -> bool:
    if status.join_state in _LASTING_JOIN_STATES or status.join_state_since_s is None:
        return False
    return now_s - status.join_state_since_s > limits.frozen_join_s


def _is_stopped(partition: PartitionStatus) -> bool:
    return partition.stopped is not None or any(pause.reason in _PAUSES_LIKE_STOPS for pause in partition.pauses)
