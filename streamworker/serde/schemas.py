"""Avro schemas: where their text comes from, and which of them make a reader unsafe.

Decided here: what a record of a schema can do to the process that reads it. Parsing is `avro.py`'s
business; the shapes looked at here are the parsed ones, in which every name is a full one. Files are
read once, when a serde is made. Pure but for that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from streamworker.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

# fastavro reads by recursion in C, unchecked: 500 levels are read, 5000 crash the process (1.13.1, 8 MiB of stack).
MAX_LEVELS = 200
# Values of a record that take no bytes (nulls and the records inside it), beyond one for each that takes some.
# A chain of `MAX_LEVELS` records makes as many.
MAX_IDLE = 200

_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


@dataclass(frozen=True, slots=True)
class Reference:
    """A schema that another one names, where the registry keeps it."""

    subject: str
    version: int


@dataclass(frozen=True, slots=True)
class SchemaText:
    """A schema as it was written. `origin` says in error messages where it is from."""

    text: str
    origin: str
    kind: str = "AVRO"
    references: tuple[Reference, ...] = ()

    def tree(self) -> object:
        """The JSON document; raises ConfigurationError."""
        if self.kind != "AVRO":
            raise ConfigurationError(f"{self.origin}: expected an Avro schema, got one of kind {self.kind}")
        try:
            tree: object = json.loads(self.text)
            marked = "__fastavro" in json.dumps(tree)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"{self.origin}: not JSON: {error}") from error
        if marked:
            raise ConfigurationError(f"{self.origin}: holds fastavro's mark of a parsed schema; it would go unchecked")
        return tree


def load(path: str | os.PathLike[str]) -> SchemaText:
    """The schema in a file; a relative path starts at the working directory. Raises ConfigurationError."""
    file = Path(path).absolute()
    try:
        return SchemaText(file.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise ConfigurationError(f"schema {str(path)!r}: {_whereabouts(file)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"schema {str(path)!r}: cannot be read: {error}") from error


def _whereabouts(missing: Path) -> str:
    folder = missing.parent
    if not folder.is_dir():
        return f"there is no directory {folder}"
    there = [file.name for file in folder.iterdir() if file.suffix == ".avsc"]
    hint = nearest(missing.name, there) if there else "it holds no .avsc file"
    return f"no such file in {folder}; {hint}"


class Shape(NamedTuple):
    """What matters of a type: what a value consists of at least, and how deep it nests.

    `paid` values take at least a byte each, `idle` ones take none: a record with two numbers is 2 and 1. A choice, an
    array and a map are one that is paid, whatever is in them, since an item or a branch takes a byte of its own.
    """

    paid: int
    idle: int
    levels: int


class Inspection:
    """Refuses schemas whose records can hurt the process. One per schema and thread.

    - Arrays of items that take no bytes: five bytes of input claim and get millions of items. Without
      them a record of n bytes has at most n items. (Map entries have keys, which take a byte.)
      Counting the items of each record first was the alternative; in Python it would cost more than
      the decoding, for a schema that hardly anybody writes.
    - Records of which more is idle than paid, by `MAX_IDLE`: if each of thirty records holds the one
      before it twice, no bytes at all become a billion values.
    - Types that hold themselves, and nesting beyond `MAX_LEVELS`: a record of 5 kB can nest deep
      enough to overflow the C stack, which no exception reports.
    """

    def __init__(self, origin: str, named: Mapping[str, object]) -> None:
        self._origin = origin
        self._named = named
        self._known: dict[str, Shape] = {}
        self._open: list[str] = []

    def inspect(self, schema: object) -> Shape:
        """The shape of a parsed schema; raises ConfigurationError for one of the above."""
        shape = self._shape(schema)
        if shape.levels > MAX_LEVELS:
            raise self._refused(f"nests {shape.levels} levels deep; at most {MAX_LEVELS} can be read safely")
        return shape

    def _shape(self, schema: object) -> Shape:  # noqa: PLR0911 - a table: one line, one answer
        match schema:
            case str():
                return _leaf(takes_bytes=schema != "null") if schema in _PRIMITIVES else self._reference(schema)
            case list():
                return _container(map(self.inspect, schema))
            case {"type": "array", "items": items}:
                return self._array(items)
            case {"type": "map", "values": values}:
                return _container([self.inspect(values)])
            case {"type": "record" | "error", "name": str(name), "fields": list(fields)}:
                return self._record(name, fields)
            case {"type": "fixed", "size": int(size)} if size >= 0:
                return _leaf(takes_bytes=size > 0)
            case {"type": "enum"}:
                return _leaf(takes_bytes=True)
            case {"type": str(inner)} if inner in _PRIMITIVES:
                return self._shape(inner)
            case _:
                raise self._refused(f"holds {schema!r:.100}, which is no Avro type")

    def _array(self, items: object) -> Shape:
        shape = self.inspect(items)
        if not shape.paid:
            raise self._refused(
                "has an array whose items take no bytes, so that a few bytes can claim millions of them"
            )
        return _container([shape])

    def _record(self, name: str, fields: Iterable[object]) -> Shape:
        if name not in self._known:
            self._open.append(name)
            shapes = [self.inspect(field["type"]) for field in fields if isinstance(field, dict)]
            self._open.pop()
            self._known[name] = self._sum(name, shapes)
        return self._known[name]

    def _sum(self, name: str, shapes: Sequence[Shape]) -> Shape:
        paid = sum(shape.paid for shape in shapes)
        idle = 1 + sum(shape.idle for shape in shapes)
        if idle > paid + MAX_IDLE:
            raise self._refused(f"{name} makes {idle} values that take no bytes beside {paid} that do")
        return Shape(paid, idle, 1 + _deepest(shapes))

    def _reference(self, name: str) -> Shape:
        if name in self._open:
            raise self._refused(f"{name} holds itself; records of it can nest until the process crashes")
        if name not in self._named:
            raise self._refused(f"names the type {name!r}; {nearest(name, {*self._named, *_PRIMITIVES})}")
        return self.inspect(self._named[name])

    def _refused(self, reason: str) -> ConfigurationError:
        return ConfigurationError(f"{self._origin}: the schema {reason}")


def _leaf(*, takes_bytes: bool) -> Shape:
    return Shape(int(takes_bytes), int(not takes_bytes), levels=1)


def _container(held: Iterable[Shape]) -> Shape:
    return Shape(paid=1, idle=0, levels=1 + _deepest(held))


def _deepest(shapes: Iterable[Shape]) -> int:
    return max((shape.levels for shape in shapes), default=0)
