"""The door to uvicorn: an application on a socket, until it is stopped.

Decides the bounds of connections. The main thread runs it; `stop` may come from a signal or another thread.
"""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp

_CONNECTIONS = 200
_HEAD_BYTES = 16 * 1024
_IDLE_S = 15
_END_S = 3  # for answers that are under way; who watches an operation would never end


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the command's."""
        yield


class ConsoleServer:
    """Listens from the beginning, so that it is known early whether it can, and answers while it runs.

    `certificate` and `key` are files in PEM. Raises ConfigurationError for what it cannot listen on.
    """

    def __init__(self, host: str, port: int, *, certificate: str | None = None, key: str | None = None) -> None:
        self._certificate = certificate
        self._key = key
        self._socket = _listen(host, port)
        self._stopped = False
        self._server: _Server | None = None

    @property
    def port(self) -> int:
        """On which it listens, also where any would do."""
        return int(self._socket.getsockname()[1])

    def run(self, app: ASGIApp) -> None:
        """Answer until `stop`; raises ConfigurationError for files that are no certificate and key."""
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # whose word is believed is decided where it is asked for
            limit_concurrency=_CONNECTIONS,
            h11_max_incomplete_event_size=_HEAD_BYTES,
            timeout_keep_alive=_IDLE_S,
            timeout_graceful_shutdown=_END_S,
            ssl_certfile=self._certificate,
            ssl_keyfile=self._key,
        )
        with self._socket:
            try:
                config.load()
            except OSError as error:  # of the files, or of what is in them
                files = f"--tls-certificate {self._certificate}, --tls-key {self._key}"
                raise ConfigurationError(f"{files}: {error}") from error
            self._server = _Server(config)
            self._server.should_exit = self._stopped
            self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """End soon. Idempotent, does not block."""
        self._stopped = True
        if self._server is not None:
            self._server.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"cannot listen on {host}, port {port}: {error}") from error
