"""Every order in which a cache of two levels can be read, written and disturbed, for one key.

Workers have writers and readers, memory of their own (L1), and share Redis (L2). The sink holds the truth: a version
that each write raises by one, and a value is the version that it was written with. Nothing comes between what an actor
does in one step: a script in Redis, a look into L1, a statement in the sink. Invalidations arrive later, in order, or
are lost with the link. `explore` goes through all orders and collects the ends; `stale` says what is wrong with an end.
Nothing happens any more then, so only a time to live would mend it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

EVERYTHING = 10**6  # as a version to invalidate below: the whole key, when the writer knows no version
NEW_EPOCH = 10**6 + 1  # as a message: all that is known is of an old epoch


class Write(enum.Enum):
    """What a writer does in Redis after the sink has its row."""

    DELETE = enum.auto()  # delete the value
    SET = enum.auto()  # set the value
    SET_NEWER = enum.auto()  # set it unless a newer one is there
    REPLACE_OLDER = enum.auto()  # delete the lease, and set the value if an older one is there
    DELETE_BOTH = enum.auto()  # delete the value and the lease
    SET_IF_LEASED = enum.auto()  # set it if the lease that was taken before the row is still held, else delete both


class Fill(enum.Enum):
    """What a reader that had to ask the sink does in Redis."""

    SET = enum.auto()
    SET_ABSENT = enum.auto()
    SET_NEWER = enum.auto()
    LEASED = enum.auto()  # set it if the lease that was got when the value was missing is still held


class Keep(enum.Enum):
    """When a value may come into L1."""

    ALWAYS = enum.auto()
    NEWER = enum.auto()  # unless a newer one is there
    GUARDED = enum.auto()  # unless its key was invalidated since before it was asked for, either
    NEVER = enum.auto()


class Mend(enum.Enum):
    """What a worker does when its link has dropped."""

    SUBSCRIBE_THEN_FLUSH = enum.auto()
    FLUSH_THEN_SUBSCRIBE = enum.auto()
    SUBSCRIBE = enum.auto()


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The rules of all actors."""

    write: Write
    fill: Fill
    readers_keep: Keep = Keep.GUARDED
    writers_keep: Keep = Keep.GUARDED
    versions: bool = True  # the sink tells them; else an invalidation is of the whole key
    own_guards_break: bool = True  # also those of the writer's worker, and when its own value has come in
    mend: Mend = Mend.SUBSCRIBE_THEN_FLUSH
    redelivery_invalidates: bool = True
    dirty_set: bool = True  # what could not be told to Redis is remembered, and told first when it is back
    bump: bool = True  # who takes over from a worker that died with a dirty set begins a new epoch
    bump_is_published: bool = True
    scripts_check_epoch: bool = True


class Faults(NamedTuple):
    """How many of each may still come, at any moment."""

    evictions_l2: int = 0  # of the value, or of the lease
    evictions_l1: int = 0
    crashes: int = 0
    drops: int = 0  # of a link
    outages: int = 0  # of Redis, with both links


class Level(enum.Enum):
    """Where a value is that is older than the sink's."""

    L1 = enum.auto()
    L2 = enum.auto()


class Link(enum.IntEnum):
    """What becomes of messages to a worker."""

    UP = enum.auto()
    DOWN = enum.auto()  # they are lost
    FLUSHED = enum.auto()  # they are lost, and L1 is empty
    SUBSCRIBED = enum.auto()  # they arrive, and L1 is not flushed yet


class Actor(NamedTuple):
    """A writer or a reader, and its next step."""

    step: str
    worker: int
    value: int = 0
    guarded: bool = False  # its guard holds
    leased: bool = False  # it got the lease


class Redis(NamedTuple):
    """What Redis has for the key in one epoch."""

    value: int | None = None
    lease: int | None = None  # the number of the actor that holds it


class World(NamedTuple):
    """All there is."""

    sink: int
    redis: tuple[Redis, ...]  # by epoch; the last one is the present
    up: bool  # Redis answers
    l1: tuple[int | None, ...]  # by worker, as what follows
    inbox: tuple[tuple[int, ...], ...]
    link: tuple[Link, ...]
    epoch: tuple[int, ...]  # that it believes in
    dirty: frozenset[int]  # workers that have something to tell Redis
    owe_bump: frozenset[int]
    alive: frozenset[int]
    actors: tuple[Actor, ...]
    faults: Faults


def stale(world: World) -> frozenset[Level]:
    """Where something older than the sink's value would be given out, in a world in which nothing happens any more."""
    found = set()
    if any(value is not None and value < world.sink for value in world.l1):
        found.add(Level.L1)
    if (value := world.redis[-1].value) is not None and value < world.sink:
        found.add(Level.L2)
    return frozenset(found)


class Search(NamedTuple):
    """What was found, in how many worlds."""

    stale: frozenset[Level]  # at the end of some order
    worlds: int


def explore(
    protocol: Protocol,
    faults: Faults = Faults(),  # noqa: B008 - it cannot change
    *,
    writers: Sequence[int] = (0, 1),
    readers: Sequence[int] = (0, 1),
    until: frozenset[Level] | None = None,
) -> Search:
    """Go through all orders, of writers and readers on these workers; no further than to `until`, if given."""
    rules = Rules(protocol)
    waiting = list(_beginnings(protocol, faults, writers, readers))
    seen = set(waiting)
    found: frozenset[Level] = frozenset()
    while waiting and (until is None or not found >= until):
        world = waiting.pop()
        news = set(rules.successors(world))
        if not news:
            found |= stale(world)
        news -= seen
        seen |= news
        waiting += news
    return Search(found, len(seen))


def _beginnings(protocol: Protocol, faults: Faults, writers: Sequence[int], readers: Sequence[int]) -> Iterator[World]:
    """Whatever is cached is true."""
    workers = max(*writers, *readers) + 1
    actors = (*(_writer(protocol, worker) for worker in writers), *(Actor("look", worker) for worker in readers))
    for l2, *l1 in product((None, 0), repeat=workers + 1):
        yield World(
            sink=0,
            redis=(Redis(l2),),
            up=True,
            l1=tuple(l1),
            inbox=((),) * workers,
            link=(Link.UP,) * workers,
            epoch=(0,) * workers,
            dirty=frozenset(),
            owe_bump=frozenset(),
            alive=frozenset(range(workers)),
            actors=actors,
            faults=faults,
        )


def _writer(protocol: Protocol, worker: int) -> Actor:
    first = "take the lease" if protocol.write is Write.SET_IF_LEASED else "write"
    return Actor(first, worker, guarded=protocol.writers_keep is Keep.GUARDED)


def _with(pair: tuple[T, ...], index: int, item: T) -> tuple[T, ...]:
    return (*pair[:index], item, *pair[index + 1 :])


class Rules:
    """What can happen next under a protocol."""

    def __init__(self, protocol: Protocol) -> None:
        self._is = protocol
        self._only_under_guard = protocol.readers_keep is Keep.GUARDED and protocol.fill is Fill.LEASED
        self._steps: dict[str, Callable[[World, int, Actor], World]] = {
            # a reader
            "look": self._look,
            "ask": self._ask,
            "load": self._load,
            "fill": self._fill,
            "keep": self._keep,
            # a writer
            "take the lease": self._take_lease,
            "write": self._write,
            "tell": self._tell,
            "keep own": self._keep_own,
            "break own guards": self._break_own_guards,
            "commit": self._commit,
            # a writer whose record came again after its row was written
            "invalidate": self._invalidate,
        }

    def successors(self, world: World) -> Iterator[World]:
        """The worlds that are one step away."""
        for number, actor in enumerate(world.actors):
            if actor.step != "end":
                yield self._steps[actor.step](world, number, actor)
        for worker in world.alive:
            yield from self._of_worker(world, worker)
        if not world.up:
            yield world._replace(up=True)
        yield from self._faults(world)

    # What a reader does.

    def _look(self, world: World, number: int, actor: Actor) -> World:
        hit = world.l1[actor.worker] is not None
        return self._step(
            world, number, Actor("end", actor.worker) if hit else actor._replace(step="ask", guarded=True)
        )

    def _ask(self, world: World, number: int, actor: Actor) -> World:
        """Get the value from Redis, or leave to fill it."""
        if not self._reaches_redis(world, actor):
            return self._step(world, number, actor._replace(step="load"))
        if self._epoch_is_news(world, actor):
            return self._step(self._hear_epoch(world, actor.worker), number, Actor("look", actor.worker))
        redis = world.redis[world.epoch[actor.worker]]
        if redis.value is not None:
            return self._step(world, number, actor._replace(step="keep", value=redis.value))
        if self._is.fill is Fill.LEASED and redis.lease is None:
            world = self._in_redis(world, actor, redis._replace(lease=number))
            return self._step(world, number, actor._replace(step="load", leased=True))
        return self._step(world, number, actor._replace(step="load"))

    def _load(self, world: World, number: int, actor: Actor) -> World:
        return self._step(world, number, actor._replace(step="fill", value=world.sink))

    def _fill(self, world: World, number: int, actor: Actor) -> World:
        after = actor._replace(step="keep", leased=False)
        if not self._reaches_redis(world, actor):
            return self._step(world, number, after)
        if self._epoch_is_news(world, actor):
            return self._step(self._hear_epoch(world, actor.worker), number, Actor("end", actor.worker))
        redis = world.redis[world.epoch[actor.worker]]
        match self._is.fill:
            case Fill.SET:
                redis = redis._replace(value=actor.value)
            case Fill.SET_ABSENT if redis.value is None:
                redis = redis._replace(value=actor.value)
            case Fill.SET_NEWER if redis.value is None or redis.value < actor.value:
                redis = redis._replace(value=actor.value)
            case Fill.LEASED if actor.leased and redis.lease == number:
                redis = Redis(actor.value)
            case Fill.LEASED:
                after = Actor("end", actor.worker)
        return self._step(self._in_redis(world, actor, redis), number, after)

    def _keep(self, world: World, number: int, actor: Actor) -> World:
        return self._step(self._into_l1(world, actor, self._is.readers_keep), number, Actor("end", actor.worker))

    # What a writer does.

    def _take_lease(self, world: World, number: int, actor: Actor) -> World:
        after = actor._replace(step="write")
        if not self._reaches_redis(world, actor):
            return self._step(world, number, after)
        if self._epoch_is_news(world, actor):
            return self._hear_epoch(world, actor.worker)
        redis = world.redis[world.epoch[actor.worker]]
        return self._step(self._in_redis(world, actor, redis._replace(lease=number)), number, after)

    def _write(self, world: World, number: int, actor: Actor) -> World:
        version = world.sink + 1
        return self._step(world._replace(sink=version), number, actor._replace(step="tell", value=version))

    def _tell(self, world: World, number: int, actor: Actor) -> World:
        """One script: what it does in Redis and its message are one."""
        if not self._reaches_redis(world, actor):
            return self._step(self._not_told(world, actor), number, actor._replace(step="break own guards"))
        if self._epoch_is_news(world, actor):
            return self._hear_epoch(world, actor.worker)
        redis = world.redis[world.epoch[actor.worker]]
        value, version = redis.value, actor.value
        is_in = True
        match self._is.write:
            case Write.DELETE:
                redis, is_in = redis._replace(value=None), False
            case Write.DELETE_BOTH:
                redis, is_in = Redis(), False
            case Write.SET:
                redis = redis._replace(value=version)
            case Write.SET_NEWER if value is None or value < version:
                redis = redis._replace(value=version)
            case Write.REPLACE_OLDER:
                is_in = value is not None and value < version
                redis = Redis(version if is_in else value)
            case Write.SET_IF_LEASED:
                is_in = redis.lease == number
                redis = Redis(version if is_in else None)
        world = self._publish(self._in_redis(world, actor, redis), actor, self._older_than(actor))
        return self._step(world, number, actor._replace(step="keep own" if is_in else "break own guards"))

    def _keep_own(self, world: World, number: int, actor: Actor) -> World:
        after = self._into_l1(world, actor, self._is.writers_keep)
        is_in = after.l1[actor.worker] == actor.value
        follows = "commit" if is_in and not self._is.own_guards_break else "break own guards"
        return self._step(after, number, actor._replace(step=follows))

    def _break_own_guards(self, world: World, number: int, actor: Actor) -> World:
        world = self._step(world, number, actor._replace(step="commit", value=0))
        return self._drop_older(world, actor.worker, self._older_than(actor))

    def _commit(self, world: World, number: int, actor: Actor) -> World:
        return self._step(world, number, Actor("end", actor.worker))

    def _invalidate(self, world: World, number: int, actor: Actor) -> World:
        if not self._reaches_redis(world, actor):
            return self._step(
                self._not_told(world, actor), number, actor._replace(step="break own guards", value=EVERYTHING)
            )
        if self._epoch_is_news(world, actor):
            return self._hear_epoch(world, actor.worker)
        world = self._publish(self._in_redis(world, actor, Redis()), actor, EVERYTHING)
        return self._step(world, number, actor._replace(step="break own guards", value=EVERYTHING))

    # What a worker does beside.

    def _of_worker(self, world: World, worker: int) -> Iterator[World]:
        if world.inbox[worker]:
            message, *rest = world.inbox[worker]
            after = world._replace(inbox=_with(world.inbox, worker, tuple(rest)))
            yield self._hear_epoch(after, worker) if message == NEW_EPOCH else self._drop_older(after, worker, message)
        if world.link[worker] is not Link.UP:
            yield from self._mend(world, worker)
        if world.up and worker in world.dirty:
            yield self._tell_dirty(world, worker)
        if world.up and worker in world.owe_bump:
            yield self._bump(world, worker)

    def _mend(self, world: World, worker: int) -> Iterator[World]:
        match self._is.mend, world.link[worker]:
            case Mend.SUBSCRIBE, _ if world.up:
                yield _set_link(world, worker, Link.UP)
            case Mend.SUBSCRIBE_THEN_FLUSH, Link.DOWN if world.up:
                yield _set_link(world, worker, Link.SUBSCRIBED)
            case Mend.SUBSCRIBE_THEN_FLUSH, Link.SUBSCRIBED:
                yield self._flush(_set_link(world, worker, Link.UP), worker)
            case Mend.FLUSH_THEN_SUBSCRIBE, Link.DOWN:
                yield self._flush(_set_link(world, worker, Link.FLUSHED), worker)
            case Mend.FLUSH_THEN_SUBSCRIBE, Link.FLUSHED if world.up:
                yield _set_link(world, worker, Link.UP)

    def _tell_dirty(self, world: World, worker: int) -> World:
        actor = Actor("end", worker)
        if self._epoch_is_news(world, actor):
            return self._hear_epoch(world, worker)
        world = world._replace(dirty=world.dirty - {worker})
        return self._publish(self._in_redis(world, actor, Redis()), actor, EVERYTHING)

    def _bump(self, world: World, worker: int) -> World:
        world = world._replace(redis=(*world.redis, Redis()), owe_bump=world.owe_bump - {worker})
        if self._is.bump_is_published:
            world = self._publish(world, Actor("end", worker), NEW_EPOCH)
        return self._hear_epoch(world, worker)

    # What goes wrong.

    def _faults(self, world: World) -> Iterator[World]:
        left = world.faults
        redis = world.redis[-1]
        if left.evictions_l2 and world.up:
            after = world._replace(faults=left._replace(evictions_l2=left.evictions_l2 - 1))
            if redis.value is not None:
                yield after._replace(redis=(*world.redis[:-1], redis._replace(value=None)))
            if redis.lease is not None:
                yield after._replace(redis=(*world.redis[:-1], redis._replace(lease=None)))
        for worker in world.alive:
            if left.evictions_l1 and world.l1[worker] is not None:
                after = world._replace(faults=left._replace(evictions_l1=left.evictions_l1 - 1))
                yield after._replace(l1=_with(world.l1, worker, None))
            if left.drops and world.link[worker] is Link.UP:
                after = world._replace(faults=left._replace(drops=left.drops - 1))
                yield _drop_link(after, worker)
            if left.crashes and len(world.alive) > 1:
                yield self._crash(world._replace(faults=left._replace(crashes=left.crashes - 1)), worker)
        if left.outages and world.up:
            after = world._replace(faults=left._replace(outages=left.outages - 1), up=False)
            for worker in world.alive:
                after = _drop_link(after, worker)
            yield after

    def _crash(self, world: World, worker: int) -> World:
        """It dies; another gets what it has not committed, and finds in the sink what has its row."""
        heir = min(world.alive - {worker})
        inherits_dirt = worker in world.owe_bump or (worker in world.dirty and self._is.bump)
        world = _drop_link(world, worker)._replace(
            l1=_with(world.l1, worker, None),
            link=_with(world.link, worker, Link.UP),
            dirty=world.dirty - {worker},
            owe_bump=world.owe_bump - {worker},
            alive=world.alive - {worker},
            actors=tuple(
                self._delivered_again(actor, heir) if actor.worker == worker else actor for actor in world.actors
            ),
        )
        return world._replace(owe_bump=world.owe_bump | {heir}) if inherits_dirt else world

    def _delivered_again(self, actor: Actor, worker: int) -> Actor:
        match actor.step:
            case "take the lease" | "write":
                return _writer(self._is, worker)
            case "tell" | "keep own" | "break own guards" | "commit" | "invalidate" if self._is.redelivery_invalidates:
                return Actor("invalidate", worker)
            case _:
                return Actor("end", worker)

    # What all of these are made of.

    def _reaches_redis(self, world: World, actor: Actor) -> bool:
        """What is dirty or owed is told first: until then a worker does as if Redis were away."""
        return world.up and actor.worker not in world.dirty | world.owe_bump

    def _epoch_is_news(self, world: World, actor: Actor) -> bool:
        return self._is.scripts_check_epoch and world.epoch[actor.worker] != len(world.redis) - 1

    def _hear_epoch(self, world: World, worker: int) -> World:
        return self._flush(world._replace(epoch=_with(world.epoch, worker, len(world.redis) - 1)), worker)

    def _in_redis(self, world: World, actor: Actor, redis: Redis) -> World:
        return world._replace(redis=_with(world.redis, world.epoch[actor.worker], redis))

    def _not_told(self, world: World, actor: Actor) -> World:
        return world._replace(dirty=world.dirty | {actor.worker}) if self._is.dirty_set else world

    def _older_than(self, actor: Actor) -> int:
        """What a write makes out of date: versions below it."""
        return actor.value if self._is.versions else EVERYTHING

    def _publish(self, world: World, actor: Actor, message: int) -> World:
        """To all workers but the origin, which ignores its own."""
        hear = {one for one in world.alive - {actor.worker} if world.link[one] in {Link.UP, Link.SUBSCRIBED}}
        return world._replace(
            inbox=tuple((*inbox, message) if worker in hear else inbox for worker, inbox in enumerate(world.inbox))
        )

    def _into_l1(self, world: World, actor: Actor, keep: Keep) -> World:
        there = world.l1[actor.worker]
        is_older = self._is.versions and there is not None and there > actor.value
        if keep is Keep.NEVER or (keep is not Keep.ALWAYS and is_older) or (keep is Keep.GUARDED and not actor.guarded):
            return world
        return world._replace(l1=_with(world.l1, actor.worker, actor.value))

    def _drop_older(self, world: World, worker: int, version: int) -> World:
        there = world.l1[worker]
        if there is not None and there < version:
            world = world._replace(l1=_with(world.l1, worker, None))
        return self._break_guards(world, worker)

    def _flush(self, world: World, worker: int) -> World:
        return self._break_guards(world._replace(l1=_with(world.l1, worker, None)), worker)

    def _break_guards(self, world: World, worker: int) -> World:
        return world._replace(
            actors=tuple(
                self._cut_short(world, actor._replace(guarded=False))
                if actor.worker == worker and actor.guarded
                else actor
                for actor in world.actors
            )
        )

    def _step(self, world: World, number: int, actor: Actor) -> World:
        return world._replace(actors=_with(world.actors, number, self._cut_short(world, actor)))

    def _cut_short(self, world: World, actor: Actor) -> Actor:
        """Who will change nothing any more is at its end; that there are fewer worlds then is all it does."""
        match actor.step:
            case "commit" if not world.faults.crashes:
                return Actor("end", actor.worker)
            case "load" | "fill" | "keep" if not actor.guarded and not actor.leased and self._only_under_guard:
                return Actor("end", actor.worker)
            case _:
                return actor


def _set_link(world: World, worker: int, link: Link) -> World:
    return world._replace(link=_with(world.link, worker, link))


def _drop_link(world: World, worker: int) -> World:
    """What was under way is lost with it."""
    return _set_link(world, worker, Link.DOWN)._replace(inbox=_with(world.inbox, worker, ()))
