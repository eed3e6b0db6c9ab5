"""What a person may see of the caches in Redis, and change. Any thread; all raise StoreFailed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

from streamworker.cache.envelope import read_head
from streamworker.cache.redis import Namespace, RedisStore, prefix_of, translated
from streamworker.redis_client import within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.cache.envelope import Head
    from streamworker.redis_client import Client

_AT_ONCE = 1000  # keys that the server looks at before it answers somebody else
_ORIGIN = "person"
_GLOB = str.maketrans({one: f"\\{one}" for one in "*?[]\\"})


@dataclass(frozen=True, slots=True)
class Inventory:
    """What Redis has of one cache."""

    cache: str
    epoch_ms: int | None  # when it was last made unreachable as a whole, or begun; Unix time
    values: int
    leases: int
    unreachable: int  # of epochs before; they end by themselves


@dataclass(frozen=True, slots=True)
class Found:
    """What Redis has of one key. `head` is None for a value that no cache could read."""

    size_bytes: int
    ends_in_s: float | None
    head: Head | None


class Inspection:
    """The caches of one app. `timeout_s` is for each answer."""

    def __init__(self, client: Client, app: str, *, timeout_s: float, cluster: bool) -> None:
        self._client = client
        self._app = app
        self._timeout_s = timeout_s
        self._cluster = cluster

    def inventory(self) -> Sequence[Inventory]:
        """All of them. Looks at every key of the server, a thousand at a time."""
        prefix = prefix_of(self._app)
        counts: Counter[tuple[str, str]] = Counter()  # by cache, and epoch with its kind
        epochs: dict[str, set[str]] = {}
        with translated():
            for key in self._client.scan_iter(match=f"{prefix.translate(_GLOB)}*", count=_AT_ONCE):
                cache, _, rest = cast("bytes", key).decode(errors="replace").removeprefix(prefix).partition(":")
                kind = rest.split(":")[1] if ":" in rest else ""
                if kind == "e":
                    value = cast("bytes | None", self._client.get(key))
                    epochs.setdefault(cache, set()).add((value or b"").decode(errors="replace"))
                else:
                    counts[cache, kind] += 1
        caches = sorted({*epochs, *(cache for cache, _ in counts)})
        return [self._of(cache, epochs.get(cache, set()), counts) for cache in caches]

    def look(self, cache: str, key: str) -> tuple[Found | None, bool]:
        """What is there of `key`, and whether somebody has a lease on it."""
        names = Namespace(self._app, cache, cluster=self._cluster)
        start = names.start(names.bucket(key))
        with translated(), within(self._timeout_s):
            epoch = cast("bytes | None", self._client.get(f"{start}:e"))
            if epoch is None:
                return None, False
            name = f"{start}:{epoch.decode()}:{key}"
            value = cast("bytes | None", self._client.get(name))
            ttl_ms = self._client.pttl(name)
            leased = bool(self._client.exists(f"{start}:{epoch.decode()}l:{key}"))
        if value is None:
            return None, leased
        return Found(len(value), ttl_ms / 1000 if ttl_ms >= 0 else None, read_head(value)), leased

    def invalidate(self, cache: str, keys: Sequence[str]) -> None:
        """Delete values and leases, and tell all processes."""
        store = self._store(cache)
        for part in store.parts(keys):
            store.invalidate(part, self._timeout_s)

    def flush(self, cache: str) -> None:
        """Make all values unreachable, and tell all processes."""
        self._store(cache).bump(self._timeout_s, unless_new=False)

    def _store(self, cache: str) -> RedisStore:
        names = Namespace(self._app, cache, cluster=self._cluster)
        return RedisStore(names, lambda: self._client, origin=_ORIGIN)

    @staticmethod
    def _of(cache: str, epochs: set[str], counts: Counter[tuple[str, str]]) -> Inventory:
        of_it = {kind: keys for (name, kind), keys in counts.items() if name == cache}
        values = sum(keys for kind, keys in of_it.items() if kind in epochs)
        leases = sum(keys for kind, keys in of_it.items() if kind.removesuffix("l") in epochs and kind.endswith("l"))
        began = [int(epoch) // 1000 for epoch in epochs if epoch.isdigit()]
        unreachable = sum(of_it.values()) - values - leases
        return Inventory(unquote(cache), max(began, default=None), values, leases, unreachable)
