"""The port for metrics, probes and status, on threads of its own.

Nothing that a client does reaches the worker: at most eight connections are served at once, each sends
its request within five seconds in all and in at most 8 KiB, and is closed after one answer. When all
eight are taken, the connection that has been longest about sending its request gives way, so that
clients that dribble keep nobody out; when all are being answered, the new one gets 503.

A host `unix:PATH` is a socket in the file system, on which a supervisor asks its workers.
"""

from __future__ import annotations

import errno
import io
import logging
import socket
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING

from streamworker.errors import ConfigurationError
from streamworker.observability.site import Page

if TYPE_CHECKING:
    from streamworker.config import HttpConfig
    from streamworker.observability.site import Site

MAX_CONNECTIONS = 8
MAX_HEAD_BYTES = 8 * 1024
CONNECTION_TIMEOUT_S = 5.0
# A connection that was told to give way needs a moment to free its place.
_GIVE_WAY_S = 0.1
_UNIX = "unix:"
_REFUSAL = b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"

_log = logging.getLogger(__name__)


class HeadTooLarge(Exception):
    """The request line and headers are larger than they may be."""


def read_head(connection: socket.socket, *, timeout_s: float, max_bytes: int) -> bytes:
    """Request line and headers; empty if the client hung up.

    Raises TimeoutError when they are not complete after `timeout_s` in all, HeadTooLarge beyond
    `max_bytes`. The standard library's reader has neither limit: its timeout begins anew with each byte.
    """
    until_s = time.monotonic() + timeout_s
    head = bytearray()
    while b"\r\n\r\n" not in head:
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        chunk = connection.recv(4096)
        if not chunk:
            return b""
        head += chunk
        if len(head) > max_bytes:
            raise HeadTooLarge
    return bytes(head)


class HttpServer:
    """Serves `site` from `start` to `stop`, which the thread calls that runs the worker or the supervisor."""

    def __init__(self, config: HttpConfig, site: Site, *, timeout_s: float = CONNECTION_TIMEOUT_S) -> None:
        self._config = config
        self._site = site
        self._timeout_s = timeout_s
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> int | None:
        """Take the port; returns its number, None for a unix socket. Raises ConfigurationError if it cannot be had."""
        self._server = server = self._bind()
        self._thread = threading.Thread(target=server.serve_forever, args=(0.2,), name="streamworker-http", daemon=True)
        self._thread.start()
        return server.server_port or None

    def stop(self, timeout_s: float = 1.0) -> None:
        """Take no further connections; those being answered end by themselves. Idempotent."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout_s)
        self._server = self._thread = None

    def _bind(self) -> _Server:
        host, port = self._config.host, self._config.port
        try:
            return _Server(host, port, self._site, self._timeout_s)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigurationError(
                    f"http.port: {port} on {host} is in use by another program; expected a free one, or 0 to take any"
                ) from error
            raise ConfigurationError(f"http.host and http.port: cannot listen on {host} {port}: {error}") from error


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_port = False
    request_queue_size = 128

    def __init__(self, host: str, port: int, site: Site, timeout_s: float) -> None:
        self.address_family, address = _address(host, port)
        self.site = site
        self.timeout_s = timeout_s
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._reading: dict[socket.socket, None] = {}  # in the order of their arrival
        self._lock = threading.Lock()  # protects _reading from the connections' threads
        super().__init__(address, _Connection)  # type: ignore[arg-type]  # of a unix socket it is a path

    def server_bind(self) -> None:
        """Bind without looking the host's name up, which may take as long as the DNS likes."""
        TCPServer.server_bind(self)
        bound = self.socket.getsockname()
        self.server_name, self.server_port = (bound, 0) if isinstance(bound, str) else bound[:2]

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Serve the connection on a thread of its own, if there is a place."""
        assert isinstance(request, socket.socket)  # a pair comes from UDP servers only
        if not self._places.acquire(blocking=False) and not self._make_room():
            self._refuse(request)
            return
        with self._lock:
            self._reading[request] = None
        thread = threading.Thread(
            target=self._serve, args=(request, client_address), name="streamworker-http-connection", daemon=True
        )
        thread.start()

    def _serve(self, request: socket.socket, client_address: object) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            self.has_been_read(request)
            self._places.release()

    def has_been_read(self, request: socket.socket) -> None:
        """The connection's request is complete: it does not have to give way any more."""
        with self._lock:
            self._reading.pop(request, None)

    def _make_room(self) -> bool:
        with self._lock:
            oldest = next(iter(self._reading), None)
            if oldest is None:
                return False
            del self._reading[oldest]
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        return self._places.acquire(timeout=_GIVE_WAY_S)

    def _refuse(self, request: socket.socket) -> None:
        request.setblocking(False)  # noqa: FBT003 - the standard library's signature
        with suppress(OSError):
            request.send(_REFUSAL)
        self.shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """A connection that broke or timed out is the client's business."""
        _log.debug("connection ended early", exc_info=True)


def _address(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int] | str]:
    if host.startswith(_UNIX):
        return socket.AF_UNIX, host.removeprefix(_UNIX)
    return socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port)


class _Connection(BaseHTTPRequestHandler):
    server: _Server

    def handle(self) -> None:
        """Read one request within the limits and answer it."""
        self.requestline = self.command = ""
        self.request_version = self.protocol_version
        try:
            head = read_head(self.connection, timeout_s=self.server.timeout_s, max_bytes=MAX_HEAD_BYTES)
        except HeadTooLarge:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        self.server.has_been_read(self.connection)
        if head:
            self.connection.settimeout(self.server.timeout_s)
            self.rfile = io.BufferedReader(io.BytesIO(head))
            self.handle_one_request()

    def do_GET(self) -> None:
        """Answer with a page."""
        self._answer(self._page())

    do_HEAD = do_GET  # noqa: N815 - the standard library looks for this name

    def _page(self) -> Page:
        try:
            return self.server.site.get(self.path, self.headers.get("Accept", ""))
        except Exception:  # noqa: BLE001 - the border to the client, who gets a code and no stack
            _log.exception("page failed", extra={"path": self.path})
            return Page.of_text(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; it is in the log")

    def _answer(self, page: Page) -> None:
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer with the code alone; the standard page would repeat what the client sent."""
        status = HTTPStatus(code)
        self._answer(Page.of_text(status, status.phrase))

    def version_string(self) -> str:
        """Name without versions."""
        return "streamworker"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's signature
        """Requests are not logged: probes come every few seconds."""
