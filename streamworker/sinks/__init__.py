"""Where what handlers return is written. Start in `writer.py`."""

from streamworker.sinks.changes import Delete
from streamworker.sinks.fences import HeldFence, held_fence
from streamworker.sinks.marks import OnRewind
from streamworker.sinks.postgres import PostgresSink
from streamworker.sinks.sqlite import SqliteSink

__all__ = ["Delete", "HeldFence", "OnRewind", "PostgresSink", "SqliteSink", "held_fence"]
