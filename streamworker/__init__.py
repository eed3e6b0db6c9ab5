"""streamworker: Kafka records through a handler to a committed offset."""

from streamworker.config import Config, GroupProtocol
from streamworker.errors import (
    BatchFailed,
    BulkheadFull,
    CallKilled,
    CircuitOpen,
    ConfigurationError,
    DecodeError,
    Defer,
    DependencyUnavailable,
    FatalError,
    HandlerTimeout,
    PoisonError,
    RetryableError,
    StreamworkerError,
)
from streamworker.events import Listener
from streamworker.handler import BatchHandler, Context, Handler, SinkHandler
from streamworker.interfaces import AsyncReader, Dependency, Reader, Reading, Serde, Sink
from streamworker.options import (
    Action,
    Adaptive,
    Batch,
    Breaker,
    Bulkhead,
    DeadLetter,
    Execution,
    Fallback,
    OnExhausted,
    Ordering,
    Rate,
    Read,
    Retry,
    RetryBudget,
    RetryTopic,
    Rule,
)
from streamworker.record import Ending, Headers, Origin, Record, Records, TopicPartition
from streamworker.serde import Avro, Bytes, Json, Text
from streamworker.sinks.http import HttpSink
from streamworker.sinks.redis import RedisSink
from streamworker.sinks.values import Delete

__version__ = "0.1.0"

__all__ = [
    "Action",
    "Adaptive",
    "AsyncReader",
    "Avro",
    "Batch",
    "BatchFailed",
    "BatchHandler",
    "Breaker",
    "Bulkhead",
    "BulkheadFull",
    "Bytes",
    "CallKilled",
    "CircuitOpen",
    "Config",
    "ConfigurationError",
    "Context",
    "DeadLetter",
    "DecodeError",
    "Defer",
    "Delete",
    "Dependency",
    "DependencyUnavailable",
    "Ending",
    "Execution",
    "Fallback",
    "FatalError",
    "GroupProtocol",
    "Handler",
    "HandlerTimeout",
    "Headers",
    "HttpSink",
    "Json",
    "Listener",
    "OnExhausted",
    "Ordering",
    "Origin",
    "PoisonError",
    "Rate",
    "Read",
    "Reader",
    "Reading",
    "Record",
    "Records",
    "RedisSink",
    "Retry",
    "RetryBudget",
    "RetryTopic",
    "RetryableError",
    "Rule",
    "Serde",
    "Sink",
    "SinkHandler",
    "StreamworkerError",
    "Text",
    "TopicPartition",
]
