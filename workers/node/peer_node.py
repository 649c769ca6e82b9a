"""PeerNode: a peer-to-peer node from one call, or one table of a file.

    async with PeerNode(identity="alice.key", listen="/ip4/0.0.0.0/tcp/7300") as node:
        node.add_peer(bob, "/dns4/bob.example/tcp/7300")

        @node.protocol("/app/echo/1")
        async def echo(connection, reader, writer): ...

        delivery = await node.messages.send(bob, b"hello")
        await delivery.acknowledged()

Between a program and the engine's parts (identity, transports, connections, peer store, messages, calls), which this
sets up in order and ends in the opposite one. The one invariant: a node that did not start, or has ended, holds no
socket, file, task or thread.

Everything is of one event loop, and no call is for another thread.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from partywire.engine.messaging.messaging import Messaging
from partywire.engine.peers.claims import check_protocol_id
from partywire.engine.peers.contract import decorator_of
from partywire.engine.peers.events import EVENTS_MAX
from partywire.engine.peers.peer_id import PeerId

from ..errors import ConfigError
from .config import NodeConfig, addresses_of
from .config_file import load_node_config
from .rpc import NodeRpc
from .standing import listen, set_up

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from partywire.engine.messaging.messaging import Layer
    from partywire.engine.multiaddr import Multiaddr
    from partywire.engine.peers.connections import PeerConnections
    from partywire.engine.peers.contract import PeerConnection, ProtocolHandler
    from partywire.engine.peers.events import EventSubscription
    from partywire.engine.transports import Switchboard, TransportSettings

    from .config import Problems
    from .ground import Book

T = TypeVar("T")

_NOT_STARTED: Final = "the node was not started: use `async with`, or await start()"


class PeerNode:
    """One node. Started by `async with`, or `start` and `aclose`; once."""

    def __init__(
        self,
        config: NodeConfig | str | Path | None = None,
        *,
        inbound: Sequence[Layer] = (),
        outbound: Sequence[Layer] = (),
        transports: TransportSettings | None = None,
        switchboard: Switchboard | None = None,
        **settings: Any,
    ) -> None:
        """Nothing is opened yet, but the file of the configuration.

        Args:
            config: the settings, or the path of a TOML file with the table [node].
            inbound, outbound: layers that see every message; the first one first.
            transports: certificates of WebSockets, and a proxy in place of [node.socks].
            switchboard: what /memory addresses mean; by default that of this process.
            settings: fields of NodeConfig, in place of those of `config`.

        Raises:
            ConfigError: something cannot be; `keys` names every key at fault.
        """
        if isinstance(config, (str, Path)):
            config = load_node_config(config)
        unknown = settings.keys() - NodeConfig.__dataclass_fields__.keys()
        if unknown:
            raise ConfigError("", tuple((key, "is not a setting of a node") for key in sorted(unknown)))
        self.config = replace(config, **settings) if config is not None else NodeConfig(**settings)
        self._layers = tuple(inbound), tuple(outbound)
        self._transport_settings = transports
        self._switchboard = switchboard
        self._early: dict[str, ProtocolHandler] = {}  # what is served from the start on
        self._stack = AsyncExitStack()
        self._was_started = False
        self._is_over = False
        # Set by `start`.
        self._book: Book | None = None
        self._peers: PeerConnections | None = None
        self._messages: Messaging | None = None
        self._rpc: NodeRpc | None = None
        self._addresses: list[Multiaddr] = []

    # Beginning and ending.

    async def start(self) -> None:
        """Set everything up, and listen.

        Raises:
            CredentialError: the file of the identity, or of a password, cannot be used.
            PeerStoreError: the store cannot be used.
            ListenError: an address is in use, or not ours.
            TransportError: Tor cannot be reached, or does not take the onion service; a library is missing.
            ValueError: what we say about ourselves breaks a limit of claims.
            HandlerNotLoaded: a handler that `protocols` names is not there.
            RuntimeError: the node was started or closed before.
        """
        if self._was_started or self._is_over:
            raise RuntimeError("a node is started once; make a new one")
        self._was_started = True
        try:
            await self._set_up()
        except BaseException:
            await self.aclose()
            raise

    async def _set_up(self) -> None:
        config, stack = self.config, self._stack
        settings, switchboard = self._transport_settings, self._switchboard
        self._book, self._peers = _, peers = await stack.enter_async_context(set_up(config, settings, switchboard))
        self._messages = await stack.enter_async_context(
            Messaging(peers, inbound=self._layers[0], outbound=self._layers[1], limits=config.messages)
        )
        self._rpc = NodeRpc(peers, config.rpc)
        for protocol, handler in self._early.items():
            peers.serve(protocol, handler)
        self._addresses = await listen(config, peers)

    async def aclose(self) -> None:
        """Give up what was not acknowledged, say goodbye to all peers, and end everything. May be called again.

        Raises:
            PeerStoreError: what was learnt of peers last could not be written; all the same everything has ended.
        """
        self._is_over = True
        await self._stack.aclose()

    async def __aenter__(self) -> PeerNode:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        if self._peers is None:
            return "<PeerNode, not started>"
        return f"<PeerNode {self._peers.peer_id}{', ended' if self._is_over else ''}>"

    # Who we are.

    @property
    def peer_id(self) -> PeerId:
        """Who we are."""
        return self.peers.peer_id

    @property
    def addresses(self) -> Sequence[Multiaddr]:
        """Where we listen, with real ports."""
        return tuple(self._addresses)

    # Parts.

    @property
    def peers(self) -> PeerConnections:
        """The connections, with everything that there is to them: bans, events, what we say about ourselves.

        Raises:
            RuntimeError: the node was not started.
        """
        return self._started(self._peers)

    @property
    def messages(self) -> Messaging:
        """Messages to peers, and from them."""
        return self._started(self._messages)

    @property
    def rpc(self) -> NodeRpc:
        """Calls of peers, and services for them."""
        return self._started(self._rpc)

    def _started(self, part: T | None) -> T:
        if part is None:
            raise RuntimeError(_NOT_STARTED)
        return part

    # Peers.

    def add_peer(self, peer_id: PeerId | str, *addresses: Multiaddr | str) -> PeerId:
        """Tell where a peer may be dialled, beside what is known already.

        Returns:
            The id, which may be given as its 26 hexadecimal digits.

        Raises:
            ValueError: the id is none, or an address is none.
            RuntimeError: the node was not started, or has ended.
        """
        known = _id_of(peer_id)
        problems: Problems = []
        found = addresses_of("addresses", addresses, problems)
        if problems:
            raise ValueError("; ".join(what for _, what in problems))
        if self._book is None or self._is_over:
            raise RuntimeError("the node has ended" if self._is_over else _NOT_STARTED)
        self._book.add(known, found)
        return known

    async def connect(self, peer_id: PeerId | str) -> PeerConnection:
        """The connection to a peer: the one that stands, or a new one. Messages and calls need none: they connect.

        Raises:
            PeerNotKnown, PeerIsBanned, PeerNotReached, ConnectionsClosed: as ConnectionManager.connect.
            ValueError: the id is none.
        """
        return await self.peers.connect(_id_of(peer_id))

    @property
    def connections(self) -> Sequence[PeerConnection]:
        """Those that stand."""
        return self.peers.connections

    def events(self, size_max: int = EVENTS_MAX) -> EventSubscription:
        """Who connects, leaves, changes, from now on; a slow reader is told how much it missed."""
        return self.peers.events(size_max)

    # Protocols.

    def serve(self, protocol: str, handler: ProtocolHandler) -> None:
        """Serve every substream that a peer opens for `protocol`; before the start too, so that none comes too early.

        Raises:
            ValueError: the id has more than 255 bytes or none, or is served already.
        """
        if self._peers is not None:
            self._peers.serve(protocol, handler)
            return
        check_protocol_id(protocol)
        if protocol in self._early:
            raise ValueError(f"{protocol} is served already")
        self._early[protocol] = handler

    def protocol(self, protocol: str) -> Callable[[ProtocolHandler], ProtocolHandler]:
        """`serve` as a decorator."""
        return decorator_of(self.serve, protocol)

    # Figures.

    @property
    def counters(self) -> dict[str, int]:
        """What happened since the start, by name; `connections` is how many stand now."""
        groups = {
            "peers": asdict(self.peers.counters),
            "messages": asdict(self.messages.counts),
            "rpc": asdict(self.rpc.counts),
        }
        figures = {f"{group}_{name}": value for group, counts in groups.items() for name, value in counts.items()}
        return {"connections": len(self.connections), **figures}


def _id_of(peer_id: PeerId | str) -> PeerId:
    return PeerId.parse(peer_id) if isinstance(peer_id, str) else peer_id
