"""What the console is told once, when it starts.

Decided here: which hosts and origins are its own, and bounds. Frozen, any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network, IPv6Network

    Network = IPv4Network | IPv6Network

COLOURS = ("grey", "blue", "green", "yellow", "orange", "red", "purple")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleSettings:
    """Everything that is the same for all requests. Times are seconds."""

    origins: Sequence[str]  # as browsers name them: scheme, host, and the port unless it is the scheme's own
    environment: str = ""  # shown on every page, in `colour`
    colour: str = "grey"
    read_only: bool = False  # nothing can be changed, whoever asks
    proxies: Sequence[Network] = ()  # whose word on where a request comes from is believed
    only_from: Sequence[Network] = ()  # nobody else is answered, but this machine; empty: anybody
    max_record_bytes: int = 1024 * 1024  # of what a repair may make
    page_size: int = 50  # letters on a page
    query_timeout_s: float = 5.0  # of what only reads
    action_timeout_s: float = 60.0  # of what makes a plan or begins a run: a plan reads all letters that match
    most_at_once: int = 4  # calls of the desk; others wait
    most_waiting: int = 32
    session_s: float = 12 * 3600.0  # from signing in
    idle_s: float = 3600.0  # without a request
    tick_s: float = 1.0  # between two looks at an operation that somebody watches
    most_watching: int = 32
    watch_s: float = 600.0  # then the browser connects again

    @property
    def hosts(self) -> frozenset[str]:
        """What a Host header may say; anything else may be a name that somebody has pointed here."""
        return frozenset(urlsplit(origin).netloc for origin in self.origins)

    @property
    def secure(self) -> bool:
        """Whether people come by TLS: the first origin is theirs."""
        return self.origins[0].startswith("https:")

    @property
    def port(self) -> int:
        """Of the first origin. In names of cookies, because browsers keep those of all ports of a host in one place."""
        return urlsplit(self.origins[0]).port or (443 if self.secure else 80)


def own_origins(host: str, port: int, *, tls: bool, public_url: str = "") -> list[str]:
    """The origins of a console that listens on `host`; where people reach it at another URL, that is the first."""
    url = urlsplit(public_url)
    scheme, suffix = ("https", "" if port == 443 else f":{port}") if tls else ("http", "" if port == 80 else f":{port}")
    names = ["127.0.0.1", "localhost", "[::1]"] if is_loopback(host) else [f"[{host}]" if ":" in host else host]
    public = [f"{url.scheme}://{url.netloc.lower()}"] if public_url else []
    return [*public, *(f"{scheme}://{name}{suffix}" for name in names)]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def networks(text: str) -> list[Network]:
    """Networks in CIDR notation, separated by commas; raises ValueError."""
    return [ip_network(part.strip()) for part in text.split(",") if part.strip()]


def within(address: str | None, networks: Sequence[Network]) -> bool:
    """Whether `address` is in one of them."""
    try:
        found = ip_address(address or "")
    except ValueError:
        return False
    return any(found in network for network in networks)
