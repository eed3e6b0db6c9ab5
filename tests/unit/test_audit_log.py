"""The audit as it is read: its newest entries over all partitions, and all of them for a check."""

from __future__ import annotations

import pytest
from memory_log import MemoryLog

from streamworker.errors import ConfigurationError
from streamworker.record import TopicPartition
from streamworker.replay.audit import TOPIC, Chain, Note, verify
from streamworker.replay.audit_log import AuditLog, Place
from streamworker.replay.desk import Actor, Role

ANN = Actor("ann@desk", Role.OPERATOR, "console", verified=True)
NOW_MS = 1_795_867_200_000


class Audit:
    """An audit topic of two partitions, in which each writer has its chain."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.read = AuditLog(self.log, [TopicPartition(TOPIC, number) for number in (0, 1)], 5.0)
        self._chains: dict[str, Chain] = {}

    def write(self, writer: str, at_ms: int, what: str = "replay") -> None:
        chain = self._chains.get(writer, Chain(writer))
        letter = chain.letter(Note(at_ms=NOW_MS + at_ms, actor=ANN, what=what, detail={}))
        self._chains[writer] = chain.after(letter)
        partition = int(writer[-1]) % 2
        self.log.append(TOPIC, partition, key=letter.key, value=letter.value, headers=letter.headers)


def test_the_newest_entries_of_all_partitions_come_first() -> None:
    audit = Audit()
    for at_ms in (10, 30, 50):
        audit.write("w0", at_ms)
    for at_ms in (20, 40):
        audit.write("w1", at_ms)

    found, following = audit.read.newest(3)

    assert [one.at_ms - NOW_MS for one in found] == [50, 40, 30]
    assert following is not None


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_page_after_page_all_entries_are_shown_once(limit: int) -> None:
    audit = Audit()
    for number in range(20):
        audit.write(f"w{number % 3}", number // 2)  # some at the same time
    shown = []
    before: Place | None = None

    while True:
        found, following = audit.read.newest(limit, before=before)
        shown += [Place.of(one) for one in found]
        if following is None:
            break
        before = Place.parse(following)

    assert len(shown) == 20
    assert shown == sorted(set(shown), reverse=True)


def test_only_entries_that_are_wanted_count_for_a_page() -> None:
    audit = Audit()
    for number in range(2000):
        audit.write("w0", number, "denied" if number % 500 == 0 else "replay")

    found, following = audit.read.newest(3, wanted=lambda one: one.what == "denied")

    assert [one.at_ms - NOW_MS for one in found] == [1500, 1000, 500]
    assert following == str(Place.of(found[-1]))


def test_a_page_reads_no_more_than_it_needs() -> None:
    audit = Audit()
    for number in range(5000):
        audit.write("w0", number)

    audit.read.newest(10)

    assert audit.log.read_ranges == [{TopicPartition(TOPIC, 0): (4500, 5000)}]


def test_what_is_no_entry_is_not_shown_and_is_found_by_a_check() -> None:
    audit = Audit()
    audit.write("w0", 0)
    audit.log.append(TOPIC, 0, value=b"{}")

    found, _ = audit.read.newest(10)
    verdict = verify(audit.read.kept(audit.read.ranges()), None)

    assert len(found) == 1
    assert [(one.fault, one.at) for one in verdict.findings] == [("unreadable", "0:1")]


def test_a_check_begins_with_what_retention_has_left() -> None:
    audit = Audit()
    for number in range(10):
        audit.write("w0", number)
    audit.log.delete_before(TOPIC, 0, 4)

    verdict = verify(audit.read.kept(audit.read.ranges()), None)

    assert (verdict.entries, verdict.chains, verdict.beginnings, verdict.faults) == (6, 1, 0, 0)


@pytest.mark.parametrize("text", ["", "1", "x:w:1", "1:w:x", "1::2", "-1:w:2", "²:w:1"])
def test_a_cursor_that_no_page_has_given_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected what a page of the audit says"):
        Place.parse(text)


def test_a_cursor_is_read_as_it_was_written() -> None:
    place = Place(NOW_MS, "a:writer", 3)

    assert Place.parse(str(place)) == place
