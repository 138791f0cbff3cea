"""Internet addresses: which are of the public Internet, and stand for no other. Pure."""

from __future__ import annotations

import ipaddress

_UNICAST = ipaddress.ip_network("2000::/3")  # all that IANA has given out as global unicast
_SPECIAL = tuple(  # of what is global as such: addresses of protocols, of examples, and those that stand for others
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_ISATAP = frozenset({0x5EFE, 0x0200_5EFE})  # RFC 5214 §6.1: the interface, before the IPv4 address that it embeds


def is_public(text: str) -> bool:
    """Whether an address is of the public Internet, and does not stand for another one by way of a gateway."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and (
        address not in _UNICAST or address.scope_id is not None or int(address) >> 32 & 0xFFFF_FFFF in _ISATAP
    ):
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _SPECIAL)


def is_address(host: str) -> bool:
    """Whether a host is an address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
