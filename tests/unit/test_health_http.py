from __future__ import annotations

import http.client
import json
import logging
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Never

import pytest

from streamworker.config import Config, HttpConfig
from streamworker.errors import ConfigurationError
from streamworker.observability.health import Limits
from streamworker.observability.http import MAX_CONNECTIONS, HeadTooLarge, HttpServer, read_head
from streamworker.observability.pages import Pages
from streamworker.observability.status import Board, HeadStatus, LifeState, PartitionStatus, PauseStatus, WorkerStatus
from streamworker.observability.unix_http import NoAnswer, ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WELL = WorkerStatus(
    state=LifeState.RUNNING,
    group="shop",
    handlers=("StoreOrder",),
    protocol="classic",
    started_s=0.0,
    now_s=1_000.0,
    last_poll_s=1_000.0,
    joined=True,
)


class StillClock:
    def monotonic_s(self) -> float:
        return 1_000.0

    def wall_ms(self) -> int:
        return 0


class World:
    def __init__(self) -> None:
        self.board = Board(WELL)
        self.pages = Pages(board=self.board, metrics=self.metrics, clock=StillClock(), limits=Limits.of(Config()))
        self.server = HttpServer(HttpConfig(host="127.0.0.1", port=0), self.pages)
        self.port = self.server.start()

    def metrics(self, accept: str) -> tuple[bytes, str]:
        return b"lag 1\n", f"text/plain; asked={accept}"

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response, body

    def connect(self, first_bytes: bytes = b"GET /health/live HTTP/1.1\r\nX-Slow: ") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        connection.sendall(first_bytes)
        return connection


class Dribble(socket.socket):
    """A connection on which there is always one more byte."""

    def recv(self, _size: int, _flags: int = 0) -> bytes:
        return b"x"


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.server.stop()


def test_probes_answer_with_code_and_checks(world: World) -> None:
    world.board.publish(replace(WELL, state=LifeState.DRAINING, degraded=("redis",)))

    alive, _ = world.ask("/health/live")
    not_ready, body = world.ask("/health/ready")

    assert (alive.status, not_ready.status) == (200, 503)
    assert json.loads(body)["checks"]["not_draining"] is False
    assert json.loads(body)["degraded"] == ["redis"]


def test_a_flip_of_a_probe_is_logged_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        world.ask("/health/ready")
        world.board.publish(replace(WELL, joined=False))
        world.ask("/health/ready")
        world.ask("/health/ready")

    flips = [record for record in caplog.records if record.getMessage() == "probe flipped"]
    assert [(flip.__dict__["probe"], flip.__dict__["failing"]) for flip in flips] == [("ready", ["joined"])]


def test_metrics_are_negotiated(world: World) -> None:
    response, body = world.ask("/metrics", Accept="application/openmetrics-text")

    assert body == b"lag 1\n"
    assert response.headers["Content-Type"] == "text/plain; asked=application/openmetrics-text"


def test_status_shows_ages_and_hides_secrets(world: World) -> None:
    pause = PauseStatus("stopped", since_s=990.0, detail="redis://:s3cr3t@cache sasl.password=s3cr3t")
    head = HeadStatus(17, 310.5004, 9, 20)
    partition = PartitionStatus(topic="orders", partition=0, epoch=1, pauses=(pause,), head=head)
    world.board.publish(replace(WELL, partitions=(partition,), fatal="token: s3cr3t"))

    _, body = world.ask("/status?pretty=1")

    shown = json.loads(body)
    assert shown["partitions"][0]["pauses"][0]["age_s"] == 10.0
    seen = {"blocking_offset": 17, "age_s": 310.5, "attempts": 9, "records_behind": 20}
    assert shown["partitions"][0]["head"] == seen
    assert shown["up_s"] == 1_000.0
    assert b"s3cr3t" not in body


def test_head_has_the_headers_and_no_body(world: World) -> None:
    with world.connect(b"HEAD /metrics HTTP/1.1\r\n\r\n") as connection:
        answer = b"".join(iter(lambda: connection.recv(4096), b""))

    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"\r\nContent-Length: 6\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_an_unknown_page_is_answered_with_the_list_of_those_that_exist(world: World) -> None:
    response, body = world.ask("/health")

    assert response.status == 404
    assert b"/health/ready" in body
    assert b"/metrics" in body


def test_other_methods_and_broken_requests_are_refused_without_repeating_them(world: World) -> None:
    response, body = world.ask("/<script>", method="POST")
    with world.connect(b"<script>\r\n\r\n") as broken:
        answer = broken.recv(10_000)

    assert response.status == 501
    assert b"script" not in body
    assert b"script" not in answer


def test_an_error_in_a_page_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    world = World()

    def broken(_accept: str) -> Never:
        raise ValueError("inner secret")

    pages = Pages(board=world.board, metrics=broken, clock=StillClock(), limits=Limits.of(Config()))
    world.server.stop()
    world.server = HttpServer(HttpConfig(host="127.0.0.1", port=0), pages)
    world.port = world.server.start()

    response, body = world.ask("/metrics")
    world.server.stop()

    assert response.status == 500
    assert b"inner secret" not in body
    assert b"Traceback" not in body
    assert "page failed" in caplog.text


def test_a_header_beyond_the_limit_is_refused(world: World) -> None:
    response, _ = world.ask("/metrics", Cookie="x" * 8_300)

    assert response.status == 431


def test_clients_that_dribble_keep_nobody_out(world: World) -> None:
    dribbling = [world.connect() for _ in range(3 * MAX_CONNECTIONS)]

    began_s = time.monotonic()
    answers = [world.ask("/health/live")[0].status for _ in range(5)]

    assert answers == [200] * 5
    assert time.monotonic() - began_s < 2.0
    for connection in dribbling:
        connection.close()


def test_the_oldest_dribbling_connection_gives_way(world: World) -> None:
    oldest, *others = [world.connect() for _ in range(MAX_CONNECTIONS)]

    world.ask("/health/live")

    assert oldest.recv(1) == b""
    for connection in (oldest, *others):
        connection.close()


def test_a_request_that_does_not_come_is_not_waited_for_beyond_its_time() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"GET /")
        began_s = time.monotonic()

        with pytest.raises(TimeoutError):
            read_head(ours, timeout_s=0.05, max_bytes=100)

    assert time.monotonic() - began_s < 2.0


def test_a_request_has_its_time_in_all_and_not_per_byte() -> None:
    with Dribble() as connection, pytest.raises(TimeoutError):
        read_head(connection, timeout_s=0.05, max_bytes=10**9)


def test_a_request_without_an_end_is_read_up_to_the_limit() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"x" * 101)

        with pytest.raises(HeadTooLarge):
            read_head(ours, timeout_s=5.0, max_bytes=100)


def test_a_port_in_use_is_a_configuration_error_that_names_the_option(world: World) -> None:
    second = HttpServer(HttpConfig(host="127.0.0.1", port=world.port), world.pages)

    with pytest.raises(ConfigurationError, match=rf"http\.port: {world.port} .* in use"):
        second.start()


def test_a_host_that_is_not_ours_is_a_configuration_error() -> None:
    elsewhere = HttpServer(HttpConfig(host="192.0.2.1", port=0), World.__new__(World))  # type: ignore[arg-type]

    with pytest.raises(ConfigurationError, match=r"http\.host"):
        elsewhere.start()


def test_a_unix_socket_serves_the_same_pages(world: World, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = HttpServer(HttpConfig(host=f"unix:{path}"), world.pages)

    assert server.start() is None
    answers = [ask(path, page, accept="application/json", timeout_s=5.0) for page in ("/metrics", "/health")]
    server.stop()

    assert answers[0] == (200, b"lag 1\n")
    assert answers[1][0] == 404


def test_a_socket_on_which_nothing_comes_is_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with pytest.raises(NoAnswer, match="/metrics: FileNotFoundError"):
        ask(path, "/metrics", timeout_s=5.0)

    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(NoAnswer, match="/metrics: TimeoutError"):
            ask(path, "/metrics", timeout_s=0.05)


def test_a_stopped_server_frees_its_port(world: World) -> None:
    world.server.stop()
    world.server.stop()

    again = HttpServer(HttpConfig(host="127.0.0.1", port=world.port), world.pages)
    assert again.start() == world.port
    again.stop()
