"""Name and password of SASL that stand in files, read again while the worker runs.

Who rotates them writes the files anew, as an orchestrator does with mounted secrets. Decided here: when to look, and
that nothing is taken which cannot be meant. Loop thread, between two steps; costs it the reading of two small files.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from streamworker.cli.sources import content_of
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker.cli.settings import Settings
    from streamworker.clock import Clock

_log = logging.getLogger(__name__)
# A mounted secret takes about as long to reach its files, and the old one has to be good for longer than both.
_LOOK_EACH_S = 60.0
_NAME, _PASSWORD = "sasl.username", "sasl.password"


class Rotation:
    """Looks each minute; `take` is given a new name and password."""

    def __init__(self, settings: Settings, take: Callable[[str, str], None], clock: Clock) -> None:
        options = settings.config.kafka.librdkafka
        self._files = {name: file for name, file in settings.files.items() if name in (_NAME, _PASSWORD)}
        self._now = {name: str(options.get(name, "")) for name in (_NAME, _PASSWORD)}
        self._take = take
        self._monotonic_s = clock.monotonic_s
        self._look_at_s = self._monotonic_s() + _LOOK_EACH_S
        self._complained = False

    def __call__(self) -> None:
        """Look, if it is time. Never raises for a file that cannot be read: what is in force stays so."""
        if not self._files or self._monotonic_s() < self._look_at_s:
            return
        self._look_at_s = self._monotonic_s() + _LOOK_EACH_S
        try:
            found = {name: content_of(file) for name, file in self._files.items()}
        except ConfigurationError as error:
            self._complain(str(error))
            return
        # Whoever writes a file in place makes it empty first.
        if not all(found.values()) or found.items() <= self._now.items():
            return
        self._complained = False
        self._now |= found
        self._take(self._now[_NAME], self._now[_PASSWORD])
        _log.warning("credentials read again, they count from the next connection on", extra={"options": [*found]})

    def _complain(self, why: str) -> None:
        if not self._complained:
            _log.error("credentials cannot be read again, the ones before stay in force: %s", why)
        self._complained = True
