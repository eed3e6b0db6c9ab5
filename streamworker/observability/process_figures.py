"""What a process knows of itself as metrics: its lines, its memory, its configuration.

Decided here: what of a configuration tells two processes apart that are configured alike. Any thread.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

from streamworker.librdkafka import redact
from streamworker.observability.catalogue import Metric
from streamworker.observability.memory import resident_bytes
from streamworker.observability.metrics import Figures

if TYPE_CHECKING:
    from streamworker.config import Config
    from streamworker.observability.logs import LevelCounts

# Workers of one group have these for themselves: an address, a name, the zone that they are in.
_OF_ONE_WORKER = ("http.host", "group.instance.id", "client.rack")
_OF_ONE_ROLL_OUT = "deployment"


def figures(levels: LevelCounts, hashed: str) -> Figures:
    """What `Metrics` is to show of this process, whose configuration has the hash `hashed`."""
    resident = resident_bytes()
    return Figures(
        {
            Metric.LOG_MESSAGES: {(level,): lines for level, lines in levels.lines().items()},
            Metric.RESIDENT: {} if resident is None else {(): resident},
            Metric.CONFIG: {(hashed,): 1},
        }
    )


def config_hash(config: Config) -> str:
    """Twelve hex digits that are the same for workers that are configured alike. Secrets are no part of it."""
    told = [
        (table.name, _plain(table.name, getattr(config, table.name)))
        for table in fields(config)
        if table.name != _OF_ONE_ROLL_OUT
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]


def _plain(name: str, value: object) -> object:
    """`value` as what JSON knows, in one order, and without the names of its parts that are not to count."""
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        inner = sorted((f"{name}.{key}", one) for key, one in value.items())
        return [(path, _plain(path, one)) for path, one in inner if not path.endswith(_OF_ONE_WORKER)]
    if isinstance(value, list | tuple):
        return [_plain(name, one) for one in value]
    if isinstance(value, enum.Enum):
        return value.value
    return repr(redact(name, value))
