"""Runs a plan: chunk by chunk, no faster than was said, and stops between chunks when it is asked to.

Decided here: the order (partition by partition, ascending), the pace, when a run ends by itself. What a chunk does to
the cluster is `shipping.py`'s. Nothing is lost by stopping: what was not marked is still pending, and the same plan can
be run on. The thread that calls `run`; it blocks in the cluster and in `wait`. While it ships a part, and waits for
brokers, the letters of the next one are read and their copies made.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from streamworker.errors import ClientError
from streamworker.options import Rate
from streamworker.replay.copies import NotMade
from streamworker.replay.desk import SENDING, Operation, OperationState, Outcome
from streamworker.replay.read_ahead import ReadAhead
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
_BIT_S = 0.001  # how long letters are read ahead between two looks at what is waited for; a repair may take longer
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
    ahead: ReadAhead[Part] = field(default_factory=ReadAhead)  # goes on while something is waited for


@dataclass(slots=True)
class Part:
    """Letters of one partition that are shipped at once: a chunk, or some of one whose values are large."""

    done_before: int = 0  # letters in front of it that the operation had done when it was resumed
    chosen: int = 0  # letters of the plan that were looked at with it
    made: dict[LetterId, Made] = field(default_factory=dict)
    failed: dict[LetterId, str] = field(default_factory=dict)  # nothing can be sent for these, and why


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
            self._ship_all(self._around.ahead)
            state, message = OperationState.DONE, self._left_alone()
        except Stop as stop:
            state, message = stop.state, stop.message
        except ClientError as error:
            state, message = OperationState.FAILED, str(error)
        ended_ms = None if state is OperationState.PAUSED else self._around.clock.wall_ms()
        self._tell(replace(self.operation, state=state, message=message, ended_ms=ended_ms))
        return self.operation

    def _ship_all(self, ahead: ReadAhead[Part]) -> None:
        """Part by part. While it is open whether the run goes on, none is read."""
        ahead.begin(self._parts())
        given = 0
        while (part := ahead.take()) is not None:
            self._stop_if_asked()
            made = self._to_ship(part)
            given += part.chosen
            canary = self._canary if given >= self._rates.canary else None
            self._keep_pace(made)
            ahead.held = canary is not None
            if made:
                self._ship(made)
            if canary is not None:
                self._heed_canary(canary)
                self._canary = None
            ahead.held = False

    # What is read ahead: of what else a run has it changes nothing.

    def _parts(self) -> Iterator[Part | None]:
        """The letters of the plan with their duplicates; a None now and then, as of `ReadAhead`."""
        monotonic_s = self._around.clock.monotonic_s
        until_s = monotonic_s() + _BIT_S
        for chunk, done_before in self._chunks():
            missing, size_bytes = set(chunk), 0
            part = Part(done_before)
            for letter in self._around.letters.read(chunk):
                missing.discard(letter.id)
                if size_bytes > _CHUNK_BYTES:
                    yield part
                    part, size_bytes = Part(), 0
                try:
                    part.made[letter.id] = self._made(letter, missing)
                except NotMade as error:
                    part.failed[letter.id] = str(error)
                else:
                    size_bytes += len(letter.value or b"")
                if monotonic_s() > until_s:
                    yield None
                    until_s = monotonic_s() + _BIT_S
            part.failed.update(dict.fromkeys(missing, "it is not there any more"))
            part.chosen = len(chunk)
            yield part

    def _chunks(self) -> Iterator[tuple[Sequence[LetterId], int]]:
        """Of one partition each, with how many before it were done already."""
        most = CHUNK if self._rates.records_per_s is None else max(1, min(CHUNK, int(self._rates.records_per_s)))
        chunk: list[LetterId] = []
        given = done_before = 0
        for letter in _merged(self._plan.ids, sorted(self._plan.duplicates)):
            if self._is_done(letter):
                done_before += 1
                continue
            canary_ends = self._canary is not None and given + len(chunk) == self._rates.canary
            if chunk and (len(chunk) >= most or chunk[0].partition != letter.partition or canary_ends):
                yield chunk, done_before
                given += len(chunk)
                chunk, done_before = [], 0
            chunk.append(letter)
        yield chunk, done_before

    def _is_done(self, letter: LetterId) -> bool:
        """Whether this operation has done it, as far as the view knows; what it does not is left alone later."""
        said = self._around.letters.said(letter) if self._resumed else None
        return said is not None and said.op_id == self.operation.id

    def _made(self, letter: DeadRecord, missing: Collection[LetterId]) -> Made:
        now_ms = self._around.clock.wall_ms()
        of = self._plan.duplicates.get(letter.id)  # which comes before it
        if of is not None and of in missing:
            raise NotMade(_of_none(of))
        if of is not None:
            return self._maker.duplicate(letter, of, now_ms)
        sends = self._plan.request.action in SENDING  # then it does not matter what was said before, and asking costs
        return self._maker.make(letter, now_ms, before=None if sends else self._around.letters.said(letter.id))

    # What ships.

    def _to_ship(self, part: Part) -> Mapping[LetterId, Made]:
        """What is left of a part without duplicates of letters that could not be shipped; it is counted meanwhile."""
        self.operation = replace(self.operation, done=self.operation.done + part.done_before)
        self._failed(part.failed)
        alone = {
            letter: _of_none(of)
            for letter in part.made
            if self._failed_firsts and (of := self._plan.duplicates.get(letter)) in self._failed_firsts
        }
        self._failed(alone)
        return {letter: one for letter, one in part.made.items() if letter not in alone} if alone else part.made

    def _ship(self, made: Mapping[LetterId, Made]) -> None:
        copies = {letter: one.copy for letter, one in made.items() if one.copy is not None}
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

    def _keep_pace(self, made: Mapping[LetterId, Made]) -> None:
        size_bytes = sum(len(one.copy.value or b"") for one in made.values() if one.copy is not None)
        for pace, amount in ((self._records, len(made)), (self._bytes, size_bytes)):
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


def _of_none(of: LetterId) -> str:
    return f"{of}, which it is a duplicate of, was left alone"


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
