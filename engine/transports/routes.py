"""What a multiaddress asks for: who carries the bytes, from where to where, and what is laid over it. Without I/O.

    /ip4/10.0.0.1/tcp/7101          TCP                     /dns4/bob.example/tcp/443/tls/ws   TCP, then a WebSocket
    /unix/run/alice.sock            a unix socket           /onion3/<56>:7101                  Tor
    /memory/7                       within this process     .../p2p/<id>                       the same without it

The one invariant: a sequence of parts that is not listed in docs/transports.md is AddressNotSupported, whatever it is.
A trailing /p2p says who is there; that is the business of whoever dials.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from ..addresses import UNIX_PREFIX, parse_address
from ..multiaddr import Multiaddr
from .errors import AddressNotSupported

if TYPE_CHECKING:
    from ..multiaddr import Part


class Carrier(Enum):
    """Who carries the bytes."""

    TCP = "tcp"
    UNIX = "unix"
    MEMORY = "memory"
    ONION = "onion"


class Upgrade(Enum):
    """What is laid over the carrier's stream."""

    NONE = ""
    WS = "ws"
    WSS = "wss"


@dataclass(frozen=True, slots=True)
class Route:
    """How an address is reached."""

    carrier: Carrier
    host: str = ""
    """Of TCP a literal or a name, of UNIX as in `addresses`, of ONION the name with its `.onion`."""
    port: int = 0
    family: int = 0
    """Of a name: 4 or 6 if only addresses of that family are meant."""
    upgrade: Upgrade = Upgrade.NONE

    @property
    def is_name(self) -> bool:
        """Whether the host must be looked up before it can be connected to."""
        if self.carrier is not Carrier.TCP or self.host == "localhost":
            return False
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return True
        return False


_UPGRADES: Final = {("tls", "ws"): Upgrade.WSS, ("wss",): Upgrade.WSS, ("ws",): Upgrade.WS}
_NAMES: Final = {"dns": 0, "dns4": 4, "dns6": 6}


def route_of(address: Multiaddr, *, listening: bool = False) -> Route:
    """The route to an address; port 0 only when `listening`.

    Raises:
        AddressNotSupported: there is none.
    """
    parts = address.parts
    if parts[-1][0] == "p2p":
        parts = parts[:-1]
    upgrade = Upgrade.NONE
    for names, kind in _UPGRADES.items():
        if tuple(name for name, _ in parts[-len(names) :]) == names:
            parts, upgrade = parts[: -len(names)], kind
            break
    route = _carrier(parts, upgrade)
    if route is None or (upgrade is not Upgrade.NONE and route.carrier in (Carrier.UNIX, Carrier.MEMORY)):
        raise AddressNotSupported(str(address), "no transport here understands it; docs/transports.md lists them")
    if route.port == 0 and not listening and route.carrier is not Carrier.UNIX:
        raise AddressNotSupported(str(address), "0 stands for a free port, so it can be listened on only")
    return route


def _carrier(parts: tuple[Part, ...], upgrade: Upgrade) -> Route | None:
    match parts:
        case (("ip4" | "ip6", str(host)), ("tcp", int(port))):
            return Route(Carrier.TCP, host, port, 0, upgrade)
        case (("ip6zone", str(zone)), ("ip6", str(host)), ("tcp", int(port))):
            return Route(Carrier.TCP, f"{host}%{zone}", port, 0, upgrade)
        case (("dns" | "dns4" | "dns6" as kind, str(host)), ("tcp", int(port))):
            return Route(Carrier.TCP, host, port, _NAMES[kind], upgrade)
        case (("unix", str(path)),):
            return Route(Carrier.UNIX, f"{UNIX_PREFIX}{path}", 0, 0, upgrade)
        case (("memory", int(port)),):
            return Route(Carrier.MEMORY, "", port, 0, upgrade)
        case (("onion3", str(value)),):
            name, _, text = value.partition(":")
            return Route(Carrier.ONION, f"{name}.onion", int(text), 0, upgrade)
    return None


def tcp_address(host: str, port: int, upgrade: Upgrade = Upgrade.NONE) -> Multiaddr:
    """The multiaddress of a literal host, with its scope id if it has one."""
    literal, _, zone = host.partition("%")
    parts: list[Part] = [("ip6zone", zone)] if zone else []
    parts += [("ip6" if ":" in host else "ip4", literal), ("tcp", port)]
    if upgrade is not Upgrade.NONE:
        parts.append((upgrade.value, None))
    return Multiaddr(parts)


def peer_address(text: str, upgrade: Upgrade = Upgrade.NONE) -> Multiaddr:
    """The multiaddress of a stream's `peer_address`.

    Raises:
        ValueError: it is no address: the peer is gone, or has none.
    """
    return tcp_address(*parse_address(text), upgrade)
