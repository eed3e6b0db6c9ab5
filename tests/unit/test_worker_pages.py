"""Where workers are looked for, and what is taken of what listens there."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from streamworker.clock import SystemClock
from streamworker.errors import ConfigurationError
from streamworker.replay.worker_pages import Place, WorkerPages

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def serving(status: int, body: bytes, *headers: tuple[str, str]) -> Iterator[int]:
    """A server that answers each question with this; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in (*headers, ("Content-Length", str(len(body))), ("X-Path", self.path)):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body if self.path in ("/status", "/behind/status") else b"")

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="test-server")
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(*workers: str, timeout_s: float = 5.0) -> list[tuple[str, object, str | None]]:
    pages = WorkerPages(workers, SystemClock())
    return [(one.place, one.content, one.error) for one in pages.ask(timeout_s)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://worker-0:8080", "http://worker-0:8080"),
        ("https://shop.example/workers/", "https://shop.example:443/workers"),
        ("workers.shop.svc:8080", "http://workers.shop.svc:8080"),
        ("workers.shop.svc", "http://workers.shop.svc:80"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_a_worker_is_a_url_or_a_name(text: str, shown: str) -> None:
    assert str(Place.parse(text)) == shown


@pytest.mark.parametrize(
    "text",
    ["", "ftp://x", "file:///etc/passwd", "http://", "http://x:port", "http://u:p@x", "http://x/?a", "http://x#a"],
)
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected a worker as http://HOST:PORT"):
        WorkerPages([text], SystemClock())


def test_without_workers_nobody_is_asked() -> None:
    assert not WorkerPages([], SystemClock()).configured
    assert ask() == []


def test_the_status_page_of_each_is_read() -> None:
    with serving(200, b'{"group": "shop"}') as one, serving(200, b"[]") as other:
        found = ask(f"http://127.0.0.1:{one}/behind", f"http://127.0.0.1:{other}/")

    assert found == [
        (f"http://127.0.0.1:{one}/behind", {"group": "shop"}, None),
        (f"http://127.0.0.1:{other}", [], None),
    ]


def test_a_name_stands_for_all_its_addresses_and_each_is_asked_once() -> None:
    with serving(200, b"{}") as port:
        pages = WorkerPages(
            [f"workers:{port}", f"http://127.0.0.1:{port}"],
            SystemClock(),
            addresses=lambda _host, _port: ["127.0.0.1", "127.0.0.1"],
        )
        found = pages.ask(5.0)

    assert [one.place for one in found] == [f"http://127.0.0.1:{port}"]


def test_a_name_that_leads_nowhere_is_said() -> None:
    def nowhere(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    [found] = WorkerPages(["workers:8080"], SystemClock(), addresses=nowhere).ask(5.0)

    assert (found.place, found.error) == (
        "http://workers:8080",
        "its name leads nowhere: Name or service not known",
    )


def test_other_answers_are_said_and_no_redirect_is_followed() -> None:
    with (
        serving(200, b'{"secret": 1}') as other,
        serving(302, b"", ("Location", f"http://127.0.0.1:{other}/status")) as one,
    ):
        assert [error for _, _, error in ask(f"http://127.0.0.1:{one}")] == ["it answered 302"]
    with serving(503, b"{}") as one:
        assert [error for _, _, error in ask(f"http://127.0.0.1:{one}")] == ["it answered 503"]


@pytest.mark.parametrize("body", [b"no json", b"\xff", b"[" * 200_000])
def test_what_is_no_json_is_said(body: bytes) -> None:
    with serving(200, body) as port:
        assert [error for _, _, error in ask(f"http://127.0.0.1:{port}")] == ["its answer is no JSON"]


def test_an_answer_without_end_is_not_read_to_it() -> None:
    with serving(200, json.dumps("x" * 5000).encode()) as port:
        [found] = WorkerPages([f"http://127.0.0.1:{port}"], SystemClock(), most_bytes=1000).ask(5.0)

    assert found.error == "its answer has more than 1000 bytes"


def test_who_accepts_and_says_nothing_costs_the_time_that_was_given() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, serving(200, b"{}") as port:
        found = ask(f"http://127.0.0.1:{silent.getsockname()[1]}", f"http://127.0.0.1:{port}", timeout_s=0.3)

    assert [error for _, _, error in found] == ["no answer in time", None]


def test_where_nobody_listens_that_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]

    assert [error for _, _, error in ask(f"http://127.0.0.1:{port}")] == ["Connection refused"]
