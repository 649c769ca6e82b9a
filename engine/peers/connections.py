"""PeerConnections: the connections of a node, in one object. The ConnectionManager of `contract`.

    book = MemoryAddressBook()
    async with PeerConnections(NodeIdentity.load(path), Router(loop), book) as peers:
        await peers.listen(Multiaddr.parse("/ip4/0.0.0.0/tcp/7201"))

        @peers.protocol("/app/echo/1")
        async def echo(connection, reader, writer): ...

        book.add(bob, [Multiaddr.parse("/dns4/bob.example/tcp/7201")])
        connection = await peers.connect(bob)
        protocol, reader, writer = await connection.open(["/app/echo/1"])

Between a program, or the protocols of a node, and everything in this folder. `dialling` and `accepting` make
connections, `pool` says which one stays, `connection` serves its substreams; this module joins them, and keeps what we
say about ourselves: a claim that is signed anew whenever something of it changes, and told to every connected peer.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from typing import TYPE_CHECKING, Final

from .accepting import PeerAcceptor
from .claims import ADDRESSES_MAX, fault_of_address
from .connection import EstablishedConnection
from .connectivity import PeerState
from .contract import Ban, decorator_of
from .counters import PeerCounters
from .dialling import NodeParts, PeerDialler
from .errors import ConnectionsClosed
from .events import EVENTS_MAX, EventHub, PeerBanned, PeerUpdated
from .options import PeerOptions
from .own_claim import OwnClaim
from .pool import ConnectionPool
from .selection import Selection
from .self_check import SelfCheck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from ..errors import LinkProtocolError
    from ..multiaddr import Multiaddr
    from ..substreams.connection import SubstreamConnection
    from ..transport import Stream
    from .claims import PeerClaim
    from .connection import SubstreamGate
    from .connectivity import NodeState
    from .contract import AddressBook, Direction, Listening, PeerConnection, ProtocolHandler, Transports
    from .events import AddressChecked, EventSubscription
    from .identity import NodeIdentity
    from .identity_exchange import IdentityMessage
    from .peer_id import PeerId

_LOG: Final = logging.getLogger("partywire.peers")


class PeerConnections:
    """See ConnectionManager for what is promised. Made inside a running event loop, and of it."""

    def __init__(
        self,
        identity: NodeIdentity,
        transports: Transports,
        book: AddressBook,
        options: PeerOptions | None = None,
        *,
        user_agent: str = "",
        features: int = 0,
        clock: Callable[[], float] = time.time,
        chance: random.Random | None = None,
    ) -> None:
        """
        Args:
            identity: who we are.
            transports: dial and listen.
            book: who is known, where; it is asked before every dial and told everything.
            options: limits and deadlines.
            user_agent: what we call our program, at most 64 bytes; every peer reads it.
            features: 32 bits that peers are told, for protocols above.
            clock: seconds since the epoch, for claims and bans.
            chance: for the pauses between attempts.

        Raises:
            ValueError: `user_agent` or `features` cannot be claimed.
        """
        self.counters: Final = PeerCounters()
        self._loop = asyncio.get_running_loop()
        self._identity = identity
        self._transports = transports
        self._book = book
        self._options = options or PeerOptions()
        self._clock = clock
        self._hub = EventHub()
        self._listenings: list[Listening] = []
        self._advertised: tuple[Multiaddr, ...] | None = None  # None: where we listen
        self._pool = ConnectionPool(identity.peer_id, self._options, self.counters, self._hub)
        self._own = OwnClaim(
            self._loop,
            identity,
            self._options,
            self._pool.standing.values,
            self._addresses,
            self._on_updated,
            clock,
            user_agent=user_agent,
            features=features,
        )
        parts = NodeParts(
            identity,
            transports,
            book,
            self._options,
            self.counters,
            self._hub,
            self._pool,
            clock,
            lambda: self._own.claim,
            self._establish,
        )
        self._chance = chance or random.Random()
        self._dialler = PeerDialler(parts, self._chance)
        self._acceptor = PeerAcceptor(parts)
        self._self_check = SelfCheck(parts, self._acceptor, lambda: self._own.claim.addresses)
        self._self_checking: asyncio.Task[None] | None = None
        if self._options.self_check_interval_s < math.inf:
            self._self_checking = self._loop.create_task(self._self_check.run(self._options.self_check_interval_s))
        self._is_over = False
        self._reaper = self._loop.call_later(self._options.reap_interval_s, self._reap)

    @property
    def peer_id(self) -> PeerId:
        """Who we are."""
        return self._identity.peer_id

    @property
    def claim(self) -> PeerClaim:
        """What we say about ourselves, as it stands."""
        return self._own.claim

    # Connections.

    async def connect(self, peer_id: PeerId) -> PeerConnection:
        """As ConnectionManager.connect."""
        return await self._dialler.connect(peer_id)

    def connection_to(self, peer_id: PeerId) -> PeerConnection | None:
        """The connection that stands, if any."""
        return self._pool.get(peer_id)

    @property
    def connections(self) -> Sequence[PeerConnection]:
        """Those that stand."""
        return [connection for connection in self._pool.standing.values() if connection.is_open]

    @property
    def state(self) -> NodeState:
        """Whether we are online, by how many connections stand. `NodeStateChanged` says when it changes."""
        return self._pool.connectivity.state

    def state_of(self, peer_id: PeerId) -> PeerState:
        """How a peer stands to us."""
        if self._book.ban_of(peer_id) is not None:
            return PeerState.BANNED
        if self._pool.get(peer_id) is not None:
            return PeerState.CONNECTED
        if peer_id in self._pool.dials:
            return PeerState.DIALLING
        if self._pool.connectivity.failure_of(peer_id) is not None:
            return PeerState.FAILED
        is_known = self._book.claim_of(peer_id) is not None or self._book.addresses_of(peer_id)
        return PeerState.KNOWN if is_known else PeerState.UNKNOWN

    def select(
        self,
        limit: int,
        *,
        near: PeerId | None = None,
        features: int = 0,
        protocol: str = "",
        exclude: Iterable[PeerId] = (),
        connected: bool = False,
    ) -> list[PeerId]:
        """At most `limit` peers that are not banned and have all of these features and this protocol: of those whom an
        address is known of, or only of those `connected` now. The nearest to `near` by XOR, the nearest first; without
        it any, each as likely as any other. Never ourselves.

        Raises:
            ValueError: `limit` is below 1.
            PeerStoreError: the store cannot be read.
        """
        if limit < 1:
            raise ValueError(f"{limit} peers to be selected, at least 1 is needed")
        selection = Selection(
            near=near, features=features, protocol=protocol, exclude=frozenset(exclude) | {self.peer_id}
        )
        if not connected:
            return list(self._book.find(selection, limit, self._chance))
        found = [one.peer_id for one in self.connections if selection.fits(one.peer_id, one.claim)]
        return selection.choose(found, limit, self._chance)

    def events(self, size_max: int = EVENTS_MAX) -> EventSubscription:
        """As ConnectionManager.events."""
        return self._hub.subscribe(size_max)

    def _establish(
        self,
        substreams: SubstreamConnection,
        gate: SubstreamGate,
        message: IdentityMessage,
        direction: Direction,
        address: Multiaddr,
        told: PeerClaim,
    ) -> EstablishedConnection:
        connection = EstablishedConnection(
            substreams,
            message.claim,
            direction,
            address,
            message.observed,
            told,
            self._own.handlers,
            self._options,
            self.counters,
            self._on_violation,
        )
        self._book.learn(message.claim)
        self._pool.put(connection)
        connection.start(gate)
        if told is not self._own.claim:
            self._own.push_soon()
        return connection

    def _reap(self) -> None:
        self.counters.events_missed = self._hub.missed
        self._pool.reap(self._loop.time())
        self._reaper = self._loop.call_later(self._options.reap_interval_s, self._reap)

    # Listening.

    async def listen(self, address: Multiaddr) -> Multiaddr:
        """Let peers dial us there; with port 0 one is chosen. Peers are told the address if it can be dialled at all:
        behind a wildcard or a translation say with `advertise` where we really are.

        Returns:
            The address with its real port.

        Raises:
            OSError: it is in use, or not ours.
            PartyWireError: no transport understands it.
        """
        self._require_open()
        listening = await self._transports.listen(address, self.accept)
        try:
            self._require_open()
        except ConnectionsClosed:
            listening.close()
            raise
        self._listenings.append(listening)
        self._own.change()
        return listening.address

    def accept(self, stream: Stream, address: Multiaddr) -> None:
        """Take in a stream that came by another way than `listen`: an onion service, or a port that others share. Owns
        it; it is as if nothing had been read from it."""
        self._acceptor.accept(stream, address)

    async def check_addresses(self) -> Sequence[AddressChecked]:
        """Dial every address that we claim and see whether it leads to us; also said as events. Meanwhile whoever asks
        for a liveness echo gets one."""
        return await self._self_check.check()

    @property
    def checked_addresses(self) -> Sequence[AddressChecked]:
        """What the last check of all addresses found."""
        return tuple(self._self_check.results.values())

    def _require_open(self) -> None:
        if self._is_over:
            raise ConnectionsClosed

    # What we say about ourselves.

    def advertise(self, addresses: Iterable[Multiaddr] | None, features: int | None = None) -> None:
        """Say that we may be dialled at `addresses` (None: where we listen), and have `features` (None: as before).

        Raises:
            ValueError: they break a limit of claims, and nothing has changed.
        """
        chosen = None if addresses is None else tuple(addresses)
        for address in chosen or ():
            if (fault := fault_of_address(address, is_local=self._options.is_local)) is not None:
                raise ValueError(f"{address} cannot be claimed: {fault}")
        before = self._advertised, self._own.features
        self._advertised = chosen
        self._own.features = self._own.features if features is None else features
        try:
            self._own.change()
        except ValueError:
            self._advertised, self._own.features = before
            raise

    def _addresses(self) -> tuple[Multiaddr, ...]:
        if self._advertised is not None:
            return self._advertised
        local = self._options.is_local
        heard = dict.fromkeys(listening.address for listening in self._listenings)
        claimable = [address for address in heard if fault_of_address(address, is_local=local) is None]
        return tuple(claimable[:ADDRESSES_MAX])

    def _on_updated(self, connection: EstablishedConnection) -> None:
        self._book.learn(connection.claim)
        self._hub.publish(PeerUpdated(connection.peer_id))

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
        """As ConnectionManager.ban.

        Raises:
            ValueError: `duration_s` is not above 0, or it is ourselves.
        """
        if not duration_s > 0 or peer_id == self.peer_id:
            raise ValueError(f"a ban of {peer_id} for {duration_s} s")
        ban = Ban(reason, self._clock() + duration_s)
        self._book.ban(peer_id, ban)
        self.counters.bans += 1
        self._hub.publish(PeerBanned(peer_id, ban.reason, ban.until))
        if (connection := self._pool.get(peer_id)) is not None:
            await connection.aclose()

    def unban(self, peer_id: PeerId) -> bool:
        """Whether there was a ban."""
        return self._book.unban(peer_id)

    def _on_violation(self, connection: EstablishedConnection, error: LinkProtocolError) -> None:
        self.counters.violations += 1
        _LOG.warning("peer %s is banned for %g s: %s", connection.peer_id, self._options.violation_ban_s, error.what)
        self._pool.spawn(self.ban(connection.peer_id, error.what, self._options.violation_ban_s))

    # Ending.

    async def aclose(self) -> None:
        """As ConnectionManager.aclose. A second call waits for nothing more."""
        self._is_over = True
        self._reaper.cancel()
        if self._self_checking is not None:
            self._self_checking.cancel()
            await asyncio.wait([self._self_checking])
        for listening in self._listenings:
            listening.close()
        self._listenings.clear()
        self._own.close()
        await self._acceptor.aclose()
        await self._dialler.aclose()
        await self._pool.aclose()
        self.counters.events_missed = self._hub.missed
        self._hub.close()

    async def __aenter__(self) -> PeerConnections:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
