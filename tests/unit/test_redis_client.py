"""Which Redis an URL means. What clients do is tried on servers."""

from __future__ import annotations

import pytest

from streamworker import ConfigurationError
from streamworker.redis_client import redis_client


def client(url: str) -> dict[str, object]:
    """What its connections are made with."""
    made = redis_client(url, timeout_s=0.05, connections=4, option="cache.redis")
    return dict(made.connection_pool.connection_kwargs)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        (
            "http://cache",
            "expected redis://, rediss:// or unix://, or redis+sentinel:// or redis+cluster://, got 'http'",
        ),
        ("redis+sentinel://one:1,two:2", "expected redis+sentinel://host:port,…/name of the master"),
        ("redis+sentinel://one:1/cache/x", "expected redis+sentinel://host:port,…/name of the master"),
        ("redis+sentinel://one:1,,two:2/cache", "expected host:port, separated by commas"),
        ("redis+sentinel://one:port/cache", "Port could not be cast"),
        ("redis+cluster://one:1/2", "a cluster has no databases, got /2"),
        ("redis://cache:port/0", "Port could not be cast"),
    ],
)
def test_an_url_that_cannot_be_read_names_its_option(url: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        client(url)

    assert str(caught.value).startswith("cache.redis: ")
    assert complaint in str(caught.value)


def test_a_call_is_made_once_and_waits_for_as_long_as_its_user_says() -> None:
    made = client("redis://user:p%40ss@cache:7000/3")

    assert (made["host"], made["port"], made["db"]) == ("cache", 7000, 3)
    assert (made["username"], made["password"]) == ("user", "p@ss")
    assert (made["socket_timeout"], made["socket_connect_timeout"]) == (0.05, 0.05)
    assert made["retry"].get_retries() == 0  # type: ignore[attr-defined]


def test_sentinels_are_asked_for_the_master_and_the_user_is_the_servers() -> None:
    made = redis_client(
        "redis+sentinel://user:p%40ss@one:1,two/cache/3", timeout_s=0.05, connections=4, option="cache.redis"
    )

    pool = made.connection_pool
    asked = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
    assert pool.service_name == "cache"
    assert {name: pool.connection_kwargs[name] for name in ("username", "password", "db", "socket_timeout")} == {
        "username": "user",
        "password": "p@ss",
        "db": 3,
        "socket_timeout": 0.05,
    }
    assert [(one["host"], one["port"], one.get("username")) for one in asked] == [
        ("one", 1, None),
        ("two", 26379, None),
    ]
