"""Who is signed in, and who has tried too often. In memory: after a restart everybody signs in again.

Decided here: when a session ends, and who has to wait. The event loop owns both objects.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamworker.clock import Clock
    from streamworker.console.access import Identity

_MOST_SESSIONS = 1000
_MOST_SOURCES = 1000
_FREE_TRIES = 5
_FIRST_WAIT_S = 30.0
_LONGEST_WAIT_S = 900.0
_FORGOTTEN_AFTER_S = 3600.0


@dataclass(slots=True)
class Session:
    """Somebody's, from signing in until one of the two times."""

    identity: Identity
    csrf: str  # in each of its forms, and in a cookie that other sites' requests do not carry
    ends_s: float
    idle_until_s: float


class Sessions:
    """Open ones, by a digest of what the cookie says, so that how long a look takes tells nothing of it."""

    def __init__(self, clock: Clock, *, session_s: float, idle_s: float) -> None:
        self._clock = clock
        self._session_s = session_s
        self._idle_s = idle_s
        self._open: OrderedDict[str, Session] = OrderedDict()  # the one that was used last at the end

    def begin(self, identity: Identity) -> tuple[str, Session]:
        """A new one, and what the cookie is to say. The one that was unused for longest makes room."""
        now_s = self._clock.monotonic_s()
        cookie, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        session = Session(identity, csrf, now_s + self._session_s, now_s + self._idle_s)
        self._open[_digest(cookie)] = session
        while len(self._open) > _MOST_SESSIONS:
            self._open.popitem(last=False)
        return cookie, session

    def find(self, cookie: str | None, *, used: bool = True) -> Session | None:
        """The one of the cookie, if it has not ended; `used` says whether this counts as use."""
        if not cookie:
            return None
        digest, now_s = _digest(cookie), self._clock.monotonic_s()
        session = self._open.get(digest)
        if session is None:
            return None
        if now_s >= min(session.ends_s, session.idle_until_s):
            del self._open[digest]
            return None
        if used:
            session.idle_until_s = now_s + self._idle_s
            self._open.move_to_end(digest)
        return session

    def end(self, cookie: str | None) -> None:
        """Idempotent."""
        if cookie:
            self._open.pop(_digest(cookie), None)


@dataclass(slots=True)
class _Tries:
    failed: int
    last_s: float
    until_s: float


class Lockout:
    """After five failures from one place each further one doubles the wait, to a quarter of an hour."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sources: OrderedDict[str, _Tries] = OrderedDict()

    def wait_s(self, source: str) -> float:
        """How long nothing from there is looked at; 0: it is."""
        tries = self._sources.get(source)
        return 0.0 if tries is None else max(0.0, tries.until_s - self._clock.monotonic_s())

    def failed(self, source: str) -> float:
        """Note a failure; returns the wait."""
        now_s = self._clock.monotonic_s()
        tries = self._sources.pop(source, None)
        if tries is None or now_s - tries.last_s > _FORGOTTEN_AFTER_S:
            tries = _Tries(0, now_s, 0.0)
        tries.failed += 1
        tries.last_s = now_s
        if tries.failed >= _FREE_TRIES:
            tries.until_s = now_s + min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(tries.failed - _FREE_TRIES, 10))
        self._sources[source] = tries
        while len(self._sources) > _MOST_SOURCES:
            self._sources.popitem(last=False)
        return self.wait_s(source)

    def succeeded(self, source: str) -> None:
        """Forget its failures."""
        self._sources.pop(source, None)


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).hexdigest()
