"""What the processes of a party share: made by their supervisor before any of them exists, kept for their successors.

Between the supervisor and each process that it starts. The one invariant: every descriptor here is there from `make` to
`close`, so processes may start in any order, and one that takes the place of another gets the same parts.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from partywire.shm.doorbell import create_doorbell

from .addresses import parse_address
from .commands import OpenLinks, Serve
from .control_socket import ControlSocket, close_all
from .listening import Listening, open_listening
from .topology import dials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .commands import Start
    from .node_family import NodeFamily


class SharedParts:
    """Of one party. Driven by its supervisor."""

    def __init__(self) -> None:
        self.doorbells: list[int] = []
        """(eventfd, page) of each worker."""
        self.gateway_ends: dict[int, socket.socket] = {}
        """Peer that dials us -> the gateway's end of its link socket."""
        self._link_ends: dict[int, socket.socket] = {}  # the same -> the I/O process's end
        self._listening = Listening()
        self._peer_listening: dict[int, Listening] = {}  # peer -> where it alone dials us

    # Making them.

    def listen(self, start: Start, fds: list[int]) -> None:
        """Listen where Start says, or on the one socket that came with it.

        Raises:
            ListenError: one of our addresses cannot be listened on.
        """
        if fds:
            self._listening.adopt(socket.socket(fileno=fds[0]))
        else:
            addresses = [parse_address(text, listening=True, port_min=0) for text in start.listen]
            self._listening = open_listening(addresses)
        for peer in start.party.peers:
            if peer.iris is not None and peer.iris.listen:
                own = parse_address(peer.iris.listen, listening=True)
                self._peer_listening[peer.index] = open_listening([own])

    def make(self, start: Start) -> None:
        """Doorbells of all workers, and the sockets on which the gateway hands connections over.

        Raises:
            OSError: the machine lacks descriptors or memory.
        """
        for _ in range(start.workers):
            self.doorbells += create_doorbell()
        for peer in start.party.peers:
            if dials(peer.name, start.party.name):
                self.gateway_ends[peer.index], self._link_ends[peer.index] = ControlSocket.pair()

    # The first message of each process, with the descriptors beside it.

    def doorbell_of(self, worker: int) -> list[int]:
        """(eventfd, page)."""
        return self.doorbells[2 * worker : 2 * worker + 2]

    def open_links(self, start: Start, peers: list[int], epochs: Mapping[int, int]) -> tuple[OpenLinks, list[int]]:
        """For an I/O process of these links. `epochs`: peer whose link was up -> the least epoch of its next one."""
        ends = [self._link_ends[peer].fileno() for peer in peers if peer in self._link_ends]
        of_peers = {str(peer): epoch for peer, epoch in epochs.items() if peer in peers}
        return OpenLinks(start.party, peers, start.workers, start.options, of_peers), [*self.doorbells, *ends]

    def serve(self, start: Start, node: NodeFamily | None) -> tuple[Serve, list[int]]:
        """For the gateway."""
        peers = sorted(self.gateway_ends)
        own = [(peer, sock) for peer, listening in self._peer_listening.items() for sock in listening.sockets]
        listeners = [*self._listening.sockets, *(sock for _, sock in own)]
        fds = [*(sock.fileno() for sock in listeners), *(self.gateway_ends[peer].fileno() for peer in peers)]
        node_bytes = b""
        if node is not None:
            fds.append(node.gateway_end.fileno())
            node_bytes = node.first_bytes
        of_peers = [peer for peer, _ in own]
        count = len(self._listening.sockets)
        return Serve(start.party, peers, count, start.workers, start.options, of_peers, node_bytes), fds

    def close(self) -> None:
        """Close everything, and take the paths of unix sockets away."""
        for end in (*self.gateway_ends.values(), *self._link_ends.values()):
            end.close()
        close_all(self.doorbells)
        for listening in (self._listening, *self._peer_listening.values()):
            listening.close()
