"""What was made of records that are done, until a transaction has it. Pure; the loop thread owns it.

What is to be committed of a partition, a mark, says which records are done by it: those below its offset, and those
that the map beside it lists. A transaction has exactly what was made of these. What is done and does not fit into the
map waits for a later one: after a crash it would be handled again, and be there twice.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.offsets import codec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from streamworker.interfaces import OffsetMark
    from streamworker.record import Letter, TopicPartition


@dataclass(frozen=True, slots=True)
class Output:
    """A record to be written, and the record that it was made of: its partition, in which ownership, and its offset."""

    partition: TopicPartition
    ownership: int
    offset: int
    letter: Letter

    @property
    def size_bytes(self) -> int:
        """Of key and value."""
        return len(self.letter.key or b"") + len(self.letter.value or b"")


class PendingOutputs:
    """Outputs in the order in which their records were done, hence in order for each key."""

    def __init__(self) -> None:
        self._outputs: list[Output] = []
        self._ownerships: defaultdict[TopicPartition, int] = defaultdict(int)
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._outputs)

    def add(self, partition: TopicPartition, offset: int, letters: Iterable[Letter]) -> None:
        """What was made of the record at `offset`, which is done from now on."""
        for letter in letters:
            output = Output(partition, self._ownerships[partition], offset, letter)
            self._outputs.append(output)
            self.size_bytes += output.size_bytes

    def ownership(self, partition: TopicPartition) -> int:
        """A number of the present ownership of `partition`, which the next one does not have."""
        return self._ownerships[partition]

    def drop(self, partition: TopicPartition) -> None:
        """The ownership of `partition` has ended: its next owner makes all of it again."""
        self._ownerships[partition] += 1
        self._keep([one for one in self._outputs if one.partition != partition])

    def take(self, marks: Mapping[TopicPartition, OffsetMark]) -> Sequence[Output]:
        """Take out what was made of the records that are done by `marks`, in order."""
        done = {partition: _done_by(mark) for partition, mark in marks.items()}
        taken = [one for one in self._outputs if one.partition in done and done[one.partition](one.offset)]
        if taken:
            gone = set(map(id, taken))
            self._keep([one for one in self._outputs if id(one) not in gone])
        return taken

    def put_back(self, outputs: Sequence[Output]) -> None:
        """The transaction that had these came to nothing: those of living ownerships go with the next one."""
        lives = [one for one in outputs if self._ownerships[one.partition] == one.ownership]
        self._keep([*lives, *self._outputs])

    def _keep(self, outputs: list[Output]) -> None:
        self._outputs = outputs
        self.size_bytes = sum(one.size_bytes for one in outputs)


def _done_by(mark: OffsetMark) -> Callable[[int], bool]:
    """Whether a record is done by `mark`, by its offset."""
    metadata = codec.decode(mark.metadata, mark.offset)
    ranges = () if metadata is None or metadata.progress is None else metadata.progress.done
    firsts = [first for first, _ in ranges]

    def is_done(offset: int) -> bool:
        at = bisect_right(firsts, offset) - 1
        return offset < mark.offset or (at >= 0 and offset <= ranges[at][1])

    return is_done
