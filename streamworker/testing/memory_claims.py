"""Claims and locks as Redis keeps them, in memory and in the time of a `Clock`.

`away` is an outage, `forget` a flush or a replica that took its place too early. The contract suite holds both to
the same promises. Any thread.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.errors import ClaimsUnavailable, LockUnavailable
from streamworker.idempotency.claims import GRANTED, Busy, Claim, Completion, Done, Tokens, busy, refuse_large
from streamworker.idempotency.lock import Lock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker.clock import Clock
    from streamworker.idempotency.claims import Answer
    from streamworker.testing.virtual_time import VirtualTime


@dataclass(frozen=True, slots=True)
class InWork:
    """What is kept of a claim that was granted."""

    token: str


Note = InWork | Done


def after_claim(note: Note | None, token: str) -> Note:
    """What is kept for an id after `token` has claimed it; that claim is granted if it is its own."""
    return InWork(token) if note is None else note


def after_complete(note: Note | None, token: str, result: bytes) -> tuple[Note | None, Completion]:
    """What is kept after `token` has noted that it is done, and what that found."""
    if note == InWork(token):
        return Done(result), Completion.COMPLETED
    return note, Completion.ALREADY_DONE if isinstance(note, Done) else Completion.LOST


class _Keys:
    """Values that end at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._values: dict[str, tuple[object, float]] = {}

    def get(self, key: str) -> object:
        value, ends_s = self._values.get(key, (None, 0.0))
        return value if self._clock.monotonic_s() < ends_s else None

    def left_s(self, key: str) -> float:
        return self._values[key][1] - self._clock.monotonic_s()

    def put(self, key: str, value: object, ttl_s: float) -> None:
        self._values[key] = (value, self._clock.monotonic_s() + ttl_s)

    def drop(self, key: str) -> None:
        self._values.pop(key, None)

    def clear(self) -> None:
        self._values.clear()


class MemoryClaims:
    """`Claims` in memory. Those of several workers are one object, since a token is made per claim."""

    def __init__(
        self, clock: Clock, *, lease_s: float = 30.0, ttl_s: float = 86_400.0, draw: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.away = False
        self.lease_s = lease_s
        self._ttl_s = ttl_s
        self._draw = draw
        self._lock = threading.Lock()
        self._keys = _Keys(clock)
        self._tokens = Tokens("memory")

    def make(self, claim_id: str) -> Claim:
        """See `Claims.make`."""
        return Claim(claim_id, self._tokens.next())

    def claim(self, claims: Sequence[Claim]) -> Sequence[Answer]:
        """See `Claims.claim`."""
        self._refuse_if_away()
        with self._lock:
            return [self._claim(one) for one in claims]

    def complete(self, results: Sequence[tuple[Claim, bytes]]) -> Sequence[Completion]:
        """See `Claims.complete`."""
        refuse_large(results)
        self._refuse_if_away()
        with self._lock:
            return [self._complete(claim, result) for claim, result in results]

    def release(self, claims: Sequence[Claim]) -> None:
        """See `Claims.release`."""
        self._refuse_if_away()
        with self._lock:
            for claim in claims:
                if self._note(claim) == InWork(claim.token):
                    self._keys.drop(claim.id)

    def extend(self, claims: Sequence[Claim]) -> Sequence[bool]:
        """See `Claims.extend`."""
        self._refuse_if_away()
        with self._lock:
            return [self._extend(one) for one in claims]

    def forget(self, claim_id: str | None = None) -> None:
        """Lose what is kept of one id, or of all."""
        with self._lock:
            if claim_id is None:
                self._keys.clear()
            else:
                self._keys.drop(claim_id)

    def _note(self, claim: Claim) -> Note | None:
        note = self._keys.get(claim.id)
        assert note is None or isinstance(note, InWork | Done)
        return note

    def _claim(self, claim: Claim) -> Answer:
        note = after_claim(self._note(claim), claim.token)
        if isinstance(note, Done):
            return note
        if note.token != claim.token:
            return busy(self._keys.left_s(claim.id), self.lease_s, self._draw())
        self._keys.put(claim.id, note, self.lease_s)
        return GRANTED

    def _complete(self, claim: Claim, result: bytes) -> Completion:
        note, found = after_complete(self._note(claim), claim.token, result)
        if found is Completion.COMPLETED:
            self._keys.put(claim.id, note, self._ttl_s)
        return found

    def _extend(self, claim: Claim) -> bool:
        note = self._note(claim)
        if note != InWork(claim.token):
            return False
        self._keys.put(claim.id, note, self.lease_s)
        return True

    def _refuse_if_away(self) -> None:
        if self.away:
            raise ClaimsUnavailable("the claims in memory are away")


class MemoryLocks:
    """`LockStore` in memory: the server that all locks of a test share."""

    def __init__(self, clock: Clock) -> None:
        self.away = False
        self._lock = threading.Lock()
        self._keys = _Keys(clock)
        self._numbers: dict[str, int] = {}

    def take(self, name: str, token: str, *, lease_s: float, above: int) -> int | Busy:
        """See `LockStore.take`."""
        self._refuse_if_away()
        with self._lock:
            if self._keys.get(name) not in (None, token):
                return Busy(self._keys.left_s(name))
            self._keys.put(name, token, lease_s)
            self._numbers[name] = max(self._numbers.get(name, 0), above) + 1
            return self._numbers[name]

    def extend(self, name: str, token: str, *, lease_s: float) -> bool:
        """See `LockStore.extend`."""
        self._refuse_if_away()
        with self._lock:
            if self._keys.get(name) != token:
                return False
            self._keys.put(name, token, lease_s)
            return True

    def release(self, name: str, token: str) -> bool:
        """See `LockStore.release`."""
        self._refuse_if_away()
        with self._lock:
            if self._keys.get(name) != token:
                return False
            self._keys.drop(name)
            return True

    def forget(self) -> None:
        """Lose everything, the numbers too."""
        with self._lock:
            self._keys.clear()
            self._numbers.clear()

    def _refuse_if_away(self) -> None:
        if self.away:
            raise LockUnavailable("the locks in memory are away")


class VirtualRounds:
    """`Rounds` that virtual time makes: no thread, and a lease is extended while time passes."""

    def __init__(self, time: VirtualTime, step: Callable[[], float | None]) -> None:
        self._time = time
        self._step = step
        self._on_agenda = self._closed = False

    def wake(self) -> None:
        """See `Rounds.wake`."""
        if not self._on_agenda:
            self._on_agenda = True
            self._time.call_in(0.0, self._round)

    def close(self) -> None:
        """See `Rounds.close`."""
        self._closed = True

    def _round(self) -> None:
        wait_s = None if self._closed else self._step()
        self._on_agenda = wait_s is not None
        if wait_s is not None:
            self._time.call_in(wait_s, self._round)


class MemoryLock(Lock):
    """The lock `name` of `locks`: it waits in virtual time, in which its lease is extended, too."""

    def __init__(self, locks: MemoryLocks, name: str, time: VirtualTime, *, lease_s: float = 30.0) -> None:
        super().__init__(
            locks,
            name,
            lease_s=lease_s,
            clock=time,
            draw=lambda: 1.0,
            rounds=lambda step, _: VirtualRounds(time, step),
            wait=lambda seconds: time.wait(seconds, lambda: False),
        )
