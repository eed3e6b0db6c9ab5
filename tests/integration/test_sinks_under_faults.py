"""A real PostgreSQL that dies, and writers that do: each record has its effect once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest
from fleet.sink_nursery import LENGTH, key_of
from servers.postgres import HARD
from servers.proxy import FaultProxy
from servers.stepped import SteppedSink
from servers.stores import Process, Store, order, place, postgres_store, row
from sizes import SOAK

from streamworker import PostgresSink
from streamworker.errors import OwnershipLost
from streamworker.interfaces import Written
from streamworker.sinks.marks import lane_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers.postgres import Postgres

TESTS = Path(__file__).parents[1]
KILLS = 200 * SOAK
ROWS = [row(n, {"id": n, "qty": n}) for n in range(20)]
ONCE = [(n,) for n in range(20)]


@pytest.fixture
def store(postgres: Postgres) -> Iterator[Store]:
    with postgres_store(postgres, "sink_faults") as one:
        one.ask("CREATE TABLE effects (id bigint, qty integer, seq bigserial)")
        yield one


def stepped(store: Store, step: Callable[[str], None] = lambda _: None, **options: object) -> SteppedSink:
    """A sink that appends, so that a second effect is a second row."""
    given = {"table": "effects", "mode": "insert", **options}
    quiet = PostgresSink("store", **given)  # type: ignore[arg-type]  # as tests give them
    quiet.make(store.url, [one.mend for one in quiet.lacks(store.url) if one.mend is not None])
    return SteppedSink("store", step=step, **given)  # type: ignore[arg-type]


# Of the first write of an owner: taking over, and the write itself.
STEPS = (
    *("begin", "take over", "inherit", "look", "commit", "committed"),
    *("begin to write", "mark", "write", "commit the write", "committed the write"),
)


class At:
    """Does something before a step of a first write."""

    def __init__(self, step: str, harm: Callable[[], object]) -> None:
        self._left = STEPS.index(step) + 1
        self._harm = harm

    @property
    def done(self) -> bool:
        return self._left <= 0

    def __call__(self, _name: str) -> None:
        self._left -= 1
        if self._left == 0:
            self._harm()


def effects(store: Store) -> list[tuple[object, ...]]:
    return store.ask("SELECT id FROM effects ORDER BY id")


def end_all_backends(store: Store) -> None:
    store.ask(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = 'streamworker' AND pid <> pg_backend_pid()"
    )


@pytest.mark.parametrize("step", STEPS)
def test_a_connection_that_is_ended_at_any_step_costs_one_write_and_no_effect(store: Store, step: str) -> None:
    harm = At(step, lambda: end_all_backends(store))
    with closing(stepped(store).writer(Process(store.url))) as before:
        before.write(place("before"), [row(0, {"id": 0, "qty": 0})])
    process = Process(store.url)
    with closing(stepped(store, harm).writer(process)) as writer:
        failed = False
        try:
            writer.write(place(), ROWS)
        except psycopg.OperationalError:
            failed = True
        first = effects(store)

        written = None
        while written is None:  # a connection that was idle when it was ended costs another one
            try:
                written = writer.write(place(), ROWS)
            except psycopg.OperationalError:
                assert harm.done

    assert harm.done
    assert failed == (step not in ("begin", "committed the write"))
    assert len(first) in (1, 20)
    assert len(written.repeated) == len(first)
    assert effects(store) == ONCE


@pytest.mark.parametrize("step", ["look", "write", "commit the write", "committed the write"])
def test_a_server_that_dies_at_any_step_costs_one_write_and_no_effect(
    store: Store, postgres: Postgres, step: str
) -> None:
    program = postgres.program
    if program is None:
        pytest.skip("the server is somebody else's")
    harm = At(step, lambda: (program.end(HARD), program.restart()))
    with closing(stepped(store, harm).writer(Process(store.url))) as writer:
        if step == "committed the write":
            writer.write(place(), ROWS)
        else:
            with pytest.raises(psycopg.OperationalError):
                writer.write(place(), ROWS)

        written = writer.write(place(), ROWS)

    assert written == Written(repeated=tuple(range(20)) if step == "committed the write" else ())
    assert effects(store) == ONCE


def test_an_answer_to_a_commit_that_is_lost_is_found_by_the_mark(store: Store) -> None:
    server = urlsplit(store.url)
    with FaultProxy(str(server.hostname), int(server.port or 0)) as proxy:
        through = store.url.replace(f":{server.port}", f":{proxy.port}")
        harm = At("commit the write", proxy.truncate)
        sink = stepped(store, harm)
        with closing(sink.writer(Process(through))) as writer:
            with pytest.raises(psycopg.OperationalError):
                writer.write(place(), ROWS)
            proxy.heal()
            between = effects(store)

            written = writer.write(place(), ROWS)

    assert between == ONCE
    assert written == Written(repeated=tuple(range(20)))
    assert effects(store) == ONCE


def until_it_waits_for_a_lock(store: Store, name: str, done: Callable[[], bool] = lambda: False) -> None:
    """Ask again and again, for some seconds: nothing tells it."""
    asked = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = "
    for _ in range(3000):
        if done() or store.ask(f"{asked}'{name}'"):
            return
    pytest.fail(f"{name} neither ends nor waits")


def test_a_deadlock_comes_through_and_the_next_write_succeeds(store: Store) -> None:
    store.sink()
    patient = f"{store.url}%20-cdeadlock_timeout%3D1min&application_name=other"
    with psycopg.connect(patient) as other:
        other.execute("INSERT INTO orders VALUES (2, 2, 'other')")

        def wait_for_the_mark() -> None:
            other.pgconn.send_query(b"UPDATE sw_applied SET owner = owner")
            until_it_waits_for_a_lock(store, "other")

        sink = stepped(store, At("write", wait_for_the_mark), table="orders", mode="upsert", key=("id",))
        hasty = f"{store.url}%20-cdeadlock_timeout%3D10ms"
        with closing(sink.writer(Process(hasty))) as writer:
            with pytest.raises(psycopg.errors.DeadlockDetected):
                writer.write(place(), [row(0, order(1, 1)), row(1, order(2, 1))])
            other.pgconn.get_result()
            other.pgconn.get_result()
            other.rollback()

            written = writer.write(place(), [row(0, order(1, 1)), row(1, order(2, 1))])

    assert written == Written()
    assert store.ask("SELECT id, qty FROM orders ORDER BY id") == [(1, 1), (2, 1)]


def test_a_serialization_failure_comes_through_and_is_no_rows_fault(store: Store) -> None:
    store.ask("CREATE TABLE conflicts (left_over integer)")
    store.ask(
        "CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF EXISTS (SELECT FROM conflicts) THEN RAISE 'conflict' USING ERRCODE = '40001'; END IF;"
        " RETURN NEW; END $$"
    )
    store.ask("CREATE TRIGGER conflict BEFORE INSERT ON effects FOR EACH ROW EXECUTE FUNCTION conflict()")
    store.ask("INSERT INTO conflicts VALUES (1)")
    with closing(stepped(store).writer(Process(store.url))) as writer:
        with pytest.raises(psycopg.errors.SerializationFailure):
            writer.write(place(), ROWS)
        store.ask("DELETE FROM conflicts")

        written = writer.write(place(), ROWS)

    assert written == Written()
    assert effects(store) == ONCE


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("written_before", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_an_owner_that_is_halted_at_any_step_and_wakes_after_the_next_has_come_writes_nothing_twice(
    store: Store, step: str, lanes: int, *, written_before: bool
) -> None:
    """The next owner writes the same records meanwhile, under as many lanes or another number of them.

    What the server's default isolation is makes no difference: whoever waited has to see what has changed.
    """
    results: list[Future[Written]] = []
    second = stepped(store).writer(
        Process(f"{store.url}%20-cdefault_transaction_isolation%3Dserializable&application_name=second")
    )

    def next_owner_comes() -> None:
        results.append(
            pool.submit(second.write, place("second", lanes=lanes, lane=lane_of(b"k0", 0, lanes)), same_lane)
        )
        until_it_waits_for_a_lock(store, "second", results[0].done)

    process = Process(store.url)
    same_lane = [row(n, {"id": n, "qty": n}, key=b"k0") for n in range(20)]
    zombie = stepped(store, At(step, next_owner_comes)).writer(process)
    with ThreadPoolExecutor(1) as pool, closing(second), closing(zombie):
        if written_before:
            with closing(stepped(store).writer(process)) as alive:
                alive.write(place("zombie"), same_lane[:1])
        with suppress(OwnershipLost):
            zombie.write(place("zombie"), same_lane)
        if results:
            results[0].result(30)

    assert effects(store) == ONCE


def test_hundreds_of_writers_are_killed_at_any_step_and_each_record_has_its_effect_once(
    store: Store, figures: Callable[..., None]
) -> None:
    chance = Random(7)
    stepped(store)
    killed, committed = 0, 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, str(TESTS / "fleet" / "sink_nursery.py"), store.url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        for owner in range(KILLS + 1):
            last = owner == KILLS
            missing = set(range(LENGTH)) - {number for (number,) in store.ask("SELECT id FROM effects")}
            applied = min(missing, default=LENGTH)
            if applied == LENGTH and not last:  # the stream begins anew, at a database that knows nothing
                check(store)
                store.ask("TRUNCATE effects; TRUNCATE sw_applied")
                applied = committed = 0
            committed = max(committed, applied - chance.randint(0, 40))
            living = {"owner": owner, "lanes": chance.choice([1, 3, 4]), "start": committed, "seed": owner}
            nursery.stdin.write(json.dumps({**living, "dies": 0 if last else chance.randint(1, 40)}) + "\n")
            nursery.stdin.flush()
            code = int(nursery.stdout.readline())
            assert code in (0, -9)
            killed += code == -9
        nursery.stdin.close()

    check(store)
    assert killed > KILLS // 2
    figures("M12", "writers killed at a step", killed=killed, second_effects=0)


def check(store: Store) -> None:
    found = [number for (number,) in store.ask("SELECT id FROM effects ORDER BY seq")]
    assert sorted(found) == list(range(LENGTH))
    for key in {key_of(int(str(one))) for one in found} - {None}:
        of_key = [one for one in found if key_of(int(str(one))) == key]
        assert of_key == sorted(of_key)
