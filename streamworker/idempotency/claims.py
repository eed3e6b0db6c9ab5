"""What a claim is: leave to handle what has one id, for a while, and the note that it is done.

    absent ──claim──► in work (token, lease) ──complete──► done (result, ttl)
       ▲                     │
       └── release, or the lease is over

Decided here: ids, and what a claim can be answered. Pure; who keeps claims (`redis.py`) says what holds for threads and
errors by the protocol `Claims`.

A claim makes repeats rare and cannot rule them out: between an effect and `complete` a process can die, and what
keeps the claims can lose them. Only a sink that knows what it has applied rules them out.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Protocol

from streamworker.errors import Misuse, PoisonError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.record import Origin

MAX_RESULT_BYTES = 1024  # a note that something is done, not a store of results
_MAX_ID_CHARS = 256
# Of a lease. So many workers that were refused by one do not come back in the same millisecond.
_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Claim:
    """Whom what is to be handled as `id` belongs to: the same claim sent twice is one, another token is another's."""

    id: str
    token: str


@dataclass(frozen=True, slots=True)
class Granted:
    """Handle it: nobody else will, for as long as the lease is extended."""


@dataclass(frozen=True, slots=True)
class Done:
    """It was handled, and this is what was kept of it; empty if nothing was."""

    result: bytes


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody handles it, or died of it: never commit it, ask again in `retry_in_s`, when the lease is over."""

    retry_in_s: float


Answer = Granted | Done | Busy
GRANTED = Granted()


class Completion(enum.Enum):
    """What `complete` found."""

    COMPLETED = "completed"  # it is done, by this call
    ALREADY_DONE = "already_done"  # by an earlier call whose answer was lost, or by whoever took over
    LOST = "lost"  # the lease was over, or the claim is gone: somebody else may handle it, or has begun to


class Claims(Protocol):
    """Who keeps claims. Every method may be called from any thread, and more than once with the same effect.

    All but `make` may block for as long as the client's timeout, per 500 claims, and raise ClaimsUnavailable. Then
    part of it may have happened: the same call with the same claims puts that right.
    """

    @property
    def lease_s(self) -> float:
        """How long a claim is good without `extend`, by the clock of who keeps it."""

    def make(self, claim_id: str) -> Claim:
        """A claim with a token of its own. Asks nobody, and never raises."""

    def claim(self, claims: Sequence[Claim]) -> Sequence[Answer]:
        """Ask for each; the answers are in the same order. Of two with one id, the second is refused as busy."""

    def complete(self, results: Sequence[tuple[Claim, bytes]]) -> Sequence[Completion]:
        """Note that these are done, and what is to be kept of them; for those that are still held.

        Raises Misuse, before anything is noted, for a result that is larger than `MAX_RESULT_BYTES`.
        """

    def release(self, claims: Sequence[Claim]) -> None:
        """Give up those that are still held, so that others need not wait for the end of the lease."""

    def extend(self, claims: Sequence[Claim]) -> Sequence[bool]:
        """Begin the lease anew; false for those that are not held any more."""


class Tokens:
    """Tokens that nobody else makes: `process` is random and of this process, the rest is a count. Any thread."""

    def __init__(self, process: str) -> None:
        self._process = process
        self._count = count(1)

    def next(self) -> str:
        """One more."""
        return f"{self._process}.{next(self._count)}"


def default_id(origin: Origin, value: bytes | None, *, repaired: bool = False) -> str:
    """`topic:partition:offset` of where a record was first, so that a copy in a retry topic is the same record.

    One whose value was repaired is another: its first value may have had an effect, this one has not.
    """
    where = f"{origin.topic}:{origin.partition}:{origin.offset}"
    return f"{where}:{hashlib.sha256(value or b'').hexdigest()}" if repaired else where


def chosen_id(handler: str, chosen: object) -> str:
    """The id that a handler's own function gave, apart from those of other handlers of the group.

    A topic's name has no slash, so it is never one of `default_id`. Raises PoisonError for what is no id: the function
    would give the same at every try.
    """
    if not isinstance(chosen, str) or not chosen:
        raise PoisonError(f"Idempotency.id of {handler}: expected a str that is not empty, got {chosen!r}")
    if len(chosen) > _MAX_ID_CHARS:
        chosen = f"sha256:{hashlib.sha256(chosen.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return f"{handler}/{chosen}"


def busy(left_s: float, lease_s: float, chance: float) -> Busy:
    """The answer to a claim that another one stands against for `left_s` more; `chance` is between 0 and 1."""
    return Busy(left_s + chance * _JITTER * lease_s)


def refuse_large(results: Sequence[tuple[Claim, bytes]]) -> None:
    """Raise Misuse if one is too large to be kept."""
    for claim, result in results:
        if len(result) > MAX_RESULT_BYTES:
            raise Misuse(f"result of {claim.id}: expected at most {MAX_RESULT_BYTES} bytes, got {len(result)}")
