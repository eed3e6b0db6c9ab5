"""What is true at the end: the source file, read again, beside what is in the database and in the topics."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition
from flight import AVRO, MISSING, Flight, as_flight, source_rows
from rich.box import SIMPLE_HEAD
from rich.table import Table
from store import FlightStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from brokers import Topics

_TIMEOUT_S = 20.0
# Columns whose absence is a defect, and what the handler calls it.
_DEFECTS = {"dep_time": "no departure time", "arr_time": "no arrival time", "air_time": "no air time"}


@dataclass(frozen=True, slots=True)
class Check:
    """A figure of the source, or what is allowed `at_most`, and what was found for it."""

    name: str
    expected: float
    found: float
    at_most: bool = False

    @property
    def passed(self) -> bool:
        """Whether it is as expected."""
        return self.found <= self.expected if self.at_most else self.found == self.expected


@dataclass(frozen=True, slots=True)
class Outage:
    """What was seen while the database was locked for so many `seconds`."""

    seconds: float
    waiting: int  # records that were in the log at its end and not done
    held_back: int  # workers whose breaker was not closed at its end
    failed_calls: int
    allowed_calls: int  # those in progress when it began, and the trials of the breakers

    def checks(self, letters: Mapping[str, int]) -> Iterator[Check]:
        """Beside the dead letters by reason."""
        name = f"database locked for {self.seconds:.0f} s"
        because = sum(count for why, count in letters.items() if "locked" in why)
        yield Check(f"{name}: a breaker opened", bool(self.waiting), bool(self.held_back))
        yield Check(f"{name}: calls that failed", self.allowed_calls, self.failed_calls, at_most=True)
        yield Check(f"{name}: dead letters", 0, because)


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The dead-letter topic: a reason for each record, the flights themselves, and letters written twice."""

    reasons: Mapping[str, int]
    flights: Sequence[Flight]
    repeats: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """All checks, and figures that have no right value."""

    checks: Sequence[Check]
    carriers: Sequence[Check]
    notes: Mapping[str, int]

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in (*self.checks, *self.carriers))


def judge(
    *, topics: Topics, database: Path, rows: int, outage: Outage | None, exit_codes: Mapping[str, int]
) -> Verdict:
    """Check the run; the workers have ended."""
    source = list(source_rows(rows))
    defects = [_defect(row) for row in source]
    reasons = Counter(why for why in defects if why is not None)
    letters = _dead_letters(topics)
    in_log, behind = _log(topics)
    with FlightStore(database) as store:
        stored = store.flights()
        carriers = list(_carriers(source, store.per_carrier()))
        repeats, out_of_order = store.repeats(), store.out_of_order()
    rows_in, rows_out = Counter(map(as_flight, source)), Counter([*stored, *letters.flights])
    checks = [
        Check("records in the log", rows, in_log),
        Check("handled", defects.count(None), len(stored)),
        *(Check(f"dead letters: {why}", reasons[why], letters.reasons.get(why, 0)) for why in _DEFECTS.values()),
        Check(
            "dead letters for other reasons", 0, sum(letters.reasons[why] for why in letters.reasons.keys() - reasons)
        ),
        Check("lost", 0, (rows_in - rows_out).total()),
        Check("changed or invented", 0, (rows_out - rows_in).total()),
        Check("out of order within a key", 0, out_of_order),
        Check("not committed", 0, behind),
        *(() if outage is None else outage.checks(letters.reasons)),
        *(Check(f"exit code of {worker}", 0, code) for worker, code in exit_codes.items()),
    ]
    return Verdict(checks, carriers, {"flights stored again": repeats, "dead letters written again": letters.repeats})


def _defect(row: Mapping[str, str]) -> str | None:
    return next((why for column, why in _DEFECTS.items() if row[column] == MISSING), None)


def _carriers(source: Sequence[Mapping[str, str]], stored: Mapping[str, tuple[int, float]]) -> Iterator[Check]:
    flights: Counter[str] = Counter()
    miles: defaultdict[str, float] = defaultdict(float)
    for row in source:
        if _defect(row) is None:
            flights[row["carrier"]] += 1
            miles[row["carrier"]] += float(row["distance"])
    for carrier in sorted(flights.keys() | stored.keys()):
        found_flights, found_miles = stored.get(carrier, (0, 0.0))
        yield Check(f"{carrier} flights", flights[carrier], found_flights)
        yield Check(f"{carrier} miles", miles[carrier], found_miles)


def _log(topics: Topics) -> tuple[int, int]:
    """Records in the flights' topic, and how many of them the group has not committed."""
    with _consumer(topics) as consumer:
        partitions = _partitions(consumer, topics.flights)
        marks = [consumer.get_watermark_offsets(one, timeout=_TIMEOUT_S) for one in partitions]
        committed = consumer.committed(partitions, timeout=_TIMEOUT_S)
    ends = [high for _, high in marks]
    behind = [end - max(one.offset, low) for end, one, (low, _) in zip(ends, committed, marks, strict=True)]
    return sum(high - low for low, high in marks), sum(behind)


def _dead_letters(topics: Topics) -> DeadLetters:
    """One letter for each record that has any."""
    letters: dict[tuple[bytes, bytes], Message] = {}
    total = 0
    for message in _all_messages(topics):
        headers = _headers(message)
        letters[headers["sw-origin-partition"], headers["sw-origin-offset"]] = message
        total += 1
    return DeadLetters(
        reasons=Counter(_headers(one)["sw-message"].decode() for one in letters.values()),
        flights=[AVRO.decode(one.value() or b"", topics.dead_letters) for one in letters.values()],
        repeats=total - len(letters),
    )


def _headers(message: Message) -> dict[str, bytes]:
    return {name: value for name, value in dict(message.headers() or ()).items() if isinstance(value, bytes)}


def _all_messages(topics: Topics) -> Iterator[Message]:
    with _consumer(topics) as consumer:
        partitions = _partitions(consumer, topics.dead_letters)
        consumer.assign([TopicPartition(one.topic, one.partition, OFFSET_BEGINNING) for one in partitions])
        open_ends = len(partitions)
        while open_ends:
            message = consumer.poll(_TIMEOUT_S)
            if message is None:
                raise TimeoutError(f"{topics.dead_letters} was not read to its end within {_TIMEOUT_S:g} s")
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name in the client
                open_ends -= 1
            else:
                raise RuntimeError(f"{topics.dead_letters} cannot be read: {error}")


def _consumer(topics: Topics) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": topics.bootstrap_servers,
            "group.id": topics.group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )


def _partitions(consumer: Consumer, topic: str) -> list[TopicPartition]:
    found = consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic].partitions
    return [TopicPartition(topic, number) for number in sorted(found)]


def checks_table(verdict: Verdict) -> Table:
    """The checks as a table."""
    table = Table(box=SIMPLE_HEAD, title="the run beside its source", title_justify="left")
    table.add_column("")
    for column in ("source", "found"):
        table.add_column(column, justify="right")
    table.add_column("")
    for check in verdict.checks:
        expected = f"{'≤ ' if check.at_most else ''}{check.expected:,.0f}"
        table.add_row(check.name, expected, f"{check.found:,.0f}", _mark(check))
    for name, count in verdict.notes.items():
        table.add_row(name, "", f"{count:,}", "")
    return table


def carriers_table(verdict: Verdict) -> Table:
    """The sums by carrier, as a table."""
    table = Table(box=SIMPLE_HEAD, title="handled flights by carrier", title_justify="left")
    table.add_column("")
    for column in ("source", "found"):
        table.add_column(column, justify="right")
    table.add_column("")
    for check in verdict.carriers:
        table.add_row(check.name, f"{check.expected:,.0f}", f"{check.found:,.0f}", _mark(check))
    return table


def _mark(check: Check) -> str:
    return "ok" if check.passed else "WRONG"
