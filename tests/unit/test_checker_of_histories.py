"""The checker alone, on histories made by a generator: each planted anomaly is found, and clean ones are clean."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest
from confluent_kafka import KafkaError
from fleet.checker import Anomaly, check
from fleet.history import Commit, Effect, History, Letter, Owned, Seen, Sent, Struck
from fleet.workload import told
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from sizes import SOAK

if TYPE_CHECKING:
    from collections.abc import Callable

PARTITIONS, KEYS = 2, 3
HANDOVER_S, KILL_S = 100.0, 200.0


def clean_history(draw: random.Random) -> History:
    """Worker 1 has all, gives partition 1 to worker 2 in order, and is killed; worker 2 repeats a little."""
    sent = list(_sent(draw, draw.randrange(20, 80)))
    poison = {one.uid for one in sent if draw.random() < 0.1}
    owned = [Owned(1, "assigned", "in", partition, 0.0) for partition in range(PARTITIONS)]
    owned += [Owned(1, "revoked", "in", 1, HANDOVER_S), Owned(2, "assigned", "in", 1, HANDOVER_S + 1)]
    owned += [Owned(2, "assigned", "in", 0, KILL_S + 5)]
    effects: list[Effect] = []
    letters: list[Letter] = []
    commits: list[Commit] = []
    seen: list[Seen] = []
    for partition in range(PARTITIONS):
        of = [one for one in sent if one.partition == partition]
        half = len(of) // 2
        again = draw.randrange(half + 1) if partition == 0 else half  # the second owner begins at the committed offset
        times = [(1, 1.0, of[:half]), (2, HANDOVER_S + 2 if partition else KILL_S + 6, of[again:])]
        for pid, begins_s, records in times:
            for number, one in enumerate(records):
                at_s = begins_s + 0.5 * number
                if one.uid in poison:
                    letters.append(Letter(pid, "in", partition, one.offset, at_s))
                else:
                    effects.append(_effect(pid, one, at_s))
        for pid, offset, at_s in ((1, again, 90.0), (2, len(of), KILL_S + 90)):
            commits.append(Commit(pid, "in", partition, offset, at_s))
            seen.append(Seen(partition, offset, at_s + 0.1))
    return History(
        sent=sent,
        effects=effects,
        owned=owned,
        commits=commits,
        letters=letters,
        seen=sorted(seen, key=lambda one: one.at_s),
        struck=[Struck("kill", 1, KILL_S)],
        ends={partition: sum(one.partition == partition for one in sent) for partition in range(PARTITIONS)},
        copies=[(one.partition, one.offset) for one in letters],
    )


def _sent(draw: random.Random, count: int) -> list[Sent]:
    ends, numbers = [0] * PARTITIONS, [0] * KEYS * PARTITIONS
    records = []
    for number in range(count):
        key = draw.randrange(KEYS * PARTITIONS)
        partition = key % PARTITIONS
        records.append(Sent(f"u{number}", f"k{key}", numbers[key], f"d{number}", "ok", partition, ends[partition], 0.0))
        ends[partition] += 1
        numbers[key] += 1
    return records


def _effect(pid: int, one: Sent, at_s: float) -> Effect:
    return Effect(pid, "in", one.partition, one.offset, one.key, one.uid, one.digest, 1, at_s, at_s + 0.1)


def without(history: History, place: tuple[int, int]) -> History:
    """Nothing happened to this record."""
    return replace(
        history,
        effects=[one for one in history.effects if (one.partition, one.offset) != place],
        letters=[one for one in history.letters if (one.partition, one.offset) != place],
        copies=[one for one in history.copies if one != place],
    )


def _lose_one(history: History, draw: random.Random) -> History:
    one = draw.choice(history.sent)
    return without(history, (one.partition, one.offset))


def _call_a_stranger(history: History, draw: random.Random) -> History:
    one = msgspec.structs.replace(draw.choice(history.effects), uid="nobody sent this")
    return replace(history, effects=[*history.effects, one])


def _call_what_failed(history: History, draw: random.Random) -> History:
    called = {one.uid for one in history.effects}
    victim = draw.choice([one for one in history.sent if one.uid in called])
    failed = msgspec.structs.replace(victim, outcome="fail", partition=-1, offset=-1)
    return replace(history, sent=[failed if one is victim else one for one in history.sent])


def _change_a_value(history: History, draw: random.Random) -> History:
    victim = draw.choice(history.effects)
    changed = msgspec.structs.replace(victim, digest="other")
    return replace(history, effects=[changed if one is victim else one for one in history.effects])


def _commit_early(history: History, draw: random.Random) -> History:
    first = min(history.effects, key=lambda one: one.ended_s)
    early = Commit(1, "in", first.partition, first.offset + 1, first.ended_s - 0.01)
    return replace(history, commits=[*history.commits, early])


def _see_an_early_commit(history: History, draw: random.Random) -> History:
    first = min(history.effects, key=lambda one: one.ended_s)
    return replace(history, seen=[Seen(first.partition, first.offset + 1, first.began_s - 0.01), *history.seen])


def _go_back(history: History, draw: random.Random) -> History:
    victim = draw.choice([one for one in history.seen if one.offset > 0])
    back = Seen(victim.partition, victim.offset - 1, victim.at_s + 0.01)
    rest = [again for one in history.seen for again in ((one, back, one) if one is victim else (one,))]
    return replace(history, seen=rest)


def _commit_past_the_end(history: History, draw: random.Random) -> History:
    partition = draw.randrange(PARTITIONS)
    return replace(
        history, commits=[*history.commits, Commit(2, "in", partition, history.ends[partition] + 1, KILL_S + 95)]
    )


def _call_an_earlier_one_again(history: History, draw: random.Random) -> History:
    """Within the last ownership of a partition, the first record once more."""
    of = [one for one in history.effects if one.pid == 2]
    last = max(of, key=lambda one: one.began_s)
    first = next(one for one in of if one.key == last.key)
    again = msgspec.structs.replace(first, began_s=last.ended_s + 1, ended_s=last.ended_s + 1.1)
    return replace(history, effects=[*history.effects, again])


def _leave_one_out(history: History, draw: random.Random) -> History:
    """In the middle of a key's calls by one owner, a record whose only call comes at the very end."""
    calls = [one for one in history.effects if one.pid == 2 and _called_once(history, one)]
    middle = next(
        one
        for one in calls
        if any(other.key == one.key and other.offset > one.offset for other in history.effects if other.pid == 2)
        and any(other.key == one.key and other.offset < one.offset for other in history.effects if other.pid == 2)
    )
    late = msgspec.structs.replace(middle, began_s=KILL_S + 80, ended_s=KILL_S + 80.1)
    return replace(history, effects=[late if one is middle else one for one in history.effects])


def _called_once(history: History, effect: Effect) -> bool:
    return sum((one.partition, one.offset) == (effect.partition, effect.offset) for one in history.effects) == 1


def _overlap(history: History, draw: random.Random) -> History:
    victim = draw.choice([one for one in history.effects if one.key is not None])
    twin = msgspec.structs.replace(victim, began_s=victim.began_s + 0.05, ended_s=victim.ended_s + 0.05)
    return replace(history, effects=[*history.effects, twin])


def _call_without_owning(history: History, draw: random.Random) -> History:
    victim = draw.choice([one for one in history.effects if one.pid == 2])
    stranger = msgspec.structs.replace(victim, pid=3)
    return replace(history, effects=[stranger if one is victim else one for one in history.effects])


def _lose_a_letter(history: History, draw: random.Random) -> History:
    one = draw.choice(history.sent)
    return replace(history, letters=[*history.letters, Letter(2, "in", one.partition, one.offset + 1000, 1.0)])


def _repeat_without_fault(history: History, draw: random.Random) -> History:
    victim = min(history.effects, key=lambda one: one.began_s)
    again = msgspec.structs.replace(victim, began_s=victim.ended_s, ended_s=victim.ended_s + 0.1)
    return replace(history, effects=[*history.effects, again])


def _leave_the_end_open(history: History, draw: random.Random) -> History:
    partition = history.seen[-1].partition
    return replace(history, seen=[one for one in history.seen if one.partition != partition])


PLANTS: dict[str, tuple[Anomaly, Callable[[History, random.Random], History]]] = {
    "a record that is lost": (Anomaly.LOST, _lose_one),
    "a call for a record of nobody's": (Anomaly.PHANTOM, _call_a_stranger),
    "a call for a record that is not in the log": (Anomaly.PHANTOM, _call_what_failed),
    "another value": (Anomaly.WRONG, _change_a_value),
    "a commit sent before its records ended": (Anomaly.UNSAFE_COMMIT, _commit_early),
    "a commit seen before its records ended": (Anomaly.UNSAFE_COMMIT, _see_an_early_commit),
    "an offset that goes back": (Anomaly.COMMIT_REGRESS, _go_back),
    "an offset past the end": (Anomaly.COMMIT_PAST_END, _commit_past_the_end),
    "a key that goes back": (Anomaly.EPOCH_ORDER, _call_an_earlier_one_again),
    "a key that leaves one out": (Anomaly.EPOCH_SKIP, _leave_one_out),
    "a key whose first calls are out of order": (Anomaly.FIRST_ORDER, _leave_one_out),
    "two calls of a key at once": (Anomaly.KEY_OVERLAP, _overlap),
    "a call without an ownership": (Anomaly.FOREIGN_EFFECT, _call_without_owning),
    "a letter that is not there": (Anomaly.LETTER_MISSING, _lose_a_letter),
    "a repeat before any fault": (Anomaly.UNEXPLAINED_REPEAT, _repeat_without_fault),
    "a partition that is not finished": (Anomaly.UNFINISHED, _leave_the_end_open),
}


@settings(max_examples=60 * SOAK)
@given(seed=st.integers(0, 2**32))
def test_a_clean_history_is_clean(seed: int) -> None:
    verdict = check(clean_history(random.Random(seed)))

    assert verdict.broken() == []
    assert verdict.takeover_s == [5.0]


@pytest.mark.parametrize("plant", PLANTS)
@settings(max_examples=60 * SOAK)
@given(seed=st.integers(0, 2**32))
def test_a_planted_anomaly_is_found(plant: str, seed: int) -> None:
    anomaly, change = PLANTS[plant]
    draw = random.Random(seed)
    history = clean_history(draw)
    try:
        broken = change(history, draw)
    except (StopIteration, IndexError, ValueError):
        reject()  # too small a history for this one

    assert check(broken).anomalies.get(anomaly)


def test_every_anomaly_is_planted() -> None:
    assert {anomaly for anomaly, _ in PLANTS.values()} == set(Anomaly)


class Report:
    """What a producer says of a record."""

    def __init__(self, partition: int | None, offset: int | None) -> None:
        self._place = partition, offset

    def partition(self) -> int | None:
        return self._place[0]

    def offset(self) -> int | None:
        return self._place[1]


@pytest.mark.parametrize(
    ("error", "report", "expected"),
    [
        (None, Report(1, 7), ("ok", 1, 7)),
        (None, Report(0, 0), ("ok", 0, 0)),
        (None, Report(1, None), ("info", -1, -1)),
        (KafkaError(KafkaError._MSG_TIMED_OUT), Report(1, None), ("info", -1, -1)),
    ],
)
def test_a_record_whose_offset_nobody_tells_may_be_anywhere(
    error: KafkaError | None, report: Report, expected: tuple[str, int, int]
) -> None:
    assert told(error, report) == expected  # type: ignore[arg-type]  # all that is asked of a message here
