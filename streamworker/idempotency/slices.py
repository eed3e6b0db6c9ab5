"""Claims for whole slices of one handler: one question before the calls, and one after the effects are durable.

A record that is done is not handled again. One that somebody else has claimed ends the slice there, and waits for the
end of that lease. What is claimed and did not come to its effect is given up at once, so that whoever gets it next need
not wait. The threads of the handler share it.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from streamworker.errors import ClaimBusy, ClaimsUnavailable
from streamworker.idempotency.claims import Busy, Completion, Done, Granted, chosen_id, default_id
from streamworker.options import OnUnavailable
from streamworker.record import is_repaired, origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from streamworker.clock import Clock
    from streamworker.idempotency.claims import Answer, Claim, Claims
    from streamworker.idempotency.watchdog import Held, LeaseExtender
    from streamworker.record import Record
    from streamworker.work import Slice

_log = logging.getLogger(__name__)


class SliceClaims:
    """A `Claimer`. Counts what it was answered, in plain numbers that any thread may read."""

    def __init__(
        self,
        claims: Claims,
        extender: LeaseExtender[Claim],
        *,
        handler: str,
        chosen: Callable[..., str] | None,
        on_unavailable: OnUnavailable,
        clock: Clock,
    ) -> None:
        self._claims = claims
        self._extender = extender
        self._handler = handler
        self._chosen = chosen
        self._pauses = on_unavailable is OnUnavailable.PAUSE
        self._monotonic_s = clock.monotonic_s
        self._lock = threading.Lock()  # protects what follows from the handler's threads
        self._unanswered: dict[str, Claim] = {}  # sent, and perhaps granted: the same claim is granted again
        self.counts = {"granted": 0, "done": 0, "busy": 0, "unavailable": 0, "lost": 0, "incomplete": 0}

    def claim(self, slice_: Slice, record: Callable[[int], Record[object]]) -> Claimed:
        """See `Claimer.claim`."""
        ids, refused = self._ids(slice_, record)
        wanted = [self._claim_of(one) for one in ids.values()]
        since_s = self._monotonic_s()
        try:
            answers = self._claims.claim(wanted)
        except ClaimsUnavailable as error:
            self._count("unavailable", 1)
            with self._lock:
                self._unanswered.update((one.id, one) for one in wanted)
            if self._pauses:
                return Claimed(self, {}, (), refused=(0, error))
            _log.warning("%s goes on without claims: %s", self._handler, error)
            return Claimed(self, {}, (), refused=refused)
        with self._lock:
            for one in wanted:
                self._unanswered.pop(one.id, None)
        return self._answered(dict(zip(ids, wanted, strict=True)), answers, since_s, refused)

    def _ids(
        self, slice_: Slice, record: Callable[[int], Record[object]]
    ) -> tuple[dict[int, str], tuple[int, BaseException] | None]:
        """By index; up to the first that has none, or that of one before it: it goes when that one is through."""
        ids: dict[int, str] = {}
        seen: set[str] = set()
        for index, message in enumerate(slice_.messages):
            if self._chosen is None:
                found = default_id(origin_of(message), message.value(), repaired=is_repaired(message))
            else:
                try:
                    decoded = record(index)
                except Exception:  # noqa: BLE001, S112 - it cannot be decoded, and never gets to its call
                    continue
                try:
                    found = chosen_id(self._handler, self._chosen(decoded))
                except Exception as error:  # noqa: BLE001 - the user's function: it ends as its call would
                    return ids, (index, error)
            if found in seen:
                return ids, (index, ClaimBusy(found, 0.0))
            seen.add(found)
            ids[index] = found
        return ids, None

    def _claim_of(self, claim_id: str) -> Claim:
        with self._lock:
            return self._unanswered.get(claim_id) or self._claims.make(claim_id)

    def _answered(
        self,
        claims: dict[int, Claim],
        answers: Sequence[Answer],
        since_s: float,
        refused: tuple[int, BaseException] | None,
    ) -> Claimed:
        granted: dict[int, Claim] = {}
        handled: list[int] = []
        for (index, claim), answer in zip(claims.items(), answers, strict=True):
            match answer:
                case Granted():
                    granted[index] = claim
                case Done():
                    handled.append(index)
                case Busy(retry_in_s) if refused is None or index < refused[0]:
                    refused = index, ClaimBusy(claim.id, retry_in_s)
        self._count("granted", len(granted))
        self._count("done", len(handled))
        self._count("busy", len(answers) - len(granted) - len(handled))
        held = self._extender.hold(granted.values(), since_s=since_s)
        return Claimed(self, granted, held, handled=handled, refused=refused)

    def conclude(self, claims: dict[int, Claim], held: Sequence[Held[Claim]], done: Collection[int]) -> None:
        """See `ClaimedSlice.conclude`."""
        self._extender.drop(held)
        completed = [(claim, b"") for index, claim in claims.items() if index in done]
        left = [claim for index, claim in claims.items() if index not in done]
        try:
            if completed:
                answers = self._claims.complete(completed)
                self._count("lost", sum(one is Completion.LOST for one in answers))
            if left:
                self._claims.release(left)
        except ClaimsUnavailable as error:
            self._count("incomplete", len(completed))
            _log.warning("%s: claims are left to the end of their lease: %s", self._handler, error)

    def _count(self, what: str, claims: int) -> None:
        with self._lock:
            self.counts[what] += claims


class Claimed:
    """A `ClaimedSlice`."""

    def __init__(
        self,
        by: SliceClaims,
        claims: dict[int, Claim],
        held: Sequence[Held[Claim]],
        *,
        handled: Collection[int] = (),
        refused: tuple[int, BaseException] | None = None,
    ) -> None:
        self._by = by
        self._claims = claims
        self._held = held
        self.handled = frozenset(handled)
        self.refused = refused

    def id_of(self, index: int) -> str | None:
        """See `ClaimedSlice.id_of`."""
        claim = self._claims.get(index)
        return None if claim is None else claim.id

    def conclude(self, done: Collection[int]) -> None:
        """See `ClaimedSlice.conclude`."""
        if self._claims:
            self._by.conclude(self._claims, self._held, done)
