"""Serdes for values that are bytes or text already. Any thread: they hold nothing."""

from __future__ import annotations

from typing import ClassVar

from streamworker.errors import DecodeError


class Bytes:
    """The bytes as they are. `passthrough` tells the engine that it need not ask."""

    passthrough: ClassVar[bool] = True

    def decode(self, data: bytes, topic: str) -> bytes:  # noqa: ARG002 - Serde's signature
        """`data` itself."""
        return data

    def encode(self, value: bytes, topic: str) -> bytes:  # noqa: ARG002 - Serde's signature
        """`value` itself."""
        return value

    def __repr__(self) -> str:
        return "Bytes()"


class Text:
    """Text in UTF-8. Strict: invalid bytes are refused, a byte-order mark is kept as a character."""

    def decode(self, data: bytes, topic: str) -> str:  # noqa: ARG002 - Serde's signature
        """The text; raises DecodeError that names the first bad byte."""
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise DecodeError(f"not UTF-8: {error.reason} at byte {error.start} of {len(data)}") from error

    def encode(self, value: str, topic: str) -> bytes:  # noqa: ARG002 - Serde's signature
        """The bytes; raises ValueError for lone surrogates."""
        return value.encode()

    def __repr__(self) -> str:
        return "Text()"
