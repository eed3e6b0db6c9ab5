"""Who did what to dead letters: the entries of the audit topic, and whether all of them are still there.

Each writer has a chain: its entries are numbered from 0, and each has the SHA-256 of the one before. With a key
(`audit.key_file`) each also has a MAC, in a header: without it, who may write to the topic could write a chain of his
own. The end of a chain is proven by nothing, so entries that were cut off there are not missed. Retention takes the
beginnings: a chain is checked from the oldest entry that is kept. Pure, any thread.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import msgspec

from streamworker.record import Letter
from streamworker.replay.desk import Audited

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from streamworker.record import Header
    from streamworker.replay.dead_record import LetterId
    from streamworker.replay.desk import Actor

TOPIC = "streamworker.audit"
MAC_HEADER = "sw-audit-mac"
VERSION = 1
_REMEMBERED = 16  # entries of a chain that may come twice
_MOST_FINDINGS = 1000


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record of the audit topic, JSON; its key is the writer, so that a chain stays in one partition."""

    v: int = 1  # left out while it is that
    at_ms: int
    actor: str
    verified: bool
    via: str
    what: str
    topic: str | None = None
    op_id: str | None = None
    detail: dict[str, object] = {}
    writer: str
    sequence: int
    previous: str | None = None  # SHA-256 of the value before, in hexadecimal digits; None: it is the first


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is to be said in the audit."""

    at_ms: int
    actor: Actor
    what: str  # an action, login, denied, …
    topic: str | None = None
    op_id: str | None = None
    detail: Mapping[str, object]

    def about(self, detail: Mapping[str, object]) -> Note:
        """The same with more to say."""
        return replace(self, detail={**self.detail, **detail})


@dataclass(frozen=True, slots=True)
class Chain:
    """Where a writer is. `writer` must be nobody else's: a random name."""

    writer: str
    key: bytes | None = None
    sequence: int = 0
    previous: str | None = None

    def letter(self, note: Note, topic: str = TOPIC) -> Letter:
        """The record that says it; it is part of the chain once it is written, see `after`."""
        entry = Entry(
            at_ms=note.at_ms,
            actor=note.actor.name,
            verified=note.actor.verified,
            via=note.actor.via,
            what=note.what,
            topic=note.topic,
            op_id=note.op_id,
            detail=dict(note.detail),
            writer=self.writer,
            sequence=self.sequence,
            previous=self.previous,
        )
        value = msgspec.json.encode(entry)
        headers = [] if self.key is None else [(MAC_HEADER, mac(value, self.key))]
        return Letter(topic, None, self.writer.encode(), value, headers, note.at_ms)

    def after(self, written: Letter) -> Chain:
        """The chain once the record is written."""
        return replace(self, sequence=self.sequence + 1, previous=_sha256(written.value or b""))


class Fault(enum.StrEnum):
    """What can be wrong with a chain."""

    UNREADABLE = "unreadable"  # no entry of a known version
    GAP = "gap"  # entries are missing
    FORK = "fork"  # two entries have one number
    WRONG_HASH = "wrong hash"  # the entry before is not the one that it was written after
    NO_MAC = "no mac"
    BAD_MAC = "bad mac"


@dataclass(frozen=True, slots=True)
class Kept:
    """A record of the audit topic."""

    partition: int
    offset: int
    value: bytes | None
    headers: Sequence[Header]


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault, and where: `at` is PARTITION:OFFSET in the audit topic."""

    fault: Fault
    at: str
    writer: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check came to."""

    entries: int
    chains: int
    beginnings: int  # chains whose first entry is still kept
    faults: int
    findings: Sequence[Finding]  # the first of them


@dataclass(slots=True)
class _Seen:
    sequence: int
    sha256: str
    known: dict[int, str]  # of the latest entries, their hashes


class Check:
    """Checks all chains; entries of a partition come in their order. `key` None: MACs are not looked at."""

    def __init__(self, key: bytes | None) -> None:
        self._key = key
        self._seen: dict[str, _Seen] = {}
        self._entries = 0
        self._beginnings = 0
        self._faults = 0
        self._findings: list[Finding] = []

    def take(self, kept: Kept) -> None:
        """Look at the next one."""
        self._entries += 1
        entry = read(kept.value)
        if entry is None or kept.value is None:
            self._find(Fault.UNREADABLE, kept, None, "it is no entry that this version can read")
            return
        self._look_at_mac(kept, entry, kept.value)
        seen, found = self._seen.get(entry.writer), _sha256(kept.value)
        if seen is None:
            self._begins(kept, entry)
        elif entry.sequence <= seen.sequence:
            if seen.known.get(entry.sequence) == found:
                return  # written twice: an answer was lost
            self._find(Fault.FORK, kept, entry, f"there was another entry {entry.sequence} before")
            return
        elif entry.sequence > seen.sequence + 1:
            missing = f"{seen.sequence + 1} to {entry.sequence - 1}"
            self._find(Fault.GAP, kept, entry, f"entries {missing} are missing before it")
        elif entry.previous != seen.sha256:
            self._find(Fault.WRONG_HASH, kept, entry, f"entry {seen.sequence} is not the one that it follows")
        known = {} if seen is None else seen.known
        known[entry.sequence] = found
        known.pop(entry.sequence - _REMEMBERED, None)
        self._seen[entry.writer] = _Seen(entry.sequence, found, known)

    def verdict(self) -> Verdict:
        """What was found so far."""
        return Verdict(self._entries, len(self._seen), self._beginnings, self._faults, tuple(self._findings))

    def _begins(self, kept: Kept, entry: Entry) -> None:
        if entry.sequence == 0:
            self._beginnings += 1
        if (entry.sequence == 0) != (entry.previous is None):
            self._find(Fault.WRONG_HASH, kept, entry, "only the first entry of a chain follows none")

    def _look_at_mac(self, kept: Kept, entry: Entry, value: bytes) -> None:
        if self._key is None:
            return
        found = next((text for name, text in kept.headers if name == MAC_HEADER), None)
        if found is None:
            self._find(Fault.NO_MAC, kept, entry, "it was written without the key")
        elif not hmac.compare_digest(found, mac(value, self._key)):
            self._find(Fault.BAD_MAC, kept, entry, "it was written with another key, or changed")

    def _find(self, fault: Fault, kept: Kept, entry: Entry | None, message: str) -> None:
        self._faults += 1
        if len(self._findings) < _MOST_FINDINGS:
            writer = None if entry is None else entry.writer
            self._findings.append(Finding(fault, f"{kept.partition}:{kept.offset}", writer, message))


def verify(entries: Iterable[Kept], key: bytes | None) -> Verdict:
    """Check all chains of the audit, each from its oldest entry that is kept."""
    check = Check(key)
    for one in entries:
        check.take(one)
    return check.verdict()


def read(value: bytes | None) -> Entry | None:
    """The entry that a record is; None for what is none, or one of a later version."""
    try:
        found = _decoder.decode(value or b"")
    except msgspec.MsgspecError:
        return None
    return found if found.v == VERSION else None


def audited(entry: Entry) -> Audited:
    """The same for people."""
    return Audited(
        at_ms=entry.at_ms,
        actor=entry.actor,
        verified=entry.verified,
        via=entry.via,
        what=entry.what,
        topic=entry.topic,
        op_id=entry.op_id,
        detail=entry.detail,
        writer=entry.writer,
        sequence=entry.sequence,
    )


def ranges(letters: Iterable[LetterId]) -> str:
    """Letters as short text, for instance `3:10-19,25 4:7`: one entry stands for a chunk of hundreds."""
    parts = groupby(sorted(letters), key=lambda letter: letter.partition)
    return " ".join(f"{partition}:{','.join(_runs([one.offset for one in of]))}" for partition, of in parts)


def mac(value: bytes, key: bytes) -> bytes:
    """HMAC-SHA256 in hexadecimal digits."""
    return hmac.new(key, value, hashlib.sha256).hexdigest().encode()


_decoder = msgspec.json.Decoder(Entry)


def _runs(offsets: Sequence[int]) -> Iterator[str]:
    for _, run in groupby(enumerate(offsets), key=lambda pair: pair[1] - pair[0]):
        found = [offset for _, offset in run]
        yield str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}"


def _sha256(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()
