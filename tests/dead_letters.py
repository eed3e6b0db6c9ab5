"""Dead letters and what is said of them, each as plain as can be but for what a test is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from streamworker.record import Headers, Origin
from streamworker.replay.dead_record import DeadRecord, LetterId
from streamworker.replay.states import Disposition, digest

if TYPE_CHECKING:
    from typing import Unpack

    from streamworker.record import Header
    from streamworker.replay.dead_record import Pointer
    from streamworker.replay.states import State

TOPIC = "orders.dlq"
NOW_MS = 1_795_867_200_000  # 2026-11-28T12:00:00Z


class Facts(TypedDict, total=False):
    written_ms: int | None
    key: bytes | None
    value: bytes | None
    own_headers: tuple[Header, ...]
    origin: Origin | None
    origin_topic: str | None
    group: str | None
    handler: str | None
    reason: str | None
    exception: str | None
    message: str | None
    fingerprint: str | None
    attempts: int | None
    sw_id: str | None
    parent: str | None
    replay_id: str | None
    replay_count: int
    pointer: Pointer | None


def letter(partition: int = 0, offset: int = 0, **facts: Unpack[Facts]) -> DeadRecord:
    known: Facts = {"written_ms": NOW_MS, "origin": Origin("orders", partition, offset), "value": b"v", **facts}
    own = Headers(known.pop("own_headers", ()))
    key, value, written_ms = known.pop("key", None), known.pop("value"), known.pop("written_ms")
    origin = known.get("origin")
    known.setdefault("origin_topic", None if origin is None else origin.topic)
    return DeadRecord(
        topic=TOPIC,
        id=LetterId(partition, offset),
        written_ms=written_ms,
        key=key,
        value=value,
        headers=own,
        family="streamworker",
        own_headers=own,
        **known,
    )


class More(TypedDict, total=False):
    op_id: str
    topic_id: str | None
    payload_sha256: str | None
    assigned_to: str | None
    snoozed_until_ms: int | None
    note: str | None


def disposition(state: State, value: bytes | None = b"v", **more: Unpack[More]) -> Disposition:
    """Of a letter with `value`."""
    said: More = {"op_id": "op", "payload_sha256": digest(value), **more}
    return Disposition(state=state, actor="anna", at_ms=NOW_MS, **said)
