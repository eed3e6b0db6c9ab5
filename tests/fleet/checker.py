"""Finds every broken promise in the history of a run. A pure function: no client, no clock, no file.

A record *ends* when a call of a handler for it ended well or its dead letter was acknowledged. What a fault
allows (a stopped process that goes on after others took over) is for the test to leave out, by name.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fleet.history import Effect, History, Owned, Sent

    Place = tuple[int, int]  # partition, offset
    Found = Iterator[tuple["Anomaly", str]]

# A pool thread looks whether it may go on just before each call, and the end of the ownership is noted just after it.
_SLACK_S = 0.1
_WITNESSES = 20


class Anomaly(enum.Enum):
    """What can be wrong with a run."""

    LOST = "a record in the log that never ended"
    PHANTOM = "a call for a record that nobody sent"
    WRONG = "a call with another value, key or place than was sent"
    UNSAFE_COMMIT = "an offset committed while something below it had not ended"
    COMMIT_REGRESS = "a group's offset that went back"
    COMMIT_PAST_END = "an offset committed beyond the log's end"
    EPOCH_ORDER = "calls of a key that go back within an ownership"
    EPOCH_SKIP = "calls of a key that leave out a record within an ownership"
    FIRST_ORDER = "a call of a key before an earlier record of it had been called"
    KEY_OVERLAP = "two calls of one key at once"
    FOREIGN_EFFECT = "a call by a worker that does not own the partition"
    LETTER_MISSING = "an acknowledged dead letter that is not in its topic"
    UNEXPLAINED_REPEAT = "a record handled again with no fault before it"
    UNFINISHED = "a partition that was not committed to its end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found, with up to 20 witnesses of each kind, and figures of the run."""

    anomalies: Mapping[Anomaly, Sequence[str]] = field(default_factory=dict)
    records: int = 0
    repeats: int = 0
    repeats_by_fault: Mapping[str, int] = field(default_factory=dict)
    most_calls: int = 0
    takeover_s: Sequence[float] = ()

    def figures(self) -> dict[str, object]:
        """What a table says of the run."""
        figures: dict[str, object] = {"records": self.records, "repeats": self.repeats}
        for anomaly in (Anomaly.LOST, Anomaly.UNSAFE_COMMIT, Anomaly.FIRST_ORDER):
            figures[anomaly.name.lower()] = len(self.anomalies.get(anomaly, ()))
        if self.takeover_s:
            figures["takeover_s_max"] = round(max(self.takeover_s), 1)
        return figures

    def broken(self, *allowed: Anomaly) -> list[str]:
        """All that was found, as sentences; nothing of what is `allowed`."""
        return [
            f"{anomaly.name.lower()}: {witness}"
            for anomaly, witnesses in self.anomalies.items()
            if anomaly not in allowed
            for witness in witnesses
        ]


def check(history: History) -> Verdict:
    """Judge a run that was left to come to rest."""
    run = _Run(history)
    found: dict[Anomaly, list[str]] = {}
    for look in (
        _records_and_calls,
        _commits,
        _order_within_ownerships,
        _order_over_the_run,
        _overlaps,
        _dead_letters,
        _repeats_without_fault,
        _rest,
    ):
        for anomaly, witness in look(run):
            found.setdefault(anomaly, []).append(witness)
    calls = Counter((effect.partition, effect.offset) for effect in history.effects)
    return Verdict(
        anomalies={anomaly: witnesses[:_WITNESSES] for anomaly, witnesses in found.items()},
        records=len(run.in_log),
        repeats=sum(calls.values()) - len(calls),
        repeats_by_fault=Counter(run.fault_before(effect.began_s) or "none" for effect in run.repeated()),
        most_calls=max(calls.values(), default=0),
        takeover_s=list(run.takeovers_s()),
    )


class _Run:
    """A history with what all looks need."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.by_uid = {sent.uid: sent for sent in history.sent}
        self.in_log: dict[Place, Sent] = {
            (sent.partition, sent.offset): sent for sent in history.sent if sent.outcome == "ok"
        }
        self.effects = sorted(history.effects, key=lambda effect: effect.began_s)
        self.copied = set(history.copies)
        self.given_up = self.copied | {(letter.partition, letter.offset) for letter in history.letters}
        self.ended_s: dict[Place, float] = {}
        for place, at_s in [((one.partition, one.offset), one.ended_s) for one in history.effects] + [
            ((one.partition, one.offset), one.at_s) for one in history.letters
        ]:
            self.ended_s[place] = min(at_s, self.ended_s.get(place, inf))
        self.ownerships = _ownerships(history.owned)
        self._struck_s = sorted(struck.at_s for struck in history.struck)
        self._struck = sorted(history.struck, key=lambda struck: struck.at_s)

    def ownership(self, effect: Effect) -> tuple[int, int, float] | None:
        """(pid, partition, since when) of the ownership that a call belongs to."""
        for began_s, ended_s in reversed(self.ownerships.get((effect.pid, effect.partition), [])):
            if began_s <= effect.began_s <= ended_s + _SLACK_S:
                return effect.pid, effect.partition, began_s
        return None

    def repeated(self) -> Iterator[Effect]:
        """All calls but the first of each record."""
        called: set[Place] = set()
        for effect in self.effects:
            place = (effect.partition, effect.offset)
            if place in called:
                yield effect
            called.add(place)

    def fault_before(self, at_s: float) -> str | None:
        """The fault that came last before a time."""
        number = bisect_right(self._struck_s, at_s)
        return self._struck[number - 1].what if number else None

    def takeovers_s(self) -> Iterator[float]:
        """For each killed worker, how long until the last of its partitions had another owner, if all got one."""
        for struck in self.history.struck:
            if struck.what != "kill":
                continue
            waits_s = [
                min((one.at_s for one in self.history.owned if _takes_over(one, partition, struck.at_s)), default=inf)
                - struck.at_s
                for (pid, partition), spans in self.ownerships.items()
                if pid == struck.pid and any(began_s <= struck.at_s < ended_s for began_s, ended_s in spans)
            ]
            if waits_s and max(waits_s) < inf:
                yield max(waits_s)


def _takes_over(one: Owned, partition: int, after_s: float) -> bool:
    return one.what == "assigned" and one.partition == partition and one.at_s > after_s


def _ownerships(owned: Sequence[Owned]) -> dict[tuple[int, int], list[tuple[float, float]]]:
    """When each worker had each partition, by (pid, partition)."""
    spans: defaultdict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for one in sorted(owned, key=lambda one: one.at_s):
        of = spans[one.pid, one.partition]
        if one.what == "assigned":
            if of and of[-1][1] == inf:  # given anew, as a broker does that has forgotten
                of[-1] = (of[-1][0], one.at_s)
            of.append((one.at_s, inf))
        elif of:
            of[-1] = (of[-1][0], one.at_s)
    return spans


def _records_and_calls(run: _Run) -> Found:
    for place, sent in run.in_log.items():
        if place not in run.ended_s and place not in run.copied:
            yield Anomaly.LOST, f"{sent.uid} at {place[0]}@{place[1]}"
    for effect in run.effects:
        sent_as = run.by_uid.get(effect.uid or "")
        if sent_as is None or sent_as.outcome == "fail":
            yield Anomaly.PHANTOM, f"{effect}"
        elif not _is_as_sent(effect, sent_as):
            yield Anomaly.WRONG, f"{effect}, sent as {sent_as}"


def _is_as_sent(effect: Effect, sent: Sent) -> bool:
    elsewhere = sent.outcome == "ok" and (sent.partition, sent.offset) != (effect.partition, effect.offset)
    return (sent.digest, sent.key) == (effect.digest, effect.key) and not elsewhere


def _commits(run: _Run) -> Found:
    offsets: defaultdict[int, list[int]] = defaultdict(list)
    for partition, offset in sorted(run.in_log):
        offsets[partition].append(offset)
    # For each number of records from the front, when all of them had ended.
    all_ended_s = {
        partition: [-inf, *accumulate((run.ended_s.get((partition, one), inf) for one in of), max)]
        for partition, of in offsets.items()
    }
    observed = [(one.partition, one.offset, one.at_s, f"{one}") for one in (*run.history.commits, *run.history.seen)]
    for partition, offset, at_s, text in observed:
        below = bisect_left(offsets[partition], offset)
        if all_ended_s.get(partition, [-inf])[below] > at_s:
            yield Anomaly.UNSAFE_COMMIT, f"{text}, all below ended at {all_ended_s[partition][below]:.3f}"
        if offset > run.history.ends.get(partition, 0):
            yield Anomaly.COMMIT_PAST_END, f"{text}, the end is {run.history.ends.get(partition, 0)}"
    for partition in offsets:
        seen = [one for one in run.history.seen if one.partition == partition]
        for before, after in pairwise(seen):
            if after.offset < before.offset:
                yield Anomaly.COMMIT_REGRESS, f"{before}, then {after}"


def _order_within_ownerships(run: _Run) -> Found:
    lines = _lines(run)
    calls: defaultdict[tuple[tuple[int, int, float], str], list[Effect]] = defaultdict(list)
    for effect in run.effects:
        ownership = run.ownership(effect)
        if ownership is None:
            yield Anomaly.FOREIGN_EFFECT, f"{effect}"
        elif effect.key is not None:
            calls[ownership, effect.key].append(effect)
    for (_, key), effects in calls.items():
        for before, after in pairwise(effects):
            if after.offset <= before.offset:
                yield Anomaly.EPOCH_ORDER, f"{before}, then {after}"
            else:
                line = lines.get((before.partition, key), ())
                left_out = line[bisect_right(line, before.offset) : bisect_left(line, after.offset)]
                for offset in left_out:
                    if run.ended_s.get((before.partition, offset), inf) > after.began_s:
                        yield Anomaly.EPOCH_SKIP, f"{before}, then {after}, without {offset}"


def _lines(run: _Run) -> Mapping[tuple[int, str], list[int]]:
    """The offsets of each key, without those that were given up: later ones may go on before the letter is there."""
    lines: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for partition, offset in sorted(run.in_log):
        key = run.in_log[partition, offset].key
        if key is not None and (partition, offset) not in run.given_up:
            lines[partition, key].append(offset)
    return lines


def _order_over_the_run(run: _Run) -> Found:
    """By the producer's numbers, so that it does not lean on offsets."""
    waiting: defaultdict[str, list[int]] = defaultdict(list)
    for place, sent in run.in_log.items():
        if sent.key is not None and place not in run.given_up:
            waiting[sent.key].append(sent.seq)
    for numbers in waiting.values():
        numbers.sort(reverse=True)
    called: set[tuple[str, int]] = set()
    for effect in run.effects:
        sent_as = run.by_uid.get(effect.uid or "")
        if effect.key is None or sent_as is None:
            continue
        numbers = waiting[effect.key]
        while numbers and (effect.key, numbers[-1]) in called:
            numbers.pop()
        if numbers and numbers[-1] < sent_as.seq:
            yield Anomaly.FIRST_ORDER, f"{effect} (number {sent_as.seq}) before number {numbers[-1]}"
        called.add((effect.key, sent_as.seq))


def _overlaps(run: _Run) -> Found:
    latest: dict[tuple[int, str], Effect] = {}
    for effect in run.effects:
        if effect.key is None:
            continue
        before = latest.get((effect.partition, effect.key))
        if before is not None and effect.began_s < before.ended_s:
            yield Anomaly.KEY_OVERLAP, f"{before} and {effect}"
        if before is None or effect.ended_s > before.ended_s:
            latest[effect.partition, effect.key] = effect


def _dead_letters(run: _Run) -> Found:
    for letter in run.history.letters:
        if (letter.partition, letter.offset) not in run.copied:
            yield Anomaly.LETTER_MISSING, f"{letter}"


def _repeats_without_fault(run: _Run) -> Found:
    for effect in run.repeated():
        if run.fault_before(effect.began_s) is None:
            yield Anomaly.UNEXPLAINED_REPEAT, f"{effect}"


def _rest(run: _Run) -> Found:
    last = {one.partition: one.offset for one in run.history.seen}
    for partition, end in run.history.ends.items():
        if end and last.get(partition, 0) != end:
            yield Anomaly.UNFINISHED, f"{partition} at {last.get(partition, 0)} of {end}"
