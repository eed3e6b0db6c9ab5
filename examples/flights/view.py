"""What is seen while the demo runs: a table that moves on a terminal, a line every two seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console
    from workers import Look

_LINE_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Scene:
    """The whole at one moment."""

    seconds: float  # since the start
    sent: int
    lag: int  # records that were acknowledged and are not done
    rate: float  # records done per second
    workers: Mapping[str, Look]

    @property
    def handled(self) -> int:
        """Records handled, repeats included."""
        return sum(one.handled for one in self.workers.values())

    @property
    def retries(self) -> int:
        """Records that were given back and came again."""
        return sum(one.retries for one in self.workers.values())

    @property
    def dead_letters(self) -> int:
        """Dead letters written."""
        return sum(one.dead_letters for one in self.workers.values())


Show: TypeAlias = Callable[[Scene], None]


@contextmanager
def view(console: Console) -> Iterator[Show]:
    """How to show a scene on `console`."""
    if not console.is_terminal:
        yield _Lines(console).show
        return
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        yield lambda scene: live.update(_picture(scene))


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = time.monotonic()

    def show(self, scene: Scene) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _LINE_EVERY_S
            self._console.print(_line(scene), soft_wrap=True)


def _line(scene: Scene) -> str:
    workers = "  ".join(f"{name} {_state(one)} [{len(one.owned)}]" for name, one in scene.workers.items())
    return (
        f"{scene.seconds:5.1f} s  sent {scene.sent:6}  handled {scene.handled:6}  {scene.rate:6.0f}/s"
        f"  lag {scene.lag:6}  retries {scene.retries:4}  dead letters {scene.dead_letters:4}  |  {workers}"
    )


def _state(one: Look) -> str:
    """The state of a worker, and that of its breaker where calls are held back."""
    return one.state if one.breaker in ("", "closed") else f"{one.state}, breaker {one.breaker}"


def _picture(scene: Scene) -> Group:
    totals = Table(box=SIMPLE_HEAD, title=f"streamworker demo, {scene.seconds:.0f} s")
    for column in ("sent", "handled", "records/s", "lag", "retries", "dead letters"):
        totals.add_column(column, justify="right")
    counts = (scene.sent, scene.handled, round(scene.rate), scene.lag, scene.retries, scene.dead_letters)
    totals.add_row(*(f"{count:,}" for count in counts))
    workers = Table("worker", "state", "breaker", "partitions", "handled", "retries", "dead letters", box=SIMPLE_HEAD)
    for name, one in scene.workers.items():
        partitions = " ".join(map(str, sorted(one.owned)))
        workers.add_row(
            name,
            one.state,
            one.breaker,
            partitions,
            f"{one.handled:,}",
            f"{one.retries:,}",
            f"{one.dead_letters:,}",
            style=_style(one),
        )
    return Group(totals, workers)


def _style(one: Look) -> str:
    if one.state == "killed":
        return "red"
    return "" if one.breaker == "closed" else "yellow"
