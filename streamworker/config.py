"""What can be set, one frozen dataclass per stage.

Every field has a default that suits most and a comment with its unit and reason; the reference page
of the documentation is made from this file. Values are checked where they are made
(`__post_init__`); where they come from is `cli/settings.py`'s business.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import TypeVar

from streamworker.errors import ConfigurationError, nearest

E = TypeVar("E", bound=enum.Enum)


class Ordering(enum.Enum):
    """Which records wait for which."""

    PARTITION = "partition"  # one at a time per partition
    KEY = "key"  # one at a time per key; null keys wait for nobody
    UNORDERED = "unordered"  # none waits


class Execution(enum.Enum):
    """Where the calls of a plain `def` handler are made.

    INLINE is for handlers that never wait and are through with a record in microseconds: it makes their calls on the
    worker's loop thread. While such a call runs the worker fetches, commits, heeds rebalances, lease and signals, and
    serves its other handlers no more than it does between two slices, so a call that blocks holds all of that up, and
    one that lasts for `lifecycle.stall_timeout_s` ends the worker.
    """

    THREAD = "thread"  # on threads of the worker, for calls that wait
    PROCESS = "process"  # in child processes, for calls that compute
    INLINE = "inline"


class Action(enum.Enum):
    """What a rule says to do with a failure."""

    RETRY = "retry"
    DEAD_LETTER = "dead_letter"
    SKIP = "skip"
    STOP = "stop"


Matcher = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a handler's rules: the first that matches the error, or one of its causes, decides.

    `matches` is an exception class, a tuple of them, or a predicate. A skip is written to the
    dead-letter topic as a pointer (reason `skipped`), so it needs `dead_letter`.
    """

    matches: Matcher
    action: Action

    @classmethod
    def retry(cls, matches: Matcher) -> Rule:
        """Try again, up to `Retry.attempts`."""
        return cls(matches, Action.RETRY)

    @classmethod
    def dead_letter(cls, matches: Matcher) -> Rule:
        """To the dead letters at once."""
        return cls(matches, Action.DEAD_LETTER)

    @classmethod
    def skip(cls, matches: Matcher) -> Rule:
        """Done without effect, with a pointer record as its audit."""
        return cls(matches, Action.SKIP)

    @classmethod
    def stop(cls, matches: Matcher) -> Rule:
        """Stop the worker, exit code 1; the record is not done."""
        return cls(matches, Action.STOP)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryTopic:
    """A topic in which records wait that have used up their attempts: `<topic>.retry.<group>.<n>`, n from 1."""

    delay_s: float  # after that they are handled from there, never before
    attempts: int = 1  # calls that are made then

    def __post_init__(self) -> None:
        _at_least("RetryTopic.delay_s", self.delay_s, 1)
        _at_most("RetryTopic.delay_s", self.delay_s, 7 * 86_400)  # a week: topics delete what is older than a few
        _at_least("RetryTopic.attempts", self.attempts, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a failed record is handed over again. Nothing sleeps: the scheduler holds the record.

    A delay may be longer than `max.poll.interval.ms`. With `topics` a record whose attempts are used up leaves its
    partition, and the records of its key with it: they are not handled in order any more.
    """

    attempts: int = 4  # calls in all, the first included; before it goes to a retry topic
    base_s: float = 0.1  # full jitter: uniform in 0 … min(cap_s, base_s · 2^n)
    cap_s: float = 2.0
    wait: Callable[..., float] | None = None  # a tenacity wait strategy instead of base_s and cap_s
    topics: Sequence[RetryTopic] = ()  # where it goes then, one after the other, before the dead letters

    def __post_init__(self) -> None:
        _at_least("Retry.attempts", self.attempts, 1)
        _at_least("Retry.base_s", self.base_s, 0)
        _at_least("Retry.cap_s", self.cap_s, self.base_s)
        if not isinstance(self.topics, Sequence) or not all(isinstance(one, RetryTopic) for one in self.topics):
            raise ConfigurationError(f"Retry.topics: expected a tuple, (RetryTopic(delay_s=60),), got {self.topics!r}")
        object.__setattr__(self, "topics", tuple(self.topics))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudget:
    """How many retries a handler may make beside its first calls, so that they do not crowd those out.

    Each first call that has ended allows `ratio` of a retry, and time allows `min_per_s`; both are kept for 10 s. While
    it is spent, retries wait. Nothing is dead-lettered for it. A batch is one call.
    """

    ratio: float = 0.2  # retries per first call, in the long run
    min_per_s: float = 10.0  # retries that are always allowed, for where little comes

    def __post_init__(self) -> None:
        _at_least("RetryBudget.ratio", self.ratio, 0)
        _at_least("RetryBudget.min_per_s", self.min_per_s, 0.01)


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast records are handed to a handler; its tries of the same record count each.

    Per worker: a group of n workers makes n times as many calls.
    """

    per_s: float  # records per second, in the long run
    _: KW_ONLY
    burst: int | None = None  # records at once after a rest; None is what a second brings
    per_key: bool = False  # for each key by itself, with ordering KEY; records without a key are not held back
    max_keys: int = 10_000  # keys whose pace is remembered, those that went last; one that is forgotten may burst again

    def __post_init__(self) -> None:
        _at_least("Rate.per_s", self.per_s, 0.001)
        if self.burst is not None:
            _at_least("Rate.burst", self.burst, 1)
        _at_least("Rate.max_keys", self.max_keys, 1)

    @property
    def most_at_once(self) -> float:
        """Records that may go at once after a rest."""
        return max(self.per_s, 1.0) if self.burst is None else float(self.burst)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """How many calls of a handler are made at once, found out as it goes: from `least` up to its `concurrency`.

    A failure that is a dependency's, or a timeout, makes it smaller; as many successes as are made at once make it
    larger by one, if more would have been made. It begins with all threads.
    """

    least: int = 1
    backoff: float = 0.9  # what a failure leaves of it
    counts: Matcher | None = None  # which errors, as in Breaker; None: connection errors and timeouts

    def __post_init__(self) -> None:
        _at_least("Adaptive.least", self.least, 1)
        if not 0 < self.backoff < 1:
            raise ConfigurationError(f"Adaptive.backoff: expected a share between 0 and 1, got {self.backoff}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """When a batch is handed over: the first limit that is reached. It never mixes partitions."""

    max_records: int = 500
    max_bytes: int = 4 * 1024 * 1024  # of values
    max_wait_s: float = 0.2  # since the oldest record of the batch came

    def __post_init__(self) -> None:
        _at_least("Batch.max_records", self.max_records, 1)
        _at_least("Batch.max_bytes", self.max_bytes, 1)
        _at_least("Batch.max_wait_s", self.max_wait_s, 0)


MAX_TOPIC_CHARS = 249  # of a topic's name, by Kafka's rule


class OnExhausted(enum.Enum):
    """What follows when a record's attempts are used up."""

    DLQ = "dlq"  # to the dead letters; later records of the key go on
    DLQ_KEY = "dlq_key"  # to the dead letters, and later records of the key after it, until the key is released
    BLOCK = "block"  # the partition waits for a person


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Where a record goes that cannot be handled."""

    topic: str
    on_exhausted: OnExhausted | str = OnExhausted.DLQ

    def __post_init__(self) -> None:
        if not self.topic:
            raise ConfigurationError("DeadLetter.topic: expected a topic's name, got an empty string")
        object.__setattr__(self, "on_exhausted", member("DeadLetter.on_exhausted", OnExhausted, self.on_exhausted))

    @property
    def keys_topic(self) -> str | None:
        """Where it is noted which keys are parked; None unless later records of a key follow its dead letter."""
        return keys_topic(self.topic) if self.on_exhausted is OnExhausted.DLQ_KEY else None


def keys_topic(dead_letter_topic: str) -> str:
    """The compacted topic beside a dead-letter topic."""
    return f"{dead_letter_topic}.keys"


@dataclass(frozen=True, slots=True)
class Bulkhead:
    """How many guarded calls of a dependency are made at once, by all handlers of the process together.

    A call that finds no place is not made: `BulkheadFull` is raised, and the record waits for a moment. It spends no
    attempt, and the breaker counts nothing.
    """

    max_concurrent: int
    _: KW_ONLY
    max_wait_s: float = 0.0  # for a place; the thread waits with it, so keep it short

    def __post_init__(self) -> None:
        _at_least("Bulkhead.max_concurrent", self.max_concurrent, 1)
        _at_least("Bulkhead.max_wait_s", self.max_wait_s, 0)


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a handler is held back because something that it needs is away.

    It opens after `in_a_row` failed calls, or when of at least `min_calls` in `window_s` a share of `failure_rate`
    failed or a share of `slow_rate` was slow. None turns a rule off. While it is open nothing is handed over, the
    partitions keep their place, no attempt is spent and nothing is dead-lettered; then single calls try whether
    the dependency is back, and `successes` of them in a row close it.

    `counts` says which errors are the dependency's: a class, a tuple of them, or a predicate, asked for the error
    and its causes. None counts connection errors and timeouts, those of Python and of
    common drivers. What decoding waits for (`DependencyUnavailable`) is never counted.
    """

    name: str  # of the dependency, for logs, metrics and /status
    _: KW_ONLY
    in_a_row: int | None = 3  # calls; what opens it where little comes
    failure_rate: float | None = 0.5
    slow_call_s: float | None = None  # seconds from which a call is slow
    slow_rate: float = 0.8
    min_calls: int = 10
    window_s: float = 30.0
    open_s: float = 5.0  # doubled each time that the dependency is found still away
    max_open_s: float = 60.0
    jitter: float = 0.2  # of the time open, up or down, so that workers do not try at once
    successes: int = 3
    counts: Matcher | None = None
    bulkhead: Bulkhead | None = None  # among dependencies only; None: as many calls as there are threads

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.name):
            raise ConfigurationError(f"Breaker.name: expected 1 to 64 of A-Z a-z 0-9 . _ -, got {self.name!r}")
        if self.in_a_row is None and self.failure_rate is None and self.slow_call_s is None:
            raise ConfigurationError(
                "Breaker: expected one of in_a_row, failure_rate and slow_call_s, got None for all"
            )
        if self.in_a_row is not None:
            _at_least("Breaker.in_a_row", self.in_a_row, 1)
        for option in ("failure_rate", "slow_rate"):
            rate = getattr(self, option)
            if rate is not None and not 0 < rate <= 1:
                raise ConfigurationError(f"Breaker.{option}: expected a share above 0 and up to 1, got {rate}")
        if self.slow_call_s is not None:
            _at_least("Breaker.slow_call_s", self.slow_call_s, 0.001)
        _at_least("Breaker.min_calls", self.min_calls, 1)
        _at_least("Breaker.window_s", self.window_s, 1)
        _at_least("Breaker.open_s", self.open_s, 0.001)
        _at_least("Breaker.max_open_s", self.max_open_s, self.open_s)
        _at_least("Breaker.jitter", self.jitter, 0)
        _at_most("Breaker.jitter", self.jitter, 0.5)
        _at_least("Breaker.successes", self.successes, 1)

    @classmethod
    def consecutive(cls, name: str, failures: int = 4, open_s: float = 5.0) -> Breaker:
        """Opens after so many failures in a row, always for as long, and closes after one success."""
        return cls(name, in_a_row=failures, failure_rate=None, open_s=open_s, max_open_s=open_s, successes=1)


class Fallback(enum.Enum):
    """What a read gives while what it asks is away."""

    FAIL_FAST = "fail_fast"  # nothing: it raises, and the record waits
    CACHED = "cached"  # the last good answer for the same key, if there is one that is young enough
    DEFAULT = "default"  # the value that the handler gave for it, or what its function returns for the key
    SKIP = "skip"  # None
    DEFER = "defer"  # nothing: the record goes to the handler's next retry topic, and no attempt is spent


@dataclass(frozen=True, slots=True)
class Read:
    """A read that may do without the dependency it asks; see `Context.read`.

    `fallbacks` are tried in order, until one has an answer; if none has, it is as with `fail_fast`. Those behind one
    that always has an answer are there to be switched to: `degradation.<name>` of the configuration says which one is
    in force instead of them all, while the worker runs. Only for reads: a write that is left out is lost.
    """

    name: str  # of the operation, for the configuration, metrics and /status
    fallbacks: Sequence[Fallback | str]
    _: KW_ONLY
    dependency: str  # the Breaker among the handler's dependencies that says which errors are an outage
    max_stale_s: float = 300.0  # age up to which a cached answer is given
    max_entries: int = 10_000  # answers that are kept, per handler; the oldest go first

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", self.name):
            raise ConfigurationError(f"Read.name: expected 1 to 64 of a-z 0-9 _, a letter first, got {self.name!r}")
        name = f"Read({self.name!r}).fallbacks"
        if isinstance(self.fallbacks, str) or not self.fallbacks:
            raise ConfigurationError(f'{name}: expected a tuple, ("cached", "skip"), got {self.fallbacks!r}')
        object.__setattr__(self, "fallbacks", tuple(member(name, Fallback, one) for one in self.fallbacks))
        _at_least("Read.max_stale_s", self.max_stale_s, 0)
        _at_least("Read.max_entries", self.max_entries, 1)


class GroupProtocol(enum.Enum):
    """Rebalance protocol of the group."""

    CLASSIC = "classic"  # cooperative-sticky; any broker
    CONSUMER = "consumer"  # KIP-848; brokers 4.0 and later


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConfig:
    """The cluster and this worker's membership."""

    bootstrap_servers: str = "localhost:9092"  # host:port, comma-separated
    group: str = ""  # consumer group; required to run
    group_protocol: GroupProtocol = GroupProtocol.CLASSIC
    session_timeout_s: float = 45.0  # classic: sent; consumer: the broker's, declared here for `check`
    lease_s: float | None = None  # without a proof of membership for so long no call starts; None: min(10, session / 2)
    max_poll_interval_s: float = 300.0  # the loop polls far more often; a fallback only
    start: str = "earliest"  # where a group without offsets begins: earliest | latest | timestamp:<ISO 8601>
    queued_min_messages: int = 20_000  # prefetch per partition, in records
    queued_max_kbytes: int = 16_384  # prefetch of the consumer, KiB; the client's default is four times that
    max_record_bytes: int = 1024 * 1024  # a larger value is poison before it is decoded
    librdkafka: Mapping[str, str | int | float | bool] = field(default_factory=dict)  # the client's own options

    def __post_init__(self) -> None:
        _at_least("kafka.session_timeout_s", self.session_timeout_s, 1)
        _at_most("kafka.session_timeout_s", self.session_timeout_s, 3600)  # the client's bound
        _at_least(
            "kafka.max_poll_interval_s", self.max_poll_interval_s, self.session_timeout_s, "kafka.session_timeout_s"
        )
        _at_most("kafka.max_poll_interval_s", self.max_poll_interval_s, 86_400)  # the client's bound
        if self.lease_s is not None:
            _at_least("kafka.lease_s", self.lease_s, 0.5)
            if self.lease_s >= self.session_timeout_s:
                raise ConfigurationError(
                    f"kafka.lease_s: expected less than kafka.session_timeout_s ({self.session_timeout_s:g}),"
                    f" got {self.lease_s:g}"
                )
        _at_least("kafka.queued_min_messages", self.queued_min_messages, 1)
        _at_least("kafka.queued_max_kbytes", self.queued_max_kbytes, 1)
        _at_least("kafka.max_record_bytes", self.max_record_bytes, 1)

    @property
    def membership_lease_s(self) -> float:
        """How old the last proof of membership may be for a call to be started."""
        return min(10.0, self.session_timeout_s / 2) if self.lease_s is None else self.lease_s


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitConfig:
    """When offsets are committed."""

    interval_s: float = 1.0  # the repeats after a crash grow with it
    timeout_s: float = 2.0  # an answer later than that is not waited for
    max_uncommitted: int = 16_384  # records per partition that a crash may repeat; then the partition waits

    def __post_init__(self) -> None:
        _at_least("commit.interval_s", self.interval_s, 0.01)
        _at_least("commit.timeout_s", self.timeout_s, 0.05)
        _at_least("commit.max_uncommitted", self.max_uncommitted, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowConfig:
    """How much is in hand at once."""

    max_inflight: int = 10_000  # records fetched and not settled, per worker
    max_buffer_bytes: int = 64 * 1024 * 1024  # their values' bytes
    pause_after_s: float = 0.5  # a pause throws the prefetch away, so the need for it must last
    resume_at: float = 0.5  # share of the bound at which a paused partition goes on
    max_slice: int = 1000  # records handed to a thread at once
    slice_s: float = 0.005  # aim for the work in a slice: the hand-over is paid once, lanes still spread
    process_slice_s: float = 0.05  # the same for execution="process", where a hand-over costs several times as much

    def __post_init__(self) -> None:
        _at_least("flow.max_inflight", self.max_inflight, 1)
        _at_least("flow.max_buffer_bytes", self.max_buffer_bytes, 1)
        _at_least("flow.pause_after_s", self.pause_after_s, 0)
        _at_least("flow.max_slice", self.max_slice, 1)
        if not 0 < self.resume_at <= 1:
            raise ConfigurationError(f"flow.resume_at: expected a share in (0, 1], got {self.resume_at}")


class OldHead(enum.Enum):
    """What follows when the lowest open record of a partition is open for too long."""

    ALERT = "alert"  # it is reported
    DIVERT = "divert"  # and dead-lettered, if its handler has dead letters and it waits for another try


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecycleConfig:
    """How the worker stops, and what it takes for a stall."""

    drain_timeout_s: float = 25.0  # what runs may finish; Kubernetes gives 30 s
    close_timeout_s: float = 4.0  # leaving the group; then the process ends itself, exit code 5
    revoke_timeout_s: float = 5.0  # inside a rebalance; its last 2 s are the commit's
    stall_timeout_s: float = 60.0  # lag without progress, or one call longer than this, is reported
    handler_timeout_s: float | None = None  # a call longer than this ends the process, exit code 4
    max_head_age_s: float | None = 300.0  # for how long the lowest open record of a partition may hold its commits back
    old_head: OldHead = (
        OldHead.ALERT
    )  # what follows then; a partition that stands still for another reason is left alone
    max_rss_bytes: int | None = None  # resident memory above which nothing more is fetched; Linux only
    max_rss_s: float = 30.0  # for how long it may stay above; then the worker drains and ends, exit code 7

    def __post_init__(self) -> None:
        _at_least("lifecycle.drain_timeout_s", self.drain_timeout_s, 0)
        _at_least("lifecycle.close_timeout_s", self.close_timeout_s, 0.1)
        _at_least("lifecycle.revoke_timeout_s", self.revoke_timeout_s, 0)
        _at_least("lifecycle.stall_timeout_s", self.stall_timeout_s, 0.1)
        if self.max_head_age_s is not None:
            _at_least("lifecycle.max_head_age_s", self.max_head_age_s, 1)
        if self.max_rss_bytes is not None:
            _at_least("lifecycle.max_rss_bytes", self.max_rss_bytes, 1)
        _at_least("lifecycle.max_rss_s", self.max_rss_s, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterConfig:
    """Writing dead letters."""

    delivery_timeout_s: float = 15.0  # below the drain timeout, so that a drain sees the answer
    max_unacknowledged: int = 1_000  # per partition; then its dispatch holds
    retry_min_s: float = 1.0  # a refused write is tried again by itself, with back-off
    retry_max_s: float = 30.0
    budget: int = 1_000  # dead letters per partition in one burst; the guard against a broken deploy
    records_per_token: int = 10  # the budget refills by one per this many records handled,
    seconds_per_token: float = 10.0  # and by one per this many seconds
    max_parked_keys: int = 10_000  # per partition, with on_exhausted="dlq_key"; then it stands still

    def __post_init__(self) -> None:
        _at_least("dead_letters.delivery_timeout_s", self.delivery_timeout_s, 0.1)
        # The client counts milliseconds in 31 bits.
        _at_most("dead_letters.delivery_timeout_s", self.delivery_timeout_s, 2_000_000)
        _at_least("dead_letters.max_unacknowledged", self.max_unacknowledged, 1)
        _at_least("dead_letters.retry_min_s", self.retry_min_s, 0.01)
        _at_least("dead_letters.retry_max_s", self.retry_max_s, self.retry_min_s, "dead_letters.retry_min_s")
        _at_least("dead_letters.budget", self.budget, 1)
        _at_least("dead_letters.records_per_token", self.records_per_token, 1)
        _at_least("dead_letters.seconds_per_token", self.seconds_per_token, 0.01)
        _at_least("dead_letters.max_parked_keys", self.max_parked_keys, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """The port for /metrics, /health and /status."""

    enabled: bool = True
    host: str = "0.0.0.0"  # noqa: S104 - probes and scrapers come from other hosts
    port: int = 8080  # 0 takes a free one and logs it

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ConfigurationError(f"http.port: expected 0 to 65535, got {self.port}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """What is logged and how."""

    level: str = "INFO"  # DEBUG | INFO | WARNING | ERROR
    format: str = "auto"  # auto (JSON unless a terminal) | json | console

    def __post_init__(self) -> None:
        _one_of("log.level", self.level, ("DEBUG", "INFO", "WARNING", "ERROR"))
        _one_of("log.format", self.format, ("auto", "json", "console"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything; one table of `streamworker.toml` per field."""

    kafka: KafkaConfig = field(default_factory=KafkaConfig)
    commit: CommitConfig = field(default_factory=CommitConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    lifecycle: LifecycleConfig = field(default_factory=LifecycleConfig)
    dead_letters: DeadLetterConfig = field(default_factory=DeadLetterConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    log: LogConfig = field(default_factory=LogConfig)
    degradation: Mapping[str, str] = field(
        default_factory=dict
    )  # what is in force, by a read's name; the table that SIGHUP reads again
    app: Mapping[str, object] = field(default_factory=dict)  # the application's own table; handlers get it in open()

    def __post_init__(self) -> None:
        for operation, fallback in self.degradation.items():
            member(f"degradation.{operation}", Fallback, fallback)
        lifecycle = self.lifecycle
        if lifecycle.revoke_timeout_s > self.kafka.session_timeout_s / 2:
            raise ConfigurationError(
                f"lifecycle.revoke_timeout_s: expected at most half of kafka.session_timeout_s"
                f" ({self.kafka.session_timeout_s / 2:g}), got {lifecycle.revoke_timeout_s:g}"
            )
        if self.dead_letters.delivery_timeout_s >= max(lifecycle.drain_timeout_s, 0.2):
            raise ConfigurationError(
                f"dead_letters.delivery_timeout_s: expected less than lifecycle.drain_timeout_s"
                f" ({lifecycle.drain_timeout_s:g}), got {self.dead_letters.delivery_timeout_s:g}"
            )


# Tables whose options have names that somebody else gives.
FREE_TABLES = ("degradation", "app")


def tables() -> Sequence[str]:
    """Names of the configuration's tables, in order."""
    return [table.name for table in fields(Config)]


def _at_least(name: str, value: float, minimum: float, option: str | None = None) -> None:
    """Refuse a `value` below `minimum`, which is that of another `option` if one is named."""
    if not value >= minimum:
        least = f"{minimum:g}" if option is None else f"{option} ({minimum:g})"
        raise ConfigurationError(f"{name}: expected at least {least}, got {value!r}")


def _at_most(name: str, value: float, maximum: float) -> None:
    if not value <= maximum:
        raise ConfigurationError(f"{name}: expected at most {maximum:g}, got {value!r}")


def _one_of(name: str, value: str, options: Sequence[str]) -> None:
    if value not in options:
        raise ConfigurationError(f"{name}: expected one of {', '.join(options)}, got {value!r}")


def member(name: str, kind: type[E], value: E | str) -> E:
    """The member of enum `kind` that `value` is or names; `name` says where it stood."""
    if isinstance(value, kind):
        return value
    try:
        return kind(value)
    except ValueError:
        known = [str(option.value) for option in kind]
        raise ConfigurationError(f"{name}: got {value!r}; {nearest(str(value), known)}") from None
