"""The child process in which a handler is tried on one record: `streamworker.replay.preview` starts it.

Decided here: what stands in for what the handler uses. A sink keeps what is written in memory, caches and claims are
those of this process, nothing is tried twice. Reads its order from standard input and answers on standard output, on
which nothing else comes, whatever the handler prints. Main thread of a process of its own.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import traceback
from base64 import b64decode
from typing import TYPE_CHECKING, cast

from streamworker.declaration import declaration
from streamworker.options import Retry
from streamworker.record import Record, TopicPartition
from streamworker.testing.fake_sink import FakeSink
from streamworker.testing.handler_run import TestRecord, run_handler
from streamworker.testing.memory_broker import MemoryMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from streamworker.handler import Handler

    Order = Mapping[str, object]

_SHOWN_CHARS = 2000


def main(memory_bytes: str) -> None:
    """Do what is ordered."""
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory_bytes), int(memory_bytes)))
    order = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        passed, text = _tried(order)
    except Exception as error:  # noqa: BLE001 - whatever the handler raises is the answer
        passed, text = False, "".join(traceback.format_exception_only(error)).strip()
    json.dump({"passed": passed, "text": text[:_SHOWN_CHARS]}, answers)
    answers.close()


def _tried(order: Order) -> tuple[bool, str]:
    handler = cast("type[Handler[object]]", importlib.import_module(str(order["module"])))
    for name in str(order["handler"]).split("."):
        handler = getattr(handler, name)
    return (_handled if order["step"] == "handle" else _previewed)(handler, order)


def _previewed(handler: type[Handler[object]], order: Order) -> tuple[bool, str]:
    declared, topic = declaration(handler), str(order["topic"])
    key, value = _bytes(order["key"]), _bytes(order["value"])
    message = MemoryMessage(TopicPartition(topic, 0), 0, key=key, value=value, headers=_headers(order))
    decoded: object = value if declared.value is None or value is None else declared.value.decode(value, topic)
    decoded_key: object = key if declared.key is None or key is None else declared.key.decode(key, topic)
    preview: Callable[[Record[object]], object] = getattr(handler(), "preview")  # noqa: B009 - not of all handlers
    return True, str(preview(Record(message, 1, decoded, decoded_key)))


def _handled(handler: type[Handler[object]], order: Order) -> tuple[bool, str]:
    declared = declaration(handler)
    sink = FakeSink()
    changed: dict[str, object] = {"retry": Retry(attempts=1)}
    if declared.sink is not None:
        changed["sink"] = sink
    tried = type(handler.__name__, (handler,), changed)
    topic = None if any(one.startswith("^") for one in declared.topics) else declared.topics[0]
    record = TestRecord(_bytes(order["value"]), _bytes(order["key"]), _headers(order), topic)
    run = run_handler(tried, [record], timeout_s=3600)
    if run.failures:
        _, error = run.failures[0]
        return False, "".join(traceback.format_exception_only(error)).strip()
    if run.dead_letters:
        letter = run.dead_letters[0]
        return False, f"it would be a dead letter again: {letter.reason} {letter.headers.get('sw-message', '')}".strip()
    if not run.handled:
        return False, f"it is not handled: {'; '.join(run.stopped.values()) or 'nothing was called'}"
    written = ", ".join(repr(value) for value in sink.values)
    return True, f"handled; it would write {written}" if written else "handled"


def _headers(order: Order) -> list[tuple[str, bytes | None]]:
    return [(str(name), _bytes(content)) for name, content in cast("list[list[object]]", order["headers"])]


def _bytes(text: object) -> bytes | None:
    return None if text is None else b64decode(str(text))
