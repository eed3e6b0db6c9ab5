"""Reads that do without what they ask: what stands in, in which order, and what is kept."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from streamworker import Breaker, CircuitOpen, ConfigurationError, Context, Fallback, Handler, Read, Reading, Record
from streamworker.config import Config
from streamworker.declaration import declarations
from streamworker.resilience.provision import Provision
from streamworker.testing.virtual_time import VirtualTime


class Shop:
    """What is asked."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked: list[str] = []

    def customer(self, key: str) -> str | None:
        self.asked.append(key)
        if self.error is not None:
            raise self.error
        return f"customer {key}"


def handler_with(*reads: Read, name: str = "Orders", topic: str = "orders") -> type[Handler[bytes]]:
    def handle(_self: object, record: Record[bytes]) -> None:
        """Handle it."""

    breakers = (Breaker("shop", in_a_row=3, jitter=0.0),)
    options = {"topics": (topic,), "dependencies": breakers, "reads": reads, "handle": handle}
    return type(name, (Handler,), options)


@dataclass
class Bench:
    """A handler's context with one read, `customer`."""

    fallbacks: tuple[str, ...]
    chosen: dict[str, str] = field(default_factory=dict)
    max_entries: int = 10
    time: VirtualTime = field(default_factory=VirtualTime)
    shop: Shop = field(default_factory=Shop)

    def __post_init__(self) -> None:
        read = Read("customer", self.fallbacks, dependency="shop", max_stale_s=60, max_entries=self.max_entries)
        declared = declarations([handler_with(read)])
        self.provision = Provision(declared, config=Config(degradation=self.chosen), clock=self.time)
        self.context: Context = self.provision.contexts[0]
        self.customer = self.context.read("customer", self.shop.customer, default=lambda key: f"unknown {key}")

    def wait(self, seconds: float) -> None:
        self.time.wait(seconds, lambda: False)


def test_an_answer_is_given_as_it_is() -> None:
    bench = Bench(("skip",))

    reading = bench.customer("a")

    assert reading == Reading("customer a", "customer")
    assert reading.headers == ()
    assert not bench.provision.degradation.counted()


@pytest.mark.parametrize(
    ("fallback", "value"), [("default", "unknown b"), ("skip", None)], ids=["the default", "nothing"]
)
def test_what_stands_in_says_so_and_is_counted(fallback: str, value: str | None) -> None:
    """Edge case 81."""
    bench = Bench((fallback,))
    bench.shop.error = ConnectionError()

    reading = bench.customer("b")

    assert (reading.value, reading.degraded) == (value, Fallback(fallback))
    assert reading.headers == (("sw-degraded", f"customer={fallback}".encode()),)
    assert bench.provision.degradation.counted() == [("customer", fallback, 1)]
    assert bench.provision.degradation.status()[0].degraded == {fallback: 1}
    assert not bench.provision.degradation.counted()


def test_the_last_good_answer_stands_in_until_it_is_too_old() -> None:
    """Edge case 81."""
    bench = Bench(("cached", "skip"))
    bench.customer("a")
    bench.shop.error = ConnectionError()

    bench.wait(60)
    young = bench.customer("a")
    bench.wait(1)
    old = bench.customer("a")

    assert (young.value, young.degraded) == ("customer a", Fallback.CACHED)
    assert (old.value, old.degraded) == (None, Fallback.SKIP)
    assert bench.customer("b").degraded is Fallback.SKIP


def test_what_stood_in_is_never_kept_as_an_answer() -> None:
    bench = Bench(("cached", "default"))
    bench.shop.error = ConnectionError()

    readings = [bench.customer("a") for _ in range(3)]

    assert [one.degraded for one in readings] == [Fallback.DEFAULT] * 3


def test_the_oldest_answers_make_room() -> None:
    bench = Bench(("cached", "skip"), max_entries=2)
    for key in ("a", "b", "a", "c"):
        bench.customer(key)
    bench.shop.error = ConnectionError()

    assert [bench.customer(key).value for key in ("a", "b", "c")] == ["customer a", None, "customer c"]


def test_an_open_breaker_degrades_without_a_call() -> None:
    bench = Bench(("skip",))
    bench.shop.error = ConnectionError()
    for _ in range(10):
        bench.customer("a")

    assert len(bench.shop.asked) == 3
    assert bench.provision.breakers["shop"].state.value == "open"


def test_a_degraded_read_still_finds_out_that_the_dependency_is_back() -> None:
    bench = Bench(("skip",))
    bench.shop.error = ConnectionError()
    for _ in range(3):
        bench.customer("a")
    bench.shop.error = None
    bench.wait(5)

    assert [bench.customer("a").degraded for _ in range(3)] == [None] * 3
    assert bench.provision.breakers["shop"].state.value == "closed"


def test_a_degraded_read_inside_the_guard_counts_as_a_failure() -> None:
    bench = Bench(("skip",))
    bench.shop.error = ConnectionError()

    for _ in range(3):
        with bench.context.dependency("shop"):
            assert bench.customer("a").degraded is Fallback.SKIP

    assert bench.provision.breakers["shop"].state.value == "open"


def test_an_error_that_is_not_the_dependencys_comes_through() -> None:
    """Edge case 80."""
    bench = Bench(("cached", "default", "skip"))
    bench.customer("a")
    bench.shop.error = ValueError("no such customer")

    with pytest.raises(ValueError, match="no such customer"):
        bench.customer("a")


@pytest.mark.parametrize("fallbacks", [("fail_fast", "skip"), ("cached",)])
def test_without_anything_that_stands_in_the_read_fails(fallbacks: tuple[str, ...]) -> None:
    bench = Bench(fallbacks)
    bench.shop.error = ConnectionError("nobody there")
    for _ in range(3):
        with pytest.raises(ConnectionError, match="nobody there"):
            bench.customer("a")

    with pytest.raises(CircuitOpen):
        bench.customer("a")


def test_the_configuration_says_which_fallback_is_in_force() -> None:
    bench = Bench(("fail_fast", "cached", "skip"), chosen={"customer": "skip"})
    bench.shop.error = ConnectionError()
    before = bench.customer("a").degraded

    bench.provision.degradation.switch({"customer": "fail_fast"})

    assert before is Fallback.SKIP
    assert bench.provision.degradation.status()[0].in_force == ("fail_fast",)
    with pytest.raises(ConnectionError):
        bench.customer("a")
    bench.provision.degradation.switch({})
    assert bench.provision.degradation.status()[0].in_force == ("fail_fast", "cached", "skip")


@pytest.mark.parametrize(
    ("chosen", "complaint"),
    [
        ({"custumer": "skip"}, "degradation.custumer: no handler has such a read; did you mean 'customer'?"),
        ({"customer": "skp"}, "degradation.customer: got 'skp'; did you mean 'skip'?"),
        ({"customer": "default"}, "degradation.customer: the handler allows skip, fail_fast; got 'default'"),
    ],
)
def test_a_wrong_switch_is_refused_and_changes_nothing(chosen: dict[str, str], complaint: str) -> None:
    bench = Bench(("skip",))

    with pytest.raises(ConfigurationError) as refused:
        bench.provision.degradation.switch(chosen)

    assert str(refused.value) == complaint
    assert bench.provision.degradation.status()[0].in_force == ("skip",)


def test_a_default_that_is_missing_is_refused_when_the_handler_opens() -> None:
    bench = Bench(("cached", "default"))

    with pytest.raises(ConfigurationError, match=r"context\.read\('customer', …, default=…\)"):
        bench.context.read("customer", bench.shop.customer)
    with pytest.raises(ConfigurationError, match="no Read 'costumer'; did you mean 'customer'"):
        bench.context.read("costumer", bench.shop.customer)


def test_none_is_a_default_and_an_answer_like_any_other() -> None:
    bench = Bench(("cached", "default"))

    def nobody(_key: str) -> None:
        if bench.shop.error is not None:
            raise bench.shop.error

    read = bench.context.read("customer", nobody, default=None)
    read("a")
    bench.shop.error = ConnectionError()

    assert (read("a").degraded, read("b").degraded) == (Fallback.CACHED, Fallback.DEFAULT)


def test_reads_of_many_threads_are_all_counted() -> None:
    bench = Bench(("default",))
    bench.shop.error = ConnectionError()

    def ask() -> None:
        for _ in range(200):
            bench.customer("a")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert bench.provision.degradation.counted() == [("customer", "default", 800)]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"name": "Customer"}, "Read.name: expected 1 to 64 of a-z 0-9 _, a letter first, got 'Customer'"),
        ({"fallbacks": "skip"}, "Read('customer').fallbacks: expected a tuple, (\"cached\", \"skip\"), got 'skip'"),
        ({"fallbacks": ()}, 'Read(\'customer\').fallbacks: expected a tuple, ("cached", "skip"), got ()'),
        ({"fallbacks": ("cache",)}, "Read('customer').fallbacks: got 'cache'; did you mean 'cached'?"),
        ({"max_stale_s": -1}, "Read.max_stale_s: expected at least 0, got -1"),
        ({"max_entries": 0}, "Read.max_entries: expected at least 1, got 0"),
    ],
)
def test_a_wrong_declaration_says_what_would_do(options: dict[str, object], complaint: str) -> None:
    given = {"name": "customer", "fallbacks": ("skip",), "dependency": "shop", **options}

    with pytest.raises(ConfigurationError) as refused:
        Read(**given)  # type: ignore[arg-type]  # wrong on purpose

    assert str(refused.value) == complaint


def test_a_read_needs_a_breaker_that_does_not_hold_the_whole_handler() -> None:
    read = Read("customer", ("skip",), dependency="shp")
    own = handler_with(Read("customer", ("skip",), dependency="shop"))
    own.breaker = Breaker("shop", in_a_row=3, jitter=0.0)

    with pytest.raises(ConfigurationError, match=r"needs a Breaker 'shp' in dependencies; did you mean 'shop'\?"):
        declarations([handler_with(read)])
    with pytest.raises(ConfigurationError, match="the handler's own breaker holds all of it back"):
        declarations([own])
    with pytest.raises(ConfigurationError, match=r"Orders.reads: expected a tuple, \(Read\(...\),\), got"):
        declarations([handler_with("customer")])  # type: ignore[arg-type]  # wrong on purpose


def test_a_name_means_the_same_in_all_handlers() -> None:
    one = handler_with(Read("customer", ("skip",), dependency="shop"))
    other = handler_with(Read("customer", ("cached",), dependency="shop"), name="Payments", topic="payments")

    with pytest.raises(ConfigurationError, match="Read 'customer' is declared twice with different options"):
        declarations([one, other])
