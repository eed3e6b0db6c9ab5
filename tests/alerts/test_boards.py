"""The boards of the chart: made from the catalogue, readable for Grafana, and with links that lead somewhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from itertools import combinations
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from alerts.board_files import BOARDS, BUILT_IN, VARIABLE, boards, expressions, filled_in, links, panels
from alerts.prometheus_tools import FILES, ROOT, groupings, mistakes, promtool
from starlette.routing import compile_path

from streamworker.console.app import SCREENS
from streamworker.replay.filters import parse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from urllib.parse import SplitResult


def _generate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/generate_boards.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_no_board_is_stale() -> None:
    result = _generate("--check")

    assert result.returncode == 0, result.stderr
    assert {file.stem for file in BOARDS} == {"overview", "pipeline", "dead-letters", "kafka-client"}


def test_a_stale_board_is_named_with_the_command_that_renews_it(tmp_path: Path) -> None:
    shutil.copytree(FILES / "dashboards", tmp_path, dirs_exist_ok=True)
    board = tmp_path / "overview.json"
    board.write_text(board.read_text("utf-8").replace("now-3h", "now-6h"), "utf-8")
    (tmp_path / "pipeline.json").unlink()

    result = _generate("--check", tmp_path)

    assert result.returncode == 1
    assert "overview.json is stale" in result.stderr
    assert "pipeline.json is stale" in result.stderr
    assert "python tools/generate_boards.py" in result.stderr
    assert _generate(tmp_path).returncode == 0
    assert _generate("--check", tmp_path).returncode == 0


def test_prometheus_takes_every_query(tmp_path: Path) -> None:
    queries = dict(expressions())
    recorded = [
        {"record": f"board:query:{number}", "expr": filled_in(expr)} for number, (_, expr) in enumerate(expressions())
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "boards", "rules": recorded}]}), "utf-8")

    result = promtool("check", "rules", file)

    assert len(queries) > 80
    assert result.returncode == 0, result.stdout + result.stderr


def test_queries_ask_for_series_and_labels_that_are_there() -> None:
    assert {where: found for where, expr in expressions() if (found := mistakes(filled_in(expr)))} == {}


def test_series_are_called_by_labels_that_they_have() -> None:
    wrong = []
    for panel in panels():
        for target in panel.content["targets"]:
            wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            wrong += [f"{panel}: {label}" for label in wanted - groupings(target["expr"])]

    assert wrong == []


@pytest.mark.parametrize("name", boards())
def test_the_variables_that_are_used_are_those_that_can_be_chosen(name: str) -> None:
    board = boards()[name]
    defined = [one["name"] for one in board["templating"]["list"]]
    text = json.dumps(
        [board["panels"], board["annotations"], [one.get("query") for one in board["templating"]["list"]]]
    )

    used = {one or other for one, other in VARIABLE.findall(text)} - BUILT_IN.keys() - {"__field"}

    assert used == set(defined)
    assert defined[:3] == ["datasource", "namespace", "group"]
    assert defined[-1] == "console"


def test_every_panel_says_what_it_shows_and_in_which_unit() -> None:
    bare = [
        str(one)
        for one in panels()
        if len(one.content["description"]) < 20 or not one.content["fieldConfig"]["defaults"]["unit"]
    ]

    assert bare == []


@pytest.mark.parametrize("name", boards())
def test_panels_do_not_lie_on_one_another_and_have_names_of_their_own(name: str) -> None:
    content = boards()[name]["panels"]
    places = [one["gridPos"] for one in content]

    assert len({one["id"] for one in content}) == len({one["title"] for one in content}) == len(content)
    assert all(one["x"] >= 0 and one["x"] + one["w"] <= 24 for one in places)
    assert [(one, other) for one, other in combinations(places, 2) if _overlap(one, other)] == []


def _overlap(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    def within(axis: str, length: str) -> bool:
        return one[axis] < other[axis] + other[length] and other[axis] < one[axis] + one[length]

    return within("x", "w") and within("y", "h")


def test_boards_can_be_told_apart_and_lead_to_one_another() -> None:
    everything = boards().values()

    assert len({board["uid"] for board in everything}) == len({board["title"] for board in everything}) == len(BOARDS)
    assert all(board["tags"] == board["links"][0]["tags"] == ["streamworker"] for board in everything)


def test_links_lead_to_pages_of_the_console_that_are_looked_at() -> None:
    pages = [compile_path(screen.path)[0] for screen in SCREENS if "GET" in screen.methods]
    addresses = {url for _, url in links()}

    nowhere = [
        url
        for url in addresses
        if not url.startswith("${console:raw}/") or not any(page.fullmatch(_sample(url).path) for page in pages)
    ]

    assert len(addresses) >= 5
    assert nowhere == []


def test_filters_in_links_can_be_read_whatever_the_labels_are() -> None:
    filters = {
        text for _, url in links() for text in parse_qs(_sample(url).query, strict_parsing="?" in url).get("q", [])
    }

    assert len(filters) >= 2
    assert all(parse(text, now_ms=0).terms for text in filters)


def test_links_take_labels_that_the_series_have() -> None:
    wrong = []
    for panel, url in links():
        wanted = set(re.findall(r"__field\.labels\.(\w+)", url))
        for target in panel.content["targets"]:
            by = re.match(r"(?:\w+ )?\w+ by \(([^)]*)\)", target["expr"])
            there = {label.strip() for label in by[1].split(",")} if by else set()
            wrong += [f"{panel}: {label}" for label in wanted - there]

    assert wrong == []


def _sample(url: str) -> SplitResult:
    """An address with something in the place of labels."""
    address = re.sub(r"\$\{__field\.labels\.\w+:percentencode\}", "in-1", url.removeprefix("${console:raw}"))
    assert "$" not in address
    return urlsplit(address)
