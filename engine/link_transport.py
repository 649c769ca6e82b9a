"""What the links of a party are dialled with.

Between whoever dials a peer and the transports. The one invariant: a party without a proxy imports nothing of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .tcp import TcpTransport

if TYPE_CHECKING:
    import asyncio

    from .link_options import LinkOptions
    from .transport import Transport


def transport_of(loop: asyncio.AbstractEventLoop, options: LinkOptions) -> Transport:
    """Of one event loop, for any number of links with these options."""
    if options.socks is None:
        return TcpTransport(loop)
    from .transports.proxied import ProxiedTransport  # only here: it imports much that a party does not need

    return ProxiedTransport(loop, options.socks)
