"""Which host an address is of, as far as it takes to know a peer again by where its connections come from.

Between the addresses that a user gave for peers and those that connections have. The one invariant: two addresses are
of one host if they are equal once written alike, or if both are of this host; so `localhost`, 127.0.0.1, ::1 and the
address of this host's network card are one.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

from ..addresses import is_unix

if TYPE_CHECKING:
    from collections.abc import Iterable

THIS_HOST = ""
"""Stands for every address of this host."""


def host_of(address_text: str) -> str:
    """The host of "host:port" with a literal host, as `place_of` writes it."""
    return place_of(address_text.rpartition(":")[0].strip("[]"))


def place_of(literal: str) -> str:
    """A literal address as it is compared: THIS_HOST if it is one of ours, else its one spelling."""
    try:
        address = ipaddress.ip_address(literal.partition("%")[0])
    except ValueError:
        return THIS_HOST if is_unix(literal) or not literal else literal
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = mapped or address
    return THIS_HOST if address.is_loopback or _is_ours(str(address)) else str(address)


def places_of(literals: Iterable[str]) -> frozenset[str]:
    """`place_of` each of them."""
    return frozenset(place_of(literal) for literal in literals)


def _is_ours(literal: str) -> bool:
    """Whether this host has the address: the kernel lets nobody bind another one's."""
    family = socket.AF_INET6 if ":" in literal else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((literal, 0))
    except OSError:
        return False
    return True
