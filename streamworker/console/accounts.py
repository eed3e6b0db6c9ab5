"""Who may sign in, as a file says it: a line `NAME ROLE SECRET` for each, and what follows a # is for people.

Decided here: the form. A secret is the SHA-256 of a token, a password as argon2 has hashed it, or who vouches for the
name: `proxy`, in front of the console, or `oidc`, an OpenID provider. A name that begins with @ is a group that one of
those names. Pure, any thread.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from streamworker.bounds import one_of
from streamworker.errors import ConfigurationError
from streamworker.replay.desk import Role

PROXY = "proxy"
OIDC = "oidc"
VOUCHING = (PROXY, OIDC)
_TOKEN = re.compile(r"sha256:[0-9a-f]{64}")
_PASSWORD = "$argon2"  # noqa: S105 - how a hash begins
_ROLES = tuple(role.name.lower() for role in Role)


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody, or a group of those who vouch."""

    name: str
    role: Role
    secret: str

    @property
    def has_token(self) -> bool:
        """Whether its secret is the digest of a token."""
        return self.secret.startswith("sha256:")

    @property
    def has_password(self) -> bool:
        """Whether its secret is the hash of a password."""
        return self.secret.startswith(_PASSWORD)

    def __repr__(self) -> str:
        return f"<Account {self.name} {self.role.name.lower()}>"


def read_accounts(text: str, source: str) -> list[Account]:
    """Those that `text` names; raises ConfigurationError with the line of `source` that cannot be meant."""
    found: dict[tuple[str, str], Account] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        where = f"{source}, line {number}"
        account = _account(words, where)
        kind = account.secret if account.secret in VOUCHING else ""
        if (account.name, kind) in found:
            raise ConfigurationError(f"{where}: there is a line for {account.name!r} already")
        found[account.name, kind] = account
    return list(found.values())


def role_of(name: str, where: str) -> Role:
    """The role called `name`; raises ConfigurationError."""
    one_of(where, name, _ROLES)
    return Role[name.upper()]


def token_digest(token: str) -> str:
    """What is kept of a token. It has 128 bits of chance, so nobody finds it from its digest."""
    return f"sha256:{hashlib.sha256(token.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _account(words: list[str], where: str) -> Account:
    if len(words) != 3:
        raise ConfigurationError(f"{where}: expected NAME ROLE SECRET, got {len(words)} words")
    name, role, secret = words
    if not (_TOKEN.fullmatch(secret) or secret.startswith(_PASSWORD) or secret in VOUCHING):
        raise ConfigurationError(
            f"{where}: expected a secret as `streamworker console-account` prints it (sha256:… or $argon2…),"
            f" or one of the words {', '.join(VOUCHING)}"
        )
    if name.startswith("@") and secret not in VOUCHING:
        raise ConfigurationError(f"{where}: {name!r} is a group, of which only {' or '.join(VOUCHING)} can tell")
    return Account(name, role_of(role, where), secret)
