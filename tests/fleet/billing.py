"""A server in this process that bills each idempotency key once, and counts requests."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

_ANSWER_S = 0.03


class Billing(ThreadingHTTPServer):
    """At `url` within the `with` block."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Bill)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.requests: list[tuple[str, str | None]] = []  # path and key; appended by any thread
        self.idle = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, name="billing", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(10)

    def effects(self) -> list[str]:
        """The paths of requests that had an effect: with a key that was not there before, or without one."""
        seen: set[str] = set()
        paths: list[str] = []
        for path, key in list(self.requests):
            if key is None or key not in seen:
                paths.append(path)
            if key is not None:
                seen.add(key)
        return paths


class _Bill(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Billing

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append((self.path, self.headers["idempotency-key"]))
        self.server.idle.wait(_ANSWER_S)  # who dies in between does not know that it was billed
        self.send_response(201)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass
