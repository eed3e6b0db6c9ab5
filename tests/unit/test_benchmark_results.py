"""What the benchmarks make of their rounds."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from benchmarks import enrich_results
from benchmarks.catalogue import LADDER, ROWS, STEPS, Figure, chosen
from benchmarks.plot import bars
from benchmarks.results import Reached, Round, reached, tables

BATCH = chosen(["batch"], ROWS)


def round_of(raw: float, batch: float) -> Round:
    return {"raw": {"rate": raw, "cpu_ns": 500.0}, "batch": {"rate": batch, "cpu_ns": 700.0}}


def test_a_row_is_chosen_with_the_one_beside_it() -> None:
    assert [row.name for row in BATCH] == ["raw", "batch"]


def test_a_ratio_is_taken_within_a_round() -> None:
    rounds = [round_of(1000.0, 700.0), round_of(2000.0, 1600.0), round_of(4000.0, 2000.0)]

    share, cpu = reached(BATCH, rounds)

    assert (share.value, share.holds) == (0.7, True)
    assert (cpu.value, cpu.holds) == (1.4, True)


@pytest.mark.parametrize(("value", "more", "holds"), [(0.6, True, False), (0.8, True, True), (0.8, False, False)])
def test_a_target_bounds_from_below_or_from_above(value: float, *, more: bool, holds: bool) -> None:
    assert Reached("batch", value, 0.7, None, more).holds is holds


def test_every_kind_of_row_has_its_table_and_its_target() -> None:
    figures = {
        Figure.RATE: {"rate": 1000.0, "cpu_ns": 500.0},
        Figure.LATENCY: {"p50_ms": 1.0, "p99_ms": 2.0},
        Figure.MEMORY: {"mib": 100.0, "grown_mib": 0.0},
        Figure.START: {"start_s": 1.0},
    }
    rows = (*ROWS, *LADDER)
    page = tables(rows, [{row.name: figures[row.figure] for row in rows}])

    for told in ("| batch | 1,000 | 100% |", "| raw latency | 1.00 | 2.00 |", "| memory, MiB | 0.00 | ≤ 40.00 |"):
        assert told in page
    assert all(step in page for step in STEPS.values())


@pytest.mark.parametrize(("p50_ms", "met"), [(0.9, "| 0.90 | 2.00 | ≤ 1 | yes |"), (1.1, "| 1.10 | 2.00 | ≤ 1 | no |")])
def test_lookups_are_told_beside_the_worker_without_and_reads_beside_their_target(p50_ms: float, met: str) -> None:
    rounds: list[Round] = [
        {
            **{name: {"rate": rate / 2, "cpu_ns": 1500.0} for name in enrich_results.ROWS},
            enrich_results.BESIDE: {"rate": rate, "cpu_ns": 1000.0},
            enrich_results.READS: {"p50_ms": p50_ms, "p90_ms": 2.0},
        }
        for rate in (1000.0, 4000.0, 2000.0)
    ]

    page = enrich_results.tables(rounds)

    assert "| cache | 1,000 | 50% | 50% to 50% | 1.5 |" in page
    assert met in page


def test_the_picture_is_an_svg_with_a_bar_for_each_share() -> None:
    found = [Reached("batch", 0.6, 0.7, 0.9, more=True), Reached("start, s", 0.2, 0.5, None, more=False)]

    picture = ET.fromstring(bars(found, "a & b"))

    bars_of = [one for one in picture.iter() if one.tag.endswith("rect")]
    assert [one.get("class") for one in bars_of] == ["short"]
