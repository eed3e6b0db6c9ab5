"""Which keys are asked for, one after the other: seeded, so the same in each process. Keys are numbers.

`KEYS` of them and `requests` requests, ten for each key: all that is synthetic scales with the number of requests. The
real one is flights in the order of their file: for each its tail number and its route.
"""

from __future__ import annotations

import csv
import lzma
import random
from itertools import accumulate, count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

FLIGHTS = Path(__file__).parents[1] / "examples" / "flights" / "flights.csv.xz"
REQUESTS_PER_KEY = 10
_SEED = 20_260_101
_NEVER_AGAIN = 10**9  # keys from here on come once


def zipf(exponent: float, requests: int) -> Sequence[int]:
    """Always the same keys are popular."""
    keys = requests // REQUESTS_PER_KEY
    draw = random.Random(_SEED)
    weights = list(accumulate(1 / rank**exponent for rank in range(1, keys + 1)))
    return draw.choices(range(keys), cum_weights=weights, k=requests)


def with_scan(requests: int) -> Sequence[int]:
    """A third of the requests is for keys that come once, as from somebody who reads everything."""
    draw, once = random.Random(_SEED + 1), count(_NEVER_AGAIN)
    return [next(once) if draw.random() < 1 / 3 else key for key in zipf(1.0, requests)]


def shifting(requests: int) -> Sequence[int]:
    """What is popular changes ten times: each time the ranks move on by a twentieth of the keys."""
    keys = requests // REQUESTS_PER_KEY
    moves = max(requests // 10, 1)
    return [(key + number // moves * (keys // 20)) % keys for number, key in enumerate(zipf(1.0, requests))]


def bursty(requests: int) -> Sequence[int]:
    """An order's events: a key comes, comes again four times or so within a while, and then no more."""
    draw = random.Random(_SEED + 2)
    mean_lag = requests / REQUESTS_PER_KEY * 0.03
    keys: list[int] = []
    new = count()
    for _ in range(requests):
        lag = 1 + int(draw.expovariate(1 / mean_lag))
        keys.append(next(new) if draw.random() < 0.23 or lag > len(keys) else keys[-lag])
    return keys


def mixed(requests: int) -> Sequence[int]:
    """Half of bursts, three tenths of what is always popular, a fifth of what comes once."""
    draw = random.Random(_SEED + 3)
    bursts, popular, once = iter(bursty(requests)), iter(zipf(1.0, requests)), count(_NEVER_AGAIN)

    def one() -> int:
        chance = draw.random()
        if chance < 0.5:
            return -1 - next(bursts)  # no key of the popular ones
        return next(popular) if chance < 0.8 else next(once)

    return [one() for _ in range(requests)]


def loop(requests: int) -> Sequence[int]:
    """A fifth of the keys, over and over, as in a replay."""
    return [number % (requests // REQUESTS_PER_KEY // 5) for number in range(requests)]


def flights(_: int = 0) -> Sequence[int]:
    """Tail number and route of each flight."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in _names()]


def _names() -> Iterator[str]:
    with lzma.open(FLIGHTS, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield row["tailnum"]
            yield f"{row['origin']}-{row['dest']}"


# Several of a name are one row: their mean.
TRACES: Mapping[str, Sequence[Callable[[int], Sequence[int]]]] = {
    "zipf 0.9, 1, 1.1": [lambda requests, exponent=exponent: zipf(exponent, requests) for exponent in (0.9, 1.0, 1.1)],
    "zipf and a scan": [with_scan],
    "shifting": [shifting],
    "bursty": [bursty],
    "mixed": [mixed],
    "loop": [loop],
    "flights": [flights],
}
