"""How log lines look, and which ones the worker's events make.

`configure` gives the root logger one handler: JSON lines, or coloured ones on a terminal; structlog's
loggers and the standard library's come out the same. Secrets are hidden on the way and payload is
never logged. `LogListener` says each event once, where it is settled; what may come in floods is said
five times in 30 s and then counted. Loop thread only.
"""
# ruff: noqa: D102 - the events and their arguments are described in events.py

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Self, TextIO

import structlog

from streamworker.errors import Defect, FatalError
from streamworker.events import Listener
from streamworker.fingerprint import fingerprint_of
from streamworker.frames import where_raised
from streamworker.interfaces import FaultKind
from streamworker.observability.bursts import Bursts
from streamworker.observability.redaction import error_text, safe_text, safe_value
from streamworker.record import Ending

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from structlog.typing import EventDict, Processor

    from streamworker.clock import Clock
    from streamworker.config import LogConfig
    from streamworker.interfaces import Fault
    from streamworker.observability.bursts import Subject
    from streamworker.record import TopicPartition

_MULTI_LINE = ("exception", "stack")
_MENDS_ITSELF = "tried again by itself"
_NEEDS_A_PERSON = (
    "needs a person: see /status for the reason; if it is an offset, `streamworker offsets set` or `offsets reset`"
)
_FAULT_MENDS = {
    FaultKind.UNKNOWN_TOPIC: (
        "it is waited for; `streamworker check` names the topic that is most like it, and the command that makes it"
    ),
    FaultKind.UNRELEASED: (
        "while starting, tried again until the session of a predecessor has ended; then the worker ends, and each"
        " process needs a group.instance.id of its own"
    ),
}

_LEVELS = {
    "CRITICAL": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
}
_FAILURES = {
    Ending.HANDLED: (logging.INFO, "call failed, record handled"),
    Ending.RETRIED: (logging.WARNING, "call failed, tried again"),
    Ending.DEFERRED: (logging.WARNING, "record deferred to a retry topic"),
    Ending.DEAD_LETTERED: (logging.WARNING, "record dead-lettered"),
    Ending.SKIPPED: (logging.WARNING, "record skipped"),
    Ending.EXPIRED: (logging.WARNING, "call failed, record expired"),
    Ending.NOT_ADDRESSED: (logging.INFO, "call failed, record for another group"),
    Ending.STOPPED: (logging.ERROR, "call failed, not done"),
}


class LevelCounts(logging.Handler):
    """Counts what is logged, by level.

    It is a handler of the root logger only beside others: alone there it would silence what Python itself writes to
    standard error where nothing was set up. Lines come on any thread, one at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines = dict.fromkeys(_LEVELS, 0)

    def __enter__(self) -> Self:
        """Begin to count; nothing where the program has not set up logging."""
        if logging.getLogger().handlers:
            logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_raised: object) -> None:
        """Count no more."""
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Count one; a level of somebody's own is the next lower one of these."""
        self._lines[next((name for name, least in _LEVELS.items() if record.levelno >= least), "DEBUG")] += 1

    def lines(self) -> Mapping[str, int]:
        """How many there were. Any thread."""
        return self._lines.copy()


class _Lines(logging.StreamHandler[TextIO]):
    """Our handler, to be known again when `configure` is called twice."""


def configure(config: LogConfig, stream: TextIO, worker: int | None = None) -> None:
    """Let the process log to `stream`; a second call replaces the first. Main thread, at start.

    Lines of one of several workers have its number in the field `worker`.
    """
    as_json = config.format == "json" or (config.format == "auto" and not stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    if worker is not None:
        shared.append(partial(_numbered, worker))
    lines = _Lines(stream)
    lines.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _without_leftovers, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _renderer(as_json, stream)],
        )
    )
    root = logging.getLogger()
    root.handlers = [kept for kept in root.handlers if not isinstance(kept, _Lines)] + [lines]
    root.setLevel(config.level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _renderer(as_json: bool, stream: TextIO) -> Processor:
    if as_json:
        return structlog.processors.JSONRenderer(default=str)
    return structlog.dev.ConsoleRenderer(colors=stream.isatty())


def _numbered(worker: int, _logger: object, _method: str, event: EventDict) -> EventDict:
    """Processor of structlog: say which of several workers speaks."""
    return {**event, "worker": worker}


def _without_leftovers(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Processor of structlog: drop what another handler's formatter has left on the record."""
    for name in ("message", "asctime"):
        event.pop(name, None)
    return event


def hide_secrets(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Processor of structlog: hide what must not be read; fields that begin with _ are structlog's own."""
    return {name: value if name.startswith("_") else _shown(name, value) for name, value in event.items()}


def _shown(name: str, value: object) -> object:
    return safe_text(str(value)) if name in _MULTI_LINE else safe_value(name, value)


class LogListener(Listener):
    """Logs what happens, with topic, partition and offset as fields."""

    def __init__(self, clock: Clock) -> None:
        self._monotonic_s = clock.monotonic_s
        self._log = logging.getLogger("streamworker")
        self._bursts = Bursts()

    def started(self, handlers: Sequence[str], group: str) -> None:
        self._say(logging.INFO, "started", handlers=list(handlers), group=group)

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self._say(logging.INFO, "assigned", partitions=_names(partitions))

    def revoked(self, partitions: Sequence[TopicPartition], seconds: float) -> None:
        self._say(logging.INFO, "revoked", partitions=_names(partitions), seconds=round(seconds, 3))

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._say(logging.WARNING, "lost, nothing could be committed", partitions=_names(partitions))

    def failed(
        self, handler: str, partition: TopicPartition, offset: int, error: BaseException, attempt: int, ending: Ending
    ) -> None:
        if not self._passes((handler, type(error).__name__, ending.value)):
            return
        level, message = _FAILURES[ending]
        traced = isinstance(error, Defect | FatalError) or self._log.isEnabledFor(logging.DEBUG)
        fields = {
            **_place(partition, offset),
            "handler": handler,
            "attempt": attempt,
            "error_type": type(error).__name__,
            "error": error_text(error),
            "fingerprint": fingerprint_of(error),
        }
        if at := where_raised(error):
            fields["at"] = at
        self._log.log(level, message, extra=fields, exc_info=error if traced else None)

    def expired(self, partition: TopicPartition, offset: int, records: int, age_s: float) -> None:
        fields = {**_place(partition, offset), "records": records, "age_s": round(age_s, 3)}
        self._say_sparingly(("expired", partition.topic), logging.WARNING, "records expired", fields)

    def dead_letter_refused(self, partition: TopicPartition, offset: int, topic: str, error: str) -> None:
        fields = {**_place(partition, offset), "dlq_topic": topic, "error": error}
        self._say_sparingly(("dead letter", topic, error), logging.WARNING, "dead letter refused", fields)

    def stopped(self, partition: TopicPartition, reason: str, detail: str, mends_itself: bool) -> None:
        mend = _MENDS_ITSELF if mends_itself else _NEEDS_A_PERSON
        level = logging.WARNING if mends_itself else logging.ERROR
        self._say(level, "partition stopped", **_place(partition), reason=reason, detail=detail, mend=mend)

    def mended(self, partition: TopicPartition, reason: str) -> None:
        self._say(logging.INFO, "partition goes on", **_place(partition), reason=reason)

    def paused(self, partition: TopicPartition, reason: str) -> None:
        fields = {**_place(partition), "reason": reason}
        self._say_sparingly(("paused", reason), logging.INFO, "partition paused", fields)

    def resumed(self, partition: TopicPartition, reason: str, seconds: float) -> None:
        fields = {**_place(partition), "reason": reason, "seconds": round(seconds, 3)}
        self._say_sparingly(("resumed", reason), logging.INFO, "partition resumed", fields)

    def head_too_old(
        self, partition: TopicPartition, offset: int, age_s: float, attempts: int, records_behind: int
    ) -> None:
        counts = {"age_s": round(age_s, 1), "attempts": attempts, "records_behind": records_behind}
        fields = {**_place(partition, offset), **counts}
        self._say_sparingly(
            ("head", partition.topic), logging.WARNING, "record holds its partition's commits back", fields
        )

    def waiting_for_group(self, seconds: float) -> None:
        self._say(logging.INFO, "waiting for the group", seconds=round(seconds, 1))

    def no_broker_reached(self, servers: str, seconds: float) -> None:
        said = "no broker reached, trying on; `streamworker check` says more"
        self._say(logging.WARNING, said, servers=servers, seconds=round(seconds, 1))

    def lease_expired(self, silent_s: float) -> None:
        fields = {"silent_s": round(silent_s, 3)}
        self._say_sparingly(("lease", "expired"), logging.WARNING, "lease expired, no call is started", fields)

    def lease_renewed(self, seconds: float) -> None:
        self._say_sparingly(("lease", "renewed"), logging.INFO, "lease renewed", {"seconds": round(seconds, 3)})

    def breaker_changed(self, breaker: str, before: str, after: str, reason: str) -> None:
        level = logging.INFO if after == "closed" else logging.WARNING
        fields = {"breaker": breaker, "before": before, "after": after, "reason": reason}
        self._say_sparingly(("breaker", breaker, after), level, "breaker changed", fields)

    def bulkhead_full(self, dependency: str, calls: int) -> None:
        fields = {"dependency": dependency, "calls": calls}
        self._say_sparingly(("bulkhead", dependency), logging.INFO, "bulkhead full, records wait", fields)

    def degraded(self, operation: str, fallback: str, reads: int) -> None:
        fields = {"operation": operation, "fallback": fallback, "reads": reads}
        self._say_sparingly(("degraded", operation, fallback), logging.WARNING, "reads degraded", fields)

    def commit_answered(self, partitions: int, error: str | None, seconds: float) -> None:
        self._say_counts(self._bursts.ended(self._monotonic_s()))
        if error is not None:
            fields = {"partitions": partitions, "error": error, "seconds": round(seconds, 3)}
            self._say_sparingly(("commit", error), logging.WARNING, "commit refused, sent again", fields)

    def commit_unanswered(self, partitions: int) -> None:
        fields = {"partitions": partitions}
        self._say_sparingly(("commit", "unanswered"), logging.WARNING, "commit unanswered, sent again", fields)

    def key_parked(self, partition: TopicPartition, offset: int) -> None:
        fields = _place(partition, offset)
        said = "key parked, later records of it go to the dead letters"
        self._say_sparingly(("key_parked", str(partition)), logging.WARNING, said, fields)

    def key_released(self, partition: TopicPartition, offset: int) -> None:
        self._say_sparingly(("key_released", str(partition)), logging.INFO, "key released", _place(partition, offset))

    def foreign_offset(self, partition: TopicPartition, offset: int) -> None:
        self._say(logging.WARNING, "offset of another program accepted", **_place(partition, offset))

    def remembered(self, partition: TopicPartition, records: int) -> None:
        fields = {**_place(partition), "records": records}
        self._say_sparingly(("remembered", partition.topic), logging.INFO, "done before, not handled again", fields)

    def suspected(self, partition: TopicPartition, deaths: int) -> None:
        self._say(
            logging.WARNING, "the earlier owner died, its records are suspected", **_place(partition), deaths=deaths
        )

    def acquitted(self, partition: TopicPartition) -> None:
        self._say(logging.INFO, "the suspected records have ended", **_place(partition))

    def progress_cut(self, partition: TopicPartition, needed_bytes: int) -> None:
        fields = {**_place(partition), "needed_bytes": needed_bytes}
        self._say_sparingly(("cut", partition.topic), logging.WARNING, "commit does not hold all that is done", fields)

    def late_outcome(self, handler: str, partition: TopicPartition, records: int) -> None:
        fields = {**_place(partition), "handler": handler, "records": records}
        self._say_sparingly(("late", handler), logging.INFO, "late outcome dropped", fields)

    def retries_postponed(self, handler: str, retries: int) -> None:
        fields = {"handler": handler, "retries": retries}
        self._say_sparingly(("retries", handler), logging.WARNING, "budget spent, retries wait", fields)

    def written_off(self, handler: str, partition: TopicPartition, offset: int, seconds: float) -> None:
        fields = {**_place(partition, offset), "handler": handler, "seconds": round(seconds, 3)}
        self._say_sparingly(("written off", handler), logging.WARNING, "call timed out", fields)

    def came_back_late(self, handler: str, partition: TopicPartition, seconds: float) -> None:
        fields = {**_place(partition), "handler": handler, "seconds": round(seconds, 3)}
        self._say_sparingly(("came back late", handler), logging.WARNING, "call ended after its timeout", fields)

    def fault(self, fault: Fault) -> None:
        place = {} if fault.partition is None else _place(fault.partition, fault.offset)
        level = logging.ERROR if fault.kind is FaultKind.FATAL else logging.WARNING
        fields = {**place, "kind": fault.kind.value, "detail": fault.detail}
        if fault.kind in _FAULT_MENDS:
            fields["mend"] = _FAULT_MENDS[fault.kind]
        self._say_sparingly(("fault", fault.kind.value), level, "client reports a fault", fields)

    def memory_high(self, resident_bytes: int, limit_bytes: int) -> None:
        fields = {"resident_bytes": resident_bytes, "limit_bytes": limit_bytes}
        self._say_sparingly(("memory", "high"), logging.WARNING, "too much memory, nothing is fetched", fields)

    def memory_settled(self, resident_bytes: int, seconds: float) -> None:
        fields = {"resident_bytes": resident_bytes, "seconds": round(seconds, 3)}
        self._say_sparingly(("memory", "settled"), logging.INFO, "memory settled, fetching goes on", fields)

    def stalled(self, what: str, detail: str) -> None:
        self._say(logging.ERROR, "stalled", what=what, detail=detail)

    def draining(self, reason: str) -> None:
        self._say(logging.INFO, "draining", reason=reason)

    def closed(self, exit_code: int, abandoned: Sequence[str]) -> None:
        self._say_counts(self._bursts.end())
        level = logging.WARNING if abandoned else logging.INFO
        self._say(level, "closed", exit_code=exit_code, abandoned=list(abandoned))

    def _say_sparingly(self, subject: Subject, level: int, message: str, fields: Mapping[str, object]) -> None:
        if self._passes(subject):
            self._log.log(level, message, extra=fields)

    def _passes(self, subject: Subject) -> bool:
        now_s = self._monotonic_s()
        self._say_counts(self._bursts.ended(now_s))
        return self._bursts.passes(subject, now_s)

    def _say_counts(self, held_back: Mapping[Subject, int]) -> None:
        for subject, number in held_back.items():
            self._say(logging.WARNING, "more of the same", what=" ".join(subject), times=number)

    def _say(self, level: int, message: str, **fields: object) -> None:
        self._log.log(level, message, extra=fields)


def _names(partitions: Sequence[TopicPartition]) -> list[str]:
    return [str(partition) for partition in partitions]


def _place(partition: TopicPartition, offset: int | None = None) -> dict[str, object]:
    place: dict[str, object] = {"topic": partition.topic, "partition": partition.partition}
    return place if offset is None else {**place, "offset": offset}
