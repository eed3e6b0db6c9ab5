"""What handlers of a process get of claims: one claimer for each that keeps them in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.errors import ConfigurationError
from streamworker.idempotency.redis import RedisClaims
from streamworker.idempotency.slices import SliceClaims
from streamworker.idempotency.watchdog import LeaseExtender
from streamworker.options import KeptIn
from streamworker.redis_client import redis_client

if TYPE_CHECKING:
    from streamworker.clock import Clock
    from streamworker.config import ClaimConfig
    from streamworker.declaration import Declaration
    from streamworker.idempotency.claims import Claim, Claims
    from streamworker.options import Idempotency


def claimer_of(declaration: Declaration, config: ClaimConfig, group: str, clock: Clock) -> SliceClaims | None:
    """What claims the records of a handler in Redis; None if it has not asked for that.

    Raises ConfigurationError if nobody says where Redis is. It connects with the first claim.
    """
    idempotency = declaration.idempotency
    if idempotency is None or idempotency.kept_in is KeptIn.SINK:
        return None
    if config.redis is None:
        raise ConfigurationError(
            f"claims.redis is missing, and {declaration.name} keeps claims there; for instance redis://localhost:6379/1"
        )
    client = redis_client(
        config.redis,
        timeout_s=config.timeout_s,
        connections=declaration.concurrency + 1,  # one for whoever extends
        option="claims.redis",
    )
    claims = RedisClaims(client, group=group, lease_s=idempotency.lease_s, ttl_s=idempotency.ttl_s)
    extender = LeaseExtender(claims.extend, name=declaration.name, lease_s=idempotency.lease_s, clock=clock)
    return slice_claims(declaration, idempotency, claims, extender, clock)


def slice_claims(
    declaration: Declaration,
    idempotency: Idempotency,
    claims: Claims,
    extender: LeaseExtender[Claim],
    clock: Clock,
) -> SliceClaims:
    """The claimer of a handler over any `Claims`."""
    sink = declaration.sink
    return SliceClaims(
        claims,
        extender,
        handler=declaration.name,
        chosen=idempotency.id,
        on_unavailable=idempotency.when_unavailable(sink_knows_repeats=sink is not None and sink.knows_repeats),
        clock=clock,
    )
