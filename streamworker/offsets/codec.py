"""The text that goes beside each committed offset.

`sw1 q=42`: our magic with its version, and the number of the commit request, by which an answer finds
its request. Whatever does not parse was written by somebody else. Pure.
"""

from __future__ import annotations

import re

# The broker's offset.metadata.max.bytes is 4096 and the client sends a trailing NUL with it:
# 4 095 bytes were kept and 4 096 refused by Kafka 4.3.1.
MAX_METADATA_BYTES = 4095

_FORM = re.compile(r"sw1 q=(\d{1,18})")


def encode(request: int) -> str:
    """Metadata of commit request number `request`."""
    return f"sw1 q={request}"


def decode(metadata: str) -> int | None:
    """Number of the commit request that wrote `metadata`; None if it is not ours."""
    found = _FORM.fullmatch(metadata)
    return int(found[1]) if found else None
