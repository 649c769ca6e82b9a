"""The opener's end of one bridge: what is said with a process that has connections to peers, by heads.

Between PartyNode and the bridge (engine/worker_bridge) in the I/O process of a link, or in the node's process.
The one invariant: `connections` are those of which this bridge said that they stand, and with the bridge all are over.

What it asks is a substream each; what it is told comes on the standing substream, to a coroutine of its own.
"""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from partywire.engine.errors import LinkProtocolError, PartyWireError
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peers.errors import NegotiationTimedOut
from partywire.engine.peers.events import (
    InboundFailed,
    Lagged,
    PeerBanned,
    PeerConnected,
    PeerConnectFailed,
    PeerDisconnected,
    PeerUpdated,
)
from partywire.engine.peers.peer_id import PeerId
from partywire.engine.peers.serving import run_handler
from partywire.engine.substreams.errors import SubstreamTimeout
from partywire.engine.worker_bridge import heads
from partywire.engine.worker_bridge.failures import error_of
from partywire.engine.worker_bridge.heads import HeadError
from partywire.engine.worker_bridge.talk import HeadTaker, read_head_untrusted
from partywire.engine.yamux.errors import SubstreamClosed, SubstreamRefused, SubstreamReset, SubstreamSessionOver

from .connection import BridgedConnection, claim_of
from .errors import NeedsAsyncio
from .lane import SubstreamLane

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    from partywire.engine.peers.contract import ProtocolHandler
    from partywire.engine.peers.events import PeerEvent
    from partywire.engine.peers.options import PeerOptions
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter
    from partywire.engine.worker_bridge.heads import ConnectionNote, Head
    from partywire.shm.doorbell import Bell
    from partywire.shm.ring import RingReader, RingWriter

    from ..worker import Worker
    from .counters import NodeCounters

log = logging.getLogger("partywire.node")

CAUSES_MAX: Final = 256
"""Causes of resets that are kept for substreams whose opening was not taken in yet."""

ASK_AGAIN_S: Final = 0.1
"""Between two questions whether a party, whose link came up just now, serves a protocol."""

_GONE: Final = (SubstreamReset, SubstreamClosed, SubstreamSessionOver)


class Home(Protocol):
    """What a bridge needs of the party's node."""

    options: PeerOptions
    is_ending: bool
    grace_s: float

    @property
    def counters_of_bridges(self) -> NodeCounters:
        """Kept by its bridges."""

    @property
    def handlers(self) -> Mapping[str, ProtocolHandler]:
        """By protocol."""

    def publish(self, event: PeerEvent) -> None:
        """Tell subscribers."""

    def note_peers(self, bridge: BridgeEnd) -> None:
        """Connections of this bridge came or went."""


class BridgeEnd:
    """Driven by its lane, and by users of the control plane. Finished when `lane.is_over`."""

    def __init__(
        self,
        home: Home,
        worker: Worker,
        name: str,
        rings: tuple[RingWriter, RingReader, Bell],
        epoch: int,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        """Owns the rings. `name`: the party at the other end of the link; empty: the node's process."""
        self.name = name
        self.connections: dict[int, BridgedConnection] = {}
        self.is_attending = False
        """Whether the process at the other end knows what we serve."""
        self.clock: Callable[[], float] = lambda: worker.clock()
        self._home = home
        self._worker = worker
        self._loop = loop
        self._standing: SubstreamWriter | None = None  # from the answer to Attend on
        self._numbered: weakref.WeakValueDictionary[int, SubstreamWriter] = weakref.WeakValueDictionary()
        self._causes: OrderedDict[int, str] = OrderedDict()  # of substreams that are not among them yet
        writer, reader, bell = rings
        self.lane = SubstreamLane(
            worker,
            name or "the node's process",
            writer,
            reader,
            bell,
            epoch,
            loop=loop,
            on_substream=self._on_substream,
            on_over=self._on_over,
            on_broken=self._on_broken,
        )
        self.lane.spawn(self._attend())

    def create_future(self) -> asyncio.Future[str]:
        """One of the loop that drives the party.

        Raises:
            NeedsAsyncio: none does.
        """
        if self._loop is None:
            raise NeedsAsyncio("waiting for the end of a connection")
        return self._loop.create_future()

    # What is asked.

    async def open(
        self, head: heads.Open, peer: str, timeout_s: float | None = None
    ) -> tuple[str, BridgedConnection | None, SubstreamReader, SubstreamWriter]:
        """A substream to a peer: the protocol that was agreed on, the connection if it was not asked for by number,
        and both halves.

        Raises:
            NegotiationTimedOut: there is no answer within `timeout_s`.
            SubstreamSessionOver: the link is lost, or the node's process.
            What the process that has the connection says: PeerNotKnown, NegotiationFailed ...
        """
        try:
            answer, reader, writer = await self._ask(head, timeout_s)
        except SubstreamTimeout:
            raise NegotiationTimedOut(peer, head.protocols, timeout_s or 0.0) from None
        except SubstreamReset as error:
            if error.by_us:
                raise
            cause = error.cause or "it gave it up as soon as it was open"
            raise SubstreamReset(peer, error.substream, False, cause) from None
        if not isinstance(answer, heads.Opened):
            raise self._misunderstood(writer, head, answer)
        connection = None if answer.connection is None else self.connection_of(answer.connection)
        self._join(answer.number, writer, peer if connection is None else connection.peer)
        self._home.counters_of_bridges.opened += 1
        return answer.protocol, connection, reader, writer

    async def open_known(
        self, connection: BridgedConnection, protocol: str
    ) -> tuple[SubstreamReader, SubstreamWriter]:
        """A substream for a protocol that the peer says it serves. Nothing is waited for: what is written goes along
        with the question, and the first read raises what the process that has the connection says to it, if it fails.

        Raises:
            SubstreamSessionOver: the link is lost, or the node's process.
        """
        reader, writer = await self.lane.substreams.open()
        writer.write(heads.encode(heads.Open((protocol,), "", connection.number)))
        self._join(writer.id, writer, connection.peer)
        reader.expect(HeadTaker(partial(self._take_opened, connection, writer)))
        self._home.counters_of_bridges.opened += 1
        return reader, writer

    def _take_opened(self, connection: BridgedConnection, writer: SubstreamWriter, answer: Head | None) -> None:
        match answer:
            case heads.Opened():
                pass
            case heads.Failed():
                error = error_of(answer)
                writer.reset(str(error))
                if isinstance(error, SubstreamSessionOver):
                    self.is_over(connection, error.cause)
                raise error
            case _:
                self.lane.lose("no answer to Open")
                raise HeadError("no answer to Open")

    async def connect(self, peer_id: PeerId | None, timeout_s: float | None = None) -> BridgedConnection:
        """As ConnectionManager.connect, of the process at the other end; of a link to its peer, whoever that is.
        SubstreamTimeout: not within `timeout_s`."""
        head = heads.Connect("" if peer_id is None else str(peer_id))
        answer, _, writer = await self._ask(head, timeout_s)
        writer.close()
        if not isinstance(answer, heads.ConnectedTo):
            raise self._misunderstood(writer, head, answer)
        return self.connection_of(answer.connection)

    async def ask_done(self, head: heads.Disconnect | heads.Ping | heads.Ban | heads.Unban) -> heads.Done:
        """Have something done."""
        answer, _, writer = await self._ask(head)
        writer.close()
        if not isinstance(answer, heads.Done):
            raise self._misunderstood(writer, head, answer)
        return answer

    async def _ask(self, head: Head, timeout_s: float | None = None) -> tuple[Head, SubstreamReader, SubstreamWriter]:
        """The answer to a head, and the substream that both travelled on. Cancelled, or out of time, it is given up at
        the other end too."""
        reader, writer = await self.lane.substreams.open()
        try:
            reader.timeout_s = timeout_s
            writer.write(heads.encode(head))
            answer = await read_head_untrusted(reader)
            reader.timeout_s = None
            if isinstance(answer, heads.Failed):
                raise error_of(answer)
            if answer is None:
                raise HeadError(f"no answer to {type(head).__name__}")
        except HeadError as error:
            self.lane.lose(str(error))
            raise
        except BaseException:
            writer.reset("it was given up")
            raise
        return answer, reader, writer

    def _misunderstood(self, writer: SubstreamWriter, head: Head, answer: Head) -> HeadError:
        error = HeadError(f"{type(answer).__name__} in answer to {type(head).__name__}")
        writer.reset(str(error))
        self.lane.lose(str(error))
        return error

    async def may_serve_soon(self, connection: BridgedConnection, protocols: Sequence[str]) -> bool:
        """Wait a little for a linked party that refused to serve any of these. False: there is no more to wait for."""
        worker = self._worker
        until = min(connection.since + self._home.grace_s, worker.clock() + ASK_AGAIN_S)
        if worker.clock() >= until or connection.is_over:
            return False
        await worker.until(
            lambda: connection.is_over or not set(protocols).isdisjoint(connection.claim.protocols), until
        )
        return True

    # Protocols that we serve.

    def serve(self, protocol: str) -> None:
        """Have substreams for it offered to us."""
        self._wish(heads.Serve(protocol))

    def unserve(self, protocol: str) -> None:
        """No more of them."""
        self._wish(heads.Unserve(protocol))

    def _wish(self, head: heads.Serve | heads.Unserve) -> None:
        if self._standing is not None and self._standing.is_open:
            self._standing.write(heads.encode(head))

    def _on_substream(self, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        self.lane.spawn(self._take_offer(reader, writer))

    async def _take_offer(self, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        try:
            offer = await read_head_untrusted(reader)
            if not isinstance(offer, heads.Offer):
                raise HeadError(f"{type(offer).__name__} in the place of an Offer")
            connection = self.connection_of(offer.connection)
            handler = self._home.handlers.get(offer.protocol)
            if handler is None or self._home.is_ending:
                writer.write(heads.encode(heads.Refused(f"{offer.protocol} is served no more")))
                writer.close()
                return
            writer.write(heads.encode(heads.Taken()))
        except (HeadError, LinkProtocolError) as error:
            self.lane.lose(str(error))
            return
        except _GONE:
            return  # the peer has left again
        self._join(offer.number, writer, connection.peer)
        await self._serve(handler, connection, reader, writer, offer.protocol)

    async def _serve(
        self,
        handler: ProtocolHandler,
        connection: BridgedConnection,
        reader: SubstreamReader,
        writer: SubstreamWriter,
        protocol: str,
    ) -> None:
        options, counters = self._home.options, self._home.counters_of_bridges
        counters.served += 1
        try:
            if not await run_handler(handler, connection, reader, writer, protocol, options.negotiation_timeout_s):
                counters.handlers_failed += 1
        except LinkProtocolError as error:
            log.warning("%s broke the protocol %s: %s", connection.peer, protocol, error)
            ban = heads.Ban(str(connection.peer_id), str(error), options.violation_ban_s)
            try:
                await self.ask_done(ban)
            except PartyWireError as failure:
                log.debug("%s was not banned: %s", connection.peer, failure)

    # What is told.

    async def _attend(self) -> None:
        """Hear what happens, from the beginning of the bridge to its end."""
        try:
            answer, reader, writer = await self._ask(heads.Attend())
            if not isinstance(answer, heads.Attending):
                raise self._misunderstood(writer, heads.Attend(), answer)
            self._standing = writer
            for protocol in self._home.handlers:
                self.serve(protocol)
            self.is_attending = True
            self._worker.notify()
            while (head := await read_head_untrusted(reader)) is not None:
                self._take_news(head)
        except (HeadError, LinkProtocolError, ValueError) as error:
            self.lane.lose(str(error))
        except (*_GONE, SubstreamRefused):
            pass  # the lane tells of its own end
        finally:
            if self._standing is not None:
                self._standing.close()

    def _take_news(self, head: Head) -> None:
        """Raises ValueError, LinkProtocolError: what is in it is no id, no address, no claim."""
        home = self._home
        match head:
            case heads.Standing(numbers, missed):
                if missed:
                    home.publish(Lagged(missed))
                for number in [number for number in self.connections if number not in numbers]:
                    self._remove(number, "")
            case heads.Connected(note, is_news):
                connection = self.connection_of(note)
                if is_news:
                    home.publish(PeerConnected(connection.peer_id, connection.direction, connection.address))
            case heads.Disconnected(number, peer, cause):
                self._remove(number, cause)
                home.publish(PeerDisconnected(PeerId.parse(peer), cause))
            case heads.Updated(number, claim):
                if number in self.connections:
                    self.connections[number].claim = claim_of(claim)
                    home.publish(PeerUpdated(self.connections[number].peer_id))
            case heads.ConnectFailed(peer, cause):
                home.publish(PeerConnectFailed(PeerId.parse(peer), cause))
            case heads.InboundFailed(address, cause):
                home.publish(InboundFailed(Multiaddr.parse(address), cause))
            case heads.Banned(peer, reason, until):
                home.publish(PeerBanned(PeerId.parse(peer), reason, until))
            case heads.Broken(number, cause):
                self._explain(number, cause)
            case heads.ServeFailed(protocol, cause):
                log.warning("%s does not offer %s to peers: %s", self.lane.name, protocol, cause)
            case _:
                raise HeadError(f"{type(head).__name__} on the standing substream")

    def connection_of(self, note: ConnectionNote) -> BridgedConnection:
        """The connection that a note is of.

        Raises:
            LinkProtocolError, ValueError: its claim, or something else of it, cannot be.
        """
        connection = self.connections.get(note.number)
        if connection is None:
            connection = self.connections[note.number] = BridgedConnection(self, note)
            self._home.note_peers(self)
        return connection

    def is_over(self, connection: BridgedConnection, cause: str) -> None:
        """For connections: one turned out to be over, of which we may never have been told that it stands."""
        if self.connections.get(connection.number) is connection:
            self._remove(connection.number, cause)

    def _remove(self, number: int, cause: str) -> None:
        connection = self.connections.pop(number, None)
        if connection is not None:
            connection.was_ended(cause)
            self._home.note_peers(self)

    def _join(self, number: int, writer: SubstreamWriter, peer: str) -> None:
        """A substream leads on to a peer from here on."""
        writer.name_peer(peer)
        self._numbered[number] = writer
        if (cause := self._causes.pop(number, None)) is not None:
            writer.explain(cause)

    def _explain(self, number: int, cause: str) -> None:
        writer = self._numbered.get(number)
        if writer is not None:
            writer.explain(cause)
            return
        self._causes[number] = cause
        if len(self._causes) > CAUSES_MAX:
            self._causes.popitem(last=False)

    # The end.

    def give_up_open(self, cause: str) -> None:
        """Reset the substreams of peers whose our side was not ended."""
        for writer in list(self._numbered.values()):
            if not writer.has_ended:
                writer.reset(cause)

    def _on_broken(self, cause: str) -> None:
        if self.name:
            self._worker.link_life.ask_for_link(self._worker.link_of(self.name), cause)
        else:
            log.error("there is no way to other peers any more, until the node's process is started again: %s", cause)

    def _on_over(self, cause: str) -> None:
        for number in tuple(self.connections):
            peer_id = self.connections[number].peer_id
            self._remove(number, cause)
            self._home.publish(PeerDisconnected(peer_id, cause))
        self._home.note_peers(self)
