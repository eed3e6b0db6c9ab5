"""What the stages ask of each other and of the world, as protocols whose docstrings are promises."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, ParamSpec, Protocol, TypedDict, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
    from types import TracebackType

    from streamworker.options import Fallback
    from streamworker.record import Header, Letter, Message, Origin, Record, TopicPartition
    from streamworker.tally import ClaimedSlice
    from streamworker.work import InHand, Place, Slice, SliceOutcome

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")
K = TypeVar("K")
KH = TypeVar("KH", bound="Hashable")
K_contra = TypeVar("K_contra", contravariant=True)
V = TypeVar("V")
P = ParamSpec("P")

ClientOption = str | int | float | bool  # what librdkafka takes for one of its options


class Serde(Protocol[T]):
    """Bytes to a value and back. Called from several pool threads at once.

    `topic` is where the record is or goes; most serdes do not look at it. Where many values at once cost less than one
    after the other, a serde may also have `decode_all(data: Sequence[bytes], topic) -> Sequence[T]`. It raises anything
    if one of them is at fault: `decode` is asked then which, and why.
    """

    def decode(self, data: bytes, topic: str) -> T:
        """The value; raises DecodeError for bytes at fault, DependencyUnavailable to wait.

        Any other exception counts as DecodeError. Null never comes here: it reaches the handler as None.
        """

    def encode(self, value: T, topic: str) -> bytes:
        """The bytes; raises ValueError for a value that does not fit."""


class AnySerde(Protocol):
    """Any `Serde`, where its type does not matter."""

    def decode(self, data: bytes, topic: str) -> object:
        """As `Serde.decode`."""

    @property
    def encode(self) -> Callable[..., bytes]:
        """As `Serde.encode`; a property, since what it takes differs and is never made here."""


class Dependency(Protocol):
    """Something that a handler calls and that may be away. Any thread.

    `with dependency: ...` around a call, or `call`. Both raise CircuitOpen instead of making the call while the
    dependency is away; what the call itself raises comes through.
    """

    @property
    def name(self) -> str:
        """The name that the handler's class gave it."""

    def __enter__(self) -> None:
        """Ask for leave."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Count what became of the call."""

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """What `function` returns for these arguments."""


@dataclass(frozen=True, slots=True)
class Reading(Generic[V]):
    """What a read gave. `degraded` says that it is not what the dependency answered now; then `headers` tell of it.

    `value` is None if the read was skipped, or if that is the answer.
    """

    value: V | None
    operation: str
    degraded: Fallback | None = None

    @property
    def headers(self) -> Sequence[Header]:
        """`sw-degraded: <operation>=<fallback>`, to put on what is made of it; none unless it is degraded."""
        if self.degraded is None:
            return ()
        return (("sw-degraded", f"{self.operation}={self.degraded.value}".encode()),)


class Reader(Protocol[K_contra, V]):
    """A read that may do without what it asks. The thread of the instance that made it."""

    def __call__(self, key: K_contra, /) -> Reading[V]:
        """What the lookup returns for `key`, or what stands in for it; raises what it raises if nothing does."""


class AsyncReader(Protocol[K_contra, V]):
    """A `Reader` whose lookup is `async def`. The event loop of the instance that made it."""

    async def __call__(self, key: K_contra, /) -> Reading[V]:
        """As of `Reader`, awaited."""


class Cache(Protocol[KH, V]):
    """A cache as a handler has it, from `Context.cache`. The thread, or the event loop, of the instance.

    Reads never fail because Redis does, and raise what the loader raises.
    """

    def get(self, key: KH) -> V | None:
        """The value of `key`; None if there is no such thing."""

    def get_many(self, keys: Iterable[KH]) -> dict[KH, V]:
        """The values of those `keys` that exist: one round trip for all that Redis has, one load for the others."""

    async def aget(self, key: KH) -> V | None:
        """As `get`, for async handlers."""

    async def aget_many(self, keys: Iterable[KH]) -> dict[KH, V]:
        """As `get_many`, for async handlers."""

    def put(self, key: KH, value: V) -> None:
        """This is the value from now on: once the record has its effect, and if it has none, never."""

    def invalidate(self, *keys: KH) -> None:
        """What is cached of these is out of date: likewise."""


class CacheSettings(TypedDict, total=False):
    """What can be said of a cache, beside its name and its loader; what is left out suits most."""

    type_: type[object]  # of the values, for msgspec to write and read; without it the loader's annotation says it
    ttl_s: float  # in Redis, counted from the loading on and over both levels
    l1_ttl_s: float  # in the process
    negative_ttl_s: float  # of keys that do not exist
    version: Callable[..., int]  # of a value
    on_write: str  # what a write does to Redis: "replace", "invalidate" or "set"
    scope: str  # "shared", or "partition" if only records of one partition ever write a key
    lease_s: float  # twice what a slow load takes
    key: Callable[..., str]  # to text, of keys that are not text, whole numbers or bytes
    shared: str  # a name under which several groups share their values
    schema: int  # another one than before makes all that is in Redis a miss
    max_entries: int  # in the process
    max_bytes: int  # of a value in Redis


class CacheTruth(Protocol):
    """Whether the caches of a process can be believed. Any thread, never blocks."""

    @property
    def dirty(self) -> bool:
        """Whether one may have something out of date that was written here and could not be told to it."""

    def distrust(self) -> None:
        """Somebody else has written so: nothing is believed that was there before."""


class CacheProvider(Protocol):
    """Makes the caches of a process."""

    def for_handler(
        self,
        in_hand: InHand,
        name: str,
        *,
        loader: Callable[[KH], V | None] | None,
        load_many: Callable[[Sequence[KH]], Mapping[KH, V]] | None,
        settings: CacheSettings,
    ) -> Cache[KH, V]:
        """The cache called `name`, for an instance whose threads say in `in_hand` what they are at."""


class Unset(enum.Enum):
    """Nothing was given, not even None."""

    UNSET = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadStatus:
    """What may stand in for the answers of an operation, in order, and how often what did."""

    operation: str
    in_force: tuple[str, ...]
    degraded: Mapping[str, int]


class Operation(Protocol):
    """What the instances of one handler share of one `Read`. Any thread."""

    def reader(self, lookup: Callable[[K], V], default: V | Callable[[K], V] | Unset) -> Reader[K, V]:
        """A reader that asks `lookup`; raises ConfigurationError if a default is missing."""

    def async_reader(
        self, lookup: Callable[[K], Awaitable[V]], default: V | Callable[[K], V] | Unset
    ) -> AsyncReader[K, V]:
        """The same for a lookup that is awaited."""


class FaultKind(enum.Enum):
    """What the client can report instead of records."""

    OUT_OF_RANGE = "offset_out_of_range"  # the next offset is not in the log
    TRUNCATED = "log_truncated"  # the log was cut back behind us (unclean election)
    UNREADABLE = "unreadable_batch"  # the broker's batch cannot be read (checksum, compression)
    UNAUTHORIZED = "unauthorized"
    UNKNOWN_TOPIC = "unknown_topic"
    END_OF_PARTITION = "end_of_partition"  # only where asked for
    MAX_POLL_EXCEEDED = "max_poll_exceeded"  # the loop did not poll for too long; the partitions are lost
    FENCED = "fenced"  # another member with the same instance id has taken over
    UNRELEASED = "unreleased"  # another member has the same instance id, and has neither left nor run out of time
    FATAL = "fatal"  # the client instance is unusable
    PASSING = "passing"  # the client deals with it by itself


@dataclass(frozen=True, slots=True)
class Fault:
    """One error event, translated. `partition` is None when it concerns the client."""

    kind: FaultKind
    partition: TopicPartition | None
    offset: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class OffsetMark:
    """An offset to commit or committed, and the text kept beside it."""

    offset: int
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class CommitAnswer:
    """The coordinator's answer for one partition of a commit; `error` is librdkafka's name of it."""

    partition: TopicPartition
    mark: OffsetMark
    error: str | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one fetch brought."""

    runs: Sequence[tuple[TopicPartition, Sequence[Message]]] = ()  # of one partition each, in delivery order
    faults: Sequence[Fault] = ()
    commits: Sequence[CommitAnswer] = ()  # answers to asynchronous commits


@dataclass(frozen=True, slots=True)
class Start:
    """Where a newly assigned partition begins. A negative offset is the log's beginning."""

    offset: int
    paused: bool


@dataclass(frozen=True, slots=True)
class Membership:
    """What the client's statistics say of the group. `heard_s` is the monotonic time at which they were made.

    `proven_s` is when the coordinator was heard last by a member that has joined; None if it is not one now, or the
    coordinator was not heard on its present connection. `reached` says whether any broker has ever answered.
    """

    joined: bool
    state: str
    coordinator_idle_s: float
    heard_s: float
    proven_s: float | None
    reached: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerStatistics:
    """What the client says of one broker. Counts are since the client was made.

    `rtt_s` by quantile (`0.5`, `0.95`, `0.99`) is of the last interval in which there were answers, empty before that;
    `answers` took `answers_s` together. `throttle_s` is the longest wait that a quota brought of late.
    """

    rtt_s: Mapping[str, float] = field(default_factory=dict)
    answers: int = 0
    answers_s: float = 0.0
    throttle_s: float = 0.0
    disconnects: int = 0
    tx_errors: int = 0
    rx_errors: int = 0
    request_timeouts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientStatistics:
    """What the client says of itself. `brokers` are by number, and by `coordinator`."""

    brokers: Mapping[str, BrokerStatistics] = field(default_factory=dict)
    fetch_queue_records: int = 0
    fetch_queue_bytes: int = 0
    reply_queue_ops: int = 0
    rebalances: int = 0


class Rebalance(Protocol):
    """What the worker does when partitions come and go. Called inside `Source.fetch` or `close`."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Start]:
        """Begin an ownership epoch for each and say where to start."""

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Finish and commit what is in hand; the partitions are gone when this returns."""

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """The partitions are gone already: end their epochs, commit nothing."""


class Source(Protocol):
    """A member of a consumer group. Loop thread only.

    Nothing but `fetch`, `commit_now`, `committed` and `close` blocks.
    """

    def subscribe(self, topics: Sequence[str], rebalance: Rebalance) -> None:
        """Join the group. Topics are names, or patterns that start with ^."""

    def fetch(self, max_records: int, timeout_s: float) -> Fetched:
        """Wait up to `timeout_s` for the first record, then take what else is there.

        Serves the rebalance callbacks. With `max_records` 0 at most one record comes: the client
        cannot be polled without.
        """

    def committed(
        self, partitions: Sequence[TopicPartition], timeout_s: float
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        """The group's offsets, None where there is none. Raises ClientError when they cannot be had."""

    def commit(self, marks: Mapping[TopicPartition, OffsetMark]) -> None:
        """Send a commit; the answers come with a later fetch. Raises ClientError if it could not be sent."""

    def commit_now(self, marks: Mapping[TopicPartition, OffsetMark]) -> Sequence[CommitAnswer]:
        """Commit and wait for the answers. Use only while the coordinator answers: there is no timeout."""

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop fetching these; what was prefetched is thrown away and fetched again after resume."""

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Go on with these from after the last record delivered."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Deliver from `offset` next. Raises ClientError if the partition is not assigned."""

    def membership(self) -> Membership | None:
        """What the last statistics said of the group; None before the first."""

    def statistics(self) -> ClientStatistics | None:
        """What the last statistics said of the client itself; None before the first, and where there are none."""

    def group_metadata(self) -> object:
        """What a producer has to show the coordinator with a transaction: who the member is, as of now."""

    def positions(self) -> Mapping[TopicPartition, int]:
        """The next offset to be fetched of each by the last statistics; past transaction markers at the end."""

    def close(self) -> None:
        """Leave the group. Calls `Rebalance.revoked` for what is still assigned. Idempotent."""


class Outbox(Protocol):
    """A producer that acknowledges. Loop thread only; nothing blocks but `flush` and `partitions`."""

    def send(self, letter: Letter, done: Callable[[str | None], None]) -> None:
        """Hand over; `done` is called inside a later `poll`.

        It gets None when all in-sync replicas have the letter, else librdkafka's name of the error.
        Raises BufferError when its queue is full, ClientError when the record is refused at once.
        """

    def poll(self) -> None:
        """Serve delivery reports."""

    def partitions(self, topic: str, timeout_s: float) -> int | None:
        """Number of partitions of `topic`, None if there is no such topic. Raises ClientError."""

    def flush(self, timeout_s: float) -> int:
        """Wait for what was handed over; returns how many are still not acknowledged."""


class KeyLog(Protocol):
    """The topics with the notes of parked keys, from their beginning on. Loop thread only; nothing blocks."""

    def poll(self) -> Sequence[tuple[bytes | None, bytes | None]]:
        """Key and value of the notes that came since, in the order of each topic."""

    def reached(self, topic: str) -> int:
        """Offset up to which all notes of `topic` were told."""

    def close(self) -> None:
        """Read no more."""


class Log(Protocol):
    """Questions about the cluster that are no business of the group member (an admin client).

    Any thread; each call blocks at most for `timeout_s` and raises ClientError when it cannot be answered.
    """

    def end_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> Mapping[TopicPartition, int]:
        """Offset after the last record of each, for what readers of committed records can see."""

    def offsets_at(
        self, partitions: Sequence[TopicPartition], timestamp_ms: int, timeout_s: float
    ) -> Mapping[TopicPartition, int]:
        """First offset at or after the time; the end where there is none."""

    def partitions(self, topic: str, timeout_s: float) -> Sequence[TopicPartition]:
        """All partitions of `topic`; empty if there is no such topic."""

    def topic_ids(self, topics: Sequence[str], timeout_s: float) -> Mapping[str, str]:
        """What tells each of `topics` from another of its name, as far as the cluster says it."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a handler returned for one record: `values`, none if it is to have no effect."""

    offset: int  # where it was delivered from
    origin: Origin
    key: bytes | None
    values: Sequence[object]
    id: str | None = None  # by which it was claimed


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a write. Indices are those of its rows.

    `repeated` had their effect before. `superseded` had none, because a later record of the same row had its own.
    `versions` are those that the sink gave to rows it wrote, ascending for each row of the sink.
    """

    repeated: Sequence[int] = ()
    superseded: Sequence[int] = ()
    versions: Mapping[int, int] = field(default_factory=dict)


class Writer(Protocol):
    """Writes the rows of one handler's instance, on its thread or in its process only."""

    def write(self, place: Place, rows: Sequence[Row]) -> Written:
        """Return when all of `rows` are durable, or had their effect before.

        Raises RowFailed(index) when those before it are durable, and it and what follows had no effect. What else it
        raises means that nothing is known to be durable: OwnershipLost when another owner has taken over,
        ForeignRewind when records come again that nothing says to repeat, and for a server that is away what the
        driver raises, which breakers know by its name. What is called again with the same rows has no second effect,
        as far as the sink promises that.
        """

    def close(self) -> None:
        """Let go of its connection. Idempotent."""


class SinkContext(Protocol):
    """What a sink may know of the handler that it writes for, and of its process; `Context` is one. Any thread."""

    @property
    def group(self) -> str:
        """The consumer group."""

    @property
    def handler(self) -> str:
        """The handler's name."""

    def connection(self, name: str) -> str:
        """The URL that the configuration's table `sinks` has under `name`; raises ConfigurationError without one."""

    def producer(self) -> Mapping[str, ClientOption]:
        """Options of librdkafka for a producer to the worker's own cluster, secrets included."""

    def follow_credentials(self, take: Callable[[str, str], None]) -> None:
        """Let `take` have name and password of SASL of that cluster when they change; it is called on any thread."""

    def shared(self, name: str, factory: Callable[[], S]) -> S:
        """As of `Context`: the object called `name`, which all instances of the handler share."""

    def remaining_s(self, most_s: float) -> float:
        """Seconds that the call in progress on this thread has left, at least a millisecond and at most `most_s`."""


class Sink(Protocol):
    """Where what a handler returns is written. Declared on the class, so it is immutable and has no connection.

    One sink may be declared on several handlers.
    """

    @property
    def name(self) -> str:
        """Of the connection, as in the configuration's table `sinks`."""

    @property
    def knows_repeats(self) -> bool:
        """Whether what is written again has no second effect, whatever died in between."""

    @property
    def keeps_marks(self) -> bool:
        """Whether it goes by `Place`: then the records of a lane come in order, and none comes by a retry topic."""

    def writer(self, context: SinkContext) -> Writer:
        """A writer for one instance; raises ConfigurationError for what cannot work. Need not connect yet."""


class TransactionalSink(Protocol):
    """A sink whose records can be part of a transaction of Kafka."""

    def encoder(self, context: SinkContext) -> Callable[[Row], Sequence[Letter]]:
        """What makes the records of a row; it raises PoisonError where none can be made. Any thread."""


class Claimer(Protocol):
    """Claims for one handler, before its calls. Any thread, and it may block for as long as its client may."""

    def claim(self, slice_: Slice, record: Callable[[int], Record[object]]) -> ClaimedSlice:
        """Claim the records of `slice_`; `record` decodes one, and what it raises leaves that one unclaimed."""


class Executor(Protocol[S]):
    """Runs slices on the handlers' pools. Loop thread only, except that pools run elsewhere."""

    def start(self) -> None:
        """Make and open all handler instances; raises what `open` raised."""

    def submit(self, slice_: S) -> None:
        """Hand over; never blocks, since the caller keeps within the pool's size."""

    def replace(self, slice_: S) -> None:
        """Make up for the thread that has `slice_` in hand, whose call has run out of time; never blocks.

        The outcome still comes once the call has ended, and the thread ends with it.
        """

    def collect(self, timeout_s: float) -> Sequence[SliceOutcome[S]]:
        """Outcomes that are there; waits up to `timeout_s` for the first."""

    def blocked(self) -> Mapping[str, float]:
        """For how many seconds the event loop of each async handler has not come round."""

    def stop(self, timeout_s: float) -> bool:
        """Close the instances; false if some were still running a call at the end of the time."""
