"""Chunks of dead letters for tests, and what a cluster has after they were shipped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.record import Letter
from streamworker.replay.audit import Kept, Note, verify
from streamworker.replay.desk import Actor, Role
from streamworker.replay.shipping import Chunk
from streamworker.replay.states import ONLY_PENDING, SENT, Disposition, State, decode, digest, letter_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streamworker.record import Header
    from streamworker.replay.dead_record import LetterId

OF, REPLAY_ID = "of", "sw-replay-id"
SOMEBODY = Actor("somebody@there", Role.ADMIN, "cli", verified=False)


def chunk_of(
    letters: Sequence[LetterId],
    target: str,
    *,
    op_id: str = "op",
    state: State = State.REPLAYED,
    expected: frozenset[State] = ONLY_PENDING,
    replay: str = "first",
    at_ms: int = 1_700_000_000_000,
    topic_id: str | None = "id",
) -> Chunk:
    """A chunk that sends or marks these letters, whose value is their id.

    For a real cluster `at_ms` is now: its retention would take what is older within a minute.
    """
    sends = state in SENT
    copies = {
        letter: Letter(
            target,
            None,
            str(letter).encode(),
            str(letter).encode(),
            [(OF, str(letter).encode()), (REPLAY_ID, f"{letter} {replay}".encode())],
            at_ms,
        )
        for letter in letters
        if sends
    }
    dispositions = {
        letter: Disposition(
            state=state,
            op_id=op_id,
            actor=SOMEBODY.name,
            at_ms=at_ms,
            topic_id=topic_id,
            payload_sha256=digest(str(letter).encode()),
            replay_id=f"{letter} {replay}" if sends else None,
            replay_count=int(sends),
        )
        for letter in letters
    }
    note = Note(at_ms=at_ms, actor=SOMEBODY, what="replay", op_id=op_id, detail={"filter": "state:pending"})
    return Chunk(ids=tuple(letters), copies=copies, dispositions=dispositions, audit=note, expected=expected)


@dataclass(frozen=True, slots=True)
class Stood:
    """What is committed: copies by their replay id, what the state topic says of each letter, the audit."""

    copies: Mapping[bytes | None, int]
    sent: Mapping[bytes | None, int]  # copies by the letter that they are of
    states: Mapping[LetterId, Disposition]
    audit: Sequence[Kept]

    def anomalies(self) -> dict[str, int]:
        """What must never be seen, with how many there are."""
        said = {letter: one for letter, one in self.states.items() if one.state in SENT}
        names = {str(letter).encode() for letter in said}
        found = {
            "sent twice": sum(count - 1 for count in self.copies.values()),
            "marked and not sent": len(names - self.sent.keys()),
            "audit": verify(self.audit, None).faults,
        }
        return {what: count for what, count in found.items() if count}

    def pending(self, letters: Iterable[LetterId]) -> list[LetterId]:
        """Those of which nothing is said, or that they are pending."""
        return [one for one in letters if one not in self.states or self.states[one].state is State.PENDING]

    def sent_and_not_marked(self) -> set[bytes | None]:
        """Letters of which there is a copy, and which are not said to be sent."""
        marked = {str(letter).encode() for letter, one in self.states.items() if one.state in SENT}
        return self.sent.keys() - marked


def stood(
    copies: Iterable[Sequence[Header]], states: Iterable[tuple[bytes | None, bytes | None]], audit: Iterable[Kept]
) -> Stood:
    """From the headers of the copies, and keys and values of the state topic."""
    headers = [dict(one) for one in copies]
    last: dict[LetterId, Disposition] = {}
    for key, value in states:
        letter = letter_of(key)
        assert letter is not None, key
        said = None if value is None else decode(value)
        if said is None:
            last.pop(letter, None)
        else:
            last[letter] = said
    return Stood(Counter(one[REPLAY_ID] for one in headers), Counter(one[OF] for one in headers), last, list(audit))
