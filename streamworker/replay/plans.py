"""What a request comes to: which letters are acted on, which are copies of another, which are refused and why.

A plan is made before anything is done, and made again before it is run: only the same plan is run. Pure, any thread.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, overload

from streamworker.errors import ConfigurationError
from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import SENDING, Action, Plan, Request
from streamworker.replay.filters import MOST_VALUES, Field, Filter, Term
from streamworker.replay.states import AGAIN, ONLY_PENDING, RESTORABLE, SENT, State
from streamworker.replay.targets import NoTarget

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from streamworker.record import Origin
    from streamworker.replay.targets import Destination, Targets

MAX_REPLAYS = 3
_ONCE_PER_RECORD = SENDING | {Action.DISCARD, Action.PROCESS}  # duplicates are marked with the first
_ID_CHARS = 12
_MOST_REFUSED = 1000  # that are named
_MOST_NAMED = 5000  # each part is a scan of its own
_WARNED_OF = 5  # letters that a warning names


class Ids(Sequence[LetterId]):
    """Many letters in order, in eight bytes each."""

    def __init__(self, ids: Iterable[LetterId] = ()) -> None:
        self._offsets: dict[int, array[int]] = {}
        self._count = 0
        for one in ids:
            self.append(one)

    def append(self, letter: LetterId) -> None:
        """At the end: of a later partition, or a higher offset of the same."""
        self._offsets.setdefault(letter.partition, array("q")).append(letter.offset)
        self._count += 1

    @property
    def by_partition(self) -> Mapping[int, Sequence[int]]:
        """Offsets, ascending."""
        return self._offsets

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[LetterId]:
        return chain.from_iterable(
            (LetterId(partition, offset) for offset in offsets) for partition, offsets in self._offsets.items()
        )

    @overload
    def __getitem__(self, index: int) -> LetterId: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[LetterId]: ...

    def __getitem__(self, index: int | slice) -> LetterId | Sequence[LetterId]:
        return list(self)[index]


class Candidate(NamedTuple):
    """What a plan asks about a letter. Times are milliseconds since the Unix epoch."""

    id: LetterId
    state: State
    reason: str | None
    handler: str | None
    group: str | None
    origin: Origin | None
    sw_id: str | None  # None also where no other letter is of the record: a plan has nothing to remember then
    replay_id: str | None
    replay_count: int  # in its line so far
    size_bytes: int  # of the value
    snoozed_until_ms: int | None
    op_id: str | None = None  # that its state is of


@dataclass(slots=True)
class _Draft:
    ids: Ids = field(default_factory=Ids)
    duplicates: dict[LetterId, LetterId] = field(default_factory=dict)
    refused: dict[LetterId, str] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    by_reason: Counter[str] = field(default_factory=Counter)
    by_handler: Counter[str] = field(default_factory=Counter)
    by_target: Counter[str] = field(default_factory=Counter)
    bytes: int = 0

    def refuse(self, letter: LetterId, why: str) -> None:
        self.refusals[why] += 1
        if len(self.refused) < _MOST_REFUSED:
            self.refused[letter] = why


def chosen_by(request: Request) -> Sequence[Filter]:
    """The letters that a request is about, part after part in the order of their places.

    Where its filter says nothing of states, those that it can be done with.
    """
    if request.filter is None:
        if len(request.ids) > _MOST_NAMED:
            raise ConfigurationError(f"{len(request.ids)} letters are too many to be named one by one; use a filter")
        named = sorted(set(request.ids))
        parts = (named[first : first + MOST_VALUES] for first in range(0, len(named), MOST_VALUES))
        return [Filter.of(Term(Field.ID, tuple(part))) for part in parts]
    states: Collection[State] = ONLY_PENDING
    if request.action is Action.RESTORE:
        states = RESTORABLE
    elif request.again and request.action in SENDING:
        states = AGAIN
    return [request.filter.in_states(*(state for state in State if state in states))]


def make_plan(
    request: Request,
    candidates: Iterable[Candidate],
    targets: Targets,
    now_ms: int,
    *,
    ends: Mapping[int, int],
    resumed: str | None = None,
) -> Plan:
    """The plan of `request` over `candidates`, which come in order of partition and offset, from before `ends`.

    What operation `resumed` has done already counts as still to be done, so that the plan stays the same.
    """
    targets.check(request.target)
    draft = _Draft()
    first: dict[tuple[str, str | None], LetterId] = {}
    missing = set(request.ids) if request.filter is None else set()
    for one in candidates:
        missing.discard(one.id)
        acted_on = resumed is not None and one.op_id == resumed
        why_not = None if acted_on else _refusal(request, one, now_ms)
        destination = None
        if why_not is None and request.action in SENDING:
            try:
                destination = targets.of(one.origin, one.group, request.target)
            except NoTarget as error:
                why_not = str(error)
        if why_not is not None:
            draft.refuse(one.id, why_not)
            continue
        if one.sw_id is not None and request.action in _ONCE_PER_RECORD:
            kept = first.setdefault((one.sw_id, one.replay_id), one.id)
            if kept != one.id:
                draft.duplicates[one.id] = kept
                continue
        _add(draft, one, destination)
    for letter in sorted(missing):
        draft.refuse(letter, "there is no such letter, or not any more")
    sha256 = _digest(request, draft)
    return Plan(
        id=sha256[:_ID_CHARS],
        sha256=sha256,
        request=request,
        ids=draft.ids,
        duplicates=draft.duplicates,
        refused=draft.refused,
        refusals=draft.refusals,
        by_reason=draft.by_reason,
        by_handler=draft.by_handler,
        by_target=draft.by_target,
        bytes=draft.bytes,
        ends=ends,
        warnings=(),
        made_ms=now_ms,
    )


def _add(draft: _Draft, one: Candidate, destination: Destination | None) -> None:
    draft.ids.append(one.id)
    draft.by_reason[one.reason or "not told"] += 1
    draft.by_handler[one.handler or "not told"] += 1
    if destination is not None:
        draft.by_target[destination.topic] += 1
    draft.bytes += one.size_bytes


def _refusal(request: Request, one: Candidate, now_ms: int) -> str | None:
    """Why a letter is left as it is; None if it is acted on."""
    why_not = _refused_for_state(request, one, now_ms)
    if why_not is None and request.action in SENDING and one.replay_count >= MAX_REPLAYS and not request.force:
        return f"it was replayed {one.replay_count} times; an admin can --force it"
    return why_not


def _refused_for_state(request: Request, one: Candidate, now_ms: int) -> str | None:
    state, again = one.state, request.again and request.action in SENDING
    if request.action is Action.RESTORE:
        return None if state is State.DISCARDED else f"it is {state}, not discarded"
    if state is State.PENDING:
        snoozed = one.snoozed_until_ms is not None and one.snoozed_until_ms > now_ms
        return "it is snoozed" if snoozed and not _names_snoozed(request) else None
    if state is State.UNCERTAIN:
        judged = again or request.action is Action.DISCARD
        return None if judged else "it may have been sent: look, then discard it or send it --again"
    if state in SENT:
        return None if again else f"it was {state} already; --again sends it once more"
    return f"it is {state}"


def _names_snoozed(request: Request) -> bool:
    """Whether letters were named one by one, or for being snoozed."""
    return request.filter is None or any(
        term.field is Field.SNOOZED and not term.negated for term in request.filter.terms
    )


def _digest(request: Request, draft: _Draft) -> str:
    """SHA-256 of what is done, and with which letters."""
    what = (
        request.topic,
        request.action,
        request.target or "",
        request.reason_code or "",
        request.note or "",
        request.edited or "",
        request.function or "",
        str(request.until_ms),
        request.assignee or "",
        *(("again",) if request.again else ()),
        *(("force",) if request.force else ()),
    )
    found = hashlib.sha256("\0".join(what).encode())
    for partition, offsets in draft.ids.by_partition.items():
        found.update(f"\n{partition}:{','.join(map(str, offsets))}".encode())
    for letter, of in draft.duplicates.items():
        found.update(f"\n{letter}={of}".encode())
    return found.hexdigest()


def difference(before: Plan, after: Plan) -> str:
    """What is not the same any more, for people."""
    old, new = set(before.ids), set(after.ids)
    told = [
        f"{len(letters)} {how}, for instance {', '.join(map(str, sorted(letters)[:_WARNED_OF]))}"
        for how, letters in (("left it", old - new), ("came to it", new - old))
        if letters
    ]
    return "; ".join(told) or "other options"
