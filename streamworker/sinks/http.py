"""A remote HTTP API as a sink. The door of httpx2.

Only its transport is used: a client of httpx2 would keep cookies, read the environment and `.netrc`, and log the path
of each request, which has fields of the record in it. What an answer means is decided in `answers.py`.
"""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

import msgspec

from streamworker.bounds import at_least, one_of
from streamworker.clock import SystemClock
from streamworker.errors import ConfigurationError, PoisonError, RowFailed
from streamworker.interfaces import Row, Written
from streamworker.sinks.answers import Answer, failure_of, try_later
from streamworker.sinks.values import Delete, Template

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from httpx2 import BaseTransport, Request, Response

    from streamworker.clock import Clock
    from streamworker.interfaces import SinkContext
    from streamworker.work import Place

_METHODS = ("POST", "PUT", "PATCH", "DELETE")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # what RFC 9110 takes for a header's name
_TEXT = re.compile(r"[\x20-\x7e]*")
# They say how a message is framed and where it goes, which is the transport's business.
_RESERVED = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"})
_LONGEST_KEY = 255  # characters; what well-known APIs take at most
_ANSWER_BYTES = 65_536  # of an answer that are read; with more the connection is given up, which is cheaper
_IDLE_S = 5.0  # that a connection is kept for; servers are known to close theirs after 5 s and more

HeadersOf = Mapping[str, str] | Callable[[], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class HttpSink:
    """Writes each value with a request of its own: at least once, and with the same idempotency key each time.

    The URL is that of the configuration's table `sinks`; its user info becomes basic authentication. A value is sent
    as JSON, bytes as they are. Proxies and credentials of the environment are not used, redirects are not followed.
    """

    name: str  # of the connection in the table `sinks`
    _: KW_ONLY
    path: str = ""  # after the path of the URL; {order_id} is that field of the value, percent-encoded
    method: str = "POST"  # or PUT, PATCH, and DELETE, which has no body
    headers: HeadersOf = field(default_factory=dict, repr=False, hash=False)  # a function is asked for each request
    key_header: str | None = "Idempotency-Key"  # None to send no key
    key: Callable[[Row, int], str] | None = None  # of value n of a row; None: group, the record's id or its origin, n
    also_retry: Collection[int] = (401, 403)  # from 400 to 499, that say nothing of the record: here, of credentials
    timeout_s: float = 5.0  # each to connect, to send and to wait for bytes, within what the call has left
    max_retry_after_s: float = 300.0  # the longest wait that a server can ask for
    ca_file: str | None = None  # certificates to trust instead of the usual ones
    verify: bool = True  # False takes any certificate, so anybody can be the server

    def __post_init__(self) -> None:
        where = f"HttpSink({self.name!r})"
        one_of(f"{where}.method", self.method, _METHODS)
        at_least(f"{where}.timeout_s", self.timeout_s, 0.001)
        at_least(f"{where}.max_retry_after_s", self.max_retry_after_s, 0)
        if self.path and not (self.path.startswith("/") and _TEXT.fullmatch(self.path) and not {*"# "} & {*self.path}):
            raise ConfigurationError(f"{where}.path: expected /path/{{field}}, percent-encoded, got {self.path!r}")
        Template(f"{where}.path", self.path)
        if self.key_header is not None and not _is_header(self.key_header, ""):
            raise ConfigurationError(f"{where}.key_header: expected a header's name, got {self.key_header!r}")
        if not all(isinstance(status, int) and 400 <= status < 500 for status in self.also_retry):
            raise ConfigurationError(f"{where}.also_retry: expected statuses of 400 to 499, got {self.also_retry!r}")
        if self.ca_file is not None and not self.verify:
            raise ConfigurationError(f"{where}.ca_file: verify=False would not look at it; leave one of them out")
        object.__setattr__(self, "also_retry", frozenset(self.also_retry))
        if not callable(self.headers):
            _refuse_headers(where, self.headers)
            object.__setattr__(self, "headers", MappingProxyType(dict(self.headers)))

    @property
    def knows_repeats(self) -> bool:
        """Not by itself: whether the server heeds the key of a request is its business."""
        return False

    @property
    def keeps_marks(self) -> bool:
        """It does not look at `Place`."""
        return False

    def writer(self, context: SinkContext) -> HttpWriter:
        """A writer with a connection of its own, not connected yet.

        Raises ConfigurationError without httpx2, or for a URL or a CA file that cannot be used.
        """
        try:
            from httpx2 import HTTPTransport, Limits  # noqa: PLC0415 - it comes with an extra
        except ImportError as error:
            raise ConfigurationError(f"HttpSink({self.name!r}) needs httpx2; install streamworker[http]") from error
        server = _Server.of(self.name, context.connection(self.name))
        if server.authorization and not callable(self.headers) and "authorization" in map(str.lower, self.headers):
            raise ConfigurationError(
                f"sinks.{self.name}: it has a user, and HttpSink.headers an authorization; leave one of them out"
            )
        limits = Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_IDLE_S)
        return HttpWriter(
            self, server, context, HTTPTransport(verify=self._verification(), trust_env=False, limits=limits)
        )

    def _verification(self) -> ssl.SSLContext | bool:
        if self.ca_file is None:
            return self.verify
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise ConfigurationError(f"HttpSink({self.name!r}).ca_file: {self.ca_file!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Server:
    """Where requests go. `secrets` are what must not be shown of what it says."""

    url: str  # without user info and without a slash at its end
    authorization: str | None = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, name: str, url: str) -> _Server:
        """The server at `url`; raises ConfigurationError, which never shows it, for what is none."""
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = None
        if not usable or parts.query or parts.fragment or not _TEXT.fullmatch(url) or " " in url:
            raise ConfigurationError(f"sinks.{name}: expected https://[user:password@]host[:port][/path]")
        host = parts.netloc.rpartition("@")[2]
        base = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
        if parts.username is None:
            return cls(base, None, ())
        password = unquote(parts.password or "")
        encoded = base64.b64encode(f"{unquote(parts.username)}:{password}".encode()).decode()
        return cls(base, f"Basic {encoded}", tuple(filter(None, (encoded, password))))


class HttpWriter:
    """A `Writer` that sends one request after the other over `transport`. Its instance's thread only."""

    def __init__(
        self,
        sink: HttpSink,
        server: _Server,
        context: SinkContext,
        transport: BaseTransport,
        clock: Clock | None = None,
    ) -> None:
        self._sink = sink
        self._server = server
        self._context = context
        self._transport = transport
        self._clock = clock or SystemClock()
        self._path = Template(f"HttpSink({sink.name!r}).path", sink.path)
        self._request = f"{sink.name}: {sink.method} {sink.path or '/'}"  # with field names, whose values are payload

    def write(self, place: Place, rows: Sequence[Row]) -> Written:
        """As `Writer.write`, except that a request which got no answer may have had its effect.

        So may those for the values before the one at fault in its row. They are sent again, with the same keys.
        """
        for index, row in enumerate(rows):
            for number, value in enumerate(row.values):
                try:
                    self._send(place, row, number, value)
                except Exception as error:  # those before it are done, whatever has happened to this one
                    raise RowFailed(index, error) from error
        return Written()

    def close(self) -> None:
        """Let go of its connection. Idempotent."""
        self._transport.close()

    def _send(self, place: Place, row: Row, number: int, value: object) -> None:
        from httpx2 import InvalidURL, Request  # noqa: PLC0415 - as above

        if isinstance(value, Delete):
            raise PoisonError("an HttpSink takes no Delete; return the value to a sink with method='DELETE'")
        url = self._url_for(value)
        headers, content = self._headers_and_body(place, row, number, value)
        timeout_s = self._context.remaining_s(self._sink.timeout_s)
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)
        try:
            request = Request(
                self._sink.method, url, headers=headers, content=content, extensions={"timeout": timeouts}
            )
        except InvalidURL as error:
            raise PoisonError(f"{self._request}: the value makes no path: {error}") from error
        failure = self._failure_of(request, self._clock.monotonic_s() + timeout_s)
        if failure is not None:
            raise failure

    def _failure_of(self, request: Request, until_s: float) -> Exception | None:
        from httpx2 import TransportError  # noqa: PLC0415 - as above

        try:
            response = self._transport.handle_request(request)
        except TransportError as error:
            return try_later(f"{self._request} got no answer: {type(error).__name__}: {error}", cause=error)
        try:
            answer = self._answer(response, until_s)
        finally:
            response.close()
        return failure_of(
            self._request,
            answer,
            also_retry=self._sink.also_retry,
            max_retry_after_s=self._sink.max_retry_after_s,
            now_ms=self._clock.wall_ms(),
            secrets=self._server.secrets,
        )

    def _url_for(self, value: object) -> str:
        path = self._path.filled(value, _percent_encoded)
        if {".", ".."} & {*path.partition("?")[0].split("/")}:
            raise PoisonError(f"{self._request}: a field of the value is a dot segment, which leads to another path")
        return f"{self._server.url}{path or '/'}"

    def _headers_and_body(
        self, place: Place, row: Row, number: int, value: object
    ) -> tuple[Mapping[str, str], bytes | None]:
        headers = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "streamworker"}
        content = None
        if self._sink.method != "DELETE":
            headers["content-type"], content = _body(value)
        if self._server.authorization is not None:
            headers["authorization"] = self._server.authorization
        if callable(self._sink.headers):
            given = self._sink.headers()
            _refuse_headers(self._request, given)
        else:
            given = self._sink.headers
        headers.update((name.lower(), text) for name, text in given.items())
        if self._sink.key_header is not None:
            headers[self._sink.key_header.lower()] = self._key_of(place, row, number)
        return headers, content

    def _key_of(self, place: Place, row: Row, number: int) -> str:
        if self._sink.key is None:
            return origin_key(place.group, row, number)
        key = self._sink.key(row, number)
        if not _is_header("key", key) or not key:
            raise PoisonError(f"{self._request}: expected printable ASCII of HttpSink.key, got {type(key).__name__}")
        return key

    def _answer(self, response: Response, until_s: float) -> Answer:
        """The answer with the beginning of its body; what cannot be read of that changes nothing."""
        from httpx2 import TransportError  # noqa: PLC0415 - as above

        body = bytearray()
        try:
            for chunk in self._chunks(response, until_s):
                body += chunk
                if len(body) > _ANSWER_BYTES:
                    break
        except TransportError:  # the status was there, so the server has made up its mind
            pass
        return Answer(
            status=response.status_code,
            body=bytes(body[:_ANSWER_BYTES]),
            retry_after=response.headers.get("retry-after"),
            date=response.headers.get("date"),
        )

    def _chunks(self, response: Response, until_s: float) -> Iterator[bytes]:
        for chunk in response.stream:  # type: ignore[union-attr]  # of a transport that is not async
            yield chunk
            if self._clock.monotonic_s() >= until_s:
                return


def origin_key(group: str, row: Row, number: int) -> str:
    """What names value `number` of `row` for `group` and nothing else, over retries, redeliveries and replays.

    By the id that the record was claimed with, if it was, else by where it was first.
    """
    origin = row.origin
    first = f"{quote(origin.topic, safe='')}/{origin.partition}/{origin.offset}"
    key = f"{quote(group, safe='')}/{first if row.id is None else quote(row.id, safe='')}/{number}"
    return key if len(key) <= _LONGEST_KEY else hashlib.sha256(key.encode()).hexdigest()


def _percent_encoded(text: str) -> str:
    return quote(text, safe="")


def _body(value: object) -> tuple[str, bytes]:
    """Content type and content of a request for `value`."""
    if isinstance(value, bytes):
        return "application/octet-stream", value
    try:
        return "application/json", msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise PoisonError(f"the value cannot be written as JSON: {error}") from error


def _refuse_headers(where: str, headers: Mapping[str, str]) -> None:
    for name, text in headers.items():
        if not _is_header(name, text):
            raise ConfigurationError(f"{where}: header {name!r}: expected a name and printable ASCII as its value")
        if name.lower() in _RESERVED:
            raise ConfigurationError(f"{where}: header {name!r} is set by the connection itself; leave it out")


def _is_header(name: object, text: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(text, str)
        and _TOKEN.fullmatch(name) is not None
        and _TEXT.fullmatch(text) is not None
        and text == text.strip()  # the connection would refuse it, and that looks like an outage
    )
