"""What the calls of a slice bring about: rows of a sink, what caches are told of them, and claims that are done.

A handler with any of these is through with a record when the record's effects are durable, in this order and no
other: the claims for all its slice, the calls, the rows of the slice in one write, the caches, the claims are done,
the records count as handled. If caches came before rows, they would have what the sink may never get; if records came
before caches, a crash would leave old values that nothing drops any more; if claims came before rows, a crash would
lose them. On the thread of the instance, but for an async handler: on threads that wait for it.
"""

from __future__ import annotations

import threading
from asyncio import get_running_loop
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from streamworker.daemon_threads import DaemonThreads
from streamworker.errors import FatalError, RowFailed
from streamworker.interfaces import Row, Written
from streamworker.options import Delivery
from streamworker.record import origin_of
from streamworker.tally import GONE, Tally
from streamworker.work import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker.declaration import Declaration
    from streamworker.handler import Context
    from streamworker.interfaces import TransactionalSink
    from streamworker.record import Record
    from streamworker.tally import Behind, Intent
    from streamworker.work import Slice

_NOTHING = Written()


def effects_of(declaration: Declaration, context: Context) -> Effects | None:
    """Those of an instance that is open; None if what it brings about is its own business.

    Raises ConfigurationError for a sink that cannot work. Called on the thread that is to conclude its slices.
    """
    return Effects(declaration, context) if _has_any(declaration, context) else None


def shared_effects_of(declaration: Declaration, context: Context) -> SharedEffects | None:
    """The same for an async handler."""
    return SharedEffects(declaration, context) if _has_any(declaration, context) else None


def _has_any(declaration: Declaration, context: Context) -> bool:
    return declaration.sink is not None or context.claimer is not None or context.has_caches


class Effects:
    """Those of one instance, with a writer of its own; for a transaction, rows are only made into records."""

    def __init__(self, declaration: Declaration, context: Context) -> None:
        self._is_batch = declaration.batch is not None
        self._claimer = context.claimer
        self._writer = self._encode = None
        sink = declaration.sink
        if declaration.delivery is Delivery.TRANSACTIONAL:
            self._encode = cast("TransactionalSink", sink).encoder(context)
        elif sink is not None:
            self._writer = sink.writer(context)

    def close(self) -> None:
        """Let go of the connection."""
        if self._writer is not None:
            self._writer.close()

    def begin(self, slice_: Slice, record: Callable[[int], Record[object]]) -> Tally:
        """What the calls for `slice_` are to be noted in, once its records are claimed; `record` decodes one."""
        tally = Tally(is_batch=self._is_batch)
        if self._claimer is not None:
            tally.claimed = self._claimer.claim(slice_, record)
        slice_.tally = tally
        return tally

    def conclude(self, slice_: Slice, failure: Failure | None) -> Failure | None:
        """Make durable what the calls brought about; the slice is done as far as that goes. Returns why no further."""
        tally, slice_.tally = slice_.tally, None
        assert tally is not None
        if slice_.given_up or slice_.ownership.ended:
            tally.done = 0  # its records go again, or have gone; an effect that comes late would be out of order
        changes = _changes(tally)
        guards = {cache: cache.guards(list(intents)) for cache, intents in changes.items()}
        written, failure = self._written(slice_, tally, failure)
        for cache, intents in changes.items():
            _tell(cache, intents, guards[cache], tally, written)
        if tally.claimed is not None:
            rejected = {index for index, _ in tally.rejected}
            tally.claimed.conclude([index for index in range(tally.done) if index not in rejected])
        slice_.rejected += [one for one in tally.rejected if one[0] < tally.done]
        slice_.done = tally.done
        return failure

    def _written(self, slice_: Slice, tally: Tally, failure: Failure | None) -> tuple[Written, Failure | None]:
        """Write the rows; what is done goes back to what is durable. The indices are those of records."""
        rejected = {index for index, _ in tally.rejected}
        indices = [index for index in range(tally.done) if index not in rejected]
        if (self._writer is None and self._encode is None) or not indices:
            return _NOTHING, failure
        rows = [_row(slice_, tally, index) for index in indices]
        if self._encode is not None:
            return _NOTHING, self._encoded(slice_, tally, indices, rows, failure)
        assert self._writer is not None
        assert slice_.place is not None
        # What is rejected may still be open for long, until its dead letter is acknowledged.
        open_ = {*slice_.place.open_below, *(slice_.messages[index].offset() for index in rejected)}
        place = replace(slice_.place, open_below=sorted(one for one in open_ if one < rows[-1].offset))
        try:
            written = self._writer.write(place, rows)
        except RowFailed as failed:
            tally.done = indices[failed.index]
            before = failed.written if isinstance(failed.written, Written) else _NOTHING
            return _of_records(before, indices), Failure(tally.done, failed.cause)
        except BaseException as error:  # noqa: BLE001 - where an exception of the sink's becomes an ending
            tally.done = 0 if self._is_batch else indices[0]
            return _NOTHING, Failure(None if self._is_batch else tally.done, error)
        return _of_records(written, indices), failure

    def _encoded(
        self, slice_: Slice, tally: Tally, indices: Sequence[int], rows: Sequence[Row], failure: Failure | None
    ) -> Failure | None:
        """Make the records that a transaction is to have, instead of writing them."""
        assert self._encode is not None
        slice_.outputs = {}
        for index, row in zip(indices, rows, strict=True):
            try:
                slice_.outputs[index] = self._encode(row)
            except BaseException as error:  # noqa: BLE001 - where an exception of the sink's becomes an ending
                tally.done = index
                return Failure(index, error)
        return failure


class SharedEffects:
    """Those of an async handler: as many threads conclude slices as there may be, each with a writer of its own.

    Made on the event loop, which is where all of it is called.
    """

    def __init__(self, declaration: Declaration, context: Context) -> None:
        self._declaration = declaration
        self._context = context
        self._own = threading.local()
        self._all = [Effects(declaration, context)]  # the first shows at once whether a sink can work at all
        self._threads = DaemonThreads(declaration.concurrency, name=f"sink-{declaration.name}")

    async def begin(self, slice_: Slice, record: Callable[[int], Record[object]]) -> Tally:
        """As of `Effects`, awaited."""
        if self._context.claimer is None:
            return self._all[0].begin(slice_, record)
        return await get_running_loop().run_in_executor(self._threads, self._all[0].begin, slice_, record)

    async def conclude(self, slice_: Slice, failure: Failure | None) -> Failure | None:
        """As of `Effects`, awaited. What is being written goes on when the task is cancelled."""
        return await get_running_loop().run_in_executor(self._threads, self._conclude, slice_, failure)

    def close(self) -> None:
        """Wait for what is being written, and let go of all connections."""
        self._threads.shutdown()
        for one in self._all:
            one.close()

    def _conclude(self, slice_: Slice, failure: Failure | None) -> Failure | None:
        effects: Effects | None = getattr(self._own, "effects", None)
        if effects is None:
            effects = self._own.effects = Effects(self._declaration, self._context)
            self._all.append(effects)
        return effects.conclude(slice_, failure)


def entries(returned: object, indices: Sequence[int]) -> Mapping[int, object]:
    """What a batch handler returned for each record, by its index; raises FatalError for other than one entry each."""
    if returned is None:
        return {}
    if not isinstance(returned, list | tuple) or len(returned) != len(indices):
        found = f"{len(returned)} entries" if isinstance(returned, list | tuple) else f"a {type(returned).__name__}"
        raise FatalError(
            f"handle returned {found} for a batch of {len(indices)}; return a list with an entry for each, or None"
        )
    return dict(zip(indices, returned, strict=True))


def _row(slice_: Slice, tally: Tally, index: int) -> Row:
    message, returned = slice_.messages[index], tally.returned.get(index)
    values = () if returned is None else tuple(returned) if isinstance(returned, list | tuple) else (returned,)
    claim_id = None if tally.claimed is None else tally.claimed.id_of(index)
    return Row(message.offset(), origin_of(message), message.key(), values, claim_id)


def _of_records(written: Written, indices: Sequence[int]) -> Written:
    """The same with indices of records instead of rows."""
    return Written(
        repeated=[indices[row] for row in written.repeated],
        superseded=[indices[row] for row in written.superseded],
        versions={indices[row]: version for row, version in written.versions.items()},
    )


def _changes(tally: Tally) -> Mapping[Behind, Mapping[object, Intent]]:
    """By cache and key, what was meant last by records whose calls succeeded."""
    found: dict[Behind, dict[object, Intent]] = defaultdict(dict)
    for intent in tally.handled():
        found[intent.cache][intent.key] = intent
    return found


def _tell(cache: Behind, intents: Mapping[object, Intent], guards: object, tally: Tally, written: Written) -> None:
    """Tell a cache of what became durable; what is not certain is dropped from it, as is what was durable before."""
    uncertain = {*written.repeated, *written.superseded}
    put: dict[object, tuple[object, int | None]] = {}
    gone: list[object] = []
    for key, intent in intents.items():
        index = intent.record
        is_durable = tally.done > 0 if index is None else index < tally.done and index not in uncertain
        if intent.value is GONE or not is_durable or (index is None and uncertain):
            gone.append(key)
        else:
            put[key] = intent.value, None if index is None else written.versions.get(index)
    if put:
        cache.written(put, guards)
    if gone:
        cache.gone(gone)
