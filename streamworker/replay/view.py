"""A view of one dead-letter topic that answers at once what Kafka can only answer by reading: lists, counts, groups.

It is thrown away when it is closed: the truth stays in the topics. Decided here: what is kept of a letter; its value is
not, but for its size and SHA-256. What was said of it last holds if it is believed, and else nothing does, as if the
topic were compacted. Any thread; a question takes as long as its scan and is given up after `answer_within_s`.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from streamworker.errors import ConfigurationError
from streamworker.record import Origin
from streamworker.replay.dead_record import LetterId, Outline
from streamworker.replay.desk import FingerprintGroup, Page, Row, TopicSummary
from streamworker.replay.filters import Exactly, Field, Filter, Term
from streamworker.replay.plans import Candidate
from streamworker.replay.selection import (
    AMONG,
    INSERT_LETTER,
    INSERT_MISTAKE,
    INSERT_SAID,
    NO_TIME,
    PENDING,
    SCHEMA,
    STATES,
    DispositionCells,
    Mistake,
    cells_of,
    condition,
    mistake_of,
    tamed,
)
from streamworker.replay.states import State, believed, decode, encode
from streamworker.replay.view_database import ViewDatabase, ViewError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from streamworker.clock import Clock
    from streamworker.replay.dead_record import DeadRecord
    from streamworker.replay.selection import Cell, Cells, Condition, MistakeFacts
    from streamworker.replay.states import Disposition

_MISTAKES_IN_MEMORY = 2_000
_FORGET_AT_ONCE = 5_000
_GROUPS = 100
_TOP = 5
_TOP_AGE_S = 5.0  # how long the top of a summary is good: it costs a scan
_LINEAGE = 100
_COUNT_WITHIN_S = 1.0  # a page does not wait longer to say how many there are
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_CURSOR = re.compile(r"(-?[0-9]{1,19}):([0-9]{1,9}):([0-9]{1,18})")
_NEWEST_FIRST = "ORDER BY written DESC, partition DESC, offset DESC"


_NOTHING_SAID = DispositionCells()
_ALL_PENDING = Filter.of(Term(Field.STATE, (Exactly(State.PENDING.value),)))


@dataclass(frozen=True, slots=True)
class Said:
    """A record of the state topic at offset `position`; without a disposition it takes back what was said before."""

    letter: LetterId
    position: int
    disposition: Disposition | None


_Bounds = Mapping[int, tuple[int, int]]  # first and last offset by partition
_Entry = tuple[int, bytes]  # of the state topic: its offset, and the disposition as it stands there


class _Found(NamedTuple):
    """What `_ROW` selects."""

    written: int
    partition: int
    offset: int
    state: int
    attempts: int | None
    replay_count: int
    size: int | None
    key: bytes | None
    message: str | None
    origin_partition: int | None
    origin_offset: int | None
    sw_id: str | None
    parent: str | None
    replay_id: str | None
    sha256: bytes | None
    fingerprint: str | None
    exception: str | None
    reason: str | None
    handler: str | None
    group: str | None
    origin_topic: str | None
    family: str
    entry: bytes | None  # that holds


_ROW = """
    SELECT written, partition, offset, state, attempts, replay_count, size, key, message, origin_partition,
        origin_offset, sw_id, parent, replay_id, sha256, fingerprint, exception, reason, handler, consumer_group, topic,
        family, (SELECT iif(ignored, NULL, entry) FROM said
            WHERE said.partition = letters.partition AND said.offset = letters.offset ORDER BY position DESC LIMIT 1)
    FROM letters CROSS JOIN mistakes ON id = mistake
"""
# By way of the index of places: what it leads to lies nearly in the same order, so nothing has to be sorted.
_CANDIDATES = """
    SELECT partition, offset, state, reason, handler, consumer_group, topic, origin_partition, origin_offset,
        CASE WHEN sw_id IN (SELECT sw_id FROM letters WHERE sw_id IS NOT NULL GROUP BY sw_id HAVING count(*) > 1)
            THEN sw_id END,
        replay_id, replay_count, coalesce(size, 0), snoozed, op
    FROM letters INDEXED BY places CROSS JOIN mistakes ON id = mistake
"""


class View:
    """Of `topic`; `topic_id` is that of the cluster, None where it does not tell. See the module.

    One thread at a time writes, the others wait for it; who asks waits for none of them, and sees each batch whole.
    Raises ViewError, and ConfigurationError for a filter that asks for payloads.
    """

    def __init__(
        self,
        topic: str,
        clock: Clock,
        *,
        topic_id: str | None = None,
        folder: Path | None = None,
        answer_within_s: float = 5.0,
    ) -> None:
        self.topic = topic
        self.built = 0.0  # share of the topic that is here; set by who reads it
        self._topic_id = topic_id
        self._clock = clock
        self._database = ViewDatabase(topic, SCHEMA, clock, folder=folder, answer_within_s=answer_within_s)
        self._mistakes: dict[MistakeFacts, int] = {}
        self._counts: Counter[int] = Counter()  # letters by the number of their state
        self._ignored = 0
        self._version = 0
        self._top: tuple[int, float, Sequence[FingerprintGroup]] | None = None

    def close(self) -> None:
        """Throw it away; idempotent. Questions that are not answered yet end with ViewError."""
        self._database.close()

    @property
    def ignored(self) -> int:
        """Entries of the state topic that were not believed."""
        return self._ignored

    def add(self, letters: Sequence[DeadRecord]) -> None:
        """Take letters in; those that are here already change nothing."""
        with self._writing() as database:
            bounds = _bounds(letter.id for letter in letters)
            new = self._new(database, letters, bounds)
            said = _said_of(database, bounds)
            rows = [self._cells(database, letter, said.get(letter.id, ())) for letter in new]
            database.execute("SAVEPOINT before_rows")
            try:
                database.executemany(INSERT_LETTER, rows)
            except (OverflowError, UnicodeEncodeError):
                database.execute("ROLLBACK TO before_rows")
                rows = list(map(tamed, rows))
                database.executemany(INSERT_LETTER, rows)
            self._counts.update(cells.state for cells in rows)

    def say(self, entries: Sequence[Said], unreadable: int = 0) -> None:
        """Take in what the state topic says, in its order; `unreadable` entries are counted as ignored.

        Letters may come later. What is here already changes nothing.
        """
        with self._writing() as database:
            self._ignored += unreadable
            database.executemany(
                INSERT_SAID,
                (
                    (*one.letter, one.position, encode(one.disposition))
                    for one in entries
                    if one.disposition is not None
                ),
            )
            database.executemany(
                "DELETE FROM said WHERE partition = ? AND offset = ? AND position < ?",
                ((*one.letter, one.position) for one in entries if one.disposition is None),
            )
            places = json.dumps(list({one.letter for one in entries}))
            here = database.execute(f"SELECT partition, offset FROM letters WHERE {AMONG}", (places,)).fetchall()
            for place in here:
                self._restate(database, LetterId(*place))

    def forget(self, partition: int, below: int) -> None:
        """Drop letters that the topic has deleted, and what was said of them."""
        more = True
        while more:  # in parts: else nobody else could write meanwhile
            with self._writing() as database:
                found = database.execute(
                    "SELECT offset FROM letters WHERE partition = ? AND offset < ? ORDER BY offset LIMIT 1 OFFSET ?",
                    (partition, below, _FORGET_AT_ONCE),
                ).fetchone()
                more = found is not None
                self._drop(database, partition, found[0] if more else below)

    def clear(self) -> None:
        """Drop everything, as when the topic was made anew."""
        with self._writing() as database:
            for table in ("letters", "said", "mistakes"):
                database.execute(f"DELETE FROM {table}")
            self._mistakes.clear()
            self._counts.clear()
            self._ignored = 0

    def page(self, filter_: Filter, *, limit: int, after: str | None = None, count: bool = True) -> Page:
        """Letters that match, the newest first, from where `Page.next` of the page before says.

        `count` also counts all that match, which is a scan of its own.
        """
        chosen = condition(filter_)
        before = _position(after)
        if before is not None:
            chosen = chosen.and_("(written, partition, offset) < (?, ?, ?)", before)
        with self._database.reading() as database:
            rows = database.execute(
                f"{_ROW} WHERE {chosen.sql} {_NEWEST_FIRST} LIMIT ?", (*chosen.cells, limit + 1)
            ).fetchall()
        shown = rows[:limit]
        following = ":".join(map(str, shown[-1][:3])) if len(rows) > limit else None
        matching = None
        if count:
            alone = after is None and following is None
            matching = len(shown) if alone else self._counted(filter_)
        return Page([self._row(row) for row in shown], following, matching, self.built)

    def count(self, filter_: Filter, within_s: float | None = None) -> int:
        """How many letters match."""
        if not filter_.terms:
            return self._counts.total()
        chosen = condition(filter_)
        with self._database.reading(within_s) as database:
            found = database.execute(f"SELECT count(*) FROM letters WHERE {chosen.sql}", chosen.cells).fetchone()
        return int(found[0])

    def groups(self, filter_: Filter, limit: int = _GROUPS) -> Sequence[FingerprintGroup]:
        """Letters that match by mistake, the most pending first. What has no fingerprint is grouped by its class."""
        chosen = condition(filter_)
        with self._database.reading() as database:
            found = database.execute(
                f"""
                SELECT error, sum(letters), sum(pending), min(oldest), max(newest) FROM (
                    SELECT mistake, count(*) AS letters, sum(state = {PENDING}) AS pending,
                        min(nullif(written, {NO_TIME})) AS oldest, max(written) AS newest
                    FROM letters WHERE {chosen.sql} GROUP BY mistake
                ) JOIN mistakes ON id = mistake
                GROUP BY error ORDER BY 3 DESC, 2 DESC, 5 DESC LIMIT ?
                """,
                (*chosen.cells, limit),
            ).fetchall()
            return [self._group(database, chosen, *group) for group in found]

    def summary(self, now_ms: int, retention_ms: int | None) -> TopicSummary:
        """The topic at a glance; its top is that of some seconds ago."""
        pending = self._counts[PENDING]
        with self._database.reading() as database:
            newest = database.execute("SELECT max(written) FROM letters").fetchone()[0]
            oldest = database.execute(
                "SELECT written FROM letters WHERE state = ? AND written > ? ORDER BY written LIMIT 1",
                (PENDING if pending else -1, NO_TIME),
            ).fetchone()
            lately = database.execute("SELECT count(*) FROM letters WHERE written > ?", (now_ms - _HOUR_MS,)).fetchone()
            expiring = database.execute(
                "SELECT count(*) FROM letters WHERE state = ? AND written BETWEEN ? AND ?",
                (PENDING, NO_TIME + 1, NO_TIME + 1 if retention_ms is None else now_ms + _DAY_MS - retention_ms),
            ).fetchone()
        return TopicSummary(
            topic=self.topic,
            records=self._counts.total(),
            pending=pending,
            states={state: self._counts[number] for number, state in enumerate(STATES)},
            oldest_pending_ms=None if oldest is None else oldest[0],
            newest_ms=None if newest == NO_TIME else newest,
            per_hour=float(lately[0]),
            expiring=expiring[0],
            retention_ms=retention_ms,
            top=self._top_groups(),
            built=self.built,
            ignored=self._ignored,
        )

    def ids(self, filter_: Filter) -> Generator[LetterId]:
        """Letters that match in the order of their places, for as long as the caller goes on: as of one moment."""
        chosen = condition(filter_)
        with self._database.reading(math.inf) as database:
            yield from (
                LetterId(*place)
                for place in database.execute(
                    f"SELECT partition, offset FROM letters WHERE {chosen.sql} ORDER BY partition, offset", chosen.cells
                )
            )

    def ends(self) -> Mapping[int, int]:
        """The offset behind the last letter that is here, by partition."""
        with self._database.reading() as database:
            return dict(database.execute("SELECT partition, max(offset) + 1 FROM letters GROUP BY partition"))

    def candidates(self, filter_: Filter, ends: Mapping[int, int], *, op_id: str | None = None) -> Iterator[Candidate]:
        """Letters that match and lie before `ends`, in the order of their places, as of one moment.

        Those whose state is of operation `op_id` are among them whatever the filter says: it chose them before.
        """
        chosen = condition(filter_)
        with self._database.reading(math.inf) as database:
            found = database.execute(
                f"{_CANDIDATES} WHERE ({chosen.sql}) OR op = ? ORDER BY partition, offset", (*chosen.cells, op_id)
            )
            for partition, offset, state, reason, handler, group, topic, at_partition, at_offset, *rest in found:
                if offset < ends.get(partition, 0):
                    place, origin = LetterId(partition, offset), _origin(topic, at_partition, at_offset)
                    yield Candidate(place, STATES[state], reason, handler, group, origin, *rest)

    def row(self, letter: LetterId) -> Row | None:
        """One letter; None if it is not here."""
        with self._database.reading() as database:
            found = database.execute(f"{_ROW} WHERE partition = ? AND offset = ?", letter).fetchone()
            return None if found is None else self._row(found)

    def history(self, letter: LetterId) -> Sequence[Disposition]:
        """What is believed to have been said of it, the latest last; compaction leaves only that."""
        with self._database.reading() as database:
            found = database.execute(
                "SELECT entry FROM said WHERE partition = ? AND offset = ? AND NOT ignored ORDER BY position", letter
            ).fetchall()
        return [disposition for (entry,) in found if (disposition := decode(entry)) is not None]

    def neighbours(self, letter: LetterId) -> tuple[LetterId | None, LetterId | None]:
        """The letters before and after it in its partition."""
        with self._database.reading() as database:
            before, after = database.execute(
                """
                SELECT (SELECT max(offset) FROM letters WHERE partition = ?1 AND offset < ?2),
                    (SELECT min(offset) FROM letters WHERE partition = ?1 AND offset > ?2)
                """,
                letter,
            ).fetchone()
        partition = letter.partition
        return (
            None if before is None else LetterId(partition, before),
            None if after is None else LetterId(partition, after),
        )

    def children(self, place: str) -> Sequence[LetterId]:
        """Letters of replays of the letter at `place`, which is TOPIC/PARTITION/OFFSET."""
        return self._places("parent = ? ORDER BY written, partition, offset", place)

    def lineage(self, letter: LetterId) -> Sequence[LetterId]:
        """Letters of this topic whose replays led to it, the oldest first, then what came of it; a hundred at most."""
        before: list[LetterId] = []
        row = self.row(letter)
        while row is not None and row.letter.parent is not None and len(before) < _LINEAGE:
            parent = self._place(row.letter.parent)
            row = None if parent is None or parent in (letter, *before) else self.row(parent)
            if row is not None:
                before.insert(0, row.letter.id)
        return [*before, *self._descendants(letter, before, _LINEAGE - len(before))]

    def _descendants(self, letter: LetterId, before: Sequence[LetterId], most: int) -> Sequence[LetterId]:
        found = [letter]
        for one in found:  # which grows meanwhile
            if len(found) <= most:
                found += [child for child in self.children(self._text(one)) if child not in (*found, *before)]
        return found[1 : most + 1]

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._database.writing(partial(self._take_back, self._ignored)) as database:
            yield database
            self._version += 1

    def _take_back(self, ignored: int, database: sqlite3.Connection) -> None:
        """Count anew after a write that failed, and forget the numbers that were given to mistakes for it."""
        self._ignored = ignored
        self._mistakes.clear()
        self._counts = Counter(dict(database.execute("SELECT state, count(*) FROM letters GROUP BY state")))

    def _new(
        self, database: sqlite3.Connection, letters: Sequence[DeadRecord], bounds: _Bounds
    ) -> Sequence[DeadRecord]:
        """Those that are not here yet, in the order of lists, in which they are written fastest."""
        by_place = {letter.id: letter for letter in letters}
        for partition, (low, high) in bounds.items():
            for (offset,) in database.execute(
                "SELECT offset FROM letters WHERE partition = ? AND offset BETWEEN ? AND ?", (partition, low, high)
            ):
                by_place.pop(LetterId(partition, offset), None)
        return sorted(by_place.values(), key=lambda letter: (letter.written_ms or NO_TIME, letter.id), reverse=True)

    def _cells(self, database: sqlite3.Connection, letter: DeadRecord, said: Sequence[_Entry]) -> Cells:
        payload = letter.payload_sha256
        standing = self._standing(database, letter.id, payload, said) if said else _NOTHING_SAID
        return cells_of(letter, self._mistake(database, mistake_of(letter)), standing, payload)

    def _standing(
        self, database: sqlite3.Connection, place: LetterId, payload: str | None, said: Sequence[_Entry]
    ) -> DispositionCells:
        """What holds for the letter of which this was said, in its order: the last, or nothing."""
        last: Disposition | None = None
        for position, entry in said:
            disposition = decode(entry)
            assert disposition is not None
            # Else it was said of another letter, that had its place in a topic of the same name.
            holds = believed(disposition, topic_id=self._topic_id, payload_sha256=payload)
            last = disposition if holds else None
            if not holds:
                self._ignored += database.execute(
                    "UPDATE said SET ignored = 1 WHERE partition = ? AND offset = ? AND position = ? AND NOT ignored",
                    (*place, position),
                ).rowcount
        return DispositionCells.of(last)

    def _mistake(self, database: sqlite3.Connection, facts: MistakeFacts) -> int:
        number = self._mistakes.get(facts)
        if number is None:
            if len(self._mistakes) >= _MISTAKES_IN_MEMORY:
                self._mistakes.clear()
            mistake = Mistake(*facts)
            found = database.execute("SELECT id FROM mistakes WHERE facts = ?", (mistake.facts,)).fetchone()
            made = None if found is not None else database.execute(INSERT_MISTAKE, mistake.cells).lastrowid
            self._mistakes[facts] = number = int(made or found[0])
        return number

    def _restate(self, database: sqlite3.Connection, place: LetterId) -> None:
        """A letter that is here becomes what was said of it last."""
        before, payload = database.execute(
            "SELECT state, lower(hex(sha256)) FROM letters WHERE partition = ? AND offset = ?", place
        ).fetchone()
        said = database.execute(
            "SELECT position, entry FROM said WHERE partition = ? AND offset = ? ORDER BY position", place
        ).fetchall()
        now = self._standing(database, place, payload or None, said)
        self._counts[before] -= 1
        self._counts[now.state] += 1
        database.execute(
            "UPDATE letters SET state = ?, assigned = ?, snoozed = ?, op = ? WHERE partition = ? AND offset = ?",
            (*now, *place),
        )

    def _drop(self, database: sqlite3.Connection, partition: int, below: int) -> None:
        reach = (partition, below)
        gone = database.execute(
            "SELECT state, count(*) FROM letters WHERE partition = ? AND offset < ? GROUP BY state", reach
        ).fetchall()
        database.execute("DELETE FROM letters WHERE partition = ? AND offset < ?", reach)
        database.execute("DELETE FROM said WHERE partition = ? AND offset < ?", reach)
        self._counts.subtract(dict(gone))

    def _counted(self, filter_: Filter) -> int | None:
        try:
            return self.count(filter_, _COUNT_WITHIN_S)
        except ViewError:
            return None

    def _top_groups(self) -> Sequence[FingerprintGroup]:
        version, now_s, known = self._version, self._clock.monotonic_s(), self._top
        if known is None or (known[0] != version and now_s - known[1] > _TOP_AGE_S):
            self._top = known = (version, now_s, self.groups(_ALL_PENDING, _TOP))
        return known[2]

    def _group(
        self,
        database: sqlite3.Connection,
        chosen: Condition,
        error: str,
        count: int,
        pending: int,
        oldest: int | None,
        newest: int,
    ) -> FingerprintGroup:
        """With what the newest of its letters says."""
        chosen = chosen.and_("written = ? AND mistake IN (SELECT id FROM mistakes WHERE error = ?)", (newest, error))
        message, *facts = database.execute(
            f"""
            SELECT message, fingerprint, exception, reason, handler FROM letters CROSS JOIN mistakes ON id = mistake
            WHERE {chosen.sql} {_NEWEST_FIRST} LIMIT 1
            """,
            chosen.cells,
        ).fetchone()
        fingerprint, exception, reason, handler = facts
        return FingerprintGroup(
            fingerprint=fingerprint,
            exception=exception,
            message=message,
            reason=reason,
            handler=handler,
            count=count,
            pending=pending,
            first_ms=oldest,
            last_ms=None if newest == NO_TIME else newest,
        )

    def _places(self, where: str, *cells: Cell) -> Sequence[LetterId]:
        with self._database.reading() as database:
            found = database.execute(f"SELECT partition, offset FROM letters WHERE {where}", cells).fetchall()
        return [LetterId(*place) for place in found]

    def _place(self, text: str) -> LetterId | None:
        """The letter of this topic that TOPIC/PARTITION/OFFSET names."""
        topic, _, rest = text.partition("/")
        try:
            return LetterId.parse(rest.replace("/", ":")) if topic == self.topic else None
        except ConfigurationError:
            return None

    def _text(self, letter: LetterId) -> str:
        return f"{self.topic}/{letter.partition}/{letter.offset}"

    def _row(self, cells: Iterable[object]) -> Row:
        found = _Found._make(cells)
        origin = _origin(found.origin_topic, found.origin_partition, found.origin_offset)
        outline = Outline(
            topic=self.topic,
            id=LetterId(found.partition, found.offset),
            written_ms=None if found.written == NO_TIME else found.written,
            key=found.key,
            size_bytes=found.size,
            payload_sha256=None if found.sha256 is None else found.sha256.hex(),
            family=found.family,
            origin=origin,
            origin_topic=found.origin_topic,
            group=found.group,
            handler=found.handler,
            reason=found.reason,
            exception=found.exception,
            message=found.message,
            fingerprint=found.fingerprint,
            attempts=found.attempts,
            sw_id=found.sw_id,
            parent=found.parent,
            replay_id=found.replay_id,
            replay_count=found.replay_count,
        )
        return Row(outline, None if found.entry is None else decode(found.entry), STATES[found.state])


def _position(after: str | None) -> tuple[int, int, int] | None:
    if after is None:
        return None
    found = _CURSOR.fullmatch(after)
    if found is None:
        raise ConfigurationError(f"expected what a page says of the next one, got {after!r}")
    return int(found[1]), int(found[2]), int(found[3])


def _said_of(database: sqlite3.Connection, bounds: _Bounds) -> Mapping[LetterId, Sequence[_Entry]]:
    """What was said of letters within."""
    found: dict[LetterId, list[_Entry]] = defaultdict(list)
    for partition, (low, high) in bounds.items():
        for offset, position, entry in database.execute(
            """
            SELECT offset, position, entry FROM said WHERE partition = ? AND offset BETWEEN ? AND ?
            ORDER BY offset, position
            """,
            (partition, low, high),
        ):
            found[LetterId(partition, offset)].append((position, entry))
    return found


def _bounds(places: Iterable[LetterId]) -> _Bounds:
    """The first and last offset by partition."""
    found: dict[int, tuple[int, int]] = {}
    for partition, offset in places:
        low, high = found.get(partition, (offset, offset))
        found[partition] = (min(low, offset), max(high, offset))
    return found


def _origin(topic: str | None, partition: int | None, offset: int | None) -> Origin | None:
    return None if topic is None or partition is None or offset is None else Origin(topic, partition, offset)


def position_of(row: Row) -> str:
    """What `Page.next` would be if `row` were the last of its page."""
    written = NO_TIME if row.letter.written_ms is None else row.letter.written_ms
    return f"{written}:{row.letter.id.partition}:{row.letter.id.offset}"
