"""What a board consists of, and the queries of its panels.

Decided here: how series are chosen and added up. A panel has the title, the unit and the words of a metric of the
catalogue. Metrics of workers without the label `group` get it from the `streamworker_build_info` of their process,
which also leaves out what belongs to other groups.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from streamworker.errors import nearest
from streamworker.observability.catalogue import Declared, Kind, Metric, ObserverMetric, SupervisorMetric

if TYPE_CHECKING:
    from collections.abc import Mapping

# Labels by which people choose, on every board that has them, in this order; `namespace` is a label of the target.
CHOSEN = ("namespace", "group", "topic", "handler", "dlq_topic")

_CATALOGUE: Mapping[str, Declared] = {
    one.value.name: one.value for one in (*Metric, *SupervisorMetric, *ObserverMetric)
}
_OF_WORKERS = frozenset(one.value.name for one in Metric)
_UNITS: Mapping[str, str] = {
    "seconds": "s",
    "bytes": "bytes",
    "boolean": "none",
    "0 or 1": "none",
    "1": "none",
    "0 to 1": "percentunit",
}
_WINDOW = "[$__rate_interval]"


class Shape(enum.Enum):
    """How a panel looks."""

    CURVES = "timeseries"
    NUMBER = "stat"
    STATES = "state-timeline"
    HEAT = "heatmap"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class Query:
    """An expression of PromQL, and how its series are called."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Link:
    """From a series to a page of the console; the labels in braces are those of the series."""

    title: str
    path: str
    filter: str = ""

    @property
    def url(self) -> str:
        """As Grafana wants it."""
        query = f"?q={quote(self.filter, safe='{}')}" if self.filter else ""
        return "${console:raw}" + (self.path + query).replace("{", "${__field.labels.").replace("}", ":percentencode}")


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel about `metric`. `title`, `unit` and `hint` add to what the catalogue says; `limit` is a line in it.

    `words` are shown in the place of values, in a colour each.
    """

    metric: Declared
    queries: tuple[Query, ...]
    unit: str
    title: str = ""
    hint: str = ""
    shape: Shape = Shape.CURVES
    width: int = 8
    limit: float | None = None
    stacked: bool = False
    links: tuple[Link, ...] = ()
    words: tuple[tuple[int, str, str], ...] = ()

    @property
    def shown_title(self) -> str:
        """Its own, or the metric's name in words, without what the unit says."""
        name = self.metric.name.removesuffix("_total").removesuffix("_seconds").replace("_", " ")
        return self.title or name[0].upper() + name[1:]

    @property
    def description(self) -> str:
        """What is seen, and what to make of it."""
        return f"{self.metric.meaning} {self.hint}".strip()


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """A board; `name` is that of its file."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]


def declared(name: str) -> Declared:
    """A metric of the catalogue; raises LookupError, which names the nearest one."""
    if name not in _CATALOGUE:
        raise LookupError(f"no metric is called {name!r}, {nearest(name, list(_CATALOGUE))}")
    return _CATALOGUE[name]


def series(name: str, part: str = "", **wanted: str) -> str:
    """The series of a metric that the variables choose, and whose labels match what is `wanted`."""
    metric = declared(name)
    labels = [label for label in CHOSEN if label in ("namespace", *metric.labels) and label not in wanted]
    matchers = [f'{label}=~"${label}"' for label in labels] + [f'{label}=~"{value}"' for label, value in wanted.items()]
    return f"{metric.full_name}{part}{{{', '.join(matchers)}}}"


def in_group(name: str, expr: str) -> str:
    """`expr` of a metric's series, with the label `group`, of the chosen groups only."""
    if name not in _OF_WORKERS or "group" in declared(name).labels:
        return expr
    groups = f"max by (namespace, instance, worker, group) ({series('build_info')})"
    return f"{expr} * on (namespace, instance, worker) group_left (group) {groups}"


def rate(name: str, *by: str, part: str = "", **wanted: str) -> str:
    """What a counter grows by each second."""
    return f"sum by ({', '.join(by)}) ({in_group(name, f'rate({series(name, part, **wanted)}{_WINDOW})')})"


def level(how: str, name: str, *by: str, **wanted: str) -> str:
    """A gauge, put together by `how`: sum or max."""
    return f"{how} by ({', '.join(by)}) ({in_group(name, series(name, **wanted))})"


def quantile(share: float, name: str, *by: str, **wanted: str) -> str:
    """What `share` of the observations of a histogram are at most."""
    return f"histogram_quantile({share:g}, {rate(name, *by, 'le', part='_bucket', **wanted)})"


def legend(*labels: str) -> str:
    """Series called by their labels."""
    return " ".join(f"{{{{{label}}}}}" for label in labels)


def rates(name: str, *by: str, **wanted: str) -> Panel:
    """Curves of a counter."""
    metric = declared(name)
    unit = "Bps" if metric.unit == "bytes" else f"count:{metric.unit}/s"
    return Panel(metric, (Query(rate(name, *by, **wanted), legend(*by)),), unit)


def counts(name: str, *by: str, **wanted: str) -> Panel:
    """Curves of a counter of what is rare: how often it happened, not how often a second."""
    metric = declared(name)
    grown = in_group(name, f"increase({series(name, **wanted)}{_WINDOW})")
    query = Query(f"sum by ({', '.join(by)}) ({grown})", legend(*by))
    return Panel(metric, (query,), unit_of(name), hint="Shown is how often, in each step of the time.")


def levels(name: str, *by: str, how: str = "sum", **wanted: str) -> Panel:
    """Curves of a gauge."""
    return Panel(declared(name), (Query(level(how, name, *by, **wanted), legend(*by)),), unit_of(name))


def quantiles(name: str, *by: str, **wanted: str) -> Panel:
    """Curves of a histogram: its median, and what one in twenty and one in a hundred exceed."""
    queries = [
        Query(quantile(share, name, *by, **wanted), f"{legend(*by)} p{100 * share:g}") for share in (0.5, 0.95, 0.99)
    ]
    return Panel(declared(name), tuple(queries), unit_of(name))


def heat(name: str, **wanted: str) -> Panel:
    """All buckets of a histogram over time."""
    query = Query(rate(name, "le", part="_bucket", **wanted), "{{le}}")
    return Panel(declared(name), (query,), unit_of(name), shape=Shape.HEAT)


def number(title: str, name: str, expr: str, *, limit: float | None = None, links: tuple[Link, ...] = ()) -> Panel:
    """One number, as it is now; red from `limit` on."""
    query = (Query(expr, ""),)
    return Panel(declared(name), query, unit_of(name), title, shape=Shape.NUMBER, width=4, limit=limit, links=links)


def share(title: str, name: str, part: str, whole: str, *by: str) -> Panel:
    """What `part` is of `whole`, both rates of a counter; 0 where there never was any of it."""
    query = Query(f"({part} or 0 * {whole}) / {whole}", legend(*by))
    return Panel(declared(name), (query,), "percentunit", title)


def age(name: str, *by: str) -> Panel:
    """How long ago the time is that a gauge tells."""
    expr = f"max by ({', '.join(by)}) (time() - {in_group(name, series(name))})"
    return Panel(declared(name), (Query(expr, legend(*by)),), "s")


def unit_of(name: str) -> str:
    """Grafana's name for the unit of a metric."""
    metric = declared(name)
    is_time = metric.kind is Kind.GAUGE and metric.name.endswith("_timestamp_seconds")
    return "dateTimeFromNow" if is_time else _UNITS.get(metric.unit, f"count:{metric.unit}")
