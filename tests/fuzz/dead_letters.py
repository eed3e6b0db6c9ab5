"""Dead letters of records, errors and names of every kind.

A letter fits or is the barest pointer, what it leaves out is said, what it keeps is the original byte for byte, and
its headers can be read again: ours once each, the record's own in their order, forged ones nowhere.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, TypedDict, cast

import confluent_kafka
from fuzz.costs import bounded
from fuzz.target import target
from hypothesis import strategies as st

from streamworker.dlq.envelope import PREFIX, Attempt, Envelope, envelope
from streamworker.reason import Reason
from streamworker.record import read_headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.record import Header, Letter, Message

_TOPIC, _PARTITION, _OFFSET = "orders", 5, 1207
_OURS = (
    *("sw-version", "sw-id", "sw-group", "sw-handler", "sw-reason", "sw-exception", "sw-fingerprint", "sw-attempts"),
    *(f"sw-{place}-{part}" for place in ("origin", "from") for part in ("topic", "partition", "offset")),
)
# The names and numbers of ours, a cut class, message and log, and a pointer; beside the names that are given.
_OUR_BYTES = 4096


class Case(TypedDict):
    """A record and how it failed. `error` is module, class and text; None for an error that cannot be printed."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp: tuple[int, int]
    group: str
    handler: str
    reason: str
    error: tuple[str, str, str | None]
    log: list[tuple[int, str]]
    max_bytes: int
    partition_count: int


class _Unprintable(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


def _error(module: str, name: str, text: str | None) -> Exception:
    kind = type(name, (_Unprintable if text is None else Exception,), {"__module__": module})
    return cast("Exception", kind(text))


def _message(case: Case) -> Message:
    message = confluent_kafka.Message(
        topic=_TOPIC,
        partition=_PARTITION,
        offset=_OFFSET,
        key=case["key"],
        value=case["value"],
        headers=[*case["headers"]],
        timestamp=case["timestamp"],
    )
    return cast("Message", message)  # the client's stubs allow for messages without coordinates


def _envelope(case: Case) -> Envelope:
    return envelope(
        _message(case),
        topic="orders.dlq",
        group=case["group"],
        handler=case["handler"],
        reason=case["reason"],
        error=_error(*case["error"]),
        attempts=len(case["log"]),
        attempt_log=[Attempt.of(at_ms, _error("app", name, "")) for at_ms, name in case["log"]],
        now_ms=1_800_000_000_000,
        max_bytes=case["max_bytes"],
    )


def _check(case: Case) -> None:
    with bounded(len(repr(case))):
        letters = list(_envelope(case).letters(case["partition_count"]))
    assert len(letters) == 1 or all(_size_bytes(letter) <= case["max_bytes"] for letter in letters)
    assert len({_trimmed(letter) for letter in letters}) == len(letters) > 0
    for letter in letters:
        _check_letter(case, letter, trimmed=_trimmed(letter))
    _check_nothing_is_left_out_for_no_reason(case, letters[0])


def _check_letter(case: Case, letter: Letter, trimmed: Sequence[str]) -> None:
    assert letter.partition == _PARTITION % case["partition_count"]
    assert letter.key == (None if "key" in trimmed else case["key"])
    assert letter.value == (None if "value" in trimmed else case["value"])
    own = [header for header in case["headers"] if not header[0].startswith(PREFIX)]
    assert [header for header in letter.headers if not header[0].startswith(PREFIX)] == (
        [] if "headers" in trimmed else own
    )
    ours = [name for name, _ in letter.headers if name.startswith(PREFIX)]
    assert len(set(ours)) == len(ours)
    assert set(_OURS) <= set(ours)
    _check_ours(case, letter, trimmed)


def _check_ours(case: Case, letter: Letter, trimmed: Sequence[str]) -> None:
    told = {name: (value or b"").decode() for name, value in letter.headers if name.startswith(PREFIX)}
    names = _escaped(case["group"]), _escaped(case["handler"]), _escaped(case["reason"])
    assert (told["sw-group"], told["sw-handler"], told["sw-reason"]) == names
    assert told["sw-id"] == f"{names[0]}/{_TOPIC}/{_PARTITION}/{_OFFSET}"
    assert told["sw-attempts"] == str(len(case["log"]))
    assert sum(map(len, told.values())) <= _OUR_BYTES + 2 * sum(map(len, names))
    log = json.loads(told.get("sw-attempt-log", "[]"))
    assert [entry["at_ms"] for entry in log] == [at_ms for at_ms, _ in case["log"][len(case["log"]) - len(log) :]]
    assert ("sw-pointer" in told) == ("value" in trimmed)
    if "value" in trimmed:
        _check_pointer(json.loads(told["sw-pointer"]), case["value"])


def _check_pointer(pointer: dict[str, object], value: bytes | None) -> None:
    assert (pointer["topic"], pointer["partition"], pointer["offset"]) == (_TOPIC, _PARTITION, _OFFSET)
    assert pointer["size"] == (None if value is None else len(value))
    assert pointer["sha256"] == (None if value is None else hashlib.sha256(value).hexdigest())


def _check_nothing_is_left_out_for_no_reason(case: Case, letter: Letter) -> None:
    most_bytes = (
        _OUR_BYTES + 40 * len(_OURS) + 6 * 4 * (len(case["group"]) + len(case["handler"]) + len(case["reason"]))
    )
    own_bytes = sum(20 + len(name.encode()) + len(value or b"") for name, value in case["headers"])
    own_bytes += len(case["key"] or b"") + len(case["value"] or b"")
    if most_bytes + own_bytes <= case["max_bytes"] and case["reason"] != Reason.SKIPPED:
        assert not _trimmed(letter)


def _trimmed(letter: Letter) -> tuple[str, ...]:
    left_out = next((value or b"" for name, value in letter.headers if name == "sw-trimmed"), b"")
    return tuple(left_out.decode().split(",")) if left_out else ()


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _size_bytes(letter: Letter) -> int:
    """What the broker counts: a batch of one record in format v2, exactly; apart from the product's estimate."""
    headers = [(name.encode(), value) for name, value in letter.headers]
    body = 3  # attributes, and the deltas of time and offset, which are zero in a batch of one
    body += _prefixed_bytes(letter.key) + _prefixed_bytes(letter.value) + _varint_bytes(len(headers))
    body += sum(_prefixed_bytes(name) + _prefixed_bytes(value) for name, value in headers)
    return 61 + _varint_bytes(body) + body


def _prefixed_bytes(data: bytes | None) -> int:
    return 1 if data is None else _varint_bytes(len(data)) + len(data)


def _varint_bytes(number: int) -> int:
    """Of a number that is not negative, in zigzag."""
    return max(1, -(-(2 * number).bit_length() // 7))


def _check_headers(headers: list[tuple[str, bytes | None]]) -> None:
    """Headers reach the handler as they are, however often they are asked for."""
    message = cast("Message", confluent_kafka.Message(topic=_TOPIC, partition=0, offset=0, headers=[*headers]))
    read: list[Header] = list(read_headers(message))
    assert read == list(read_headers(message)) == headers
    for name in {*dict(headers), "absent"}:
        found = [value for key, value in headers if key == name]
        assert read_headers(message).last(name) == (found[-1] if found else None)


_NAMES = st.text(st.characters(codec="utf-8"), max_size=12)
_HEADERS = st.lists(
    st.tuples(
        st.sampled_from((*_OURS, "sw-", "SW-ID", "sw", "sw-trimmed", "sw-pointer", "sw-attempt-log", "")) | _NAMES,
        st.none() | st.binary(max_size=40) | st.integers(0, 3000).map(lambda size: b"x" * size),
    ),
    max_size=8,
)
_PAYLOADS = st.none() | st.binary(max_size=40) | st.integers(0, 20_000).map(lambda size: b"v" * size)
# An error's text may hold a payload.
_PARTS = st.text(max_size=20) | st.sampled_from(("'", '"', "b'", "0x", "ffffffff", "can't ", "\udcff", "é", "\0", "1"))
_TEXTS = st.lists(st.tuples(_PARTS, st.integers(1, 5000)), max_size=4).map(
    lambda parts: "".join(part * count for part, count in parts)[:20_000]
)
_CLASSES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=400)
_CASES: st.SearchStrategy[Case] = st.fixed_dictionaries(
    {
        "key": _PAYLOADS,
        "value": _PAYLOADS,
        "headers": _HEADERS,
        "timestamp": st.tuples(st.integers(0, 2), st.integers(-(2**63), 2**63 - 1)),
        "group": st.text(max_size=20),
        "handler": st.text(max_size=20),
        "reason": st.sampled_from(Reason),
        "error": st.tuples(st.sampled_from(("builtins", "app")) | st.text(max_size=20), _CLASSES, st.none() | _TEXTS),
        "log": st.lists(st.tuples(st.integers(0, 2**63), _CLASSES), max_size=12),
        "max_bytes": st.integers(1, 30_000) | st.just(1_000_000),
        "partition_count": st.integers(1, 100),
    }
)  # type: ignore[assignment]  # the stubs do not know of TypedDict
DEAD_LETTERS = target("dead-letters", _CASES, _check)
HEADERS = target("headers", _HEADERS, _check_headers)
