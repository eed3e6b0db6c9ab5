"""Bytes as pieces that are repeated: a short form for long inputs, and one that shrinks well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

Pieces = list[tuple[bytes, int]]

MAX_BYTES = 128 * 1024  # what is quadratic takes seconds then, and what is linear milliseconds
_FEW = st.sampled_from((1, 1, 1, 2, 63, 64, 65))
_MANY = st.integers(1, MAX_BYTES)


def pieces(fragments: Sequence[bytes], documents: st.SearchStrategy[bytes]) -> st.SearchStrategy[Pieces]:
    """Raw bytes, documents whole and with bytes changed, and sequences of fragments, some repeated many times."""
    fragment = st.sampled_from(fragments) | st.binary(max_size=8)
    few = st.lists(st.tuples(fragment, _FEW), max_size=6)
    edited = st.builds(_edited, documents, st.lists(st.tuples(st.integers(0, 400), fragment), max_size=4))
    return st.one_of(
        _once(st.binary(max_size=300)),
        _once(documents),
        _once(edited),
        few,
        st.builds(lambda before, flood, after: [*before, flood, *after], few, st.tuples(fragment, _MANY), few),
    )


def joined(pieces: Pieces) -> bytes:
    """The bytes, cut at `MAX_BYTES`."""
    whole = b"".join(piece * min(count, MAX_BYTES // max(1, len(piece))) for piece, count in pieces)
    return whole[:MAX_BYTES]


def _once(data: st.SearchStrategy[bytes]) -> st.SearchStrategy[Pieces]:
    return data.map(lambda one: [(one, 1)])


def _edited(document: bytes, edits: Sequence[tuple[int, bytes]]) -> bytes:
    for place, fragment in edits:
        start = place % (len(document) + 1)
        document = document[:start] + fragment + document[start + len(fragment) :]
    return document
