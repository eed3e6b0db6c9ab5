"""What a `DecodeError` says: where, what was expected, what was found. Never a value of the payload.

Error messages reach logs and dead-letter headers, where payloads may hold what must not be seen. Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import msgspec

MAX_CHARS = 200  # a field's name may be as long as the record
_VALUE = re.compile(r"(Invalid (?:enum )?value) .*", re.DOTALL)


def mismatch(error: msgspec.ValidationError) -> str:
    """The reason of msgspec with the path in front: `$.qty: expected int, got str`."""
    reason, _, path = str(error).rpartition(" - at ") if " - at " in str(error) else (str(error), "", "$")
    without_value = _VALUE.sub(r"\1", reason)
    return brief(f"{path}: {uncapitalised(without_value)}".replace("`", ""))


def brief(text: str) -> str:
    """`text` cut to `MAX_CHARS`."""
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 1]}…"


def uncapitalised(text: str) -> str:
    """`text` as the continuation of a sentence."""
    return text[:1].lower() + text[1:]
