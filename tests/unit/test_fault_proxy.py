"""Each fault of the proxy is seen by a client and a server, and is gone after `heal`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from fleet.workers import wait_for
from servers.ports import free_port
from servers.proxy import FaultProxy, ProxyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TESTS = Path(__file__).parents[1]
TIMEOUT_S = 20.0
LONG_S = 600.0  # nothing that waits for this ends within a test

RUN = """
from servers.proxy import FaultProxy
print(FaultProxy("127.0.0.1", 9).port, flush=True)
input()
"""


class Line:
    """A server behind a proxy; each pair is a client's socket, and the server's for the same connection."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._listener = self._open.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._listener.settimeout(TIMEOUT_S)
        self.proxy = self._open.enter_context(FaultProxy("127.0.0.1", self._listener.getsockname()[1]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def pair(self) -> tuple[socket.socket, socket.socket]:
        client = self._open.enter_context(connect(self.proxy.port))
        server, _ = self._listener.accept()
        server.settimeout(TIMEOUT_S)
        return client, self._open.enter_context(server)

    def wait_until_lost(self) -> None:
        wait_for(lambda: self.proxy.lossy_connections > 0, lambda: "no connection lost anything", TIMEOUT_S)


@pytest.fixture
def line() -> Iterator[Line]:
    with Line() as one:
        yield one


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), TIMEOUT_S)


def received(end: socket.socket, count: int) -> bytes:
    """That many bytes, or as many as come before the end."""
    data = b""
    while len(data) < count and (more := end.recv(count - len(data))):
        data += more
    return data


def assert_passes(sender: socket.socket, receiver: socket.socket, data: bytes) -> None:
    sender.sendall(data)
    assert received(receiver, len(data)) == data


def assert_works(line: Line) -> None:
    """A new connection passes bytes both ways."""
    client, server = line.pair()
    assert_passes(client, server, b"request")
    assert_passes(server, client, b"answer")


def assert_was_reset(end: socket.socket) -> None:
    with pytest.raises(ConnectionResetError):
        end.recv(1)


def test_without_a_fault_bytes_pass_both_ways_unchanged(line: Line) -> None:
    client, server = line.pair()
    data = os.urandom(3_000_000)  # more than all buffers on the way
    sending = threading.Thread(target=client.sendall, args=(data,), daemon=True)

    sending.start()

    assert received(server, len(data)) == data
    assert_passes(server, client, b"thanks")


def test_an_end_that_is_closed_closes_the_other(line: Line) -> None:
    first_client, first_server = line.pair()
    second_client, second_server = line.pair()

    first_client.close()
    second_server.close()

    assert first_server.recv(1) == b""
    assert second_client.recv(1) == b""


def test_a_server_that_cannot_be_reached_looks_like_one_that_resets() -> None:
    with (
        FaultProxy("127.0.0.1", free_port()) as proxy,
        pytest.raises(ConnectionResetError),
        connect(proxy.port) as client,
    ):
        client.recv(1)


def test_a_delay_holds_bytes_up_each_way(line: Line) -> None:
    client, server = line.pair()
    line.proxy.delay(0.05)

    began_s = time.monotonic()
    assert_passes(client, server, b"request")
    assert_passes(server, client, b"answer")

    assert time.monotonic() - began_s >= 0.1


def test_healing_ends_a_delay_also_for_what_is_under_way(line: Line) -> None:
    client, server = line.pair()
    line.proxy.delay(LONG_S)
    client.sendall(b"request")

    line.proxy.heal()

    assert received(server, 7) == b"request"
    assert_passes(server, client, b"answer")


def test_a_slow_line_keeps_its_rate(line: Line) -> None:
    client, server = line.pair()
    line.proxy.slow(1000)

    began_s = time.monotonic()
    assert_passes(client, server, b"x" * 200)

    # The first portion, of 50 bytes, goes at once.
    assert time.monotonic() - began_s >= 0.15


def test_healing_ends_a_slow_rate_also_for_what_is_under_way(line: Line) -> None:
    client, server = line.pair()
    line.proxy.slow(1)
    client.sendall(b"request")
    assert received(server, 1) == b"r"

    line.proxy.heal()

    assert received(server, 6) == b"equest"


def test_a_black_hole_takes_everything_and_delivers_nothing(line: Line) -> None:
    client, server = line.pair()
    line.proxy.black_hole()
    client.sendall(b"request")
    server.sendall(b"answer")
    line.wait_until_lost()

    line.proxy.heal()

    assert_was_reset(client)
    assert_was_reset(server)
    assert_works(line)


def test_a_black_hole_hides_that_an_end_is_closed(line: Line) -> None:
    client, server = line.pair()
    line.proxy.black_hole()
    client.close()
    line.wait_until_lost()

    server.settimeout(0)
    with pytest.raises(BlockingIOError):
        server.recv(1)

    server.settimeout(TIMEOUT_S)
    line.proxy.heal()
    assert_was_reset(server)


def test_a_black_hole_accepts_new_connections(line: Line) -> None:
    line.proxy.black_hole()
    client, _ = line.pair()
    client.sendall(b"request")
    line.wait_until_lost()

    line.proxy.heal()

    assert_was_reset(client)


def test_a_connection_that_was_idle_in_a_black_hole_goes_on(line: Line) -> None:
    client, server = line.pair()
    line.proxy.black_hole()

    line.proxy.heal()

    assert_passes(client, server, b"request")


def test_a_fault_meets_what_is_under_way(line: Line) -> None:
    client, server = line.pair()
    line.proxy.delay(LONG_S)
    client.sendall(b"request")

    line.proxy.black_hole()
    line.proxy.delay(0.001)
    line.wait_until_lost()

    line.proxy.heal()
    assert_was_reset(server)


def test_requests_can_be_lost_alone(line: Line) -> None:
    client, server = line.pair()
    line.proxy.drop_up()
    client.sendall(b"request")
    line.wait_until_lost()

    assert_passes(server, client, b"news")

    line.proxy.heal()
    assert_was_reset(client)
    assert_was_reset(server)
    assert_works(line)


def test_answers_can_be_lost_alone(line: Line) -> None:
    client, server = line.pair()
    line.proxy.drop_down()
    server.sendall(b"answer")
    line.wait_until_lost()

    assert_passes(client, server, b"request")

    line.proxy.heal()
    assert_was_reset(client)
    assert_was_reset(server)
    assert_works(line)


def test_a_half_open_connection_has_lost_its_server_and_the_client_is_not_told(line: Line) -> None:
    client, server = line.pair()

    line.proxy.half_open()

    assert_was_reset(server)
    client.settimeout(0)
    with pytest.raises(BlockingIOError):
        client.recv(1)
    assert_works(line)

    client.settimeout(TIMEOUT_S)
    line.proxy.heal()
    assert_was_reset(client)


def test_a_truncated_answer_lacks_its_end_and_the_connection_is_closed(line: Line) -> None:
    client, server = line.pair()
    line.proxy.truncate()

    server.sendall(b"answer")

    assert received(client, 6) == b"answe"
    assert server.recv(1) == b""
    line.proxy.heal()
    assert_works(line)


def test_damage_changes_what_asks_for_it_on_its_way_from_the_server(line: Line) -> None:
    client, server = line.pair()
    line.proxy.damage()

    server.sendall(b"<to-be-damaged>")
    client.sendall(b"<to-be-damaged>")

    assert received(client, 15) == b"<to_be_damaged>"
    assert received(server, 15) == b"<to-be-damaged>"
    line.proxy.heal()
    assert_works(line)


def test_a_reset_ends_living_connections_and_no_others(line: Line) -> None:
    client, server = line.pair()

    line.proxy.reset()

    assert_was_reset(client)
    assert_was_reset(server)
    assert_works(line)


def test_refusal_resets_living_connections_and_refuses_new_ones_until_healed(line: Line) -> None:
    client, server = line.pair()

    line.proxy.refuse()

    assert_was_reset(client)
    assert_was_reset(server)
    with pytest.raises(ConnectionRefusedError):
        connect(line.proxy.port)
    line.proxy.refuse()
    line.proxy.heal()
    assert_works(line)


def test_nobody_else_can_take_the_port_while_it_refuses(line: Line) -> None:
    line.proxy.refuse()

    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", line.proxy.port))


def test_a_port_can_be_asked_for() -> None:
    port = free_port()

    with FaultProxy("127.0.0.1", 9, port) as proxy:
        assert proxy.port == port


def test_a_port_that_is_taken_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ProxyError, match="ended with code 1"):
        FaultProxy("127.0.0.1", 9, taken.getsockname()[1])

    assert "in use" in capfd.readouterr().err


@pytest.mark.parametrize("control", [FaultProxy.delay, FaultProxy.slow])
def test_a_number_that_is_no_fault_is_refused(control: Callable[[FaultProxy, float], None], line: Line) -> None:
    with pytest.raises(ValueError, match=r"\(0\): expected more than 0"):
        control(line.proxy, 0)


def test_a_proxy_that_is_closed_says_so_and_may_be_closed_again(line: Line) -> None:
    line.proxy.close()

    line.proxy.close()
    with pytest.raises(ProxyError, match="is closed"):
        line.proxy.heal()


def test_a_proxy_whose_process_was_killed_says_so(line: Line) -> None:
    os.kill(line.proxy.pid, signal.SIGKILL)

    with pytest.raises(ProxyError, match="ended with code -9"):
        line.proxy.heal()


def test_the_proxy_ends_with_a_run_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    ) as run:
        assert run.stdout is not None
        port = int(run.stdout.readline())

        run.send_signal(signal.SIGKILL)

        wait_for(lambda: not listens(port), lambda: f"port {port} closes", TIMEOUT_S)


def listens(port: int) -> bool:
    try:
        connect(port).close()
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:
        return True  # there is no server behind it
    return True
