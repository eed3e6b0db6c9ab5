"""How this process talks to Redis: clients that never wait for long, and scripts. The door of redis-py.

Its defaults would not do: a call to a server that hangs takes a minute, because each of ten tries waits for five
seconds. Here a call is made once and waits for as long as its user says; who wants another try makes it himself.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias, TypedDict, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from streamworker.clock import SystemClock
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

    from redis import Redis
    from redis.client import PubSub
    from redis.connection import AbstractConnection
    from redis.retry import Retry

    # For those behind the door.
    Client: TypeAlias = Redis
    Subscriptions: TypeAlias = PubSub

_SCHEMES = ("redis", "rediss", "unix")
_SENTINEL, _CLUSTER = "+sentinel", "+cluster"
_SENTINEL_PORT, _PORT = 26379, 6379
_CONNECTION_WAIT_S = 0.01
_HEALTH_CHECK_S = 15


class _Settings(TypedDict, total=False):
    """Of connections."""

    socket_timeout: float
    socket_connect_timeout: float
    health_check_interval: int
    protocol: int
    username: str
    password: str


# When the call in progress must have ended, on the clock of the machine; a call has one thread and one context.
_DEADLINE_S: ContextVar[float | None] = ContextVar("redis_deadline", default=None)


def redis_client(url: str, *, timeout_s: float, connections: int, option: str) -> Redis:
    """A client whose calls, connecting included, fail after `timeout_s` each, without a second try.

    It has at most so many `connections`, so any number of threads may use it. `redis+sentinel://host:port,…/name/db`
    asks Sentinels where the master called `name` is, `redis+cluster://host:port,…` is a Redis Cluster, whose client has
    the same methods; with `rediss+…` both speak TLS. It connects with the first call, but for a cluster, which is asked
    for its nodes at once: that raises one of `redis_errors()` while none answers. Raises ConfigurationError, which
    names `option`, for a URL that it cannot read, or if redis-py is not installed.
    """
    try:
        from redis.backoff import NoBackoff  # noqa: PLC0415 - only who uses Redis needs the package
        from redis.retry import Retry  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(f"{option}: needs redis-py; install streamworker[redis]") from error
    scheme = urlsplit(url).scheme
    settings: _Settings = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "health_check_interval": _HEALTH_CHECK_S,
        "protocol": 2,
    }
    try:
        if scheme.endswith(_SENTINEL):
            return _by_sentinels(url, settings, Retry(NoBackoff(), 0), connections)
        if scheme.endswith(_CLUSTER):
            return _of_a_cluster(url, settings, Retry(NoBackoff(), 0), connections)
        if scheme not in _SCHEMES:
            raise ConfigurationError(
                f"{option}: expected redis://, rediss:// or unix://, or redis+sentinel:// or redis+cluster://,"
                f" got {scheme!r}"
            )
        return _of_one_server(url, settings, Retry(NoBackoff(), 0), connections)
    except ValueError as error:
        raise ConfigurationError(f"{option}: {error}") from error


def is_refusal(error: BaseException) -> bool:
    """Whether `error` is the server's answer to a call: it is a replica now, or out of memory, or forbids it."""
    from redis.exceptions import ResponseError  # noqa: PLC0415 - as above

    return isinstance(error, ResponseError)


def redis_errors() -> tuple[type[Exception], ...]:
    """What calls of a client may raise when the server is at fault, or the way to it."""
    from redis.exceptions import RedisError  # noqa: PLC0415 - as above

    return (RedisError, OSError)


def refuses(error: BaseException) -> bool:
    """Whether `error` says that this user may not make the call."""
    from redis.exceptions import NoPermissionError  # noqa: PLC0415 - as above

    return isinstance(error, NoPermissionError)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let all that this thread asks of Redis inside take so long together, however slowly an answer trickles in."""
    token = _DEADLINE_S.set(SystemClock.monotonic_s() + seconds)
    try:
        yield
    finally:
        _DEADLINE_S.reset(token)


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


def _of_one_server(url: str, settings: _Settings, retry: Retry, connections: int) -> Redis:
    from redis import BlockingConnectionPool, Connection, Redis  # noqa: PLC0415 - as above
    from redis.connection import parse_url  # noqa: PLC0415

    found = dict(parse_url(url))  # type: ignore[no-untyped-call]  # redis-py says nothing of it
    kind = cast("type[AbstractConnection]", found.pop("connection_class", Connection))
    pool = BlockingConnectionPool(  # type: ignore[no-untyped-call]  # redis-py says nothing of it
        connection_class=_in_time(kind),
        max_connections=connections,
        timeout=_CONNECTION_WAIT_S,
        retry=retry,
        **cast("_Settings", {**settings, **found}),
    )
    return Redis.from_pool(pool)  # so that its `close` closes the pool: one that is given is left open


def _by_sentinels(url: str, settings: _Settings, retry: Retry, connections: int) -> Redis:
    from redis import Connection, ConnectionPool, Redis  # noqa: PLC0415 - as above
    from redis.sentinel import (  # noqa: PLC0415
        Sentinel,
        SentinelManagedConnection,
        SentinelManagedSSLConnection,
    )

    servers, user, path, options = _parts(url, _SENTINEL_PORT)
    name, _, number = path.partition("/")
    if not name or not (number or "0").isdigit():
        raise ValueError("expected redis+sentinel://host:port,…/name of the master/number of the database")
    sentinels = Sentinel(servers)  # type: ignore[no-untyped-call]  # redis-py says nothing of it
    # Sentinels have users of their own; the URL's is the server's.
    sentinels.sentinels = [
        Redis(
            connection_pool=ConnectionPool(
                connection_class=_in_time(Connection),
                host=host,
                port=port,
                max_connections=connections,
                retry=retry,
                **settings,
            )
        )
        for host, port in servers
    ]
    kind = SentinelManagedSSLConnection if url.startswith("rediss") else SentinelManagedConnection
    client = sentinels.master_for(  # type: ignore[no-untyped-call]  # redis-py says nothing of it
        name,
        connection_class=_in_time(kind),
        max_connections=connections,
        db=int(number or 0),
        retry=retry,
        **cast("_Settings", {**settings, **user, **options}),
    )
    return cast("Redis", client)


def _of_a_cluster(url: str, settings: _Settings, retry: Retry, connections: int) -> Redis:
    from redis import Connection, SSLConnection  # noqa: PLC0415 - as above
    from redis.cluster import ClusterNode, RedisCluster  # noqa: PLC0415

    servers, user, path, options = _parts(url, _PORT)
    if path not in ("", "0"):
        raise ValueError(f"a cluster has no databases, got /{path}")
    tls = url.startswith("rediss")
    (host, port), *_ = servers
    client = RedisCluster(
        url=f"{'rediss' if tls else 'redis'}://{host}:{port}",
        startup_nodes=[ClusterNode(*server) for server in servers],  # type: ignore[no-untyped-call]  # redis-py says nothing of it
        connection_class=_in_time(SSLConnection if tls else Connection),
        max_connections=connections,
        retry=retry,
        require_full_coverage=False,  # slots of a node that is away fail, and the others are served
        **cast("_Settings", {**settings, **user, **options}),
    )
    return cast("Redis", client)  # what is used of both is the same


def _parts(url: str, port: int) -> tuple[list[tuple[str, int]], dict[str, str], str, dict[str, str]]:
    """Servers, user, path and options of a URL with several servers."""
    split = urlsplit(url)
    hosts = split.netloc.rpartition("@")[2]
    servers = []
    for one in hosts.split(","):
        found = urlsplit(f"//{one}")
        if not found.hostname:
            raise ValueError(f"expected host:port, separated by commas, got {hosts!r}")
        servers.append((found.hostname, found.port or port))
    user = {"username": split.username, "password": split.password}
    return (
        servers,
        {name: unquote(value) for name, value in user.items() if value},
        unquote(split.path.strip("/")),
        dict(parse_qsl(split.query)),
    )


def _in_time(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """Such connections, whose reads and writes end in time: see `within`."""

    class InTime(kind):  # type: ignore[misc,valid-type]  # which it is says the URL
        def _connect(self) -> _Socket:
            left_s = _left_s()
            if left_s is not None:
                self.socket_connect_timeout = min(left_s, self.socket_timeout)
            return _Socket(super()._connect())

    return InTime


class _Socket:
    """A socket that gives up when the deadline of the call has passed.

    Its own timeout begins anew with each piece that arrives, so a large answer over a slow link could take for ever.
    """

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self._usual_s = inner.gettimeout()
        self._limited = False

    def recv_into(self, buffer: bytearray | memoryview, *arguments: int) -> int:
        self._limit()
        return self._inner.recv_into(buffer, *arguments)

    def recv(self, *arguments: int) -> bytes:
        self._limit()
        return self._inner.recv(*arguments)

    def sendall(self, data: bytes | memoryview) -> None:
        self._limit()
        self._inner.sendall(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def _limit(self) -> None:
        left_s = _left_s()
        if left_s is None:
            if self._limited:
                self._inner.settimeout(self._usual_s)
                self._limited = False
        elif self._inner.gettimeout() != 0:  # which stands for a look without waiting
            self._inner.settimeout(left_s)
            self._limited = True


def _left_s() -> float | None:
    deadline_s = _DEADLINE_S.get()
    if deadline_s is None:
        return None
    left_s = deadline_s - SystemClock.monotonic_s()
    if left_s <= 0:
        raise TimeoutError("the time for this call is over")
    return left_s
