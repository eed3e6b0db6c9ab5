"""What must hold of any run of a virtual world, found from what was called and what the broker took.

A record has *ended* when a call for it was a success or the broker had its dead letter. A *line* is what must be in
order: the records of one key, or of one partition. Each check finds one kind of broken promise, and no other check
finds the same thing: a planted bug tells for each that it is needed.

What the workers report of themselves is not relied upon, but for which records they gave up.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby, pairwise
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING

from streamworker import Ending, Ordering, TopicPartition
from streamworker.dlq.key_notes import read_note
from streamworker.offsets import codec
from streamworker.testing.memory_broker import Tenure, TenureEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from streamworker.record import Message
    from streamworker.testing.memory_broker import CommitEntry, MemoryMessage
    from streamworker.testing.story import Effect, Turn
    from streamworker.testing.virtual_world import VirtualWorld

    Place = tuple[TopicPartition, int]
    Line = tuple[TopicPartition, bytes | None]


_LARGEST_BATCH = 500  # the default


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What was promised. None where the run does not say."""

    topic: str
    dead_letters: str | None = None
    keys: str | None = None  # the topic with the notes, if later records of a key follow its dead letter
    ordering: Ordering = Ordering.KEY
    attempts: int | None = None  # calls of one record in one ownership
    spared: frozenset[str] = frozenset({"DependencyUnavailable"})  # classes of errors that spend no attempt
    largest_batch: int = 0  # one that is taken apart spends one call more, and one for each time that it is halved
    max_uncommitted: int | None = None
    finish_s: float = 0.0  # what a rebalance gives to calls in progress
    drain_timeout_s: float = inf
    undecodable: bytes | None = None  # the value that no handler gets to see
    starts_late: bool = False  # what a group without offsets finds in the log is not for it
    calm: Callable[[float, float], bool] | None = None  # whether commits and dead letters worked between two times


def violations(
    world: VirtualWorld, topic: str, dead_letters: str | None = None, *, ordered: bool = True, batches: bool = False
) -> Iterator[str]:
    """Every broken promise of a scenario, as a sentence; none when all hold."""
    ordering = Ordering.KEY if ordered else Ordering.UNORDERED
    largest_batch = _LARGEST_BATCH if batches else 0
    return broken(world, Terms(topic=topic, dead_letters=dead_letters, ordering=ordering, largest_batch=largest_batch))


def broken(world: VirtualWorld, terms: Terms, *, deleted: Sequence[MemoryMessage] = ()) -> Iterator[str]:
    """Every broken promise as a sentence that begins with its kind; `deleted` records were handled before."""
    run = _Run(world, terms, deleted)
    for kind, look in CHECKS.items():
        for detail in look(run):
            yield f"{kind}: {detail}"


def given_up(world: VirtualWorld, terms: Terms) -> tuple[set[Place], set[Place]]:
    """Records whose letters the broker has, and all that were to have one."""
    run = _Run(world, terms, ())
    return set(run.letters_s), run.given_up


class _Run:
    """A run, sorted for the checks."""

    def __init__(self, world: VirtualWorld, terms: Terms, deleted: Sequence[MemoryMessage]) -> None:
        self.world = world
        self.terms = terms
        self.effects = world.effects
        self.partitions = world.broker.partitions(terms.topic)
        self.letters_s = _letters(world, terms.dead_letters)
        self._deleted = deleted

    def tenure(self, effect: Effect) -> Tenure:
        """The assignment that a call was made under."""
        return self.world.turns[effect.turn].tenure

    def line(self, partition: TopicPartition, key: bytes | None) -> Line | None:
        """The line that a record belongs to, None if it may be handled at any time."""
        if self.terms.ordering is Ordering.PARTITION:
            return partition, None
        return None if key is None or self.terms.ordering is Ordering.UNORDERED else (partition, key)

    @cached_property
    def log(self) -> Mapping[TopicPartition, Sequence[MemoryMessage]]:
        """All records that ever were, in offset order."""
        found: dict[TopicPartition, list[MemoryMessage]] = {key: [] for key in self.partitions}
        for message in (*self._deleted, *self.world.broker.records(self.terms.topic)):
            found[_of(message)].append(message)
        return found

    @cached_property
    def records(self) -> Mapping[TopicPartition, Sequence[MemoryMessage]]:
        """Those that are for the group."""
        called = {(effect.partition, effect.offset) for effect in self.effects}
        return {
            key: [one for one in messages if one.offset() >= self._first(key) or (key, one.offset()) in called]
            for key, messages in self.log.items()
        }

    def _first(self, key: TopicPartition) -> float:
        """The offset at which the group began with a partition."""
        if not self.terms.starts_late:
            return 0
        return self.commits[key][0].mark.offset if self.commits[key] else inf

    @cached_property
    def ended_s(self) -> Mapping[Place, float]:
        """When each record ended first."""
        ended_s = dict(self.letters_s)
        for effect in self.effects:
            if effect.ok:
                place = (effect.partition, effect.offset)
                ended_s[place] = min(ended_s.get(place, inf), effect.at_s)
        return ended_s

    @cached_property
    def given_up(self) -> set[Place]:
        """Records that went to the dead letters, or were to go there.

        One that cannot be decoded is, too: what follows it in its slice goes on before its letter is written.
        """
        given_up = set(self.letters_s)
        for partition, offset, ending in _failures(self):
            if ending in (Ending.DEAD_LETTERED, Ending.SKIPPED):
                given_up.add((partition, offset))
        if self.terms.dead_letters is not None:
            given_up |= {(key, one.offset()) for key, some in self.log.items() for one in some if self.undecodable(one)}
        return given_up

    def undecodable(self, message: Message) -> bool:
        """Whether no handler gets to see a record."""
        return self.terms.undecodable is not None and message.value() == self.terms.undecodable

    @cached_property
    def commits(self) -> Mapping[TopicPartition, Sequence[CommitEntry]]:
        """What the broker took, in its order."""
        found: dict[TopicPartition, list[CommitEntry]] = {key: [] for key in self.partitions}
        for commit in self.world.broker.commits:
            if commit.partition in found:
                found[commit.partition].append(commit)
        return found

    def parked(self, partition: TopicPartition, key: bytes | None) -> Sequence[tuple[int, float]]:
        """From which offsets on a key was parked, and when the broker had the notes."""
        return self._notes.get((partition, key), ())

    @cached_property
    def _notes(self) -> Mapping[Line, Sequence[tuple[int, float]]]:
        found: defaultdict[Line, list[tuple[int, float]]] = defaultdict(list)
        for record in self.world.broker.records(self.terms.keys) if self.terms.keys else ():
            note = read_note(record.key(), record.value())
            if note is not None and note.first is not None:
                found[note.parked.partition, note.parked.key].append((note.first, record.appended_s))
        return found

    @cached_property
    def calls(self) -> Sequence[Sequence[Effect]]:
        """The records of each call, in the order of the calls."""
        return [list(effects) for _, effects in groupby(self.effects, key=attrgetter("call"))]

    @cached_property
    def turns(self) -> Mapping[Tenure, Sequence[Turn]]:
        """What was handed over under each assignment."""
        found: defaultdict[Tenure, list[Turn]] = defaultdict(list)
        for turn in self.world.turns:
            found[turn.tenure].append(turn)
        return found

    @cached_property
    def repeated(self) -> Mapping[Tenure, set[int]]:
        """Offsets that were handled under an assignment and called again under a later one."""
        numbers = {tenure: number for number, tenure in enumerate(self.world.broker.tenures)}
        last: dict[Place, int] = {}
        for effect in self.effects:
            place = (effect.partition, effect.offset)
            last[place] = max(last.get(place, 0), numbers[self.tenure(effect)])
        found: defaultdict[Tenure, set[int]] = defaultdict(set)
        for effect in self.effects:
            tenure = self.tenure(effect)
            if effect.ok and numbers[tenure] < last[effect.partition, effect.offset]:
                found[tenure].add(effect.offset)
        return found


def _letters(world: VirtualWorld, dead_letters: str | None) -> Mapping[Place, float]:
    """Where the dead letters come from, and when the broker had the first copy of each."""
    found: dict[Place, float] = {}
    for letter in world.broker.records(dead_letters) if dead_letters else ():
        source = (dict(letter.headers() or ())["sw-id"] or b"").decode()
        _group, topic, partition, offset = source.split("/")
        place = (TopicPartition(topic, int(partition)), int(offset))
        found[place] = min(found.get(place, inf), letter.appended_s)
    return found


def _of(message: Message) -> TopicPartition:
    return TopicPartition(message.topic(), message.partition())


def _lost(run: _Run) -> Iterator[str]:
    """A record that was committed past and never ended."""
    for key, records in run.records.items():
        passed = max((commit.mark.offset for commit in run.commits[key]), default=0)
        for record in records:
            if record.offset() < passed and (key, record.offset()) not in run.ended_s:
                yield f"{key}@{record.offset()} was passed by a commit of {passed} and never ended"


def _early_commits(run: _Run) -> Iterator[str]:
    """A commit past a record, or beside which it says to be done, that ended only after the broker had taken it."""
    for key, records in run.records.items():
        offsets = [record.offset() for record in records]
        all_ended_s = [-inf, *accumulate((run.ended_s.get((key, offset), -inf) for offset in offsets), max)]
        for commit in run.commits[key]:
            below = bisect_left(offsets, commit.mark.offset)
            if all_ended_s[below] > commit.at_s:
                yield f"{commit}, but something below ended at {all_ended_s[below]}"
            for offset in _said_to_be_done(commit, offsets):
                if run.ended_s.get((key, offset), -inf) > commit.at_s:
                    yield f"{commit} has {offset} as done"


def _said_to_be_done(commit: CommitEntry, offsets: Sequence[int]) -> Iterator[int]:
    """Which of `offsets` are done by what is beside a commit."""
    read = codec.decode(commit.mark.metadata, commit.mark.offset)
    if read is not None and read.progress is not None:
        for first, last in read.progress.done:
            yield from offsets[bisect_left(offsets, first) : bisect_right(offsets, last)]


def _commits_past_the_end(run: _Run) -> Iterator[str]:
    for key, records in run.log.items():
        appended_s = [record.appended_s for record in records]
        for commit in run.commits[key]:
            there = bisect_right(appended_s, commit.at_s)
            end = records[there - 1].offset() + 1 if there else 0
            if commit.mark.offset > end:
                yield f"{commit}, but the log ended at {end}"


def _regress(run: _Run) -> Iterator[str]:
    """An offset of the group that went back though no operator moved it, and no client sent a commit again."""
    for key, commits in run.commits.items():
        moved_s = [move.at_s for move in run.world.broker.moves if move.partition == key]
        for before, after in pairwise(commits):
            excused = after.again or any(before.at_s <= at_s <= after.at_s for at_s in moved_s)
            if after.mark.offset < before.mark.offset and not excused:
                yield f"{after} after {before}"


@dataclass(slots=True)
class _Waiting:
    """The records of one line that ended or were given up are those before number `ended`."""

    offsets: list[int]
    ended: int = 0


def _disorder(run: _Run) -> Iterator[str]:
    """A call for a record while an earlier one of its line has never ended, over the whole run.

    Given up records are left out: the later ones of their key may go on before the dead letter is there.
    """
    lines = _lines(run)
    succeeded: set[Place] = set()
    for call in run.calls:
        offsets = {effect.offset for effect in call}
        for effect in call:
            line = run.line(effect.partition, effect.key)
            waiting = None if line is None else _first_waiting(lines[line], effect, succeeded, offsets)
            if waiting is not None:
                yield f"{effect} while {waiting} of its line waited"
        succeeded.update((effect.partition, effect.offset) for effect in call if effect.ok)


def _lines(run: _Run) -> Mapping[Line, _Waiting]:
    lines: defaultdict[Line, _Waiting] = defaultdict(lambda: _Waiting([]))
    for key, records in run.records.items():
        for record in records:
            line = run.line(key, record.key())
            if line is not None and (key, record.offset()) not in run.given_up:
                lines[line].offsets.append(record.offset())
    return lines


def _first_waiting(line: _Waiting, effect: Effect, succeeded: set[Place], in_call: set[int]) -> int | None:
    """The first record of the line that this call overtakes, None if it overtakes none."""
    offsets = line.offsets
    while line.ended < len(offsets) and (effect.partition, offsets[line.ended]) in succeeded:
        line.ended += 1
    for number in range(line.ended, len(offsets)):
        offset = offsets[number]
        if offset >= effect.offset:
            return None
        if offset not in in_call and (effect.partition, offset) not in succeeded:
            return offset
    return None


def _order_within_ownerships(run: _Run) -> Iterator[str]:
    """Within one ownership first calls of a line go forward, and what was handled is not called again."""
    reached: dict[tuple[Tenure, Line], int] = {}
    called: dict[tuple[Tenure, int], bool] = {}  # whether it was handled
    for effect in run.effects:
        tenure, line = run.tenure(effect), run.line(effect.partition, effect.key)
        handled = called.get((tenure, effect.offset))
        if handled:
            yield f"{effect} was handled before in the same ownership"
        elif handled is None and line is not None:
            if effect.offset < reached.get((tenure, line), -1):
                yield f"{effect} for the first time after {reached[tenure, line]}"
            reached[tenure, line] = max(reached.get((tenure, line), -1), effect.offset)
        called[tenure, effect.offset] = bool(handled) or effect.ok


def _unparked(run: _Run) -> Iterator[str]:
    """A commit past a dead letter whose key was not parked by then, and that was never handled."""
    if run.terms.keys is None:
        return
    skipped = {(key, offset) for key, offset, how in _failures(run) if how is Ending.SKIPPED}
    handled = {(effect.partition, effect.offset) for effect in run.effects if effect.ok}
    for key, records in run.records.items():
        commits = run.commits[key]
        for record in records:
            place = (key, record.offset())
            passed_s = next((commit.at_s for commit in commits if commit.mark.offset > record.offset()), None)
            if record.key() is None or passed_s is None or place in skipped or place in handled:
                continue
            if not any(at_s <= passed_s and first <= record.offset() for first, at_s in run.parked(key, record.key())):
                yield f"{key}@{record.offset()} was committed past at {passed_s}, and its key not parked"


def _overtaken_letters(run: _Run) -> Iterator[str]:
    """A call of a parked key, by the worker that has parked it or by one that came later."""
    if run.terms.keys is None:
        return
    own = {
        (member.name, partition, offset)
        for member in run.world.ever
        for how, partition, offset in member.story.keys
        if how == "parked"
    }
    for effect in run.effects:
        tenure = run.tenure(effect)
        for first, at_s in run.parked(effect.partition, effect.key):
            knows = tenure.began_s > at_s or (effect.member, effect.partition, first) in own
            if first < effect.offset and effect.at_s > at_s and knows:
                yield f"{effect}, whose key was parked at {first} and {at_s}"


def _failures(run: _Run) -> Iterator[tuple[TopicPartition, int, Ending]]:
    for member in run.world.ever:
        for partition, offset, _, _, ending in member.story.failures:
            yield partition, offset, ending


def _overlaps(run: _Run) -> Iterator[str]:
    """Two slices with records of one line in hand at once, within one ownership."""
    gone_s = {member.name: member.gone_s for member in run.world.ever}
    for tenure, turns in run.turns.items():
        until_s: dict[Line, float] = {}
        for turn in turns:
            lines = {line for message in turn.messages if (line := run.line(tenure.partition, message.key()))}
            for line in sorted(lines, key=str):
                if turn.from_s < until_s.get(line, -inf):
                    yield f"{line} was handed over at {turn.from_s}, and in hand until {until_s[line]}"
                until_s[line] = max(until_s.get(line, -inf), min(turn.until_s, gone_s[turn.member] or inf))


def _foreign_calls(run: _Run) -> Iterator[str]:
    """Calls begun after a partition was given back; of each slice the one in progress may end later."""
    late: defaultdict[int, set[int]] = defaultdict(set)
    for effect in run.effects:
        ended_s = run.tenure(effect).ended_s
        given_back = run.tenure(effect).ending is TenureEnd.REVOKED
        if given_back and ended_s is not None and effect.at_s > ended_s:
            late[effect.turn].add(effect.call)
            if len(late[effect.turn]) > 1:
                yield f"{effect}, but the partition was given back at {ended_s}"


def _too_many_attempts(run: _Run) -> Iterator[str]:
    """More calls of a record in one ownership than configured.

    An outage of a dependency counts for nothing. What lies behind the record that a batch failed at starts anew.
    """
    attempts = inf if run.terms.attempts is None else run.terms.attempts + run.terms.largest_batch.bit_length()
    spent: defaultdict[tuple[Tenure, int], int] = defaultdict(int)
    for effect in run.effects:
        record = run.tenure(effect), effect.offset
        if effect.blamed not in run.terms.spared:
            spent[record] = spent[record] + 1 if effect.blamed else 0
        if spent[record] > attempts:
            yield f"{effect}, with {run.terms.attempts} attempts"


def _too_many_repeats(run: _Run) -> Iterator[str]:
    """More records repeated after one ownership, however it ended, than may be uncommitted.

    Where the client itself has written an older offset over a newer one there is no bound.
    """
    limit = run.terms.max_uncommitted
    for tenure, offsets in run.repeated.items():
        unbounded = any(commit.again for commit in run.commits[tenure.partition])
        if limit is not None and len(offsets) > limit and not unbounded:
            yield f"{len(offsets)} records of {tenure}, with max_uncommitted={limit}"


def _forgotten(run: _Run) -> Iterator[str]:
    """A call of what is done by all commits that the owner can have found."""
    first_s: dict[Tenure, float] = {}
    for effect in run.effects:
        first_s.setdefault(run.tenure(effect), effect.at_s)
    known: dict[Tenure, set[int]] = {}
    for tenure, until_s in first_s.items():
        moves = [move for move in run.world.broker.moves if move.partition == tenure.partition]
        commits = sorted((*moves, *run.commits[tenure.partition]), key=attrgetter("at_s"))
        offsets = [record.offset() for record in run.log[tenure.partition]]
        before = [one for one in commits if one.at_s < tenure.began_s][-1:]
        since = [one for one in commits if tenure.began_s <= one.at_s <= until_s and one.member != tenure.member]
        found = [*before, *since]
        done = [set(_said_to_be_done(one, offsets)) for one in found] if before else []
        known[tenure] = set.intersection(*done) if done else set()
    for effect in run.effects:
        if effect.offset in known[run.tenure(effect)]:
            yield f"{effect}, which was committed as done"


def _needless_repeats(run: _Run) -> Iterator[str]:
    """Records repeated after an ownership that ended in order, in time and in calm."""
    for tenure, offsets in run.repeated.items():
        if run.terms.calm is not None and _ended_well(run, tenure):
            yield f"{sorted(offsets)} of {tenure}"


def _ended_well(run: _Run, tenure: Tenure) -> bool:
    """Whether nothing that excuses repeats happened as an assignment ended."""
    asked_s, limit_s = _asked(run, tenure)
    ended_s = tenure.ended_s
    if ended_s is None or asked_s is None or run.terms.calm is None or not 0 <= ended_s - asked_s < limit_s:
        return False
    if any(turn.until_s > ended_s for turn in run.turns[tenure]):
        return False
    return run.terms.calm(asked_s, ended_s)


def _asked(run: _Run, tenure: Tenure) -> tuple[float | None, float]:
    """When the member was asked to give the partition back, and how long it might finish calls."""
    if tenure.ending is TenureEnd.REVOKED:
        return tenure.asked_s, run.terms.finish_s
    if tenure.ending is TenureEnd.LEFT:
        leaver = next(member for member in run.world.ever if member.name == tenure.member)
        if len(leaver.sources) == 1:  # else its consumer left the group by itself
            return leaver.asked_to_stop_s, run.terms.drain_timeout_s
    return None, 0.0


def _miscounts(run: _Run) -> Iterator[str]:
    """More records reported as handled than a worker was successful with."""
    handled = Counter((effect.member, effect.partition) for effect in run.effects if effect.ok)
    for member in run.world.ever:
        reported: Counter[TopicPartition] = Counter()
        for _, partition, ending, records in member.story.endings:
            reported[partition] += records if ending is Ending.HANDLED else 0
        for partition, records in reported.items():
            if records > handled[member.name, partition]:
                yield f"{member.name} reports {records} of {partition}, but handled {handled[member.name, partition]}"


CHECKS: Mapping[str, Callable[[_Run], Iterator[str]]] = {
    "lost": _lost,
    "early_commit": _early_commits,
    "commit_past_end": _commits_past_the_end,
    "commit_regress": _regress,
    "disorder": _disorder,
    "epoch_order": _order_within_ownerships,
    "unparked": _unparked,
    "overtaken_letter": _overtaken_letters,
    "key_overlap": _overlaps,
    "foreign_call": _foreign_calls,
    "attempts": _too_many_attempts,
    "repeats": _too_many_repeats,
    "forgotten": _forgotten,
    "needless_repeat": _needless_repeats,
    "miscount": _miscounts,
}
