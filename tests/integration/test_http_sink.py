"""An HttpSink and a real server: connections that break, answers that are lost, a server that is slow."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from streamworker.errors import PoisonError, RetryableError, RowFailed
from streamworker.interfaces import Row, Written
from streamworker.record import Origin, TopicPartition
from streamworker.resilience.verdict import is_of_a_dependency
from streamworker.sinks.http import HttpSink, HttpWriter
from streamworker.work import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PLACE = Place(group="g", partition=TopicPartition("orders", 0), lanes=1, lane=0, owner="o", done_below=0)
SINK = HttpSink("billing", path="/orders/{order_id}", timeout_s=5.0)


class Billing(ThreadingHTTPServer):
    """Bills each idempotency key once. `misfortunes` are done to the next requests, one each."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Bill)
        self.requests: list[tuple[str, str, str | None]] = []  # path, key, authorization
        self.bills: dict[str, object] = {}
        self.clients: set[tuple[str, int]] = set()
        self.misfortunes: list[Callable[[Bill], bool]] = []
        self.ends = threading.Event()

    @property
    def port(self) -> int:
        return self.server_address[1]


class Bill(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written apart
    server: Billing

    def do_POST(self) -> None:
        misfortune = self.server.misfortunes.pop(0) if self.server.misfortunes else None
        if misfortune is reset_before_the_effect:
            reset_before_the_effect(self)
            return
        body = self.rfile.read(int(self.headers["content-length"]))
        key = self.headers["idempotency-key"]
        self.server.requests.append((self.path, key, self.headers["authorization"]))
        self.server.clients.add(self.client_address)
        self.server.bills.setdefault(key, json.loads(body))
        if misfortune is None or misfortune(self):
            self.send_response(201)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

    def log_message(self, *args: object) -> None:
        pass


def reset_before_the_effect(bill: Bill) -> bool:
    """The client sees a connection reset."""
    bill.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    bill.connection.close()
    bill.close_connection = True
    return False


def lose_the_answer(bill: Bill) -> bool:
    """The effect is there, and the connection ends without a word."""
    bill.close_connection = True
    return False


def break_off_the_head(bill: Bill) -> bool:
    """The connection ends within the answer's first line."""
    bill.wfile.write(b"HTTP/1.1 20")
    bill.close_connection = True
    return False


def say_nothing(bill: Bill) -> bool:
    """Nothing comes until the test is over."""
    bill.server.ends.wait()
    bill.close_connection = True
    return False


def speak_something_else(bill: Bill) -> bool:
    """What comes is no HTTP."""
    bill.wfile.write(b"220 mail.example ESMTP\r\n")
    bill.close_connection = True
    return False


@pytest.fixture
def billing() -> Iterator[Billing]:
    with Billing() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="billing")
        thread.start()
        yield server
        server.ends.set()
        server.shutdown()
        thread.join()


class Context:
    group = "g"
    handler = "Bill"

    def __init__(self, url: str, left_s: float = 60.0) -> None:
        self._url = url
        self._left_s = left_s

    def connection(self, name: str) -> str:
        return self._url

    def shared(self, name: str, factory: Callable[[], object]) -> object:
        return factory()

    def remaining_s(self, most_s: float) -> float:
        return min(self._left_s, most_s)


def rows(count: int, first: int = 0) -> list[Row]:
    return [
        Row(offset=offset, origin=Origin("orders", 0, offset), key=None, values=({"order_id": offset, "cents": 1},))
        for offset in range(first, first + count)
    ]


@pytest.fixture
def writer(billing: Billing) -> Iterator[HttpWriter]:
    opened = SINK.writer(Context(f"http://ann:s3cret@127.0.0.1:{billing.port}/"))
    yield opened
    opened.close()


def failed(writer: HttpWriter, given: list[Row]) -> RowFailed:
    with pytest.raises(RowFailed) as raised:
        writer.write(PLACE, given)
    return raised.value


def test_all_requests_of_a_writer_go_over_one_connection(billing: Billing, writer: HttpWriter) -> None:
    assert writer.write(PLACE, rows(20)) == Written()
    assert writer.write(PLACE, rows(20, first=20)) == Written()

    assert [path for path, _, _ in billing.requests] == [f"/orders/{offset}" for offset in range(40)]
    assert {authorization for _, _, authorization in billing.requests} == {"Basic YW5uOnMzY3JldA=="}
    assert len(billing.clients) == 1


@pytest.mark.parametrize(
    "misfortune", [reset_before_the_effect, lose_the_answer, break_off_the_head, speak_something_else]
)
def test_what_had_no_answer_comes_again_with_the_same_key_and_has_one_effect(
    billing: Billing, writer: HttpWriter, misfortune: Callable[[Bill], bool]
) -> None:
    given = rows(3)
    billing.misfortunes += [lambda bill: True, misfortune]

    failure = failed(writer, given)
    writer.write(PLACE, given[failure.index :])

    assert failure.index == 1
    assert isinstance(failure.cause, RetryableError)
    assert is_of_a_dependency(failure.cause, None)
    assert "s3cret" not in repr(failure.cause)
    keys = [key for _, key, _ in billing.requests]
    repeats = 0 if misfortune is reset_before_the_effect else 1
    assert keys == ["g/orders/0/0/0", *["g/orders/0/1/0"] * (1 + repeats), "g/orders/0/2/0"]
    assert [bill["order_id"] for bill in billing.bills.values()] == [0, 1, 2]


def test_a_server_that_says_nothing_is_given_up_at_the_timeout(billing: Billing) -> None:
    """The timeout of the test run is what fails if it is waited for."""
    impatient = HttpSink("billing", path="/orders/{order_id}", timeout_s=0.05).writer(
        Context(f"http://127.0.0.1:{billing.port}")
    )
    billing.misfortunes += [say_nothing]

    failure = failed(impatient, rows(1))
    again = impatient.write(PLACE, rows(1))
    impatient.close()

    assert "ReadTimeout" in str(failure.cause)
    assert is_of_a_dependency(failure.cause, None)
    assert again == Written()
    assert len(billing.bills) == 1


def test_a_call_that_has_little_time_left_gives_a_silent_server_no_more(billing: Billing) -> None:
    writer = HttpSink("billing", path="/orders/{order_id}", timeout_s=3600.0).writer(
        Context(f"http://127.0.0.1:{billing.port}", left_s=0.05)
    )
    billing.misfortunes += [say_nothing]

    failure = failed(writer, rows(1))
    writer.close()

    assert "ReadTimeout" in str(failure.cause)


def test_a_server_that_does_not_listen_is_away(billing: Billing) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    writer = SINK.writer(Context(f"http://127.0.0.1:{port}"))

    failure = failed(writer, rows(2))
    writer.close()

    assert failure.index == 0
    assert is_of_a_dependency(failure.cause, None)


def test_a_server_without_tls_is_away_for_who_asks_for_it(billing: Billing) -> None:
    writer = SINK.writer(Context(f"https://127.0.0.1:{billing.port}"))

    failure = failed(writer, rows(1))
    writer.close()

    assert isinstance(failure.cause, RetryableError)
    assert is_of_a_dependency(failure.cause, None)
    assert billing.requests == []


def test_a_connection_is_used_again_after_a_request_that_was_refused(billing: Billing, writer: HttpWriter) -> None:
    def refuse(bill: Bill) -> bool:
        bill.send_response(422)
        bill.send_header("content-length", "10")
        bill.end_headers()
        bill.wfile.write(b"no such id")
        return False

    billing.misfortunes += [refuse]

    failure = failed(writer, rows(1))
    writer.write(PLACE, rows(1, first=1))

    assert isinstance(failure.cause, PoisonError)
    assert str(failure.cause).endswith("422: no such id")
    assert len(billing.clients) == 1


def test_a_server_is_known_by_the_certificates_of_the_ca_file_only(billing: Billing, tmp_path: Path) -> None:
    certificate, key = tmp_path / "ca.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=billing"
    subprocess.run(
        [*make.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    billing.socket = tls.wrap_socket(billing.socket, server_side=True)
    context = Context(f"https://127.0.0.1:{billing.port}")
    told = HttpSink("billing", path="/orders/{order_id}", ca_file=str(certificate)).writer(context)
    untold = SINK.writer(context)

    failure = failed(untold, rows(1))
    written = told.write(PLACE, rows(1))
    for one in (told, untold):
        one.close()

    assert "CERTIFICATE_VERIFY_FAILED" in str(failure.cause)
    assert written == Written()
    assert len(billing.requests) == 1
