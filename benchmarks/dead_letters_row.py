"""One row of `benchmarks.dead_letters`, in a process of its own: all letters are consumed, or come into a view.

What a view is asked is asked several times, once it is complete; the longest answer counts.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as ClientPartition

from benchmarks.asked import Asked, answer, peak_mib, rate
from benchmarks.topics import PARTITIONS
from streamworker.clock import SystemClock
from streamworker.garbage import seldom_collected
from streamworker.replay.families import read
from streamworker.replay.filters import Filter, parse
from streamworker.replay.topic_log import TopicLog
from streamworker.replay.view import View
from streamworker.replay.view_builder import ViewBuilder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONSUMED, HEADERS, VIEW = "consumed", "headers", "view"
# What is chosen is near the beginning of the list, everywhere, at its end, or nowhere.
FILTERS = (
    "",
    "state:pending",
    "-state:pending",
    "handler:Handler3 state:pending",
    "offset:..100",
    "key:key-77",
    "header.tenant:tenant-13",
    'text:"order 1234567 "',
    "nowhere-at-all",
)
_PAGE = 50
_TIMES = 3
_TIMEOUT_S = 30.0


def consumed(asked: Asked, *, headers: bool = False) -> Mapping[str, float]:
    """By the bare client, with its own settings; `headers` are also read, in which a letter says what it is."""
    consumer = Consumer({"bootstrap.servers": asked.bootstrap_servers, "group.id": "bench"})
    consumer.assign([ClientPartition(asked.topic, number, 0) for number in range(PARTITIONS)])
    start_s, cpu_s, seen = time.perf_counter(), time.process_time(), 0
    while seen < asked.records:
        batch = consumer.consume(1000, 1.0)
        if headers:
            deque((message.headers() for message in batch), maxlen=0)
        seen += len(batch)
    figures = rate(seen, time.perf_counter() - start_s, time.process_time() - cpu_s)
    consumer.close()
    return figures


def viewed(asked: Asked) -> Mapping[str, float]:
    """By the builder of a view, which is asked then."""
    clock, before_mib = SystemClock(), peak_mib()
    with closing(TopicLog(asked.client, clock)) as log, closing(View(asked.topic, clock)) as view, seldom_collected():
        builder = ViewBuilder(view, log, read, partitions=PARTITIONS, state_partitions=PARTITIONS, timeout_s=_TIMEOUT_S)
        start_s, cpu_s = time.perf_counter(), time.process_time()
        builder.step()
        first_s = time.perf_counter() - start_s
        while builder.step():
            pass
        figures = dict(rate(asked.records, time.perf_counter() - start_s, time.process_time() - cpu_s))
        assert view.count(Filter()) == asked.records
        figures |= {"first page s": first_s, "MiB while it is built": peak_mib() - before_mib}
        figures |= {f"page s {text}": longest(lambda text=text: page(view, text)) for text in FILTERS}  # type: ignore[misc]  # of this text
        figures["groups s"] = longest(lambda: view.groups(Filter()))
        figures["summary s"] = longest(lambda: view.summary(clock.wall_ms(), 7 * 86_400_000))
        figures["candidates s"] = longest(lambda: deque(view.candidates(Filter(), view.ends()), maxlen=0))
        figures["MiB"] = peak_mib() - before_mib
    return figures


def page(view: View, text: str) -> None:
    """The first, with the number of all that match, as a list shows it."""
    view.page(parse(text, time.time_ns() // 1_000_000), limit=_PAGE)


def longest(call: Callable[[], object]) -> float:
    """The longest of several calls."""
    taken_s = []
    for _ in range(_TIMES):
        start_s = time.perf_counter()
        call()
        taken_s.append(time.perf_counter() - start_s)
    return max(taken_s)


if __name__ == "__main__":
    asked = Asked.here()
    answer({CONSUMED: consumed, HEADERS: partial(consumed, headers=True), VIEW: viewed}[asked.row](asked))
