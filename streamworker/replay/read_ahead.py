"""Makes what comes next while something else is waited for, bit by bit, on the thread that waits.

A thread beside it would hand each object from one core to the other and share the interpreter's lock with who waits:
that took a fifth more of the processor's time, and was not faster. Decides nothing. One thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """One after the other of what `begin` is given, and the next one while there is time; none while it is `held`."""

    def __init__(self) -> None:
        self.held = False
        self._items: Iterator[T | None] | None = None
        self._ready: T | None = None
        self._error: Exception | None = None

    def begin(self, items: Iterator[T | None]) -> None:
        """Each None of them is the end of a bit of work."""
        self._items = items

    def step(self) -> bool:
        """Do a bit of work; false if there was none to be done. Raises nothing: whose turn it is has no part in it."""
        if self.held or self._ready is not None or self._items is None:
            return False
        try:
            self._ready = next(self._items)
        except StopIteration:
            self._items = None
        except Exception as error:  # noqa: BLE001 - it is for who asks for the next one
            self._items, self._error = None, error
        return True

    def take(self) -> T | None:
        """The next one, or None at the end; raises what making it has raised."""
        while self.step():
            pass
        if self._error is not None:
            raise self._error
        ready, self._ready = self._ready, None
        return ready
