"""The door to Confluent's schema registry client.

Decided here: what its failures mean. What the registry answers about a schema is an answer; anything
else (no connection, a timeout, a redirect, too many requests, refused credentials, a path that nobody
knows, a server error) leaves the record waiting, because it says nothing about the record. Any thread.

The client's own deserializers are not used: they fetch what a schema refers to from anywhere and run
rules that the registry supplies.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from streamworker.errors import ConfigurationError, DependencyUnavailable
from streamworker.serde.reasons import brief
from streamworker.serde.schemas import Reference, SchemaText

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

T = TypeVar("T")

_SCHEMES = ("https", "http", "mock")
# Seconds to connect, and without a byte after that. A pool thread waits as long; a healthy registry takes milliseconds.
TIMEOUT_S = 5
# What the registry says itself of a subject, a version or a schema that it does not know. Without one of these, 404 is
# the answer of something that knows no schemas: a wrong path, a proxy, a registry with another API.
_UNKNOWN = range(40400, 40500)
_NOT_FOUND = 404
_REFUSED = frozenset({409, 422})  # incompatible with what is registered; not a valid schema


def connect(url: str) -> ConfluentRegistry:
    """The registry at `url`; nothing is sent yet. Raises ConfigurationError, never naming credentials."""
    parts = _split(url)
    try:
        # Imported here because it comes with an extra and takes half a second.
        from confluent_kafka.schema_registry import SchemaRegistryClient  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            f"Avro.registry needs a package that is not installed ({error.name}); pip install 'streamworker[registry]'"
        ) from error
    host = parts.netloc.rpartition("@")[2]
    bare_url = urlunsplit(parts._replace(netloc=host))
    # No retries of its own: the record waits in the scheduler, not in a pool thread.
    settings: dict[str, str | int] = {"url": bare_url, "timeout": TIMEOUT_S, "max.retries": 0}
    if parts.username is not None:
        # Not left in the URL, which httpx logs with every request.
        settings["basic.auth.user.info"] = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    client = SchemaRegistryClient.new_client(settings)
    door = EmbeddedRegistry if parts.scheme == "mock" else ConfluentRegistry
    return door(client, f"the schema registry {host}")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in _SCHEMES and parts.hostname and parts.port != 0 and "," not in url
    except ValueError:
        well_formed = None
    if not well_formed:
        raise ConfigurationError("Avro.registry url: expected https://host[:port], http://… or mock://name")
    return parts


class ConfluentRegistry:
    """A `SchemaStore` over the client; `origin` is for messages."""

    def __init__(self, client: SchemaRegistryClient, origin: str) -> None:
        self.origin = origin
        self._client = client
        # Nobody closes a serde, and a connection that is left to the garbage collection is a warning there.
        weakref.finalize(self, client.__exit__)  # its `close` is later than 2.15

    def fetch(self, schema_id: int) -> SchemaText | None:
        """As `SchemaStore.fetch`."""
        schema = self._ask(lambda: self._client.get_schema(schema_id))
        return None if schema is None else _text(schema, f"schema id {schema_id}")

    def subjects(self, schema_id: int) -> Collection[str]:
        """As `SchemaStore.subjects`. With deleted ones: their records are still in the log."""
        # Not `get_subjects_by_schema_id`: not all registries have its path (Apicurio/apicurio-registry#7298).
        versions = self._ask(lambda: self._client.get_schema_versions(schema_id, deleted=True)) or ()
        return {one.subject for one in versions if one.subject is not None}

    def version(self, subject: str, version: int) -> SchemaText | None:
        """As `SchemaStore.version`."""
        registered = self._ask(lambda: self._client.get_version(subject, version))
        return None if registered is None else _text(registered.schema, f"{subject} version {version}")

    def id_under(self, subject: str, schema: SchemaText) -> int | None:
        """As `SchemaStore.id_under`."""
        registered = self._ask(lambda: self._client.lookup_schema(subject, _schema(schema)))
        return None if registered is None else registered.schema_id

    def register(self, subject: str, schema: SchemaText) -> int:
        """As `SchemaStore.register`."""
        schema_id = self._ask(lambda: self._client.register_schema(subject, _schema(schema)), refusals=_REFUSED)
        if schema_id is None:
            raise ConfigurationError(f"{self.origin} cannot register under {subject}: it answered 404")
        return schema_id

    def _ask(self, question: Callable[[], T], *, refusals: Collection[int] = ()) -> T | None:
        """The client's answer, None for what the registry does not know; raises ConfigurationError for `refusals`."""
        from confluent_kafka.schema_registry import SchemaRegistryError  # noqa: PLC0415 - as in `connect`

        try:
            return question()
        except SchemaRegistryError as error:
            answer = f"{self.origin} answered {error.http_status_code}"
            if error.http_status_code in refusals:
                raise ConfigurationError(f"{answer}: {brief(str(error.error_message))}") from error
            if error.http_status_code != _NOT_FOUND:
                raise DependencyUnavailable(answer) from error
            if error.error_code in _UNKNOWN:
                return None
            hint = "without saying what it does not know; is the path in the url right?"
            raise DependencyUnavailable(f"{answer} {hint}") from error
        except Exception as error:  # the client lets through what httpx, ssl and its JSON parsing raise
            raise DependencyUnavailable(f"{self.origin} cannot be asked: {type(error).__name__}") from error


class EmbeddedRegistry(ConfluentRegistry):
    """The client's registry in memory, which cannot tell the subjects of an id by itself."""

    def subjects(self, schema_id: int) -> Collection[str]:
        """As `SchemaStore.subjects`."""
        return [
            subject
            for subject in self._client.get_subjects()
            for version in self._client.get_versions(subject)
            if self._client.get_version(subject, version).schema_id == schema_id
        ]


def _text(schema: Schema, origin: str) -> SchemaText:
    references = tuple(Reference(one.subject or "", one.version or 0) for one in schema.references or ())
    return SchemaText(schema.schema_str or "", origin, schema.schema_type or "AVRO", references)


def _schema(schema: SchemaText) -> Schema:
    from confluent_kafka.schema_registry import Schema  # noqa: PLC0415 - as in `connect`

    return Schema(schema.text)
