"""The thread that hears what other processes have changed, and that knows whether it hears it.

Redis tells nobody who was away, and redis-py subscribes anew without a word. So the caches are flushed at each
confirmation of a subscription, after it: what was missed before cannot matter, and what comes later is heard. A
connection may die without a sign, so the server is asked for an answer each second; without one the caches know that
they may be missing something. A server that is another one than before may have lost the last writes and leases of the
one before; then all that it has is made unreachable. Until that is known nothing is read from it.
"""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING, Protocol, cast

from streamworker.redis_client import redis_errors, refuses

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from streamworker.clock import Clock
    from streamworker.redis_client import Client, Subscriptions

_TICK_S = 0.1  # within which a new cache is heard, and the end of the process
_ASK_S = 1.0  # between two questions whether the server is there
_ANSWER_S = 1.0  # without an answer for so long it is not
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0  # before it is tried again


class Listening(Protocol):
    """What a cache is told, on the thread of the link."""

    def linked(self) -> None:
        """All that is said from now on is heard."""

    def unlinked(self) -> None:
        """From now on something may be missed, and the server may become another one."""

    def verified(self) -> None:
        """The server is the one that it was, or it has been renewed."""

    def heard(self, payload: bytes) -> None:
        """Something was said on the channel of the cache."""

    def server_changed(self) -> None:
        """The server is another one than before, or was started anew."""

    def mend(self) -> None:
        """The server is there: a good time to tell it what it has missed."""


class InvalidationLink:
    """Listens for the caches that were added, until it is closed."""

    def __init__(self, connect: Callable[[], Client], *, clock: Clock, cluster: bool) -> None:
        self._connect = connect  # may raise what redis-py raises
        self._monotonic_s = clock.monotonic_s
        self._cluster = cluster
        self._errors = redis_errors()
        self._listening: Mapping[str, Listening] = {}  # by channel; replaced as a whole by whoever adds one
        self._subscribed: set[str] = set()  # on the connection in hand; the thread's own, as the next two
        self._answered = False
        self._server: Hashable = None  # who it was when it was asked last; None: not known
        self._tells_who_it_is = True
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamworker-cache", daemon=True)

    def add(self, channel: str, cache: Listening) -> None:
        """Listen on `channel`, too. From one thread at a time."""
        self._listening = {**self._listening, channel: cache}
        if not self._thread.ident:
            self._thread.start()

    def close(self) -> None:
        """End. Idempotent."""
        self._stopping.set()
        if self._thread.ident:
            self._thread.join(2 * _ANSWER_S)

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._stopping.is_set():
            refused = self._answered = False
            try:
                with closing(self._connect()) as client:
                    self._ask_who_it_is(client)
                    with closing(client.pubsub()) as pubsub:  # type: ignore[no-untyped-call]  # redis-py says nothing
                        self._listen(client, pubsub)
            except Exception as error:  # noqa: BLE001 - whatever redis-py raises: without this thread all would be old
                refused = refuses(error)
            for cache in self._listening.values():
                cache.unlinked()
                if refused:  # it is there, and may be read, though nobody may listen to it
                    cache.verified()
            pause_s = _FIRST_PAUSE_S if self._answered else min(2 * pause_s, _LONGEST_PAUSE_S)
            self._stopping.wait(pause_s)

    def _listen(self, client: Client, pubsub: Subscriptions) -> None:
        """Listen until there is no answer; raises what redis-py raises."""
        self._subscribed = set()
        asked_s = answered_s = self._monotonic_s()
        while not self._stopping.is_set():
            self._subscribe(pubsub)
            if not self._subscribed:
                self._stopping.wait(_TICK_S)
                continue
            kind = self._take(pubsub)
            now_s = self._monotonic_s()
            if kind == "pong":
                answered_s = now_s
                self._ask_who_it_is(client)
                for cache in self._listening.values():
                    cache.mend()
            if asked_s > answered_s:
                if now_s - asked_s > _ANSWER_S:
                    return
            elif now_s - asked_s >= _ASK_S:
                pubsub.ping()
                asked_s = now_s

    def _subscribe(self, pubsub: Subscriptions) -> None:
        new = self._listening.keys() - self._subscribed
        if new:
            pubsub.subscribe(*new)
            self._subscribed |= new

    def _take(self, pubsub: Subscriptions) -> str | None:
        """Wait for a message and pass it on; its kind."""
        message = pubsub.get_message(timeout=_TICK_S)
        if message is None:
            return None
        self._answered = True
        kind = cast("str", message["type"])
        cache = None if message["channel"] is None else self._listening.get(message["channel"].decode())
        if cache is not None and kind == "subscribe":
            cache.linked()
        elif cache is not None and kind == "message":
            cache.heard(message["data"])
        return kind

    def _ask_who_it_is(self, client: Client) -> None:
        """Find out whether the server is another one; raises what redis-py raises."""
        server = self._who_it_is(client) if self._tells_who_it_is else None
        known, self._server = self._server, server
        for cache in self._listening.values():
            if known is not None and server is not None and server != known:
                cache.server_changed()
            cache.verified()

    def _who_it_is(self, client: Client) -> Hashable:
        try:
            if self._cluster:
                answers = client.info("server", target_nodes="primaries")
                # One node answers for itself, several by their names.
                nodes = answers.values() if "run_id" not in answers else (answers,)
                return frozenset(node["run_id"] for node in nodes)
            return client.info("server")["run_id"], client.info("replication").get("master_replid")
        except self._errors as error:
            if not refuses(error):
                raise
            self._tells_who_it_is = False
            return None
