"""What is known of an OpenID provider, and of who is on their way there.

Values only, and which addresses are safe. Pure, any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from streamworker.console.settings import is_loopback

FLOW_S = 600.0  # for somebody to sign in at the provider


class ProviderFailed(Exception):
    """The provider did not answer, or not as one does."""


class NotBelieved(Exception):
    """Its word is not for this console, not of now, or not its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """What is configured of it. Names and groups are claims of the ID token."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    redirect_url: str
    name_claim: str = "preferred_username"
    groups_claim: str = "groups"
    scope: str = "openid profile email"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Of the provider, as it says itself."""

    authorization: str
    token: str
    keys: str


@dataclass(frozen=True, slots=True)
class Flow:
    """Somebody who has been sent to the provider, from where they wanted to go."""

    cookie: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    wanted: str
    until_s: float


def is_safe(url: str) -> bool:
    """Whether nobody reads along on the way to `url`."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
