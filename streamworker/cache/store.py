"""What the cache asks of the second level, whichever it is, and how long a call may spend there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


class StoreFailed(Exception):
    """The second level did not answer in time, or refused. What was asked for may have been done or not."""


@dataclass(slots=True)
class Budget:
    """Seconds that one call of the cache may still spend with the second level, over all round trips."""

    left_s: float


class Message(msgspec.Struct, frozen=True, array_like=True):
    """What one process tells the others: keys that have changed, with their versions; None says all."""

    origin: str  # of the cache that says it, and that passes over it
    changed: list[tuple[str, int]] | None  # version 0: not known


@dataclass(frozen=True, slots=True)
class Leases:
    """An answer for each key: its value, that the caller may fill it, or that somebody else is about to.

    A key in none of them could not be leased: the store takes no writes now, as one that is full.
    """

    found: Mapping[str, bytes]
    granted: Collection[str]
    refused: Collection[str]


class Store(Protocol):
    """The second level of one cache. Any thread; each method is one round trip, blocks for `timeout_s` at most.

    All raise StoreFailed, and nothing else. All that change something may be repeated: a second time changes nothing
    more. Keys come in groups of one of `parts`.

    A *lease* is leave to fill a key, and a write takes it away: what was read from the truth before the write cannot
    get in after it.
    """

    def parts(self, keys: Collection[str]) -> Sequence[Sequence[str]]:
        """The keys in groups that one round trip can serve."""

    def read(self, keys: Sequence[str], timeout_s: float) -> Mapping[str, bytes]:
        """What is there."""

    def lease(
        self, keys: Sequence[str], anyway: Collection[str], token: str, lease_s: float, timeout_s: float
    ) -> Leases:
        """Ask for leave to fill. Keys in `anyway` are leased though a value may be there."""

    def fill(self, values: Mapping[str, bytes], ttl_s: float, token: str, timeout_s: float) -> Collection[str]:
        """Set what is still leased under `token`; returns which it were. The leases end."""

    def release(self, keys: Sequence[str], token: str, timeout_s: float) -> None:
        """End leases under `token`, so that others need not wait for their end."""

    def write(
        self, values: Mapping[str, bytes], ttl_s: float, versions: Mapping[str, int], timeout_s: float
    ) -> Collection[str]:
        """Replace what is there and older; returns which it were. Ends all leases, and tells other processes.

        Where nothing is there nothing is set: its version would be forgotten, and a late writer's older value could
        come back. What is there without a version is deleted.
        """

    def claim(self, keys: Sequence[str], token: str, lease_s: float, timeout_s: float) -> None:
        """Take the leases away from whoever has them, before a write to the truth."""

    def write_claimed(
        self, values: Mapping[str, bytes], ttl_s: float, token: str, versions: Mapping[str, int], timeout_s: float
    ) -> Collection[str]:
        """Set what is still leased under `token`, and delete the others; returns the former. Tells other processes."""

    def invalidate(self, keys: Sequence[str], timeout_s: float) -> None:
        """Delete values and leases, and tell other processes."""

    def bump(self, timeout_s: float, *, unless_new: bool) -> None:
        """Make all values of the cache unreachable, and tell other processes.

        With `unless_new` only if nobody else has done so since this process looked last.
        """


class Leave(Protocol):
    """Leave to make a call."""

    def end(self, succeeded: int = 0, failed: int = 0, seconds: float = 0.0) -> None:
        """Say what became of it, once."""


class Gate(Protocol):
    """Says whether the second level is asked at all. Any thread, never blocks."""

    def acquire(self) -> Leave | None:
        """Leave to make one call now; None while it is away."""
