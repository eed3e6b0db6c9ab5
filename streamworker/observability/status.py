"""One look at the worker, frozen, and the board where the loop thread hangs it.

The loop thread makes a new `WorkerStatus` now and then and publishes it by reference; the threads of
the HTTP server read it and nothing else of the worker. All times are monotonic seconds of the
worker's clock; only `as_json` turns them into ages.
"""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from streamworker.observability.redaction import safe_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamworker.interfaces import ClientStatistics, ReadStatus
    from streamworker.reason import Reason


class LifeState(enum.Enum):
    """Where the worker is in its life."""

    STARTING = "starting"  # handlers are opened and the group is joined; nothing was polled yet
    RUNNING = "running"  # polls, handles and commits
    DRAINING = "draining"  # takes no more records; what runs is finished and committed
    CLOSED = "closed"  # leaves the group or has left it; nothing is handled any more


@dataclass(frozen=True, slots=True)
class PauseStatus:
    """A reason why a partition is not fetched."""

    reason: str
    since_s: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class StopStatus:
    """Why a partition is stopped. `mends_itself`: it is tried again without a person."""

    reason: Reason
    detail: str
    mends_itself: bool
    since_s: float


@dataclass(frozen=True, slots=True)
class HeadStatus:
    """The lowest open record of a partition. `age_s` since it is that, to within a second.

    `attempts` calls for it have failed; `records_behind` are done and wait for it to be committed.
    """

    offset: int
    age_s: float
    attempts: int
    records_behind: int


@dataclass(frozen=True, slots=True)
class QuarantineStatus:
    """What an earlier owner may have died of goes in groups: the one in work, None between two, and its deaths."""

    deaths: int
    first_offset: int | None
    last_offset: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStatus:
    """One owned partition.

    `next_offset` is the lowest offset that is not done, `position` the next one to be fetched (past
    transaction markers at the end of the log). `buffered_records` were fetched and are not settled;
    `held_records` of them wait for their retry. Records of so many `parked_keys` follow a dead letter.
    `lag_records` is None while it is unknown, and so is `lag_s`, the age of the lowest record that is not done.
    With `awaits_commit` nothing more is begun until the coordinator takes a commit; `throttled`, until the rate of its
    handler allows it. `still_since_s`: since when it
    could have moved and has not (see `Stillness`).
    """

    topic: str
    partition: int
    epoch: int
    committed_offset: int | None = None
    next_offset: int | None = None
    position: int | None = None
    buffered_records: int = 0
    held_records: int = 0
    pauses: tuple[PauseStatus, ...] = ()
    stopped: StopStatus | None = None
    head: HeadStatus | None = None
    quarantine: QuarantineStatus | None = None
    lag_records: int | None = None
    lag_s: float | None = None
    awaits_commit: bool = False
    throttled: bool = False
    parked_keys: int = 0
    still_since_s: float | None = None

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


@dataclass(frozen=True, slots=True)
class RunningSlice:
    """A slice in a pool thread's hands; `seconds` is the age of the call in progress, `offset` its first."""

    handler: str
    topic: str
    partition: int
    offset: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.handler} at {self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """The worker at the moment `now_s`.

    `join_state` is the client's name of it, `join_state_since_s` when it changed last. `degraded`
    names what is impaired without keeping records from being handled. `fatal` is set when the client
    is unusable or a thread that the worker needs has died. `breakers` are the states of the dependencies, by name;
    those in `call_breakers` hold single calls back and not all of a handler. `limits` says how many calls at once are
    made of handlers that adapt. `event_loops` says for how many seconds that of an async handler has not come round.
    `reads` are those that may degrade. `busy` is the share of each handler's calls that was in progress of late.
    """

    state: LifeState
    group: str
    handlers: tuple[str, ...]
    protocol: str
    started_s: float
    now_s: float
    last_poll_s: float | None = None
    joined: bool = False
    join_state: str = ""
    join_state_since_s: float | None = None
    partitions: tuple[PartitionStatus, ...] = ()
    inflight_records: int = 0
    inflight_bytes: int = 0
    running: tuple[RunningSlice, ...] = ()
    degraded: tuple[str, ...] = ()
    breakers: Mapping[str, str] = field(default_factory=dict)
    call_breakers: frozenset[str] = frozenset()
    limits: Mapping[str, int] = field(default_factory=dict)
    event_loops: Mapping[str, float] = field(default_factory=dict)
    reads: tuple[ReadStatus, ...] = ()
    busy: Mapping[str, float] = field(default_factory=dict)
    client: ClientStatistics | None = None
    last_commit_s: float | None = None
    commits_refused_since_s: float | None = None
    fatal: str | None = None
    exit_code: int | None = None


class Board:
    """The one hand-over point between the loop thread, which publishes, and whoever looks.

    A reference is exchanged and no lock is needed: the statuses are frozen.
    """

    def __init__(self, first: WorkerStatus) -> None:
        self._latest = first

    def publish(self, status: WorkerStatus) -> None:
        """Hang up `status` in place of the one before. Loop thread only."""
        self._latest = status

    def latest(self) -> WorkerStatus:
        """The status published last. Any thread."""
        return self._latest


def as_json(status: WorkerStatus, now_s: float) -> dict[str, object]:
    """`status` for people: ages in seconds at `now_s`, neither secrets nor payload."""
    return {
        "state": status.state.value,
        "group": status.group,
        "handlers": list(status.handlers),
        "protocol": status.protocol,
        "up_s": _age(status.started_s, now_s),
        "status_age_s": _age(status.now_s, now_s),
        "last_poll_age_s": _age(status.last_poll_s, now_s),
        "last_commit_age_s": _age(status.last_commit_s, now_s),
        "commits_refused_for_s": _age(status.commits_refused_since_s, now_s),
        "joined": status.joined,
        "join_state": status.join_state,
        "join_state_age_s": _age(status.join_state_since_s, now_s),
        "inflight_records": status.inflight_records,
        "inflight_bytes": status.inflight_bytes,
        "running": [_running(one) for one in status.running],
        "partitions": [_partition(one, now_s) for one in status.partitions],
        "breakers": dict(status.breakers),
        "reads": {
            one.operation: {"fallbacks": list(one.in_force), "degraded": dict(one.degraded)} for one in status.reads
        },
        "degraded": [safe_text(one) for one in status.degraded],
        "fatal": None if status.fatal is None else safe_text(status.fatal),
        "exit_code": status.exit_code,
    }


def _running(running: RunningSlice) -> dict[str, object]:
    return {
        "handler": running.handler,
        "topic": running.topic,
        "partition": running.partition,
        "offset": running.offset,
        "seconds": round(running.seconds, 3),
    }


def _partition(partition: PartitionStatus, now_s: float) -> dict[str, object]:
    return {
        "topic": partition.topic,
        "partition": partition.partition,
        "epoch": partition.epoch,
        "committed_offset": partition.committed_offset,
        "next_offset": partition.next_offset,
        "position": partition.position,
        "lag_records": partition.lag_records,
        "lag_s": None if partition.lag_s is None else round(partition.lag_s, 3),
        "buffered_records": partition.buffered_records,
        "held_records": partition.held_records,
        "parked_keys": partition.parked_keys,
        "pauses": [
            {"reason": pause.reason, "age_s": _age(pause.since_s, now_s), "detail": safe_text(pause.detail)}
            for pause in partition.pauses
        ],
        "stopped": None if partition.stopped is None else _stop(partition.stopped, now_s),
        "head": None if partition.head is None else _head(partition.head),
        "quarantine": None if partition.quarantine is None else asdict(partition.quarantine),
        "still_s": _age(partition.still_since_s, now_s),
    }


def _head(head: HeadStatus) -> dict[str, object]:
    return {
        "blocking_offset": head.offset,
        "age_s": round(head.age_s, 3),
        "attempts": head.attempts,
        "records_behind": head.records_behind,
    }


def _stop(stop: StopStatus, now_s: float) -> dict[str, object]:
    return {
        "reason": stop.reason,
        "detail": safe_text(stop.detail),
        "mends_itself": stop.mends_itself,
        "age_s": _age(stop.since_s, now_s),
    }


def _age(then_s: float | None, now_s: float) -> float | None:
    return None if then_s is None else round(max(0.0, now_s - then_s), 3)
