"""Which addresses a webhook may have: public ones, and what the operator allows by name. Pure.

Whoever creates a webhook has this process send requests for them (server-side request forgery), so it
must not reach what only this process can reach: its own machine, the network behind it, the metadata
service of a cloud. The table is that of IANA's special-purpose registries (RFC 6890), in three parts:
what Python knows to be not global, what it takes for global, and IPv6 addresses that are another way to
write an IPv4 address, which are judged by that.
"""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NOT_GLOBAL: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # this host on this network, RFC 1122: Linux connects it to itself
        "100.64.0.0/10",  # behind a carrier's NAT, RFC 6598
        "192.0.0.0/24",  # protocol assignments, RFC 6890
        "192.88.99.0/24",  # 6to4 relays, RFC 7526: deprecated
        "198.18.0.0/15",  # benchmarks, RFC 2544
        "224.0.0.0/4",  # multicast, RFC 5771
        "240.0.0.0/4",  # reserved, RFC 1112; with the broadcast address
        "2001::/23",  # protocol assignments, RFC 2928; with Teredo
        "3fff::/20",  # documentation, RFC 9637
    )
)
"""Beside what ``ipaddress`` says is not global, which depends on the version of Python."""

_NAT64: Final = IPv6Network("64:ff9b::/96")
"""Well-known prefix of translation to IPv4, RFC 6052."""

_UNICAST: Final = IPv6Network("2000::/3")
"""All of IPv6 that was ever given out as global unicast: loopback, link-local, private, multicast and the
IPv4-compatible ones are elsewhere."""


class AddressRefused(OSError):
    """An address that no webhook may have. An OSError, as that is what a connection fails with."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address} is not a public address; ORDERFLOW_WEBHOOK_ALLOWED_NETWORKS can allow it"
        )


def check(text: str, allowed: Sequence[Network]) -> None:
    """Raises AddressRefused for an address, as a resolver gives it, that may not be connected to."""
    try:
        address = ip_address(text)
    except ValueError:
        raise AddressRefused(text) from None
    meant = list(_meant_by(address))
    if any(each in network for each in meant for network in allowed):
        return
    if not all(map(_is_public, meant)):
        raise AddressRefused(text)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return address in _NAT64
    return address.is_global and not any(address in network for network in NOT_GLOBAL)


def _meant_by(address: Address) -> Iterator[Address]:
    """The addresses that the packets can end at."""
    if isinstance(address, IPv4Address):
        yield address
        return
    mapped = address.ipv4_mapped
    if mapped is not None:
        yield mapped
        return
    # An interface does not make an address another one.
    bare = IPv6Address(int(address))
    yield bare
    if bare in _NAT64:
        yield IPv4Address(int(bare) & 0xFFFF_FFFF)
    if bare.sixtofour is not None:
        yield bare.sixtofour
