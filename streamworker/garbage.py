"""When the interpreter looks for garbage that refers to itself.

Decided here: seldom, in a process that has thousands of records in hand. They are on their way and no garbage, and each
has headers, so that the interpreter's own choice, 700 new objects, walks through all of a fetch again and again.
Standard library only; the main thread.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_AFTER = 50_000  # new objects


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Meanwhile what is there already is not looked at, and what comes after so many new objects."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_AFTER, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
