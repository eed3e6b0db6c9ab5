"""What the commands for caches say of a real Redis, and change in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from fleet.cached import Customer, Process, Truth, eventually
from missing import obtained
from servers.redis import start_cluster, start_redis

from streamworker.cli.main import main
from streamworker.redis_client import redis_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result
    from redis import Redis

    from streamworker.cache.two_level import CacheStats


class Shop:
    """A process with three customers in its cache, and the command line beside it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.truth = Truth()
        for key in ("anna", "bert", "carl"):
            self.truth.write(key)
        self.process = Process(url, self.truth, timeout_s=1.0)
        self.process.cache.get_many(["anna", "bert", "carl", "nobody"])

    def client(self) -> Redis:
        return redis_client(self.url, timeout_s=1.0, connections=4, option="url")

    def run(self, *arguments: str) -> Result:
        where = ("--set", f"cache.redis={self.url}", "--group", "shop")
        return CliRunner().invoke(main, ["cache", *arguments, *where])

    def heard(self) -> CacheStats:
        return self.process.cache.stats()

    def told(self, *arguments: str) -> object:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture(params=["one server", "a cluster"])
def shop(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.chdir(tmp_path)  # commands look at the current directory
    servers = obtained(start_redis) if request.param == "one server" else obtained(start_cluster)
    made = Shop(servers.url)
    yield made
    made.process.close()
    servers.close()


def test_stats_count_what_redis_has(shop: Shop) -> None:
    told = shop.told("stats")

    assert isinstance(told, list)
    (one,) = told
    assert (one["cache"], one["values"], one["leases"], one["unreachable"]) == ("customers", 4, 0, 0)
    assert one["epoch_ms"] > 1_700_000_000_000
    assert "customers" in shop.run("stats").output


def test_show_tells_of_a_value_and_masks_it(shop: Shop) -> None:
    told = shop.told("show", "customers", "anna")

    assert isinstance(told, dict)
    assert told["there"]
    assert told["exists"]
    assert told["version"] == 1
    assert 200 < told["ends_in_s"] < 340
    assert "anna 1" not in json.dumps(told)
    assert shop.told("show", "customers", "anna", "--unmasked") == {
        **told,
        "value": {"name": "anna 1", "version": 1},
        "ends_in_s": pytest.approx(told["ends_in_s"], abs=5),
    }


def test_show_tells_what_does_not_exist_from_what_is_not_there(shop: Shop) -> None:
    negative, absent = shop.told("show", "customers", "nobody"), shop.told("show", "customers", "zoe")

    assert isinstance(negative, dict)
    assert (negative["there"], negative["exists"]) == (True, False)
    assert absent == {"key": "zoe", "there": False, "being_loaded": False}


def test_without_yes_nothing_is_forgotten(shop: Shop) -> None:
    results = [shop.run("invalidate", "customers", "anna"), shop.run("flush", "customers")]

    assert [result.exit_code for result in results] == [0, 0]
    assert "Would forget 1 key of customers. Nothing was changed" in results[0].output
    assert "Would forget customers. Nothing was changed" in results[1].output
    (one,) = shop.told("stats")  # type: ignore[misc]
    assert one["values"] == 4


def test_what_is_invalidated_is_loaded_again(shop: Shop) -> None:
    with shop.client() as client:
        shop.process.is_up_to_date("start", client)
        for key in ("anna", "bert"):
            shop.truth.rows[key] = Customer("changed by hand", 1)

        result = shop.run("invalidate", "customers", "anna", "bert", "--yes")
        eventually(lambda: shop.heard().invalidations.get("received") == 2, "it was not heard")

    assert result.output == "Forgotten: 2 keys of customers.\n"
    assert shop.process.cache.get_many(["anna", "bert", "carl"]) == shop.truth.rows


def test_what_is_flushed_is_loaded_again(shop: Shop) -> None:
    with shop.client() as client:
        shop.process.is_up_to_date("start", client)
        shop.truth.rows["anna"] = Customer("changed by hand", 1)

        result = shop.run("flush", "customers", "--yes")
        # On a cluster each of its 64 buckets is said by itself.
        buckets = 64 if "+cluster" in shop.url else 1
        eventually(lambda: shop.heard().flushes.get("epoch", 0) >= buckets, "it was not heard")

    assert result.output == "Forgotten: customers.\n"
    assert shop.process.cache.get_many(["anna", "bert", "carl"]) == shop.truth.rows
    (one,) = shop.told("stats")  # type: ignore[misc]
    assert one["unreachable"] == 4
