"""What happens in a simulated run: a value that is drawn from a seed, printed, shortened by hand and played again.

Decides what strikes when. What happens once is in `simulation.py`, and what lasts in `weather.py`.
"""

from __future__ import annotations

import enum
import random
from typing import TYPE_CHECKING

import msgspec

from streamworker import Ordering

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# So many records that the books of what was handled are cut.
_SHARE_OF_LONG_RUNS = 0.01
_QUICK = {
    "members": 1,
    "partitions": 1,
    "batch_records": 0,
    "poison": 0.01,
    "undecodable": 0.0,
    "flaky": 0.01,
    "call_s": 0.0001,
    "max_uncommitted": 16_384,
    "max_inflight": 10_000,
    "max_slice": 500,
}


class Fault(enum.Enum):
    """What can happen; the comment names the fields of `Strike` that it reads besides `at_s`."""

    PRODUCE = "produce"  # amount: how many records
    JOIN = "join"
    LEAVE = "leave"  # which member
    RESTART = "restart"  # which member: leaves, and another joins
    CRASH = "crash"  # which member
    EXPEL = "expel"  # which member loses its partitions and joins again
    DELETE_RECORDS = "delete_records"  # which partition: what lies below the group's offset
    GROW = "grow"  # the topic gets one more partition
    UNAUTHORIZED = "unauthorized"  # which partition: its owner hears once that it may not read it
    CONSUMER_DIES = "consumer_dies"  # which member: its consumer is unusable, and made anew the first time

    # These last for `for_s`.
    COMMITS_FAIL = "commits_fail"  # rate of partitions, error
    COMMITS_UNSENT = "commits_unsent"  # rate, error: the client refuses at once
    SYNCHRONOUS_COMMITS_FAIL = "synchronous_commits_fail"  # rate, error; what could be taken is taken
    ANSWERS_LATE = "answers_late"  # amount: seconds, of asynchronous commits
    ANSWERS_LOST = "answers_lost"  # rate; the commit is taken all the same
    COMMITS_RESENT = "commits_resent"  # rate, amount: seconds after which the client sends it again, without an answer
    COORDINATOR_DOWN = "coordinator_down"
    OFFSETS_UNKNOWN = "offsets_unknown"  # rate, error
    LEADERLESS = "leaderless"  # which partition cannot be fetched
    SEEKS_FAIL = "seeks_fail"  # rate, error
    SLOW = "slow"  # amount: so many times
    HANG = "hang"  # rate of calls, which return when it is over
    FAILING = "failing"  # rate of records, error: the class that the handler raises
    LETTERS_REFUSED = "letters_refused"  # rate, error
    LETTERS_UNSENT = "letters_unsent"  # rate, error: the producer refuses at once, or its queue is full
    LETTERS_SLOW = "letters_slow"  # amount: seconds
    LETTERS_UNANSWERED = "letters_unanswered"  # rate; the letter is taken, and the answer says it is not


# While something lasts the group often changes: partitions are given back by members that are busy or in trouble.
_CHANGES = (Fault.JOIN, Fault.JOIN, Fault.LEAVE, Fault.RESTART, Fault.EXPEL)
_SHARE_OF_CHANGES = 0.4
# At times several things that last begin at once, and the group changes while calls are in progress.
_BUSY = (Fault.HANG, Fault.HANG, Fault.SLOW)
_COMMIT_TROUBLE = (Fault.COMMITS_FAIL, Fault.COMMITS_FAIL, Fault.ANSWERS_LOST, Fault.COORDINATOR_DOWN)
_SHARE_OF_STORMS = 0.3


class Strike(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One thing that happens `at_s` seconds after the start; `which` counts round those that there are."""

    at_s: float
    fault: Fault
    for_s: float = 0.0
    rate: float = 1.0
    amount: float = 0.0
    error: str = ""
    which: int = 0


class Setting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds throughout a run: the fleet, its handler, its configuration and the records' nature."""

    ordering: Ordering
    batch_records: int  # 0 for a single-record handler
    batch_wait_s: float
    attempts: int
    retry_cap_s: float
    on_exhausted: str  # dlq, dlq_key, block, or nothing for a handler without dead letters
    poison: float  # share of records that are
    undecodable: float
    skipped: float  # by a rule
    flaky: float  # share of calls that fail
    call_s: float  # mean time of a call per record
    eager: float  # share of slices whose effects are there at once
    concurrency: int
    members: int
    partitions: int
    start: str  # earliest or latest
    commit_interval_s: float
    max_uncommitted: int
    max_inflight: int
    max_slice: int
    revoke_timeout_s: float
    letter_budget: int
    max_unacknowledged_letters: int
    shortest_wait_s: float  # of the loops
    breaker: bool


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole run. `seed` also decides the fate of each record and the length of each call."""

    seed: int
    setting: Setting
    strikes: tuple[Strike, ...]

    def only(self, *faults: Fault) -> Schedule:
        """The same run, in which nothing else happens."""
        return msgspec.structs.replace(self, strikes=tuple(one for one in self.strikes if one.fault in faults))

    def set(self, **changes: float | str | Ordering) -> Schedule:
        """The same strikes in another setting."""
        return msgspec.structs.replace(self, setting=msgspec.structs.replace(self.setting, **changes))

    def text(self) -> str:
        """As JSON, with a line per strike."""
        strikes = ",\n  ".join(msgspec.json.encode(strike).decode() for strike in self.strikes)
        setting = msgspec.json.encode(self.setting).decode()
        return f'{{"seed": {self.seed},\n "setting": {setting},\n "strikes": [\n  {strikes}\n ]}}\n'


def parse_schedule(text: str) -> Schedule:
    """What `Schedule.text` has written; msgspec.ValidationError says what does not fit, and where."""
    return msgspec.json.decode(text, type=Schedule)


def draw_schedule(seed: int) -> Schedule:
    """The run of a seed."""
    draw = random.Random(seed)
    setting = _draw_setting(draw)
    if draw.random() < _SHARE_OF_LONG_RUNS:
        quick = msgspec.structs.replace(setting, **_QUICK)
        return Schedule(seed=seed, setting=quick, strikes=tuple(_draw_strikes(draw, records=6000, largest=3000)))
    strikes = _draw_strikes(draw, records=draw.choice([50, 200, 500]), largest=draw.choice([15, 40, 200]))
    return Schedule(seed=seed, setting=setting, strikes=tuple(strikes))


def _draw_setting(draw: random.Random) -> Setting:
    on_exhausted = draw.choice(["dlq", "dlq", "dlq_key", "block", ""])
    # A failure that stops a partition must be rare, otherwise all stand still from the first moment on.
    stops = on_exhausted not in ("dlq", "dlq_key")
    ordering = draw.choice(list(Ordering))
    if ordering is Ordering.UNORDERED and on_exhausted == "dlq_key":
        on_exhausted = "dlq"
    return Setting(
        ordering=ordering,
        batch_records=draw.choice([0, 0, 0, 1, 5, 50]),
        batch_wait_s=draw.choice([0.0, 0.2]),
        attempts=draw.choice([1, 3]),
        retry_cap_s=draw.choice([0.1, 2.0]),
        on_exhausted=on_exhausted,
        poison=draw.choice([0.0, 0.01 if stops else 0.05]),
        undecodable=draw.choice([0.0, 0.0, 0.01 if stops else 0.05]),
        skipped=0.0 if not on_exhausted else draw.choice([0.0, 0.0, 0.05]),
        flaky=draw.choice([0.0, 0.02 if stops else 0.1, 0.05 if stops else 0.3]),
        call_s=draw.choice([0.0002, 0.0005, 0.01, 0.2]),
        eager=draw.choice([0.0, 0.3, 1.0]),
        concurrency=draw.choice([1, 4]),
        members=draw.choice([1, 1, 2, 3]),
        partitions=draw.choice([1, 2, 4, 6]),
        start=draw.choice(["earliest", "earliest", "earliest", "latest"]),
        commit_interval_s=draw.choice([0.05, 0.3, 1.0]),
        max_uncommitted=draw.choice([8, 64, 16_384]),
        max_inflight=draw.choice([20, 200, 10_000]),
        max_slice=draw.choice([1, 7, 500]),
        revoke_timeout_s=draw.choice([0.0, 0.05, 3.0, 5.0]),
        letter_budget=draw.choice([3, 1000]),
        max_unacknowledged_letters=draw.choice([2, 1000]),
        shortest_wait_s=draw.choice([0.002, 0.01, 0.03]),
        breaker=draw.choice([False, False, True]),
    )


def _draw_strikes(draw: random.Random, *, records: int, largest: int) -> Iterator[Strike]:
    """Traffic in bursts, and faults of some kinds between them: each seed leaves out about half of the kinds."""
    kinds = [fault for fault in Fault if fault is not Fault.PRODUCE and draw.random() < 0.5]
    density = draw.choice([0.0, 0.4, 0.8, 1.5])
    at_s = 0.0
    while records > 0:
        burst = min(records, draw.randrange(1, largest))
        records -= burst
        yield Strike(at_s=_rounded(at_s), fault=Fault.PRODUCE, amount=float(burst))
        pause_s = draw.choice([0.01, 0.1, 1.0])
        if kinds and density:
            yield from _draw_faults(draw, kinds, density, at_s, pause_s)
        at_s += pause_s


def _draw_faults(
    draw: random.Random, kinds: Sequence[Fault], density: float, at_s: float, pause_s: float
) -> Iterator[Strike]:
    if draw.random() < _SHARE_OF_STORMS:
        for fault in (draw.choice(_BUSY), draw.choice(_COMMIT_TROUBLE), draw.choice(_LASTING)):
            yield _draw_strike(draw, fault, at_s + draw.uniform(0.0, 0.1))
        for _ in range(2):
            yield _draw_strike(draw, draw.choice(_CHANGES), at_s + draw.uniform(0.0, 1.0))
    for _ in range(int(density) + (draw.random() < density % 1)):
        strike = _draw_strike(draw, draw.choice(kinds), at_s + draw.uniform(0.0, pause_s))
        yield strike
        if strike.for_s and draw.random() < _SHARE_OF_CHANGES:
            yield _draw_strike(draw, draw.choice(_CHANGES), strike.at_s + draw.uniform(0.0, strike.for_s))


def _draw_strike(draw: random.Random, fault: Fault, at_s: float) -> Strike:
    fields = {name: draw.choice(options) for name, options in _OPTIONS[fault].items()}
    return msgspec.convert({"at_s": _rounded(at_s), "fault": fault.value, **fields}, Strike)


def _rounded(at_s: float) -> float:
    return round(at_s, 4)


_ANY = {"which": range(12)}
_A_WHILE = {"for_s": (0.05, 0.5, 2.0, 6.0)}
_AT_TIMES = {"rate": (0.2, 0.5, 1.0), **_A_WHILE}
_COMMIT_ERRORS = (
    *("REBALANCE_IN_PROGRESS", "STALE_MEMBER_EPOCH") * 3,  # these are tried again as a partition is given back
    "ILLEGAL_GENERATION",
    "UNKNOWN_MEMBER_ID",
    "COORDINATOR_LOAD_IN_PROGRESS",
    "NOT_COORDINATOR",
    "REQUEST_TIMED_OUT",
    "_TRANSPORT",
    "OFFSET_METADATA_TOO_LARGE",
    "TOPIC_AUTHORIZATION_FAILED",
    "GROUP_AUTHORIZATION_FAILED",
)
_LETTER_ERRORS = ("_MSG_TIMED_OUT", "NOT_ENOUGH_REPLICAS", "MSG_SIZE_TOO_LARGE", "TOPIC_AUTHORIZATION_FAILED")
# What the fields of each fault are drawn from.
_OPTIONS: Mapping[Fault, Mapping[str, Sequence[object]]] = {
    Fault.JOIN: {},
    Fault.LEAVE: _ANY,
    Fault.RESTART: _ANY,
    Fault.CRASH: _ANY,
    Fault.EXPEL: _ANY,
    Fault.CONSUMER_DIES: _ANY,
    Fault.DELETE_RECORDS: _ANY,
    Fault.GROW: {},
    Fault.UNAUTHORIZED: _ANY,
    Fault.COMMITS_FAIL: {**_AT_TIMES, "error": _COMMIT_ERRORS},
    Fault.COMMITS_UNSENT: {**_AT_TIMES, "error": ("_STATE", "_TIMED_OUT")},
    Fault.SYNCHRONOUS_COMMITS_FAIL: {**_AT_TIMES, "error": _COMMIT_ERRORS},
    Fault.ANSWERS_LATE: {**_A_WHILE, "amount": (0.05, 0.5, 5.0)},
    Fault.ANSWERS_LOST: _AT_TIMES,
    Fault.COMMITS_RESENT: {**_AT_TIMES, "amount": (0.5, 3.0, 5.0)},
    Fault.COORDINATOR_DOWN: _A_WHILE,
    Fault.OFFSETS_UNKNOWN: {**_AT_TIMES, "error": ("STALE_MEMBER_EPOCH", "_TIMED_OUT", "GROUP_AUTHORIZATION_FAILED")},
    Fault.SEEKS_FAIL: {**_AT_TIMES, "error": ("_STATE", "_TIMED_OUT")},
    Fault.LEADERLESS: {**_ANY, **_A_WHILE},
    Fault.SLOW: {**_A_WHILE, "amount": (5.0, 50.0)},
    Fault.HANG: {**_AT_TIMES, "for_s": (0.5, 2.0, 4.0, 12.0)},
    Fault.FAILING: {**_AT_TIMES, "error": ("ConnectionError", "DependencyUnavailable")},
    Fault.LETTERS_REFUSED: {**_AT_TIMES, "error": _LETTER_ERRORS},
    Fault.LETTERS_UNSENT: {**_AT_TIMES, "error": ("_QUEUE_FULL", "UNKNOWN_TOPIC_OR_PART")},
    Fault.LETTERS_SLOW: {**_A_WHILE, "amount": (0.05, 0.5, 5.0)},
    Fault.LETTERS_UNANSWERED: _AT_TIMES,
}
_LASTING = [fault for fault, options in _OPTIONS.items() if "for_s" in options]
