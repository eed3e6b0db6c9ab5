"""What must hold of any run of a virtual world, found from its effects and the broker's commits alone."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from itertools import accumulate
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamworker.testing.virtual_worker import VirtualWorld


def violations(
    world: VirtualWorld, topic: str, dead_letters: str | None = None, *, ordered: bool = True
) -> Iterator[str]:
    """Every broken promise, as a sentence; none when all hold."""
    yield from _lost(world, topic, dead_letters)
    yield from _unsafe_commits(world, topic, dead_letters)
    if ordered:
        yield from _disorder(world, dead_letters)


def _letters(world: VirtualWorld, dead_letters: str | None) -> set[tuple[str, int, int]]:
    found = set()
    for letter in world.broker.records(dead_letters) if dead_letters else ():
        headers = dict(letter.headers() or ())
        found.add(
            (
                headers["sw-origin-topic"].decode(),
                int(headers["sw-origin-partition"]),
                int(headers["sw-origin-offset"]),
            )
        )
    return found


def _lost(world: VirtualWorld, topic: str, dead_letters: str | None) -> Iterator[str]:
    ended = {(*effect.partition, effect.offset) for effect in world.effects if effect.ok} | _letters(world, dead_letters)
    for record in world.broker.records(topic):
        if (record.topic(), record.partition(), record.offset()) not in ended:
            yield f"lost: {record.topic()}[{record.partition()}]@{record.offset()}"


def _unsafe_commits(world: VirtualWorld, topic: str, dead_letters: str | None) -> Iterator[str]:
    """A commit past a record that had not ended when it was sent. (Letters have no time here: they count as early.)"""
    letters = _letters(world, dead_letters)
    first_ok: dict[tuple[str, int, int], float] = {}
    for effect in world.effects:
        if effect.ok:
            first_ok.setdefault((*effect.partition, effect.offset), effect.at_s)
    for key in world.broker.partitions(topic):
        offsets = [record.offset() for record in world.broker.records(topic) if record.partition() == key.partition]
        ended = [0.0 if (*key, offset) in letters else first_ok.get((*key, offset), inf) for offset in offsets]
        all_ended = [-inf, *accumulate(ended, max)]
        for commit in world.broker.commits:
            below = bisect_left(offsets, commit.mark.offset)
            if commit.partition == key and all_ended[below] > commit.at_s:
                yield f"unsafe: {commit}, but something below ended at {all_ended[below]}"


def _disorder(world: VirtualWorld, dead_letters: str | None) -> Iterator[str]:
    """The first successes of a key's records go up, and so do the calls of a key within a member's ownership."""
    letters = _letters(world, dead_letters)
    latest: defaultdict[tuple[str, int, bytes | None], int] = defaultdict(lambda: -1)
    seen: set[tuple[str, int, int]] = set()
    for effect in world.effects:
        where = (*effect.partition, effect.offset)
        if not effect.ok or where in seen or effect.key is None:
            continue
        seen.add(where)
        key = (*effect.partition, effect.key)
        if effect.offset < latest[key] and where not in letters:
            yield f"disorder: {where} of {effect.key!r} first succeeded after {latest[key]}"
        latest[key] = max(latest[key], effect.offset)
