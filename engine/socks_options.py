"""What links are told about the SOCKS5 proxy on their way. Without I/O; the password stays in its file.

Imported by every party, so it knows nothing of how a proxy is asked (`transports/`), which only a party with one
imports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SCOPES: Final = ("onion", "all")
"""What goes through the proxy, as in `transports.settings.ProxyScope`."""


@dataclass(frozen=True, slots=True)
class SocksOptions:
    """A SOCKS5 proxy."""

    address: str
    """A multiaddress, over TCP or a unix socket."""
    scope: str = SCOPES[0]
    username: str = ""
    password_path: str = ""
    """The file of the password that goes with it; empty: none is offered."""
