"""What is sent and said for one letter of a plan: the copy, and the disposition that goes with it.

Decided here: the headers and the value of a copy, and its replay id: it is the same for the same letter, value and
operation, so that what is tried twice is sent once. Pure but for repairs and serdes, which are the application's; any
thread.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.dlq.replays import Replay, replayed_headers
from streamworker.record import Letter
from streamworker.repairs import repair_called
from streamworker.replay.desk import SENDING, Action
from streamworker.replay.exports import Imported
from streamworker.replay.repair import NotRepaired
from streamworker.replay.states import AGAIN, ONLY_PENDING, RESTORABLE, Disposition, State, digest
from streamworker.replay.targets import NoTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from streamworker.dlq.replays import ReplayKey
    from streamworker.repairs import RepairFunction
    from streamworker.replay.dead_record import DeadRecord, LetterId
    from streamworker.replay.desk import Request
    from streamworker.replay.repair import ValueForm
    from streamworker.replay.targets import Destination, Targets

_STATES = {
    Action.REPLAY: State.REPLAYED,
    Action.REPAIR: State.REPAIRED,
    Action.DISCARD: State.DISCARDED,
    Action.RESTORE: State.PENDING,
    Action.SNOOZE: State.PENDING,
    Action.ASSIGN: State.PENDING,
}


class NotMade(Exception):
    """Nothing can be sent for this letter; says why."""


@dataclass(frozen=True, slots=True)
class Made:
    """What goes with one letter; `copy` is None where nothing is sent."""

    copy: Letter | None
    disposition: Disposition


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """Makes what operation `op_id` of `actor` sends and says. `form` is how the value of a letter is edited."""

    request: Request
    op_id: str
    actor: str
    topic_id: str | None
    targets: Targets
    key: ReplayKey | None
    form: Callable[[DeadRecord], ValueForm]
    repairs: Mapping[str, RepairFunction | Imported]

    @property
    def expected(self) -> frozenset[State]:
        """The states that letters must be in."""
        if self.request.action is Action.RESTORE:
            return RESTORABLE
        if self.request.action in SENDING and self.request.again:
            return AGAIN | {State.UNCERTAIN}
        return ONLY_PENDING | ({State.UNCERTAIN} if self.request.action is Action.DISCARD else set())

    def make(self, letter: DeadRecord, now_ms: int, *, before: Disposition | None = None) -> Made:
        """For one letter, whose value is whole; raises NotMade. `before` is what was said of it last."""
        if self.request.action in SENDING:
            return self._sent(letter, now_ms)
        request = self.request
        kept = before if before is not None and before.state is State.PENDING else None
        snoozed_until_ms = kept.snoozed_until_ms if kept is not None else None
        assigned_to = kept.assigned_to if kept is not None else None
        if request.action is Action.SNOOZE:
            snoozed_until_ms = request.until_ms
        if request.action is Action.ASSIGN:
            assigned_to = request.assignee
        return Made(
            None,
            Disposition(
                state=_STATES[request.action],
                op_id=self.op_id,
                actor=self.actor,
                at_ms=now_ms,
                topic_id=self.topic_id,
                payload_sha256=letter.payload_sha256,
                reason_code=request.reason_code,
                note=request.note,
                snoozed_until_ms=snoozed_until_ms,
                assigned_to=assigned_to,
            ),
        )

    def duplicate(self, letter: DeadRecord, of: LetterId, now_ms: int) -> Made:
        """For a letter of a record that another letter is acted on for."""
        return Made(
            None,
            Disposition(
                state=State.DUPLICATE,
                op_id=self.op_id,
                actor=self.actor,
                at_ms=now_ms,
                topic_id=self.topic_id,
                payload_sha256=letter.payload_sha256,
                of=str(of),
            ),
        )

    def repaired(self, letter: DeadRecord) -> bytes | None:
        """The value that is sent for a letter; its own unless this is a repair. Raises NotMade."""
        request = self.request
        if request.action is not Action.REPAIR:
            return letter.value
        try:
            if request.edited is not None:
                return self.form(letter).edited(letter.value, request.edited)
            repair = repair_called(request.function or "", self.repairs)
            if isinstance(repair, Imported):
                edited = repair.value_for(letter)
                self.form(letter).check(edited)
                return edited
            mended = self.form(letter).mended(repair, letter.value)
        except NotRepaired as error:
            raise NotMade(str(error)) from error
        if mended is None:
            raise NotMade("the repair leaves it as it is")
        return mended

    def _sent(self, letter: DeadRecord, now_ms: int) -> Made:
        if letter.value is None and letter.pointer is not None:
            raise NotMade("its value was too large for it, and is not there any more where the record was first")
        value = self.repaired(letter)
        try:
            destination = self.targets.of(letter.origin, letter.group, self.request.target)
        except NoTarget as error:
            raise NotMade(str(error)) from error
        edited = digest(value) if value != letter.value else None
        replay = self._replay(letter, destination, edited)
        signed_by = self.key if destination.is_shared else None
        headers = replayed_headers(
            letter.own_headers, replay, topic=destination.topic, key=letter.key, value=value, signed_by=signed_by
        )
        copy = Letter(
            topic=destination.topic,
            partition=destination.partition,
            key=letter.key,
            value=value,
            headers=headers,
            timestamp_ms=now_ms,
        )
        return Made(
            copy,
            Disposition(
                state=State.REPLAYED if edited is None else State.REPAIRED,
                op_id=self.op_id,
                actor=self.actor,
                at_ms=now_ms,
                topic_id=self.topic_id,
                payload_sha256=letter.payload_sha256,
                note=self.request.note,
                replay_id=replay.id,
                edited_sha256=edited,
                replay_count=replay.count,
            ),
        )

    def _replay(self, letter: DeadRecord, destination: Destination, edited: str | None) -> Replay:
        again = self.op_id if self.request.again else ""
        what = "\0".join((self.topic_id or "", letter.place, edited or "", again))
        return Replay(
            group=destination.group or letter.group or "",
            origin=letter.origin,
            origin_timestamp_ms=letter.origin_timestamp_ms,
            id=hashlib.sha256(what.encode()).hexdigest()[:32],
            parent=letter.place,
            count=letter.replay_count + 1,
            repaired=edited,
        )
