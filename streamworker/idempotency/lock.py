"""A lock that one process of many holds, and the fence that makes it safe.

A lock with a lease only makes it unlikely that two work at once: its holder can be stopped for longer than that and
go on. So each acquisition has a `Fence`, a number that grows and a token that is nobody else's, and what is protected
refuses what is older than it has seen. Nothing is voted on by several servers (Redlock): that needs clocks and
pauses that are bounded, gives no fence, and with a fence one server is as safe.

Not decided here: where the lock is kept (`LockStore`). Any thread; a holder blocks nobody but those who ask for it.
"""

from __future__ import annotations

import random
import secrets
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from streamworker.bounds import at_least, at_most
from streamworker.clock import SystemClock
from streamworker.errors import ConfigurationError, LockBusy, LockLost, LockUnavailable
from streamworker.idempotency.claims import Busy, Tokens
from streamworker.idempotency.watchdog import LeaseExtender, ThreadRounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamworker.clock import Clock
    from streamworker.idempotency.watchdog import Held, Rounds

# Of who waits. Who holds a lock briefly is followed in milliseconds; one that is held for long is asked for ten times
# a second, which costs the server a thousandth of a core. To be told of its release instead would take a connection
# per waiter, and the end of a holder that has died is told by nobody.
_FIRST_WAIT_S = 0.005
_LONGEST_WAIT_S = 0.1
_MAX_NAME_CHARS = 200


@dataclass(frozen=True, slots=True)
class Fence:
    """Which holder of the lock `name` this is.

    A resource keeps the last one that it let through, and lets this one through if it `passes` that. The token is
    needed as well: a server that has lost its data, or a replica that took over too early, may give a number twice.
    """

    name: str
    number: int
    token: str

    def passes(self, seen: Fence | None) -> bool:
        """Whether a resource that let `seen` through lets this one through."""
        if seen is None or seen.number < self.number:
            return True
        return (seen.number, seen.token) == (self.number, self.token)


class LockStore(Protocol):
    """Where locks are kept. Any thread, each may block for as long as a client's timeout and raise LockUnavailable.

    Then it may have happened all the same. The same call again puts that right.
    """

    def take(self, name: str, token: str, *, lease_s: float, above: int) -> int | Busy:
        """The number of the fence, greater than each before and than `above`; Busy while another token has it.

        A token that has it already gets it again, with a number that is greater still.
        """

    def extend(self, name: str, token: str, *, lease_s: float) -> bool:
        """Begin the lease anew; false if `token` does not have it."""

    def release(self, name: str, token: str) -> bool:
        """Give it up; false if `token` does not have it."""


class Hold:
    """One acquisition of a lock: it is extended until it is released or lost. Any thread."""

    def __init__(self, fence: Fence, lease: Held[Fence], let_go: Callable[[Hold], bool]) -> None:
        self.fence = fence
        self._lease = lease
        self._let_go = let_go

    @property
    def lost(self) -> bool:
        """Whether somebody else may have it by now. It never comes back."""
        return self._lease.lost

    @property
    def left_s(self) -> float:
        """For how long it is good if it is not extended any more."""
        return self._lease.left_s

    def check(self) -> None:
        """Raise LockLost if it is lost. Before a write it makes a late one rare; only a fence makes it harmless."""
        if self.lost:
            raise LockLost(self.fence.name)

    def release(self) -> bool:
        """Give it up; false if it was lost, or if the store cannot be told: then its lease ends by itself."""
        return self._let_go(self)

    @property
    def lease(self) -> Held[Fence]:
        """Its lease, as who extends it knows it."""
        return self._lease


class Lock:
    """The lock `name` of a store. One object serves all threads of a process; they exclude each other, too.

    It is not re-entrant: who holds it and asks again waits like anybody else.
    """

    def __init__(
        self,
        store: LockStore,
        name: str,
        *,
        lease_s: float = 30.0,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
        rounds: Callable[[Callable[[], float | None], str], Rounds] = ThreadRounds,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        if not 0 < len(name) <= _MAX_NAME_CHARS:
            raise ConfigurationError(f"Lock.name: expected 1 to {_MAX_NAME_CHARS} characters, got {name!r}")
        at_least("Lock.lease_s", lease_s, 0.1)
        at_most("Lock.lease_s", lease_s, 86_400)
        self.name = name
        self.lease_s = lease_s
        self._store = store
        self._clock = SystemClock() if clock is None else clock
        self._draw = draw
        self._closing = threading.Event()
        self._wait = self._closing.wait if wait is None else wait
        self._tokens = Tokens(secrets.token_hex(8))
        # Of an acquisition that was given up without an answer. It may be the lock's, now or when a server that hangs
        # comes to it, so the next one asks with it: it would wait for itself otherwise.
        self._unsettled: deque[str] = deque(maxlen=1)
        self._extender = LeaseExtender(self._extend, name=name, lease_s=lease_s, clock=self._clock, rounds=rounds)

    def acquire(
        self, timeout_s: float, *, above: int = 0, on_lost: Callable[[Fence], None] | None = None
    ) -> Hold | None:
        """The lock, if it can be had within `timeout_s`; None if somebody else has it. 0 asks once.

        Takes at most a call of the client's longer. Raises LockUnavailable if the store cannot be asked for all that
        time. `above` is the number that the protected resource has seen last, for a store that has lost its data.
        `on_lost` is called by the thread that extends, and must not block.
        """
        token, settled = self._token(), True
        until_s = self._clock.monotonic_s() + timeout_s
        waits = self._waits()
        while True:
            sent_s = self._clock.monotonic_s()
            failed: LockUnavailable | None = None
            try:
                answer = self._store.take(self.name, token, lease_s=self.lease_s, above=above)
            except LockUnavailable as error:
                failed, settled = error, False
            else:
                if isinstance(answer, int):
                    return self._hold(Fence(self.name, answer, token), sent_s, on_lost)
            left_s = until_s - self._clock.monotonic_s()
            if left_s <= 0 or self._closing.is_set():
                break
            self._wait(min(next(waits), left_s))
        if not settled:
            self._unsettled.append(token)
        if failed is not None:
            raise failed
        return None

    @contextmanager
    def held(self, *, timeout_s: float, above: int = 0) -> Iterator[Hold]:
        """Hold it for a block. Raises as `acquire`, and LockBusy if somebody else has it for all of `timeout_s`."""
        hold = self.acquire(timeout_s, above=above)
        if hold is None:
            raise LockBusy(f"the lock {self.name} was somebody else's for {timeout_s:g} s")
        try:
            yield hold
        finally:
            hold.release()

    def close(self) -> None:
        """Whoever waits for it gives up, and nothing is extended any more. Idempotent; the store is the caller's."""
        self._closing.set()
        self._extender.close()

    def _token(self) -> str:
        try:
            return self._unsettled.pop()
        except IndexError:
            return self._tokens.next()

    def _waits(self) -> Iterator[float]:
        wait_s = _FIRST_WAIT_S
        while True:
            yield wait_s * (0.5 + 0.5 * self._draw())
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _hold(self, fence: Fence, sent_s: float, on_lost: Callable[[Fence], None] | None) -> Hold:
        [held] = self._extender.hold([fence], since_s=sent_s, on_lost=on_lost)
        return Hold(fence, held, self._let_go)

    def _let_go(self, hold: Hold) -> bool:
        self._extender.drop([hold.lease])
        hold.lease.lose()
        try:
            return self._store.release(self.name, hold.fence.token)
        except LockUnavailable:
            return False

    def _extend(self, fences: Sequence[Fence]) -> Sequence[bool]:
        return [self._store.extend(self.name, one.token, lease_s=self.lease_s) for one in fences]
