"""What a router can be told: the SOCKS5 proxy and what goes through it, and how WebSockets are opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from .errors import AddressNotSupported
from .routes import Carrier, Upgrade, route_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from ..multiaddr import Multiaddr
    from .socks import SocksCredentials


class ProxyScope(Enum):
    """What goes through the proxy."""

    ONION = "onion"  # onion addresses, and look-ups of names by Tor's RESOLVE; other connections are made directly
    ALL = "all"  # every address of TCP and onion services; names are looked up by the proxy


@dataclass(frozen=True, slots=True)
class SocksProxy:
    """A SOCKS5 proxy, Tor's for instance."""

    address: Multiaddr
    """/ip4/127.0.0.1/tcp/9050, or a unix socket. A name here is looked up by this host's own resolver."""
    credentials: SocksCredentials | None = None
    scope: ProxyScope = ProxyScope.ONION
    is_direct: Callable[[Multiaddr], bool] | None = None
    """Addresses that are dialled, and looked up, without the proxy in spite of all. Never asked about onion ones."""

    def __post_init__(self) -> None:
        """Raises AddressNotSupported if a proxy cannot be dialled there."""
        route = route_of(self.address)
        if route.carrier not in (Carrier.TCP, Carrier.UNIX) or route.upgrade is not Upgrade.NONE:
            raise AddressNotSupported(str(self.address), "a SOCKS5 proxy is reached over TCP or a unix socket")


@dataclass(frozen=True, slots=True)
class WebSocketSettings:
    """How WebSockets are opened and accepted."""

    path: str = "/"
    """Of the request; any other is refused."""
    client_context: ssl.SSLContext | None = None
    """For dialling /wss; without one, the issuers of certificates that this system trusts."""
    server_context: ssl.SSLContext | None = None
    """For listening on /wss, with the certificate of this host; without one that is AddressNotSupported."""

    def __post_init__(self) -> None:
        """Raises ValueError if `path` is no path, or a context is of the other end."""
        if not self.path.startswith("/") or not all("!" <= character <= "~" for character in self.path):
            raise ValueError(f"{self.path[:40]!r} is not the path of a WebSocket, as in /party")
        for name, context in (("CLIENT", self.client_context), ("SERVER", self.server_context)):
            # By its name, because importing ssl takes longer than all of this.
            if context is not None and context.protocol.name not in ("PROTOCOL_TLS", f"PROTOCOL_TLS_{name}"):
                raise ValueError(f"{name.lower()}_context is an SSLContext of {context.protocol.name}")


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """Everything that a router can be told."""

    socks: SocksProxy | None = None
    websocket: WebSocketSettings = field(default_factory=WebSocketSettings)
