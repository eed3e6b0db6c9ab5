"""Handlers that are tried on a letter before it is sent."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from streamworker import DeadLetter, Handler, Json, Record
from streamworker.testing import FakeSink


@dataclass
class Order:
    """What the letters should hold."""

    order: int
    currency: str


class Plain(Handler[Order]):
    topics = ("orders",)
    value = Json(Order)
    dead_letter = DeadLetter("orders.dlq")

    def handle(self, record: Record[Order]) -> None:
        raise AssertionError("never called")


class Says(Plain):
    def preview(self, record: Record[Order]) -> str:
        print("said aside")
        return f"would book {record.value.order} for {record.headers.last('tenant')!r} of {record.topic}"


class Fails(Plain):
    def preview(self, record: Record[Order]) -> str:
        raise ValueError(f"no rate for {record.value.currency}")


class Hangs(Plain):
    def preview(self, record: Record[Order]) -> str:
        time.sleep(3600)
        return ""


class Dies(Plain):
    def preview(self, record: Record[Order]) -> str:
        os._exit(7)


class Fills(Plain):
    def preview(self, record: Record[Order]) -> str:
        return str(len(bytearray(1 << 30)))


class Spies(Plain):
    def preview(self, record: Record[Order]) -> str:
        return repr(sorted(os.environ))


class Stores(Plain):
    preview = "handle"
    sink = FakeSink("away")

    def handle(self, record: Record[Order]) -> object:
        if record.value.currency == "XXX":
            raise ValueError("no rate for XXX")
        return {"id": record.value.order}
