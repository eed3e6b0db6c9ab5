"""Reads what was recorded of a lag: a table as CSV, or what Prometheus answers to a range query.

Decided here: which columns and labels are understood, and what counts as a time at which nothing could be read: an
empty cell, NaN, and in an answer of Prometheus a step without a sample. Text in, samples out. Pure; any thread.
"""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from streamworker.autoscaling.groups import Sample
from streamworker.autoscaling.observation import Observation
from streamworker.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_COLUMNS = ("time", "lag", "sink_open", "busy")
_PARTITION = re.compile(r"(?:partition|p|lag)?[ _-]?\d+", re.IGNORECASE)
# Labels by which an answer is taken apart; of those that are not among them, only one value may be there.
_ONE_OF = ("group", "topic", "consumergroup")


class _Series(msgspec.Struct, frozen=True):
    metric: dict[str, str]
    values: list[tuple[float, str]] | None = None


class _Data(msgspec.Struct, frozen=True, rename="camel"):
    result_type: str
    result: list[_Series]


class _Answer(msgspec.Struct, frozen=True):
    """What the HTTP API answers."""

    data: _Data
    status: str = "success"


def from_csv(text: str) -> Sequence[Sample]:
    """From a table with the columns time, lag and, if there are any, sink_open, busy and one per partition.

    Times are seconds or ISO 8601. Without `lag` it is the sum over the partitions. Raises ConfigurationError.
    """
    rows = list(csv.reader(text.splitlines()))
    header = [cell.strip() for cell in rows[0]] if rows else []
    partitions = [name for name in header if _PARTITION.fullmatch(name)]
    for name in header:
        if name not in _COLUMNS and name not in partitions:
            known = nearest(name, [*_COLUMNS, "partition_0"])
            raise ConfigurationError(f"line 1: there is no column {name!r}; {known}")
    if len(set(header)) < len(header):
        raise ConfigurationError(f"line 1: a column is there twice: {', '.join(header)}")
    if "time" not in header or not ("lag" in header or partitions):
        raise ConfigurationError(f"line 1: expected the columns time and lag, got {', '.join(header) or 'nothing'}")
    found = []
    for number, row in enumerate(rows[1:], 2):
        if any(cell.strip() for cell in row):
            if len(row) != len(header):
                raise ConfigurationError(f"line {number}: expected {len(header)} cells, got {len(row)}")
            cells = dict(zip(header, row, strict=True))
            found.append((_time(number, cells["time"]), _observation(number, cells, partitions)))
    return _samples(found)


def _observation(line: int, cells: Mapping[str, str], partitions: Sequence[str]) -> Observation:
    lags = [_number(line, name, cells[name]) for name in partitions]
    read = [lag for lag in lags if lag is not None]
    lag = _number(line, "lag", cells["lag"]) if "lag" in cells else (sum(read) if read else None)
    with_lag = sum(one > 0 for one in read) if read else None
    open_ = _number(line, "sink_open", cells.get("sink_open", "")) or 0.0
    return Observation(lag, with_lag, open_, _number(line, "busy", cells.get("busy", "")))


def _number(line: int, name: str, cell: str) -> float | None:
    word = cell.strip()
    try:
        value = float(word) if word else math.nan
    except ValueError:
        raise ConfigurationError(f"line {line}: {name}: expected a number, got {cell!r}") from None
    if math.isnan(value):
        return None
    if not (math.isfinite(value) and value >= 0):
        raise ConfigurationError(f"line {line}: {name}: expected 0 or more, got {cell!r}")
    return value


def _time(line: int, cell: str) -> float:
    word = cell.strip()
    try:
        at_s = float(word)
    except ValueError:
        try:
            moment = datetime.fromisoformat(word)
        except ValueError:
            raise ConfigurationError(
                f"line {line}: time: expected seconds or a time like 2031-05-01T06:00:00Z, got {cell!r}"
            ) from None
        at_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(at_s):
        raise ConfigurationError(f"line {line}: time: expected seconds, got {cell!r}")
    return at_s


def from_prometheus(text: str) -> Sequence[Sample]:
    """From the answer to a range query of one group and topic, by partition or as one sum. Raises ConfigurationError.

    What two processes say of one partition, which happens while it changes hands, counts once: the higher.
    """
    data = _answer(text)
    if data.result_type != "matrix" or any(one.values is None for one in data.result):
        raise ConfigurationError(f"expected a matrix, got a {data.result_type}: ask /api/v1/query_range, with a step")
    if not any(one.values for one in data.result):
        raise ConfigurationError("the answer is empty: there was no series of that name and those labels")
    for label in _ONE_OF:
        values = sorted({one.metric.get(label, "") for one in data.result})
        if len(values) > 1:
            raise ConfigurationError(f"expected one {label}, got {', '.join(values)}: narrow the query to one of them")
    lags: defaultdict[float, dict[str, float]] = defaultdict(dict)
    for series in data.result:
        partition = series.metric.get("partition", "")
        for at_s, word in series.values or ():
            lag = _sample_value(word)
            if lag is not None:
                lags[at_s][partition] = max(lag, lags[at_s].get(partition, 0.0))
    by_partition = any("partition" in one.metric for one in data.result)
    return _samples(_with_gaps({at_s: _seen(found, by_partition=by_partition) for at_s, found in lags.items()}))


def _answer(text: str) -> _Data:
    try:
        return msgspec.json.decode(text, type=_Answer).data
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"expected what /api/v1/query_range answers: {error}") from None
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"expected JSON: {error}") from None


def _sample_value(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        raise ConfigurationError(f"expected numbers as values, got {word!r}") from None
    return value if math.isfinite(value) and value >= 0 else None


def _seen(lags: Mapping[str, float], *, by_partition: bool) -> Observation:
    return Observation(sum(lags.values()), sum(lag > 0 for lag in lags.values()) if by_partition else None)


def _with_gaps(seen: Mapping[float, Observation]) -> Iterable[tuple[float, Observation]]:
    """The samples by time, and one that says that nothing was read where steps are missing."""
    times_s = sorted(seen)
    step_s = min((after - before for before, after in pairwise(times_s)), default=0.0)
    for before, after in pairwise([*times_s, math.inf]):
        yield before, seen[before]
        if math.isfinite(after) and after - before > 1.5 * step_s:
            yield before + step_s, Observation(None)


def _samples(found: Iterable[tuple[float, Observation]]) -> Sequence[Sample]:
    """With times from the first on, which must grow."""
    rows = list(found)
    if len(rows) < 2:
        raise ConfigurationError(f"expected two samples at least, got {len(rows)}")
    for (before, _), (after, _) in pairwise(rows):
        if after <= before:
            raise ConfigurationError(f"time: expected it to grow, got {after:g} after {before:g}")
    return [Sample(at_s - rows[0][0], seen) for at_s, seen in rows]
