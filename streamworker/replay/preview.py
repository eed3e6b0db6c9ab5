"""What a handler would make of a repaired value, tried before it is sent.

Decided here: what is tried. The value is decoded with the handler's serde. If the handler has a method `preview`, or
says `preview = "handle"`, a child process calls it, which knows no secret of this one, lives for five seconds at most,
and has 256 MiB. Blocks for as long; any thread.
"""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, cast

from streamworker.errors import DecodeError, DependencyUnavailable
from streamworker.replay.desk import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.declaration import Declaration
    from streamworker.replay.dead_record import DeadRecord

TIMEOUT_S = 5.0
MEMORY_BYTES = 256 * 1024 * 1024
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; from streamworker.testing.preview_child import main; main(sys.argv[1])"
)
_SHOWN_CHARS = 2000
_ANSWER_BYTES = 64 * 1024


def steps_of(
    declared: Declaration, letter: DeadRecord, value: bytes | None, *, timeout_s: float = TIMEOUT_S
) -> Sequence[Step]:
    """What was tried with `value` in place of that of `letter`, in order; nothing after what failed."""
    decoded = _decode(declared, letter.origin_topic or letter.topic, value)
    handler = cast("type", declared.make)
    kind = getattr(handler, "preview", None)
    if not decoded.passed:
        return [decoded]
    if kind is None:
        return [decoded, Step("preview", None, f"{declared.name} says nothing of previews")]
    name = "handle" if kind == "handle" else "preview"
    return [decoded, _try_in_a_child(name, handler, letter, value, timeout_s)]


def _decode(declared: Declaration, topic: str, value: bytes | None) -> Step:
    if declared.value is None or value is None:
        return Step("decode", passed=True, text="null" if value is None else "bytes")
    try:
        found = declared.value.decode(value, topic)
    except (DecodeError, DependencyUnavailable) as error:
        return Step("decode", passed=False, text=str(error)[:_SHOWN_CHARS])
    return Step("decode", passed=True, text=repr(found)[:_SHOWN_CHARS])


def _try_in_a_child(name: str, handler: type, letter: DeadRecord, value: bytes | None, timeout_s: float) -> Step:
    asked = {
        "step": name,
        "module": handler.__module__,
        "handler": handler.__qualname__,
        "topic": letter.origin_topic or letter.topic,
        "key": _text(letter.key),
        "value": _text(value),
        "headers": [[one, _text(content)] for one, content in letter.own_headers],
    }
    command = [sys.executable, "-c", _PROGRAM, str(MEMORY_BYTES), str(Path.cwd()), *sys.path]
    try:
        ended = subprocess.run(  # noqa: S603 - ourselves
            command,
            input=json.dumps(asked).encode(),
            capture_output=True,
            env={},
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Step(name, passed=False, text=f"it did not end within {timeout_s:g} s")
    try:
        answer = json.loads(ended.stdout[:_ANSWER_BYTES])
        return Step(name, bool(answer["passed"]), str(answer["text"])[:_SHOWN_CHARS])
    except (ValueError, KeyError, TypeError):
        last = ended.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return Step(
            name, passed=False, text=f"it ended without an answer, code {ended.returncode}: {last}"[:_SHOWN_CHARS]
        )


def _text(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode()
