"""streamworker: Kafka records through a handler to a committed offset."""

from streamworker.config import (
    Action,
    Batch,
    Breaker,
    Config,
    DeadLetter,
    Fallback,
    GroupProtocol,
    OnExhausted,
    Ordering,
    Rate,
    Read,
    Retry,
    RetryBudget,
    Rule,
)
from streamworker.errors import (
    BatchFailed,
    CircuitOpen,
    ConfigurationError,
    DecodeError,
    DependencyUnavailable,
    FatalError,
    HandlerTimeout,
    PoisonError,
    RetryableError,
    StreamworkerError,
)
from streamworker.handler import BatchHandler, Context, Handler
from streamworker.interfaces import Dependency, Reader, Reading, Serde
from streamworker.record import Ending, Headers, Record, Records, TopicPartition
from streamworker.serde import Avro, Bytes, Json, Text

__version__ = "0.1.0"

__all__ = [
    "Action",
    "Avro",
    "Batch",
    "BatchFailed",
    "BatchHandler",
    "Breaker",
    "Bytes",
    "CircuitOpen",
    "Config",
    "ConfigurationError",
    "Context",
    "DeadLetter",
    "DecodeError",
    "Dependency",
    "DependencyUnavailable",
    "Ending",
    "Fallback",
    "FatalError",
    "GroupProtocol",
    "Handler",
    "HandlerTimeout",
    "Headers",
    "Json",
    "OnExhausted",
    "Ordering",
    "PoisonError",
    "Rate",
    "Read",
    "Reader",
    "Reading",
    "Record",
    "Records",
    "Retry",
    "RetryBudget",
    "RetryableError",
    "Rule",
    "Serde",
    "StreamworkerError",
    "Text",
    "TopicPartition",
]
