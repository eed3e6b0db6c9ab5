"""Claims, locks and leaders on a Redis that is real, and that dies, hangs, forgets or is not heard."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest
from fleet.cached import eventually
from fleet.redis_keys import lose_keys, time_out
from missing import obtained
from redis.crc import key_slot
from servers.proxy import FaultProxy
from servers.redis import obtain_redis

from streamworker.clock import SystemClock
from streamworker.errors import ClaimsUnavailable, LockUnavailable
from streamworker.idempotency import Fence, Leader, RedisLock, Transitions
from streamworker.idempotency.claims import Busy, Completion, Done, Granted
from streamworker.idempotency.redis import RedisClaims
from streamworker.idempotency.watchdog import LeaseExtender
from streamworker.redis_client import redis_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from redis import Redis as Client
    from servers.postgres import Postgres
    from servers.program import Program
    from servers.redis import Redis

    from streamworker.idempotency import Hold
    from streamworker.idempotency.claims import Claim

TIMEOUT_S = 0.2
# A machine under load schedules a thread late; it never waits for an answer for as long as this.
SLACK_S = 2.0
PATIENCE_S = 20.0


@contextmanager
def client_of(url: str, timeout_s: float = 5.0) -> Iterator[Client]:
    client = redis_client(url, timeout_s=timeout_s, connections=32, option="test")
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def client(redis: Redis) -> Iterator[Client]:
    with client_of(redis.url) as found:
        yield found


@pytest.fixture
def name() -> str:
    """A group, or a lock, that no other test has."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def own() -> Iterator[Redis]:
    """A Redis that may be killed and stopped."""
    server = obtained(lambda: obtain_redis(None))
    yield server
    server.close()


def program(server: Redis) -> Program:
    assert server.program is not None
    return server.program


def port_of(server: Redis) -> int:
    port = urlsplit(server.url).port
    assert port is not None
    return port


def held(lock: RedisLock, timeout_s: float = PATIENCE_S, above: int = 0) -> Hold:
    hold = lock.acquire(timeout_s, above=above)
    assert hold is not None
    return hold


def extenders() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("streamworker-extender-")]


class FencedTable:
    """A row that only the newest holder may change, as docs/idempotency.md has it."""

    def __init__(self, url: str, name: str) -> None:
        self._name = name
        self._db = psycopg.connect(url, autocommit=True)
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS sw_fence"
            " (name text PRIMARY KEY, n bigint NOT NULL DEFAULT 0, token text NOT NULL DEFAULT '')"
        )
        self._db.execute("INSERT INTO sw_fence (name) VALUES (%s)", (name,))

    def lets_through(self, fence: Fence) -> bool:
        values = {"name": self._name, "n": fence.number, "t": fence.token}
        done = self._db.execute(
            "UPDATE sw_fence SET n = %(n)s, token = %(t)s"
            " WHERE name = %(name)s AND (n < %(n)s OR (n = %(n)s AND token = %(t)s))",
            values,
        )
        return done.rowcount == 1

    def seen(self) -> int:
        row = self._db.execute("SELECT n FROM sw_fence WHERE name = %s", (self._name,)).fetchone()
        assert row is not None
        return int(row[0])

    def close(self) -> None:
        self._db.close()


@pytest.fixture
def table(postgres: Postgres, name: str) -> Iterator[FencedTable]:
    found = FencedTable(postgres.url, name)
    yield found
    found.close()


def test_a_record_whose_worker_died_before_its_commit_is_not_handled_again_if_it_was_noted(
    client: Client, name: str
) -> None:
    died, next_owner = (RedisClaims(client, group=name) for _ in range(2))
    claim = died.make("orders:0:7")
    died.claim([claim])
    died.complete([(claim, b"receipt 1")])

    [answer] = next_owner.claim([next_owner.make("orders:0:7")])

    assert answer == Done(b"receipt 1")


def test_a_record_whose_worker_died_before_the_note_is_handled_once_more_when_the_lease_is_over(
    client: Client, name: str
) -> None:
    died, *others = (RedisClaims(client, group=name, lease_s=30.0) for _ in range(3))
    died.claim([died.make("orders:0:7")])

    [early] = others[0].claim([others[0].make("orders:0:7")])
    time_out(client, f"*{name}*", within_s=30.0)
    answers = [one.claim([one.make("orders:0:7")])[0] for one in others]

    assert isinstance(early, Busy)
    assert [type(one) for one in answers] == [Granted, Busy]


def test_the_server_counts_the_time_of_what_is_kept_and_the_last_number_has_no_end(client: Client, name: str) -> None:
    claims = RedisClaims(client, group=name, lease_s=30.0, ttl_s=3600.0)
    done, in_work = claims.make("done"), claims.make("in work")
    claims.claim([done, in_work])
    claims.complete([(done, b"")])
    lock = RedisLock(client, name, lease_s=20.0)
    hold = held(lock)

    left_s = {key: client.pttl(key) / 1000 for key in client.scan_iter(f"*{name}*", count=1000)}

    assert left_s.pop(f"sw:idem:{{{name}}}:done".encode()) == pytest.approx(3600.0, abs=SLACK_S)
    assert left_s.pop(f"sw:idem:{{{name}}}:in work".encode()) == pytest.approx(30.0, abs=SLACK_S)
    assert left_s.pop(f"sw:lock:{{{name}}}".encode()) == pytest.approx(20.0, abs=SLACK_S)
    assert left_s == {f"sw:lock:{{{name}}}:fence".encode(): -0.001}
    hold.release()
    lock.close()


def test_all_claims_of_a_group_and_both_keys_of_a_lock_are_in_one_slot_of_a_cluster(client: Client, name: str) -> None:
    groups = (f"{name}-a", f"}}{name}-b", f"{{}}{name}-c", f"{name}-%7D")
    for group in groups:
        claims = RedisClaims(client, group=group)
        claims.claim([claims.make(one) for one in ("1", "2}", "{3}")])
        lock = RedisLock(client, group)
        held(lock).release()
        hold = held(lock)

        keys = [key for key in client.scan_iter("*", count=1000) if name.encode() in key]
        kept = [key for key in keys if key.startswith(b"sw:idem:")]
        locks = [key for key in keys if key.startswith(b"sw:lock:")]

        assert (len(kept), len({key_slot(key) for key in kept})) == (3, 1)
        assert (len(locks), len({key_slot(key) for key in locks})) == (2, 1)
        hold.release()
        lock.close()
        lose_keys(client, f"*{name}*")


def test_what_no_script_has_written_is_no_claim_and_a_claim_without_an_end_gets_one(client: Client, name: str) -> None:
    key = f"sw:idem:{{{name}}}:"
    client.rpush(f"{key}list", "x")
    client.set(f"{key}text", "garbage")
    client.set(f"{key}endless", "Psomebody")
    claims = RedisClaims(client, group=name, lease_s=30.0)

    answers = claims.claim([claims.make(one) for one in ("list", "text", "endless")])

    assert answers[:2] == [Granted(), Granted()]
    assert isinstance(answers[2], Busy)
    assert 0 < client.pttl(f"{key}endless") <= 30_000


def test_of_many_threads_that_claim_the_same_each_id_is_granted_to_one(client: Client, name: str) -> None:
    ids = [str(number) for number in range(300)]
    claims = [RedisClaims(client, group=name) for _ in range(8)]
    start = threading.Barrier(len(claims))
    granted: list[str] = []

    def claim(one: RedisClaims) -> None:
        start.wait(PATIENCE_S)
        for some in (ids[at : at + 10] for at in range(0, len(ids), 10)):
            answers = one.claim([one.make(each) for each in some])
            granted.extend(each for each, answer in zip(some, answers, strict=True) if isinstance(answer, Granted))

    run_all([lambda one=one: claim(one) for one in claims])

    assert sorted(granted) == sorted(ids)


def test_a_claim_outlasts_its_lease_while_it_is_in_hand_and_its_thread_ends_afterwards(
    client: Client, name: str
) -> None:
    claims = RedisClaims(client, group=name, lease_s=0.6)
    rounds = threading.Semaphore(0)

    def extend(some: Sequence[Claim]) -> Sequence[bool]:
        answers = claims.extend(some)
        rounds.release()
        return answers

    extender = LeaseExtender(extend, name="test", lease_s=0.6, clock=SystemClock())
    claim = claims.make("slow")
    sent_s = time.monotonic()
    claims.claim([claim])
    [in_hand] = extender.hold([claim], since_s=sent_s)
    for _ in range(5):
        assert rounds.acquire(timeout=PATIENCE_S)
    [thread] = extenders()

    [refused] = claims.claim([claims.make("slow")])
    extender.drop([in_hand])
    [found] = claims.complete([(claim, b"")])
    thread.join(PATIENCE_S)

    assert not in_hand.lost
    assert time.monotonic() - sent_s > 0.6
    assert isinstance(refused, Busy)
    assert found is Completion.COMPLETED
    assert not thread.is_alive()


def test_claims_come_back_with_their_server_and_leave_no_thread_behind(own: Redis, name: str) -> None:
    """Both answers to an outage: handle without, and wait with the same claim."""
    threads = set(threading.enumerate())
    with client_of(own.url, TIMEOUT_S) as client:
        claims = RedisClaims(client, group=name)
        before, waits = claims.make("before"), claims.make("waits")
        claims.claim([before])
        program(own).end()
        failures = []
        for _ in range(20):
            for call in (
                lambda: claims.claim([waits]),
                lambda: claims.extend([before]),
                lambda: claims.complete([(before, b"")]),
                lambda: claims.release([before]),
            ):
                with pytest.raises(ClaimsUnavailable, match="Redis: ") as failure:
                    call()
                failures.append(failure.value)
        program(own).restart()

        answers = claims.claim([waits, before])
        found = claims.complete([(waits, b""), (before, b"")])

    assert all(isinstance(one, ConnectionError) for one in failures)
    assert answers == [Granted(), Granted()]
    assert found == [Completion.COMPLETED] * 2
    assert set(threading.enumerate()) <= threads


def test_a_server_that_hangs_costs_a_call_its_timeout_and_a_lock_the_time_that_was_given(own: Redis, name: str) -> None:
    with client_of(own.url, TIMEOUT_S) as client:
        claims = RedisClaims(client, group=name)
        lock = RedisLock(client, name, lease_s=30.0)
        claims.claim([claims.make("warm")])
        held(lock).release()
        program(own).halt()

        took_s = []
        for call, failure in (
            (lambda: claims.claim([claims.make("x")]), ClaimsUnavailable),
            (lambda: lock.acquire(0), LockUnavailable),
            (lambda: lock.acquire(1.0), LockUnavailable),
        ):
            began_s = time.monotonic()
            with pytest.raises(failure):
                call()
            took_s.append(time.monotonic() - began_s)
        program(own).resume()
        hold = held(lock)

        assert took_s[0] < 2 * TIMEOUT_S + SLACK_S
        assert took_s[1] < 2 * TIMEOUT_S + SLACK_S
        assert 1.0 <= took_s[2] < 1.0 + 2 * TIMEOUT_S + SLACK_S
        hold.release()
        lock.close()


def test_a_lock_whose_answer_was_lost_is_held_once(own: Redis, name: str) -> None:
    with (
        FaultProxy("127.0.0.1", port_of(own)) as proxy,
        client_of(f"redis://127.0.0.1:{proxy.port}/0", TIMEOUT_S) as client,
    ):
        waits: list[object] = []

        def heal_while_waiting() -> float:
            waits.append(proxy.heal())
            return 1.0

        lock = RedisLock(client, name, lease_s=30.0, draw=heal_while_waiting)
        first = held(lock)
        first.release()
        proxy.drop_down()

        hold = held(lock)

        with client_of(own.url) as direct:
            holder = direct.get(f"sw:lock:{{{name}}}")
        assert waits
        assert hold.fence.number == first.fence.number + 2  # the request whose answer was lost had taken it
        assert holder == hold.fence.token.encode()
        assert hold.release()
        lock.close()


HOLDER = """
import sys
from streamworker.idempotency import RedisLock
from streamworker.idempotency.redis import RedisClaims
from streamworker.redis_client import redis_client

url, name = sys.argv[1:]
client = redis_client(url, timeout_s=5.0, connections=4, option="test")
claims = RedisClaims(client, group=name, lease_s=1.0)
claim = claims.make("job")
claims.claim([claim])
hold = RedisLock(client, name, lease_s=1.0).acquire(10.0)
print(hold.fence.number, hold.fence.token, flush=True)
sys.stdin.readline()  # it is stopped here, and knows nothing of it
print(hold.lost, claims.complete([(claim, b"")])[0].name, hold.release(), flush=True)
"""


def test_a_holder_that_was_stopped_for_longer_than_its_lease_can_do_no_harm(
    redis: Redis, client: Client, table: FencedTable, name: str
) -> None:
    command = [sys.executable, "-c", HOLDER, redis.url, name]
    stopped = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert stopped.stdin is not None
    assert stopped.stdout is not None
    try:
        number, token = stopped.stdout.readline().split()
        fence = Fence(name, int(number), token)
        assert table.lets_through(fence)
        stopped.send_signal(signal.SIGSTOP)

        lock = RedisLock(client, name, lease_s=30.0)
        hold = held(lock)  # by then the server has ended both leases
        claims = RedisClaims(client, group=name)
        claim = claims.make("job")
        [answer] = claims.claim([claim])
        written = table.lets_through(hold.fence)
        stopped.send_signal(signal.SIGCONT)
        stopped.stdin.write("\n")
        stopped.stdin.flush()
        says = stopped.stdout.readline().split()

        assert answer == Granted()
        assert hold.fence.number > fence.number
        assert written
        assert says == ["True", "LOST", "False"]
        assert not table.lets_through(fence)
        assert claims.complete([(claim, b"")]) == [Completion.COMPLETED]
        assert hold.release()
        lock.close()
    finally:
        stopped.kill()
        stopped.communicate()


def link_to_primary(replica: Client) -> str:
    return str(replica.info("replication")["master_link_status"])


def test_a_replica_that_takes_over_too_early_gives_a_number_twice_and_one_of_both_holders_is_kept_out(
    own: Redis, table: FencedTable, name: str
) -> None:
    replica = obtained(lambda: obtain_redis(None))
    with ExitStack() as ends:
        ends.callback(replica.close)
        primary_client, replica_client = (ends.enter_context(client_of(one.url)) for one in (own, replica))
        network = ends.enter_context(FaultProxy("127.0.0.1", port_of(own)))
        primary_client.config_set("repl-diskless-sync-delay", 0)
        replica_client.replicaof("127.0.0.1", network.port)
        # One that is still loading what its primary has would lose it when the network is cut, and counts for WAIT.
        eventually(lambda: link_to_primary(replica_client) == "up", "the replica does not follow its primary")
        before, after = RedisLock(primary_client, name), RedisLock(replica_client, name)
        ends.callback(before.close)
        ends.callback(after.close)
        held(before).release()
        assert primary_client.wait(1, int(PATIENCE_S * 1000)) == 1
        network.refuse()
        first = held(before)
        assert table.lets_through(first.fence)
        program(own).end()
        replica_client.replicaof("NO", "ONE")

        second = held(after)
        refused = not table.lets_through(second.fence)
        second.release()
        third = held(after, above=table.seen())

        assert second.fence.number == first.fence.number
        assert second.fence.token != first.fence.token
        assert refused
        assert table.lets_through(third.fence)
        assert not table.lets_through(first.fence)
        third.release()


def test_many_that_want_a_lock_have_it_one_after_the_other_with_growing_numbers(client: Client, name: str) -> None:
    locks = [RedisLock(client, name) for _ in range(4)]
    inside: list[int] = []
    numbers: list[int] = []

    def work(lock: RedisLock) -> None:
        for _ in range(25):
            with lock.held(timeout_s=PATIENCE_S) as hold:
                inside.append(1)
                assert len(inside) == 1
                numbers.append(hold.fence.number)
                inside.pop()

    run_all([lambda one=one: work(one) for one in locks])

    assert numbers == sorted(set(numbers))
    assert len(numbers) == 100
    for one in locks:
        one.close()


class Worker:
    """One that takes part in an election with a job that does nothing."""

    def __init__(self, url: str, name: str, lease_s: float) -> None:
        self.elected, self.deposed = threading.Event(), threading.Event()
        self.deposed_s = 0.0
        self._client = redis_client(url, timeout_s=TIMEOUT_S, connections=4, option="test")
        self._lock = RedisLock(self._client, name, lease_s=lease_s)
        self.leader = Leader(self._lock, lambda _: self.elected.set(), self._depose)
        self.leader.start()

    def _depose(self) -> None:
        self.deposed_s = time.monotonic()
        self.elected.clear()
        self.deposed.set()

    def close(self) -> None:
        assert self.leader.stop(PATIENCE_S)
        self._lock.close()
        self._client.close()


def test_a_leader_whose_server_hangs_steps_down_before_its_lease_is_over_and_one_is_elected_afterwards(
    own: Redis, name: str
) -> None:
    lease_s = 3.0
    first = Worker(own.url, name, lease_s)
    assert first.elected.wait(PATIENCE_S)
    second = Worker(own.url, name, lease_s)

    halted_s = time.monotonic()
    program(own).halt()
    stepped_down = first.deposed.wait(PATIENCE_S)
    took_s = first.deposed_s - halted_s
    program(own).resume()
    deadline_s = time.monotonic() + PATIENCE_S
    while not (first.elected.is_set() or second.elected.wait(0.05)):
        assert time.monotonic() < deadline_s
    leading = [one.leader.leading for one in (first, second)]
    first.close()
    second.close()

    assert stepped_down
    assert took_s < lease_s
    assert leading.count(True) == 1
    assert [one for one in threading.enumerate() if one.name == f"streamworker-leader-{name}"] == []


def test_of_two_workers_that_move_one_order_on_postgresql_one_moves_it(postgres: Postgres, name: str) -> None:
    table = Transitions({"new": ("paid", "cancelled"), "paid": (), "cancelled": ()}, start=("new",))
    orders, history = (f"{kind}_{name.removeprefix('test-')}" for kind in ("orders", "history"))
    rounds = 50
    with psycopg.connect(postgres.url, autocommit=True) as db:
        db.execute(f"CREATE TABLE {orders} (id text PRIMARY KEY, status text NOT NULL)")
        for statement in table.statements(history):
            db.execute(statement)
        for number in range(rounds):
            db.execute(f"INSERT INTO {orders} VALUES (%s, 'new')", (str(number),))
    start = threading.Barrier(2)
    changed: dict[str, list[str]] = {str(number): [] for number in range(rounds)}
    noted: dict[str, list[str]] = {str(number): [] for number in range(rounds)}

    def move(new: str) -> None:
        with psycopg.connect(postgres.url) as db:
            for entity, changes in changed.items():
                start.wait(PATIENCE_S)
                update = f"UPDATE {orders} SET status = %s WHERE id = %s AND {table.guard(new)}"
                if db.execute(update, (new, entity)).rowcount:
                    changes.append(new)
                db.commit()
                start.wait(PATIENCE_S)
                try:
                    insert = f"INSERT INTO {history} (entity, sequence, state) VALUES (%s, 2, %s)"
                    db.execute(insert, (entity, new))
                    db.commit()
                    noted[entity].append(new)
                except psycopg.errors.UniqueViolation:
                    db.rollback()

    run_all([lambda: move("paid"), lambda: move("cancelled")])

    assert {len(one) for one in changed.values()} == {1}
    assert {len(one) for one in noted.values()} == {1}
    with psycopg.connect(postgres.url) as db:
        stored = dict(db.execute(f"SELECT id, status FROM {orders}").fetchall())
    assert stored == {entity: one[0] for entity, one in changed.items()}


def run_all(calls: Sequence[Callable[[], None]]) -> None:
    """Make them at once, each on a thread, and raise what one of them raised."""
    failures: list[BaseException] = []

    def run(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for one in threads:
        one.start()
    for one in threads:
        one.join(2 * PATIENCE_S)
    if failures:
        raise failures[0]
    assert not any(one.is_alive() for one in threads)
