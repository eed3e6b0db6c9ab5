"""Who somebody is: by a token, a password, or the word of a proxy or an OpenID provider. The door to argon2.

Decides what is believed, not what may be done. Passwords take about 50 ms and are asked for on other threads; all else
is asked by the event loop.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from streamworker.console.accounts import PROXY, VOUCHING, token_digest
from streamworker.console.settings import within
from streamworker.replay.desk import Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streamworker.console.accounts import Account
    from streamworker.console.settings import Network

_SECRET_HEADER = "x-streamworker-proxy-secret"  # noqa: S105 - its name
_USER_HEADER = "x-forwarded-user"
_GROUPS_HEADER = "x-forwarded-groups"
_NAME_MAX_CHARS = 200
_PASSWORD_MAX_CHARS = 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is, and what they may do."""

    name: str
    role: Role
    via: str  # link | token | password | proxy | oidc


@dataclass(frozen=True, slots=True)
class TrustedProxy:
    """What has signed people in before they come here: it is in one of the networks, and knows the secret."""

    networks: Sequence[Network]
    secret: str = field(repr=False)


def new_token() -> str:
    """128 bits of chance."""
    return secrets.token_urlsafe(16)


def hashed(password: str) -> str:
    """What is kept of a password."""
    return PasswordHasher().hash(password)


class Access:
    """Knows accounts, a proxy, and a token that is good for one signing in."""

    def __init__(
        self,
        accounts: Sequence[Account] = (),
        *,
        proxy: TrustedProxy | None = None,
        once: tuple[str, Identity] | None = None,
    ) -> None:
        self._tokens = [account for account in accounts if account.has_token]
        self._passwords = {account.name: account for account in accounts if account.has_password}
        self._vouched = {(one.secret, one.name): one.role for one in accounts if one.secret in VOUCHING}
        self._proxy = proxy
        self._once = None if once is None else (token_digest(once[0]), once[1])
        self._hasher = PasswordHasher()
        # Somebody who is not known takes as long as somebody whose password is wrong.
        self._nobody = self._hasher.hash(new_token()) if self._passwords else ""

    @property
    def takes_passwords(self) -> bool:
        """Whether anybody has one."""
        return bool(self._passwords)

    @property
    def takes_tokens(self) -> bool:
        """Whether anybody has one, or there is one that was printed."""
        return bool(self._tokens) or self._once is not None

    def by_token(self, token: str) -> Identity | None:
        """Whose token it is. A printed one is good once."""
        digest = token_digest(token)
        matching = [account for account in self._tokens if hmac.compare_digest(account.secret, digest)]
        if matching:
            return Identity(matching[0].name, matching[0].role, "token")
        if self._once is not None and hmac.compare_digest(self._once[0], digest):
            (_, identity), self._once = self._once, None
            return identity
        return None

    def by_password(self, name: str, password: str) -> Identity | None:
        """Whose password it is. Blocks for about 50 ms, whoever it is."""
        account = self._passwords.get(name)
        kept = self._nobody if account is None else account.secret
        if not kept or len(password) > _PASSWORD_MAX_CHARS:
            return None
        try:
            self._hasher.verify(kept, password.encode("utf-8", "surrogatepass"))
        except (Argon2Error, InvalidHashError):
            return None
        return None if account is None else Identity(account.name, account.role, "password")

    def by_proxy(self, peer: str | None, headers: Mapping[str, str]) -> Identity | None:
        """Who the proxy says it is, if it is the proxy that says it."""
        proxy, user = self._proxy, headers.get(_USER_HEADER, "")
        if proxy is None:
            return None
        secret = headers.get(_SECRET_HEADER, "")
        if not within(peer, proxy.networks) or not hmac.compare_digest(secret.encode(), proxy.secret.encode()):
            return None
        return self.vouched(PROXY, user, headers.get(_GROUPS_HEADER, "").split(","))

    def vouched(self, by: str, name: str, groups: Iterable[str]) -> Identity | None:
        """Who `name` is, of whom a proxy or a provider tells. Without an account: a viewer; without a name: nobody."""
        name = name.strip()
        if not name or len(name) > _NAME_MAX_CHARS or not name.isprintable():
            return None
        known = [f"@{group.strip()}" for group in groups] + ([] if name.startswith("@") else [name])
        roles = [self._vouched[by, one] for one in known if (by, one) in self._vouched]
        return Identity(name, max(roles, default=Role.VIEWER), by)
