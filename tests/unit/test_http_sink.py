"""What an HttpSink sends and what it makes of the answers, over a transport without a network."""

from __future__ import annotations

import base64
import dataclasses
import logging
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime

import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.errors import ConfigurationError, PoisonError, RetryableError, RowFailed
from streamworker.interfaces import Row, Written
from streamworker.record import Origin, TopicPartition
from streamworker.resilience.verdict import is_of_a_dependency
from streamworker.sinks.http import HttpSink, HttpWriter, _Server, origin_key
from streamworker.sinks.values import Delete
from streamworker.work import Place

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
URL = "https://api.example/v1"
SECRET = "pa55/word"
WITH_USER = "https://ann:pa55%2Fword@api.example/v1"
ORDER = {"order_id": "7", "cents": 250}

Respond = Callable[[httpx2.Request], httpx2.Response]


class Context:
    """What a sink knows of the handler that it writes for."""

    group = "billing-group"
    handler = "Bill"

    def __init__(self, url: str = URL, left_s: float = 60.0) -> None:
        self._url = url
        self._left_s = left_s

    def connection(self, name: str) -> str:
        return self._url

    def shared(self, name: str, factory: Callable[[], object]) -> object:
        return factory()

    def remaining_s(self, most_s: float) -> float:
        return min(self._left_s, most_s)


class NoonClock:
    """At noon; each look at it takes `step_s`."""

    def __init__(self, step_s: float = 0.0) -> None:
        self._step_s = step_s
        self._now_s = 1000.0

    def monotonic_s(self) -> float:
        self._now_s += self._step_s
        return self._now_s

    def wall_ms(self) -> int:
        return int(NOW.timestamp() * 1000)


class Api:
    """Keeps the requests that come and answers with `respond`."""

    def __init__(self, respond: Respond = lambda request: httpx2.Response(200)) -> None:
        self.requests: list[httpx2.Request] = []
        self._respond = respond

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        self.requests.append(request)
        return self._respond(request)


def place(group: str = "billing-group") -> Place:
    return Place(group=group, partition=TopicPartition("orders", 0), lanes=1, lane=0, owner="owner", done_below=0)


def row(*values: object, offset: int = 5, origin: Origin | None = None) -> Row:
    return Row(offset=offset, origin=origin or Origin("orders", 0, offset), key=b"ann", values=values)


def writer(
    api: Api,
    sink: HttpSink | None = None,
    url: str = URL,
    context: Context | None = None,
    clock: NoonClock | None = None,
) -> HttpWriter:
    sink = sink or HttpSink("billing", path="/orders/{order_id}")
    server = _Server.of(sink.name, url)
    return HttpWriter(sink, server, context or Context(url), httpx2.MockTransport(api), clock or NoonClock())


def failure(respond: Respond, rows: Sequence[Row] = (row(ORDER),), **options: object) -> RowFailed:
    with pytest.raises(RowFailed) as raised:
        writer(Api(respond), **options).write(place(), rows)
    return raised.value


def answering(status: int, **parts: object) -> Respond:
    return lambda request: httpx2.Response(status, **parts)


def test_values_are_sent_one_after_the_other_in_order() -> None:
    api = Api()

    written = writer(api).write(place(), [row(ORDER, {"order_id": "8"}), row(), row({"order_id": "9"}, offset=6)])

    assert written == Written()
    assert [request.url.path for request in api.requests] == ["/v1/orders/7", "/v1/orders/8", "/v1/orders/9"]
    assert {request.method for request in api.requests} == {"POST"}


class Order(msgspec.Struct, rename={"order_id": "orderId"}):
    order_id: str


@dataclasses.dataclass
class Plain:
    order_id: uuid.UUID


@pytest.mark.parametrize(
    ("value", "path", "body", "kind"),
    [
        (ORDER, "/v1/orders/7", b'{"order_id":"7","cents":250}', "application/json"),
        (Order("7"), "/v1/orders/7", b'{"orderId":"7"}', "application/json"),
        (
            Plain(uuid.UUID(int=1)),
            f"/v1/orders/{uuid.UUID(int=1)}",
            f'{{"order_id":"{uuid.UUID(int=1)}"}}'.encode(),
            "application/json",
        ),
    ],
)
def test_a_value_becomes_json(value: object, path: str, body: bytes, kind: str) -> None:
    api = Api()

    writer(api).write(place(), [row(value)])

    [request] = api.requests
    assert (request.url.path, request.content, request.headers["content-type"]) == (path, body, kind)


def test_bytes_are_sent_as_they_are() -> None:
    api = Api()

    writer(api, HttpSink("billing", headers={"Content-Type": "application/avro"})).write(place(), [row(b"\x00\xff")])

    [request] = api.requests
    assert request.content == b"\x00\xff"
    assert request.headers["content-type"] == "application/avro"
    assert str(request.url) == "https://api.example/v1/"


def test_a_deletion_by_method_has_no_body() -> None:
    api = Api()

    writer(api, HttpSink("billing", path="/orders/{order_id}", method="DELETE")).write(place(), [row(ORDER)])

    [request] = api.requests
    assert (request.method, request.content) == ("DELETE", b"")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text not in (".", "..")))
def test_a_field_never_leaves_its_segment_of_the_path(text: str) -> None:
    api = Api()

    writer(api, HttpSink("billing", path="/orders/{order_id}/paid?by={order_id}")).write(
        place(), [row({"order_id": text})]
    )

    [request] = api.requests
    segments = request.url.raw_path.partition(b"?")[0].split(b"/")
    assert [segments[1], segments[2], segments[4]] == [b"v1", b"orders", b"paid"]
    assert len(segments) == 5
    assert request.url.path == f"/v1/orders/{text}/paid"
    assert dict(request.url.params) == {"by": text}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"order_id": ".."}, "dot segment"),
        ({"order_id": "."}, "dot segment"),
        ({"order_id": ""}, "got nothing"),
        ({"order_id": None}, "got nothing"),
        ({"order_id": True}, "got bool"),
        ({"order_id": [1]}, "got list"),
        ({"order_id": "\ud800"}, "got str"),
        ({"cents": 1}, "'order_id', which the value does not have"),
        (b"bytes", "got bytes"),
        ({"order_id": "1", "what": object()}, "cannot be written as JSON"),
        ({"order_id": "x" * 70_000}, "the value makes no path"),
        (Delete(ORDER), "takes no Delete"),
    ],
)
def test_a_value_that_cannot_be_sent_is_poison_and_is_not_sent(value: object, words: str) -> None:
    api = Api()

    with pytest.raises(RowFailed, match=words) as raised:
        writer(api).write(place(), [row(ORDER), row(value, offset=6)])

    assert raised.value.index == 1
    assert isinstance(raised.value.cause, PoisonError)
    assert len(api.requests) == 1


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_an_answer_of_2xx_is_success(status: int) -> None:
    assert writer(Api(answering(status))).write(place(), [row(ORDER)]) == Written()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599, 301, 302, 303, 304, 307, 308])
def test_what_says_nothing_about_the_record_is_tried_again_and_counted_by_breakers(status: int) -> None:
    cause = failure(answering(status, headers={"location": "https://elsewhere.example/"})).cause

    assert isinstance(cause, RetryableError)
    assert is_of_a_dependency(cause, None)
    assert str(status) in str(cause)


def test_a_redirect_is_not_followed() -> None:
    api = Api(answering(307, headers={"location": "https://elsewhere.example/"}))

    with pytest.raises(RowFailed, match="a redirect, and none is followed"):
        writer(api, url=WITH_USER).write(place(), [row(ORDER)])

    assert len(api.requests) == 1


@pytest.mark.parametrize("status", [400, 404, 409, 410, 413, 415, 422])
def test_a_request_that_is_refused_is_poison_and_no_breaker_counts_it(status: int) -> None:
    failed = failure(answering(status, content=b'{"error":"no such customer"}'))

    assert isinstance(failed.cause, PoisonError)
    assert not is_of_a_dependency(failed.cause, None)
    assert str(failed.cause) == (
        f'billing: POST /orders/{{order_id}} was answered with {status}: {{"error":"no such customer"}}'
    )


@pytest.mark.parametrize(("status", "also_retry"), [(401, None), (403, None), (423, (423,))])
def test_a_status_that_is_named_or_is_about_credentials_is_tried_again(
    status: int, also_retry: tuple[int, ...] | None
) -> None:
    sink = HttpSink("billing") if also_retry is None else HttpSink("billing", also_retry=also_retry)

    cause = failure(answering(status), sink=sink).cause

    assert isinstance(cause, RetryableError)
    assert is_of_a_dependency(cause, None)


def test_a_claimed_record_is_named_by_its_id() -> None:
    claimed = Row(7, Origin("orders", 0, 7), None, (ORDER,), "Bills/order 1")

    assert origin_key("g", claimed, 0) == "g/Bills%2Forder%201/0"


@pytest.mark.parametrize(
    "error",
    [
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
        httpx2.RemoteProtocolError("Server disconnected without sending a response."),
    ],
)
def test_no_answer_is_tried_again_and_counted_by_breakers(error: Exception) -> None:
    def respond(request: httpx2.Request) -> httpx2.Response:
        raise error

    cause = failure(respond).cause

    assert isinstance(cause, RetryableError)
    assert is_of_a_dependency(cause, None)
    assert type(error).__name__ in str(cause)


def test_the_rows_before_a_failure_are_done_and_those_after_it_are_not_sent() -> None:
    api = Api(lambda request: httpx2.Response(404 if request.url.path.endswith("/2") else 200))
    rows = [row({"order_id": str(number)}, offset=number) for number in range(5)]

    with pytest.raises(RowFailed) as raised:
        writer(api).write(place(), rows)

    assert raised.value.index == 2
    assert [request.url.path[-1] for request in api.requests] == ["0", "1", "2"]


def http_date(seconds_from_now: float) -> str:
    return format_datetime(datetime.fromtimestamp(NOW.timestamp() + seconds_from_now, UTC), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "17"}, 17),
        ({"retry-after": " 0 "}, 0),
        ({"retry-after": "86400"}, 300),
        ({"retry-after": "9" * 5000}, 300),
        ({"retry-after": http_date(40)}, 40),
        ({"retry-after": http_date(-40)}, 0),
        ({"retry-after": http_date(9000)}, 300),
        ({"retry-after": http_date(9000), "date": http_date(8990)}, 10),
        ({"retry-after": http_date(40), "date": "yesterday"}, 40),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:40"}, 40),
        ({}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "nan"}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_a_server_asks_for_is_kept_within_bounds(
    headers: dict[str, str], wait_s: float | None, status: int
) -> None:
    cause = failure(answering(status, headers=headers)).cause

    assert isinstance(cause, RetryableError)
    assert cause.retry_after_s == wait_s


def test_the_key_is_the_same_when_a_record_comes_again_from_elsewhere() -> None:
    api = Api()
    origin = Origin("orders", 3, 77)

    writer(api).write(place(), [row(ORDER, ORDER, offset=77, origin=origin)])
    writer(api).write(place(), [row(ORDER, ORDER, offset=2, origin=origin)])

    keys = [request.headers["idempotency-key"] for request in api.requests]
    assert keys == ["billing-group/orders/3/77/0", "billing-group/orders/3/77/1"] * 2


sources = st.tuples(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200),
    st.text("ab./%", min_size=1, max_size=249),
    st.integers(0, 12),
    st.integers(0, 2**63 - 1),
    st.integers(0, 12),
)


@given(sources, sources)
def test_keys_differ_where_group_origin_or_number_differ_and_fit_a_header(
    one: tuple[str, str, int, int, int], other: tuple[str, str, int, int, int]
) -> None:
    keys = [
        origin_key(group, row(origin=Origin(topic, partition, offset)), number)
        for group, topic, partition, offset, number in (one, other)
    ]

    assert (keys[0] == keys[1]) == (one == other)
    assert all(key.isascii() and key.isprintable() and len(key) <= 255 for key in keys)


def test_the_key_and_its_header_can_be_the_users() -> None:
    api = Api()
    sink = HttpSink("billing", key_header="X-Request-Id", key=lambda row, number: f"{row.offset}-{number}")

    writer(api, sink).write(place(), [row(ORDER, offset=12)])

    [request] = api.requests
    assert request.headers["x-request-id"] == "12-0"
    assert "idempotency-key" not in request.headers


def test_no_key_is_sent_without_a_header_for_it() -> None:
    api = Api()

    writer(api, HttpSink("billing", key_header=None)).write(place(), [row(ORDER)])

    assert "idempotency-key" not in api.requests[0].headers


@pytest.mark.parametrize("key", ["", " ", " a", "a ", "a\r\nx: y", "ä", None, 7])
def test_a_key_that_is_no_header_is_poison(key: object) -> None:
    sink = HttpSink("billing", key=lambda row, number: key)

    assert isinstance(failure(answering(200), sink=sink).cause, PoisonError)


def test_the_user_of_the_url_becomes_basic_authentication() -> None:
    api = Api()

    writer(api, url=WITH_USER).write(place(), [row(ORDER)])

    [request] = api.requests
    assert request.headers["authorization"] == "Basic " + base64.b64encode(f"ann:{SECRET}".encode()).decode()
    assert str(request.url) == "https://api.example/v1/orders/7"


def test_headers_can_be_asked_for_with_each_request() -> None:
    api = Api()
    tokens = iter(("first", "second"))

    writer(api, HttpSink("billing", headers=lambda: {"Authorization": f"Bearer {next(tokens)}"})).write(
        place(), [row(ORDER, ORDER)]
    )

    assert [request.headers["authorization"] for request in api.requests] == ["Bearer first", "Bearer second"]


def test_credentials_are_in_no_error_no_repr_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    encoded = base64.b64encode(f"ann:{SECRET}".encode()).decode()
    caplog.set_level(logging.DEBUG)
    sink = HttpSink("billing", headers={"X-Api": "t0ken"})
    echo = answering(400, content=f"you sent {encoded} for {SECRET}, password=t0ken")

    failed = failure(echo, sink=sink, url=WITH_USER)

    shown = f"{failed} {failed.cause!r} {sink!r} {_Server.of('billing', WITH_USER)!r} {caplog.text}"
    assert not any(secret in shown for secret in (SECRET, "pa55", encoded, "t0ken"))
    assert "you sent [hidden] for [hidden]" in str(failed.cause)


def test_an_error_shows_the_beginning_of_an_answer_in_one_line() -> None:
    said = str(failure(answering(400, content=b"bad\r\n\x00" + "ä".encode() * 5000)).cause)

    assert said.endswith("ä…")
    assert r"bad\x0d\x0a\x00" in said
    assert len(said.encode()) < 300


class Endless(httpx2.SyncByteStream):
    """A body without an end; `chunks` were read of it."""

    def __init__(self) -> None:
        self.chunks = 0
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.chunks += 1
            yield b"x" * 1024

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_answer_without_an_end_is_not_read_to_its_end(status: int) -> None:
    body = Endless()

    if status == 200:
        writer(Api(answering(status, stream=body))).write(place(), [row(ORDER)])
    else:
        failure(answering(status, stream=body))

    assert body.chunks == 65
    assert body.closed


def test_an_answer_that_drips_is_read_no_longer_than_the_timeout() -> None:
    body = Endless()

    written = writer(Api(answering(200, stream=body)), clock=NoonClock(step_s=1.0)).write(place(), [row(ORDER)])

    assert written == Written()
    assert body.chunks == 5


def test_a_success_whose_body_breaks_off_is_a_success() -> None:
    class Broken(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b"part"
            raise httpx2.ReadError("reset")

    assert writer(Api(answering(201, stream=Broken()))).write(place(), [row(ORDER)]) == Written()


@pytest.mark.parametrize(("left_s", "timeout_s"), [(60.0, 5.0), (2.0, 2.0), (0.001, 0.001)])
def test_a_request_waits_no_longer_than_its_call_has_left(left_s: float, timeout_s: float) -> None:
    api = Api()

    writer(api, context=Context(left_s=left_s)).write(place(), [row(ORDER)])

    assert set(api.requests[0].extensions["timeout"].values()) == {timeout_s}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "GET"}, r"method: expected one of POST, PUT, PATCH, DELETE, got 'GET'"),
        ({"method": "post"}, r"did you mean 'POST'\?"),
        ({"path": "orders"}, r"path: expected /path/\{field\}"),
        ({"path": "/orders#x"}, r"path: expected"),
        ({"path": "/a b"}, r"path: expected"),
        ({"path": "/{order.id}"}, r"plain name in braces, got 'order.id'"),
        ({"path": "/{}"}, r"plain name"),
        ({"path": "/{id!r}"}, r"plain name"),
        ({"path": "/{id:>4}"}, r"plain name"),
        ({"path": "/{id"}, r"path: expected '}'"),
        ({"timeout_s": 0}, r"timeout_s: expected at least 0.001"),
        ({"max_retry_after_s": -1}, r"max_retry_after_s: expected at least 0"),
        ({"headers": {"X Y": "z"}}, r"header 'X Y'"),
        ({"headers": {"X": " a"}}, r"header 'X'"),
        ({"headers": {"X": 1}}, r"header 'X'"),
        ({"headers": {"X": "a\r\nb: c"}}, r"header 'X'"),
        ({"headers": {"Content-Length": "3"}}, r"is set by the connection"),
        ({"key_header": "a b"}, r"key_header"),
        ({"also_retry": (200,)}, r"also_retry: expected statuses of 400 to 499"),
        ({"verify": False, "ca_file": "ca.pem"}, r"ca_file: verify=False"),
    ],
)
def test_options_that_cannot_work_are_refused_where_they_are_written(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        HttpSink("billing", **options)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/",
        "billing:443",
        "http://",
        "https://h/?a=1",
        "https://h/#x",
        "http://h:0/",
        "http://h:x/",
        "http://[::1/",
    ],
)
def test_a_url_that_cannot_work_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        HttpSink("billing").writer(Context(url))

    assert str(raised.value) == "sinks.billing: expected https://[user:password@]host[:port][/path]"


def test_two_authorizations_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="leave one of them out"):
        HttpSink("billing", headers={"AUTHORIZATION": "Bearer x"}).writer(Context(WITH_USER))


def test_a_ca_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"ca_file: 'missing\.pem'"):
        HttpSink("billing", ca_file="missing.pem").writer(Context())


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)

    with pytest.raises(ConfigurationError, match=r"install streamworker\[http\]"):
        HttpSink("billing").writer(Context())


def test_a_writer_connects_no_earlier_than_it_writes_and_closes_twice() -> None:
    opened = HttpSink("billing").writer(Context("https://nobody.invalid/"))

    opened.close()
    opened.close()


def test_a_sink_can_be_compared_and_kept_in_a_set() -> None:
    assert len({HttpSink("billing"), HttpSink("billing"), HttpSink("billing", path="/x")}) == 2
