"""Mending the value of a dead letter: as text by a person, or by a function of the user's code over many.

Decided here: in which form a value is edited, and whether what came of it fits. With the handler's serde a value must
be one that the handler can take; without, what was JSON must stay JSON. The letter itself is never changed: the mended
value goes into the copy that is sent. No function is made of anything that a record holds.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from streamworker.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.interfaces import AnySerde
    from streamworker.repairs import RepairFunction

_DIFF_LINES = 3  # around each change


class NotRepaired(Exception):
    """The value cannot be mended in this way; says why."""


@dataclass(frozen=True, slots=True)
class ValueForm:
    """How values of one topic are edited: `serde` is the handler's, None where it is not known.

    `topic` is the one that the record was in first.
    """

    topic: str
    serde: AnySerde | None = None

    def text(self, value: bytes | None) -> str:
        """The value for an editor; raises NotRepaired for what cannot be shown as text."""
        if value is None:
            raise NotRepaired("it has no value")
        try:
            return msgspec.json.format(value, indent=2).decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        if self.serde is not None:
            try:
                return msgspec.json.format(msgspec.json.encode(self._decoded(value)), indent=2).decode()
            except (DecodeError, TypeError, ValueError, OverflowError):
                pass
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise NotRepaired("its value is not text, and nothing says how to read it; name the --handlers") from error

    def edited(self, before: bytes | None, text: str) -> bytes:
        """What is sent for the edited `text`; raises NotRepaired, with what does not fit.

        JSON is sent as it was written, anything else as the serde encodes it.
        """
        was_json = before is not None and _is_json(before)
        if was_json or self.serde is None:
            after = text.strip().encode() if was_json else text.encode()
            if was_json:
                _json_of(after)
        else:
            after = self._encoded(_json_of(text.encode()))
        self.check(after)
        return after

    def mended(self, function: RepairFunction, value: bytes | None) -> bytes | None:
        """What `function` makes of a value, None if it leaves it as it is; raises NotRepaired."""
        if value is None:
            raise NotRepaired("it has no value")
        is_json = _is_json(value)
        if not is_json and self.serde is None:
            raise NotRepaired("its value is not JSON, and nothing says how to read it; name the --handlers")
        try:
            after = function(_json_of(value) if is_json else self._decoded(value))
        except Exception as error:  # the application's code
            raise NotRepaired(f"the repair raised {type(error).__name__}: {error}") from error
        if after is None:
            return None
        try:
            encoded = msgspec.json.encode(after) if is_json else self._encoded(after)
        except (TypeError, ValueError, OverflowError) as error:
            raise NotRepaired(f"what the repair returned cannot be encoded: {error}") from error
        self.check(encoded)
        return encoded

    def check(self, value: bytes) -> None:
        """Raises NotRepaired for a value that the handler could not take."""
        if self.serde is None:
            return
        try:
            self.serde.decode(value, self.topic)
        except DecodeError as error:
            raise NotRepaired(f"it does not fit: {error}") from error

    def _decoded(self, value: bytes) -> object:
        assert self.serde is not None
        try:
            return self.serde.decode(value, self.topic)
        except DecodeError as error:
            raise NotRepaired(f"its value cannot be read: {error}") from error

    def _encoded(self, value: object) -> bytes:
        assert self.serde is not None
        try:
            return self.serde.encode(value, self.topic)
        except (TypeError, ValueError, OverflowError) as error:
            raise NotRepaired(f"it does not fit: {error}") from error


def diff(before: str, after: str) -> Sequence[str]:
    """Lines of a unified diff, without a head; none where nothing changed."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=_DIFF_LINES)
    return list(lines)[2:]


def _is_json(value: bytes) -> bool:
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _json_of(value: bytes) -> object:
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotRepaired(f"it is not JSON: {error}") from error
