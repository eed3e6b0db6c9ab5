"""What tells one mistake from another: an error's class and its words, without what differs from record to record.

The same in a dead letter, in the console and in the log. Standard library only; pure, any thread.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

_NAME_MAX_BYTES = 256  # of an exception's class; made-up classes can have any name
# More text than anyone writes in an error, and normalised within two milliseconds: this runs on the loop thread.
_MAX_CHARS = 4_096

# What differs from record to record in the same mistake. The quotes of an apostrophe (can't) open nothing.
_PARTICULARS = re.compile(
    r"""(?<!\w)b?'[^']*'(?!\w) | (?<!\w)b?"[^"]*"(?!\w)
    | \b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b
    | \b0x[0-9a-f]+\b | \b(?=[a-f]*[0-9])[0-9a-f]{8,}\b
    | [0-9]+""",
    re.VERBOSE | re.IGNORECASE,
)


def fingerprint_of(error: BaseException) -> str:
    """The fingerprint of `error`; never raises."""
    return fingerprint(class_name(error), text_of(error))


def fingerprint(name: str, text: str) -> str:
    """Eight hex digits that are the same for the same mistake in other records: of an error's class and its text."""
    general = _PARTICULARS.sub("?", text[:_MAX_CHARS])
    mistake = f"{name}\n{general}".encode("utf-8", "backslashreplace")
    return hashlib.sha256(mistake).hexdigest()[:8]


def class_name(error: BaseException) -> str:
    """The error's class with its module, unless that is `builtins`."""
    kind = type(error)
    return _full_name(kind.__module__, kind.__qualname__)


def text_of(error: BaseException) -> str:
    """The error's own words; never raises."""
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - an error that cannot say what it is must not stop its own dead letter
        return f"<no text: str() raised {type(broken).__name__}>"


@lru_cache
def _full_name(module: str, qualified_name: str) -> str:
    name = qualified_name if module == "builtins" else f"{module}.{qualified_name}"
    return cut(name, _NAME_MAX_BYTES).decode()


def cut(text: str, max_bytes: int) -> bytes:
    """At most `max_bytes` of UTF-8, ending with a whole character."""
    encoded = text[:max_bytes].encode("utf-8", "backslashreplace")[:max_bytes]
    return encoded.decode("utf-8", "ignore").encode()
