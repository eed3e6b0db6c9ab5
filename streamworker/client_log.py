"""Where the clients log to. They call it inside a poll, on any of their threads; decides nothing else."""

from __future__ import annotations

import logging
from contextlib import suppress


class ClientLogger(logging.LoggerAdapter[logging.Logger]):
    """Takes what the clients log. They call it inside a poll, where an error of a log handler would cost records."""

    def __init__(self) -> None:
        super().__init__(logging.getLogger("librdkafka"))

    def log(self, level: int, msg: object, *args: object, **kwargs: object) -> None:
        """Log; never raises."""
        with suppress(Exception):  # there is nobody left to tell
            super().log(level, msg, *args, **kwargs)  # type: ignore[arg-type]  # passed on as they are
