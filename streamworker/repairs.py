"""Functions of the application that mend the values of dead letters, known by name.

Decided here: how a function is marked, and that nothing else makes one: no text of a page or a record is ever run. Any
thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from streamworker.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType

RepairFunction = Callable[..., object]
F = TypeVar("F", bound=RepairFunction)
R = TypeVar("R")

_NAME = "__streamworker_repair__"


def repair(name: str) -> Callable[[F], F]:
    """Make a function known as a repair called `name`: decoded value in, mended value out, None to leave it as it is.

    Its value is what JSON or the handler's serde makes of the bytes. It is called for one value at a time, on the
    thread that makes the plan; what it raises is shown as the reason why this letter is left alone.
    """

    def mark(function: F) -> F:
        setattr(function, _NAME, name)
        return function

    return mark


def repairs_in(modules: Iterable[ModuleType]) -> Mapping[str, RepairFunction]:
    """The repairs that `modules` have, by name; raises ConfigurationError for a name that two have."""
    found: dict[str, RepairFunction] = {}
    for module in modules:
        for one in vars(module).values():
            name = getattr(one, _NAME, None)
            if isinstance(name, str) and found.setdefault(name, one) is not one:
                raise ConfigurationError(f"two repairs are called {name!r}")
    return found


def repair_called(name: str, known: Mapping[str, R]) -> R:
    """Raises ConfigurationError if there is none of that name."""
    if name in known:
        return known[name]
    told = nearest(name, known) if known else "none is known: name their module with --repairs"
    raise ConfigurationError(f"there is no repair {name!r}; {told}")
