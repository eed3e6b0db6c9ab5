"""What handlers put into caches takes place once their records have their effect, and not if they have none."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar

import msgspec
import pytest
from scenarios.worlds import letters_from, make_world, produce

from streamworker import BatchHandler, ConfigurationError, DeadLetter, Execution, Handler, Ordering, PoisonError
from streamworker.cache.caches import Caches
from streamworker.clock import SystemClock
from streamworker.config import CacheConfig
from streamworker.declaration import declaration
from streamworker.errors import Misuse
from streamworker.handler import Context as RealContext
from streamworker.processing.inline import Inline
from streamworker.testing import FakeSink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker import Cache, Context, Record, Records


class Customer(msgspec.Struct, frozen=True):
    name: str
    version: int = 1


class Database:
    """What a cache stands in front of, and how often each key was asked for."""

    def __init__(self) -> None:
        self.customers = {"a": Customer("Anna"), "b": Customer("Bert")}
        self.loads: Counter[str] = Counter()
        self.calls = 0

    def customer(self, key: str) -> Customer | None:
        self.loads[key] += 1
        return self.customers.get(key)

    def many(self, keys: Sequence[str]) -> Mapping[str, Customer]:
        self.calls += 1
        self.loads.update(keys)
        return {key: self.customers[key] for key in keys if key in self.customers}


class Cached(Handler[bytes]):
    """Looks a customer up; `name=X` renames one, `poison` fails after that."""

    topics: ClassVar[Sequence[str]] = ("in",)
    ordering: ClassVar[Ordering | str] = Ordering.PARTITION
    dead_letter: ClassVar[DeadLetter | None] = DeadLetter("dlq")
    database: ClassVar[Database]
    seen: ClassVar[list[str | None]]

    def open(self, context: Context) -> None:
        self.customers: Cache[str, Customer] = context.cache(
            "customers", loader=self.database.customer, version=lambda customer: customer.version
        )

    def handle(self, record: Record[bytes]) -> object:
        key, _, name = (record.value or b"").decode().partition("=")
        if name:
            self.customers.put(key, Customer(name.removesuffix("!"), 2))
        found = self.customers.get(key)
        self.seen.append(None if found is None else found.name)
        if name.endswith("!"):
            raise PoisonError("after all")
        return record.value


def cached(**options: object) -> type[Cached]:
    class Mine(Cached):
        database = Database()
        seen: ClassVar[list[str | None]] = []

    for name, value in options.items():
        setattr(Mine, name, value)
    return Mine


def test_a_value_is_loaded_once() -> None:
    world, handler = make_world(), cached()
    produce(world, b"a", b"a", b"nobody", b"nobody", b"b")

    world.start(handler)
    world.run_to_end("in")

    assert handler.seen == ["Anna", "Anna", None, None, "Bert"]
    assert handler.database.loads == {"a": 1, "b": 1, "nobody": 1}


def test_a_record_sees_what_it_has_put_and_so_do_those_after_it() -> None:
    world, handler = make_world(), cached(sink=FakeSink())
    produce(world, b"a", b"a=Anton", b"a", b"b")

    world.start(handler)
    world.run_to_end("in")

    assert handler.seen == ["Anna", "Anton", "Anton", "Bert"]


def test_what_a_record_put_that_fails_never_happened() -> None:
    world, handler = make_world(), cached()
    produce(world, b"a", b"a=Anton!", b"a")

    world.start(handler)
    world.run_to_end("in")

    assert handler.seen == ["Anna", "Anton", "Anna"]
    assert letters_from(world) == [b"a=Anton!"]


def test_what_a_record_put_whose_row_is_refused_is_asked_for_again() -> None:
    world, sink = make_world(), FakeSink()
    handler = cached(sink=sink)
    sink.refuse(1, PoisonError("too long"))
    produce(world, b"a", b"a=Anton", b"a")

    world.start(handler)
    world.run_to_end("in")

    assert handler.seen[0] == "Anna"
    assert handler.seen[-1] == "Anna"


def test_an_invalidation_takes_place_after_the_record() -> None:
    class Invalidates(Cached):
        database = Database()
        seen: ClassVar[list[str | None]] = []

        def handle(self, record: Record[bytes]) -> None:
            super().handle(record)
            self.customers.invalidate("a", "b")

    world = make_world()
    produce(world, b"a", b"a")

    world.start(Invalidates)
    world.run_to_end("in")
    produce(world, b"a")
    world.run_to_end("in")

    assert Invalidates.database.loads["a"] >= 2


def test_a_batch_asks_once_for_all_that_is_not_there() -> None:
    class Many(BatchHandler[bytes]):
        topics = ("in",)
        database = Database()
        seen: ClassVar[list[dict[str, Customer]]] = []

        def open(self, context: Context) -> None:
            self.customers: Cache[str, Customer] = context.cache("customers", load_many=self.database.many)

        def handle(self, records: Records[bytes]) -> None:
            self.seen.append(self.customers.get_many([(value or b"").decode() for value in records.values()]))

    world = make_world()
    produce(world, b"a", b"b", b"nobody", b"a")

    world.start(Many)
    world.run_to_end("in")

    assert Many.seen == [{"a": Customer("Anna"), "b": Customer("Bert")}]
    assert Many.database.calls == 1


def test_an_async_handler_awaits_what_is_not_there() -> None:
    class Awaits(Cached):
        database = Database()
        seen: ClassVar[list[str | None]] = []

        async def handle(self, record: Record[bytes]) -> None:
            key, _, name = (record.value or b"").decode().partition("=")
            if name:
                self.customers.put(key, Customer(name, 2))
            found = await self.customers.aget(key)
            self.seen.append(None if found is None else found.name)

    world = make_world()
    produce(world, b"a", b"a=Anton", b"a")

    world.start(Awaits)
    world.run_to_end("in")

    assert Awaits.seen[:2] == ["Anna", "Anton"]


def test_a_cache_that_is_asked_for_in_the_middle_of_a_call_stops_nobody_unseen() -> None:
    class Late(Cached):
        database = Database()
        seen: ClassVar[list[str | None]] = []

        def open(self, context: Context) -> None:
            self.context = context

        def handle(self, record: Record[bytes]) -> None:
            self.context.cache("customers", loader=self.database.customer)

    world = make_world()
    produce(world, b"a")

    member = world.start(Late)
    world.run(lambda: bool(member.story.failures))

    assert isinstance(member.story.failures[0][2], Misuse)


@pytest.mark.parametrize("loader", [lambda key: None, len])
def test_a_loader_that_does_not_say_of_which_type_its_values_are_is_refused(loader: object) -> None:
    class Untold(Cached):
        def open(self, context: Context) -> None:
            context.cache("customers", loader=loader)  # type: ignore[call-overload]  # wrong on purpose

    with pytest.raises(ConfigurationError, match="of which type are its values"):
        make_world().start(Untold)


class Truth:
    """What a worker is told of its caches, and does to them."""

    def __init__(self) -> None:
        self.dirty = False
        self.distrusts = 0

    def distrust(self) -> None:
        self.distrusts += 1


@pytest.mark.parametrize("ending", ["killed", "stopped"])
def test_who_takes_over_from_a_worker_whose_cache_was_not_told_believes_no_cache(ending: str) -> None:
    world, first, second = make_world(), Truth(), Truth()
    member = world.start(cached(), caches=first)
    first.dirty = True
    produce(world, b"a")
    world.run_to_end("in")

    (world.kill if ending == "killed" else world.stop)(member)
    world.start(cached(), caches=second)
    produce(world, b"b")
    world.run_to_end("in")

    assert (first.distrusts, second.distrusts) == (0, 1)


def test_who_takes_over_from_a_worker_whose_cache_was_told_in_the_end_believes_it() -> None:
    world, first, second = make_world(), Truth(), Truth()
    member = world.start(cached(), caches=first)
    first.dirty = True
    produce(world, b"a")
    world.run_to_end("in")
    first.dirty = False
    world.run_for(3)

    world.kill(member)
    world.start(cached(), caches=second)
    produce(world, b"b")
    world.run_to_end("in")

    assert second.distrusts == 0


def test_a_handler_on_the_loop_thread_has_no_caches() -> None:
    clock = SystemClock()
    context = RealContext(app={}, group="g", handler="h", caches=Caches(CacheConfig(), app="g", clock=clock))
    inline = Inline(declaration(cached(execution=Execution.INLINE)), context, print, clock=clock, max_record_bytes=10)

    with pytest.raises(ConfigurationError, match="a cache may wait"):
        inline.start()
