"""Which times `kafka.start` may name, and what they are in milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamworker.errors import ConfigurationError
from streamworker.offsets.policy import moment_ms, parse_start


@pytest.mark.parametrize("moment", ["1969-12-31T23:59:59.999Z", "1970-01-01T00:00:00+00:01", "0001-01-01"])
def test_a_start_before_1970_is_refused(moment: str) -> None:
    """Found by fuzzing: a broker takes -1 ms for the end of the log and -2 ms for its beginning.

    What is further back than that it refuses, and the partitions would wait for their start without end.
    """
    with pytest.raises(ConfigurationError, match=r"kafka\.start"):
        parse_start(f"timestamp:{moment}")


@example(2_150_282_715_732)
@given(st.integers(0, 4_102_444_800_000))
def test_a_time_is_as_many_milliseconds_as_it_says(milliseconds: int) -> None:
    """Seconds in a float are a millisecond short at times, and a record of that millisecond was taken as well."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)

    assert moment_ms(moment.isoformat()) == milliseconds
