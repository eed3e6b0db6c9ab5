"""Handlers that write to real servers before they write to the ledger; the file `calls` tells when each call began."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import redis
from fleet.apps import LedgerWithDeadLetters
from fleet.stored import calls_of
from redis.backoff import NoBackoff
from redis.retry import Retry as RedisRetry

from streamworker import Breaker

if TYPE_CHECKING:
    from streamworker import Context, Record

_CONNECT_TIMEOUT_S = 2  # the client's smallest
_SOCKET_TIMEOUT_S = 0.2

_UPSERT = """
INSERT INTO handled (topic, partition, at, uid) VALUES (%s, %s, %s, %s)
ON CONFLICT (topic, partition, at) DO UPDATE SET calls = handled.calls + 1
"""


class _Storing(LedgerWithDeadLetters):
    def open(self, context: Context) -> None:
        super().open(context)
        self._url = str(context.app["sink"])
        self._calls = os.open(calls_of(Path(str(context.app["ledger"]))), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def handle(self, record: Record[bytes]) -> None:
        os.write(self._calls, f"{time.monotonic()}\n".encode())
        self._store(record, (record.headers.last("uid") or b"").decode())
        super().handle(record)

    def _store(self, record: Record[bytes], uid: str) -> None:
        raise NotImplementedError

    def close(self) -> None:
        super().close()
        os.close(self._calls)


class StoreInPostgres(_Storing):
    """A row for each record; a connection for each thread.

    One that fails is tried anew at once: it may have died with a server that is back, and would fail a trial.
    """

    breaker = Breaker("postgres", max_open_s=5.0)

    def open(self, context: Context) -> None:
        super().open(context)
        self._connection: psycopg.Connection | None = None

    def _store(self, record: Record[bytes], uid: str) -> None:
        row = (record.topic, record.partition, record.offset, uid)
        if self._connection is not None:
            try:
                self._connection.execute(_UPSERT, row)
            except psycopg.OperationalError:
                self._connection.close()
                self._connection = None
            else:
                return
        self._connection = psycopg.connect(self._url, connect_timeout=_CONNECT_TIMEOUT_S, autocommit=True)
        self._connection.execute(_UPSERT, row)

    def close(self) -> None:
        super().close()
        if self._connection is not None:
            self._connection.close()


class StoreInRedis(_Storing):
    """A key for each record, and a count of all calls; the client does not try again by itself."""

    breaker = Breaker("redis", max_open_s=5.0)

    def open(self, context: Context) -> None:
        super().open(context)
        once = RedisRetry(NoBackoff(), 0)
        self._redis = redis.Redis.from_url(self._url, socket_timeout=_SOCKET_TIMEOUT_S, retry=once)

    def _store(self, record: Record[bytes], uid: str) -> None:
        with self._redis.pipeline() as together:
            together.set(f"{record.topic}/{record.partition}/{record.offset}", uid)
            together.incr(f"calls of {record.topic}")
            together.execute()

    def close(self) -> None:
        super().close()
        self._redis.close()
