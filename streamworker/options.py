"""What a handler's class can declare, one frozen dataclass per option.

Every field has a default that suits most and a comment with its unit and reason. Values are checked where they are made
(`__post_init__`); how they go together is `declaration.py`'s business.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass

from streamworker.bounds import at_least, at_most, matching, member
from streamworker.errors import ConfigurationError


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


class Delivery(enum.Enum):
    """How often what a handler returns is in its sink."""

    AT_LEAST_ONCE = "at_least_once"  # written, then the offset is committed: a crash in between repeats it
    TRANSACTIONAL = "transactional"  # to Kafka: with the offset, in one transaction


class Preview(enum.Enum):
    """What is tried before a dead letter is sent again, to show what the handler would make of it."""

    METHOD = "method"  # its method `preview`
    HANDLE = "handle"  # `handle`, and nothing that it returns is written


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

    def __post_init__(self) -> None:
        matching(f"Rule.{self.action.value}", self.matches)

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
        at_least("RetryTopic.delay_s", self.delay_s, 1)
        at_most("RetryTopic.delay_s", self.delay_s, 7 * 86_400)  # a week: topics delete what is older than a few
        at_least("RetryTopic.attempts", self.attempts, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a failed record is handed over again. Nothing sleeps: the scheduler holds the record.

    A delay may be longer than `max.poll.interval.ms`. With `topics` a record whose attempts are used up leaves its
    partition, and the records of its key with it: they are not handled in order any more.
    """

    attempts: int = 4  # calls in all, the first included; before it goes to a retry topic
    base_s: float = 0.1  # full jitter: after call number n uniform in 0 … min(cap_s, base_s · 2^(n-1))
    cap_s: float = 2.0  # the longest of these waits
    wait: Callable[..., float] | None = None  # a tenacity wait strategy instead of base_s and cap_s
    topics: Sequence[RetryTopic] = ()  # where it goes then, one after the other, before the dead letters

    def __post_init__(self) -> None:
        at_least("Retry.attempts", self.attempts, 1)
        at_least("Retry.base_s", self.base_s, 0)
        at_least("Retry.cap_s", self.cap_s, self.base_s)
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
        at_least("RetryBudget.ratio", self.ratio, 0)
        at_least("RetryBudget.min_per_s", self.min_per_s, 0.01)


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
        at_least("Rate.per_s", self.per_s, 0.001)
        if self.burst is not None:
            at_least("Rate.burst", self.burst, 1)
        at_least("Rate.max_keys", self.max_keys, 1)

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
        at_least("Adaptive.least", self.least, 1)
        if self.counts is not None:
            matching("Adaptive.counts", self.counts)
        if not 0 < self.backoff < 1:
            raise ConfigurationError(f"Adaptive.backoff: expected a share between 0 and 1, got {self.backoff}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """When a batch is handed over: the first limit that is reached. It never mixes partitions."""

    max_records: int = 500
    max_bytes: int = 4 * 1024 * 1024  # of values
    max_wait_s: float = 0.2  # since the oldest record of the batch came

    def __post_init__(self) -> None:
        at_least("Batch.max_records", self.max_records, 1)
        at_least("Batch.max_bytes", self.max_bytes, 1)
        at_least("Batch.max_wait_s", self.max_wait_s, 0)


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
    _: KW_ONLY
    replay: bool = True  # also read <topic>.replay.<group>, where people send dead letters to be handled again

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
        at_least("Bulkhead.max_concurrent", self.max_concurrent, 1)
        at_least("Bulkhead.max_wait_s", self.max_wait_s, 0)


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
            at_least("Breaker.in_a_row", self.in_a_row, 1)
        for option in ("failure_rate", "slow_rate"):
            rate = getattr(self, option)
            if rate is not None and not 0 < rate <= 1:
                raise ConfigurationError(f"Breaker.{option}: expected a share above 0 and up to 1, got {rate}")
        if self.slow_call_s is not None:
            at_least("Breaker.slow_call_s", self.slow_call_s, 0.001)
        at_least("Breaker.min_calls", self.min_calls, 1)
        at_least("Breaker.window_s", self.window_s, 1)
        at_least("Breaker.open_s", self.open_s, 0.001)
        at_least("Breaker.max_open_s", self.max_open_s, self.open_s)
        at_least("Breaker.jitter", self.jitter, 0)
        at_most("Breaker.jitter", self.jitter, 0.5)
        at_least("Breaker.successes", self.successes, 1)
        if self.counts is not None:
            matching("Breaker.counts", self.counts)

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
        at_least("Read.max_stale_s", self.max_stale_s, 0)
        at_least("Read.max_entries", self.max_entries, 1)


class KeptIn(enum.Enum):
    """Where it is known which records had their effect."""

    SINK = "sink"  # in the sink, in the transaction of the effect: each has it once
    REDIS = "redis"  # in Redis, beside the effect: repeats are rare, and are not ruled out


class OnUnavailable(enum.Enum):
    """What follows while Redis cannot be asked whether a record had its effect."""

    PROCESS = "process"  # it is handled: at least once, as without claims
    PAUSE = "pause"  # it waits, and no attempt is spent


@dataclass(frozen=True, slots=True)
class Idempotency:
    """How a record is kept from having its effect twice; made by `Idempotency.sink()` or `Idempotency.redis(…)`.

    In Redis, a record is claimed before its call, and noted as done after its effect. One that is done is not handled
    again, one that somebody else has claimed waits for the end of that lease.
    """

    kept_in: KeptIn | str
    _: KW_ONLY
    ttl_s: float = 86_400.0  # for which it is known that a record is done; longer than anything is delivered again
    lease_s: float = 30.0  # after which others may handle what a dead worker had; it is extended while a call goes on
    id: Callable[..., str] | None = None  # of the record, what is the same effect; None: where it was first
    on_unavailable: OnUnavailable | str | None = None  # None: process if the sink knows repeats itself, else pause

    def __post_init__(self) -> None:
        object.__setattr__(self, "kept_in", member("Idempotency", KeptIn, self.kept_in))
        at_least("Idempotency.lease_s", self.lease_s, 1)
        at_most("Idempotency.lease_s", self.lease_s, 3600)
        at_least("Idempotency.ttl_s", self.ttl_s, self.lease_s, "lease_s")
        if self.id is not None and not callable(self.id):
            raise ConfigurationError(
                f"Idempotency.id: expected a function of the record, lambda record: record.value.id, got {self.id!r}"
            )
        if self.on_unavailable is not None:
            found = member("Idempotency.on_unavailable", OnUnavailable, self.on_unavailable)
            object.__setattr__(self, "on_unavailable", found)

    @classmethod
    def sink(cls) -> Idempotency:
        """By the sink, which has to be one that keeps marks or compares offsets."""
        return cls(KeptIn.SINK)

    @classmethod
    def redis(
        cls,
        *,
        ttl_s: float = 86_400.0,
        lease_s: float = 30.0,
        id: Callable[..., str] | None = None,  # noqa: A002 - the field's word, and nothing here needs the built-in
        on_unavailable: OnUnavailable | str | None = None,
    ) -> Idempotency:
        """By claims in Redis, for effects that no database has part in."""
        return cls(
            KeptIn.REDIS,
            ttl_s=ttl_s,
            lease_s=lease_s,
            id=id,
            on_unavailable=on_unavailable,
        )

    def when_unavailable(self, *, sink_knows_repeats: bool) -> OnUnavailable:
        """What follows while Redis cannot be asked, for a handler whose sink has, or has not, marks of its own."""
        if self.on_unavailable is None:
            return OnUnavailable.PROCESS if sink_knows_repeats else OnUnavailable.PAUSE
        return member("Idempotency.on_unavailable", OnUnavailable, self.on_unavailable)
