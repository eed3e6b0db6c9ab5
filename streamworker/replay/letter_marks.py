"""How a sink with marks knows dead letters that it has taken, although any of them may be handled at any time.

A mark of a lane says "all below, but for these", which fits a log that is read in order. Of a dead-letter topic people
choose: the tenth letter today, the third tomorrow. Decided here: each share of the keys of each thousand letters has a
mark of its own, in which all letters are open but those that were written. Then a mark stays small, and one that
nobody has heard of for a year still tells the truth. On the thread of the handler's instance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from streamworker.errors import RowFailed
from streamworker.interfaces import Written
from streamworker.record import TopicPartition
from streamworker.sinks.marks import lane_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.interfaces import Row, Sink, SinkContext, Writer
    from streamworker.work import Place

# Marks are found again by these two, so neither may ever change.
LANES = 16  # shares of the keys: that many letters of a partition are written at once
_BLOCK = 1024  # letters


class _Share(NamedTuple):
    """Letters that have a mark together."""

    block: int
    lane: int

    @classmethod
    def of(cls, row: Row) -> _Share:
        return cls(row.offset // _BLOCK, lane_of(row.key, row.offset, LANES))


@dataclass(frozen=True, slots=True)
class LetterSink:
    """A `Sink` for dead letters over `sink`, which keeps marks.

    `topic_id` tells the dead-letter topic from another of its name; what is marked of one says nothing of the other.
    """

    sink: Sink
    topic_id: str | None

    @property
    def name(self) -> str:
        """As of `Sink`."""
        return self.sink.name

    @property
    def knows_repeats(self) -> bool:
        """As of `Sink`."""
        return self.sink.knows_repeats

    @property
    def keeps_marks(self) -> bool:
        """As of `Sink`."""
        return self.sink.keeps_marks

    def writer(self, context: SinkContext) -> Writer:
        """As of `Sink`."""
        return _LetterWriter(self.sink.writer(context), self.topic_id)


class _LetterWriter:
    """Writes what follows each other and has one mark at once, in the order of the rows."""

    def __init__(self, writer: Writer, topic_id: str | None) -> None:
        self._writer = writer
        self._topic_id = topic_id

    def write(self, place: Place, rows: Sequence[Row]) -> Written:
        """As of `Writer`."""
        found, done = Written(), 0
        for share, together in groupby(rows, _Share.of):
            run = list(together)
            try:
                found = _joined(found, self._writer.write(self._place(place, share, run), run), done)
            except RowFailed as failed:
                before = failed.written if isinstance(failed.written, Written) else Written()
                raise RowFailed(done + failed.index, failed.cause, _joined(found, before, done)) from failed
            except Exception as error:  # whatever the driver raises comes through, and what stands before it is durable
                if not done:
                    raise
                raise RowFailed(done, error, found) from error
            done += len(run)
        return found

    def close(self) -> None:
        """As of `Writer`."""
        self._writer.close()

    def _place(self, place: Place, share: _Share, rows: Sequence[Row]) -> Place:
        topic, number = place.partition
        written = {row.offset for row in rows}
        return replace(
            place,
            # No topic has such a name, so a handler that reads the dead-letter topic itself has other marks.
            partition=TopicPartition(f"{topic}/{self._topic_id or ''}", number),
            lanes=LANES,
            lane=share.block * LANES + share.lane,
            done_below=0,
            open_below=[one for one in range(share.block * _BLOCK, rows[-1].offset) if one not in written],
            foreign=False,
        )


def _joined(before: Written, after: Written, done: int) -> Written:
    """Both, of which the second begins with row number `done`."""
    return Written(
        repeated=[*before.repeated, *(done + one for one in after.repeated)],
        superseded=[*before.superseded, *(done + one for one in after.superseded)],
        versions={**before.versions, **{done + row: version for row, version in after.versions.items()}},
    )
