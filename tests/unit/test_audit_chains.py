"""The audit: what its entries say, and what is noticed when somebody has changed them."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.replay.audit import MAC_HEADER, TOPIC, Chain, Fault, Kept, Note, audited, mac, ranges, read, verify
from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import Actor, Role

KEY = b"a secret of thirty-two bytes ...."
ANN = Actor("ann@desk", Role.OPERATOR, "console", verified=True)
NOTE = Note(at_ms=1_700_000_000_000, actor=ANN, what="replay", topic="dlq", op_id="op-1", detail={"count": 2})


def written(*writers: str, key: bytes | None = KEY) -> list[Kept]:
    """An entry of each, in this order."""
    chains: dict[str, Chain] = {}
    kept = []
    for at, writer in enumerate(writers):
        chain = chains.get(writer, Chain(writer, key))
        letter = chain.letter(NOTE.about({"at": at}))
        chains[writer] = chain.after(letter)
        kept.append(Kept(0, at, letter.value, letter.headers))
    return kept


def faults(kept: list[Kept], key: bytes | None = KEY) -> list[tuple[Fault, str]]:
    return [(one.fault, one.at) for one in verify(kept, key).findings]


def test_an_entry_is_this_record() -> None:
    first = Chain("w1", KEY).letter(NOTE)
    second = Chain("w1", KEY).after(first).letter(NOTE)

    assert (first.topic, first.partition, first.key) == (TOPIC, None, b"w1")
    assert first.value == (
        b'{"at_ms":1700000000000,"actor":"ann@desk","verified":true,"via":"console","what":"replay","topic":"dlq",'
        b'"op_id":"op-1","detail":{"count":2},"writer":"w1","sequence":0}'
    )
    assert first.headers == [(MAC_HEADER, b"37b2e075ba0d369831739098f6f5de010c162061171f9d4373763356eafae577")]
    assert second.value is not None
    assert second.value.endswith(
        b'"sequence":1,"previous":"554ac857ef6b4a1df883869aa27263872470c74eeccb76fa119f9cfdf9f4dbb8"}'
    )


def test_an_entry_is_for_people_what_it_was() -> None:
    entry = read(Chain("w1").letter(NOTE).value)

    assert entry is not None
    people = audited(entry)
    assert (people.actor, people.verified, people.via, people.what) == ("ann@desk", True, "console", "replay")
    assert (people.topic, people.op_id, people.detail, people.writer, people.sequence) == (
        "dlq",
        "op-1",
        {"count": 2},
        "w1",
        0,
    )


@given(st.lists(st.sampled_from("abc")), st.integers(0, 20))
def test_whole_chains_are_whole_wherever_retention_has_got_to(writers: list[str], gone: int) -> None:
    kept = written(*writers)[gone:]

    verdict = verify(kept, KEY)

    assert verdict.findings == ()
    assert (verdict.entries, verdict.chains) == (len(kept), len(set(writers[gone:])))


def test_an_entry_that_is_missing_is_a_gap_of_its_chain_only() -> None:
    kept = written("a", "b", "a", "b", "a")
    del kept[2]

    verdict = verify(kept, KEY)

    assert [(one.fault, one.at, one.writer, one.message) for one in verdict.findings] == [
        (Fault.GAP, "0:4", "a", "entries 1 to 1 are missing before it")
    ]
    assert (verdict.chains, verdict.beginnings, verdict.faults) == (2, 2, 1)


def test_an_entry_that_was_changed_has_a_bad_mac_and_is_not_what_the_next_one_follows() -> None:
    kept = written("a", "a", "a")
    assert kept[1].value is not None
    kept[1] = replace(kept[1], value=kept[1].value.replace(b"ann", b"bob"))

    assert faults(kept) == [(Fault.BAD_MAC, "0:1"), (Fault.WRONG_HASH, "0:2")]
    assert faults(kept, key=None) == [(Fault.WRONG_HASH, "0:2")]


def test_who_writes_a_chain_anew_needs_the_key() -> None:
    kept = written("a", "a", key=None) + written("b", key=b"another")

    assert faults(kept) == [(Fault.NO_MAC, "0:0"), (Fault.NO_MAC, "0:1"), (Fault.BAD_MAC, "0:0")]
    assert faults(kept, key=None) == []


def test_two_entries_of_one_number_are_a_fork_and_one_that_came_twice_is_not() -> None:
    kept = written("a", "a", "a")
    other = Chain("a", KEY).after(Chain("a", KEY).letter(NOTE)).letter(NOTE)

    assert faults([*kept, Kept(0, 3, other.value, other.headers)]) == [(Fault.FORK, "0:3")]
    assert faults([*kept, replace(kept[1], offset=3), replace(kept[2], offset=4)]) == []


def test_a_chain_that_begins_twice_or_whose_first_entry_follows_one_is_noticed() -> None:
    kept = written("a", "a")
    again = Chain("a", KEY).letter(NOTE)
    forged = replace(Chain("b", KEY), previous="00").letter(NOTE)

    assert faults([*kept, Kept(0, 2, again.value, again.headers)]) == [(Fault.FORK, "0:2")]
    assert faults([Kept(0, 0, forged.value, forged.headers)]) == [(Fault.WRONG_HASH, "0:0")]


@pytest.mark.parametrize("value", [None, b"", b"{}", b"\xff", b'{"v":2}'])
def test_what_is_no_entry_is_named_and_the_rest_is_checked(value: bytes | None) -> None:
    kept = written("a", "a")

    assert faults([kept[0], Kept(0, 7, value, ()), kept[1]]) == [(Fault.UNREADABLE, "0:7")]


def test_a_spoiled_topic_takes_no_memory_without_end() -> None:
    verdict = verify((Kept(0, at, b"", ()) for at in range(5000)), None)

    assert (verdict.faults, len(verdict.findings)) == (5000, 1000)


def test_a_mac_is_of_all_that_the_entry_says() -> None:
    value = Chain("a").letter(NOTE).value
    assert value is not None
    entry = msgspec.json.decode(value)

    for name in entry:
        assert mac(msgspec.json.encode({**entry, name: "?"}), KEY) != mac(value, KEY)


@pytest.mark.parametrize(
    ("letters", "text"),
    [
        ([], ""),
        ([(3, 10)], "3:10"),
        ([(3, 12), (3, 10), (3, 11), (3, 25), (4, 7)], "3:10-12,25 4:7"),
        ([(0, 0), (0, 1), (1, 2)], "0:0-1 1:2"),
    ],
)
def test_letters_are_told_as_ranges(letters: list[tuple[int, int]], text: str) -> None:
    assert ranges(LetterId(*one) for one in letters) == text
