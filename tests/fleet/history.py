"""What a run leaves behind for the checker: one line of JSON per thing that happened.

Worker processes and the producer append to files, each line by one `write` on a descriptor opened for
appending: lines of several processes do not mix, and those written survive SIGKILL. Times are of the
monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

H = TypeVar("H")


class Sent(msgspec.Struct, tag="sent", frozen=True):
    """A record that the producer sent. `outcome`: ok, fail (it is not in the log) or info (nobody knows).

    `seq` counts the records of a key from 0; `digest` is of the value.
    """

    uid: str
    key: str | None
    seq: int
    digest: str
    outcome: str
    partition: int
    offset: int
    at_s: float


class Effect(msgspec.Struct, tag="effect", frozen=True):
    """A call of a handler that ended well. `uid` is the record's header of that name."""

    pid: int
    topic: str
    partition: int
    offset: int
    key: str | None
    uid: str | None
    digest: str
    attempt: int
    began_s: float
    ended_s: float


class Owned(msgspec.Struct, tag="owned", frozen=True):
    """An ownership began (assigned), ended in order (revoked) or was taken away (lost)."""

    pid: int
    what: str
    topic: str
    partition: int
    at_s: float


class Commit(msgspec.Struct, tag="commit", frozen=True):
    """A worker is about to send an offset."""

    pid: int
    topic: str
    partition: int
    offset: int
    at_s: float


class Letter(msgspec.Struct, tag="letter", frozen=True):
    """A dead letter was acknowledged. Topic, partition and offset are those of the record it is a copy of."""

    pid: int
    topic: str
    partition: int
    offset: int
    at_s: float


class Seen(msgspec.Struct, tag="seen", frozen=True):
    """The group's offset as read from outside; `at_s` is just after the answer came."""

    partition: int
    offset: int
    at_s: float


class Struck(msgspec.Struct, tag="struck", frozen=True):
    """A fault. `pid` is the worker's that it hit, None for one of the cluster or the network."""

    what: str
    pid: int | None
    at_s: float


Happening = Sent | Effect | Owned | Commit | Letter | Seen | Struck

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Happening).decode


class Journal:
    """Appends to `path`; may be used by several threads and processes at once."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, happening: Happening) -> None:
        os.write(self._file, _encode(happening) + b"\n")

    def close(self) -> None:
        os.close(self._file)


class Reading:
    """What is written into `path` while it grows: each look reads on from where the last one ended. One thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: list[Happening] = []
        self._position = 0  # in bytes

    def all(self) -> Sequence[Happening]:
        """Everything written so far; a last line that was cut is left out."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._position)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._found += map(_decode, whole.splitlines())
            self._position += len(whole)
        return tuple(self._found)


def read(path: Path) -> Sequence[Happening]:
    """Everything written into it so far."""
    return Reading(path).all()


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A whole run.

    `ends` are the log's ends by partition; `copies` are the records, as (partition, offset), that the dead-letter
    topic has a copy of, once for each copy.
    """

    sent: Sequence[Sent] = ()
    effects: Sequence[Effect] = ()
    owned: Sequence[Owned] = ()
    commits: Sequence[Commit] = ()
    letters: Sequence[Letter] = ()
    seen: Sequence[Seen] = ()
    struck: Sequence[Struck] = ()
    ends: Mapping[int, int] = field(default_factory=dict)
    copies: Sequence[tuple[int, int]] = ()

    @classmethod
    def of(
        cls, happenings: Sequence[Happening], ends: Mapping[int, int], copies: Sequence[tuple[int, int]] = ()
    ) -> History:
        """Sort what happened by its kind."""
        return cls(
            sent=_of_kind(happenings, Sent),
            effects=_of_kind(happenings, Effect),
            owned=_of_kind(happenings, Owned),
            commits=_of_kind(happenings, Commit),
            letters=_of_kind(happenings, Letter),
            seen=_of_kind(happenings, Seen),
            struck=_of_kind(happenings, Struck),
            ends=ends,
            copies=copies,
        )


def _of_kind(happenings: Sequence[Happening], kind: type[H]) -> Sequence[H]:
    return [one for one in happenings if isinstance(one, kind)]
