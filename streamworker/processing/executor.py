"""What a pool thread does with a slice: decode, call the handler, say how far it came.

The only place where an exception of user code becomes a value. Runs on the pool thread that has the
slice in hand; touches nothing but the slice, the handler instance and the serdes.
"""

from __future__ import annotations

import inspect
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from functools import partial, reduce
from itertools import repeat
from typing import TYPE_CHECKING, TypeVar, cast

from streamworker.errors import (
    BatchFailed,
    CallCancelled,
    ClaimBusy,
    DecodeError,
    DependencyUnavailable,
    FatalError,
    PoisonError,
)
from streamworker.options import Action, OnExhausted
from streamworker.processing.effects import entries
from streamworker.record import Record, Records
from streamworker.tally import Tally
from streamworker.work import Failure, InHand, Slice, SliceOutcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamworker.clock import Clock
    from streamworker.declaration import Declaration
    from streamworker.handler import AnyHandler
    from streamworker.interfaces import AnySerde
    from streamworker.processing.effects import Effects, SharedEffects
    from streamworker.tally import ClaimedSlice

Call = Callable[[object], object]
AsyncCall = Callable[[object], Awaitable[object]]
DecodeAll = Callable[[list[bytes], str], Sequence[object]]
S = TypeVar("S", bound=Slice)

# Values of larger slices are decoded one by one, so that few of them are there at once.
_AT_ONCE_BYTES = 1024 * 1024


def guarded_call(declaration: Declaration, handler: AnyHandler) -> Call:
    """The handler's method inside its middleware, the first of which is outermost."""
    call: Call = handler.handle  # type: ignore[assignment]  # takes what its kind is given
    if declaration.sink is None or not declaration.middleware:
        return _wrapped(declaration, call)
    return (_insisting_async if declaration.is_async else _insisting)(declaration, call)


def _wrapped(declaration: Declaration, call: Call) -> Call:
    return reduce(lambda inner, wrap: wrap(inner), reversed(declaration.middleware), call)


def _insisting(declaration: Declaration, call: Call) -> Call:
    """The same, which sees to it that no middleware keeps what is to be written."""
    gave = ContextVar("gave", default=False)

    def inner(argument: object) -> object:
        returned = call(argument)
        gave.set(returned is not None)
        return returned

    wrapped = _wrapped(declaration, inner)

    def outer(argument: object) -> object:
        gave.set(False)
        returned = wrapped(argument)
        _refuse_kept(returned, gave)
        return returned

    return outer


def _insisting_async(declaration: Declaration, call: Call) -> Call:
    """The same of an async handler."""
    gave = ContextVar("gave", default=False)

    async def inner(argument: object) -> object:
        returned = await cast("AsyncCall", call)(argument)
        gave.set(returned is not None)
        return returned

    wrapped = cast("AsyncCall", _wrapped(declaration, inner))

    async def outer(argument: object) -> object:
        gave.set(False)
        returned = await wrapped(argument)
        _refuse_kept(returned, gave)
        return returned

    return outer


def _refuse_kept(returned: object, gave: ContextVar[bool]) -> None:
    if returned is None and gave.get():
        raise FatalError(
            "a middleware returned None where handle had returned something for the sink, which would never be written;"
            " let it return what it wraps, or [] to write nothing"
        )


class SliceRunner:
    """Runs slices of one handler; one per process, used by all its pool threads, which it tells what is `in_hand`."""

    def __init__(
        self, declaration: Declaration, *, clock: Clock, max_record_bytes: int, in_hand: InHand | None = None
    ) -> None:
        self._declaration = declaration
        self._in_hand = in_hand or InHand("in_hand", default=None)
        self._value = _needed(declaration.value)
        self._key = _needed(declaration.key)
        self._decode_all: DecodeAll | None = getattr(self._value, "decode_all", None)
        self._monotonic_s = clock.monotonic_s
        self._max_record_bytes = max_record_bytes
        # Else an undecodable record stands still or takes its key along, and none of its slice may overtake it.
        self._goes_on = _dead_letters_all_undecodable(declaration)
        self._passed_over = _passed_over(declaration) if self._goes_on else ()
        self._run = self._one_by_one if declaration.batch is None else self._as_batch

    def run(self, call: Call, slice_: S, effects: Effects | None = None) -> SliceOutcome[S]:
        """Handle the slice's records in order until the first failure."""
        began_s = self._monotonic_s()
        if began_s >= slice_.ownership.lease.until_s:
            return SliceOutcome(slice_, 0.0)
        slice_.started_s = began_s
        slice_.called = (0, began_s)
        in_hand = self._in_hand
        in_hand.set(slice_)
        if effects is None:
            failure = self._run(call, slice_, slice_)
        else:
            tally = effects.begin(slice_, partial(self._decoded, slice_))
            failure = self._run(_unless_claimed(call, tally, self._declaration), slice_, tally)
            failure = effects.conclude(slice_, failure)
        in_hand.set(None)
        slice_.started_s = None
        try:
            return SliceOutcome(slice_, self._monotonic_s() - began_s, failure)
        finally:
            del failure  # its traceback has this frame: they would wait for the collector, and the records with them

    def _one_by_one(self, call: Call, slice_: Slice, tally: Slice | Tally) -> Failure | None:
        """What comes of each call is noted in `tally`: the slice itself, or what holds it back."""
        ownership = slice_.ownership
        for index, record in enumerate(self._ready(slice_)):
            if (slice_.watched or ownership.closing) and not self._may_start(slice_, index):
                return None
            try:
                returned = call(self._decoded(slice_, index) if record is None else record)
                if returned is not None:
                    _take(returned, tally, index)
            except _Undecodable as undecodable:
                if not self._goes_on:
                    return Failure(index, undecodable.reason)
                tally.rejected.append((index, undecodable.reason))
            except BaseException as error:  # noqa: BLE001 - where user code's exception becomes an ending
                if not isinstance(error, self._passed_over):
                    return Failure(index, error)
                tally.rejected.append((index, error))
            tally.done = index + 1
        return None

    def _ready(self, slice_: Slice) -> Iterable[Record[object] | None]:
        """The records, in C as far as it goes; None for those that are to be decoded one by one."""
        messages, attempts = slice_.messages, repeat(slice_.attempt)
        if self._key is None and not self._any_oversize(slice_):
            if self._value is None:
                return map(Record, messages, attempts)
            if self._fits_at_once(slice_):
                try:
                    values = self._values_at_once(self._value, slice_)
                except DependencyUnavailable:
                    values = None
                if values is not None:
                    return map(Record, messages, attempts, values)
        return repeat(None, len(messages))

    def _may_start(self, slice_: Slice, index: int) -> bool:
        """Whether the call for the record at `index` may begin; notes that it does."""
        ownership, now_s = slice_.ownership, self._monotonic_s()
        slice_.called = (index, now_s)
        if slice_.given_up or (ownership.closing and slice_.messages[index].offset() >= ownership.closes_at):
            return False
        return now_s < ownership.lease.until_s

    def _as_batch(self, call: Call, slice_: Slice, tally: Slice | Tally) -> Failure | None:
        if slice_.ownership.closing and not self._may_start(slice_, 0):
            return None
        try:
            good, records, stop = _claimed(slice_, tally, *self._records(slice_, tally))
            failure = self._call_for_all(call, records, tally, good) if records else None
        except BaseException as error:  # noqa: BLE001 - where user code's exception becomes an ending
            return Failure(None, error)
        return _came_to(slice_, tally, failure or stop)

    @staticmethod
    def _call_for_all(
        call: Call, records: Records[object], tally: Slice | Tally, good: Sequence[int]
    ) -> Failure | None:
        """Where it names a record whose rows would be missing, it is called again for those before."""
        failure = None
        try:
            returned = call(records)
        except BatchFailed as failed:
            failure = _named_failure(failed, good)
            if not isinstance(tally, Tally) or not failure.index or not failed.index:
                return failure
            good = good[: failed.index]
            returned = call(records[: failed.index])
        if returned is not None:
            _take_all(returned, tally, good)
        return failure

    def _records(self, slice_: Slice, tally: Slice | Tally) -> tuple[Sequence[int], Records[object], Failure | None]:
        """Indices of the records that can be handled, these, and what must not be overtaken."""
        messages, all_of_them = slice_.messages, range(len(slice_.messages))
        if self._key is None and not self._any_oversize(slice_):
            if self._value is None:
                return all_of_them, Records(messages, None, None, slice_.attempt), None
            if (values := self._values_at_once(self._value, slice_)) is not None:
                return all_of_them, Records(messages, values, None, slice_.attempt), None
        good, found, keys, stop = self._decode_each(slice_, tally)
        return good, Records([messages[index] for index in good], found, keys, slice_.attempt), stop

    def _values_at_once(self, serde: AnySerde, slice_: Slice) -> Sequence[object] | None:
        """All values, None if one cannot be decoded; a step in Python for each would cost several times as much."""
        topic, found = slice_.ownership.topic, [message.value() for message in slice_.messages]
        try:
            if self._decode_all is not None and all(found):
                return self._decode_all(cast("list[bytes]", found), topic)
            return [None if data is None else serde.decode(data, topic) for data in found]
        except DependencyUnavailable:
            raise
        except Exception:  # noqa: BLE001 - which record it is, and why, is found out one by one
            return None

    def _decode_each(
        self, slice_: Slice, tally: Slice | Tally
    ) -> tuple[list[int], list[object], list[object], Failure | None]:
        """Indices of the records that can be handled, their values and keys, and what must not be overtaken."""
        good: list[int] = []
        values: list[object] = []
        keys: list[object] = []
        for index in range(len(slice_.messages)):
            try:
                record = self._decoded(slice_, index)
            except _Undecodable as undecodable:
                if not self._goes_on:
                    return good, values, keys, Failure(index, undecodable.reason)
                tally.rejected.append((index, undecodable.reason))
                continue
            good.append(index)
            values.append(record.value)
            keys.append(record.key)
        return good, values, keys, None

    def _any_oversize(self, slice_: Slice) -> bool:
        return self._largest_bytes(slice_) > self._max_record_bytes

    def _fits_at_once(self, slice_: Slice) -> bool:
        """By the largest value that its partition ever had, and only if that says no by their sum."""
        messages = slice_.messages
        fits = self._largest_bytes(slice_) * len(messages) <= _AT_ONCE_BYTES
        return fits or sum(map(len, messages)) <= _AT_ONCE_BYTES

    @staticmethod
    def _largest_bytes(slice_: Slice) -> int:
        known_bytes = slice_.largest_bytes
        return max(map(len, slice_.messages)) if known_bytes is None else known_bytes

    def _decoded(self, slice_: Slice, index: int) -> Record[object]:
        message, topic = slice_.messages[index], slice_.ownership.topic
        if len(message) > self._max_record_bytes:
            found = f"value of {len(message)} bytes, expected at most {self._max_record_bytes} (kafka.max_record_bytes)"
            raise _Undecodable(DecodeError(found))
        key = _decode(self._key, message.key(), topic, "key")
        return Record(message, slice_.attempt, _decode(self._value, message.value(), topic, "value"), key)


class AsyncSliceRunner(SliceRunner):
    """The same for an `async def` handler, on its event loop; a call that is cancelled has failed."""

    async def run_async(self, call: AsyncCall, slice_: S, effects: SharedEffects | None = None) -> SliceOutcome[S]:
        """Handle the slice's records in order until the first failure."""
        began_s = self._monotonic_s()
        if began_s >= slice_.ownership.lease.until_s:
            return SliceOutcome(slice_, 0.0)
        slice_.started_s = began_s
        slice_.called = (0, began_s)
        self._in_hand.set(slice_)
        handle = self._each if self._declaration.batch is None else self._all
        if effects is None:
            failure = await handle(call, slice_, slice_)
        else:
            tally = await effects.begin(slice_, partial(self._decoded, slice_))
            failure = await handle(_awaited_unless_claimed(call, tally, self._declaration), slice_, tally)
            failure = await effects.conclude(slice_, failure)
        slice_.started_s = None
        try:
            return SliceOutcome(slice_, self._monotonic_s() - began_s, failure)
        finally:
            del failure  # as in `run`

    async def _each(self, call: AsyncCall, slice_: Slice, tally: Slice | Tally) -> Failure | None:
        ownership = slice_.ownership
        for index, record in enumerate(self._ready(slice_)):
            if (slice_.watched or ownership.closing) and not self._may_start(slice_, index):
                return None
            try:
                returned = await call(self._decoded(slice_, index) if record is None else record)
                if returned is not None:
                    _take(returned, tally, index)
            except _Undecodable as undecodable:
                if not self._goes_on:
                    return Failure(index, undecodable.reason)
                tally.rejected.append((index, undecodable.reason))
            except BaseException as error:  # noqa: BLE001 - where user code's exception becomes an ending
                if not isinstance(error, self._passed_over):
                    return Failure(index, _told(error))
                tally.rejected.append((index, error))
            tally.done = index + 1
        return None

    async def _all(self, call: AsyncCall, slice_: Slice, tally: Slice | Tally) -> Failure | None:
        if slice_.ownership.closing and not self._may_start(slice_, 0):
            return None
        try:
            good, records, stop = _claimed(slice_, tally, *self._records(slice_, tally))
            failure = await self._await_all(call, records, tally, good) if records else None
        except BaseException as error:  # noqa: BLE001 - where user code's exception becomes an ending
            return Failure(None, _told(error))
        return _came_to(slice_, tally, failure or stop)

    @staticmethod
    async def _await_all(
        call: AsyncCall, records: Records[object], tally: Slice | Tally, good: Sequence[int]
    ) -> Failure | None:
        """As `_call_for_all`."""
        failure = None
        try:
            returned = await call(records)
        except BatchFailed as failed:
            failure = _named_failure(failed, good)
            if not isinstance(tally, Tally) or not failure.index or not failed.index:
                return failure
            good = good[: failed.index]
            returned = await call(records[: failed.index])
        if returned is not None:
            _take_all(returned, tally, good)
        return failure


def _named_failure(failed: BatchFailed, good: Sequence[int]) -> Failure:
    if not isinstance(failed.index, int) or not 0 <= failed.index < len(good):
        wrong = IndexError(f"BatchFailed: expected an index within the batch of {len(good)}, got {failed.index}")
        wrong.__cause__ = failed.cause
        return Failure(None, wrong)
    if failed.cause.__traceback__ is None:  # made and not raised: then it is where it was named
        failed.cause.with_traceback(failed.__traceback__)
    return Failure(good[failed.index], failed.cause)


def _came_to(slice_: Slice, tally: Slice | Tally, failure: Failure | None) -> Failure | None:
    """Note how far a batch came."""
    if failure is None:
        tally.done = len(slice_.messages)
    elif failure.index is not None:
        tally.done = failure.index
    return failure


def _unless_claimed(call: Call, tally: Tally, declaration: Declaration) -> Call:
    """The call for single records, but for those that are claimed by others or done."""
    claimed = tally.claimed
    if claimed is None or declaration.batch is not None:
        return call

    def checked(record: object) -> object:
        return None if _is_handled(claimed, tally.done) else call(record)

    return checked


def _awaited_unless_claimed(call: AsyncCall, tally: Tally, declaration: Declaration) -> AsyncCall:
    """The same of an async handler."""
    claimed = tally.claimed
    if claimed is None or declaration.batch is not None:
        return call

    async def checked(record: object) -> object:
        return None if _is_handled(claimed, tally.done) else await call(record)

    return checked


def _is_handled(claimed: ClaimedSlice, index: int) -> bool:
    """Whether a record is done already; raises for one that may not be handled now."""
    refused = claimed.refused
    if refused is not None and index >= refused[0]:
        # What follows one that was refused and passed over comes again at once.
        raise refused[1] if index == refused[0] else ClaimBusy("what follows a record that was refused", 0.0)
    return index in claimed.handled


def _claimed(
    slice_: Slice, tally: Slice | Tally, good: Sequence[int], records: Records[object], stop: Failure | None
) -> tuple[Sequence[int], Records[object], Failure | None]:
    """What `_records` has found, without the records of a batch that are claimed by others or done."""
    claimed = tally.claimed if isinstance(tally, Tally) else None
    if claimed is None or (claimed.refused is None and not claimed.handled):
        return good, records, stop
    if claimed.refused is not None and (stop is None or stop.index is None or claimed.refused[0] < stop.index):
        stop = Failure(*claimed.refused)
    end = len(slice_.messages) if stop is None or stop.index is None else stop.index
    kept = [at for at, index in enumerate(good) if index < end and index not in claimed.handled]
    return [good[at] for at in kept], records.only(kept), stop


def _take(returned: object, tally: Slice | Tally, index: int) -> None:
    """Keep what a call returned for the sink, if there is one."""
    _refuse_unrun(returned)
    if isinstance(tally, Tally):
        tally.returned[index] = returned


def _take_all(returned: object, tally: Slice | Tally, indices: Sequence[int]) -> None:
    """The same of a batch."""
    _refuse_unrun(returned)
    if isinstance(tally, Tally):
        tally.returned.update(entries(returned, indices))


def _refuse_unrun(returned: object) -> None:
    """Nobody would run what the call returned, and the record would count as handled."""
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise FatalError("handle returned an awaitable that nobody waits for; make it, and what wraps it, async def")
    if inspect.isgenerator(returned) or inspect.isasyncgen(returned):
        raise FatalError("handle returned a generator, and nothing of it has run; let it, and what wraps it, return")


def _told(error: BaseException) -> BaseException:
    """`error` in our own words, if a call was cancelled: that says nothing against the process."""
    if not isinstance(error, CancelledError):
        return error
    told = CallCancelled("the call was cancelled")
    told.__cause__ = error
    return told


class _Undecodable(Exception):
    """Carries why, past the handler's own exceptions."""

    def __init__(self, reason: DecodeError) -> None:
        super().__init__(reason)
        self.reason = reason


def _dead_letters_all_undecodable(declaration: Declaration) -> bool:
    """Whether an undecodable record holds no other up: no rule can make it stand still, and none follows it."""
    dead_letter = declaration.dead_letter
    if dead_letter is None or dead_letter.keys_topic is not None:
        return False
    blocks = OnExhausted(dead_letter.on_exhausted) is OnExhausted.BLOCK
    stays = (Action.STOP, Action.RETRY) if blocks else (Action.STOP,)
    return not any(rule.action in stays for rule in declaration.rules)


def _passed_over(declaration: Declaration) -> tuple[type[BaseException], ...]:
    """Errors that say all there is to know of a record, so that the slice goes on as past an undecodable one.

    None where a rule, a breaker or a limit has to see each failed call before the next is made.
    """
    judges = (
        declaration.rules,
        declaration.breakers,
        declaration.reads,
        declaration.adaptive,
        declaration.retry_budget,
    )
    return () if any(judges) else (PoisonError,)


def _needed(serde: AnySerde | None) -> AnySerde | None:
    """None for a serde that would hand the bytes through."""
    return None if serde is None or getattr(serde, "passthrough", False) else serde


def _decode(serde: AnySerde | None, data: bytes | None, topic: str, part: str) -> object:
    if serde is None or data is None:
        return data
    try:
        return serde.decode(data, topic)
    except DependencyUnavailable:
        raise
    except DecodeError as error:
        error.part = part
        raise _Undecodable(error) from error
    except Exception as error:  # whatever a serde of the user's raises, the bytes are at fault
        found = DecodeError(f"{type(error).__name__}: {error}", part=part)
        found.__cause__ = error
        raise _Undecodable(found) from error
