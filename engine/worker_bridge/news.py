"""What happens to connections, as the heads that tell it, and the numbers by which connections are spoken of.

Between the events of a ConnectionManager and the standing substream of a bridge. The one invariant: behind whatever was
told, the opener knows which connections stand, by their numbers; what it was too slow for is told in one Standing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..peers import events
from ..yamux.errors import SubstreamSessionOver
from . import heads
from .heads import shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..peers.claims import PeerClaim
    from ..peers.contract import ConnectionManager, PeerConnection
    from ..peers.peer_id import PeerId
    from .heads import ConnectionNote, Head


STANDING_MAX: Final = 1000
"""Connections that one Standing tells of; of any others the opener learns when they have substreams for it."""


class Numbers:
    """Of the connections of one bridge. A connection that is over has none."""

    def __init__(self) -> None:
        self.known: dict[int, PeerConnection] = {}
        """Of which the opener was told, by whatever head, and not that they are over."""
        self.is_attended = False
        """Whether anybody is there to be told that they are over."""
        self._next = 1
        self._numbers: dict[PeerConnection, int] = {}
        self._connections: dict[int, PeerConnection] = {}
        self._notes: dict[int, tuple[PeerClaim, ConnectionNote]] = {}  # the latest of each, and the claim in it

    def of(self, connection: PeerConnection) -> int:
        """The number of a connection, which gets one if it is not over."""
        if (number := self._numbers.get(connection)) is None:
            number, self._next = self._next, self._next + 1
            if not connection.closed.done():
                self._numbers[connection] = number
                self._connections[number] = connection
                connection.closed.add_done_callback(lambda _: self._forget(connection))
        return number

    def _forget(self, connection: PeerConnection) -> None:
        number = self._numbers.pop(connection, 0)
        self._connections.pop(number, None)
        self._notes.pop(number, None)
        if not self.is_attended:
            self.known.pop(number, None)

    def find(self, number: int) -> PeerConnection | None:
        """The connection that has it."""
        return self._connections.get(number)

    def note(self, connection: PeerConnection) -> ConnectionNote:
        """All that the opener has to know of a connection. It is told when the connection is over.

        Raises:
            SubstreamSessionOver: it is over already.
        """
        if connection.closed.done():
            raise SubstreamSessionOver(str(connection.peer_id), connection.closed.result() or "it was closed")
        number = self.of(connection)
        self.known[number] = connection
        claim, note = self._notes.get(number, (None, None))
        if note is None or claim is not connection.claim:
            note = heads.ConnectionNote(
                number, connection.direction.value, str(connection.address), connection.claim.encode()
            )
            if number in self._connections:
                self._notes[number] = connection.claim, note
        return note


class News:
    """Of one standing substream."""

    def __init__(self, manager: ConnectionManager, numbers: Numbers) -> None:
        self._manager = manager
        self._numbers = numbers
        self._told: dict[int, PeerConnection] = {}  # as Connected

    def standing(self, missed: int) -> Iterator[Head]:
        """What stands now, as it is told at the start and behind `missed` events."""
        connections = [one for one in self._manager.connections if not one.closed.done()][:STANDING_MAX]
        standing = {self._numbers.of(connection): connection for connection in connections}
        known = self._numbers.known
        for number in known.keys() - standing.keys():
            del known[number]
        yield heads.Standing(tuple(standing), missed)
        told, self._told = self._told, standing
        for number, connection in standing.items():
            if number not in told:
                yield from self._connected(connection, is_news=False)

    def _connected(self, connection: PeerConnection, *, is_news: bool) -> Iterator[Head]:
        try:
            yield heads.Connected(self._numbers.note(connection), is_news)
        except SubstreamSessionOver:
            return  # while the opener was slow to take what was told before

    def tell(self, event: events.PeerEvent) -> Iterator[Head]:
        """The heads of one event."""
        match event:
            case events.PeerConnected(peer_id):
                connection = self._manager.connection_to(peer_id)
                if connection is None or connection in self._told.values():
                    return  # it is over again, or was told as standing
                yield from self._gone(peer_id, "another connection took its place")
                self._told[self._numbers.of(connection)] = connection
                yield from self._connected(connection, is_news=True)
            case events.PeerDisconnected(peer_id, cause):
                yield from self._gone(peer_id, cause)
            case events.PeerUpdated(peer_id):
                for number, connection in list(self._numbers.known.items()):
                    if connection.peer_id == peer_id:
                        yield heads.Updated(number, connection.claim.encode())
            case events.PeerConnectFailed(peer_id, cause):
                yield heads.ConnectFailed(str(peer_id), shortened(cause))
            case events.InboundFailed(address, cause):
                yield heads.InboundFailed(str(address), shortened(cause))
            case events.PeerBanned(peer_id, reason, until):
                yield heads.Banned(str(peer_id), shortened(reason), until)
            case events.Lagged(count):
                yield from self.standing(count)

    def _gone(self, peer_id: PeerId, cause: str) -> Iterator[Head]:
        """All connections to a peer are over but the one that stands."""
        stands = self._manager.connection_to(peer_id)
        for number, connection in list(self._numbers.known.items()):
            if connection.peer_id == peer_id and connection is not stands:
                del self._numbers.known[number]
                self._told.pop(number, None)
                yield heads.Disconnected(number, str(peer_id), shortened(cause))
