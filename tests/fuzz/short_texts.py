"""The small parsers: times on the command line and in the configuration, commit metadata, log lines."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime, timedelta

from fuzz.costs import bounded
from fuzz.target import target
from hypothesis import strategies as st

from streamworker.errors import ConfigurationError
from streamworker.observability.redaction import error_text
from streamworker.offsets import codec
from streamworker.offsets.policy import StartKind, moment_ms, parse_start

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_TIMES_OF_DAY = ("", "T00:00", "T23:59:59.9999999Z", "T24:00", "t10", " 10:20+23:59:59.999999", "-23:59", "W01", "Z")
_MOMENTS = st.one_of(
    st.datetimes().map(datetime.isoformat),
    st.datetimes(timezones=st.timezones()).map(datetime.isoformat),
    st.builds("{}{}".format, st.dates(), st.sampled_from(_TIMES_OF_DAY)),
    st.text("0123456789-:TZ.+W", max_size=30),
    st.text(max_size=10),
)


_NO_TIME = "times before 1970 are no times to a broker: -1 is the end, -2 the beginning"


def _check_start(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        policy = parse_start(text)
        if policy.kind is StartKind.TIMESTAMP:
            assert policy.timestamp_ms >= 0, _NO_TIME
            assert policy.timestamp_ms == moment_ms(text.partition(":")[2])


def _check_moment(text: str) -> None:
    with contextlib.suppress(ValueError):
        milliseconds = moment_ms(text)
        assert milliseconds >= 0, _NO_TIME
        at = datetime.fromisoformat(text)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        assert timedelta(0) <= at - (_EPOCH + milliseconds * _MILLISECOND) < _MILLISECOND


def _check_metadata(text: str) -> None:
    written_for = re.match(r"sw2 q=[0-9]+ @([0-9]{1,18}) ", text)
    read = codec.decode(text, int(written_for[1]) if written_for else 0)
    if read is None:
        assert re.fullmatch("sw1 q=[0-9]{1,18}", text) is None
    elif read.progress is not None:
        again = codec.encode(read.request, read.progress)
        assert len(again.text) <= codec.MAX_METADATA_BYTES
        if again.complete:
            assert codec.decode(again.text, read.progress.offset) == read


def _check_log_line(parts: list[tuple[str, int]]) -> None:
    """The text of an error, which may hold a payload, as one line of a log."""
    text = "".join(part * min(count, 20_000 // max(1, len(part))) for part, count in parts)[:20_000]
    with bounded(len(text)):
        line = error_text(ValueError(text))
    assert line.isprintable() or not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", line)
    assert len(line) <= 4 * 512 + 1


START = target(
    "start",
    st.builds("timestamp:{}".format, _MOMENTS) | _MOMENTS,
    _check_start,
    seeds=("earliest", "latest", "timestamp:1969-12-31T23:59:59.999Z", "timestamp:2026-01-31T00:00:00.001Z"),
)
MOMENT = target("moment", _MOMENTS, _check_moment)
METADATA = target(
    "metadata",
    st.text(max_size=30)
    | st.from_regex(r"\Asw1 q=\d{0,20}\n?\Z")
    | st.from_regex(r"\Asw2 q=\d{1,3} @\d{1,3} [rcx]( d=[rb][\w-]{0,20})?( a=[\w-]{1,20})?( g=\d,\d,\d)?\Z"),
    _check_metadata,
    seeds=("sw1 q=7", "sw2 q=42 @1207 r d=rAQEDAg a=AQEC g=1207,1270,2", "sw2 q=42 @1207 r d=bAA"),
)
LOG_LINE = target(
    "log-line",
    st.lists(
        st.tuples(
            st.sampled_from(("password", "secret", "=", "a", "a.", "://", "@", '"', "a+", "\n", "\u2028", "\udcff"))
            | st.text(max_size=4),
            st.integers(1, 20_000),
        ),
        max_size=6,
    ),
    _check_log_line,
    seeds=([("password", 130)],),
)
