"""The connections of a node as its configuration asks for them: what a node in a program and that of a party share.

Between NodeConfig and whoever builds on the connections (peer_node.py, node_process.py). The one invariant: what was
set up is ended in the opposite order, however far it came.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from partywire.engine.multiaddr import Multiaddr
from partywire.engine.named_handlers import load_handlers
from partywire.engine.peers.connections import PeerConnections

from .ground import load_identity, make_transports, open_book

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from partywire.engine.transports import Switchboard, TransportSettings

    from .config import NodeConfig
    from .ground import Book


class Standing(NamedTuple):
    """What a node stands on."""

    book: Book
    peers: PeerConnections


@asynccontextmanager
async def set_up(
    config: NodeConfig, settings: TransportSettings | None = None, switchboard: Switchboard | None = None
) -> AsyncGenerator[Standing, None]:
    """Everything but listening: identity, book, connections; the peers and handlers that the configuration names.

    Raises:
        CredentialError: the file of the identity, or of a password, cannot be used.
        PeerStoreError: the store cannot be used.
        HandlerNotLoaded: a handler that `protocols` names is not there.
        ValueError: what we say about ourselves breaks a limit of claims.
    """
    identity = await asyncio.to_thread(load_identity, config)
    transports = make_transports(config, settings, switchboard)
    async with (
        open_book(config) as book,
        PeerConnections(
            identity, transports, book, config.options, user_agent=config.user_agent, features=config.features
        ) as peers,
    ):
        for protocol, handler in load_handlers(config.protocols).items():
            peers.serve(protocol, handler)
        for peer_id, addresses in config.peers.items():
            book.add(peer_id, addresses)
        if config.advertise is not None:
            peers.advertise(config.advertise)
        yield Standing(book, peers)


async def listen(config: NodeConfig, peers: PeerConnections) -> list[Multiaddr]:
    """Listen wherever the configuration says, also at an onion service. Returns the addresses, with real ports.

    Raises:
        ListenError: an address is in use, or not ours.
        TransportError: Tor cannot be reached, or does not take the onion service; a library is missing.
    """
    addresses = list(config.listen)
    if config.onion is not None:
        addresses.append(Multiaddr.parse(config.onion.control))
    return [await peers.listen(address) for address in addresses]
