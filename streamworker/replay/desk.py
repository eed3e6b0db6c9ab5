"""What the command line and the console ask for: people's one way to dead letters.

Both hold a `Desk`. What changes anything names the `Actor` and is audited, refused or not. Any thread; a call blocks
for as long as the cluster takes, and raises `ClientError` when it does not answer, `ConfigurationError` for what cannot
be meant, `Refused` for what is not allowed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from streamworker.errors import StreamworkerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.replay.dead_record import DeadRecord, LetterId, Outline
    from streamworker.replay.filters import Filter
    from streamworker.replay.states import Disposition, State, Target


class Refused(StreamworkerError):
    """The actor may not do this; it is in the audit."""


class Role(enum.IntEnum):
    """What somebody may do. Each includes those before it."""

    VIEWER = 1  # metadata: no key, header, text of an error or payload
    READER = 2  # payloads, masked
    OPERATOR = 3  # replay, discard, restore, snooze, assign
    EDITOR = 4  # repair
    ADMIN = 5  # purge, force, more than a thousand letters at once


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks. `name` is what the audit says; `verified` is false where nobody has checked it."""

    name: str
    role: Role
    via: str  # cli | console
    verified: bool


class Action(enum.StrEnum):
    """What can be done with pending letters; `RESTORE` makes discarded ones pending again.

    `PROCESS` is planned here and run by the command line alone.
    """

    REPLAY = "replay"
    REPAIR = "repair"
    DISCARD = "discard"
    RESTORE = "restore"
    SNOOZE = "snooze"
    ASSIGN = "assign"
    PROCESS = "process"  # handled in the process of the command


SENDING = frozenset({Action.REPLAY, Action.REPAIR})


@dataclass(frozen=True, slots=True)
class Listed:
    """A dead letter with what has become of it."""

    letter: DeadRecord
    disposition: Disposition | None
    state: State


@dataclass(frozen=True, slots=True)
class Row:
    """A dead letter in a list, with what has become of it."""

    letter: Outline
    disposition: Disposition | None
    state: State


@dataclass(frozen=True, slots=True)
class TopicSummary:
    """A dead-letter topic at a glance. Times are milliseconds since the Unix epoch."""

    topic: str
    records: int  # that it still has
    pending: int
    states: Mapping[State, int]
    oldest_pending_ms: int | None
    newest_ms: int | None
    per_hour: float  # letters written in the last hour
    expiring: int  # pending letters whose retention ends within a day
    retention_ms: int | None  # None: for ever, or not told
    top: Sequence[FingerprintGroup]
    built: float  # share of the topic that the view has read so far, 0 to 1
    ignored: int = 0  # records of the state topic that are not believed, or cannot be read


@dataclass(frozen=True, slots=True)
class FingerprintGroup:
    """Letters of the same mistake."""

    fingerprint: str | None
    exception: str | None
    message: str | None  # of the newest of them
    reason: str | None
    handler: str | None
    count: int
    pending: int
    first_ms: int | None
    last_ms: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """Letters, the newest first. `next` is where the following page begins; None: this is the last."""

    letters: Sequence[Row]
    next: str | None
    matching: int | None  # all that match; None: not counted
    built: float


class Outcome(enum.StrEnum):
    """What became of what was sent, as far as the cluster shows."""

    HANDLED = "handled"
    RETURNED = "returned"  # as a new dead letter
    DEFERRED = "deferred"  # waits in a retry topic
    WAITING = "waiting"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Decoded:
    """A key or value for people. `text` is JSON, text, or hexadecimal digits, as `kind` says.

    It may hold anything: whoever shows it makes it harmless.
    """

    kind: str  # json | avro | text | hex | null | hidden (there is a mask for what could not be read)
    text: str
    size_bytes: int
    cut: bool = False  # only its beginning is in `text`
    note: str | None = None  # why it could not be read otherwise, or what stands in its place
    masked: bool = False  # some of it may not be what is there: it is shown, and not edited


@dataclass(frozen=True, slots=True)
class Detail:
    """All that is known of one letter."""

    listed: Listed
    key: Decoded
    value: Decoded
    history: Sequence[Disposition]  # what was said of it, the latest last
    outcome: Outcome | None  # None: nothing was sent
    lineage: Sequence[LetterId]  # the letters whose replays led here, the oldest first, and those that came of it
    newer_of_key: Target | None  # a later record of the same key in the origin topic
    previous: LetterId | None  # neighbours in the partition
    following: LetterId | None
    repairable: bool  # its value can be edited as text
    targets: Sequence[str]  # topics that it may be sent to, the default first
    headers: Sequence[tuple[str, Decoded]] = ()  # those that people may see, in their order


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be done, to which letters: those of `filter`, or `ids`."""

    topic: str
    action: Action
    filter: Filter | None = None
    ids: Sequence[LetterId] = ()
    target: str | None = None  # None: the group's replay topic
    reason_code: str | None = None  # of a discard
    note: str | None = None
    edited: str | None = None  # of a repair of one letter: the new value as text
    function: str | None = None  # of a repair of many: a named function of the user's code
    until_ms: int | None = None  # of a snooze
    assignee: str | None = None  # of an assignment; None takes it away
    again: bool = False  # also what was sent already
    force: bool = False  # also what was replayed three times; for admins
    check_superseded: bool = False  # look for newer records of the same keys, and warn of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a request comes to, before anything is done. It is run by its `id`, and only if it still is the same."""

    id: str  # the first digits of `sha256`
    sha256: str  # of the ordered ids and what is done with them
    request: Request
    ids: Sequence[LetterId]
    duplicates: Mapping[LetterId, LetterId]  # letters of one record: only the first is acted on
    refused: Mapping[LetterId, str]  # and why; the first thousand
    refusals: Mapping[str, int]  # all of them, by why
    by_reason: Mapping[str, int]
    by_handler: Mapping[str, int]
    by_target: Mapping[str, int]
    bytes: int
    ends: Mapping[int, int]  # of the partitions when it was made: nothing behind is acted on
    warnings: Sequence[str]
    made_ms: int


@dataclass(frozen=True, slots=True)
class Step:
    """One way in which it was tried what a handler would make of a letter."""

    name: str  # decode | preview | handle
    passed: bool | None  # None: not tried, and `text` says why
    text: str


@dataclass(frozen=True, slots=True)
class Diff:
    """A letter that would be sent beside what it was, as lines of a unified diff; none where nothing changed.

    `error` says why a repair cannot be made, or does not fit its type.
    """

    id: LetterId
    lines: Sequence[str]
    error: str | None
    steps: Sequence[Step] = ()


class OperationState(enum.StrEnum):
    """How far a run is."""

    RUNNING = "running"
    PAUSED = "paused"
    ABORTED = "aborted"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A plan that is run, or was."""

    id: str
    plan_sha256: str
    topic: str
    action: Action
    actor: str
    filter_text: str
    state: OperationState
    matched: int
    done: int = 0
    skipped: int = 0  # in another state than was expected: somebody else was first
    failed: int = 0
    returned: int = 0  # came back as new dead letters
    started_ms: int
    ended_ms: int | None = None
    message: str | None = None  # why it paused, aborted or failed
    per_second: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How fast a run goes, and when it stops by itself. None: no limit."""

    records_per_s: float | None = 500.0
    bytes_per_s: float | None = None
    canary: int = 20  # so many first, then their outcome is waited for; 0: none
    canary_returned_share: float = 0.1  # more than this share comes back: it ends there


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """One entry of the audit."""

    at_ms: int
    actor: str
    verified: bool
    via: str
    what: str  # replay, discard, …, login, denied
    topic: str | None
    op_id: str | None
    detail: Mapping[str, object]
    writer: str
    sequence: int


@dataclass(frozen=True, slots=True)
class GroupPartition:
    """A partition of a consumer group, from brokers and, where one was found, its worker."""

    topic: str
    partition: int
    committed: int | None
    end: int
    lag: int
    owner: str | None
    paused: Sequence[str]  # reasons


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """A consumer group that dead letters name."""

    group: str
    state: str
    members: int
    partitions: Sequence[GroupPartition]
    breakers: Mapping[str, str]  # state by name, worst of all workers
    missing: str | None  # what could not be found out


class Desk(Protocol):
    """See the module."""

    def filter_of(self, text: str) -> Filter:
        """What `text` means now; raises ConfigurationError. Does not block."""

    def repairs(self) -> Sequence[str]:
        """Names of the user's functions that repair many letters. Does not block."""

    def topics(self) -> Sequence[TopicSummary]:
        """All dead-letter topics of the cluster that are known, the most pending first."""

    def page(self, topic: str, filter_: Filter, *, limit: int, after: str | None = None) -> Page:
        """Letters that match, from where `Page.next` of the page before says."""

    def groups_of_errors(self, topic: str, filter_: Filter) -> Sequence[FingerprintGroup]:
        """The same by mistake, the most pending first."""

    def detail(self, topic: str, letter: LetterId) -> Detail:
        """One of them; raises ConfigurationError if there is none."""

    def text_of(self, topic: str, letter: LetterId) -> str:
        """The value of a letter for an editor; raises ConfigurationError for one that cannot be edited as text."""

    def outcome(self, topic: str, letter: LetterId) -> Outcome | None:
        """What became of what was sent of it."""

    def plan(self, actor: Actor, request: Request) -> Plan:
        """What it would do. Audited; nothing else is changed."""

    def planned(self, plan_id: str) -> Plan:
        """One that was made; raises ConfigurationError if there is none, or it was forgotten. Does not block."""

    def preview(self, plan: Plan, count: int) -> Sequence[Diff]:
        """The first letters of a plan that sends, as they would be sent, and what their handlers would make of them.

        Blocks for some seconds for each handler that has a preview of its own.
        """

    def run(self, actor: Actor, plan_id: str, rates: Rates) -> Operation:
        """Begin; it goes on by itself. Raises Refused if what would be done has changed since."""

    def operations(self) -> Sequence[Operation]:
        """Those that are known, the newest first."""

    def operation(self, op_id: str) -> Operation:
        """One; raises ConfigurationError if there is none."""

    def pause(self, actor: Actor, op_id: str) -> Operation:
        """Stop after the chunk in hand."""

    def resume(self, actor: Actor, op_id: str, rates: Rates) -> Operation:
        """Go on with what is still pending."""

    def abort(self, actor: Actor, op_id: str) -> Operation:
        """End after the chunk in hand; what was sent stays sent."""

    def audit(self, *, limit: int, after: str | None = None, text: str = "") -> tuple[Sequence[Audited], str | None]:
        """The newest entries first, and where the next ones begin."""

    def noted(self, actor: Actor, what: str, detail: Mapping[str, object]) -> None:
        """Note in the audit what is no work on letters: that somebody came, or left."""

    def denied(self, actor: Actor, what: str, detail: Mapping[str, object]) -> None:
        """Note in the audit that something was refused."""

    def groups(self) -> Sequence[GroupSummary]:
        """Consumer groups that dead letters name."""
