"""Which addresses a list of networks and addresses covers. Without I/O."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from ..multiaddr import Multiaddr

if TYPE_CHECKING:
    from collections.abc import Sequence


class AddressRules:
    """A list of IP networks (10.0.0.0/8) and of whole addresses (/ip4/10.0.0.1/tcp/22)."""

    def __init__(self, rules: Sequence[str]) -> None:
        """
        Raises:
            ValueError: a rule is neither.
        """
        self._addresses = frozenset(Multiaddr.parse(rule) for rule in rules if rule.startswith("/"))
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(
            ip_network(rule) for rule in rules if not rule.startswith("/")
        )

    def covers(self, address: Multiaddr) -> bool:
        """Whether the address is listed, or its host is in a network that is. Names are in none."""
        if address in self._addresses:
            return True
        value = address.value_of("ip4") or address.value_of("ip6")
        if value is None:
            return False
        host: IPv4Address | IPv6Address = ip_address(str(value))
        if isinstance(host, IPv6Address) and host.ipv4_mapped is not None:
            host = host.ipv4_mapped
        return any(host in network for network in self._networks)
