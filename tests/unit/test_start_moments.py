"""Which times `kafka.start` may name."""

from __future__ import annotations

import pytest

from streamworker.errors import ConfigurationError
from streamworker.offsets.policy import parse_start


@pytest.mark.parametrize("moment", ["1969-12-31T23:59:59.999Z", "1970-01-01T00:00:00+00:01", "0001-01-01"])
def test_a_start_before_1970_is_refused(moment: str) -> None:
    """Found by fuzzing: a broker takes -1 ms for the end of the log and -2 ms for its beginning.

    What is further back than that it refuses, and the partitions would wait for their start without end.
    """
    with pytest.raises(ConfigurationError, match=r"kafka\.start"):
        parse_start(f"timestamp:{moment}")
