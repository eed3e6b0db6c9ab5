"""What our own headers say of a record, where they are believed: where it was first, and of which replay it comes.

What cannot be read, or is longer than we write it, says nothing: it is carried on into dead letters and retry topics.
Pure, any thread.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from streamworker.options import MAX_TOPIC_CHARS
from streamworker.record import Origin

if TYPE_CHECKING:
    from streamworker.record import Header, Headers

PARENT = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_TOPIC_CHARS}}}/[0-9]{{1,10}}/[0-9]{{1,18}}")
REPLAY_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_COUNT = 10**6


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """The replay that a record comes of; all None if it comes of none."""

    parent: str | None = None  # the dead letter that was sent again: TOPIC/PARTITION/OFFSET in its own topic
    replay_id: str | None = None
    count: int | None = None  # replays in its line, from 1
    repaired: str | None = None  # SHA-256 of the value, in hexadecimal digits, if that was edited

    @property
    def headers(self) -> list[Header]:
        """As they are written."""
        headers: list[Header] = []
        if self.parent is not None:
            headers.append(("sw-parent", self.parent.encode()))
        if self.replay_id is not None:
            headers.append(("sw-replay-id", self.replay_id.encode()))
        if self.count is not None:
            headers.append(("sw-replay-count", b"%d" % self.count))
        if self.repaired is not None:
            headers.append(("sw-repaired", self.repaired.encode()))
        return headers


def lineage_of(headers: Headers) -> Lineage:
    """What `headers` say of it."""
    count = number(headers, "sw-replay-count")
    return Lineage(
        parent=_text(headers, "sw-parent", PARENT),
        replay_id=_text(headers, "sw-replay-id", REPLAY_ID),
        count=count if count is not None and 1 <= count <= MAX_COUNT else None,
        repaired=_text(headers, "sw-repaired", SHA256),
    )


def origin_said(headers: Headers) -> Origin | None:
    """Where the record was first; None if they do not say it."""
    topic = headers.last("sw-origin-topic")
    partition, offset = number(headers, "sw-origin-partition"), number(headers, "sw-origin-offset")
    if topic is None or partition is None or offset is None:
        return None
    return Origin(topic.decode("utf-8", "replace"), partition, offset)


def number(headers: Headers, name: str) -> int | None:
    """The whole number in the last header called `name`; None if it is none."""
    text = headers.last(name)
    return int(text) if text is not None and re.fullmatch(rb"[0-9]{1,18}", text) else None


def _text(headers: Headers, name: str, form: re.Pattern[str]) -> str | None:
    text = (headers.last(name) or b"").decode("ascii", "replace")
    return text if form.fullmatch(text) else None
