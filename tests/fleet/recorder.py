"""What workers' metrics say while a test runs, four times a second."""

from __future__ import annotations

import csv
import threading
import time
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Self

from fleet.workers import page
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Sample:
    """One worker at one moment. `away` says whether what its handler needs was away."""

    at_s: float
    worker: int
    handled: int
    lag: int
    breaker: str
    trials: int  # times that the breaker was half open
    away: int


class Recorder:
    """Reads the pages at `ports` within the `with` block, on a thread of its own. `away` is for the test to set."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.samples: list[Sample] = []
        self.away = False
        self._ports = ports
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(15)

    def lag(self) -> int:
        """What the workers said last, added up."""
        latest = {sample.worker: sample.lag for sample in self.samples}
        return sum(latest.values())

    def write(self, path: Path) -> None:
        """A line for each sample, for `tools/draw_outage.py`."""
        with path.open("w", newline="") as file:
            lines = csv.DictWriter(file, [field.name for field in fields(Sample)])
            lines.writeheader()
            lines.writerows(asdict(sample) for sample in self.samples)

    def _run(self) -> None:
        began_s = time.monotonic()
        while not self._stopping.wait(_EVERY_S):
            for worker, port in enumerate(self._ports, 1):
                code, text = page(port, "metrics")
                if code == 200:
                    self.samples.append(self._sample(round(time.monotonic() - began_s, 3), worker, text))

    def _sample(self, at_s: float, worker: int, text: str) -> Sample:
        handled = lag = trials = 0.0
        breaker = "closed"
        for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
            match sample.name:
                case "streamworker_records_processed_total" if sample.labels["outcome"] == "ok":
                    handled += sample.value
                case "streamworker_consumer_lag_records":
                    lag += sample.value
                case "streamworker_breaker_state" if sample.value:
                    breaker = sample.labels["state"]
                case "streamworker_breaker_transitions_total" if sample.labels["to"] == "half_open":
                    trials += sample.value
        return Sample(at_s, worker, int(handled), int(lag), breaker, int(trials), int(self.away))
