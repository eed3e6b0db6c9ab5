"""Signing in at an OpenID provider: its code flow, with PKCE. The door to joserfc.

Decides what a provider's word has to be like to be believed. The event loop owns who is on their way there; what asks
the provider blocks, and is called on other threads.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from collections import OrderedDict
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import httpx2
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from streamworker.console.providers import FLOW_S, Endpoints, Flow, NotBelieved, ProviderFailed, is_safe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.console.providers import Provider

_MOST_FLOWS = 1000
_TIMEOUT_S = 5.0
_LEEWAY_S = 60
_ALGORITHMS = ("RS256", "PS256", "ES256")  # those of public keys: what is signed by a shared secret proves nothing here


class Oidc:
    """One provider, and who is on their way."""

    def __init__(self, provider: Provider, clock: Clock) -> None:
        self._provider = provider
        self._clock = clock
        self._flows: OrderedDict[str, Flow] = OrderedDict()  # by state, the oldest first
        self._endpoints: Endpoints | None = None

    @property
    def host(self) -> str:
        """Where people sign in, for the button."""
        return urlsplit(self._provider.issuer).netloc

    def endpoints(self) -> Endpoints:
        """Blocks the first time; raises ProviderFailed."""
        if self._endpoints is None:
            issuer = self._provider.issuer
            found = _ask("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
            if found.get("issuer") != issuer:
                raise ProviderFailed(f"it says that it is {found.get('issuer')!r}, and {issuer!r} is configured")
            names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
            self._endpoints = Endpoints(*(_checked(name, found.get(name)) for name in names))
        return self._endpoints

    def begin(self, endpoints: Endpoints, wanted: str) -> tuple[str, str]:
        """Where to send somebody, and what their cookie is to say, so that nobody else ends what they began."""
        state, nonce, verifier, cookie = (secrets.token_urlsafe(32) for _ in range(4))
        self._flows[state] = Flow(cookie, nonce, verifier, wanted, self._clock.monotonic_s() + FLOW_S)
        while len(self._flows) > _MOST_FLOWS:
            self._flows.popitem(last=False)
        challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self._provider.client_id,
            "redirect_uri": self._provider.redirect_url,
            "scope": self._provider.scope,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in endpoints.authorization else "?"
        return f"{endpoints.authorization}{joint}{urlencode(asked)}", cookie

    def take(self, state: str, cookie: str | None) -> Flow | None:
        """Who has come back, once, in time, and in the browser that was sent."""
        flow = self._flows.get(state)
        if flow is None or not hmac.compare_digest(flow.cookie.encode(), (cookie or "").encode()):
            return None
        del self._flows[state]
        return flow if self._clock.monotonic_s() < flow.until_s else None

    def named(self, flow: Flow, code: str) -> tuple[str, Sequence[str]]:
        """The name and the groups of who has come back with `code`; blocks. Raises ProviderFailed and NotBelieved."""
        endpoints, provider = self.endpoints(), self._provider
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": provider.redirect_url,
            "code_verifier": flow.verifier,
        }
        answer = _ask("POST", endpoints.token, form, (provider.client_id, provider.client_secret))
        claims = self._claims(str(answer.get("id_token", "")), _ask("GET", endpoints.keys), flow.nonce)
        name, groups = claims.get(provider.name_claim), claims.get(provider.groups_claim)
        if not isinstance(name, str):
            raise NotBelieved(f"it says no {provider.name_claim}")
        if provider.name_claim == "email" and claims.get("email_verified") is not True:
            raise NotBelieved("it has not verified the address")
        return name, [one for one in groups if isinstance(one, str)] if isinstance(groups, list) else []

    def _claims(self, token: str, keys: Mapping[str, object], nonce: str) -> Mapping[str, object]:
        provider = self._provider
        registry = jwt.JWTClaimsRegistry(
            now=self._clock.wall_ms() // 1000,
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": provider.issuer},
            aud={"essential": True, "value": provider.client_id},
            nonce={"essential": True, "value": nonce},
            exp={"essential": True},
            iat={"essential": True},
        )
        try:
            key_set = KeySet.import_key_set(keys)  # type: ignore[arg-type]  # it says itself if it is none
            claims: Mapping[str, object] = jwt.decode(token, key_set, algorithms=_ALGORITHMS).claims
            registry.validate(dict(claims))
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise NotBelieved(f"its token is not good: {error}") from error
        if claims.get("azp", provider.client_id) != provider.client_id:
            raise NotBelieved("its token was made for somebody else")
        return claims


def _checked(name: str, url: object) -> str:
    if not isinstance(url, str) or not is_safe(url):
        raise ProviderFailed(f"its {name} is {url!r}; expected an address that begins with https://")
    return url


def _ask(
    method: str, url: str, form: Mapping[str, str] | None = None, credentials: tuple[str, str] | None = None
) -> Mapping[str, object]:
    try:
        with httpx2.Client(timeout=_TIMEOUT_S, trust_env=False, auth=credentials) as client:
            answer = client.request(method, url, data=form, headers={"accept": "application/json"})
        answer.raise_for_status()
        found = answer.json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise ProviderFailed(str(error)) from error
    if not isinstance(found, dict):
        raise ProviderFailed(f"{url} answers with no JSON object")
    return found
