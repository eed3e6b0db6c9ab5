"""What the sinks of both databases can be told, what they need there, and how that is looked at, made and reset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, cast

from streamworker.bounds import member, one_of
from streamworker.errors import ConfigurationError, nearest
from streamworker.record import TopicPartition
from streamworker.sinks.fences import held_fence
from streamworker.sinks.marks import LaneOf, OnRewind, decode_holes
from streamworker.sinks.owners import Ledger
from streamworker.sinks.tables import (
    ALL_MARKS,
    DISOWN,
    FORGET,
    OURS,
    Dialect,
    Table,
    add_column,
    fence_table,
    is_name,
    is_table_name,
    marks_table,
    statements,
    unique_index,
    user_table,
)
from streamworker.sinks.writer import Fence, SqlWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.interfaces import SinkContext
    from streamworker.sinks.database import Database

_MODES = ("upsert", "insert")
_GUARDS = ("mark", "row")
_Stored = tuple[str, int, int, int, int, str, int, str]  # a row as `ALL_MARKS` tells it
_MARKS, _FENCE = "sw_applied", "sw_fence"


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that a sink needs and its database has not; `mend` is the statement that makes it, None if unknown."""

    what: str
    mend: str | None


@dataclass(frozen=True, slots=True)
class Applied:
    """How far a lane of a partition is at the database, and whose it is."""

    partition: TopicPartition
    lane: LaneOf
    next_offset: int
    holes: Sequence[int]
    epoch: int
    owner: str


@dataclass(frozen=True)
class SqlSink(ABC):
    """Writes what a handler returns as rows of one table.

    A handler returns a mapping, a Struct or a dataclass, whose fields are columns, or `Delete({key: …})`;
    nested values are written as JSON. `name` is that of the connection, as in the configuration's table `sinks`.

    With `guard="mark"` a record has its effect once and in the order of its key, whatever fails; that needs an
    ordering. With `"row"` a row keeps which record it was written for, and no earlier one of the same partition changes
    it. None promises nothing.
    """

    name: str
    _: KW_ONLY
    table: str
    key: Sequence[str] = ()  # columns by which a row is the only one; without, mode="insert"
    mode: str = "upsert"  # or "insert", which never changes a row
    guard: str | None = "mark"
    version: bool = False  # count the changes of a row in its column sw_version
    on_rewind: OnRewind | str = OnRewind.STOP
    coalesce: bool = True  # of several changes of a row in one write, make the last only
    fence: str | None = None  # name of a lock: only its holder of the highest number writes
    columns: Mapping[str, str] = field(default_factory=dict)  # types by name: `sinks create` makes the table, too

    def __post_init__(self) -> None:
        kind = type(self).__name__
        if isinstance(self.key, str):
            raise ConfigurationError(
                f"{kind}.key: expected a tuple of columns, got {self.key!r}; did you mean ({self.key!r},)?"
            )
        object.__setattr__(self, "key", tuple(self.key))
        object.__setattr__(self, "on_rewind", member(f"{kind}.on_rewind", OnRewind, self.on_rewind))
        one_of(f"{kind}.mode", self.mode, _MODES)
        if self.guard is not None:
            one_of(f"{kind}.guard", self.guard, _GUARDS)
        self._refuse_wrong_names(kind)
        self._refuse_what_does_not_go_together(kind)

    def _refuse_wrong_names(self, kind: str) -> None:
        if not self.name:
            raise ConfigurationError(f"{kind}: expected the name of a connection in the table `sinks`, got none")
        if not is_table_name(self.table):
            raise ConfigurationError(
                f"{kind}.table: expected letters, digits and _, with a schema before it or without, got {self.table!r}"
            )
        for option, names in (("key", self.key), ("columns", self.columns)):
            for one in names:
                if not is_name(one):
                    raise ConfigurationError(f"{kind}.{option}: expected letters, digits and _, got {one!r}")
                if one in OURS:
                    raise ConfigurationError(f"{kind}.{option}: {one!r} is the sink's own; choose another name")
        for one in self.key:
            if self.columns and one not in self.columns:
                raise ConfigurationError(f"{kind}.key: {one!r} is not among columns; {nearest(one, self.columns)}")

    def _refuse_what_does_not_go_together(self, kind: str) -> None:
        if self.mode == "insert":
            if self.guard == "row" or self.version:
                option = "guard='row'" if self.guard == "row" else "version=True"
                raise ConfigurationError(f"{kind}: {option} is for rows that change, so it needs mode='upsert'")
        elif not self.key:
            raise ConfigurationError(f"{kind}.key: mode='upsert' needs the columns by which a row is the only one")
        if self.guard == "row" and not self.coalesce:
            raise ConfigurationError(f"{kind}: guard='row' keeps the last change of a row, so it needs coalesce=True")

    @property
    def knows_repeats(self) -> bool:
        """As of `Sink`: by its marks, or by the offset in each row."""
        return self.guard is not None

    @property
    def keeps_marks(self) -> bool:
        """As of `Sink`."""
        return self.guard == "mark"

    def writer(self, context: SinkContext) -> SqlWriter:
        """As `Sink.writer`."""
        return SqlWriter(
            self._table,
            self.database(context.connection(self.name)),
            ledger=context.shared(f"sw-marks:{self.name}", Ledger) if self.keeps_marks else None,
            on_rewind=cast("OnRewind", self.on_rewind),
            coalesce=self.coalesce,
            fence=None if self.fence is None else Fence(self.fence, held_fence(context, self.fence)),
        )

    def statements(self) -> Sequence[str]:
        """What makes all that it needs in an empty database; the table itself only with `columns`."""
        return statements(self._table, columns=self._columns, marks=self.keeps_marks, fence=self.fence is not None)

    def lacks(self, url: str) -> Sequence[Lack]:
        """What it needs and the database at `url` has not. Raises what the driver raises."""
        database = self.database(url)
        try:
            return [*self._lacking_tables(database), *self._lacking_in_table(database)]
        finally:
            database.close()

    def make(self, url: str, mends: Sequence[str]) -> None:
        """Run the statements that mend what is lacking, all or none. Raises what the driver raises."""
        database = self.database(url)
        try:
            with database.transaction() as session:
                for statement in mends:
                    session.count(statement)
        finally:
            database.close()

    def marks(self, url: str, group: str) -> Sequence[Applied]:
        """The marks of a group at the database at `url`. Raises what the driver raises."""
        database = self.database(url)
        try:
            with database.transaction() as session:
                rows = cast(
                    "Sequence[tuple[str, int, int, int, int, str, int, str, int]]", session.rows(ALL_MARKS, (group,))
                )
        finally:
            database.close()
        return [
            Applied(TopicPartition(topic, part), LaneOf(lanes, lane), next_offset, decode_holes(holes), epoch, owner)
            for topic, part, lanes, lane, next_offset, holes, epoch, owner in cast("Sequence[_Stored]", rows)
            if lanes
        ]

    def reset_marks(self, url: str, group: str, partitions: Sequence[TopicPartition]) -> None:
        """Forget what was applied of `partitions`: what is delivered from now on has its effect. All or none."""
        database = self.database(url)
        try:
            with database.transaction() as session:
                for partition in partitions:
                    session.count(DISOWN, (group, *partition))
                    session.count(FORGET, (group, *partition))
        finally:
            database.close()

    def _lacking_tables(self, database: Database) -> Sequence[Lack]:
        dialect = self._table.dialect
        needed = [(_MARKS, marks_table(dialect))] if self.keeps_marks else []
        if self.fence is not None:
            needed.append((_FENCE, fence_table(dialect)))
        return [Lack(f"table {name}", made) for name, made in needed if database.columns(name) is None]

    def _lacking_in_table(self, database: Database) -> Sequence[Lack]:
        there = database.columns(self.table)
        if there is None:
            return [Lack(f"table {self.table}", user_table(self._table, self._columns) if self.columns else None)]
        own = self._table.own_columns
        added = (*self.columns.items(), *own)
        wanted: list[tuple[str, str | None]] = [(name, add_column(self._table, name, kind)) for name, kind in added]
        wanted += [(name, None) for name in self.key if name not in self.columns]
        lacks = [Lack(f"column {self.table}.{name}", mend) for name, mend in wanted if name not in there]
        if self.mode == "upsert" and frozenset(self.key) not in database.unique_keys(self.table):
            key = ", ".join(self.key)
            whole = all(name in there for name in self.key)
            lacks.append(Lack(f"unique key ({key}) of {self.table}", unique_index(self._table) if whole else None))
        return lacks

    @property
    def _table(self) -> Table:
        return Table(
            self.table, tuple(self.key), self.mode == "upsert", self.guard == "row", self.version, self.dialect()
        )

    @property
    def _columns(self) -> tuple[tuple[str, str], ...]:
        return tuple(self.columns.items())

    @staticmethod
    @abstractmethod
    def dialect() -> Dialect:
        """That of its database."""

    @staticmethod
    @abstractmethod
    def driver_error() -> type[Exception]:
        """What its driver raises, all of it."""

    @abstractmethod
    def database(self, url: str) -> Database:
        """A connection of its own, which is made when it is needed; raises ConfigurationError for a wrong `url`."""
