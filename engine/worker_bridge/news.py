"""What happens to connections, as the heads that tell it, and the numbers by which connections are spoken of.

Between the events of a ConnectionManager and the standing substream of a bridge. The one invariant: behind whatever was
told, the opener knows which connections stand, by their numbers; what it was too slow for is told in one Standing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..peers import events
from . import heads
from .heads import shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..peers.contract import ConnectionManager, PeerConnection
    from .heads import ConnectionNote, Head


STANDING_MAX: Final = 1000
"""Connections that one Standing tells of; of any others the opener learns when they have substreams for it."""


class Numbers:
    """Of the connections of one bridge. A connection that is over has none."""

    def __init__(self) -> None:
        self._next = 1
        self._numbers: dict[PeerConnection, int] = {}
        self._connections: dict[int, PeerConnection] = {}

    def of(self, connection: PeerConnection) -> int:
        """The number of a connection, which gets one."""
        if (number := self._numbers.get(connection)) is None:
            number, self._next = self._next, self._next + 1
            if not connection.closed.done():
                self._numbers[connection] = number
                self._connections[number] = connection
                connection.closed.add_done_callback(lambda _: self._forget(connection))
        return number

    def _forget(self, connection: PeerConnection) -> None:
        self._connections.pop(self._numbers.pop(connection, 0), None)

    def find(self, number: int) -> PeerConnection | None:
        """The connection that has it."""
        return self._connections.get(number)

    def note(self, connection: PeerConnection) -> ConnectionNote:
        """All that the opener has to know of a connection."""
        return heads.ConnectionNote(
            self.of(connection),
            connection.direction.value,
            str(connection.address),
            connection.claim.encode(),
        )


class News:
    """Of one standing substream."""

    def __init__(self, manager: ConnectionManager, numbers: Numbers) -> None:
        self._manager = manager
        self._numbers = numbers
        self._told: dict[int, PeerConnection] = {}  # what the opener takes for standing

    def standing(self, missed: int) -> Iterator[Head]:
        """What stands now, as it is told at the start and behind `missed` events."""
        connections = self._manager.connections[:STANDING_MAX]
        numbers = [self._numbers.of(connection) for connection in connections]
        yield heads.Standing(tuple(numbers), missed)
        known = self._told
        self._told = dict(zip(numbers, connections, strict=True))
        for number, connection in self._told.items():
            if number not in known:
                yield heads.Connected(self._numbers.note(connection), False)

    def tell(self, event: events.PeerEvent) -> Iterator[Head]:
        """The heads of one event."""
        match event:
            case events.PeerConnected(peer_id):
                connection = self._manager.connection_to(peer_id)
                if connection is None or connection in self._told.values():
                    return  # it is over again, or was told as standing
                yield from self._gone(peer_id, "another connection took its place")
                note = self._numbers.note(connection)
                self._told[note.number] = connection
                yield heads.Connected(note, True)
            case events.PeerDisconnected(peer_id, cause):
                yield from self._gone(peer_id, cause)
            case events.PeerUpdated(peer_id):
                for number, connection in self._told.items():
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

    def _gone(self, peer_id: object, cause: str) -> Iterator[Head]:
        for number, connection in list(self._told.items()):
            if connection.peer_id == peer_id:
                del self._told[number]
                yield heads.Disconnected(number, str(peer_id), shortened(cause))
