"""How long the call for a record waits. The standard library only, because peers in other environments wait as long."""

from __future__ import annotations

from zlib import crc32

_SHORTEST_S, _LONGEST_S = 0.002, 0.008


def pause_s(offset: int) -> float:
    """How long the call for the record at `offset` waits; the same in every run."""
    return _SHORTEST_S + (_LONGEST_S - _SHORTEST_S) * (crc32(b"%d" % offset) % 1000) / 1000
