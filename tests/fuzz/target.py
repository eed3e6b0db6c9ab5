"""A fuzz target: what is fed to a piece of streamworker, and what must hold whatever it is.

Inputs are Python literals (bytes, text, numbers, None, and tuples, lists and dicts of them), so that one form of text
serves as seed, as record of what is being tried, and as replay of a finding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

import hypothesis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hypothesis.strategies import SearchStrategy

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """`check` raises for an input that shows a bug. `seeds` are inputs that are tried first."""

    name: str
    inputs: SearchStrategy[object]
    check: Callable[[object], None]
    seeds: Sequence[object]


def target(name: str, inputs: SearchStrategy[T], check: Callable[[T], None], seeds: Sequence[T] = ()) -> Target:
    """A target whose inputs and check fit; afterwards nobody needs to know of which type they are."""
    return Target(name, cast("SearchStrategy[object]", inputs), cast("Callable[[object], None]", check), seeds)


def explore(target: Target, limits: hypothesis.settings, chance: int | None = None) -> None:
    """Check the seeds and then random inputs; `chance` seeds the generator.

    Raises what `check` raises for the smallest failing input that is found. That input is checked last.
    """

    def check(case: object) -> None:
        target.check(case)

    test = hypothesis.given(target.inputs)(check)
    for case in target.seeds:
        test = hypothesis.example(case)(test)
    if chance is not None:
        test = hypothesis.seed(chance)(test)
    limits(test)()
