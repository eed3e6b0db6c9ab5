"""What handlers of scenarios call, and that is away at times."""

from __future__ import annotations

from typing import ClassVar


class Service:
    """Counts its calls, and those that were made in vain.

    Handlers are made by the worker, so they find it by a name of their file; a fixture there renews it for each test.
    """

    error: ClassVar[type[Exception]] = ConnectionError  # what a call raises while it is away

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Be there, and know of no calls."""
        self.away = False
        self.calls = self.in_vain = 0

    def call(self) -> None:
        """Succeed, unless it is away."""
        self.calls += 1
        if self.away:
            self.in_vain += 1
            raise self.error("nobody there")
