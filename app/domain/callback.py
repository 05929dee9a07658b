"""Where callbacks may go: never into the operator's own networks, unless the operator says so.

A URL is looked at when it is registered and before each request; the addresses that its host leads
to are looked at by whoever connects, who then connects to one of those very addresses.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from app.domain.errors import InvalidField
from app.domain.webhook_errors import CallbackRefused

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

MAX_URL_CHARS = 2000
DEFAULT_PORTS = {"https": 443, "http": 80}
FIRST_FREE_PORT = 1024  # below lie mail, shells and the like; web servers have 80 and 443
LOOPBACK = ip_address("127.0.0.1")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_AUTHORITY = re.compile(r"(?:[^:\[\]]*|\[[^\[\]]*:[^\[\]]*\])(?::[0-9]+)?")
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")

# Written out, because what `ipaddress` calls global differs between Python's versions.
_NOT_PUBLIC_4 = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "192.31.196.0/24", "192.175.48.0/24",  # AS112, which answers nobody
        "168.63.129.16/32",  # public, but a cloud's metadata server to the machines in it
    )
]  # fmt: skip
_PUBLIC_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = [
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocols' own, Teredo among them
        "2001:db8::/32", "3ffe::/16", "3fff::/20",
        "2620:4f:8000::/48",  # AS112
    )
]  # fmt: skip
_SIX_TO_FOUR, _NAT64 = IPv6Network("2002::/16"), IPv6Network("64:ff9b::/96")
_ISATAP = {0x00005EFE, 0x02005EFE}  # of an address's second half, before the IPv4 address
_COMPATIBLE = IPv6Network("::/96")
NOT_PUBLIC = "its host leads to an address that is not public"


@dataclass(frozen=True)
class Allowed:
    """What the operator lets through though it is not public."""

    networks: tuple[Network, ...] = ()
    names: frozenset[str] = frozenset()

    def has(self, host: str, address: Address) -> bool:
        return host in self.names or any(_bare(address) in network for network in self.networks)

    def may_be_plain(self, host: str, *, resolved_by_us: bool) -> bool:
        """Whether http may do, as far as can be told before the host is resolved."""
        address = literal(host)
        if address is not None:
            return self.has(host, address)
        return host in self.names or (resolved_by_us and bool(self.networks))


@dataclass(frozen=True)
class CallbackRules:
    """What the operator has set."""

    allowed: Allowed = Allowed()
    is_proxied: bool = False  # then the proxy resolves names, and judges their addresses


def parse_allowed(entries: Iterable[str]) -> Allowed:
    """Networks (`10.1.0.0/16`, or one address) and host names. Raises ValueError."""
    networks: list[Network] = []
    names: set[str] = set()
    for entry in entries:
        try:
            networks.append(ip_network(entry))
        except ValueError:
            if "/" in entry or not _is_name(entry.lower()):
                raise ValueError(f"{entry} is neither a network nor a host name") from None
            names.add(entry.lower())
    return Allowed(tuple(networks), frozenset(names))


# ---------------------------------------------------------------------------------------- addresses
def check_addresses(
    host: str, addresses: Sequence[Address], allowed: Allowed, *, is_plain: bool
) -> None:
    """All of them, because which one answers is not ours to choose. Raises CallbackRefused."""
    if not addresses:
        raise CallbackRefused(reason="its host has no address")
    are_allowed = [allowed.has(host, address) for address in addresses]
    if not all(ok or is_public(at) for ok, at in zip(are_allowed, addresses, strict=True)):
        raise CallbackRefused(reason=NOT_PUBLIC)  # nor which: that would tell of our networks
    if is_plain and not all(are_allowed):
        raise CallbackRefused(reason="http goes to addresses that the operator allows, alone")


def is_public(address: Address) -> bool:
    """Whether it is some machine of the internet's, also by what it wraps."""
    bare = _bare(address)
    if isinstance(bare, IPv4Address):
        return not any(bare in network for network in _NOT_PUBLIC_4)
    wrapped = _wrapped(bare)
    if wrapped is not None:
        return is_public(wrapped)
    if int(bare) >> 32 & 0xFFFFFFFF in _ISATAP:  # a tunnel into somebody's own network
        return False
    return bare in _PUBLIC_6 and not any(bare in network for network in _NOT_PUBLIC_6)


def _bare(address: Address) -> Address:
    """An IPv4-mapped address is the IPv4 address: the system connects to that."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _wrapped(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a gateway would send it on to."""
    number = int(address)
    if address in _NAT64 or address in _COMPATIBLE:
        return IPv4Address(number & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return IPv4Address((number >> 80) & 0xFFFFFFFF)
    return None


# --------------------------------------------------------------------------------------------- URLs
def check_url(url: str, rules: CallbackRules) -> str:
    """Scheme, syntax, port, and an address where it names one. Raises InvalidField("url")."""
    parts = _split(url)
    host = _check_host(parts)
    port = _port(parts)
    if port not in DEFAULT_PORTS.values() and not FIRST_FREE_PORT <= port <= 65535:
        raise _refused(f"the port must be 80, 443 or {FIRST_FREE_PORT} to 65535")
    address = LOOPBACK if host == "localhost" else literal(host)
    allowed = rules.allowed
    if address is not None and not (is_public(address) or allowed.has(host, address)):
        raise _refused("its address is not public")
    if parts.scheme == "http" and not allowed.may_be_plain(
        host, resolved_by_us=not rules.is_proxied
    ):
        raise _refused("must be https")
    return url


def literal(host: str) -> Address | None:
    """The address that a URL's host is, None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _split(url: str) -> SplitResult:
    """Only what every reader of URLs reads alike."""
    if not url or len(url) > MAX_URL_CHARS:
        raise _refused(f"must have 1 to {MAX_URL_CHARS} characters")
    if not all("!" <= char <= "~" for char in url) or "\\" in url:
        raise _refused("must be printable ASCII without spaces and backslashes")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _refused("is not a URL") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise _refused("must be https")
    if "@" in parts.netloc:
        raise _refused("must not hold credentials")
    if "#" in url:
        raise _refused("must not have a fragment")
    return parts


def _check_host(parts: SplitResult) -> str:
    """Lower case. The spellings that resolvers take for addresses (`2130706433`, `0x7f.1`,
    `127.1`, `0177.0.0.1`) are refused: an address is four decimal numbers, or IPv6 in brackets."""
    host = parts.hostname or ""
    if not _AUTHORITY.fullmatch(parts.netloc):
        raise _refused("its host and port cannot be read")
    if ":" in host:
        if "%" in host or literal(host) is None:
            raise _refused("its IPv6 address cannot be read")
        return host
    if not _is_name(host):
        raise _refused("its host is no name that can be looked up")
    if _NUMBER.fullmatch(host.rsplit(".", 1)[-1]) and literal(host) is None:
        raise _refused("an IPv4 address must be written as four decimal numbers")
    return host


def _is_name(host: str) -> bool:
    return _NAME.fullmatch(host) is not None


def _port(parts: SplitResult) -> int:
    try:
        return DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    except ValueError:
        raise _refused("its port cannot be read") from None


def _refused(reason: str) -> InvalidField:
    return InvalidField(field="url", reason=reason)
