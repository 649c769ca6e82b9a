"""LinkPeers: connections to peers, of which there is exactly one: the peer of a link, over its control connection.

Between the keeper of a link, which has a connection for each epoch in which both ends carry substreams, and everything
that is written against contract.ConnectionManager: protocols in the I/O process, and the bridge to the workers. The one
invariant: a connection stands here only while the link does and its peer has proven, on this link and in this epoch, to
hold the key of its id. Whatever happens here, short of a violation of yamux, the link and its sessions go on: a peer
that is banned, or whose identity is refused, has no substreams, and that is all.

It outlives the link's epochs. Each ends every substream and the connection above them; `connect` gives the next one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..addresses import is_unix, parse_address
from ..commands import LinkClaimed
from ..link_addresses import multiaddr_of
from ..multiaddr import Multiaddr
from ..peers.claims import ADDRESSES_MAX, fault_of_address
from ..peers.connection import EstablishedConnection
from ..peers.contract import Ban, Direction, decorator_of
from ..peers.counters import PeerCounters
from ..peers.errors import ConnectionsClosed, PeerIsBanned, PeerNotKnown, PeerNotReached, RefusalCode, UpgradeFailed
from ..peers.events import (
    EVENTS_MAX,
    EventHub,
    InboundFailed,
    PeerBanned,
    PeerConnected,
    PeerConnectFailed,
    PeerDisconnected,
    PeerUpdated,
)
from ..peers.identity import NodeIdentity
from ..peers.identity_exchange import IdentityMessage
from ..peers.introductions import introduce_accepted, introduce_dialled
from ..peers.options import PeerOptions
from ..peers.own_claim import OwnClaim
from .application import ApplicationSubstreams
from .errors import NoControlPlane
from .introduction import LINK_IDENTITY_PROTOCOL, LinkIdentityReader, LinkProof

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from ..errors import LinkProtocolError
    from ..link_options import LinkOptions
    from ..peers.claims import PeerClaim
    from ..peers.contract import PeerConnection, ProtocolHandler
    from ..peers.events import EventSubscription
    from ..peers.peer_id import PeerId
    from ..substreams.streams import SubstreamReader, SubstreamWriter
    from ..topology import PeerSpec
    from .connection import LinkConnection

_LOG: Final = logging.getLogger("partywire.peers")

BANS_MAX: Final = 16
"""Ids that are banned at a time; beyond, the oldest ban is forgotten. A link has one peer, which may change its key."""


class _Epoch:
    """One life of the link in which both ends carry substreams."""

    def __init__(self, connection: LinkConnection, proof: LinkProof, address: Multiaddr) -> None:
        self.connection = connection
        self.proof = proof
        self.address = address  # of the peer, as we see it
        self.application = ApplicationSubstreams(connection)
        self.message: IdentityMessage | None = None  # what the peer told, once it is accepted
        self.told: PeerClaim | None = None  # what we did
        self.task: asyncio.Task[None] | None = None  # the introduction


class LinkPeers:
    """See ConnectionManager for what is promised. Of the keeper's event loop, in which it is made."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        peer: PeerSpec,
        options: LinkOptions,
        tell: Callable[[LinkClaimed], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            loop: that of the link.
            peer: whom the link leads to.
            options: says who we are, and what we say about ourselves.
            tell: hears what the peer signs about itself, whenever that is another.
            clock: seconds since the epoch.

        Raises:
            CredentialError: the file of the identity cannot be used.
            ValueError: what we say about ourselves breaks a limit of claims.
        """
        self.counters: Final = PeerCounters()
        self._loop = loop
        self._name = peer.name
        self._peer = peer
        self._tell = tell
        self._clock = clock
        self._identity = NodeIdentity.load(Path(options.identity_path))
        is_local = is_unix(peer.host)
        self._options = PeerOptions(is_local=is_local, identity_timeout_s=2 * max(5.0, options.heartbeat_timeout_s))
        self._hub = EventHub()
        addresses = [Multiaddr.parse(text) for text in options.advertised]
        claimable = [address for address in addresses if fault_of_address(address, is_local=is_local) is None]
        self._own = OwnClaim(
            loop,
            self._identity,
            self._options,
            lambda: self._standing,
            lambda: tuple(claimable[:ADDRESSES_MAX]),
            self._on_updated,
            clock,
            user_agent=options.user_agent,
            features=options.features,
        )
        self._epoch: _Epoch | None = None
        self._connection: EstablishedConnection | None = None
        self._peer_id: PeerId | None = None  # of the peer, as it last proved it
        self._lacks_substreams = False  # the peer that the link leads to now
        self._refusal = ""  # why there will be no connection in this epoch
        self._changed = asyncio.Event()  # for `connect`: set and cleared whenever something of these is another
        self._bans: dict[PeerId, Ban] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False

    # What the keeper says.

    def begin(self, connection: LinkConnection, secret: bytes, epoch: int, *, is_dialler: bool) -> None:
        """An epoch of the link carries substreams, on a connection that was not started yet; `offer` gets what the peer
        opens on it. `secret` is that of the link's handshake."""
        began = self._epoch = _Epoch(connection, LinkProof(secret, epoch, is_dialler), self._address_of(connection))
        self._lacks_substreams = False
        self._refusal = ""
        connection.closed.add_done_callback(lambda _: self._epoch_over(began))
        began.task = self._spawn(self._introduce(began))

    def begin_without(self) -> None:
        """The link leads to a peer that has no substreams."""
        self._epoch = None
        self._lacks_substreams = True
        self._notify()

    def offer(self, connection: LinkConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        """The peer opened a substream on the connection of an epoch."""
        epoch = self._epoch
        if epoch is None or epoch.connection is not connection:
            writer.reset("the link is made anew")
            return
        if epoch.message is not None and not self._standing and self._ban_of(epoch.message.claim.peer_id) is None:
            self._establish(epoch)  # we had closed it, or banned the peer for a while
        epoch.application.offer(reader, writer)

    def close(self) -> None:
        """The link is over for good. What is under way is cancelled; `aclose` is the gentle way."""
        self._is_over = True
        self._own.close()
        for task in self._tasks:
            task.cancel()
        self._hub.close()
        self._notify()

    # Who is who.

    @property
    def peer_id(self) -> PeerId:
        """Who we are."""
        return self._identity.peer_id

    @property
    def peer_name(self) -> str:
        """The name of the party that the link leads to."""
        return self._name

    @property
    def claim(self) -> PeerClaim:
        """What we say about ourselves, as it stands."""
        return self._own.claim

    # Connections.

    async def connect(self, peer_id: PeerId) -> PeerConnection:
        """As ConnectionManager.connect; nothing is dialled, since the keeper makes the link anew by itself.

        Raises:
            NoControlPlane: the peer of the link takes no substreams.
            PeerNotKnown: the link leads to somebody else.
            PeerIsBanned, PeerNotReached, ConnectionsClosed: as ConnectionManager.connect.
        """
        if (connection := self.connection_to(peer_id)) is not None:
            return connection
        if (ban := self._ban_of(peer_id)) is not None:
            raise PeerIsBanned(str(peer_id), ban.reason, ban.until)
        if self._peer_id is not None and self._peer_id != peer_id:
            raise PeerNotKnown(str(peer_id))
        connection = await self.connect_link()
        if connection.peer_id != peer_id:
            raise PeerNotKnown(str(peer_id))
        return connection

    async def connect_link(self) -> PeerConnection:
        """The connection to whoever is the peer of the link; waits for the link, and for the peer to prove who it is,
        within `dial_timeout_s`.

        Raises:
            NoControlPlane, PeerIsBanned, PeerNotReached, ConnectionsClosed: as `connect`.
        """
        deadline = self._loop.time() + self._options.dial_timeout_s
        while True:
            if self._is_over:
                raise ConnectionsClosed
            if self._lacks_substreams:
                raise NoControlPlane(self._name)
            if (connection := self._stand_up()) is not None:
                return connection
            if self._refusal:
                raise PeerNotReached(self._name, 1, (self._refusal,))
            try:
                async with asyncio.timeout_at(deadline):
                    await self._changed.wait()
            except TimeoutError:
                raise PeerNotReached(self._name, 1, (self._why_not(),)) from None

    def _stand_up(self) -> EstablishedConnection | None:
        """The connection that stands, or a new one above what the peer has proven already.

        Raises:
            PeerIsBanned: it is.
        """
        if (standing := self._standing) or self._epoch is None or self._epoch.message is None:
            return standing[0] if standing else None
        peer_id = self._epoch.message.claim.peer_id
        if (ban := self._ban_of(peer_id)) is not None:
            raise PeerIsBanned(str(peer_id), ban.reason, ban.until)
        return None if self._epoch.connection.is_leaving else self._establish(self._epoch)

    def _why_not(self) -> str:
        if self._epoch is None:
            return "the link is not up"
        return "it has not said who it is" if self._epoch.message is None else "the link is closing"

    def connection_to(self, peer_id: PeerId) -> PeerConnection | None:
        """The connection that stands, if any."""
        connection = self.link_connection
        return connection if connection is not None and connection.peer_id == peer_id else None

    @property
    def link_connection(self) -> PeerConnection | None:
        """The connection to whoever is the peer of the link, if it stands."""
        return self._standing[0] if self._standing else None

    @property
    def connections(self) -> Sequence[PeerConnection]:
        """None or one."""
        return self._standing

    @property
    def _standing(self) -> list[EstablishedConnection]:
        connection = self._connection
        return [connection] if connection is not None and connection.is_open else []

    def events(self, size_max: int = EVENTS_MAX) -> EventSubscription:
        """As ConnectionManager.events."""
        return self._hub.subscribe(size_max)

    # The identity exchange.

    async def _introduce(self, epoch: _Epoch) -> None:
        """Tell who we are, and hear who the peer is: once in an epoch, of which it is the first use."""
        told = self._own.claim
        reader = LinkIdentityReader(
            epoch.proof,
            self._clock,
            has_verdict=epoch.proof.is_dialler,
            is_local=self._options.is_local,
            peer=self._name,
        )

        def ours() -> IdentityMessage:
            return epoch.proof.introduce(self._identity, told, epoch.address)

        async def admit(claim: PeerClaim) -> tuple[RefusalCode, str] | None:
            return self._refusal_of(claim)

        def accept(message: IdentityMessage) -> IdentityMessage:
            epoch.message, epoch.told = message, told
            self._establish(epoch)
            return ours()

        timeout_s = self._options.identity_timeout_s
        try:
            if epoch.proof.is_dialler:
                message = await introduce_dialled(
                    epoch.application, ours(), reader, self._name, timeout_s, LINK_IDENTITY_PROTOCOL
                )
                if (refusal := self._refusal_of(message.claim)) is not None:
                    raise UpgradeFailed(self._name, "identity exchange", refusal[1])
                accept(message)
            else:
                await introduce_accepted(
                    epoch.application.gate, False, reader, admit, accept, self._name, timeout_s, LINK_IDENTITY_PROTOCOL
                )
        except UpgradeFailed as error:
            if not epoch.connection.is_over:
                self._failed(epoch, error)
                await epoch.application.aclose(self._options.close_timeout_s)

    def _refusal_of(self, claim: PeerClaim) -> tuple[RefusalCode, str] | None:
        if claim.peer_id == self.peer_id:
            return RefusalCode.OURSELVES, "both ends of the link have the same identity key"
        if self._ban_of(claim.peer_id) is not None:
            return RefusalCode.BANNED, "the peer is banned"
        return None

    def _failed(self, epoch: _Epoch, error: UpgradeFailed) -> None:
        self._refusal = str(error)
        _LOG.warning("the link to %s carries no substreams in this epoch: %s", self._name, error)
        if not epoch.proof.is_dialler:
            self.counters.inbound_failed += 1
            self._hub.publish(InboundFailed(epoch.address, self._refusal))
        else:
            self.counters.dials_failed += 1
            if self._peer_id is not None:
                self._hub.publish(PeerConnectFailed(self._peer_id, self._refusal))
        self._notify()

    def _establish(self, epoch: _Epoch) -> EstablishedConnection:
        """The peer has proven who it is: a connection above the link's stands from now on."""
        message, told = epoch.message, epoch.told
        assert message is not None
        assert told is not None
        if epoch.application.is_leaving:
            epoch.application = ApplicationSubstreams(epoch.connection)
        connection = self._connection = EstablishedConnection(
            epoch.application,
            message.claim,
            Direction.DIALLED if epoch.proof.is_dialler else Direction.ACCEPTED,
            epoch.address,
            message.observed,
            told,
            self._own.handlers,
            self._options,
            self.counters,
            self._on_violation,
        )
        self._peer_id = connection.peer_id
        self.counters.connected += 1
        connection.closed.add_done_callback(lambda closed: self._on_closed(connection, closed.result()))
        connection.start(epoch.application.gate)
        self._hub.publish(PeerConnected(connection.peer_id, connection.direction, connection.address))
        self._claimed(connection)
        if told is not self._own.claim:
            self._own.push_soon()
        self._notify()
        return connection

    def _claimed(self, connection: EstablishedConnection) -> None:
        observed = "" if connection.observed is None else str(connection.observed)
        self._tell(LinkClaimed(self._peer.index, connection.claim.encode(), observed))

    def _on_updated(self, connection: EstablishedConnection) -> None:
        if (epoch := self._epoch) is not None and connection is self._connection:
            epoch.message = IdentityMessage(connection.claim, connection.observed)
        self._claimed(connection)
        self._hub.publish(PeerUpdated(connection.peer_id))

    def _on_closed(self, connection: EstablishedConnection, cause: str) -> None:
        self.counters.disconnected += 1
        if self._connection is connection:
            self._connection = None
            self._hub.publish(PeerDisconnected(connection.peer_id, cause))
            self._notify()

    def _epoch_over(self, epoch: _Epoch) -> None:
        if epoch.task is not None:
            epoch.task.cancel()
        if self._epoch is epoch:
            self._epoch = None
            self._refusal = ""  # the next one may do better
            self._notify()

    def _address_of(self, connection: LinkConnection) -> Multiaddr:
        """Where the peer is, as we see it; where it is said to be if that cannot be seen, as on a unix socket."""
        try:
            return multiaddr_of(parse_address(connection.peer_address))
        except ValueError:
            return multiaddr_of((self._peer.host, self._peer.port))

    # What we serve.

    def serve(self, protocol: str, handler: ProtocolHandler) -> None:
        """As ConnectionManager.serve."""
        self._own.serve(protocol, handler)

    def protocol(self, protocol: str) -> Callable[[ProtocolHandler], ProtocolHandler]:
        """As ConnectionManager.protocol."""
        return decorator_of(self.serve, protocol)

    def unserve(self, protocol: str) -> None:
        """As ConnectionManager.unserve.

        Raises:
            ValueError: it is not served.
        """
        self._own.unserve(protocol)

    # Bans.

    async def ban(self, peer_id: PeerId, reason: str, duration_s: float) -> None:
        """As ConnectionManager.ban, but the link stands: only its substreams are refused.

        Raises:
            ValueError: `duration_s` is not above 0, or it is ourselves.
        """
        if not duration_s > 0 or peer_id == self.peer_id:
            raise ValueError(f"a ban of {peer_id} for {duration_s} s")
        if peer_id not in self._bans and len(self._bans) == BANS_MAX:
            del self._bans[next(iter(self._bans))]
        ban = self._bans[peer_id] = Ban(reason, self._clock() + duration_s)
        self.counters.bans += 1
        self._hub.publish(PeerBanned(peer_id, ban.reason, ban.until))
        connection = self._connection
        if connection is not None and connection.peer_id == peer_id:
            await connection.aclose()

    def unban(self, peer_id: PeerId) -> bool:
        """Whether there was a ban."""
        had_ban = self._ban_of(peer_id) is not None
        self._bans.pop(peer_id, None)
        return had_ban

    def _ban_of(self, peer_id: PeerId) -> Ban | None:
        ban = self._bans.get(peer_id)
        return ban if ban is not None and ban.until > self._clock() else None

    def _on_violation(self, connection: EstablishedConnection, error: LinkProtocolError) -> None:
        self.counters.violations += 1
        seconds = self._options.violation_ban_s
        _LOG.warning("substreams with %s are refused for %g s: %s", self._name, seconds, error.what)
        self._spawn(self.ban(connection.peer_id, error.what, seconds))

    # Ending.

    async def aclose(self) -> None:
        """As ConnectionManager.aclose, but the link stands. A second call waits for nothing more."""
        connection = self._connection
        self.close()
        if connection is not None:
            await connection.aclose()

    def _notify(self) -> None:
        self._changed.set()
        self._changed.clear()

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
