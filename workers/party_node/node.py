"""PartyNode: `party.node`, the control plane of a party as its opener has it.

    reader, writer = await party.node.open("bob", "/app/thing/1.0")

    @party.protocol("/app/thing/1.0")
    async def thing(connection, reader, writer): ...

Between a user and all bridges: one to the I/O process of each link that carries substreams, and one to the node's
process. It has PeerAccess (engine/peers/contract.py) over all of them, so messages and calls are those of every node.
The one invariant: a linked party goes over its link, by whatever name it is called, and never over the node's process.

Everything but messages, calls, events and `closed` of a connection runs under each of the worker's drivers: an asyncio
loop, the native scheduler of a batch, a blocking call.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.control_socket import close_all
from partywire.engine.link_substreams.errors import NoControlPlane
from partywire.engine.peers.claims import check_protocol_id
from partywire.engine.peers.contract import decorator_of
from partywire.engine.peers.errors import ConnectionsClosed, PeerNotKnown, PeerNotReached
from partywire.engine.peers.events import EVENTS_MAX, EventHub
from partywire.engine.peers.peer_id import PeerId
from partywire.engine.shortage import describe_shortage
from partywire.engine.substreams.errors import SubstreamTimeout
from partywire.engine.worker_bridge import heads
from partywire.engine.yamux.errors import SubstreamSessionOver
from partywire.shm.errors import ShmError

from ..errors import PartyFailed
from ..waiting import run_blocking
from .bridge_end import BridgeEnd
from .counters import NodeCounters
from .errors import NeedsAsyncio, NoWayToPeer
from .files import SubstreamFile
from .services import PartyMessages, PartyRpc

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from partywire.engine.node_commands import NodeLane, NodeLost
    from partywire.engine.peers.contract import ProtocolHandler
    from partywire.engine.peers.events import EventSubscription, PeerEvent
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter
    from partywire.shm.doorbell import Bell
    from partywire.shm.ring import RingReader, RingWriter

    from ..config import PartyConfig
    from ..peer_link import PeerLink
    from ..worker import Worker
    from .connection import BridgedConnection
    from .lane import SubstreamLane

GRACE_S: Final = 2.0
"""For a party whose link came up just now to say what it serves: its opener may be a moment later than its link."""

NAMING_S: Final = 2.0
"""For linked parties to say who they are, before an id is taken for somebody else's."""


class PartyNode:
    """One for each party that has a table [node]. Made with the party, of use from its opening to its end; handlers may
    be registered before."""

    def __init__(self, config: PartyConfig) -> None:
        assert config.node is not None
        self.options = config.node.options
        self.counters_of_bridges: Final = NodeCounters()
        self.is_ending = False
        self.grace_s = GRACE_S
        self._config = config
        self._names: Final = frozenset(config.spec.names)
        self._node_config = config.node
        self._hub = EventHub()
        self._handlers: dict[str, ProtocolHandler] = {}
        self._ids: dict[str, PeerId] = {}  # of linked parties that have said who they are
        self._links: dict[str, BridgeEnd] = {}  # by the party at the other end, of the latest life of each link
        self._process: BridgeEnd | None = None  # the way to everybody else
        self._lost: list[SubstreamLane] = []  # of earlier lives of links, where handlers may still run
        self._process_failure = "this party's node has not started"
        self._is_process_awaited = False  # whether another one follows the node's process that ended
        # Set by `begin`.
        self._worker: Worker | None = None
        self._peer_id: PeerId | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._messages: PartyMessages | None = None
        self._rpc: Final = PartyRpc(self, self._node_config)

    def __repr__(self) -> str:
        return f"<PartyNode of {self._config.name}>"

    # The party's part.

    def check_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """See whether everything that was registered can be served, driven by `loop` or by none.

        Raises:
            NeedsAsyncio: services were added, and there is no loop.
        """
        if loop is None and self._rpc.has_services:
            raise NeedsAsyncio("rpc")

    def begin(self, worker: Worker, peer_id: PeerId, loop: asyncio.AbstractEventLoop | None) -> None:
        """The party opens, driven by `loop` or by no loop at all; lanes may come from now on."""
        self._worker = worker
        self._peer_id = peer_id
        self._loop = loop
        worker.on_substreams = self._take_link_lane
        if loop is not None:
            self._messages = PartyMessages(self, self._node_config)

    def take_process_lane(self, message: NodeLane, fds: list[int]) -> None:
        """The node's process stands (again). Owns the descriptors. Without memory for its rings there is no way to it
        until it is started once more."""
        if self.is_ending or len(fds) != 4:
            close_all(fds)
            return
        self._keep_lost(self._process)
        try:
            rings = self.worker.link_life.open_substream_rings(fds)
        except ShmError as error:
            self._is_process_awaited = False
            short = describe_shortage(error)
            self._process_failure = f"{self._config.name} cannot map the rings of its node's process: {short}"
            self.worker.notify()
            return
        self._is_process_awaited = True
        self._process = BridgeEnd(self, self.worker, "", rings, message.epoch, self._loop)
        self.worker.link_life.add_substreams(self._process.lane)
        self.worker.notify()

    def lose_process(self, message: NodeLost) -> None:
        """The node's process died; another lane follows, or none ever will."""
        self._is_process_awaited = message.is_replaced
        self._process_failure = f"this party's node has ended: {message.cause}"
        if self._process is not None:
            self._process.lane.lose(message.cause)
        self.worker.notify()

    def _take_link_lane(self, link: PeerLink, rings: tuple[RingWriter, RingReader, Bell]) -> SubstreamLane:
        """A link is up (again) that carries substreams."""
        self._keep_lost(self._links.get(link.name))
        bridge = self._links[link.name] = BridgeEnd(self, self.worker, link.name, rings, link.epoch, self._loop)
        return bridge.lane

    @property
    def is_ready(self) -> bool:
        """Whether the processes of all lanes that stand know what we serve."""
        return all(bridge.is_attending or bridge.lane.is_over for bridge in self._bridges())

    def _keep_lost(self, bridge: BridgeEnd | None) -> None:
        """Another one takes the place of a bridge."""
        self._lost = [lane for lane in self._lost if lane.has_running]
        if bridge is not None:
            bridge.lane.lose("another life of it has begun")
            self._lost.append(bridge.lane)

    async def end(self, deadline: float) -> None:
        """Give up messages that nobody acknowledged, cancel handlers, give up substreams that are open, and say goodbye
        to all bridges."""
        self.is_ending = True
        if self._messages is not None:
            await self._messages.aclose()
        worker, lanes = self.worker, [*self._lost, *(bridge.lane for bridge in self._bridges())]
        for lane in lanes:
            lane.cancel_running()
        await worker.until(lambda: not any(lane.has_running for lane in lanes), deadline)
        for bridge in self._bridges():
            bridge.give_up_open("the party closes")
            left_s = min(deadline - worker.clock(), self.options.close_timeout_s)
            await bridge.lane.substreams.aclose(max(left_s, 0.0))
        self._hub.close()

    def abandon(self) -> None:
        """The party is over: nothing of ours runs on. May be called again."""
        self.is_ending = True
        for lane in (*self._lost, *(bridge.lane for bridge in self._bridges())):
            lane.close()
        self._hub.close()
        self._lost.clear()
        self._links.clear()
        self._process = None

    def _bridges(self) -> list[BridgeEnd]:
        return [*self._links.values(), *([] if self._process is None else [self._process])]

    @property
    def worker(self) -> Worker:
        """Of the opener.

        Raises:
            PartyFailed: the party is not open.
        """
        if self._worker is None:
            raise PartyFailed(self._config.name, "it is not open")
        return self._worker

    # For bridges.

    @property
    def handlers(self) -> dict[str, ProtocolHandler]:
        """By protocol."""
        return self._handlers

    def publish(self, event: PeerEvent) -> None:
        """As Home.publish."""
        self._hub.publish(event)

    def note_peers(self, bridge: BridgeEnd) -> None:
        """As Home.note_peers."""
        for connection in bridge.connections.values():
            if bridge.name:
                self._ids[bridge.name] = connection.peer_id
        self.worker.notify()

    # Peers.

    @property
    def peer_id(self) -> PeerId:
        """Who we are.

        Raises:
            PartyFailed: the party is not open.
        """
        if self._peer_id is None:
            raise PartyFailed(self._config.name, "it is not open")
        return self._peer_id

    def id_of(self, peer: PeerId | str) -> PeerId:
        """The id of a linked party, by its name, or of 26 hexadecimal digits.

        Raises:
            PeerNotKnown: no link to that party has been up yet.
            UnknownPeer: it is none of the parties, and no id.
        """
        if isinstance(peer, PeerId):
            return peer
        if peer in self._ids:
            return self._ids[peer]
        if peer not in self._names:
            try:
                return PeerId.parse(peer)
            except ValueError:
                pass
        raise PeerNotKnown(self.worker.link_of(peer).name)

    async def find_id(self, peer: PeerId | str) -> PeerId:
        """The same; a linked party whose link was never up is waited for, as `connect` does."""
        try:
            return self.id_of(peer)
        except PeerNotKnown:
            return (await self.connect(peer)).peer_id

    async def connect(self, peer_id: PeerId | str, *, timeout: float | None = None) -> BridgedConnection:
        """The connection to a peer: a linked party's by its name or its id, else that of the node's process, which
        dials. A link that is down is waited for, `timeout` seconds or else as long as `reconnect_s`.

        Raises:
            NoControlPlane: the party's link carries no substreams, because it has no table [node].
            NoWayToPeer: the peer is none of the parties, and our node has no process that could dial it.
            PeerNotReached: the link did not come up, or the peer was not reached, in time.
            PeerNotKnown, PeerIsBanned: as ConnectionManager.connect.
            UnknownPeer: a name that no party has.
            ConnectionsClosed: the party is closing.
        """
        if self.is_ending:
            raise ConnectionsClosed()
        if isinstance(peer_id, str) and peer_id in self._names:
            return await self._connect_link(self.worker.link_of(peer_id), timeout)
        wanted = self.id_of(peer_id)
        worker = self.worker
        # Which id is a linked party's shows only when that party has said so, moments after its link came up.
        await worker.until(lambda: wanted in self._ids.values() or not self._has_unnamed(), worker.clock() + NAMING_S)
        for name, known in self._ids.items():
            if known == wanted:
                return await self._connect_link(worker.link_of(name), timeout)
        return await self._connect_by_process(wanted, timeout)

    def _has_unnamed(self) -> bool:
        return any(not (bridge.lane.is_over or bridge.connections) for bridge in self._links.values())

    async def _connect_link(self, link: PeerLink, timeout: float | None) -> BridgedConnection:
        worker = self.worker
        standing = self._links.get(link.name)
        if standing is not None and standing.is_attending and not standing.lane.is_over and standing.connections:
            return next(reversed(standing.connections.values()))

        def bridge_of_link() -> BridgeEnd | None:
            if link.is_up and link.substreams is None:
                raise NoControlPlane(link.name, link.name in self._config.compat)
            if self.is_ending:
                raise ConnectionsClosed()
            bridge = self._links.get(link.name)
            return bridge if bridge is not None and bridge.is_attending and not bridge.lane.is_over else None

        deadline = worker.clock() + (self._config.reconnect_s if timeout is None else timeout)
        await worker.until(lambda: bridge_of_link() is not None, deadline)
        if (bridge := bridge_of_link()) is None:
            raise PeerNotReached(link.name, 1, (link.cause or "its link is not up",))
        if (connection := next(reversed(bridge.connections.values()), None)) is not None:
            return connection
        try:
            return await bridge.connect(None, max(deadline - worker.clock(), 0.0))
        except (SubstreamTimeout, SubstreamSessionOver) as error:
            cause = "it has not said who it is" if isinstance(error, SubstreamTimeout) else error.cause
            raise PeerNotReached(link.name, 1, (cause,)) from None

    @property
    def _has_process(self) -> bool:
        return self._process is not None and not self._process.lane.is_over

    async def _connect_by_process(self, peer_id: PeerId, timeout: float | None) -> BridgedConnection:
        """Waits for a process that is started again as for a link that is down."""
        worker = self.worker
        deadline = None if timeout is None else worker.clock() + timeout
        patience = worker.clock() + self._config.reconnect_s if deadline is None else deadline
        await worker.until(lambda: self._has_process or not self._is_process_awaited, patience)
        if self._process is None or not self._has_process:
            raise NoWayToPeer(str(peer_id), self._process_failure)
        left_s = None if deadline is None else max(deadline - worker.clock(), 0.0)
        try:
            return await self._process.connect(peer_id, left_s)
        except SubstreamTimeout:
            raise PeerNotReached(str(peer_id), 1, (f"it was not reached within {timeout:g} s",)) from None

    def connection_to(self, peer_id: PeerId | str) -> BridgedConnection | None:
        """The connection that stands, if any."""
        for connection in self.connections:
            if peer_id in (connection.peer_id, connection.name, str(connection.peer_id)):
                return connection
        return None

    @property
    def connections(self) -> Sequence[BridgedConnection]:
        """Those that stand, of linked parties first."""
        return [connection for bridge in self._bridges() for connection in bridge.connections.values()]

    async def ping(self, peer: PeerId | str) -> float:
        """The round trip in seconds to a peer, by way of the process that has the connection.

        Raises:
            SubstreamSessionOver: the connection is gone.
            NoControlPlane ...: as `connect`.
        """
        return await (await self.connect(peer)).ping()

    async def ban(self, peer_id: PeerId | str, reason: str, duration_s: float) -> None:
        """Close the connection to a peer, and neither dial nor accept it for `duration_s` (infinity: for good). The
        sessions of a linked party that is banned go on; only its substreams do not.

        Raises:
            NoWayToPeer: there is no process that could keep the peer out.
        """
        await self._ask_about(peer_id, lambda wanted: heads.Ban(wanted, reason, duration_s))

    async def unban(self, peer_id: PeerId | str) -> bool:
        """Take a ban back. Returns whether there was one."""
        return await self._ask_about(peer_id, heads.Unban)

    async def _ask_about(self, peer: PeerId | str, head: Callable[[str], heads.Ban | heads.Unban]) -> bool:
        peer_id = self.id_of(peer)
        bridges = [bridge for bridge in self._bridges() if not bridge.lane.is_over]
        concerned = [one for one in bridges if not one.name or self._ids.get(one.name) == peer_id]
        if not concerned:
            raise NoWayToPeer(str(peer_id), self._process_failure)
        return any([(await bridge.ask_done(head(str(peer_id)))).value for bridge in concerned])

    # Substreams.

    async def open(
        self, peer: PeerId | str, protocol: str, *, timeout: float | None = None
    ) -> tuple[SubstreamReader, SubstreamWriter]:
        """A new substream to a peer for a protocol. The caller ends it by `writer.close()` or `writer.reset()`.

        `timeout`: seconds for everything until it is open; `reader.timeout_s` and `writer.timeout_s` bound later waits.
        For what the peer has said it serves, no answer is waited for: the first read raises what is wrong.

        Raises:
            NegotiationFailed: the peer does not serve the protocol.
            NegotiationTimedOut: it does not say.
            NoControlPlane, PeerNotReached ...: as `connect`.
        """
        worker = self.worker
        deadline = None if timeout is None else worker.clock() + timeout
        connection = await self.connect(peer, timeout=timeout)
        left_s = None if deadline is None else max(deadline - worker.clock(), 0.0)
        _, reader, writer = await connection.open([protocol], timeout_s=left_s)
        return reader, writer

    def open_file(self, peer: PeerId | str, protocol: str, *, timeout: float | None = None) -> SubstreamFile:
        """The same as a plain file, for code that does not await; `timeout` bounds each later wait too.

        Inside an asyncio loop it holds up the loop, so it is for plain functions that run as jobs there.
        """
        reader, writer = run_blocking(self.worker, self.open(peer, protocol, timeout=timeout))
        file = SubstreamFile(self.worker, reader, writer, protocol)
        file.timeout = timeout
        return file

    def serve(self, protocol: str, handler: ProtocolHandler) -> None:
        """Serve every substream that a peer opens for `protocol`: a linked party, or one of the node's peers.

        Raises:
            ValueError: the id has more than 255 bytes or none, or is served already.
        """
        check_protocol_id(protocol)
        if protocol in self._handlers:
            raise ValueError(f"{protocol} is served already")
        self._handlers[protocol] = handler
        for bridge in self._bridges():
            bridge.serve(protocol)

    def protocol(self, protocol: str) -> Callable[[ProtocolHandler], ProtocolHandler]:
        """`serve` as a decorator."""
        return decorator_of(self.serve, protocol)

    def unserve(self, protocol: str) -> None:
        """Serve it no more; substreams that are open go on."""
        if self._handlers.pop(protocol, None) is not None:
            for bridge in self._bridges():
                bridge.unserve(protocol)

    # What needs asyncio.

    @property
    def messages(self) -> PartyMessages:
        """Messages to peers, and from them: `await party.node.messages.send("bob", b"...")`.

        Raises:
            NeedsAsyncio: no loop drives the party.
        """
        if self._messages is None:
            raise NeedsAsyncio("messages")
        return self._messages

    @property
    def rpc(self) -> PartyRpc:
        """Calls of peers, and services for them, which may be added before the party opens.

        Raises:
            NeedsAsyncio: no loop drives the party.
        """
        if self._worker is not None and self._loop is None:
            raise NeedsAsyncio("rpc")
        return self._rpc

    def events(self, size_max: int = EVENTS_MAX) -> EventSubscription:
        """Who connects, leaves, changes, from now on; a slow reader is told how much it missed.

        Raises:
            NeedsAsyncio: no loop drives the party.
        """
        if self._loop is None:
            raise NeedsAsyncio("events")
        return self._hub.subscribe(size_max)

    # Figures.

    @property
    def counters(self) -> dict[str, int]:
        """What happened since the party was opened, by name; `connections` is how many stand now."""
        figures = {"connections": len(self.connections)}
        groups: dict[str, Any] = {"substreams": self.counters_of_bridges}
        if self._messages is not None:
            groups |= {"messages": self._messages.counts, "rpc": self._rpc.counts}
        for group, counts in groups.items():
            figures |= {f"{group}_{name}": value for name, value in asdict(counts).items()}
        return figures
