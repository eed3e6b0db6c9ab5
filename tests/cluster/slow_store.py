"""A handler whose store is away until a test says otherwise, and takes its time then."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from streamworker import Breaker, Handler, Rate

if TYPE_CHECKING:
    from streamworker import Context, Record


class StoreSlowly(Handler[bytes]):
    """The store is there while the file `app.store` is."""

    topics = (os.environ["LEDGER_TOPIC"],)
    breaker = Breaker("store", open_s=0.5, max_open_s=1.0)
    rate = Rate(5)

    def open(self, context: Context) -> None:
        self._store = Path(str(context.app["store"]))

    def handle(self, record: Record[bytes]) -> None:
        if not self._store.exists():
            raise ConnectionError("the store is away")
