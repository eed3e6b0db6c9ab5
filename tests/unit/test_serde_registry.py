from __future__ import annotations

import gc
import http.server
import json
import logging
import struct
import sys
import threading
import warnings
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from streamworker.errors import ConfigurationError, DecodeError, DependencyUnavailable
from streamworker.serde import Avro

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("certifi", reason="the extra `registry` is not installed")

ORDER = '{"type": "record", "name": "Order", "fields": [{"name": "qty", "type": "int"}]}'

UNKNOWN = b'{"error_code": 40403, "message": "Schema not found"}'


def framed(schema_id: int, datum: bytes = b"\x0e") -> bytes:
    return struct.pack(">bI", 0, schema_id) + datum


Answer = tuple[int, dict[str, str], bytes]


class _Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, as with real registries

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, _Registry)
        server.seen[self.path.split("?")[0]] += 1
        server.authorizations.add(self.headers.get("Authorization"))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, body = server.answers.get(self.path.split("?")[0], server.otherwise)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the base class looks it up

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Silent."""


class _Registry(http.server.ThreadingHTTPServer):
    def __init__(self, otherwise: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.answers: dict[str, Answer] = {}
        self.otherwise = otherwise
        self.seen: Counter[str] = Counter()
        self.authorizations: set[str | None] = set()

    def address(self, userinfo: str = "") -> str:
        return f"http://{userinfo}127.0.0.1:{self.server_port}"


@contextmanager
def registry(status: int = 404, headers: dict[str, str] | None = None, body: bytes = UNKNOWN) -> Iterator[_Registry]:
    with _Registry((status, headers or {}, body)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="registry", daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(5)


def as_json(content: object) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def test_a_schema_is_read_over_http() -> None:
    with registry() as server:
        server.answers = {
            "/schemas/ids/5": as_json({"schema": ORDER}),
            "/schemas/ids/5/versions": as_json([{"subject": "orders-value", "version": 1}]),
        }

        value = Avro.registry(url=server.address()).decode(framed(5), "orders")

    assert value == {"qty": 7}


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (500, {}, b"{}"),
        (503, {}, b"<html>"),
        (429, {}, b'{"error_code": 42901, "message": "slow down"}'),
        (401, {}, b""),
        (302, {"Location": "/elsewhere"}, b""),
        (404, {}, b""),
        (404, {}, b"<html>no such page</html>"),
        (404, {}, b'{"error_code": 404, "message": "HTTP 404 Not Found"}'),
        (200, {}, b"<html>a login page</html>"),
        (200, {}, b""),
        (200, {}, b"[]"),
    ],
)
def test_anything_but_an_answer_about_the_schema_leaves_the_record_waiting(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    with registry(status, headers, body) as server:
        serde = Avro.registry(url=server.address())

        with pytest.raises(DependencyUnavailable, match=f"the schema registry 127.0.0.1:{server.server_port} "):
            serde.decode(framed(5), "orders")

    assert server.seen == {"/schemas/ids/5": 1}


def test_a_registry_that_does_not_listen_leaves_the_record_waiting() -> None:
    with registry() as server:
        url = server.address()

    with pytest.raises(DependencyUnavailable, match="cannot be asked: ConnectError"):
        Avro.registry(url=url).decode(framed(5), "orders")


def test_a_registry_without_the_list_of_where_a_schema_is_registered_leaves_the_record_waiting() -> None:
    """The schema was taken for one of another topic: every record of the topic went to the dead letters."""
    with registry() as server:
        server.answers = {"/schemas/ids/5": as_json({"schema": ORDER}), "/schemas/ids/5/versions": (404, {}, b"")}
        serde = Avro.registry(url=server.address())

        with pytest.raises(DependencyUnavailable, match="answered 404 without saying what it does not know"):
            serde.decode(framed(5), "orders")


def test_a_404_that_says_what_is_not_known_is_an_answer() -> None:
    with registry(404, {}, UNKNOWN) as server:
        serde = Avro.registry(url=server.address())

        with pytest.raises(DecodeError, match="schema id 5 is not known"):
            serde.decode(framed(5), "orders")


def test_a_schema_that_the_registry_refuses_is_a_mistake_of_the_application(tmp_path: Path) -> None:
    file = tmp_path / "order.avsc"
    file.write_text(ORDER)
    with registry() as server:
        server.answers["/subjects/orders-value/versions"] = (409, {}, b'{"error_code": 409, "message": "incompatible"}')
        serde = Avro.registry(url=server.address(), schema=file)

        with pytest.raises(ConfigurationError, match="answered 409: incompatible"):
            serde.encode({"qty": 1}, "orders")


def test_what_a_schema_refers_to_by_address_is_never_fetched() -> None:
    with registry() as server, registry() as elsewhere:
        reference = {"$ref": elsewhere.address() + "/steal"}
        server.answers = {
            "/schemas/ids/5": as_json({"schema": json.dumps(reference), "schemaType": "JSON"}),
            "/schemas/ids/6": as_json({"schema": json.dumps({"type": reference})}),
            "/schemas/ids/5/versions": as_json([{"subject": "orders-value", "version": 1}]),
            "/schemas/ids/6/versions": as_json([{"subject": "orders-value", "version": 2}]),
        }
        serde = Avro.registry(url=server.address())

        for schema_id in (5, 6):
            with pytest.raises(DecodeError):
                serde.decode(framed(schema_id), "orders")

    assert not elsewhere.seen


def test_credentials_in_the_url_are_sent_and_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with registry(500) as server:
        serde = Avro.registry(url=server.address("user:s3cr%40t@"))

        with pytest.raises(DependencyUnavailable) as caught:
            serde.decode(framed(5), "orders")

    assert server.authorizations == {"Basic dXNlcjpzM2NyQHQ="}
    for text in (repr(serde), str(caught.value), repr(caught.value.__cause__), caplog.text):
        assert "s3cr" not in text


def test_the_connection_is_closed_with_the_serde() -> None:
    """It was left open until the garbage collection, which complains of that."""
    with registry(500) as server, warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        serde = Avro.registry(url=server.address())
        with pytest.raises(DependencyUnavailable):
            serde.decode(framed(5), "orders")

        del serde
        gc.collect()

    assert complaints == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://x",
        "//x",
        "http://user:s3cret@",
        "http://user:s3cret@x:99999",
        "file:///x",
        "http://x,http://u:s3cret@y",
    ],
)
def test_a_url_that_cannot_be_a_registry_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^Avro\.registry url: expected https://") as caught:
        Avro.registry(url=url)

    assert "s3cret" not in str(caught.value)


def test_without_the_extra_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka.schema_registry", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'streamworker\[registry\]'"):
        Avro.registry(url="mock://x")


def test_the_embedded_registry_keeps_to_the_subjects_too(tmp_path: Path) -> None:
    file = tmp_path / "order.avsc"
    file.write_text(ORDER)
    serde = Avro.registry(url="mock://x", schema=file)

    data = serde.encode({"qty": 7}, "orders")

    assert serde.decode(data, "orders") == {"qty": 7}
    with pytest.raises(DecodeError, match="payments-value"):
        serde.decode(data, "payments")
