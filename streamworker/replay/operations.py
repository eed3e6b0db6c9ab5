"""What is kept of operations in the compacted topic `streamworker.dlq.ops`: what was asked for, and how far it is.

There are two kinds of records: `OPERATION` is what its runner says of it, with all that is needed to go on with it
elsewhere; `OPERATION/asked` is what somebody asks of the runner, to pause or to abort. Progress is no checkpoint: what
is left to be done is what is still pending. A value that a person has edited is not in it: many read this topic, and it
may be as large as a record can be. The form is JSON, version 1. Pure, any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from streamworker.record import Letter
from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import Operation, OperationState, Request
from streamworker.replay.filters import parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TOPIC = "streamworker.dlq.ops"
VERSION = 1
_ASKED = "/asked"


class Logged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record: an operation, and what was asked for, to be planned again. `ends` are offsets by partition, as text.

    Times are milliseconds since the Unix epoch.
    """

    v: int = 1  # left out while it is that: records of today must not change their version with us
    operation: Operation
    filter: str | None = None
    ids: list[str] = []
    ends: dict[str, int] = {}
    target: str | None = None
    reason_code: str | None = None
    note: str | None = None
    function: str | None = None
    until_ms: int | None = None
    assignee: str | None = None
    again: bool = False
    force: bool = False

    @classmethod
    def of(cls, operation: Operation, request: Request, ends: Mapping[int, int]) -> Logged:
        """What is said of an operation."""
        return cls(
            operation=operation,
            filter=None if request.filter is None else request.filter.text,
            ids=[str(one) for one in request.ids],
            ends={str(partition): end for partition, end in ends.items()},
            target=request.target,
            reason_code=request.reason_code,
            note=request.note,
            function=request.function,
            until_ms=request.until_ms,
            assignee=request.assignee,
            again=request.again,
            force=request.force,
        )

    @property
    def request(self) -> Request:
        """What was asked for, but for a value that a person had edited."""
        return Request(
            topic=self.operation.topic,
            action=self.operation.action,
            filter=None if self.filter is None else parse(self.filter, self.operation.started_ms),
            ids=[LetterId.parse(one) for one in self.ids],
            target=self.target,
            reason_code=self.reason_code,
            note=self.note,
            function=self.function,
            until_ms=self.until_ms,
            assignee=self.assignee,
            again=self.again,
            force=self.force,
        )

    @property
    def bounds(self) -> Mapping[int, int]:
        """The end of each partition when the plan was made."""
        return {int(partition): end for partition, end in self.ends.items() if partition.isdecimal()}


_decoder = msgspec.json.Decoder(Logged)


def letter_of(logged: Logged, now_ms: int) -> Letter:
    """The record that says it."""
    return Letter(TOPIC, None, logged.operation.id.encode(), msgspec.json.encode(logged), [], now_ms)


def asking(op_id: str, asked: OperationState | None, now_ms: int) -> Letter:
    """The record that asks its runner to pause or abort; None takes it back."""
    return Letter(TOPIC, None, f"{op_id}{_ASKED}".encode(), None if asked is None else asked.encode(), [], now_ms)


class Operations:
    """What the records of the topic add up to, in the order in which they were written."""

    def __init__(self) -> None:
        self._logged: dict[str, Logged] = {}
        self._asked: dict[str, OperationState] = {}

    def take(self, records: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        """More records; what cannot be read is passed over."""
        for key, value in records:
            name = (key or b"").decode("utf-8", "replace")
            if name.endswith(_ASKED):
                self._take_question(name.removesuffix(_ASKED), value)
            elif value is not None:
                try:
                    logged = _decoder.decode(value)
                except msgspec.MsgspecError:
                    continue
                if logged.v == VERSION and logged.operation.id == name:
                    self._logged[name] = logged
            else:
                self._logged.pop(name, None)

    def of(self, op_id: str) -> Logged | None:
        """One of them."""
        return self._logged.get(op_id)

    def asked(self, op_id: str) -> OperationState | None:
        """What is asked of its runner."""
        return self._asked.get(op_id)

    @property
    def all(self) -> list[Logged]:
        """The newest first."""
        return sorted(self._logged.values(), key=lambda one: one.operation.started_ms, reverse=True)

    def _take_question(self, op_id: str, value: bytes | None) -> None:
        try:
            self._asked[op_id] = OperationState((value or b"").decode())
        except (ValueError, UnicodeDecodeError):
            self._asked.pop(op_id, None)
