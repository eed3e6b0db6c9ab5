"""The faults of a run that last: what the broker answers, how long calls take and what they raise while they do.

Nothing is switched on or off: whoever asks is told what holds at the moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from typing import TYPE_CHECKING

from scenarios.schedule import Fault

from streamworker import DependencyUnavailable, PoisonError
from streamworker.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scenarios.schedule import Schedule, Strike

    from streamworker.record import Record
    from streamworker.testing.memory_broker import MemoryBroker
    from streamworker.work import Slice

# The longest pause before a dead letter is tried again, and the commit timeout: faults are felt after they are over.
LETTER_PAUSE_S, COMMIT_TIMEOUT_S = 4.0, 2.0
_LONGEST_STOP_S = 31.0  # of a partition that tries again by itself
_LATENCY_S = 0.002
_QUICK_CALL_S = 0.01
_LONGEST_CALL_S = 6.0  # but for those that hang
_COMMIT_FAULTS = (
    Fault.COMMITS_FAIL,
    Fault.COMMITS_UNSENT,
    Fault.SYNCHRONOUS_COMMITS_FAIL,
    Fault.ANSWERS_LATE,
    Fault.ANSWERS_LOST,
    Fault.COMMITS_RESENT,
    Fault.COORDINATOR_DOWN,
)
_LETTER_FAULTS = (Fault.LETTERS_REFUSED, Fault.LETTERS_UNSENT, Fault.LETTERS_SLOW, Fault.LETTERS_UNANSWERED)
_ERRORS = {"ConnectionError": ConnectionError, "DependencyUnavailable": DependencyUnavailable}


@dataclass(frozen=True, slots=True)
class Spell:
    """A strike in the world's time."""

    strike: Strike
    from_s: float
    until_s: float


class Weather:
    """What lasts in the run of a schedule that begins at `began_s`."""

    def __init__(self, schedule: Schedule, began_s: float, now_s: Callable[[], float]) -> None:
        self.spells = [Spell(one, began_s + one.at_s, began_s + one.at_s + one.for_s) for one in schedule.strikes]
        self.over_s = max((spell.until_s for spell in self.spells), default=began_s)
        self.mended = False  # a person has made the handlers good
        self._seed = schedule.seed
        self._setting = schedule.setting
        self._now_s = now_s
        self._by_fault = {fault: [one for one in self.spells if one.strike.fault is fault] for fault in Fault}
        self._numbers = count()
        self._calls: dict[tuple[int, int], int] = {}  # of each record

    def link(self, broker: MemoryBroker) -> None:
        """Let the broker ask."""
        broker.commit_error = lambda _key: self._error(Fault.COMMITS_FAIL)
        broker.commit_unsent = lambda: self._error(Fault.COMMITS_UNSENT)
        broker.commit_raises = lambda: self._error(Fault.SYNCHRONOUS_COMMITS_FAIL)
        broker.commit_unanswered = lambda: self._hit(Fault.ANSWERS_LOST) is not None
        broker.commit_resent_after_s = self._commit_resent_after_s
        broker.offsets_error = self._offsets_error
        broker.seek_error = lambda: self._error(Fault.SEEKS_FAIL)
        broker.produce_error = lambda _topic: self._error(Fault.LETTERS_REFUSED)
        broker.produce_unsent = self._produce_unsent
        broker.produce_unanswered = lambda _topic: "_MSG_TIMED_OUT" if self._hit(Fault.LETTERS_UNANSWERED) else None

    def turn(self, broker: MemoryBroker) -> None:
        """Bring those switches of the broker up to date that it does not ask for."""
        broker.coordinator_up = not self._active(Fault.COORDINATOR_DOWN)
        broker.commit_latency_s = self._latency_s(Fault.ANSWERS_LATE)
        broker.produce_latency_s = self._latency_s(Fault.LETTERS_SLOW)
        keys = broker.partitions("in")
        broker.leaderless = {keys[spell.strike.which % len(keys)] for spell in self._active(Fault.LEADERLESS)}

    def calm(self, from_s: float, until_s: float) -> bool:
        """Whether nothing was felt meanwhile that excuses repeats.

        That is what keeps commits or dead letters from being acknowledged in time, and partitions from going on.
        """
        return not any(
            spell.from_s <= until_s and from_s <= spell.until_s + _aftermath_s(spell.strike)
            for fault in (*_COMMIT_FAULTS, *_LETTER_FAULTS, Fault.UNAUTHORIZED)
            for spell in self._by_fault[fault]
        )

    def duration_s(self, slice_: Slice) -> float:
        """How long a thread takes for a slice that begins now; all are quick when the weather is over."""
        call_s = min(self._setting.call_s, _QUICK_CALL_S) if self.over else self._setting.call_s
        seconds = call_s * len(slice_.messages) * (0.1 + 1.9 * self.draw("duration"))
        for spell in self._active(Fault.SLOW):
            seconds *= spell.strike.amount
        seconds = min(seconds, _LONGEST_CALL_S)
        hang = self._hit(Fault.HANG)
        return seconds if hang is None else max(seconds, hang.until_s - self._now_s())

    def befall(self, record: Record[bytes]) -> None:
        """Raise what a handler raises for a record now; when the weather is over, only bad records fail."""
        place = (record.partition, record.offset)
        call = self._calls[place] = self._calls.get(place, 0) + 1
        if self.mended:
            return
        if self.chance("poison", place) < self._setting.poison:
            raise PoisonError("a bad record")
        if self.chance("skipped", place) < self._setting.skipped:
            raise LookupError("nobody needs it")
        for spell in self._active(Fault.FAILING):
            if self.chance("failing", place, call) < spell.strike.rate:
                raise _ERRORS[spell.strike.error]("away")
        if not self.over and self.chance("flaky", place, call) < self._setting.flaky:
            raise ConnectionError("away")

    def chance(self, *what: object) -> float:
        """Uniform in [0, 1); the same question has the same answer in all runs of a seed, whatever is left out."""
        digest = blake2b(repr((self._seed, what)).encode(), digest_size=4).digest()
        return int.from_bytes(digest) / 2**32

    def draw(self, what: str) -> float:
        """Uniform in [0, 1), another one each time."""
        return self.chance(what, next(self._numbers))

    @property
    def over(self) -> bool:
        """Whether no fault lasts any more."""
        return self._now_s() >= self.over_s

    def _active(self, fault: Fault) -> Sequence[Spell]:
        now_s = self._now_s()
        return [spell for spell in self._by_fault[fault] if spell.from_s <= now_s < spell.until_s]

    def _hit(self, fault: Fault) -> Spell | None:
        """The fault of this kind that hits what is tried now, if one does."""
        return next((one for one in self._active(fault) if self.draw(fault.value) < one.strike.rate), None)

    def _error(self, fault: Fault) -> str | None:
        spell = self._hit(fault)
        return None if spell is None else spell.strike.error

    def _latency_s(self, fault: Fault) -> float:
        return max([_LATENCY_S, *(spell.strike.amount for spell in self._active(fault))])

    def _commit_resent_after_s(self) -> float | None:
        spell = self._hit(Fault.COMMITS_RESENT)
        return None if spell is None else spell.strike.amount

    def _offsets_error(self) -> str | None:
        return "_TIMED_OUT" if self._active(Fault.COORDINATOR_DOWN) else self._error(Fault.OFFSETS_UNKNOWN)

    def _produce_unsent(self) -> Exception | None:
        error = self._error(Fault.LETTERS_UNSENT)
        if error == "_QUEUE_FULL":
            return BufferError(error)
        return None if error is None else ClientError("the producer refuses", code=error)


def _aftermath_s(strike: Strike) -> float:
    if strike.fault is Fault.UNAUTHORIZED:
        return _LONGEST_STOP_S
    return strike.amount + (LETTER_PAUSE_S if strike.fault in _LETTER_FAULTS else COMMIT_TIMEOUT_S)
