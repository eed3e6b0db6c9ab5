"""How this process talks to Redis: clients that never wait for long, and scripts. The door of redis-py.

Its defaults would not do: a call to a server that hangs takes a minute, because each of ten tries waits for five
seconds. Here a call is made once and waits for as long as its user says; who wants another try makes it himself.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

_SCHEMES = ("redis", "rediss", "unix")
_CONNECTION_WAIT_S = 0.01
_HEALTH_CHECK_S = 15


def redis_client(url: str, *, timeout_s: float, connections: int, option: str) -> Redis:
    """A client whose calls, connecting included, fail after `timeout_s` each, without a second try.

    It has at most so many `connections`, so any number of threads may use it. It connects with the first call. Raises
    ConfigurationError, which names `option`, for a URL that it cannot read, or if redis-py is not installed.
    """
    try:
        from redis import BlockingConnectionPool, Redis  # noqa: PLC0415 - only who uses Redis needs the package
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(f"{option}: needs redis-py; install streamworker[redis]") from error
    if urlsplit(url).scheme not in _SCHEMES:
        raise ConfigurationError(f"{option}: expected redis://, rediss:// or unix://, got {urlsplit(url).scheme!r}")
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=_CONNECTION_WAIT_S,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            health_check_interval=_HEALTH_CHECK_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
    except ValueError as error:
        raise ConfigurationError(f"{option}: {error}") from error
    return Redis.from_pool(pool)  # so that its `close` closes the pool: one that is given is left open


def is_refusal(error: BaseException) -> bool:
    """Whether `error` is the server's answer to a call: it is a replica now, or out of memory, or forbids it."""
    from redis.exceptions import ResponseError  # noqa: PLC0415 - as above

    return isinstance(error, ResponseError)


class Script:
    """A script of the server's, sent by its digest, and whole where the server does not know it yet.

    Each is written so that a second run changes nothing more.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Redis, keys: Sequence[str | bytes], arguments: Sequence[str | bytes | int]) -> object:
        """What it returns; raises what redis-py raises."""
        from redis.exceptions import NoScriptError  # noqa: PLC0415 - as above

        try:
            return client.evalsha(self._digest, len(keys), *keys, *arguments)
        except NoScriptError:
            client.script_load(self._source)
            return client.evalsha(self._digest, len(keys), *keys, *arguments)
