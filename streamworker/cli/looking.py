"""What looks at consumer groups need, made of the configuration: a cluster, a consumer, how many and how far apart."""

from __future__ import annotations

from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.cli.options import connect
from streamworker.clock import SystemClock
from streamworker.errors import ConfigurationError
from streamworker.lag.group_watch import GroupWatch
from streamworker.lag.peeks import Peeks
from streamworker.lag.states import Rules
from streamworker.librdkafka import peek_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from streamworker.cluster import Cluster
    from streamworker.config import Config

    Groups = Callable[[], Collection[str]]

# Of `streamworker dlq purge`, whose offsets say how far dead letters are settled: nobody commits those but it.
_MIRRORS = "sw-dlq-"


@dataclass(frozen=True, slots=True)
class LookPlan:
    """How many looks are remembered, how far apart they are, and of how many of them something is judged."""

    looks: int
    interval_s: float
    minimum_looks: int


@dataclass(frozen=True, slots=True)
class Looking:
    """How groups are looked at. `topics`: only these, all if there are none."""

    config: Config
    plan: LookPlan
    timeout_s: float
    allowed_lag: int = 0
    peeks: bool = True
    topics: Sequence[str] = ()

    @contextmanager
    def watch(self) -> Iterator[GroupWatch]:
        """A watch, for as long as the block lasts."""
        clock = SystemClock()
        kafka = self.config.kafka
        with closing(Peeks(peek_settings(kafka), clock)) if self.peeks else nullcontext() as peeks:
            yield GroupWatch(
                connect(kafka),
                peeks,
                clock,
                Rules(self.allowed_lag, self.plan.minimum_looks / self.plan.looks),
                looks=self.plan.looks,
                timeout_s=self.timeout_s,
                chosen=lambda topic: not self.topics or topic in self.topics,
            )


def named_groups(named: Sequence[str]) -> Groups:
    """Those that somebody has named; raises ConfigurationError if they are none."""
    if not named:
        raise ConfigurationError("say which groups, or --all: kafka.group is not set")
    return lambda: named


def all_groups(cluster: Cluster, timeout_s: float) -> Groups:
    """Those that there are when they are asked for, but for those that only keep offsets of dead letters."""

    def there() -> Collection[str]:
        listing = cluster.groups(timeout_s)
        if listing is None:
            raise ConfigurationError("--all: this cluster lists no groups to us; name them")
        return sorted(name for name in listing.states if not name.startswith(_MIRRORS))

    return there
