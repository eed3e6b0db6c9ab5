"""Batches: cut, failed as a whole, failed at one record, taken apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scenarios.oracle import violations
from scenarios.worlds import (
    IN,
    ObedientBatches,
    calls,
    commits,
    handled,
    headers_of,
    letters_from,
    make_world,
    obey,
    produce,
    steady,
)

from streamworker import Batch, BatchFailed, DecodeError, Ordering, Retry

if TYPE_CHECKING:
    from streamworker import Records


class Naming(ObedientBatches):
    """Says which record failed."""

    batch = Batch(max_records=10)

    def handle(self, records: Records[bytes]) -> None:
        for index, record in enumerate(records):
            try:
                obey(record)
            except Exception as error:
                raise BatchFailed(index, error) from error


class Seen:
    """The batches that a handler class was given, as lists of offsets."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def of(self, kind: type[ObedientBatches]) -> type[ObedientBatches]:
        batches = self.batches

        class Watched(kind):  # type: ignore[misc,valid-type]  # a class made of the one given
            def handle(self, records: Records[bytes]) -> None:
                batches.append([record.offset for record in records])
                super().handle(records)

        return Watched


def test_a_named_failure_commits_what_came_before_it_and_goes_on_with_the_failed_one() -> None:
    """Edge case 50. The next call begins with the record at fault."""
    world = make_world()
    seen = Seen()
    produce(world, *[b"fine"] * 4, b"flaky:1", *[b"fine"] * 5)

    class Patient(Naming):
        retry = Retry(attempts=4, wait=lambda _state: 10.0)

    world.start(seen.of(Patient))
    world.run_for(5)
    committed = commits(world)
    world.run_to_end("in")

    assert committed == [4]
    assert seen.batches[0] == list(range(10))
    assert seen.batches[1][0] == 4
    assert handled(world).count(0) == 1


def test_one_unnamed_poison_is_isolated_and_only_it_is_dead_lettered() -> None:
    """Edge case 51. After the last attempt as a whole the batch goes in halves until the one at fault is alone."""
    world = make_world()
    seen = Seen()

    class Whole(ObedientBatches):
        batch = Batch(max_records=10)
        retry = Retry(attempts=2)

    produce(world, *[b"fine"] * 6, b"broken", *[b"fine"] * 13)
    world.start(seen.of(Whole))
    world.run_to_end("in")

    assert letters_from(world) == [b"broken"]
    assert headers_of(world, 0)["sw-origin-offset"] == "6"
    assert seen.batches[:2] == [list(range(10))] * 2
    assert seen.batches[2:8] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [5, 6], [5], [6], [7, 8, 9]]
    assert sorted(set(handled(world))) == [*range(6), *range(7, 20)]
    assert all(handled(world).count(offset) == 1 for offset in set(handled(world)))


def test_several_poisons_of_a_batch_are_all_found() -> None:
    """Edge case 51."""
    world = make_world()
    produce(world, *[b"fine", b"poison", b"fine", b"broken", b"fine"] * 4)

    world.start(ObedientBatches)
    world.run_to_end("in")

    assert sorted(str(letter) for letter in letters_from(world)) == sorted([str(b"poison"), str(b"broken")] * 4)
    assert not list(violations(world, "in", "dlq", batches=True))


def test_a_batch_that_recovers_is_handled_once_as_a_whole() -> None:
    """Edge case 51. A passing failure costs one more call and no dead letter."""
    world = make_world()
    seen = Seen()
    produce(world, *[b"fine"] * 4, b"flaky:1")

    world.start(seen.of(ObedientBatches))
    world.run_to_end("in")

    assert seen.batches == [[0, 1, 2, 3, 4]] * 2
    assert letters_from(world) == []


@pytest.mark.parametrize("index", [-1, 3, 1000])
def test_a_named_index_outside_of_the_batch_counts_as_unnamed(index: int) -> None:
    """Edge case 51. It must not complete records that were never handled."""
    world = make_world()

    class Confused(ObedientBatches):
        retry = Retry(attempts=1)

        def handle(self, records: Records[bytes]) -> None:
            raise BatchFailed(index, ValueError("somewhere"))

    produce(world, b"a", b"b", b"c")
    world.start(Confused)
    world.run_to_end("in")

    assert sorted(map(str, letters_from(world))) == sorted(map(str, [b"a", b"b", b"c"]))


def test_a_batch_goes_out_when_it_is_full() -> None:
    """Edge case 53."""
    world = make_world()
    seen = Seen()
    kind = type("Full", (ObedientBatches,), {"batch": Batch(max_records=10, max_wait_s=1000)})
    produce(world, *[b"fine"] * 30)

    world.start(seen.of(kind))
    world.run_to_end("in", timeout_s=5)

    assert [len(batch) for batch in seen.batches] == [10, 10, 10]


def test_a_batch_goes_out_when_it_is_large() -> None:
    """Edge case 53."""
    world = make_world()
    seen = Seen()
    kind = type("Large", (ObedientBatches,), {"batch": Batch(max_bytes=1000, max_wait_s=1000)})
    produce(world, *[b"x" * 400] * 7)

    world.start(seen.of(kind))
    world.run_for(5)

    assert seen.batches == [[0, 1], [2, 3], [4, 5]]


def test_a_batch_goes_out_when_its_oldest_record_has_waited_long_enough() -> None:
    """Edge case 53."""
    world = make_world()
    seen = Seen()
    kind = type("Waiting", (ObedientBatches,), {"batch": Batch(max_records=10, max_wait_s=3)})
    produce(world, b"fine", b"fine")

    world.start(seen.of(kind))
    world.run_for(2.5)
    early = list(seen.batches)
    world.run_for(1)

    assert early == []
    assert seen.batches == [[0, 1]]


def test_a_partial_batch_is_dropped_uncommitted_when_its_worker_stops() -> None:
    """Edge case 53. Never half of it."""
    world = make_world()
    kind = type("Waiting", (ObedientBatches,), {"batch": Batch(max_records=10, max_wait_s=100)})
    produce(world, *[b"fine"] * 14)
    member = world.start(kind)
    world.run_for(5)

    exit_code = world.stop(member)

    assert exit_code == 0
    assert world.broker.committed(IN) == 10
    assert calls(world) == list(range(10))


def test_a_large_record_is_a_batch_of_its_own() -> None:
    """Edge case 53. A record larger than the limit still goes."""
    world = make_world()
    kind = type("Small", (ObedientBatches,), {"batch": Batch(max_bytes=10)})
    produce(world, b"x" * 100, b"fine")

    world.start(kind)
    world.run_to_end("in", timeout_s=5)

    assert handled(world) == [0, 1]


class Picky:
    """A serde that cannot read everything."""

    def decode(self, data: bytes, topic: str) -> bytes:
        if data == b"garbage":
            raise DecodeError("not a number")
        return data

    def encode(self, value: bytes, topic: str) -> bytes:
        return value


@pytest.mark.parametrize("ordering", list(Ordering))
def test_an_undecodable_record_does_not_fail_its_neighbours(ordering: Ordering) -> None:
    """Edge case 54. The others of the batch are handled in one call."""
    world = make_world()
    seen = Seen()
    kind = type("Decoding", (ObedientBatches,), {"value": Picky(), "ordering": ordering, "lanes": 1})
    produce(world, b"fine", b"garbage", b"fine", b"garbage")

    world.start(seen.of(kind))
    world.run_to_end("in")

    assert seen.batches == [[0, 2]]
    assert letters_from(world) == [b"garbage", b"garbage"]
    assert headers_of(world, 0)["sw-reason"] == "undecodable_value"


def test_a_batch_with_undecodable_records_that_fails_keeps_its_indexes_straight() -> None:
    """Edge case 54. The index that the handler names counts what it was given."""
    world = make_world()
    kind = type("Decoding", (Naming,), {"value": Picky()})
    produce(world, b"garbage", b"fine", b"garbage", b"poison", b"fine")

    world.start(kind)
    world.run_to_end("in")

    assert sorted(map(str, letters_from(world))) == sorted(map(str, [b"garbage", b"garbage", b"poison"]))
    assert handled(world) == [1, 4]


def test_batches_of_one_partition_keep_their_order() -> None:
    """Edge case 38. With slow and failing batches in between."""
    world = make_world()
    seen = Seen()
    kind = type("Ten", (Naming,), {"batch": Batch(max_records=10, max_wait_s=0.0)})
    produce(world, *[b"fine", b"flaky:1", b"fine"] * 30)

    world.start(seen.of(kind), duration_s=steady(0.02))
    world.run_to_end("in")

    assert handled(world) == list(range(90))
