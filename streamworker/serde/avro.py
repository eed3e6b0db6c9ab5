"""Avro, bare or with the five bytes in front that name a schema of the registry. The door to fastavro.

Decided here: how a datum is read and written, and that all of its bytes must be used. Which schemas
are refused is `schemas.py`'s business; whether to believe an id is `lookup.py`'s. Any thread: parsed
schemas are never changed.
"""

from __future__ import annotations

import datetime as dt
import decimal
import struct
import uuid
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Generic, TypeVar, cast, overload

import fastavro
import msgspec

from streamworker.clock import SystemClock
from streamworker.errors import ConfigurationError, DecodeError
from streamworker.serde.lookup import SchemaLookup
from streamworker.serde.reasons import brief, mismatch
from streamworker.serde.registry import connect
from streamworker.serde.schemas import Inspection, SchemaText, load

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from fastavro.types import NamedSchemas, Schema

T = TypeVar("T")
S = TypeVar("S")

_FRAME = struct.Struct(">bI")  # Confluent's wire format: a zero and the schema's id
_MAGIC = 0
_NATIVE = (bytes, dt.datetime, dt.date, dt.time, decimal.Decimal, uuid.UUID)

# Making a Decimal of n bytes takes time in n²: minutes for a megabyte, and no other thread runs meanwhile. So decimals
# go by a logical type of our own, read and written as fastavro does, up to 2400 digits; a megabyte of them takes 0.1 s.
MAX_DECIMAL_BYTES = 1024
_DECIMAL = "streamworker-decimal"


_FASTAVRO_DECIMAL: Callable[..., decimal.Decimal] = fastavro.read.LOGICAL_READERS["bytes-decimal"]


def _read_decimal(data: bytes, writer: object = None, reader: object = None) -> decimal.Decimal:
    if len(data) > MAX_DECIMAL_BYTES:
        raise ValueError(f"a decimal of {len(data)} bytes, expected at most {MAX_DECIMAL_BYTES}")
    return _FASTAVRO_DECIMAL(data, writer, reader)


for _kind in ("bytes", "fixed"):
    fastavro.read.LOGICAL_READERS[f"{_kind}-{_DECIMAL}"] = _read_decimal
    fastavro.write.LOGICAL_WRITERS[f"{_kind}-{_DECIMAL}"] = fastavro.write.LOGICAL_WRITERS[f"{_kind}-decimal"]


@dataclass(frozen=True, slots=True)
class ParsedSchema:
    """A schema that fastavro understands and `Inspection` found harmless. `name` is for messages."""

    name: str
    tree: Schema

    def read(self, data: bytes, start: int = 0, reader: ParsedSchema | None = None) -> object:
        """The datum in `data` from `start`, resolved to `reader`'s schema; raises DecodeError."""
        stream = BytesIO(data)
        stream.seek(start)
        try:
            datum: object = fastavro.schemaless_reader(stream, self.tree, reader.tree if reader else None)
        except Exception as error:  # fastavro names no base; EOFError, IndexError, OverflowError and others were seen
            where = f"byte {stream.tell()} of {len(data)}"
            raise DecodeError(f"Avro {self.name}: cannot be read beyond {where} ({type(error).__name__})") from error
        if stream.tell() != len(data):
            raise DecodeError(
                f"Avro {self.name}: the datum ends at byte {stream.tell()} of {len(data)}; expected no more"
            )
        return datum

    def write(self, datum: object, prefix: bytes = b"") -> bytes:
        """`prefix` and the datum; raises ValueError, also for fields that the schema does not have."""
        stream = BytesIO(prefix)
        stream.seek(len(prefix))
        try:
            fastavro.schemaless_writer(stream, self.tree, _plain(datum), strict_allow_default=True)
        except Exception as error:  # as above
            raise ValueError(brief(f"Avro {self.name}: does not fit: {error}")) from error
        return stream.getvalue()


def parse(schema: SchemaText, referred: Sequence[SchemaText] = ()) -> ParsedSchema:
    """Parse `schema`; `referred` are those that it names, each after what it names itself.

    Raises ConfigurationError for a bad schema and for a dangerous one.
    """
    named: NamedSchemas = {}
    for one in referred:
        _parse(one, named)
    tree = _parse(schema, named)
    try:
        Inspection(schema.origin, named).inspect(tree)
        for parsed in (tree, *named.values()):
            _bound_decimals(parsed)
    except RecursionError as error:
        raise ConfigurationError(f"{schema.origin}: the schema nests too deep to be looked at") from error
    name = tree.get("name", schema.origin) if isinstance(tree, dict) else schema.origin
    return ParsedSchema(str(name), tree)


def _parse(schema: SchemaText, named: NamedSchemas) -> Schema:
    try:
        return fastavro.parse_schema(cast("Schema", schema.tree()), named_schemas=named)
    except ConfigurationError:
        raise
    except Exception as error:  # fastavro reports bad schemas by KeyError and TypeError as well as by its own
        raise ConfigurationError(
            brief(f"{schema.origin}: not an Avro schema: {type(error).__name__}: {error}")
        ) from error


def _bound_decimals(schema: object) -> None:
    """Put our own decimals into a parsed schema; nothing else holds it."""
    if isinstance(schema, list):
        for part in schema:
            _bound_decimals(part)
    elif isinstance(schema, dict):
        if schema.get("logicalType") == "decimal":
            schema["logicalType"] = _DECIMAL
        for part in ("type", "items", "values", "fields"):
            _bound_decimals(schema.get(part))


def _plain(value: object) -> object:
    """What fastavro can write: a dict as it is, anything else with its Structs and dataclasses as dicts."""
    return value if type(value) is dict else msgspec.to_builtins(value, builtin_types=_NATIVE)


class _Target(Generic[T]):
    """The type that a datum becomes; without one it stays as fastavro makes it."""

    def __init__(self, into: type[T] | None) -> None:
        self._into = into
        try:
            msgspec.msgpack.Decoder(object if into is None else into)  # made for its check of the type
        except (TypeError, NameError) as error:
            raise ConfigurationError(f"Avro into={into!r}: msgspec cannot make this type: {error}") from error

    def __call__(self, datum: object) -> T:
        if self._into is None:
            return cast("T", datum)
        try:
            return msgspec.convert(datum, self._into, strict=True, builtin_types=_NATIVE)
        except msgspec.ValidationError as error:
            raise DecodeError(mismatch(error)) from error


class Avro(Generic[T]):
    """Bare Avro: nothing but the datum, of the schema in the file `schema`.

    Without `into` a record is handed over as a dict; with it as that type, a Struct for instance,
    whose field types must match exactly. See `Inspection` for schemas that are refused.
    """

    @overload
    def __init__(self: Avro[object], schema: str | os.PathLike[str]) -> None: ...
    @overload
    def __init__(self, schema: str | os.PathLike[str], *, into: type[T]) -> None: ...

    def __init__(self, schema: str | os.PathLike[str], *, into: type[T] | None = None) -> None:
        self._schema = parse(load(schema))
        self._target = _Target(into)

    @overload
    @staticmethod
    def registry(
        *, url: str, subjects: Sequence[str] = ..., schema: str | os.PathLike[str] | None = ...
    ) -> FramedAvro[object]: ...
    @overload
    @staticmethod
    def registry(
        *, url: str, into: type[S], subjects: Sequence[str] = ..., schema: str | os.PathLike[str] | None = ...
    ) -> FramedAvro[S]: ...

    @staticmethod
    def registry(
        *,
        url: str,
        into: type[S] | None = None,
        subjects: Sequence[str] = ("{topic}-value",),
        schema: str | os.PathLike[str] | None = None,
    ) -> FramedAvro[S] | FramedAvro[object]:
        """Avro that names its schema in Confluent's registry at `url` (`mock://name` for one in memory).

        A record is believed only if its schema is registered under one of `subjects`; give
        `("{topic}-key",)` for keys. `schema` is the file of the schema that values are written with
        and, when it is given, that they are read as. Needs the extra `registry`.
        """
        lookup = SchemaLookup(connect(url), parse, subjects=subjects, clock=SystemClock())
        return FramedAvro(lookup, into=into, schema=None if schema is None else load(schema))

    def decode(self, data: bytes, topic: str) -> T:  # noqa: ARG002 - Serde's signature
        """The value; raises DecodeError, also when bytes are left over."""
        return self._target(self._schema.read(data))

    def encode(self, value: T, topic: str) -> bytes:  # noqa: ARG002 - Serde's signature
        """The datum; raises ValueError."""
        return self._schema.write(value)

    def __repr__(self) -> str:
        return f"Avro({self._schema.name})"


class FramedAvro(Generic[T]):
    """Avro with a zero byte and the schema's id in front, as Confluent's serializers write it."""

    def __init__(
        self, lookup: SchemaLookup[ParsedSchema], *, into: type[T] | None = None, schema: SchemaText | None = None
    ) -> None:
        self._lookup = lookup
        self._target = _Target(into)
        self._text = schema
        self._own = None if schema is None else parse(schema)

    def decode(self, data: bytes, topic: str) -> T:
        """The value; raises DecodeError, and DependencyUnavailable while the registry cannot be asked."""
        if len(data) < _FRAME.size:
            raise DecodeError(f"Avro: expected {_FRAME.size} bytes that name the schema, got {len(data)}")
        magic, schema_id = _FRAME.unpack_from(data)
        if magic != _MAGIC:
            raise DecodeError(f"Avro: expected the first byte to be 0, got {data[0]}: not in the registry's format")
        writer = self._lookup.schema(schema_id, topic)
        return self._target(writer.read(data, _FRAME.size, self._own))

    def encode(self, value: T, topic: str) -> bytes:
        """The framed datum, its schema registered if it was not; raises ValueError, DependencyUnavailable.

        Raises ConfigurationError if there is no schema to write with or the registry refuses it.
        """
        if self._own is None or self._text is None:
            raise ConfigurationError('Avro.registry cannot encode without a schema; give schema="path/to/it.avsc"')
        return self._own.write(value, _FRAME.pack(_MAGIC, self._lookup.id_of(self._text, topic)))

    def __repr__(self) -> str:
        return f"Avro.registry({self._lookup.origin})"
