"""Asks an HTTP server that listens on a unix socket. Any thread."""

from __future__ import annotations

import http.client
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class NoAnswer(Exception):
    """Nobody listens, the answer took too long, or it ended early."""


def ask(path: Path, target: str, *, accept: str = "", timeout_s: float) -> tuple[int, bytes]:
    """The code and the body of the page `target`; raises NoAnswer. Each step of it has `timeout_s`."""
    connection = _Connection(path, timeout_s)
    try:
        connection.request("GET", target, headers={"Accept": accept})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(f"{target}: {error!r}") from error
    finally:
        connection.close()


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the path instead of host and port."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
