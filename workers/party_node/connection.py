"""The connection to one peer as the opener of a party has it: a PeerConnection whose bytes go by way of a bridge.

Between users of the control plane and the process that has the connection. The one invariant: it is the connection of
one number on one bridge, so what is asked of it after its end fails and never reaches the next one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from partywire.engine.multiaddr import Multiaddr
from partywire.engine.negotiation import NegotiationFailed
from partywire.engine.peers.claims import PeerClaim
from partywire.engine.peers.contract import Direction
from partywire.engine.worker_bridge.heads import Disconnect, Open, Ping
from partywire.engine.yamux.errors import SubstreamSessionOver

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from partywire.engine.peers.peer_id import PeerId
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter
    from partywire.engine.worker_bridge.heads import ConnectionNote

    from .bridge_end import BridgeEnd


class BridgedConnection:
    """As PeerConnection. Its coroutines run under whatever drives the party."""

    def __init__(self, bridge: BridgeEnd, note: ConnectionNote) -> None:
        self.number = note.number
        self.direction = Direction(note.direction)
        self.address = Multiaddr.parse(note.address)
        self.claim = claim_of(note.claim)
        self.name = bridge.name
        """The party at the other end of the link that carries it; empty if none does."""
        self.is_over = False
        self.since: Final = bridge.clock()
        """When we heard of it, on the worker's clock."""
        self._bridge = bridge
        self._cause = ""
        self._closed: asyncio.Future[str] | None = None

    @property
    def peer_id(self) -> PeerId:
        """Who the peer is."""
        return self.claim.peer_id

    @property
    def public_key(self) -> bytes:
        """The peer's public identity key."""
        return self.claim.public_key

    @property
    def peer(self) -> str:
        """What errors call the peer: the name of a party, or its id."""
        return self.name or str(self.peer_id)

    @property
    def closed(self) -> asyncio.Future[str]:
        """Done when the connection is over, with the cause.

        Raises:
            NeedsAsyncio: no loop drives the party.
        """
        if self._closed is None:
            self._closed = self._bridge.create_future()
            if self.is_over:
                self._closed.set_result(self._cause)
        return self._closed

    def __repr__(self) -> str:
        return f"<connection to {self.peer}, {self.direction.value}>"

    async def open(
        self, protocols: Sequence[str], *, timeout_s: float | None = None
    ) -> tuple[str, SubstreamReader, SubstreamWriter]:
        """As PeerConnection.open; NegotiationTimedOut also when there is no answer within `timeout_s`.

        For what the peer says it serves nothing is waited for: what would be raised here, the first read raises. A
        party whose link came up just now may serve what it has not said yet, so it is asked for a moment.
        """
        head = Open(tuple(protocols), "", self.number)
        known = next((protocol for protocol in protocols if protocol in self.claim.protocols), None)
        while True:
            try:
                if known is not None and not self.is_over:
                    return known, *await self._bridge.open_known(self, known)
                protocol, _, reader, writer = await self._bridge.open(head, self.peer, timeout_s)
                return protocol, reader, writer
            except SubstreamSessionOver as error:
                self._bridge.is_over(self, error.cause)
                raise
            except NegotiationFailed:
                if not self.name or not await self._bridge.may_serve_soon(self, protocols):
                    raise

    async def ping(self) -> float:
        """As PeerConnection.ping."""
        try:
            return (await self._bridge.ask_done(Ping(self.number))).value
        except SubstreamSessionOver as error:
            self._bridge.is_over(self, error.cause)
            raise

    async def aclose(self) -> None:
        """As PeerConnection.aclose."""
        if not self.is_over:
            await self._bridge.ask_done(Disconnect(self.number))
            self._bridge.is_over(self, "")  # the news of it may be behind the answer, and nobody is to find it again

    def was_ended(self, cause: str) -> None:
        """For the bridge: it is over."""
        if not self.is_over:
            self.is_over = True
            self._cause = cause
            if self._closed is not None and not self._closed.done():
                self._closed.set_result(cause)


def claim_of(encoded: bytes) -> PeerClaim:
    """What the process that has the connection knows of its peer; it has judged the claim, so time is none of ours.

    Raises:
        LinkProtocolError: it is none.
    """
    return PeerClaim.decode_untrusted(encoded, math.inf, is_local=True)
