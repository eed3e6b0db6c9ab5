"""The counts of caches on the page of metrics."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from streamworker import Handler, Record
from streamworker.cache.caches import Caches
from streamworker.cache.figures import figures
from streamworker.config import CacheConfig
from streamworker.declaration import declaration
from streamworker.observability.metrics import Metrics
from streamworker.observability.status import Board, LifeState, WorkerStatus
from streamworker.testing.virtual_time import VirtualTime


class StoreOrder(Handler[bytes]):
    topics = ("orders",)

    def handle(self, record: Record[bytes]) -> None:
        pass


def test_what_a_cache_did_is_on_the_page() -> None:
    time = VirtualTime()
    caches = Caches(CacheConfig(), app="shop", clock=time)
    cache = caches.cache("customers", type_=str, loader=lambda key: None if key == "nobody" else key.upper())
    status = WorkerStatus(
        state=LifeState.RUNNING, group="shop", handlers=("StoreOrder",), protocol="classic", started_s=0.0, now_s=0.0
    )
    metrics = Metrics(
        Board(status), time, [declaration(StoreOrder)], version="1", counted=lambda: figures(caches.stats())
    )

    for key in ("anna", "anna", "nobody"):
        cache.get(key)
    cache.invalidate(["anna"])
    page, _ = metrics.render()

    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }
    name = ("cache", "customers")
    requests = "streamworker_cache_requests_total"
    assert samples[requests, name, ("level", "l1"), ("result", "hit")] == 1
    assert samples[requests, name, ("level", "l1"), ("result", "miss")] == 2
    assert samples[requests, name, ("level", "loader"), ("result", "hit")] == 1
    assert samples[requests, name, ("level", "loader"), ("result", "negative")] == 1
    assert samples["streamworker_cache_removals_total", name, ("cause", "explicit")] == 1
    assert samples["streamworker_cache_load_seconds_count", name] == 2
    assert samples["streamworker_cache_entries", name] == 1
    assert samples["streamworker_cache_invalidation_link_up", name] == 1
    assert samples["streamworker_cache_dirty_keys", name] == 0
