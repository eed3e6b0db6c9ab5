"""Handlers whose previews a child process calls, good ones and bad ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamworker import BatchHandler, Context, Handler, Record, Records
from streamworker.serde import Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.interfaces import Row, SinkContext, Written
    from streamworker.work import Place


@dataclass
class Order:
    """What the records are."""

    id: str
    cents: int


class Tells(Handler[Order]):
    """Has a method that says what it would do."""

    topics = ("orders",)
    value = Json(Order)

    def preview(self, record: Record[Order]) -> str:
        print("this goes nowhere")
        return f"charge {record.value.cents} for {record.value.id} from {record.topic}@{record.offset}"

    def handle(self, record: Record[Order]) -> None:
        raise AssertionError("not called")


class Raises(Tells):
    """Its preview finds something wrong."""

    def preview(self, record: Record[Order]) -> str:
        raise ValueError(f"no such order: {record.value.id}")


class Loops(Tells):
    """Its preview does not end for one letter."""

    def preview(self, record: Record[Order]) -> str:
        while record.value.id == "loop":
            pass
        return "done"


class Allocates(Tells):
    """Its preview takes more memory than there is for it."""

    def preview(self, record: Record[Order]) -> str:
        return str(len(b"x" * (1024 * 1024 * 1024)))


class Exits(Tells):
    """Its preview ends the process."""

    def preview(self, record: Record[Order]) -> str:
        os._exit(7 if record.value.id == "exit" else 0)


class Snoops(Tells):
    """Its preview looks around."""

    def preview(self, record: Record[Order]) -> str:
        return ",".join(sorted(os.environ))


class ForbiddenSink:
    """A sink that leaves a file behind if anything is asked of it."""

    name = "ledger"
    knows_repeats = True
    keeps_marks = False

    def writer(self, context: SinkContext) -> ForbiddenSink:
        (Path.cwd() / "written").write_text(repr(context))
        return self

    def write(self, place: Place, rows: Sequence[Row]) -> Written:
        raise AssertionError(f"{place} {rows}")

    def close(self) -> None:
        raise AssertionError


class Stores(Handler[Order]):
    """Writes to its sink and to a cache."""

    topics = ("orders",)
    value = Json(Order)
    sink = ForbiddenSink()
    preview = "handle"

    def open(self, context: Context) -> None:
        self.orders = context.cache("orders", loader=_load, type_=int)

    def handle(self, record: Record[Order]) -> object:
        self.orders.put(record.value.id, record.value.cents)
        return {"id": record.value.id, "cents": self.orders.get(record.value.id)}


def _load(_id: str) -> int | None:
    return None


class StoresMany(BatchHandler[Order]):
    """The same with batches, and async."""

    topics = ("orders",)
    value = Json(Order)
    sink = ForbiddenSink()
    preview = "handle"

    async def handle(self, records: Records[Order]) -> object:
        return [one.cents for one in records.values()]


class Connects(Stores):
    """Cannot be opened without the URL of its sink."""

    def open(self, context: Context) -> None:
        context.connection("ledger")
