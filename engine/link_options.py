"""What all links of a party share, decided once by its configuration.

From the opener to the supervisor, and from there to every process that has to do with links, inside their control
messages. The one invariant: no key stands here, only the paths of files that hold keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from . import limits
from .channel.link_security import LinkSecurity  # noqa: TC001 - the types of fields are read at run time
from .socks_options import SocksOptions  # noqa: TC001 - as above


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """What all links of a party share. Times in seconds, sizes in bytes."""

    ring_size: int = 4 * 1024 * 1024
    control_ring_size: int = 256 * 1024
    bulk_ring_size: int = 4 * 1024 * 1024
    connect_timeout_s: float = limits.CONNECT_TIMEOUT_S
    heartbeat_interval_s: float = limits.HEARTBEAT_INTERVAL_S
    heartbeat_timeout_s: float = limits.HEARTBEAT_TIMEOUT_S
    close_timeout_s: float = limits.CLOSE_TIMEOUT_S
    message_size_max: int = limits.MESSAGE_SIZE_MAX
    parameter_digest: bytes = field(default=bytes(32), repr=False)
    """A digest of everything else that must be equal at all parties; compared in the handshake."""
    client_host: str | None = None
    """Local address to dial from, or None for whatever the routing table says."""
    socks: SocksOptions | None = None
    """The SOCKS5 proxy that peers are reached by, if there is one."""
    security: tuple[LinkSecurity, ...] = ()
    """What protects the link to each party, in index order, ours included; empty: no link is protected."""
    unidentified_max: int = limits.UNIDENTIFIED_MAX
    """Connections that the gateway keeps before they have shown whom they want."""
    substreams: bool = False
    """Whether the control connection of a link carries substreams, where the peer has them too."""
    identity_path: str = ""
    """File of the identity key, without which there are no substreams."""
    advertised: tuple[str, ...] = ()
    """Where peers of our node may dial us, as multiaddresses; part of what we sign about ourselves."""
    user_agent: str = ""
    features: int = 0
    """Also parts of it."""
    protocols: dict[str, str] = field(default_factory=dict)
    """What links serve to their peers without a worker: protocol id -> "module:function" (named_handlers.py)."""
