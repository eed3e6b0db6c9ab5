"""A lag that was recorded, as it is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from streamworker.autoscaling.groups import RecordedGroup, Sample
from streamworker.autoscaling.observation import Observation
from streamworker.autoscaling.series import from_csv, from_prometheus
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def answer(*series: tuple[Mapping[str, str], Sequence[tuple[float, str]]], kind: str = "matrix") -> str:
    result = [{"metric": metric, "values": list(values)} for metric, values in series]
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}})


class TestCsv:
    def test_times_begin_at_the_first(self) -> None:
        assert from_csv("time,lag\n1000,5\n1015,7\n") == [Sample(0, Observation(5)), Sample(15, Observation(7))]

    def test_times_may_be_moments(self) -> None:
        samples = from_csv("time,lag\n2031-05-01T06:00:00Z,1\n2031-05-01T08:01:00+02:00,2\n2031-05-01T06:02:00,3")

        assert [one.at_s for one in samples] == [0, 60, 120]

    def test_a_lag_by_partition_is_added_up_and_counted(self) -> None:
        samples = from_csv("time,partition_0,partition_1,partition_2\n0,5,0,7\n1,,0,\n2,,,\n")

        assert [one.seen for one in samples] == [Observation(12, 2), Observation(0, 0), Observation(None, None)]

    def test_an_empty_cell_and_nan_could_not_be_read(self) -> None:
        assert [one.seen.lag for one in from_csv("time,lag\n0,\n1,NaN\n2,3\n")] == [None, None, 3]

    def test_breakers_and_busy_workers_are_read_too(self) -> None:
        samples = from_csv("time, lag, sink_open, busy\n0,5,1,0.5\n15,6,,\n")

        assert [one.seen for one in samples] == [
            Observation(5, sink_open=1, busy=0.5),
            Observation(6, sink_open=0, busy=None),
        ]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "line 1: expected the columns time and lag, got nothing"),
            ("time\n0\n", "line 1: expected the columns time and lag, got time"),
            ("time,laag\n", "line 1: there is no column 'laag'; did you mean 'lag'\\?"),
            ("time,lag,lag\n", "line 1: a column is there twice"),
            ("time,lag\n0,1\n", "expected two samples at least, got 1"),
            ("time,lag\n0,1,2\n", "line 2: expected 2 cells, got 3"),
            ("time,lag\nsoon,1\n", "line 2: time: expected seconds or a time like .*, got 'soon'"),
            ("time,lag\ninf,1\n", "line 2: time: expected seconds, got 'inf'"),
            ("time,lag\n0,many\n", "line 2: lag: expected a number, got 'many'"),
            ("time,lag\n0,-1\n", "line 2: lag: expected 0 or more, got '-1'"),
            ("time,lag\n5,1\n5,2\n", "time: expected it to grow, got 5 after 5"),
        ],
    )
    def test_what_is_no_series_is_refused_with_the_line(self, text: str, words: str) -> None:
        with pytest.raises(ConfigurationError, match=words):
            from_csv(text)


class TestPrometheus:
    def test_partitions_are_added_up(self) -> None:
        text = answer(
            ({"topic": "orders", "partition": "0"}, [(100, "5"), (115, "0")]),
            ({"topic": "orders", "partition": "1"}, [(100, "7"), (115, "2")]),
        )

        assert from_prometheus(text) == [Sample(0, Observation(12, 2)), Sample(15, Observation(2, 1))]

    def test_what_two_pods_say_of_a_partition_counts_once(self) -> None:
        text = answer(
            ({"partition": "0", "pod": "a"}, [(0, "500"), (15, "500")]),
            ({"partition": "0", "pod": "b"}, [(15, "480"), (30, "400")]),
        )

        assert [one.seen.lag for one in from_prometheus(text)] == [500, 500, 400]

    def test_a_sum_says_nothing_of_partitions(self) -> None:
        assert from_prometheus(answer(({}, [(0, "5"), (15, "7")])))[1] == Sample(15, Observation(7))

    def test_where_steps_are_missing_nothing_could_be_read(self) -> None:
        samples = from_prometheus(answer(({}, [(0, "5"), (15, "NaN"), (30, "7"), (45, "8"), (105, "9")])))

        assert [(one.at_s, one.seen.lag) for one in samples] == [
            (0, 5), (15, None), (30, 7), (45, 8), (60, None), (105, 9),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("{", "expected JSON"),
            ('{"status": "error", "error": "no"}', "expected what /api/v1/query_range answers"),
            (answer(kind="vector"), "expected a matrix, got a vector: ask /api/v1/query_range"),
            (answer(), "the answer is empty"),
            (
                answer(({"topic": "a"}, [(0, "1")]), ({"topic": "b"}, [(0, "1")])),
                "expected one topic, got a, b: narrow the query",
            ),
            (answer(({}, [(0, "much")])), "expected numbers as values, got 'much'"),
            (answer(({}, [(0, "1")])), "expected two samples at least, got 1"),
        ],
    )
    def test_what_is_no_series_is_refused(self, text: str, words: str) -> None:
        with pytest.raises(ConfigurationError, match=words):
            from_prometheus(text)


def test_a_sample_stands_until_the_next() -> None:
    group = RecordedGroup([Sample(0, Observation(1)), Sample(100, Observation(2))])
    seen = []
    for at_s in (0, 50, 99, 100, 500):
        group.advance(at_s, working=3)
        seen.append(group.observe().lag)

    assert seen == [1, 1, 1, 2, 2]
