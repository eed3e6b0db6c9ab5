"""What mends dead letters of flights: `streamworker dlq repair … --repairs repairs --function NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from streamworker import repair

if TYPE_CHECKING:
    from flight import Flight

_DAY_MIN = 24 * 60


@repair("air-time-from-the-clock")
def air_time_from_the_clock(flight: Flight) -> Flight | None:
    """A flight that landed and has no air time gets the minutes between departure and arrival; others stay."""
    if flight.air_time is not None or flight.dep_time is None or flight.arr_time is None:
        return None
    minutes = (_minute(flight.arr_time) - _minute(flight.dep_time)) % _DAY_MIN
    return msgspec.structs.replace(flight, air_time=float(minutes))


def _minute(clock: float) -> int:
    """Of the day, of a time as the file writes it: hhmm."""
    hours, minutes = divmod(int(clock), 100)
    return hours * 60 + minutes
