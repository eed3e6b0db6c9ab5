"""How letters of one partition are sent and marked: READ FIRST for what a replay does to the cluster.

Decided here: the order of the steps, what is dropped, and what follows from an error. The effects are those of a
`Sender` and a `StateLog` (`shipments.py`; in memory for tests). One thread at a time.

Who ships opens a producer with the partition's transactional id, which fences any other and ends what it has left open,
and then reads the partition of the state topic to its end. From there on nobody else can mark a letter unless this
producer is fenced first, so what was pending still is when a transaction is committed. Copies, marks and the audit's
entry are one transaction: after a crash all of it is there or nothing. Nothing is remembered across an error: another
producer is opened, the state is read on, and what is found marked there was sent.

Where the cluster allows no transactions, a letter is marked `uncertain` first, and as what it is when that is done. Of
two that mean to send or mark it the one whose mark comes first in the log does. What a crash leaves in between stays
uncertain until a person has looked at it. Who makes transactions does not see in time what is marked without: so all
who send have the right to make them, or nobody has.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice, takewhile
from typing import TYPE_CHECKING, Protocol

import msgspec

from streamworker.errors import ClientError, Misuse
from streamworker.record import Letter
from streamworker.replay.audit import ranges
from streamworker.replay.standings import Standings, Unreadable
from streamworker.replay.states import (
    ONLY_PENDING,
    State,
    Target,
    encode,
    key_of,
    may_follow,
    state_now,
    state_topic,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.record import TopicPartition
    from streamworker.replay.audit import Chain, Note
    from streamworker.replay.dead_record import LetterId
    from streamworker.replay.states import Disposition

_TRIES = 12  # of one chunk; between two that take turns at one partition the waits grow to seconds
_FIRST_WAIT_S = 0.05
_LONGEST_WAIT_S = 3.0
_IDLE_S = 60.0
_MOST_TOMBSTONES = 500  # in one transaction

# Transactions are not to be had, whatever is tried.
_NO_TRANSACTIONS = frozenset(
    {
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
        "UNSUPPORTED_FOR_MESSAGE_FORMAT",
        "UNSUPPORTED_VERSION",
        "_UNSUPPORTED_FEATURE",
    }
)
# Brokers refuse a whole batch for its size, so that one of them does not tell which copy is at fault.
_SIZE = frozenset({"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_MSG_SIZE"})
_NOT_ALLOWED = frozenset({"TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED"})
# Of the state topic or the audit: the next try would be refused, too.
_HOPELESS = _SIZE | _NOT_ALLOWED | {"INVALID_RECORD", "POLICY_VIOLATION", "UNKNOWN_TOPIC_OR_PART"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What is done at once with letters of one partition, in the order of `ids`.

    Each has a disposition, which says all but the target; those that are sent have a copy, too. A letter that is in
    none of the states `expected` is left alone.
    """

    ids: Sequence[LetterId]
    copies: Mapping[LetterId, Letter]
    dispositions: Mapping[LetterId, Disposition]
    audit: Note
    expected: frozenset[State] = ONLY_PENDING


@dataclass(frozen=True, slots=True)
class Shipped:
    """What became of a chunk. Each of its letters is in one of `marked`, `dropped`, `failed` and `uncertain`."""

    marked: frozenset[LetterId]  # they have the disposition now
    sent: Mapping[LetterId, Target]  # those of them that have a copy
    dropped: Mapping[LetterId, State]  # in another state than was expected
    failed: Mapping[LetterId, str]  # and why
    uncertain: frozenset[LetterId]  # only without transactions: it may be there
    exactly_once: bool  # false: without transactions


class Shipping(Protocol):
    """Sends and marks letters of one partition of a dead-letter topic. One thread at a time."""

    def ship(self, chunk: Chunk) -> Shipped:
        """Do it, or find out that it was done; blocks.

        Raises ClientError if the cluster does not let it come to an end. Then some of it may be done, and the state
        topic says which: the same chunk may be shipped again.
        """

    def sweep(self, audit: Note) -> int:
        """Take back what was said of letters that are deleted since, and tell how many those are; blocks.

        Raises ClientError as `ship` does, and may be called again.
        """

    def idle(self) -> None:
        """Let go of what was not used for a minute; to be called now and then."""

    def close(self) -> None:
        """Let go of it. Idempotent; `ship` would begin anew."""


class Sender(Protocol):
    """One producer, from when it is made until it is closed. Whatever it raises is a ClientError.

    Without transactions `open`, `begin`, `commit` and `abort` do nothing.
    """

    def open(self) -> None:
        """Fence all others with the same id; when it returns, what they had begun is committed or aborted."""

    def unknown(self, topics: Iterable[str]) -> Mapping[str, str]:
        """Those of the topics that are not there or not allowed, each with the error's name."""

    def begin(self) -> None:
        """Begin a transaction."""

    def send(self, letters: Sequence[Letter]) -> Sequence[Target | str | None]:
        """Send them, and wait: for each where it is, or the error's name if the brokers do not take it.

        None where that is not known: because another one was refused, or, without transactions, for want of an answer.
        Raises ClientError if none was refused and the transaction cannot go on.
        """

    def commit(self) -> None:
        """Commit; if it raises, it is not known whether it has."""

    def abort(self) -> None:
        """Abort; if it raises, the producer cannot be used any more."""

    def close(self) -> None:
        """Let go of it, whatever is open. Does not raise."""


class StateLog(Protocol):
    """Reads one partition of the state topic. Records of aborted transactions are not read."""

    def bounds(self) -> tuple[int, int]:
        """Where the partition begins and ends; ClientError."""

    def read(self, start: int, end: int) -> Iterable[tuple[bytes | None, bytes | None]]:
        """Keys and values of the records from one offset to before another; ClientError."""

    def letters(self) -> tuple[int, int]:
        """Where the same partition of the dead-letter topic begins and ends; ClientError."""


@dataclass(slots=True)
class _Progress:
    """Of one chunk."""

    chunk: Chunk
    sent: dict[LetterId, Target] = field(default_factory=dict)
    marked: set[LetterId] = field(default_factory=set)
    dropped: dict[LetterId, State] = field(default_factory=dict)
    failed: dict[LetterId, str] = field(default_factory=dict)
    uncertain: set[LetterId] = field(default_factory=set)

    def settled(self, letter: LetterId) -> bool:
        """Whether nothing more is to be done for a letter."""
        return letter in self.uncertain or self._decided(letter)

    def marks(self, letter: LetterId, said: Disposition) -> None:
        self.uncertain.discard(letter)
        self.marked.add(letter)
        if said.target is not None:
            self.sent[letter] = said.target

    def fails(self, letter: LetterId, why: str) -> None:
        self.failed[letter] = why
        for other in self.with_duplicates([letter]):
            if not self._decided(other):
                self.failed[other] = f"{letter}, which it is a duplicate of, was not sent"
        self.uncertain -= self.failed.keys()

    def drops(self, letter: LetterId, state: State) -> None:
        self.uncertain.discard(letter)
        self.dropped[letter] = state

    def with_duplicates(self, letters: Iterable[LetterId]) -> list[LetterId]:
        """Letters with those that are duplicates of them, in the order of the chunk."""
        chosen = set(letters)
        names = set(map(str, chosen))
        said = self.chunk.dispositions
        return [letter for letter in self.chunk.ids if letter in chosen or said[letter].of in names]

    def _decided(self, letter: LetterId) -> bool:
        return letter in self.marked or letter in self.dropped or letter in self.failed

    def outcome(self, *, exactly_once: bool) -> Shipped:
        return Shipped(
            frozenset(self.marked), self.sent, self.dropped, self.failed, frozenset(self.uncertain), exactly_once
        )


class PartitionShipping:
    """A `Shipping` for one partition of `dead_letters`.

    `make_sender` is asked for a producer whenever one is needed, with transactions or without, and `make_chain` for a
    chain of its audit whenever the one before is at its end. `wait` waits for so many seconds, and returns true if
    there is no more time: then `ship` gives up.
    """

    def __init__(
        self,
        dead_letters: TopicPartition,
        *,
        make_sender: Callable[[bool], Sender],
        log: StateLog,
        make_chain: Callable[[], Chain],
        audit_topic: str,
        clock: Clock,
        wait: Callable[[float], bool],
        chance: Callable[[], float],
    ) -> None:
        self._partition = dead_letters.partition
        self._state_topic = state_topic(dead_letters.topic)
        self._audit_topic = audit_topic
        self._make_sender = make_sender
        self._log = log
        self._make_chain = make_chain
        self._chain = make_chain()
        self._monotonic_s = clock.monotonic_s
        self._wall_ms = clock.wall_ms
        self._wait = wait
        self._chance = chance
        self._sender: Sender | None = None
        self._transactions = True  # until the cluster has said that there are none
        self._standings = Standings(self._partition)
        self._position: int | None = None  # in the state topic, up to which it was read
        self._first_letter = 0
        self._used_s = self._monotonic_s()

    def ship(self, chunk: Chunk) -> Shipped:
        """As of `Shipping`."""
        if any(letter.partition != self._partition for letter in chunk.ids):
            raise Misuse(f"{ranges(chunk.ids)}: only letters of partition {self._partition} are shipped here")
        progress, work, failures = _Progress(chunk), deque([list(chunk.ids)]), 0
        while work:
            try:
                sender = self._opened(progress)
                letters = self._still_open(work[0], progress)
                parts = self._shipped(sender, letters, progress) if letters else []
            except ClientError as error:
                self._let_go()
                failures += 1
                self._think_again(error, failures)
            else:
                work.popleft()
                work.extendleft(reversed(parts))
                failures = 0
        self._used_s = self._monotonic_s()
        return progress.outcome(exactly_once=self._transactions)

    def sweep(self, audit: Note) -> int:
        """As of `Shipping`."""
        nothing = _Progress(Chunk(ids=(), copies={}, dispositions={}, audit=audit))
        swept = failures = 0
        while True:
            try:
                sender = self._opened(nothing)
                self._first_letter, _ = self._log.letters()
                gone = self._gone()
                if gone:
                    self._take_back(sender, gone, audit)
            except ClientError as error:
                self._let_go()
                failures += 1
                self._think_again(error, failures)
            else:
                swept, failures = swept + len(gone), 0
                if not gone:
                    self._used_s = self._monotonic_s()
                    return swept

    def idle(self) -> None:
        """As of `Shipping`; what is known of the letters goes, too."""
        if self._monotonic_s() - self._used_s >= _IDLE_S:
            self.close()

    def close(self) -> None:
        """As of `Shipping`."""
        self._let_go()
        self._standings, self._position = Standings(self._partition), None
        self._transactions = True

    def _opened(self, progress: _Progress) -> Sender:
        """A producer that nobody has fenced yet, once all that was said before is read."""
        sender = self._sender
        if sender is None:
            sender = self._sender = self._make_sender(self._transactions)
            sender.open()
            insist_on((self._state_topic, self._audit_topic), sender)
            self._read_on(progress)
        elif not self._transactions:
            self._read_on(progress)  # nobody is fenced, so others may have marked letters since
        return sender

    def _think_again(self, error: ClientError, failures: int) -> None:
        """Wait for another try, or raise `error` where none would help."""
        if self._transactions and error.code in _NO_TRANSACTIONS:
            self._transactions = False
            return
        longest_s = min(_FIRST_WAIT_S * 2**failures, _LONGEST_WAIT_S)
        # By chance, so that of two that fence each other one is through before the other comes again.
        if error.code in _HOPELESS or failures >= _TRIES or self._wait(longest_s * self._chance()):
            raise error

    def _let_go(self) -> None:
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    def _read_on(self, progress: _Progress) -> None:
        """Read the state topic to its end, and note what of this chunk is found there."""
        said = self._said_since(progress.chunk.ids)
        for letter in progress.chunk.ids:
            found = _found(progress.chunk.dispositions[letter], said[letter])
            if found is not None and not progress.settled(letter):
                progress.marks(letter, found)

    def _said_since(self, letters: Iterable[LetterId]) -> Mapping[LetterId, list[Disposition]]:
        """Read the state topic to its end; what was said there of these letters."""
        wanted = set(letters)
        start, end = self._log.bounds()
        self._first_letter, end_of_letters = self._log.letters()
        if self._position is None or self._position > end:  # or the topic was made anew
            self._standings, self._position = Standings(self._partition), start
        said: dict[LetterId, list[Disposition]] = {letter: [] for letter in wanted}
        for key, value in self._log.read(max(self._position, start), end):
            taken = self._standings.take(key, value, end_of_letters)
            if taken is not None and taken[0] in wanted and taken[1] is not None:
                said[taken[0]].append(taken[1])
        self._position = end
        return said

    def _still_open(self, letters: Iterable[LetterId], progress: _Progress) -> list[LetterId]:
        """Those that are in a state that is expected; the others are accounted for."""
        left = []
        for letter in letters:
            if progress.settled(letter):
                continue
            then = progress.chunk.dispositions[letter]
            try:
                last = self._standings.of(letter)
            except Unreadable:
                progress.fails(letter, "what the state topic says of it was not written by this version")
                continue
            if may_follow(last, then, progress.chunk.expected):
                left.append(letter)
            else:
                progress.drops(letter, state_now(last, then))
        return left

    def _shipped(self, sender: Sender, letters: Sequence[LetterId], progress: _Progress) -> list[list[LetterId]]:
        """Send and mark these letters; what is left to be done, in parts."""
        copies = {letter: copy for letter in letters if (copy := progress.chunk.copies.get(letter)) is not None}
        unknown = sender.unknown({copy.topic for copy in copies.values()})
        if unknown:
            for letter, copy in copies.items():
                if copy.topic in unknown:
                    progress.fails(letter, f"{copy.topic}: {unknown[copy.topic]}")
            return [list(letters)]
        if self._transactions:
            return self._in_a_transaction(sender, letters, copies, progress)
        self._in_steps(sender, letters, copies, progress)
        return []

    def _in_a_transaction(
        self, sender: Sender, letters: Sequence[LetterId], copies: Mapping[LetterId, Letter], progress: _Progress
    ) -> list[list[LetterId]]:
        chunk = progress.chunk
        sender.begin()
        answers = dict(zip(copies, sender.send(list(copies.values())) if copies else (), strict=True))
        refused = {letter: code for letter, code in answers.items() if isinstance(code, str)}
        if refused:
            sender.abort()
            return self._without(refused, letters, progress)
        said = {letter: _sent_to(chunk.dispositions[letter], answers.get(letter)) for letter in letters}
        gone = self._gone()
        entry = self._entry(chunk.audit, letters, len(copies))
        self._write(sender, [*self._marks(said), *map(self._tombstone, gone), entry])
        with self._following(entry):
            sender.commit()
        self._take_in(said, gone, progress)
        return []

    def _gone(self) -> Sequence[LetterId]:
        """Some letters that are deleted, and of which something is still said."""
        return list(islice(self._standings.before(self._first_letter), _MOST_TOMBSTONES))

    def _take_back(self, sender: Sender, gone: Sequence[LetterId], audit: Note) -> None:
        """Write tombstones for these. Nobody says anything of them any more, so it may be done twice."""
        sender.begin()
        note = audit.about({"deleted": ranges(gone), "count": len(gone)})
        entry = self._chain.letter(note, self._audit_topic)
        with self._following(entry):
            self._write(sender, [*map(self._tombstone, gone), entry])
            sender.commit()
        for letter in gone:
            self._standings.forget(letter)

    def _without(
        self, refused: Mapping[LetterId, str], letters: Sequence[LetterId], progress: _Progress
    ) -> list[list[LetterId]]:
        """Name those that the brokers do not take, and part the others, so that what is at fault comes to be alone."""
        if not set(refused.values()) <= _SIZE:
            self._let_go()  # the client believes for minutes what it was told of a topic
        suspects = self._suspects(refused, progress.chunk)
        for letter in refused.keys() - set(chain.from_iterable(suspects)):
            progress.fails(letter, f"{progress.chunk.copies[letter].topic}: {refused[letter]}")
        parts = [progress.with_duplicates(part) for part in suspects]
        apart = set(chain.from_iterable(parts))
        return [[letter for letter in letters if letter not in apart], *parts]

    def _suspects(self, refused: Mapping[LetterId, str], chunk: Chunk) -> list[list[LetterId]]:
        """Those of which it is not known whether they are at fault or another one is, in parts that tell more."""
        sized = [letter for letter, code in refused.items() if code in _SIZE]
        halves = [sized[: len(sized) // 2], sized[len(sized) // 2 :]] if len(sized) > 1 else []
        by_topic: dict[str, list[LetterId]] = {}
        for letter, code in refused.items():
            if code in _NOT_ALLOWED:
                by_topic.setdefault(chunk.copies[letter].topic, []).append(letter)
        return [*halves, *(by_topic.values() if len(by_topic) > 1 else ())]

    def _in_steps(
        self, sender: Sender, letters: Sequence[LetterId], copies: Mapping[LetterId, Letter], progress: _Progress
    ) -> None:
        """Without a transaction. An error in between leaves them uncertain."""
        chunk = progress.chunk
        progress.uncertain.update(letters)
        ours = self._claimed(sender, {letter: _meant(chunk.dispositions[letter]) for letter in letters}, progress)
        going = [letter for letter in ours if letter in copies]
        answers = dict(zip(going, sender.send([copies[letter] for letter in going]) if going else (), strict=True))
        sized = [letter for letter, code in answers.items() if isinstance(code, str) and code in _SIZE]
        for letter in sized if len(sized) > 1 else ():
            [answers[letter]] = sender.send([copies[letter]])
        for letter, answer in answers.items():
            if isinstance(answer, str):
                progress.fails(letter, f"{copies[letter].topic}: {answer}")
        unknown = {letter for letter, answer in answers.items() if answer is None}
        said = {
            letter: _sent_to(chunk.dispositions[letter], answers.get(letter))
            for letter in ours
            if letter not in progress.failed and letter not in unknown
        }
        taken_back = {
            letter: _taken_back(chunk.dispositions[letter], before)
            for letter, before in ours.items()
            if letter in progress.failed
        }
        if not said and not taken_back:
            return
        entry = self._entry(chunk.audit, said, sum(letter in copies for letter in said))
        with self._following(entry):
            self._write(sender, [*self._marks({**said, **taken_back}), entry])
        self._take_in({**said, **taken_back}, [], progress)

    def _claimed(
        self, sender: Sender, meant: Mapping[LetterId, Disposition], progress: _Progress
    ) -> Mapping[LetterId, State]:
        """Mark letters as uncertain; those that nobody else marked before, with the states that they were in."""
        before = {letter: self._state_before(letter, one) for letter, one in meant.items()}
        marks = self._write(sender, list(self._marks(meant)))
        said = self._said_since(meant)
        if any(mark.offset is None or mark.offset >= (self._position or 0) for mark in marks):
            # Somebody's open transaction hides it, and may hide what others have said before.
            raise ClientError(f"{self._state_topic}: a mark was written and cannot be read yet", code="_TIMED_OUT")
        others = {letter: list(takewhile(partial(_is_not, meant[letter]), said[letter])) for letter in meant}
        lost = {letter: [one.state for one in others[letter] if one.state is not State.PENDING] for letter in meant}
        for letter, states in lost.items():
            if states:
                progress.drops(letter, states[-1])
        # Our mark hides what they have said; where they are at it themselves they will say how it ended.
        final = {letter: others[letter][-1] for letter, states in lost.items() if states}
        final = {letter: one for letter, one in final.items() if one.state is not State.UNCERTAIN}
        self._write(sender, list(self._marks(final)))
        return {letter: before[letter] for letter, states in lost.items() if not states}

    def _state_before(self, letter: LetterId, then: Disposition) -> State:
        return state_now(self._standings.of(letter), then)

    def _write(self, sender: Sender, letters: Sequence[Letter]) -> Sequence[Target]:
        """Write what is ours, marks and the audit; tells where they are."""
        answers = sender.send(letters) if letters else []
        missing = [pair for pair in zip(letters, answers, strict=True) if not isinstance(pair[1], Target)]
        if missing:  # the one that was refused, rather than one of which nothing is known because of it
            letter, code = min(missing, key=lambda pair: pair[1] is None)
            raise ClientError(f"{letter.topic}: {code or 'no answer'}", code=str(code or "_TIMED_OUT"))
        return [answer for answer in answers if isinstance(answer, Target)]

    @contextmanager
    def _following(self, entry: Letter) -> Iterator[None]:
        """The chain goes on from this entry, which is written inside; if that fails it may be there, or not."""
        try:
            yield
        except ClientError:
            self._chain = self._make_chain()
            raise
        self._chain = self._chain.after(entry)

    def _marks(self, said: Mapping[LetterId, Disposition]) -> Iterator[Letter]:
        for letter, one in said.items():
            yield Letter(self._state_topic, self._partition, key_of(letter), encode(one), (), one.at_ms)

    def _tombstone(self, letter: LetterId) -> Letter:
        return Letter(self._state_topic, self._partition, key_of(letter), None, (), self._wall_ms())

    def _entry(self, note: Note, letters: Collection[LetterId], sent: int) -> Letter:
        about = {"letters": ranges(letters), "count": len(letters), "sent": sent}
        return self._chain.letter(note.about(about), self._audit_topic)

    def _take_in(self, said: Mapping[LetterId, Disposition], gone: Sequence[LetterId], progress: _Progress) -> None:
        for letter, one in said.items():
            self._standings.note(letter, one)
            if letter not in progress.failed:
                progress.marks(letter, one)
        for letter in gone:
            self._standings.forget(letter)


def insist_on(topics: Iterable[str], sender: Sender) -> None:
    """Raises ClientError for a topic of ours that is not there: a producer would wait for it and say nothing."""
    for topic, code in sender.unknown(topics).items():
        raise ClientError(f"{topic}: {code}; `streamworker topics create` makes it", code=code)


def _sent_to(said: Disposition, target: Target | str | None) -> Disposition:
    return msgspec.structs.replace(said, target=target) if isinstance(target, Target) else said


def _meant(said: Disposition) -> Disposition:
    return msgspec.structs.replace(said, state=State.UNCERTAIN)


def _taken_back(said: Disposition, before: State) -> Disposition:
    """The letter is as it was; that it was meant to be sent stays in the log."""
    count = max(said.replay_count - 1, 0)
    return msgspec.structs.replace(said, state=before, replay_id=None, edited_sha256=None, replay_count=count)


def _found(ours: Disposition, said: Sequence[Disposition]) -> Disposition | None:
    """Our disposition among what was said, with its target."""
    return next((one for one in reversed(said) if not _is_not(ours, one)), None)


def _is_not(ours: Disposition, said: Disposition) -> bool:
    return msgspec.structs.replace(said, target=None) != msgspec.structs.replace(ours, target=None)
