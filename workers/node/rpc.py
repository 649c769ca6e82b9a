"""The calls of a node: what it serves, and clients of what others serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from partywire.engine.rpc.client import RpcClient
from partywire.engine.rpc.server import RpcServer
from partywire.engine.rpc.wire import PAYLOAD_SIZE_MAX

if TYPE_CHECKING:
    from partywire.engine.peers.contract import PeerAccess
    from partywire.engine.peers.peer_id import PeerId
    from partywire.engine.rpc.server import RpcCounts, RpcLimits
    from partywire.engine.rpc.service import RpcService


class NodeRpc:
    """`PeerNode.rpc`."""

    def __init__(self, connections: PeerAccess, limits: RpcLimits) -> None:
        self._connections = connections
        self._server = RpcServer(connections, limits)

    @property
    def counts(self) -> RpcCounts:
        """What was served."""
        return self._server.counts

    def add(self, service: RpcService) -> None:
        """Serve it to every peer from now on.

        Raises:
            ValueError: its protocol is served already.
        """
        self._server.add(service)

    def remove(self, service: RpcService) -> None:
        """Serve no further substream of it; those that are open go on."""
        self._server.remove(service)

    def client(
        self,
        peer_id: PeerId,
        protocol: str,
        *,
        substreams_max: int = 4,
        payload_size_max: int = PAYLOAD_SIZE_MAX,
    ) -> RpcClient:
        """For calls of one service of one peer, which is dialled by the first of them. Finished by its `aclose`, or by
        leaving `async with`; at the latest with the node.

        Args:
            peer_id: whom to ask.
            protocol: the service.
            substreams_max: calls at the same time; further ones wait.
            payload_size_max: bytes of a request, and of each answer.
        """
        return RpcClient(
            self._connections, peer_id, protocol, substreams_max=substreams_max, payload_size_max=payload_size_max
        )
