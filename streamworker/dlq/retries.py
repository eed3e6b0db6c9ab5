"""What a record that comes back from a retry topic says of itself.

Decided here: what its headers are believed there. Not decided here: when a record is given up
(`resilience/verdict.py`), where it goes (`routes.py`), and how long one waits that is not due (`delays.py`). Pure, any
thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.dlq.lineage import lineage_of, number, origin_said
from streamworker.record import Origin, Returned, read_headers

if TYPE_CHECKING:
    from streamworker.record import Message


def returned(message: Message) -> Returned:
    """A record of a retry topic of ours, with what its headers say of it.

    Where they say nothing that can be read it is a record of its own, due at once.
    """
    headers = read_headers(message)
    lineage = lineage_of(headers)
    return Returned(
        message,
        origin=origin_said(headers) or Origin(message.topic(), message.partition(), message.offset()),
        timestamp_ms=number(headers, "sw-origin-timestamp"),
        calls=number(headers, "sw-attempts") or 0,
        due_ms=number(headers, "sw-due") or 0,
        replayed=lineage.replay_id is not None,
        repaired=lineage.repaired is not None,
    )
