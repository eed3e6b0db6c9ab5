"""What the calls of a slice have come to while none of it counts: what they bring about is not durable yet.

Made and emptied in `processing/effects.py`; caches note in it what a record means to do to them. Standard library only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence


class Behind(Protocol):
    """A cache, to those who write to what it stands in front of. The thread that has the slice in hand.

    None of it raises: what cannot be told to the cache's server is made up for by the cache.
    """

    def guards(self, keys: Sequence[object]) -> object:
        """Take this before the write: what is put into the cache afterwards must not be older than what came since."""

    def written(self, changes: Mapping[object, tuple[object, int | None]], guards: object) -> None:
        """By key, the value that was written, and the version that it got; None if nobody counts them."""

    def gone(self, keys: Sequence[object]) -> None:
        """What is cached of these may be old."""


class ClaimedSlice(Protocol):
    """What was answered to the claims for the records of one slice, by their indices. The thread that asked."""

    @property
    def handled(self) -> Collection[int]:
        """Those whose effect is there, so that they are not handled again."""

    @property
    def refused(self) -> tuple[int, BaseException] | None:
        """The first that may not be handled now, and why; none behind it is handled either."""

    def id_of(self, index: int) -> str | None:
        """By which a record was claimed; None if it was not."""

    def conclude(self, done: Collection[int]) -> None:
        """Note that these have their effect, and give up the others. Never raises."""


class _Gone:
    """Stands for no value in an intent that is to invalidate."""


GONE = _Gone()


class Intent(NamedTuple):
    """What a record, by its index in the slice, means to do to a cache; None is the whole batch.

    `value` is `GONE` to invalidate.
    """

    record: int | None
    cache: Behind
    key: object
    value: object


class Tally:
    """Of one slice; owned by whoever has it in hand.

    `done` and `rejected` are as of a slice: while a handler has one record at a time, `done` is the index of the one in
    its hands. `returned` is what calls returned that was not None, by the record's index. `claimed` is None where
    nothing is claimed.
    """

    __slots__ = ("claimed", "done", "intents", "is_batch", "rejected", "returned")

    def __init__(self, *, is_batch: bool) -> None:
        self.is_batch = is_batch
        self.done = 0
        self.rejected: list[tuple[int, BaseException]] = []
        self.returned: dict[int, object] = {}
        self.intents: list[Intent] = []
        self.claimed: ClaimedSlice | None = None

    def intend(self, cache: Behind, key: object, value: object) -> None:
        """Note what the record in the handler's hands means to do."""
        self.intents.append(Intent(None if self.is_batch else self.done, cache, key, value))

    def intended(self, cache: Behind, key: object) -> Intent | None:
        """What was meant last for `key`, by this record or one before it in the slice that was not rejected."""
        for one in reversed(self.intents):
            if one.cache is cache and one.key == key and not self._is_rejected(one):
                return one
        return None

    def handled(self) -> Iterator[Intent]:
        """What was meant by records whose calls succeeded, in order."""
        for one in self.intents:
            is_done = self.done > 0 if one.record is None else one.record < self.done
            if is_done and not self._is_rejected(one):
                yield one

    def _is_rejected(self, intent: Intent) -> bool:
        return any(index == intent.record for index, _ in self.rejected)
