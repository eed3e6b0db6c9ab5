"""What all scenarios share: the number of simulated seeds, and a jitter that is the same in each run."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEEDS = 300


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=_SEEDS, help="simulated runs in tests/scenarios")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        # A default again, because the option is not known where pytest starts from a folder above.
        metafunc.parametrize("seed", range(1, 1 + metafunc.config.getoption("seeds", _SEEDS)))


@pytest.fixture(autouse=True)
def _steady_jitter() -> Iterator[None]:
    """Back-offs draw from the `random` module: the same ones each time, and nobody else's draws are touched."""
    state = random.getstate()
    random.seed(0)
    yield
    random.setstate(state)
