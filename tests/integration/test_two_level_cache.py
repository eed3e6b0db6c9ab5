"""The cache over a real Redis: nothing old stays, and one load for all."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from fleet.cached import AnyoneFills, Process, Rounds, Truth, eventually
from missing import obtained
from servers.redis import Several, start_cluster, start_redis, start_sentinels

from streamworker.cache.caches import BREAKER, Caches
from streamworker.clock import SystemClock
from streamworker.config import CacheConfig
from streamworker.resilience.breaker import CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers.redis import Redis

KEYS = [f"key{number}" for number in range(1200)]


@pytest.fixture
def own() -> Iterator[Redis]:
    """A Redis of this test's, which it may do anything to."""
    server = obtained(start_redis)
    yield server
    server.close()


@pytest.fixture
def cluster() -> Iterator[Several]:
    servers = obtained(start_cluster)
    yield servers
    servers.close()


@pytest.fixture
def sentinels() -> Iterator[Several]:
    servers = obtained(start_sentinels)
    yield servers
    servers.close()


@pytest.fixture
def process() -> Iterator[Callable[..., Process]]:
    """Make processes that end with the test."""
    made: list[Process] = []

    def make(url: str, truth: Truth, **options: object) -> Process:
        made.append(Process(url, truth, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


def truth_of(*keys: str) -> Truth:
    truth = Truth()
    for key in keys:
        truth.write(key)
    return truth


def test_nothing_old_stays_whatever_the_threads_of_three_processes_do(own: Redis) -> None:
    """Values are evicted meanwhile, and the connections that hear of changes are killed."""
    rounds = Rounds(own.url, seed=1)

    stale = [number for number in range(400) if rounds.stale(f"key{number}", kill=number % 5 == 0)]

    rounds.close()
    assert stale == []


def test_the_same_rounds_find_a_cache_that_anyone_may_fill(own: Redis) -> None:
    rounds = Rounds(own.url, seed=1, store=AnyoneFills)

    first = next((number for number in range(400) if rounds.stale(f"key{number}", kill=False)), None)

    rounds.close()
    assert first is not None


def test_two_hundred_threads_that_miss_one_key_load_it_once(own: Redis, process: Callable[..., Process]) -> None:
    """F-73."""
    truth = truth_of("key")
    truth.delay_s = lambda: 0.05
    one = process(own.url, truth)
    begin = threading.Barrier(200)
    found = []

    def read() -> None:
        begin.wait()
        found.append(one.reads("key"))

    threads = [threading.Thread(target=read) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [truth.rows["key"]] * 200
    assert truth.loads == 1


def test_processes_that_miss_one_key_at_once_load_it_once(own: Redis, process: Callable[..., Process]) -> None:
    truth = truth_of("key")
    truth.delay_s = lambda: 0.03
    several = [process(own.url, truth, timeout_s=1.0) for _ in range(4)]
    threads = [threading.Thread(target=one.reads, args=("key",)) for one in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert truth.loads == 1


def test_a_change_is_seen_by_a_process_that_only_listens(own: Redis, process: Callable[..., Process]) -> None:
    truth = truth_of("key")
    writer, listener = (process(own.url, truth) for _ in range(2))
    with own.client() as client:
        for one in (writer, listener):
            one.is_up_to_date("start", client)
            one.reads("key")

        writer.write("key")
        listener.is_up_to_date("then", client)

    assert listener.cache.stats().invalidations == {"received": 1}
    assert listener.reads("key") == truth.rows["key"]


def test_a_lost_connection_makes_a_process_forget_what_it_has(own: Redis, process: Callable[..., Process]) -> None:
    truth = truth_of("key")
    one = process(own.url, truth)
    with own.client() as client:
        one.is_up_to_date("start", client)
        one.reads("key")

        client.client_kill_filter(_type="pubsub")
        eventually(lambda: one.cache.stats().flushes.get("linked", 0) >= 2, "it did not come back")

    assert one.cache.stats().flushes["unlinked"] == 1
    assert one.cache.stats().local.entries == 0


def test_a_server_that_was_started_anew_gets_a_new_epoch(own: Redis, process: Callable[..., Process]) -> None:
    """It may have lost its last writes, so what it has kept may be old."""
    truth = truth_of("key")
    one = process(own.url, truth)
    assert own.program is not None
    with own.client() as client:
        one.is_up_to_date("start", client)
        one.reads("key")
        truth.write("key")  # and the write that the server was told of is lost

        own.program.end()
        own.program.restart()
        one.is_up_to_date("again", client)

    eventually(lambda: "server" in one.cache.stats().flushes, "the new server was not noticed")
    assert one.reads("key") == truth.rows["key"]


RIGHTS = "~sw:* &sw:* +get +mget +set +del +getrange +evalsha +script|load +publish +subscribe +ping +time"


@pytest.mark.parametrize("more", ["", " +info"])
def test_the_rights_that_the_docs_name_are_enough(own: Redis, process: Callable[..., Process], more: str) -> None:
    truth = truth_of(*KEYS[:3])
    with own.client() as client:
        client.execute_command("ACL", "SETUSER", "worker", "on", ">secret", "resetkeys", *(RIGHTS + more).split())
        url = own.url.replace("redis://", "redis://worker:secret@")
        one, other = (process(url, truth, timeout_s=5.0) for _ in range(2))
        for each in (one, other):
            each.is_up_to_date("start", client)
            each.cache.get_many(KEYS[:4])

        one.write(KEYS[0])
        one.cache.written({KEYS[1]: (truth.write(KEYS[1]), None)})
        other.is_up_to_date("then", client)
        seen = other.cache.get_many(KEYS[:4])
        one.cache.flush()
        other.is_up_to_date("at last", client)

    assert seen == truth.rows
    assert other.cache.get_many(KEYS[:4]) == truth.rows
    assert [each.cache.stats().failed for each in (one, other)] == [{}, {}]
    assert other.cache.stats().flushes["epoch"] >= 1


def test_who_may_not_listen_still_shares_values_and_keeps_them_for_a_moment(
    own: Redis, process: Callable[..., Process]
) -> None:
    truth = truth_of("key")
    with own.client() as client:
        client.execute_command("ACL", "SETUSER", "worker", "on", ">secret", "resetkeys", *RIGHTS.split(), "-subscribe")
        url = own.url.replace("redis://", "redis://worker:secret@")
        one, other = (process(url, truth) for _ in range(2))
        one.reads("key")
        eventually(lambda: "subscribe" in str(client.acl_log()), "nobody tried to listen")

    other.reads("key")

    assert truth.loads == 1
    assert [each.cache.stats().linked for each in (one, other)] == [False, False]


def test_batches_work_on_a_cluster(cluster: Several, process: Callable[..., Process]) -> None:
    truth = truth_of(*KEYS)
    one, other = (process(cluster.url, truth, timeout_s=1.0) for _ in range(2))
    with cluster.servers[0].client() as client:
        for each in (one, other):
            each.is_up_to_date("start", client)
        first, second = one.cache.get_many([*KEYS, "nobody"]), other.cache.get_many([*KEYS, "nobody"])
        loads = truth.loads
        guard = one.cache.guard_for(KEYS)
        one.cache.written({key: (truth.write(key), truth.rows[key].version) for key in KEYS}, guard)
        # What two nodes say comes in any order.
        heard = other.cache.stats
        eventually(lambda: heard().invalidations.get("received") == len(KEYS), "not all was heard")
        after = [each.cache.get_many(KEYS) for each in (one, other)]
        one.cache.flush()
        eventually(lambda: heard().flushes.get("epoch", 0) >= 64, "not all of the flush was heard")

    assert len(first) == len(second) == len(KEYS)
    assert loads == 1
    assert after == [truth.rows] * 2
    assert truth.loads == 1
    assert other.cache.get_many(KEYS) == truth.rows
    assert truth.loads == 2
    assert [each.cache.stats().failed for each in (one, other)] == [{}, {}]


def test_a_cluster_that_is_gone_is_no_error(cluster: Several, process: Callable[..., Process]) -> None:
    truth = truth_of(*KEYS)
    one = process(cluster.url, truth)
    one.cache.get_many(KEYS)
    for server in cluster.servers:
        server.close()

    one.cache._local.flush()
    found = [one.cache.get(key) for key in KEYS[:20]]
    as_it_was = [truth.rows[key] for key in KEYS[:20]]
    one.cache.written({KEYS[0]: (truth.write(KEYS[0]), truth.rows[KEYS[0]].version)})
    one.cache.flush()

    assert found == as_it_was
    assert one.cache.get_many(KEYS) == truth.rows


def test_a_slot_that_moves_to_another_node_is_followed(cluster: Several, process: Callable[..., Process]) -> None:
    """F-71."""
    truth = truth_of(*KEYS)
    one = process(cluster.url, truth, timeout_s=1.0)
    clients = [server.client() for server in cluster.servers]
    ids = [client.cluster("MYID").decode() for client in clients]
    # All epochs and values of one bucket have one slot.
    (slot,) = {clients[0].cluster("KEYSLOT", "{7}")}

    def is_stored() -> bool:
        one.cache.invalidate(KEYS)
        one.cache.get_many(KEYS)
        return any(client.cluster("COUNTKEYSINSLOT", slot) for client in clients)

    eventually(is_stored, "nothing is stored: the cluster was too slow each time")
    owner = next(number for number, client in enumerate(clients) if client.cluster("COUNTKEYSINSLOT", slot))
    target = (owner + 1) % len(clients)
    clients[owner].flushall()  # a slot with keys in it stays where it is
    for client in clients:
        client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
    for client in clients:
        client.close()

    truth.write(KEYS[0])
    one.cache.invalidate(KEYS)

    assert one.cache.get_many(KEYS) == truth.rows
    assert one.cache.dirty_keys == 0


def test_after_a_fail_over_nothing_old_is_served(sentinels: Several, process: Callable[..., Process]) -> None:
    truth = truth_of(*KEYS[:50])
    one, other = (process(sentinels.url, truth) for _ in range(2))
    master, replica = sentinels.servers
    assert master.program is not None
    with master.client() as client, replica.client() as next_client:
        for each in (one, other):
            each.is_up_to_date("start", client)
            each.cache.get_many(KEYS[:50])
        (epoch,) = (value for value in [client.get("sw:shop:customers:0:e")] if value)
        # The replica hears no more: what is written now is lost with the master.
        client.wait(1, 1000)
        client.config_set("min-replicas-to-write", 0)
        next_client.replicaof("127.0.0.1", 1)
        for key in KEYS[:50]:
            one.write(key)
        next_client.replicaof("127.0.0.1", master.port)
        master.program.end()

        for each in (one, other):
            each.is_up_to_date("after", next_client)
        eventually(lambda: next_client.get("sw:shop:customers:0:e") != epoch, "the epoch is the same")

    for each in (one, other):
        assert each.cache.get_many(KEYS[:50]) == truth.rows


def test_caches_of_the_same_name_share_values_over_redis(redis: Redis) -> None:
    loads: list[str] = []
    clock = SystemClock()
    config = CacheConfig(redis=redis.url, timeout_s=1.0)
    both = [Caches(config, app="shop-2", clock=clock, gate=CircuitBreaker(BREAKER, clock=clock)) for _ in range(2)]

    try:
        caches = [one.cache("names", type_=str, loader=lambda key: loads.append(key) or key.upper()) for one in both]
        names = [cache.get("anna") for cache in caches]
        shared = list(loads)
        both[0].distrust()
        distrusted = both[0].dirty
        again = caches[0].get("anna")
    finally:
        for one in both:
            one.close()

    assert names == ["ANNA", "ANNA"]
    assert shared == ["anna"]
    assert (distrusted, again, loads, both[0].dirty) == (True, "ANNA", ["anna", "anna"], False)
