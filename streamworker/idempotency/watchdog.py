"""Keeps leases while their holders are busy: claims while handlers run, locks while they are held.

Whether a lease is still good is the holder's own reckoning, by its monotonic clock and from before the request was sent
that began it. So a process that was stopped needs nobody to tell it, and a server that does not answer, or whose wall
clock jumps, cannot make a lease look longer than it is.

Any thread holds and drops; one thread extends, which is there only while something is held.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from streamworker.clock import Clock

_JOIN_S = 1.0
# Shares of a lease. It is extended after a third, with all that would be due soon, so that leases that began one after
# the other go along in one request; two thirds are left for further tries where that one fails.
_EXTEND_AFTER = 1 / 3
_ALONG_AFTER = 1 / 4
_TRY_AGAIN_AFTER = 1 / 12
_log = logging.getLogger(__name__)

L = TypeVar("L")


class Held(Generic[L]):
    """A lease in hand. Its holder reads `lost` and `left_s`, from any thread; the rest is for who extends it."""

    __slots__ = ("_clock", "_lease_s", "_lost", "_since_s", "lease", "on_lost", "try_at_s")

    def __init__(
        self, lease: L, lease_s: float, since_s: float, clock: Clock, on_lost: Callable[[L], None] | None
    ) -> None:
        self.lease = lease
        self.on_lost = on_lost
        self._lease_s = lease_s
        self._clock = clock
        self._lost = False
        self.renew(since_s)

    @property
    def lost(self) -> bool:
        """Whether somebody else may have it: it was refused, or its time is over. It never comes back."""
        return self.left_s <= 0

    @property
    def left_s(self) -> float:
        """For how long it is good if it is not extended any more."""
        left_s = self._since_s + self._lease_s - self._clock.monotonic_s()
        if left_s <= 0:
            self.lose()  # an extension that is on its way comes too late for whoever reads this now
        return 0.0 if self._lost else left_s

    def renew(self, since_s: float) -> None:
        """It was extended by a request that was sent at `since_s`."""
        self._since_s = since_s
        self.try_at_s = since_s + _EXTEND_AFTER * self._lease_s

    def lose(self) -> None:
        """It was refused."""
        self._lost = True


class Rounds(Protocol):
    """Calls a step again and again, each time after as many seconds as it returned, until it returns None."""

    def wake(self) -> None:
        """There is something to do again. Any thread, does not block."""

    def close(self) -> None:
        """No more of it. Idempotent."""


class ThreadRounds:
    """`Rounds` on a thread that ends when there is nothing to do."""

    def __init__(self, step: Callable[[], float | None], name: str) -> None:
        self._step = step
        self._name = name
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._woken = False

    def wake(self) -> None:
        """See `Rounds.wake`."""
        with self._lock:
            self._woken = True
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(
                    target=self._run, name=f"streamworker-extender-{self._name}", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """See `Rounds.close`."""
        self._stopping.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_S)

    def _run(self) -> None:
        while True:
            wait_s = self._step()
            with self._lock:
                if wait_s is None and not self._woken:
                    self._thread = None
                    return
                self._woken = False
            if self._stopping.wait(wait_s or 0.0):
                return


class LeaseExtender(Generic[L]):
    """Extends what is in hand, and tells the holder what was lost.

    `extend` answers whether each is still held, in order; if it raises it is called again while there is time.
    """

    def __init__(
        self,
        extend: Callable[[Sequence[L]], Sequence[bool]],
        *,
        name: str,
        lease_s: float,
        clock: Clock,
        rounds: Callable[[Callable[[], float | None], str], Rounds] = ThreadRounds,
    ) -> None:
        self._extend = extend
        self._name = name
        self._lease_s = lease_s
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[int, Held[L]] = {}
        self._rounds = rounds(self.step, name)

    def hold(
        self, leases: Iterable[L], *, since_s: float, on_lost: Callable[[L], None] | None = None
    ) -> Sequence[Held[L]]:
        """Take these in hand, which were asked for at `since_s`: read the clock before the request is sent.

        `on_lost` is called at most once for each, by the thread that extends, so it must not block.
        """
        found = [Held(one, self._lease_s, since_s, self._clock, on_lost) for one in leases]
        with self._lock:
            self._held.update((id(one), one) for one in found)
        if found:
            self._rounds.wake()
        return found

    def drop(self, held: Iterable[Held[L]]) -> None:
        """Extend these no more; to be called before they are completed or released. Idempotent."""
        with self._lock:
            for one in held:
                self._held.pop(id(one), None)

    def step(self) -> float | None:
        """Extend what is due; seconds until something is due again, None if nothing is in hand. One thread."""
        now_s = self._clock.monotonic_s()
        self._give_up([one for one in self._in_hand() if one.lost])
        in_hand = self._in_hand()
        if any(one.try_at_s <= now_s for one in in_hand):
            soon_s = now_s + (_EXTEND_AFTER - _ALONG_AFTER) * self._lease_s
            self._extend_those([one for one in in_hand if one.try_at_s <= soon_s], now_s)
        due_s = min((one.try_at_s for one in self._in_hand()), default=None)
        return None if due_s is None else max(due_s - self._clock.monotonic_s(), 0.0)

    def close(self) -> None:
        """Extend nothing any more; what is in hand is lost when its time is over. Idempotent."""
        self._rounds.close()

    def _in_hand(self) -> Sequence[Held[L]]:
        with self._lock:
            return list(self._held.values())

    def _extend_those(self, due: Sequence[Held[L]], now_s: float) -> None:
        try:
            answers = self._extend([one.lease for one in due])
        except Exception as error:  # noqa: BLE001 - the top of a thread: whatever it is, it is tried again in time
            _log.warning("leases of %s are not extended: %s", self._name, error)
            for one in due:
                # At its end it must be looked at again, so that its holder is told.
                one.try_at_s = now_s + min(_TRY_AGAIN_AFTER * self._lease_s, one.left_s)
            return
        for one, good in zip(due, answers, strict=True):
            if good:
                one.renew(now_s)
        self._give_up([one for one, good in zip(due, answers, strict=True) if not good])

    def _give_up(self, lost: Sequence[Held[L]]) -> None:
        for one in lost:
            with self._lock:
                if self._held.pop(id(one), None) is None:
                    continue  # dropped meanwhile: it was completed or released, and no answer says anything of it
            one.lose()
            _log.warning("a lease of %s is lost: %s", self._name, one.lease)
            self._tell(one)

    def _tell(self, lost: Held[L]) -> None:
        try:
            if lost.on_lost is not None:
                lost.on_lost(lost.lease)
        except Exception:  # noqa: BLE001 - the holder's code, and others' leases are to be extended
            _log.exception("who was to be told that a lease of %s is lost has failed", self._name)
