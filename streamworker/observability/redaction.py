"""What must not be read in logs and pages: secrets, and bytes that may be payload. Pure.

A value is hidden when its name looks secret; in running text, what stands behind such a name, and
the user part of an address. Control characters are escaped, otherwise a record could write log lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

HIDDEN = "[hidden]"

# librdkafka's sensitive settings all match, and so do the names that other libraries use.
_SECRET_NAME = re.compile(
    r"pass(?:word|phrase|wd)|secret|token|credential|authorization|(?:api|private|access)[._-]?key"
    r"|(?:^|[._-])key(?:$|[._-])|\.pem$|sasl\.username|oauthbearer\.config",
    re.IGNORECASE,
)
# Both look at each word once, from its beginning, and take nothing back: text of an error may be a payload, and a
# search that a text can blow up would hold up the loop. `token.py:27 in refresh` is a place and no secret.
_IN_TEXT = re.compile(
    r"""(?<![\w.-])
        (?=[\w.-]*?(?:pass(?:word|phrase|wd)|secret|token|credential|authorization|api[._-]?key))
        (?P<name>[\w.-]++(?!(?<=\.py):\d++\ in\ )["']?\s*+[=:]\s*+)
        (?:(?:basic|bearer)\s++)?
        (?:"[^"]*+"|'[^']*+'|[^\s,;&]++)""",
    re.IGNORECASE | re.VERBOSE,
)
_USER_OF_ADDRESS = re.compile(r"(?P<scheme>(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*+://)[^/\s@]++@", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def looks_secret(name: str) -> bool:
    """Whether a value called `name` is better not shown; a record's `key` counts as payload."""
    return _SECRET_NAME.search(name) is not None


def safe_text(text: str) -> str:
    """`text` without what looks like a secret; line breaks stay."""
    text = _USER_OF_ADDRESS.sub(rf"\g<scheme>{HIDDEN}@", text)
    return _IN_TEXT.sub(rf"\g<name>{HIDDEN}", text)


def one_line(text: str) -> str:
    """`text` with its control characters escaped."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


def safe_value(name: str, value: object) -> object:
    """What may be shown of `value`; numbers are shown whatever their name is."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if looks_secret(name):
        return HIDDEN
    match value:
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case Mapping():
            return {str(inner): safe_value(str(inner), held) for inner, held in value.items()}
        case list() | tuple() | set() | frozenset():
            return [safe_value(name, held) for held in value]
        case _:
            return one_line(safe_text(str(value)))


def described(error: BaseException) -> str:
    """The error's class and its own words; never raises."""
    return f"{type(error).__name__}: {error_text(error)}"


def error_text(error: BaseException, limit_bytes: int = 512) -> str:
    """The error's own words, cut at `limit_bytes` of UTF-8; never raises."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the error's class is user code; its words are not worth a failure
        text = "<its __str__ failed>"
    encoded = safe_text(text).encode("utf-8", "replace")
    return one_line(encoded[:limit_bytes].decode("utf-8", "ignore")) + ("…" if len(encoded) > limit_bytes else "")
