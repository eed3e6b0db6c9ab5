"""The metrics of several workers as one page. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from prometheus_client.samples import Sample

Family = Metric
Families = list[Family]

# In which a worker is to be asked for its page: the one of the two formats that has nothing to guess.
ACCEPT = "application/openmetrics-text; version=1.0.0"


def families(page: bytes) -> Families:
    """What a page in the format of `ACCEPT` holds; raises ValueError for what is none."""
    return list(text_string_to_metric_families(page.decode()))  # type: ignore[no-untyped-call]  # the library has none there


def merged(workers: Mapping[int, Families], own: Iterable[Family]) -> Families:
    """The families of `workers`, by number, each name once and each sample with the label `worker`; then our `own`."""
    whole: dict[str, Family] = {}
    for number, theirs in workers.items():
        for family in theirs:
            known = whole.setdefault(family.name, Family(family.name, family.documentation, family.type, family.unit))
            known.samples += [_of_worker(sample, number) for sample in family.samples]
    return [*whole.values(), *own]


def render(whole: Collection[Family], accept: str) -> tuple[bytes, str]:
    """The page and its content type, OpenMetrics if the Accept header asks for it."""
    registry = CollectorRegistry()
    registry.register(_Exporter(whole))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _of_worker(sample: Sample, number: int) -> Sample:
    return sample._replace(labels={**sample.labels, "worker": str(number)})


class _Exporter(Collector):
    def __init__(self, whole: Collection[Family]) -> None:
        self._whole = whole

    def collect(self) -> Iterable[Family]:
        return self._whole
