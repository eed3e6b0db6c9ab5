"""Processes with caches over one Redis, as the tests of the cache see them: all in this one, each with its own link."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
from redis import ConnectionError as RedisConnectionError

from streamworker.cache.caches import BREAKER
from streamworker.cache.invalidation import InvalidationLink
from streamworker.cache.redis import Namespace, RedisStore
from streamworker.cache.store import Message
from streamworker.cache.two_level import CacheOptions, TwoLevelCache
from streamworker.clock import SystemClock
from streamworker.redis_client import redis_client
from streamworker.resilience.breaker import CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis import Redis

_CLOCK = SystemClock()
_PATIENCE_S = 20.0
_NAMESPACE = Namespace("shop", "customers")


class Customer(msgspec.Struct, frozen=True):
    name: str
    version: int


@dataclass
class Truth:
    """What the caches are in front of. A load reads first and returns later, as a slow database does."""

    rows: dict[str, Customer] = field(default_factory=dict)
    loads: int = 0
    delay_s: Callable[[], float] = lambda: 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    pause: threading.Event = field(default_factory=threading.Event)

    def load(self, keys: Sequence[str]) -> dict[str, Customer]:
        with self.lock:
            self.loads += 1
            found = {key: self.rows[key] for key in keys if key in self.rows}
        if delay_s := self.delay_s():
            self.pause.wait(delay_s)
        return found

    def write(self, key: str) -> Customer:
        with self.lock:
            before = self.rows.get(key)
            version = 1 if before is None else before.version + 1
            self.rows[key] = Customer(f"{key} {version}", version)
            return self.rows[key]


class Process:
    """A cache with a client and a breaker of its own, and, but for `alone`, a link."""

    def __init__(
        self,
        url: str,
        truth: Truth,
        *,
        store: type[RedisStore] = RedisStore,
        timeout_s: float = 0.05,
        alone: bool = False,
        **options: object,
    ) -> None:
        cluster = "+cluster" in url
        # As in `Caches`, but where a store with a planted fault may stand.
        self.client = redis_client(url, timeout_s=timeout_s, connections=64, option="url")
        self.executor = ThreadPoolExecutor(2)
        self.gate = CircuitBreaker(BREAKER, clock=_CLOCK)
        declared: CacheOptions[str, Customer] = CacheOptions(
            name="customers",
            load_many=truth.load,
            type_=Customer,
            **{"version": lambda one: one.version, **options},  # type: ignore[arg-type]
        )
        self.cache: TwoLevelCache[str, Customer] = TwoLevelCache(
            declared,
            clock=_CLOCK,
            executor=self.executor,
            pause=threading.Event().wait,
            store=lambda origin, new_epoch: store(
                Namespace("shop", "customers", cluster=cluster),
                lambda: self.client,
                origin=origin,
                new_epoch=new_epoch,
            ),
            gate=self.gate,
            timeout_s=timeout_s,
        )
        self.truth = truth
        self._marks: set[str] = set()
        self._heard = self.cache.heard
        self.cache.heard = self._hear  # type: ignore[method-assign]
        self.link = None
        if not alone:
            self.link = InvalidationLink(
                lambda: redis_client(url, timeout_s=0.25, connections=4, option="url"), clock=_CLOCK, cluster=cluster
            )
            self.link.add(_NAMESPACE.channel, self.cache)

    def _hear(self, payload: bytes) -> None:
        message = msgspec.msgpack.decode(payload, type=Message)
        if message.origin == "test":
            self._marks.update(text for text, _ in message.changed or ())
        else:
            self._heard(payload)

    def write(self, key: str, delay_s: float = 0.0) -> None:
        """As a handler and its sink do."""
        guard = self.cache.guard_for([key])
        row = self.truth.write(key)
        if delay_s:
            self.truth.pause.wait(delay_s)
        self.cache.written({key: (row, row.version)}, guard)

    def reads(self, key: str) -> Customer | None:
        return self.cache.get(key)

    def is_up_to_date(self, mark: str, publisher: Redis) -> None:
        """Return when everything has been heard that was said before."""
        payload = msgspec.msgpack.encode(Message("test", [(mark, 0)]))

        def heard() -> bool:
            # Again and again: it is lost while the link is down, and a replica that is promoted cuts its connections.
            with suppress(RedisConnectionError):
                publisher.publish(_NAMESPACE.channel, payload)
            return self.cache.stats().linked and mark in self._marks

        eventually(heard, f"{mark} was not heard", pause_s=0.002)

    def close(self) -> None:
        if self.link is not None:
            self.link.close()
        self.executor.shutdown()
        self.client.close()


class AnyoneFills(RedisStore):
    """Planted: a cache as most are. What was loaded is put there, whatever was written meanwhile."""

    def fill(self, values: dict[str, bytes], ttl_s: float, token: str, timeout_s: float) -> Sequence[str]:  # type: ignore[override]
        client = self._connect()
        for key, value in values.items():
            client.set(f"{_NAMESPACE.start(0)}:{self._epochs[0]}:{key}", value, px=int(ttl_s * 1000))
        return list(values)


def eventually(holds: Callable[[], bool], complaint: str, *, pause_s: float = 0.02) -> None:
    """Wait for what nothing tells of."""
    pause = threading.Event()
    deadline_s = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s, complaint
        pause.wait(pause_s)


class Rounds:
    """Three processes with three threads each that read, write and lose one key in each round."""

    def __init__(self, url: str, *, seed: int, store: type[RedisStore] = RedisStore) -> None:
        self._chance = random.Random(seed)
        self._truth = Truth(delay_s=lambda: random.random() * 0.001)
        self._server = redis_client(url, timeout_s=1.0, connections=16, option="url")
        self._names = RedisStore(_NAMESPACE, lambda: self._server, origin="test")
        self._processes = [Process(url, self._truth, store=store, timeout_s=1.0) for _ in range(3)]
        # It has nothing in its memory, so it sees what Redis has.
        self._beyond = Process(url, self._truth, store=store, timeout_s=1.0, alone=True, l1_ttl_s=0.001)
        self._threads = ThreadPoolExecutor(9)
        for process in self._processes:
            process.is_up_to_date("start", self._server)

    def stale(self, key: str, *, kill: bool) -> bool:
        """Whether anybody has something old when all is done and heard; `kill`s the connections that hear."""
        self._truth.write(key)
        self._names.read([key], 1.0)
        seeds = [self._chance.randrange(2**32) for _ in range(9)]
        running = [
            self._threads.submit(self._work, self._processes[number % 3], key, random.Random(seed))
            for number, seed in enumerate(seeds)
        ]
        if kill:
            self._server.client_kill_filter(_type="pubsub")
        for one in running:
            one.result()
        for process in self._processes:
            process.is_up_to_date(key, self._server)
        return {process.reads(key) for process in (self._beyond, *self._processes)} != {self._truth.rows[key]}

    def close(self) -> None:
        self._threads.shutdown()
        for process in (self._beyond, *self._processes):
            process.close()
        self._server.close()

    def _work(self, process: Process, key: str, chance: random.Random) -> None:
        for _ in range(4):
            what = chance.random()
            if what < 0.5:
                process.reads(key)
            elif what < 0.85:
                process.write(key, chance.random() * 0.001)
            else:
                # The server evicts it, and its version with it; leases have an end and stay.
                (epoch,) = self._names._epochs
                self._server.delete(f"{_NAMESPACE.start(0)}:{epoch}:{key}")
