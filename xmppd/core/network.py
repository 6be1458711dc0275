"""What counts as one address in every limit on addresses."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address


@lru_cache(maxsize=4096)
def network_of(peer: str) -> str:
    """The address of a client, or of IPv6 the /64 that a customer is given, as "2001:db8:0:1::/64"; IPv4
    within IPv6 is IPv4. What is no address stands for itself.
    """
    if ":" not in peer:
        return peer
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address) >> 64 << 64, 64)))
