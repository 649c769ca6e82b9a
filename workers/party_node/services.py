"""Messages and calls of a party: those of every node, which also know linked parties by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from partywire.engine.messaging.messaging import Messaging
from partywire.engine.rpc.wire import PAYLOAD_SIZE_MAX

from ..node.rpc import NodeRpc

if TYPE_CHECKING:
    from partywire.engine.messaging.delivery import Delivery
    from partywire.engine.peers.peer_id import PeerId
    from partywire.engine.rpc.client import RpcClient

    from ..node.config import NodeConfig
    from .node import PartyNode


class PartyMessages(Messaging):
    """`party.node.messages`."""

    def __init__(self, node: PartyNode, config: NodeConfig) -> None:
        super().__init__(node, limits=config.messages)
        self._node = node

    async def send(self, peer_id: PeerId | str, body: bytes) -> Delivery:
        """As Messaging.send, also to a linked party by its name, whose link is waited for the first time.

        Raises:
            NoControlPlane, PeerNotReached, UnknownPeer: as PartyNode.connect.
        """
        return await super().send(await self._node.find_id(peer_id), body)


class PartyRpc(NodeRpc):
    """`party.node.rpc`."""

    def __init__(self, node: PartyNode, config: NodeConfig) -> None:
        super().__init__(node, config.rpc)
        self._node = node

    @property
    def has_services(self) -> bool:
        """Whether anything is served."""
        return self._server.has_services

    def client(
        self,
        peer_id: PeerId | str,
        protocol: str,
        *,
        substreams_max: int = 4,
        payload_size_max: int = PAYLOAD_SIZE_MAX,
    ) -> RpcClient:
        """As NodeRpc.client, also of a linked party by its name.

        Raises:
            PeerNotKnown: the party was not connected yet, so nobody knows its id: `await party.node.connect(name)`.
        """
        return super().client(
            self._node.id_of(peer_id), protocol, substreams_max=substreams_max, payload_size_max=payload_size_max
        )
