#!/usr/bin/env python3
"""Writes the chart's boards for Grafana: `python tools/generate_boards.py [--check] [FOLDER]`.

Decided here: how a board becomes JSON. What is on it is in `boards/content.py`, what is said of it in the catalogue of
metrics. With `--check` nothing is written, and the exit code is 1 if a board is stale.
"""

from __future__ import annotations

import json
import re
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from boards.content import BOARDS
from boards.panels import CHOSEN, Board, Panel, Shape, in_group, legend, series
from made_files import write_or_compare

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Json = Mapping[str, object]

COMMAND = "python tools/generate_boards.py"
FOLDER = Path(__file__).parent.parent / "deploy" / "charts" / "streamworker" / "files" / "dashboards"

# Where a console listens by itself; a user writes the address of theirs over it, in the board.
CONSOLE = "http://127.0.0.1:8090"
_TAG = "streamworker"
_SCHEMA = 39  # Grafana 10.4; later ones read it
_COLUMNS = 24
_HEIGHTS: Mapping[Shape, int] = {Shape.NUMBER: 4}
_HEIGHT = 8
_SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
# The metric that tells of each variable's values.
_VALUES: Mapping[str, str] = {
    "namespace": "build_info",
    "group": "build_info",
    "topic": "records_consumed_total",
    "handler": "records_processed_total",
    "dlq_topic": "dlq_pending_records",
}
_GREEN, _RED = "green", "red"
_SHARED: Mapping[Shape, Json] = {
    Shape.CURVES: {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    Shape.NUMBER: {
        "colorMode": "value",
        "graphMode": "area",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
    Shape.STATES: {"mergeValues": True, "showValue": "auto", "legend": {"displayMode": "list", "placement": "bottom"}},
    Shape.HEAT: {"calculate": False, "yAxis": {"unit": "s"}, "color": {"mode": "scheme", "scheme": "Oranges"}},
    Shape.TABLE: {"showHeader": True},
}


def board(made: Board) -> Json:
    """A board as Grafana stores it."""
    panels = list(_panels(made))
    text = json.dumps(panels)
    return {
        "uid": f"{_TAG}-{made.name}",
        "title": made.title,
        "description": made.description,
        "tags": [_TAG],
        "schemaVersion": _SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "",
        "annotations": {"list": _annotations()},
        "links": [
            {
                "type": "dashboards",
                "title": "Other boards",
                "tags": [_TAG],
                "asDropdown": True,
                "keepTime": True,
                "includeVars": True,
            }
        ],
        "templating": {"list": _variables([one for one in CHOSEN if f"${one}" in text])},
        "panels": panels,
    }


def _panels(made: Board) -> Iterator[Json]:
    ids, top = count(1), 0
    for row in made.rows:
        yield {
            "id": next(ids),
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": _place(0, top, _COLUMNS, 1),
            "panels": [],
        }
        top += 1
        left = height = 0
        for panel in row.panels:
            if left + panel.width > _COLUMNS:
                left, top = 0, top + height
            height = _HEIGHTS.get(panel.shape, _HEIGHT)
            yield {"id": next(ids), **_panel(panel), "gridPos": _place(left, top, panel.width, height)}
            left += panel.width
        top += height


def _place(x: int, y: int, width: int, height: int) -> Json:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel) -> Json:
    made: dict[str, object] = {
        "type": panel.shape.value,
        "title": panel.shown_title,
        "description": panel.description,
        "datasource": _SOURCE,
        "targets": list(_targets(panel)),
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _SHARED[panel.shape],
    }
    if panel.shape is Shape.TABLE:
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": {"Time": True}}}]
    return made


def _targets(panel: Panel) -> Iterator[Json]:
    for letter, query in zip("ABCDEF", panel.queries, strict=False):
        target: dict[str, object] = {
            "refId": letter,
            "datasource": _SOURCE,
            "editorMode": "code",
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
            "range": panel.shape is not Shape.TABLE,
            "instant": panel.shape is Shape.TABLE,
        }
        if panel.shape in (Shape.TABLE, Shape.HEAT):
            target["format"] = panel.shape.value
        yield target


def _field(panel: Panel) -> Json:
    steps: list[Json] = [{"color": _GREEN, "value": None}]
    if panel.limit is not None:
        steps.append({"color": _RED, "value": panel.limit})
    field: dict[str, object] = {
        "unit": panel.unit,
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": steps},
        "links": [{"title": one.title, "url": one.url, "targetBlank": True} for one in panel.links],
    }
    if panel.words:
        options = {str(value): {"text": text, "color": colour} for value, text, colour in panel.words}
        field["mappings"] = [{"type": "value", "options": options}]
    if panel.shape is Shape.CURVES:
        field["custom"] = {
            "fillOpacity": 20 if panel.stacked else 0,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "off" if panel.limit is None else "line"},
        }
    return field


def _variables(chosen: Sequence[str]) -> list[Json]:
    """Where the data come from, what people choose by, and where their console is."""
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    console = {"name": "console", "label": "Console", "type": "textbox", "query": CONSOLE}
    address = {
        "current": {"text": CONSOLE, "value": CONSOLE},
        "options": [{"selected": True, "text": CONSOLE, "value": CONSOLE}],
    }
    return [source, *map(_variable, chosen), {**console, **address}]


def _variable(name: str) -> Json:
    before = CHOSEN[: CHOSEN.index(name)]
    metric = series(_VALUES[name])
    # What is chosen by a variable that stands to the right would otherwise narrow what this one offers.
    matchers = [one for one in re.findall(r"\w+=~\"\$\w+\"", metric) if one.partition("=")[0] in before]
    chosen = f"{{{', '.join(matchers)}}}" if matchers else ""
    query = f"label_values({metric.partition('{')[0]}{chosen}, {name})"
    return {
        "name": name,
        "label": name.replace("_", " ").replace("dlq", "dead-letter").capitalize(),
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",  # also where there is no such label, as without Kubernetes
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _annotations() -> list[Json]:
    builds = f"max by (namespace, group, version, track) ({series('build_info')}"
    deploys = f"{builds}) unless {builds} offset 2m)"
    taken = in_group("rebalances_total", f"increase({series('rebalances_total', kind='revoke|lost')}[1m])")
    return [
        _annotation("Deploys", "blue", deploys, "{{group}} runs {{version}}"),
        _annotation("Rebalances", "orange", f"sum by (namespace, group) ({taken}) > 0", "{{group}} rebalances"),
    ]


def _annotation(name: str, colour: str, expr: str, title: str) -> Json:
    return {
        "name": name,
        "enable": True,
        "iconColor": colour,
        "datasource": _SOURCE,
        "expr": expr,
        "step": "60s",
        "titleFormat": title,
        "textFormat": legend("namespace"),
        "tagKeys": "group",
    }


def files(_folder: Path) -> Mapping[str, str]:
    """What belongs into the folder of the boards, by name."""
    return {f"{one.name}.json": json.dumps(board(one), indent=2, ensure_ascii=False) + "\n" for one in BOARDS}


if __name__ == "__main__":
    sys.exit(write_or_compare("Write the boards from the catalogue of metrics.", COMMAND, FOLDER, files))
