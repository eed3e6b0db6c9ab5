"""Which schema ids to believe, and how often the registry may be asked.

An id comes from the record, so it may be anybody's. It is believed if its schema is registered under a
subject that the topic allows. Answers are remembered, also the bad ones (for `UNKNOWN_FOR_S`, since a
registry's replica may lag), and calls are limited to `CALLS_PER_S`, so that records with random ids
cannot hammer the registry. A record beyond the limit waits: it must not be judged unasked.

Any thread. Calls to the registry are made without a lock; two threads may ask the same thing once.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from streamworker.errors import ConfigurationError, DecodeError, DependencyUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from streamworker.clock import Clock
    from streamworker.serde.schemas import SchemaText

P = TypeVar("P")
K = TypeVar("K")
V = TypeVar("V")

CALLS_PER_S = 10  # a new schema costs two; nobody deploys five a second
LARGEST_ID = 2**31 - 1  # ids are Java's ints; asked about more, Confluent's registry answers as to a wrong path
UNKNOWN_FOR_S = 60.0
MAX_ENTRIES = 1000  # of schemas and of refusals; the oldest goes first
MAX_REFERENCES = 100  # schemas that one schema may name, directly or not


class SchemaStore(Protocol):
    """A schema registry. Any thread; every call blocks for one request.

    None is the answer for what does not exist; raises DependencyUnavailable when there is no answer.
    """

    origin: str  # for messages, without credentials

    def fetch(self, schema_id: int) -> SchemaText | None:
        """The schema of this id."""

    def subjects(self, schema_id: int) -> Collection[str]:
        """Where the schema of this id is or was registered; empty for an unknown id."""

    def version(self, subject: str, version: int) -> SchemaText | None:
        """The schema of this version of a subject."""

    def id_under(self, subject: str, schema: SchemaText) -> int | None:
        """The id of `schema` if it is registered under `subject`."""

    def register(self, subject: str, schema: SchemaText) -> int:
        """Its id; raises ConfigurationError if the registry refuses it, as incompatible for instance."""


class SchemaLookup(Generic[P]):
    """Schemas by id and topic, as `parse` makes them; it gets those that the schema names as well.

    `subjects` are the allowed ones, `{topic}` standing for the topic; the first is written under.
    """

    def __init__(
        self,
        store: SchemaStore,
        parse: Callable[[SchemaText, Sequence[SchemaText]], P],
        *,
        subjects: Sequence[str],
        clock: Clock,
    ) -> None:
        if isinstance(subjects, str) or not subjects:
            raise ConfigurationError(f'subjects: expected names such as ("{{topic}}-value",), got {subjects!r}')
        self.origin = store.origin
        self._store = store
        self._parse = parse
        self._subjects = tuple(subjects)
        self._clock = clock
        self._lock = threading.Lock()  # protects what follows from two pool threads writing at once
        self._schemas: dict[tuple[int, str], P] = {}
        self._refusals: dict[tuple[int, str], tuple[float, str]] = {}  # until when, and why
        self._ids: dict[str, int] = {}
        self._calls: deque[float] = deque(maxlen=CALLS_PER_S)

    def schema(self, schema_id: int, topic: str) -> P:
        """The schema that a record of `topic` may name; raises DecodeError, DependencyUnavailable."""
        key = (schema_id, topic)
        known = self._schemas.get(key)
        if known is not None:
            return known
        self._refuse_again(key)
        try:
            found = self._ask(schema_id, topic)
        except (DecodeError, ConfigurationError) as error:
            self._remember(self._refusals, key, (self._clock.monotonic_s() + UNKNOWN_FOR_S, str(error)))
            raise DecodeError(str(error)) from error
        self._remember(self._schemas, key, found)
        return found

    def id_of(self, schema: SchemaText, topic: str) -> int:
        """The id of `schema` under the topic's first subject, registered if need be."""
        known = self._ids.get(topic)
        if known is not None:
            return known
        subject = self._subjects[0].replace("{topic}", topic)
        found = self._call().id_under(subject, schema)
        schema_id = self._call().register(subject, schema) if found is None else found
        self._remember(self._ids, topic, schema_id)
        return schema_id

    def _refuse_again(self, key: tuple[int, str]) -> None:
        until_s, reason = self._refusals.get(key, (0.0, ""))
        if reason and self._clock.monotonic_s() < until_s:
            raise DecodeError(reason)

    def _ask(self, schema_id: int, topic: str) -> P:
        if schema_id > LARGEST_ID:
            raise DecodeError(f"schema id {schema_id}: expected at most {LARGEST_ID}")
        schema = self._call().fetch(schema_id)
        if schema is None:
            raise DecodeError(f"schema id {schema_id} is not known to {self.origin}")
        if self._allowed(topic).isdisjoint(self._call().subjects(schema_id)):
            allowed = " or ".join(sorted(self._allowed(topic)))
            raise DecodeError(f"schema id {schema_id} is not registered under {allowed}")
        return self._parse(schema, self._referred(schema))

    def _referred(self, schema: SchemaText) -> Sequence[SchemaText]:
        """What `schema` names, each after what it names itself."""
        found: dict[tuple[str, int], SchemaText] = {}
        self._follow(schema, found, set())
        return tuple(found.values())

    def _follow(self, schema: SchemaText, found: dict[tuple[str, int], SchemaText], seen: set[tuple[str, int]]) -> None:
        for reference in schema.references:
            key = (reference.subject, reference.version)
            if key in seen:
                continue
            seen.add(key)
            if len(seen) > MAX_REFERENCES:
                raise DecodeError(f"{schema.origin} names more than {MAX_REFERENCES} other schemas")
            referred = self._call().version(*key)
            if referred is None:
                raise DecodeError(f"{schema.origin} names {key[0]} version {key[1]}, which does not exist")
            self._follow(referred, found, seen)
            found[key] = referred

    def _allowed(self, topic: str) -> set[str]:
        return {subject.replace("{topic}", topic) for subject in self._subjects}

    def _call(self) -> SchemaStore:
        """The registry, for one call; raises DependencyUnavailable beyond the limit."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            if len(self._calls) == CALLS_PER_S and now_s - self._calls[0] < 1.0:
                raise DependencyUnavailable(f"{self.origin} is asked {CALLS_PER_S} times a second at most")
            self._calls.append(now_s)
        return self._store

    def _remember(self, memory: dict[K, V], key: K, value: V) -> None:
        with self._lock:
            memory.pop(key, None)
            while len(memory) >= MAX_ENTRIES:
                del memory[next(iter(memory))]
            memory[key] = value
