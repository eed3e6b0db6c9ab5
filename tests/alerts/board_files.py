"""What the boards of the chart say, as values."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

from alerts.prometheus_tools import FILES

if TYPE_CHECKING:
    from collections.abc import Iterator

BOARDS = sorted((FILES / "dashboards").glob("*.json"))
# What Grafana puts in by itself.
BUILT_IN = {"__rate_interval": "5m", "__range": "3h"}
VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)[^}]*\})")
_LABEL_VALUES = re.compile(r"label_values\((.*), (\w+)\)")


class Panel(NamedTuple):
    board: str
    content: dict

    def __str__(self) -> str:
        return f"{self.board}: {self.content['title']}"


def boards() -> dict[str, dict]:
    """By the names of their files."""
    return {file.stem: json.loads(file.read_text("utf-8")) for file in BOARDS}


def panels() -> list[Panel]:
    """All but the headings."""
    return [Panel(name, one) for name, board in boards().items() for one in board["panels"] if one["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Every query, with where it stands."""
    for panel in panels():
        yield from ((f"{panel} {one['refId']}", one["expr"]) for one in panel.content["targets"])
    for name, board in boards().items():
        yield from ((f"{name}: {one['name']}", one["expr"]) for one in board["annotations"]["list"])
        for one in board["templating"]["list"]:
            if one["type"] == "query":
                asked = _LABEL_VALUES.fullmatch(one["query"]["query"])
                assert asked is not None
                yield f"{name}: ${one['name']}", f"group by ({asked[2]}) ({asked[1]})"


def filled_in(expr: str) -> str:
    """As Prometheus is asked it when nothing is chosen."""
    return VARIABLE.sub(lambda found: BUILT_IN.get(found[1] or found[2], ".*"), expr)


def links() -> Iterator[tuple[Panel, str]]:
    """Where panels lead."""
    for panel in panels():
        yield from ((panel, one["url"]) for one in panel.content["fieldConfig"]["defaults"]["links"])
