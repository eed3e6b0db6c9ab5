"""What must hold of any run of a virtual world, found from its effects and the broker's commits alone."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from typing import TYPE_CHECKING

from streamworker import Ending, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from streamworker.testing.virtual_worker import VirtualWorld

    Place = tuple[TopicPartition, int]


def violations(
    world: VirtualWorld, topic: str, dead_letters: str | None = None, *, ordered: bool = True, batches: bool = False
) -> Iterator[str]:
    """Every broken promise, as a sentence; none when all hold.

    `batches` says that one call may have had several records: then a failed call says nothing of their order.
    """
    letters = _letters(world, dead_letters)
    yield from _lost(world, topic, letters)
    yield from _unsafe_commits(world, topic, letters)
    if ordered:
        yield from _disorder(world, topic, letters, only_successes=batches)


def _letters(world: VirtualWorld, dead_letters: str | None) -> Mapping[Place, float]:
    """Where the dead letters come from, and when the broker had the first copy of each."""
    found: dict[Place, float] = {}
    for letter in world.broker.records(dead_letters) if dead_letters else ():
        source = (dict(letter.headers() or ())["sw-id"] or b"").decode()
        _group, topic, partition, offset = source.split("/")
        found.setdefault((TopicPartition(topic, int(partition)), int(offset)), letter.appended_s)
    return found


def _lost(world: VirtualWorld, topic: str, letters: Mapping[Place, float]) -> Iterator[str]:
    ended = {(effect.partition, effect.offset) for effect in world.effects if effect.ok} | letters.keys()
    for key in world.broker.partitions(topic):
        for offset in _offsets(world, key):
            if (key, offset) not in ended:
                yield f"lost: {key}@{offset}"


def _unsafe_commits(world: VirtualWorld, topic: str, letters: Mapping[Place, float]) -> Iterator[str]:
    """A commit past a record that had not ended when the broker took it."""
    ended_s = dict(letters)
    for effect in world.effects:
        if effect.ok:
            place = (effect.partition, effect.offset)
            ended_s[place] = min(ended_s.get(place, inf), effect.at_s)
    for key in world.broker.partitions(topic):
        offsets = _offsets(world, key)
        all_ended_s = [-inf, *accumulate((ended_s.get((key, offset), inf) for offset in offsets), max)]
        for commit in world.broker.commits:
            if commit.partition != key:
                continue
            below = bisect_left(offsets, commit.mark.offset)
            if all_ended_s[below] > commit.at_s:
                yield f"unsafe: {commit}, but something below ended at {all_ended_s[below]}"
            if commit.mark.offset > world.broker.end(key):
                yield f"unsafe: {commit} is past the end {world.broker.end(key)}"


@dataclass(slots=True)
class _Line:
    """The records of one key; those before number `ended` have ended."""

    offsets: list[int]
    ended: int = 0


def _disorder(
    world: VirtualWorld, topic: str, letters: Mapping[Place, float], *, only_successes: bool
) -> Iterator[str]:
    """No call for a record of a key while an earlier one of that key has never ended.

    Given up records are left out: the later ones of their key may go on before the dead letter is there.
    """
    given_up = set(letters) | {
        (partition, offset)
        for story in world.stories
        for partition, offset, _, _, ending in story.failures
        if ending is Ending.DEAD_LETTERED
    }
    lines = _lines(world, topic, given_up)
    succeeded: set[Place] = set()
    for effect in world.effects:
        if effect.key is None or (only_successes and not effect.ok):
            continue
        line = lines[effect.partition, effect.key]
        while line.ended < len(line.offsets) and (effect.partition, line.offsets[line.ended]) in succeeded:
            line.ended += 1
        if line.ended < len(line.offsets) and effect.offset > line.offsets[line.ended]:
            yield f"disorder: {effect} while {line.offsets[line.ended]} of its key waited"
        if effect.ok:
            succeeded.add((effect.partition, effect.offset))


def _lines(world: VirtualWorld, topic: str, left_out: set[Place]) -> Mapping[tuple[TopicPartition, bytes], _Line]:
    lines: defaultdict[tuple[TopicPartition, bytes], _Line] = defaultdict(lambda: _Line([]))
    for record in world.broker.records(topic):
        key, at = record.key(), TopicPartition(record.topic(), record.partition())
        if key is not None and (at, record.offset()) not in left_out:
            lines[at, key].offsets.append(record.offset())
    return lines


def _offsets(world: VirtualWorld, key: TopicPartition) -> list[int]:
    return [record.offset() for record in world.broker.records(key.topic) if record.partition() == key.partition]
