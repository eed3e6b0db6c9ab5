"""Secrets that stand in files of their own: read at start, and shown nowhere.

Decided here: what is taken for a secret. Who may read the file is left to whoever mounts it: orchestrators give mounted
secrets to the process by group or mode. Any thread; reads the file.
"""

from __future__ import annotations

from pathlib import Path

from streamworker.errors import ConfigurationError

_LEAST_BYTES = 16  # 128 bits, if they are random
_MOST_BYTES = 4096


def read_key(option: str, path: str) -> bytes:
    """The content of the file that `option` names, without the end of its last line; raises ConfigurationError."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"{option}: {path!r} cannot be read: {reason}") from error
    secret = content.removesuffix(b"\n").removesuffix(b"\r")
    if not _LEAST_BYTES <= len(secret) <= _MOST_BYTES:
        raise ConfigurationError(
            f"{option}: {path!r} is to have {_LEAST_BYTES} to {_MOST_BYTES} bytes, got"
            f" {'more' if len(secret) > _MOST_BYTES else len(secret)}; for instance `openssl rand -hex 32 > {path}`"
        )
    return secret
