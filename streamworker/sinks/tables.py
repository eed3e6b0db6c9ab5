"""The tables of a database sink, as statements: the user's with its guards, and ours with the marks and fences. Pure.

What both databases understand is written once; the rest is in a `Dialect`. Values go by `?`, in the order of the text.
Names are checked and quoted, so none of them can be anything but a name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII)

ORIGIN = ("src_topic", "src_part", "src_off")
VERSION = "sw_version"
OURS = frozenset({*ORIGIN, VERSION})

_IS_LATER = (
    "kept.src_off IS NULL OR kept.src_topic <> excluded.src_topic OR kept.src_part <> excluded.src_part"
    " OR kept.src_off < excluded.src_off"
)
_MARK_KEY = "group_id, topic, part, lanes, lane"
_MARK_COLUMNS = f"{_MARK_KEY}, next_offset, holes, epoch, owner, inherited, done_below"
_OF_PARTITION = "group_id = ? AND topic = ? AND part = ?"
_OF_LANE = f"{_OF_PARTITION} AND lanes = ? AND lane = ?"
# Its row of lane 0 of 0 is no lane: it stands for the partition, and is there before any other of it.
_OF_ALL_LANES = f"{_OF_PARTITION} AND lanes > 0"
_OF_THE_PARTITION_ITSELF = f"{_OF_PARTITION} AND lanes = 0"


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where the databases differ."""

    share: str  # keeps a row that was read from being changed until the end of the transaction
    now_us: str  # microseconds since 1970
    text: str
    integer: str
    often_changed: str  # at the end of the table of marks
    adds_once: str  # between ADD COLUMN and the name: does nothing if there is such a column


def names_ours(message: str) -> bool:
    """Whether an error tells of a column of the sink's own."""
    return any(name in message for name in OURS)


def is_name(text: str) -> bool:
    """Whether `text` can name a column: letters, digits and _, at most 63."""
    return _NAME.fullmatch(text) is not None


def is_table_name(text: str) -> bool:
    """The same of a table, which may have a schema before it."""
    parts = text.split(".")
    return len(parts) <= 2 and all(map(is_name, parts))


def quoted(name: str) -> str:
    """A checked name as it stands in a statement, capitals and all."""
    return ".".join(f'"{part}"' for part in name.split("."))


@dataclass(frozen=True, slots=True)
class Table:
    """The table that a sink writes to, and what it keeps in it beside the user's columns."""

    name: str
    key: tuple[str, ...]
    upsert: bool
    row_guard: bool
    version: bool
    dialect: Dialect

    @property
    def answers(self) -> bool:
        """Whether a written row has something to tell."""
        return self.row_guard or self.version

    @property
    def own_columns(self) -> tuple[tuple[str, str], ...]:
        """The columns that the sink needs beside the user's, and their types."""
        origin = zip(ORIGIN, (self.dialect.text, self.dialect.integer, self.dialect.integer), strict=True)
        version = ((VERSION, f"{self.dialect.integer} NOT NULL DEFAULT 0"),)
        return (*(origin if self.row_guard else ()), *(version if self.version else ()))


@lru_cache(maxsize=256)
def written_columns(table: Table, columns: tuple[str, ...]) -> tuple[str, ...]:
    """`columns` and those beside them that get a value each."""
    return (*columns, *ORIGIN) if table.row_guard else columns


@lru_cache(maxsize=256)
def insert(table: Table, columns: tuple[str, ...], source: str) -> str:
    """Write rows with `columns`, whose values come from `source`: VALUES or SELECT, without the version.

    With something to tell, a row that was written answers with its key columns and its version.
    """
    given = [*written_columns(table, columns), *([VERSION] if table.version else [])]
    text = f"INSERT INTO {quoted(table.name)} AS kept ({', '.join(map(quoted, given))}) {source}"
    if table.upsert:
        text += f" ON CONFLICT ({', '.join(map(quoted, table.key))}) {_update(table, columns)}"
    return f"{text} RETURNING {_answer(table)}" if table.answers else text


def _update(table: Table, columns: tuple[str, ...]) -> str:
    changes = [
        f"{quoted(one)} = excluded.{quoted(one)}" for one in written_columns(table, columns) if one not in table.key
    ]
    if table.version:
        changes.append(f"{VERSION} = coalesce(kept.{VERSION}, 0) + 1")
    if not changes:
        return "DO NOTHING"
    return f"DO UPDATE SET {', '.join(changes)}{f' WHERE {_IS_LATER}' if table.row_guard else ''}"


def _answer(table: Table) -> str:
    return ", ".join([*map(quoted, table.key), VERSION if table.version else f"NULL AS {VERSION}"])


@lru_cache(maxsize=256)
def insert_one(table: Table, columns: tuple[str, ...]) -> str:
    """Write one row of values."""
    values = ["?"] * len(written_columns(table, columns)) + ([table.dialect.now_us] if table.version else [])
    return insert(table, columns, f"VALUES ({', '.join(values)})")


@lru_cache(maxsize=64)
def delete_one(table: Table) -> str:
    """Delete a row by its key; with the row guard only if its origin, given after the key, is no later one."""
    text = f"DELETE FROM {quoted(table.name)} WHERE {_is_row(table)}"
    if table.row_guard:
        text += " AND (src_off IS NULL OR src_topic <> ? OR src_part <> ? OR src_off < ?)"
    return text


@lru_cache(maxsize=64)
def origin_of_one(table: Table) -> str:
    """Which record a row was written for, by its key."""
    return f"SELECT {', '.join(ORIGIN)} FROM {quoted(table.name)} WHERE {_is_row(table)}"


def _is_row(table: Table) -> str:
    return " AND ".join(f"{quoted(one)} = ?" for one in table.key)


def statements(table: Table, *, columns: tuple[tuple[str, str], ...], marks: bool, fence: bool) -> list[str]:
    """What makes the tables; the user's only with its `columns`, else what the sink adds to it."""
    made = [marks_table(table.dialect)] if marks else []
    if fence:
        made.append(fence_table(table.dialect))
    if columns:
        made.append(user_table(table, columns))
    else:
        made += [add_column(table, *column) for column in table.own_columns]
    return made


def user_table(table: Table, columns: tuple[tuple[str, str], ...]) -> str:
    """The user's table with `columns`, names and types, and its key."""
    lines = [f"  {quoted(name)} {kind}" for name, kind in (*columns, *table.own_columns)]
    if table.key:
        lines.append(f"  PRIMARY KEY ({', '.join(map(quoted, table.key))})")
    return f"CREATE TABLE IF NOT EXISTS {quoted(table.name)} (\n" + ",\n".join(lines) + "\n)"


def add_column(table: Table, name: str, kind: str) -> str:
    """A column more for the user's table."""
    once = f"{table.dialect.adds_once} " if table.dialect.adds_once else ""
    return f"ALTER TABLE {quoted(table.name)} ADD COLUMN {once}{name} {kind}"


def unique_index(table: Table) -> str:
    """What makes the key one."""
    name = "_".join((table.name.rpartition(".")[2], *table.key, "key"))[:63]
    return f"CREATE UNIQUE INDEX {quoted(name)} ON {quoted(table.name)} ({', '.join(map(quoted, table.key))})"


def marks_table(dialect: Dialect) -> str:
    """The table of marks. It has some rows per partition, which change all the time."""
    return f"""CREATE TABLE IF NOT EXISTS sw_applied (
  group_id {dialect.text} NOT NULL,
  topic {dialect.text} NOT NULL,
  part {dialect.integer} NOT NULL,
  lanes {dialect.integer} NOT NULL,
  lane {dialect.integer} NOT NULL,
  next_offset {dialect.integer} NOT NULL,
  holes {dialect.text} NOT NULL,
  epoch {dialect.integer} NOT NULL,
  owner {dialect.text} NOT NULL,
  inherited {dialect.integer} NOT NULL,
  done_below {dialect.integer} NOT NULL,
  PRIMARY KEY ({_MARK_KEY})
){dialect.often_changed}"""


def fence_table(dialect: Dialect) -> str:
    """The table of fences, a row for each name."""
    return f"""CREATE TABLE IF NOT EXISTS sw_fence (
  name {dialect.text} PRIMARY KEY,
  n {dialect.integer} NOT NULL,
  token {dialect.text} NOT NULL
)"""


TAKE_OVER = f"""INSERT INTO sw_applied AS kept ({_MARK_COLUMNS})
VALUES (?, ?, ?, 0, 0, 0, '', 1, ?, 0, 0)
ON CONFLICT ({_MARK_KEY}) DO UPDATE SET epoch = kept.epoch + 1, owner = excluded.owner
WHERE kept.owner <> excluded.owner"""
# Its values: the owner, the partition twice.
INHERIT = f"""UPDATE sw_applied SET owner = ?, inherited = next_offset, epoch =
(SELECT epoch FROM sw_applied WHERE {_OF_THE_PARTITION_ITSELF})
WHERE {_OF_ALL_LANES}"""
MARKS = (
    "SELECT lanes, lane, next_offset, holes, epoch, owner, inherited, done_below FROM sw_applied"
    f" WHERE {_OF_PARTITION} ORDER BY lanes, lane"
)
# Its values: next offset, holes and done_below after; the lane, the epoch; next offset and holes before.
MOVE = f"""UPDATE sw_applied SET next_offset = ?, holes = ?, done_below = ?
WHERE {_OF_LANE} AND epoch = ? AND next_offset = ? AND holes = ?"""
PUT = f"UPDATE sw_applied SET next_offset = ?, holes = ?, done_below = ? WHERE {_OF_LANE}"
DROP = f"DELETE FROM sw_applied WHERE {_OF_LANE} AND epoch = ?"
NEW_EPOCH = f"UPDATE sw_applied SET epoch = epoch + 1 WHERE {_OF_PARTITION} AND epoch = ?"
REWIND = f"UPDATE sw_applied SET next_offset = ?, holes = '', inherited = ?, done_below = ? WHERE {_OF_LANE}"
ALL_MARKS = (
    "SELECT topic, part, lanes, lane, next_offset, holes, epoch, owner FROM sw_applied"
    " WHERE group_id = ? ORDER BY topic, part, lanes, lane"
)
# So that whoever writes at this moment is told, and looks again.
DISOWN = f"UPDATE sw_applied SET epoch = epoch + 1, owner = '' WHERE {_OF_THE_PARTITION_ITSELF}"
FORGET = f"DELETE FROM sw_applied WHERE {_OF_ALL_LANES}"
FENCED = """INSERT INTO sw_fence AS kept (name, n, token) VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET n = excluded.n, token = excluded.token
WHERE kept.n < excluded.n OR (kept.n = excluded.n AND kept.token = excluded.token)"""

# Where values stand in a SELECT, nothing else says their types.
_CAST_TEXT, _CAST_INT = "CAST(? AS text)", "CAST(? AS bigint)"


@lru_cache(maxsize=4)
def begin_lane(dialect: Dialect) -> str:
    """The first mark of a lane, only while the partition has the epoch that is named.

    The partition's row is kept from changing meanwhile: otherwise an owner that was expelled could begin the mark of a
    lane that the next one does not look at, because it has another number of lanes. Its values: the lane, next offset,
    holes, done_below; the partition and the epoch.
    """
    return f"""INSERT INTO sw_applied ({_MARK_COLUMNS})
SELECT {", ".join([_CAST_TEXT] * 2 + [_CAST_INT] * 4 + [_CAST_TEXT])}, epoch, owner, 0, {_CAST_INT}
FROM sw_applied WHERE {_OF_THE_PARTITION_ITSELF} AND epoch = ? {dialect.share}
ON CONFLICT ({_MARK_KEY}) DO NOTHING"""
