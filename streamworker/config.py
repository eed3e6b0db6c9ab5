"""What can be configured, one frozen dataclass per stage.

Every field has a default that suits most and a comment with its unit and reason; the reference page
of the documentation is made from this file. Values are checked where they are made
(`__post_init__`); where they come from is `cli/settings.py`'s business.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from streamworker.bounds import addresses, at_least, at_most, member, one_of
from streamworker.errors import ConfigurationError
from streamworker.options import Fallback


class GroupProtocol(enum.Enum):
    """Rebalance protocol of the group."""

    CLASSIC = "classic"  # cooperative-sticky; any broker
    CONSUMER = "consumer"  # KIP-848; brokers 4.0 and later


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConfig:
    """The cluster and this worker's membership."""

    bootstrap_servers: str = "localhost:9092"  # host:port, comma-separated; without a port 9092
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
        addresses("kafka.bootstrap_servers", self.bootstrap_servers)
        at_least("kafka.session_timeout_s", self.session_timeout_s, 1)
        at_most("kafka.session_timeout_s", self.session_timeout_s, 3600)  # the client's bound
        at_least(
            "kafka.max_poll_interval_s", self.max_poll_interval_s, self.session_timeout_s, "kafka.session_timeout_s"
        )
        at_most("kafka.max_poll_interval_s", self.max_poll_interval_s, 86_400)  # the client's bound
        if self.lease_s is not None:
            at_least("kafka.lease_s", self.lease_s, 0.5)
            if self.lease_s >= self.session_timeout_s:
                raise ConfigurationError(
                    f"kafka.lease_s: expected less than kafka.session_timeout_s ({self.session_timeout_s:g}),"
                    f" got {self.lease_s:g}"
                )
        at_least("kafka.queued_min_messages", self.queued_min_messages, 1)
        at_least("kafka.queued_max_kbytes", self.queued_max_kbytes, 1)
        at_least("kafka.max_record_bytes", self.max_record_bytes, 1)

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
        at_least("commit.interval_s", self.interval_s, 0.01)
        at_least("commit.timeout_s", self.timeout_s, 0.05)
        at_least("commit.max_uncommitted", self.max_uncommitted, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionConfig:
    """Transactions of handlers with delivery="transactional"."""

    interval_s: float = 0.1  # between two; readers of committed records wait as long
    timeout_s: float = 15.0  # after which the brokers abort one; others wait as long for what a dead worker left open
    max_bytes: int = 8 * 1024 * 1024  # of outputs; above it nothing more is handed over before the next is committed

    def __post_init__(self) -> None:
        at_least("transactions.interval_s", self.interval_s, 0.01)
        at_least("transactions.timeout_s", self.timeout_s, 1)
        at_most("transactions.timeout_s", self.timeout_s, 900)  # the brokers' bound, unless it was moved
        at_least("transactions.max_bytes", self.max_bytes, 1)


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
    sink_slice_s: float = 0.1  # the same with a sink: a write costs milliseconds, whatever it writes

    def __post_init__(self) -> None:
        at_least("flow.max_inflight", self.max_inflight, 1)
        at_least("flow.max_buffer_bytes", self.max_buffer_bytes, 1)
        at_least("flow.pause_after_s", self.pause_after_s, 0)
        at_least("flow.max_slice", self.max_slice, 1)
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
        at_least("lifecycle.drain_timeout_s", self.drain_timeout_s, 0)
        at_least("lifecycle.close_timeout_s", self.close_timeout_s, 0.1)
        at_least("lifecycle.revoke_timeout_s", self.revoke_timeout_s, 0)
        at_least("lifecycle.stall_timeout_s", self.stall_timeout_s, 0.1)
        if self.max_head_age_s is not None:
            at_least("lifecycle.max_head_age_s", self.max_head_age_s, 1)
        if self.max_rss_bytes is not None:
            at_least("lifecycle.max_rss_bytes", self.max_rss_bytes, 1)
        at_least("lifecycle.max_rss_s", self.max_rss_s, 0)


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
        at_least("dead_letters.delivery_timeout_s", self.delivery_timeout_s, 0.1)
        # The client counts milliseconds in 31 bits.
        at_most("dead_letters.delivery_timeout_s", self.delivery_timeout_s, 2_000_000)
        at_least("dead_letters.max_unacknowledged", self.max_unacknowledged, 1)
        at_least("dead_letters.retry_min_s", self.retry_min_s, 0.01)
        at_least("dead_letters.retry_max_s", self.retry_max_s, self.retry_min_s, "dead_letters.retry_min_s")
        at_least("dead_letters.budget", self.budget, 1)
        at_least("dead_letters.records_per_token", self.records_per_token, 1)
        at_least("dead_letters.seconds_per_token", self.seconds_per_token, 0.01)
        at_least("dead_letters.max_parked_keys", self.max_parked_keys, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig:
    """Where dead letters may be sent again to, besides the replay topics of groups."""

    key_file: str | None = None  # file with the secret that signs what goes to a source topic; None: nothing does
    targets: str = ""  # other topics, separated by commas: for letters that do not say which group they failed for


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """The audit of what people do to dead letters."""

    key_file: str | None = None  # file with the secret that its entries are signed with; None: they are only chained


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleConfig:
    """What the console asks besides Kafka."""

    workers: str = ""  # where to ask what holds groups: URLs, or HOST:PORT for all addresses of a name; by commas


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """The caches that handlers ask their contexts for."""

    redis: str | None = field(default=None, repr=False)  # its URL; None: each process has a cache of its own
    timeout_s: float = 0.05  # for all that one call asks Redis; then it goes on without
    max_entries: int = 100_000  # of each cache in this process; the garbage collector walks through them
    lease_wait_s: float = 0.1  # for a value that another process loads; then it is loaded here as well
    degraded_ttl_s: float = 1.0  # for how long this process keeps a value while it may miss that others change it
    max_dirty: int = 100_000  # keys of each cache that Redis is told of when it is back; with more all is forgotten

    def __post_init__(self) -> None:
        at_least("cache.timeout_s", self.timeout_s, 0.001)
        at_least("cache.max_entries", self.max_entries, 1)
        at_least("cache.lease_wait_s", self.lease_wait_s, 0)
        at_least("cache.degraded_ttl_s", self.degraded_ttl_s, 0)
        at_least("cache.max_dirty", self.max_dirty, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimConfig:
    """Claims of idempotent handlers, and locks."""

    redis: str | None = field(
        default=None, repr=False
    )  # its URL; an instance that evicts nothing, apart from the cache's
    timeout_s: float = 0.25  # for one call of Redis

    def __post_init__(self) -> None:
        at_least("claims.timeout_s", self.timeout_s, 0.001)


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
        one_of("log.level", self.level, ("DEBUG", "INFO", "WARNING", "ERROR"))
        one_of("log.format", self.format, ("auto", "json", "console"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentConfig:
    """What tells the workers of one roll-out from those of another."""

    track: str = "stable"  # stable | canary; a label of streamworker_build_info

    def __post_init__(self) -> None:
        one_of("deployment.track", self.track, ("stable", "canary"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything; one table of `streamworker.toml` per field."""

    kafka: KafkaConfig = field(default_factory=KafkaConfig)
    commit: CommitConfig = field(default_factory=CommitConfig)
    transactions: TransactionConfig = field(default_factory=TransactionConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    lifecycle: LifecycleConfig = field(default_factory=LifecycleConfig)
    dead_letters: DeadLetterConfig = field(default_factory=DeadLetterConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    console: ConsoleConfig = field(default_factory=ConsoleConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    claims: ClaimConfig = field(default_factory=ClaimConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    log: LogConfig = field(default_factory=LogConfig)
    deployment: DeploymentConfig = field(default_factory=DeploymentConfig)
    degradation: Mapping[str, str] = field(
        default_factory=dict
    )  # what is in force, by a read's name; the table that SIGHUP reads again
    sinks: Mapping[str, str] = field(default_factory=dict, repr=False)  # URLs, by the names that sinks call them by
    masking: Mapping[str, str] = field(default_factory=dict)  # what people see of dead letters, by paths of fields
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
FREE_TABLES = ("degradation", "sinks", "masking", "app")


def tables() -> Sequence[str]:
    """Names of the configuration's tables, in order."""
    return [table.name for table in fields(Config)]
