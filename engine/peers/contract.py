"""What the parts of a node promise each other: protocols above the connections, an address book and transports below.

Above stand messaging, RPC and protocols of users: they get connections to peers by id, open substreams, and serve the
protocols that they registered. Below stand whoever knows addresses, and whoever dials them. The one invariant: a
`PeerConnection` is there only for a peer that proved to hold the identity key of its id, and that is not banned.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import asyncio
    import random
    from collections.abc import Awaitable, Callable, Sequence

    from ..multiaddr import Multiaddr
    from ..substreams.streams import SubstreamReader, SubstreamWriter
    from ..transport import Stream
    from .claims import PeerClaim
    from .events import EventSubscription
    from .peer_id import PeerId
    from .selection import Selection


class Direction(Enum):
    """Who dialled."""

    DIALLED = "dialled"
    ACCEPTED = "accepted"


class PeerConnection(Protocol):
    """The connection to one peer. Of one event loop."""

    @property
    def peer_id(self) -> PeerId:
        """Who the peer is."""

    @property
    def public_key(self) -> bytes:
        """The peer's public identity key (Ed25519), 32 bytes."""

    @property
    def direction(self) -> Direction:
        """Who dialled."""

    @property
    def address(self) -> Multiaddr:
        """Where the peer was dialled, or from where it dialled us."""

    @property
    def claim(self) -> PeerClaim:
        """The latest that the peer signed about itself: addresses, features, protocols, user agent."""

    @property
    def closed(self) -> asyncio.Future[str]:
        """Done when the connection is over, with the cause; empty after a goodbye of ours. Not to be cancelled."""

    async def open(self, protocols: Sequence[str]) -> tuple[str, SubstreamReader, SubstreamWriter]:
        """A new substream, for the first of `protocols` (1 to 5, in order of preference) that the peer serves.

        An id that the peer said it serves is not asked for: nothing is waited for, and if it serves it no more the
        substream is reset. The caller ends the substream with `writer.close()` or `writer.reset()`.

        Raises:
            NegotiationFailed: it serves none of them.
            NegotiationTimedOut: it did not answer in time.
            LinkProtocolError: it answered with what is no answer; the peer is banned for it.
            SubstreamRefused, SubstreamReset, SubstreamSessionOver: as substreams raise them.
        """

    async def ping(self) -> float:
        """The round trip in seconds.

        Raises:
            SubstreamSessionOver: no answer came in time, or the connection is gone.
        """

    async def aclose(self) -> None:
        """Say goodbye, let open substreams end for a moment, and close."""


ProtocolHandler: TypeAlias = "Callable[[PeerConnection, SubstreamReader, SubstreamWriter], Awaitable[None]]"
"""Serves one substream. Runs in a task of its own, which is cancelled when we close the connection, and a moment after
the peer did; when it returns the substream is closed, when it raises the substream is reset and the log says so. What
substreams raise, and a LinkProtocolError of this peer, it may let pass: the first is no failure of its own, the second
bans the peer."""


def decorator_of(
    serve: Callable[[str, ProtocolHandler], object], protocol: str
) -> Callable[[ProtocolHandler], ProtocolHandler]:
    """What decorates the handler of `protocol`: it is served, and stays what it was."""

    def register(handler: ProtocolHandler) -> ProtocolHandler:
        serve(protocol, handler)
        return handler

    return register


class PeerAccess(Protocol):
    """Connections to peers by id, and protocols for them: all that messages and calls need. Of one event loop."""

    @property
    def peer_id(self) -> PeerId:
        """Who we are."""

    async def connect(self, peer_id: PeerId) -> PeerConnection:
        """The connection to the peer: the one that stands, or a new one. Callers at the same time share one dial; when
        the last of them is cancelled, so is the dial.

        Raises:
            PeerNotKnown: no address of the peer is known.
            PeerIsBanned: we banned it.
            PeerNotReached: every attempt failed.
            ConnectionsClosed: the node has ended.
        """

    def connection_to(self, peer_id: PeerId) -> PeerConnection | None:
        """The connection that stands, if any."""

    @property
    def connections(self) -> Sequence[PeerConnection]:
        """Those that stand."""

    def serve(self, protocol: str, handler: ProtocolHandler) -> None:
        """Serve every substream that a peer opens for `protocol`. Connected peers are told that we do.

        Raises:
            ValueError: the id has more than 255 bytes or none, or is served already.
        """

    def protocol(self, protocol: str) -> Callable[[ProtocolHandler], ProtocolHandler]:
        """`serve` as a decorator."""

    def unserve(self, protocol: str) -> None:
        """Serve it no more; substreams that are open go on."""

    def events(self, size_max: int = ...) -> EventSubscription:
        """Hear of everything that happens from now on; with more than `size_max` waiting, the oldest give way to a
        `Lagged` that says how many they were."""


class ConnectionManager(PeerAccess, Protocol):
    """All connections of a node. Of one event loop."""

    async def ban(self, peer_id: PeerId, reason: str, duration_s: float) -> None:
        """Close the connection to the peer, and neither dial nor accept it for `duration_s` (infinity: for good)."""

    def unban(self, peer_id: PeerId) -> bool:
        """Whether there was a ban."""

    async def aclose(self) -> None:
        """Say goodbye to all peers and end everything."""


@dataclass(frozen=True, slots=True)
class Ban:
    """Why a peer is not wanted, and until when."""

    reason: str
    until: float
    """Seconds since the epoch; infinity: for good."""


class AddressBook(Protocol):
    """Who is known, where, and how well each address served. Calls return at once; what they say must outlive the node
    only as far as the implementation promises it. Times are seconds since the epoch."""

    def claim_of(self, peer_id: PeerId) -> PeerClaim | None:
        """The latest claim of a peer, if it ever was connected (or told about)."""

    def peer_of_noise_key(self, noise_key: bytes) -> PeerId | None:
        """Who claimed this static key of Noise."""

    def addresses_of(self, peer_id: PeerId) -> Sequence[Multiaddr]:
        """Where the peer may be dialled, the best first by what past dials had to say."""

    def find(self, selection: Selection, limit: int, chance: random.Random) -> Sequence[PeerId]:
        """At most `limit` of those peers that fit, have a known address, and are neither banned nor removed."""

    def learn(self, claim: PeerClaim) -> None:
        """Keep what a peer signed about itself, which was verified, unless a later claim is there."""

    def dial_succeeded(self, peer_id: PeerId, address: Multiaddr, latency_s: float) -> None:
        """The peer was reached there, after `latency_s`."""

    def dial_failed(self, peer_id: PeerId, address: Multiaddr, cause: str) -> None:
        """The peer was not reached there."""

    def ban_of(self, peer_id: PeerId) -> Ban | None:
        """The ban that holds now."""

    def ban(self, peer_id: PeerId, ban: Ban) -> None:
        """Ban a peer, which need not be known otherwise; a longer ban that holds already stays."""

    def unban(self, peer_id: PeerId) -> bool:
        """Whether there was a ban."""


class Listening(Protocol):
    """One address that is listened on."""

    @property
    def address(self) -> Multiaddr:
        """Where, with the real port."""

    def close(self) -> None:
        """Accept no more."""


class Transports(Protocol):
    """Reaches addresses and is reached at them; `engine.transports.Router` is one."""

    async def dial(self, address: Multiaddr, timeout_s: float) -> Stream:
        """A connected stream.

        Raises:
            OSError: refused, unreachable, or not answered in time (TimeoutError).
            PartyWireError: no transport understands the address.
        """

    async def listen(self, address: Multiaddr, on_accept: Callable[[Stream, Multiaddr], object]) -> Listening:
        """Accept streams; `on_accept` gets each with where it came from.

        Raises:
            OSError: the address is in use, or is not ours.
            PartyWireError: no transport understands the address.
        """
