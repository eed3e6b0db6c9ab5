"""What handlers return, as changes of rows: mappings, structs and dataclasses to columns, and deletions. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streamworker.sinks.tables import OURS, is_name
from streamworker.sinks.values import Delete

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.interfaces import Row
    from streamworker.record import Origin
    from streamworker.sinks.tables import Table


class Change(NamedTuple):
    """One row of the table as it is to be: `values` of `columns`, or gone if those are None. `row` is whose it is."""

    row: int
    origin: Origin
    key: tuple[object, ...]
    columns: tuple[str, ...]
    values: tuple[object, ...] | None


def changes_of(table: Table, index: int, row: Row) -> list[Change]:
    """What `row`, at `index` of a write, asks for; raises TypeError and ValueError for what no table can take."""
    return [_change(table, index, row.origin, value) for value in row.values]


def _change(table: Table, index: int, origin: Origin, value: object) -> Change:
    if isinstance(value, Delete):
        if not table.upsert:
            raise TypeError(f"{value!r}: only a sink with mode='upsert' can delete")
        named = _columns(value.value)
        missing = [name for name in table.key if name not in named]
        if missing:
            raise ValueError(f"{value!r}: there is no {', '.join(missing)}, which is the key of {table.name}")
        key = tuple(named[name] for name in table.key)
        hash(key)
        return Change(index, origin, key, (), None)
    given = _columns(value)
    columns = tuple(given)
    _refuse_unfit(table, columns)
    key = tuple(given[name] for name in table.key)
    hash(key)
    return Change(index, origin, key, columns, tuple(given.values()))


@lru_cache(maxsize=256)  # rows are alike
def _refuse_unfit(table: Table, columns: tuple[object, ...]) -> None:
    for name in columns:
        if not isinstance(name, str) or not is_name(name) or name in OURS:
            raise ValueError(f"{name!r} cannot be a column: expected letters, digits and _, and none of the sink's own")
    missing = [name for name in table.key if name not in columns]
    if missing:
        raise ValueError(f"there is no {', '.join(missing)}, which is the key of {table.name}")


def _columns(value: object) -> Mapping[str, object]:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"expected a mapping, a Struct, a dataclass or a Delete for a row, got {type(value).__name__}")


def coalesced(changes: Sequence[Change]) -> list[Change]:
    """Of each row of the table the last change only."""
    return list({change.key: change for change in changes}.values())


def in_lock_order(changes: Sequence[Change]) -> list[Change]:
    """Sorted by key: two writers that change the same rows would otherwise wait for each other."""
    return sorted(changes, key=lambda change: repr(change.key))
