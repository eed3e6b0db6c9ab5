"""The fence that a process holds: proof, at the database, that no later holder has written.

A lock alone cannot keep a holder from writing that was halted and does not know that its time has run out. So each
holder has a number, which is higher than that of the one before, and a token of its own, and the database takes the
writes of the highest only. Of two holders to whom a failover gave the same number the first to write wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamworker.interfaces import SinkContext


class HeldFence:
    """The number and the token that the writes of a handler carry. Any thread."""

    def __init__(self) -> None:
        self.held: tuple[int, str] | None = None  # replaced as a whole

    def hold(self, number: int, token: str) -> None:
        """Write as the holder with this number, until `release` or the next `hold`."""
        self.held = (number, token)

    def release(self) -> None:
        """Write no more."""
        self.held = None


def held_fence(context: SinkContext, name: str) -> HeldFence:
    """The fence called `name` of the handler in this process, for whoever holds the lock to set."""
    return context.shared(f"sw-fence:{name}", HeldFence)
