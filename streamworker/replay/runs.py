"""Runs a plan: chunk by chunk, no faster than was said, and stops between chunks when it is asked to.

Decided here: the order (partition by partition, ascending), the pace, when a run ends by itself. What a chunk does to
the cluster is `shipping.py`'s. Nothing is lost by stopping: what was not marked is still pending, and the same plan can
be run on. The thread that calls `run`; it blocks in the cluster and in `wait`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from streamworker.errors import ClientError
from streamworker.options import Rate
from streamworker.replay.copies import NotMade
from streamworker.replay.desk import SENDING, Operation, OperationState, Outcome
from streamworker.replay.shipping import Chunk
from streamworker.resilience.limits import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.replay.audit import Note
    from streamworker.replay.copies import Made, Maker
    from streamworker.replay.dead_record import DeadRecord, LetterId
    from streamworker.replay.desk import Plan, Rates
    from streamworker.replay.shipping import Shipped, Shipping
    from streamworker.replay.states import Disposition, Target

CHUNK = 1000  # letters in one transaction: as many wait for its three round trips
_CHUNK_BYTES = 4 * 1024 * 1024
_CANARY_WAIT_S = 120.0
_LOOK_S = 0.5
_MOST_FAILURES = 1000  # that are remembered
_MOST_WHYS = 3
_AT_LEAST_ONCE = "this cluster allows no transactions, so what was sent may be there twice"
_NOT_TOLD = "no group is known, or has begun, that reads them: look there what became of them, then resume"


class Letters(Protocol):
    """Reads letters of the plan's topic with their values."""

    def read(self, ids: Sequence[LetterId]) -> Iterator[DeadRecord]:
        """Those of one partition that are still there, ascending, each with its whole value where that can be had.

        Raises ClientError.
        """

    def said(self, letter: LetterId) -> Disposition | None:
        """What was said of a letter last."""


class Outcomes(Protocol):
    """Finds out what became of what was sent."""

    def look(self, sent: Mapping[LetterId, Target]) -> Mapping[LetterId, Outcome]:
        """For each of these; raises ClientError."""


class Stop(Exception):
    """The run does not go on."""

    def __init__(self, state: OperationState, message: str | None = None) -> None:
        super().__init__(message)
        self.state = state
        self.message = message


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run needs of the world. `asked` says whether it shall stop; `tell` hears how far it is."""

    letters: Letters
    shipping: Callable[[int], Shipping]  # of a partition
    outcomes: Outcomes
    clock: Clock
    wait: Callable[[float], bool]  # seconds; true: there is no more time
    asked: Callable[[], OperationState | None]
    tell: Callable[[Operation], None]
    note: Callable[[], Note]  # what the audit says of a chunk, but for its letters


class Run:
    """One operation. `failures` says why letters were left out, the first thousand of them."""

    def __init__(
        self,
        plan: Plan,
        operation: Operation,
        maker: Maker,
        rates: Rates,
        around: Surroundings,
        *,
        resumed: bool = False,
    ) -> None:
        self.operation = operation
        self.failures: dict[LetterId, str] = {}
        self._exactly_once = True
        self._plan = plan
        self._firsts = frozenset(plan.duplicates.values())  # letters that others are duplicates of
        self._failed_firsts: set[LetterId] = set()
        self._maker = maker
        self._rates = rates
        self._around = around
        self._resumed = resumed
        self._done_here = 0
        now_s = self._began_s = around.clock.monotonic_s()
        self._records = _pace(rates.records_per_s, now_s)
        self._bytes = _pace(rates.bytes_per_s, now_s)
        sends = plan.request.action in SENDING
        self._canary: dict[LetterId, Target] | None = {} if sends and 0 < rates.canary < len(plan.ids) else None

    def run(self) -> Operation:
        """To the end; returns how it ended, and raises nothing that the cluster says."""
        try:
            given = 0
            for ids in self._chunks():
                self._stop_if_asked()
                self._do(ids)
                given += len(ids)
                if self._canary is not None and given >= self._rates.canary:
                    self._heed_canary(self._canary)
                    self._canary = None
            state, message = OperationState.DONE, self._left_alone()
        except Stop as stop:
            state, message = stop.state, stop.message
        except ClientError as error:
            state, message = OperationState.FAILED, str(error)
        ended_ms = None if state is OperationState.PAUSED else self._around.clock.wall_ms()
        self._tell(replace(self.operation, state=state, message=message, ended_ms=ended_ms))
        return self.operation

    def _chunks(self) -> Iterator[Sequence[LetterId]]:
        """The letters of the plan with their duplicates, of one partition each."""
        most = CHUNK if self._rates.records_per_s is None else max(1, min(CHUNK, int(self._rates.records_per_s)))
        chunk: list[LetterId] = []
        given = 0
        for letter in self._left():
            canary_ends = self._canary is not None and given + len(chunk) == self._rates.canary
            if chunk and (len(chunk) >= most or chunk[0].partition != letter.partition or canary_ends):
                yield chunk
                given += len(chunk)
                chunk = []
            chunk.append(letter)
        if chunk:
            yield chunk

    def _left(self) -> Iterator[LetterId]:
        """What this operation has not done yet, as far as the view knows; what it does not is left alone later."""
        for letter in _merged(self._plan.ids, sorted(self._plan.duplicates)):
            said = self._around.letters.said(letter) if self._resumed else None
            if said is not None and said.op_id == self.operation.id:
                self.operation = replace(self.operation, done=self.operation.done + 1)
            else:
                yield letter

    def _do(self, ids: Sequence[LetterId]) -> None:
        made: dict[LetterId, Made] = {}
        size_bytes = 0
        missing = set(ids)
        for letter in self._around.letters.read(ids):
            missing.discard(letter.id)
            if size_bytes > _CHUNK_BYTES:
                self._ship(made)
                made, size_bytes = {}, 0
            try:
                made[letter.id] = self._made(letter, missing)
            except NotMade as error:
                self._failed({letter.id: str(error)})
            else:
                size_bytes += len(letter.value or b"")
        self._failed(dict.fromkeys(missing, "it is not there any more"))
        if made:
            self._ship(made)

    def _made(self, letter: DeadRecord, missing: Collection[LetterId]) -> Made:
        now_ms = self._around.clock.wall_ms()
        of = self._plan.duplicates.get(letter.id)  # which comes before it
        if of is not None and (of in missing or of in self._failed_firsts):
            raise NotMade(f"{of}, which it is a duplicate of, was left alone")
        if of is not None:
            return self._maker.duplicate(letter, of, now_ms)
        sends = self._plan.request.action in SENDING  # then it does not matter what was said before, and asking costs
        return self._maker.make(letter, now_ms, before=None if sends else self._around.letters.said(letter.id))

    def _ship(self, made: Mapping[LetterId, Made]) -> None:
        copies = {letter: one.copy for letter, one in made.items() if one.copy is not None}
        self._keep_pace(len(made), sum(len(one.value or b"") for one in copies.values()))
        partition = next(iter(made)).partition
        shipped = self._around.shipping(partition).ship(
            Chunk(
                ids=list(made),
                copies=copies,
                dispositions={letter: one.disposition for letter, one in made.items()},
                audit=self._around.note(),
                expected=self._maker.expected,
            )
        )
        self._count(shipped)

    def _count(self, shipped: Shipped) -> None:
        self._exactly_once = self._exactly_once and shipped.exactly_once
        if self._canary is not None:
            self._canary.update(shipped.sent)
        uncertain = dict.fromkeys(
            shipped.uncertain, "what became of it is not known; look before anything else is done with it"
        )
        self._failed({**shipped.failed, **uncertain}, told=False)
        elapsed_s = max(self._around.clock.monotonic_s() - self._began_s, 0.001)
        self._done_here += len(shipped.marked)
        self._tell(
            replace(
                self.operation,
                done=self.operation.done + len(shipped.marked),
                skipped=self.operation.skipped + len(shipped.dropped),
                per_second=self._done_here / elapsed_s,
            )
        )

    def _failed(self, why: Mapping[LetterId, str], *, told: bool = True) -> None:
        if not why:
            return
        self._failed_firsts |= why.keys() & self._firsts
        for letter, reason in why.items():
            if len(self.failures) < _MOST_FAILURES:
                self.failures[letter] = reason
        self.operation = replace(self.operation, failed=self.operation.failed + len(why))
        if told:
            self._around.tell(self.operation)

    def _left_alone(self) -> str | None:
        """Why letters were, the most frequent reasons, and what people should know of the others."""
        whys = [f"{count}: {why}" for why, count in Counter(self.failures.values()).most_common(_MOST_WHYS)]
        return "; ".join([*whys, *(() if self._exactly_once else (_AT_LEAST_ONCE,))]) or None

    def _tell(self, operation: Operation) -> None:
        self.operation = operation
        self._around.tell(operation)

    def _keep_pace(self, records: int, size_bytes: int) -> None:
        for pace, amount in ((self._records, records), (self._bytes, size_bytes)):
            if pace is None or not amount:
                continue
            while not pace.most(self._around.clock.monotonic_s(), needed=True):
                ready_s = pace.ready_at_s or 0.0
                self._stop_if_asked()
                if self._around.wait(min(max(ready_s - self._around.clock.monotonic_s(), 0.0), _LOOK_S)):
                    raise Stop(OperationState.PAUSED, "it was told to end")
            pace.spend(amount)

    def _stop_if_asked(self) -> None:
        asked = self._around.asked()
        if asked is not None:
            raise Stop(asked)

    def _heed_canary(self, sent: Mapping[LetterId, Target]) -> None:
        """Wait until it is known what became of the first ones; Stop if too many came back."""
        until_s = self._around.clock.monotonic_s() + _CANARY_WAIT_S
        while True:
            found = self._around.outcomes.look(sent)
            returned = sum(one is Outcome.RETURNED for one in found.values())
            self._tell(replace(self.operation, returned=returned))
            if returned > self._rates.canary_returned_share * len(sent):
                raise Stop(
                    OperationState.ABORTED,
                    f"{returned} of the first {len(sent)} came back as dead letters; look at those",
                )
            open_ = [one for one in found.values() if one in (Outcome.WAITING, Outcome.UNKNOWN)]
            if not open_:
                return
            if self._around.clock.monotonic_s() > until_s:
                unknown = all(one is Outcome.UNKNOWN for one in open_)
                raise Stop(
                    OperationState.PAUSED,
                    f"{len(open_)} of the first {len(sent)} were not handled within {_CANARY_WAIT_S:g} s; "
                    + (_NOT_TOLD if unknown else "see whether the group runs and reads its replay topic, then resume"),
                )
            self._stop_if_asked()
            if self._around.wait(_LOOK_S):
                raise Stop(OperationState.PAUSED, "it was told to end")


def _pace(per_s: float | None, now_s: float) -> Pace | None:
    return None if per_s is None else Pace(Rate(per_s), now_s)


def _merged(ids: Iterable[LetterId], duplicates: Sequence[LetterId]) -> Iterator[LetterId]:
    """Both ascending, in one order; a letter comes before its duplicates."""
    waiting = iter(duplicates)
    next_ = next(waiting, None)
    for one in ids:
        while next_ is not None and next_ < one:
            yield next_
            next_ = next(waiting, None)
        yield one
    if next_ is not None:
        yield next_
        yield from waiting
