"""Bytes to values and back.

A serde is a declaration on a handler; the pool threads share it. The registry's client library is
imported by `Avro.registry` only, because it takes longer to import than all the rest.
"""

from streamworker.serde.avro import Avro
from streamworker.serde.json import Json
from streamworker.serde.plain import Bytes, Text

__all__ = ["Avro", "Bytes", "Json", "Text"]
