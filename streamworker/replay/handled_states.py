"""Says of dead letters that they were handled where no worker saw them: in the process of a command.

Decided here: what is said, and that copies which a crash wrote of the same record go with it, in the same transaction:
otherwise the next run would take one of them for a record of its own. One thread at a time; blocks in the cluster.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from streamworker.replay.shipping import Chunk
from streamworker.replay.states import Disposition, State, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from streamworker.replay.audit import Note
    from streamworker.replay.dead_record import LetterId
    from streamworker.replay.letter_source import Delivered, Letters
    from streamworker.replay.shipping import Shipped, Shipping

IN_PROCESS = "in-process"  # the reason code of what was not sent but handled


class HandledStates:
    """Writes the states for operation `op_id` of `actor`. `duplicates` names for each copy the letter it is one of."""

    def __init__(
        self,
        *,
        op_id: str,
        actor: str,
        topic_id: str | None,
        duplicates: Mapping[LetterId, LetterId],
        letters: Letters,
        shipping: Callable[[int], Shipping],
        note: Callable[[], Note],
    ) -> None:
        self._op_id = op_id
        self._actor = actor
        self._topic_id = topic_id
        self._copies: defaultdict[LetterId, list[LetterId]] = defaultdict(list)
        for copy, of in duplicates.items():
            self._copies[of].append(copy)
        self._letters = letters
        self._shipping = shipping
        self._note = note

    def write(self, handled: Sequence[Delivered]) -> Mapping[LetterId, str]:
        """Say it of these letters of one partition; returns of which it could not be said, and why.

        Raises ClientError; the same may be written again then.
        """
        said = {one.id: self._handled(one) for one in handled}
        copies = self._said_of_copies(handled)
        partition = handled[0].id.partition
        beside = copies.pop(partition, {})
        for other, more in copies.items():  # before: after a crash in between the letter itself is still pending
            self._ship(other, more)
        shipped = self._ship(partition, {**said, **beside})
        left = {letter: f"it was {state} meanwhile" for letter, state in shipped.dropped.items()}
        return {letter: why for letter, why in {**left, **shipped.failed}.items() if letter in said}

    def _ship(self, partition: int, said: Mapping[LetterId, Disposition]) -> Shipped:
        ids = sorted(said)
        return self._shipping(partition).ship(Chunk(ids=ids, copies={}, dispositions=said, audit=self._note()))

    def _said_of_copies(self, handled: Iterable[Delivered]) -> dict[int, dict[LetterId, Disposition]]:
        """By partition, nearly always that of the letters themselves."""
        of = {copy: one for one in handled for copy in self._copies.get(one.id, ())}
        wanted: defaultdict[int, list[LetterId]] = defaultdict(list)
        for copy in sorted(of):
            wanted[copy.partition].append(copy)
        return {
            partition: {
                letter.id: self._disposition(
                    State.DUPLICATE, of[letter.id].at_ms, digest(letter.value), of=str(of[letter.id].id)
                )
                for letter in self._letters.read(copies)
            }
            for partition, copies in wanted.items()
        }

    def _handled(self, one: Delivered) -> Disposition:
        return self._disposition(
            State.REPLAYED, one.at_ms, one.payload_sha256, reason_code=IN_PROCESS, replay_count=one.replay_count + 1
        )

    def _disposition(
        self,
        state: State,
        at_ms: int,
        payload_sha256: str | None,
        *,
        reason_code: str | None = None,
        replay_count: int = 0,
        of: str | None = None,
    ) -> Disposition:
        return Disposition(
            state=state,
            op_id=self._op_id,
            actor=self._actor,
            at_ms=at_ms,
            topic_id=self._topic_id,
            payload_sha256=payload_sha256,
            reason_code=reason_code,
            replay_count=replay_count,
            of=of,
        )
